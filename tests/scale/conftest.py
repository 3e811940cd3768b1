"""A Ray cluster on this machine, one for all tests of scale/, and images that take no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

MEMORY = 80_000_000  # bytes of a node's object store


class TwoMachines:
    """The machine of this process, where no worker has room, and one for the workers that can be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": MEMORY,
            # A machine that is lost is missed after 2.5 s, not 15; one that answers slowly is given as long as ever. Workers
            # are not niced: beside other tests they would hardly compute.
            "_system_config": {
                "health_check_initial_delay_ms": 0,
                "health_check_period_ms": 500,
                "worker_niceness": 0,
            },
        }
        self.ray = Cluster(initialize_head=True, head_node_args=head)
        self.address = self.ray.address
        self.add()

    def add(self) -> None:
        self._workers_node = self.ray.add_node(num_cpus=1, object_store_memory=MEMORY)

    def lose(self) -> None:
        """End the workers' machine with all that runs on it, and let another one join."""
        lost = self._workers_node
        self.add()
        self.ray.remove_node(lost, allow_graceful=False)


@pytest.fixture(scope="package")  # not longer: its processes would go on through all other tests
def cluster() -> Iterator[TwoMachines]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")
    made = TwoMachines()
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.ray.shutdown()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, images: Callable[..., Any]) -> Path:
    """12 good images; one in a folder inside, that only ``predict`` sees."""
    root = tmp_path_factory.mktemp("line")
    good = root / "good"
    (good / "later").mkdir(parents=True)
    for number, pixels in enumerate(images(12)):
        Image.fromarray(pixels).save(good / f"{number:03d}.png")
    Image.fromarray(images(1, seed=5)[0]).save(good / "later" / "a.png")
    return root
