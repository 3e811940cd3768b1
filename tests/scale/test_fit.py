"""Fit over several processes of a real Ray cluster: the model file is that of one machine, and workers may die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")

import ray
from conftest import LIGHT

from sapatchcore import SAPatchCore
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.model_file import read_model
from sapatchcore.scale import fit as module
from sapatchcore.scale.fit import TrainingListing, fit

# The images, which are 64×64, make that of the size.
SHAPE: dict[str, Any] = {"resize": (64, 96), "keep_aspect": True}
OPTIONS: dict[str, Any] = {**LIGHT, **SHAPE, "coreset_ratio": 0.05, "global_part": "pooled"}


def lose_a_worker() -> None:
    name = next(name for name in sorted(ray.util.list_named_actors()) if name.startswith("share-"))
    ray.kill(ray.get_actor(name), no_restart=False)


def test_the_file_is_that_of_one_machine_whatever_is_lost(
    cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker or a machine that is lost is replaced, and the images are embedded again, as if nothing had been."""
    monkeypatch.setattr(module, "CANDIDATES", 16)  # so that there are several rounds
    monkeypatch.setattr(module, "FEWEST_CANDIDATES", 8)
    losses: dict[str, Callable[[], None]] = {
        "embed": lose_a_worker,
        "coreset": cluster.lose,
        "calibrate": lose_a_worker,
    }
    rounds = []

    def progress(stage: str, done: int, total: int | None) -> None:
        assert total is not None
        assert 0 <= done <= total
        if stage == "coreset":
            rounds.append(done)
        if lose := losses.pop(stage, None):
            lose()

    many, path = tmp_path / "many.safetensors", tmp_path / "alone.safetensors"
    summary = fit(folder / "good", many, OPTIONS, address=cluster.address, shares=2, progress=progress)
    assert not losses
    assert len(rounds) > 2
    found, alone = SAPatchCore.load(many), SAPatchCore(**OPTIONS).fit(folder / "good")
    alone.save(path)
    # The same patches of the same images, in the same order; batches differ, and with them the last bits of float32.
    for one, another in zip(alone.provenance, found.provenance, strict=True):
        np.testing.assert_array_equal(one, another)
    np.testing.assert_allclose(alone.memory_bank, found.memory_bank, rtol=1e-4, atol=1e-5)
    assert found.covering_radius == pytest.approx(alone.covering_radius, rel=1e-4)
    assert summary == {
        "training_images": 12,
        "bank": list(alone.memory_bank.shape),
        "calibration_images": 12,
        "covering_radius": pytest.approx(alone.covering_radius, rel=1e-4),
        "resize": (64, 64),
    }
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


def test_images_are_dealt_in_turn(folder: Path) -> None:
    good = folder / "good"
    listing = TrainingListing(str(good), "auto", str(good / "later"))
    names = [str(good / f"{number:03d}.png") for number in range(12)]
    assert listing.counts() == (12, 1)
    assert [list(some) for some in listing.train(3)] == [names, names[::3], names[1::3], names[2::3]]
    assert [list(some) for some in listing.apart(2)] == [[str(good / "later" / "a.png")]] * 2 + [[]]
    assert TrainingListing(str(good), "auto", None).counts() == (12, 0)


def test_wrong_use_is_said_before_any_work(cluster: Any, folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    with pytest.raises(SettingsError, match=r"The number of workers must be 1 or more\. Got 0"):
        fit(folder / "good", model, OPTIONS, address=cluster.address, shares=0)
    with pytest.raises(DataError, match="does not exist"):
        fit(folder / "nothing", model, OPTIONS, address=cluster.address)
    with pytest.raises(SettingsError, match=r"`address` must be local, auto or HOST:PORT"):
        fit(folder / "good", model, OPTIONS, address="ray://here:10001")
