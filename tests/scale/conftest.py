"""A Ray cluster on this machine, once for all tests, and images that take no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, images: Callable[..., Any]) -> Path:
    """26 good images; one in a folder inside, that only ``predict`` sees."""
    root = tmp_path_factory.mktemp("line")
    good = root / "good"
    (good / "later").mkdir(parents=True)
    for number, pixels in enumerate(images(26)):
        Image.fromarray(pixels).save(good / f"{number:03d}.png")
    Image.fromarray(images(1, seed=5)[0]).save(good / "later" / "a.png")
    return root


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine; this process is on the first."""
    pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 200_000_000},
    )
    made.add_node(num_cpus=1, object_store_memory=200_000_000)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
