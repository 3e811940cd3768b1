"""Shares and the coordinator in this process: what they answer, and how much of it travels."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")

import ray
from conftest import LIGHT

from sapatchcore import SAPatchCore
from sapatchcore.memory.distributed import Choice
from sapatchcore.scale.cluster import Assignments
from sapatchcore.scale.fit import TrainingListing
from sapatchcore.scale.fit_coordinator import FitCoordinator
from sapatchcore.scale.share import ShareWorker

pytestmark = pytest.mark.usefixtures("cluster")
OPTIONS: dict[str, Any] = {**LIGHT, "coreset_ratio": 0.05, "global_part": "pooled"}
WHITENED: dict[str, Any] = {**OPTIONS, "metric": "whitened"}


@pytest.fixture
def options() -> dict[str, Any]:
    """What ``dealt`` is fitted with; a test may give others."""
    return OPTIONS


@pytest.fixture
def dealt(folder: Path, options: dict[str, Any]) -> tuple[FitCoordinator, list[ShareWorker], list[Any]]:
    """A coordinator, two shares that have embedded, and references to the names of all images: of those to calibrate with
    there are fewer than shares."""
    coordinator = FitCoordinator(options)
    listing = TrainingListing(str(folder / "good"), "auto", str(folder / "good" / "later"))
    (train, *trains), (apart, *aparts) = ([ray.put(one) for one in of(2)] for of in (listing.train, listing.apart))
    task = ray.put(coordinator.task(12, 1, 2, [train])[0])
    name = f"assignments-{secrets.token_hex(8)}"
    assignments: Any = ray.remote(Assignments).options(name=name, num_cpus=0).remote()
    ray.get(assignments.assign.remote([(task, *names) for names in zip(trains, aparts, strict=True)]))
    shares = [ShareWorker(name, number) for number in range(2)]
    assert {share.learn() for share in shares} == {(64, (8, 8))}
    assert ray.get(assignments.done.remote("embed")) == 12
    return coordinator, shares, [train, apart]


def choose(coordinator: FitCoordinator, shares: list[ShareWorker], fold: int, begun: tuple[Any, int]) -> list[Any]:
    """References to the rounds of centres. begun: the first, and how many centres are still to choose."""
    rounds, missing = [ray.put(begun[0])], begun[1]
    while missing:
        centres, missing = coordinator.choose_among(*(one.candidates(fold, rounds, 20) for one in shares))
        rounds.append(ray.put(centres))
    return rounds


def choose_whole(coordinator: FitCoordinator, shares: list[ShareWorker], count: int) -> list[Any]:
    share, row = coordinator.first(count, 64)
    return choose(coordinator, shares, -1, coordinator.begin(share, row, shares[share].point(row)))


@pytest.mark.parametrize("ratio", [0.06, 0.9])
def test_a_fold_s_bank_is_that_of_one_machine(
    ratio: float, dealt: tuple[FitCoordinator, list[ShareWorker], list[Any]], folder: Path
) -> None:
    """46 patches of the others', or all where there are fewer than the whole bank has."""
    coordinator, shares, _ = dealt
    alone = SAPatchCore(**{**OPTIONS, "coreset_ratio": ratio}).fit(folder / "good")
    choose_whole(coordinator, shares, len(alone.memory_bank))
    for fold in range(5):
        choose(coordinator, shares, fold, coordinator.outside(fold))
        bank = coordinator.bank((8, 8), *(one.kept(coordinator.centres()) for one in shares))
        others = sum(number % 5 != fold for number in range(12))
        assert len(bank.images) == min(len(alone.memory_bank), 64 * others)
        assert not (bank.images % 5 == fold).any()
        parts = [part for part in (one.cross_fitted(fold, bank) for one in shares) if part is not None]
        found = np.concatenate([part.arrays["images"] for part in parts])
        assert sorted(found.tolist()) == [number for number in range(12) if number % 5 == fold]
        grids, rows = (np.concatenate([part.arrays[name] for part in parts]) for name in ("grids", "rows"))
        np.testing.assert_allclose(grids, alone.calibration.grids[found], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(rows, alone.calibration.rows[found])


@pytest.mark.parametrize("options", [WHITENED], ids=["whitened"])
def test_a_fold_is_scored_in_the_whitening_of_the_others(
    dealt: tuple[FitCoordinator, list[ShareWorker], list[Any]], folder: Path
) -> None:
    """As on one machine, whose scores are those of a fit without the fold."""
    coordinator, shares, _ = dealt
    alone = SAPatchCore(**WHITENED).fit(folder / "good")
    choose_whole(coordinator, shares, len(alone.memory_bank))
    choose(coordinator, shares, 1, coordinator.outside(1))
    bank = coordinator.bank((8, 8), *(one.kept(coordinator.centres()) for one in shares))
    for part in (one.cross_fitted(1, bank) for one in shares):
        assert part is not None
        expected = alone.calibration.scores[part.arrays["images"]]
        np.testing.assert_allclose(part.arrays["scores"], expected, rtol=1e-4)


@pytest.mark.parametrize("options", [OPTIONS, WHITENED], ids=["euclidean", "whitened"])
def test_good_images_apart_calibrate_it(
    dealt: tuple[FitCoordinator, list[ShareWorker], list[Any]], options: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """Fewer of them than there are shares, so that one share has none."""
    coordinator, shares, names = dealt
    rounds = choose_whole(coordinator, shares, int(0.05 * 12 * 64))
    kept = [one.kept(coordinator.centres()) for one in shares]
    statistics = [one.statistics() for one in shares]
    bank = coordinator.with_statistics(coordinator.bank((8, 8), *kept), *statistics)

    def answers(method: Callable[[ShareWorker], Any]) -> list[Any]:
        return [ray.put(method(one)) for one in shares]

    path = tmp_path / "m.safetensors"
    summary = coordinator.write(
        str(path),
        (False, False),
        bank,
        names,
        [
            [ray.put(one) for one in kept],
            answers(lambda one: one.radius(-1, rounds)),
            answers(ShareWorker.sizes),
            answers(ShareWorker.statistics),
            answers(lambda one: one.separate(bank)),
        ],
    )
    assert summary["calibration_images"] == 1
    alone = SAPatchCore(**options).fit(folder / "good", calibrate=folder / "good" / "later")
    found, expected = SAPatchCore.load(path), alone.calibration
    np.testing.assert_allclose(found.memory_bank, alone.memory_bank, rtol=1e-4, atol=1e-5)
    assert found.calibration.source == "separate"
    assert found.calibration.names == expected.names == (str(folder / "good" / "later" / "a.png"),)
    assert found.calibration.sizes == expected.sizes
    np.testing.assert_allclose(found.calibration.grids, expected.grids, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.calibration.images, [-1])
    np.testing.assert_allclose(found.bank.global_part.rows, alone.bank.global_part.rows, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.calibration.global_scores, expected.global_scores, rtol=1e-3)


def test_only_what_was_asked_for_travels(dealt: tuple[FitCoordinator, list[ShareWorker], list[Any]]) -> None:
    """Of a view of a tensor, all that it is a view of would be sent."""
    share, width = dealt[1][0], 128
    point, choice = share.point(17), Choice(40)
    assert point.shape == (width,)
    assert sent(point) < 4 * width + 1000
    centres = choice.begin(0, 17, point)
    shown = share.candidates(-1, [ray.put(centres)], 30)
    assert sent(shown) < 30 * (4 * width + 8 + 4) + 2000
    assert sent(choice.among([shown])) < 30 * (4 * width + 8 + 8) + 2000


def sent(value: object) -> int:
    return len(pickle.dumps(value))


def test_all_shares_have_the_temperature_and_whitening_of_the_same_images(folder: Path) -> None:
    options = {**OPTIONS, "temperature": "auto", "metric": "whitened"}
    names, *_ = TrainingListing(str(folder / "good"), "auto", None).train(2)
    task, _ = FitCoordinator(options).task(len(names), 1, 2, [ray.put(names)])
    alone = SAPatchCore(**options).fit(folder / "good")
    assert task.options == {**options, "temperature": alone.settings.temperature, "resize": alone.settings.resize}
    assert task.options["temperature"] != 1
    assert task.whitening is not None
    own = alone.embedder.whitening
    for one, other in zip((task.whitening, *task.whitening.folds), (own, *own.folds), strict=True):
        np.testing.assert_array_equal(one.local, other.local)
        np.testing.assert_array_equal(one.context, other.context)
