"""Fit over several processes of a real Ray cluster: the model file is that of one machine, and workers may die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")

import ray
from conftest import SMALL

from sapatchcore import SAPatchCore
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.model_file import read_model
from sapatchcore.scale.fit import fit

OPTIONS: dict[str, Any] = {**SMALL, "coreset_ratio": 0.05}
Stages = dict[str, Callable[[], None]]


def fitted(cluster: Any, folder: Path, path: Path, shares: int, at: Stages | None = None, **more: Any) -> SAPatchCore:
    """The model file of a distributed fit. at: what happens when a stage is first seen."""
    left = dict(at or {})

    def progress(stage: str, done: int, total: int | None) -> None:
        assert total is not None
        assert 0 <= done <= total
        if act := left.pop(stage, None):
            act()

    fit(folder / "good", path, OPTIONS, address=cluster.address, shares=shares, progress=progress, **more)
    assert not left
    return SAPatchCore.load(path)


@pytest.fixture(scope="module")
def alone(folder: Path) -> SAPatchCore:
    return SAPatchCore(**OPTIONS).fit(folder / "good")


def test_the_file_is_that_of_one_machine_whatever_is_lost(
    cluster: Any, folder: Path, alone: SAPatchCore, tmp_path: Path
) -> None:
    """A worker or a machine that is lost is made again elsewhere and embeds its images again, as if nothing had been."""

    def lose_a_worker() -> None:
        name = next(name for name in sorted(ray.util.list_named_actors()) if name.startswith("share-"))
        ray.kill(ray.get_actor(name), no_restart=False)

    def lose_a_machine() -> None:
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    many, path = tmp_path / "many.safetensors", tmp_path / "alone.safetensors"
    try:
        found = fitted(
            cluster, folder, many, 2, {"embed": lose_a_worker, "coreset": lose_a_machine, "calibrate": lose_a_worker}
        )
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    alone.save(path)
    # The same patches of the same images, in the same order; batches differ, and with them the last bits of float32.
    for one, another in zip(alone.provenance, found.provenance, strict=True):
        np.testing.assert_array_equal(one, another)
    np.testing.assert_allclose(alone.memory_bank, found.memory_bank, rtol=1e-4, atol=1e-5)
    assert found.covering_radius == pytest.approx(alone.covering_radius, rel=1e-4)
    for name in ("scores", "local", "context", "peaks", "grids"):
        np.testing.assert_allclose(
            getattr(alone.calibration, name), getattr(found.calibration, name), rtol=1e-3, atol=1e-4, err_msg=name
        )
    np.testing.assert_array_equal(alone.calibration.images, found.calibration.images)
    assert alone.calibration.names == found.calibration.names
    assert alone.calibration.sizes == found.calibration.sizes
    # The file does not say where it was made: the same things are in it, under the same names.
    one, another = read_model(path), read_model(many)
    for stored in (one, another):
        assert stored.header.pop("covering_radius")
    assert one.header == another.header
    assert set(one.more) == set(another.more)
    assert (one.more["thumbnails"] == another.more["thumbnails"]).all()
    assert one.weights is not None
    assert another.weights is not None
    assert all((one.weights[name] == another.weights[name]).all() for name in (*one.weights, *another.weights))


def test_good_images_apart_calibrate_it(cluster: Any, folder: Path, tmp_path: Path) -> None:
    """Fewer of them than there are shares, so that one share has none."""
    apart = folder / "good" / "later"
    found = fitted(cluster, folder, tmp_path / "m.safetensors", 2, calibrate=apart)
    expected = SAPatchCore(**OPTIONS).fit(folder / "good", calibrate=apart).calibration
    assert found.calibration.source == "separate"
    assert found.calibration.names == expected.names == (str(apart / "a.png"),)
    assert found.calibration.sizes == expected.sizes
    np.testing.assert_allclose(found.calibration.grids, expected.grids, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.calibration.images, [-1])


def test_wrong_use_is_said_before_any_work(cluster: Any, folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    with pytest.raises(SettingsError, match=r"The number of workers must be 1 or more\. Got 0"):
        fit(folder / "good", model, OPTIONS, address=cluster.address, shares=0)
    with pytest.raises(DataError, match="does not exist"):
        fit(folder / "nothing", model, OPTIONS, address=cluster.address)
    with pytest.raises(SettingsError, match=r"`address` must be local, auto or HOST:PORT"):
        fit(folder / "good", model, OPTIONS, address="ray://here:10001")
