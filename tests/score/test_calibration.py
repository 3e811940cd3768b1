"""The calibration: left-out scores against a plain comparison in float64, maps' peaks, the model file, what has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checks
import numpy as np
import numpy.typing as npt
import pytest
import torch

from sapatchcore import SAPatchCore
from sapatchcore.errors import NotFittedError, SettingsError
from sapatchcore.score.anomaly_score import anomaly_map
from sapatchcore.score.calibration import ARRAYS, LEAVE_ONE_OUT, NO_CALIBRATION, SEPARATE, Calibration, concatenated

UInt8 = npt.NDArray[np.uint8]
TINY = 1e-9  # a coreset ratio that keeps a single patch


def left_out_grids(detector: SAPatchCore, patches: torch.Tensor) -> torch.Tensor:
    """Slow oracle: (n, h, w) float64, each patch's distance to the nearest row of another image.

    patches: (n, h, w, d) of the training images, in their order.
    """
    bank = torch.from_numpy(detector.memory_bank.copy()).double()
    owner = torch.from_numpy(detector.provenance[1])
    grids = []
    for number, rows in enumerate(patches.double()):
        others = bank[owner != number]
        exact = torch.cdist(rows.flatten(0, 1), others, compute_mode="donot_use_mm_for_euclid_dist")
        grids.append(exact.amin(1).reshape(rows.shape[:2]))
    return torch.stack(grids)


def reweighted(detector: SAPatchCore, patches: torch.Tensor, number: int) -> float:
    """Slow oracle: training image ``number``'s reweighted score among the rows of other images, in float64."""
    bank = torch.from_numpy(detector.memory_bank.copy()).double()
    others = bank[torch.from_numpy(detector.provenance[1]) != number]
    rows = patches[number].double().flatten(0, 1)
    away = (rows[:, None] - others).square().sum(2).sqrt()
    worst = int(away.amin(1).argmax())
    match = int(away[worst].argmin())
    around = (others - others[match]).square().sum(1).argsort()[: detector.settings.neighbors]
    s = float(away[worst, match])
    return s * (1 - 1 / sum(math.exp(float(away[worst, row]) - s) for row in around))


def embedded(detector: SAPatchCore, images: UInt8) -> torch.Tensor:
    return torch.from_numpy(detector.embed(images))


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.6, 1.0])
def test_left_out_scores_are_a_plain_comparison_with_the_other_images(
    ratio: float, good: UInt8, small: dict[str, Any]
) -> None:
    detector = checks.left_out(SAPatchCore(**small, coreset_ratio=ratio).fit(good), good)
    calibration, patches = detector.calibration, embedded(detector, good)
    expected = left_out_grids(detector, patches)
    np.testing.assert_allclose(calibration.grids, expected, rtol=1e-4)
    np.testing.assert_allclose(calibration.scores, expected.amax((1, 2)), rtol=1e-4)
    assert calibration.source == LEAVE_ONE_OUT
    assert calibration.images.tolist() == list(range(10))
    assert calibration.names == tuple(image for image in detector.provenance[0])
    assert calibration.sizes == ((64, 64),) * 10


def test_rows_and_parts_belong_to_the_distances(good: UInt8, small: dict[str, Any]) -> None:
    fitted = checks.left_out(SAPatchCore(**small, coreset_ratio=0.1).fit(good), good)
    calibration, patches = fitted.calibration, embedded(fitted, good).double()
    matched = torch.from_numpy(fitted.memory_bank[calibration.rows]).double()  # (n, h, w, d)
    owners = fitted.provenance[1][calibration.rows]
    assert (owners != calibration.images[:, None, None]).all()
    squared = (patches - matched).square()
    c2 = fitted.embedder.network.channels[0]
    np.testing.assert_allclose(calibration.grids, squared.sum(3).sqrt(), rtol=1e-4)
    np.testing.assert_allclose(calibration.local, squared[..., :c2].sum(3).sqrt().amax((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(calibration.context, squared[..., c2:].sum(3).sqrt().amax((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("neighbors", [2, 9])
def test_left_out_reweighted_scores(neighbors: int, good: UInt8, small: dict[str, Any]) -> None:
    """The weight, too, knows only the rows of other images."""
    options = {**small, "image_score": "reweighted", "neighbors": neighbors}
    detector = checks.left_out(SAPatchCore(**options, coreset_ratio=0.1).fit(good), good)
    patches = embedded(detector, good)
    expected = [reweighted(detector, patches, number) for number in range(10)]
    np.testing.assert_allclose(detector.calibration.scores, expected, rtol=1e-3)
    assert (detector.calibration.scores < detector.calibration.grids.max((1, 2))).all()


def test_cross_fitted_scores_are_above_those_with_the_own_patches(fitted: SAPatchCore, good: UInt8) -> None:
    with_own = fitted.predict(good).patch_scores
    assert fitted.calibration.scores.mean() > with_own.max((1, 2)).mean() * 1.01


def test_batches_do_not_matter(good: UInt8, small: dict[str, Any]) -> None:
    one, other = (
        SAPatchCore(**{**small, "batch_size": size}, coreset_ratio=0.1).fit(good).calibration for size in (3, 10)
    )
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
    assert one.names == other.names


def test_two_images_are_each_scored_by_the_other(good: UInt8, small: dict[str, Any]) -> None:
    detector = SAPatchCore(**small, coreset_ratio=1).fit(good[:2])
    one, other = embedded(detector, good[:2]).double().flatten(1, 2)
    between = torch.cdist(one, other)
    expected = [float(between.amin(1).max()), float(between.amin(0).max())]
    np.testing.assert_allclose(detector.calibration.scores, expected, rtol=1e-4)
    assert detector.threshold(0.34) == detector.calibration.scores.max()
    with pytest.raises(SettingsError, match=r"at least 0\.3334, the smallest rate that 2 calibration images"):
        detector.threshold(0.01)


def has_none(detector: SAPatchCore, good: UInt8) -> None:
    assert not detector.is_calibrated
    result = detector.predict(good[:1])  # scores need no calibration
    assert result.calibration is None
    asked: list[Callable[[], object]] = [
        lambda: detector.calibration,
        detector.threshold,
        detector.pixel_threshold,
        lambda: detector.drift([1.0]),
        result.verdicts,
        lambda: result.p_values,
        lambda: result.regions(0),
    ]
    for ask in asked:
        with pytest.raises(NotFittedError) as caught:
            ask()
        assert str(caught.value) == NO_CALIBRATION


def test_one_training_image_has_nothing_to_be_compared_with(good: UInt8, small: dict[str, Any], tmp_path: Path) -> None:
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good[:1])
    has_none(detector, good)
    detector.save(tmp_path / "one.safetensors")
    has_none(SAPatchCore.load(tmp_path / "one.safetensors", device="cpu"), good)
    assert detector.calibrate(good[1:]).is_calibrated  # the remedy that the sentence names


def test_a_bank_of_a_single_patch(good: UInt8, small: dict[str, Any]) -> None:
    """Every fold's has one, too; but it has no neighbours that could weigh a score."""
    detector = SAPatchCore(**small, coreset_ratio=TINY).fit(good)
    assert len(detector.memory_bank) == 1
    assert len(detector.calibration) == 10
    assert not SAPatchCore(**small, coreset_ratio=TINY, image_score="reweighted").fit(good).is_calibrated


def test_no_calibration_before_fit(small: dict[str, Any]) -> None:
    with pytest.raises(NotFittedError, match="has learned nothing yet"):
        _ = SAPatchCore(**small).calibration
    with pytest.raises(NotFittedError, match="has learned nothing yet"):
        _ = SAPatchCore(**small).is_calibrated


def test_separate_images_score_as_they_are_predicted(
    good: UInt8, images: Callable[..., UInt8], small: dict[str, Any]
) -> None:
    other = images(6, (80, 64), 3)
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good, calibrate=other)
    calibration, result = detector.calibration, detector.predict(other)
    assert calibration.source == SEPARATE
    assert calibration.images.tolist() == [-1] * 6
    assert np.array_equal(calibration.scores, result.scores)
    assert np.array_equal(calibration.grids, result.patch_scores)
    assert np.array_equal(calibration.rows, result.neighbours)
    assert np.array_equal(calibration.local, result.local_patches.max((1, 2)))
    assert np.array_equal(calibration.context, result.context_patches.max((1, 2)))
    assert calibration.peaks.tolist() == [float(values.max()) for values in result.maps]
    assert calibration.sizes == ((80, 64),) * 6


def test_calibrating_changes_neither_bank_nor_scores(
    good: UInt8, images: Callable[..., UInt8], small: dict[str, Any], fitted: SAPatchCore
) -> None:
    other = images(6, (64, 64), 3)
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good, calibrate=other)
    assert np.array_equal(detector.memory_bank, fitted.memory_bank)
    assert np.array_equal(detector.predict(other).scores, fitted.predict(other).scores)
    later = SAPatchCore(**small, coreset_ratio=0.1).fit(good).calibrate(other)
    same(later.calibration, detector.calibration)


@pytest.mark.parametrize("crop", [None, (48, 40)])
def test_peaks_are_the_largest_values_of_the_maps(
    crop: tuple[int, int] | None, images: Callable[..., UInt8], small: dict[str, Any]
) -> None:
    """Of images of any size, the maps that leaving out would draw."""
    mixed = [*images(3, (80, 64), 1), *images(3, (50, 90), 2)]
    detector = SAPatchCore(**{**small, "crop": crop}, coreset_ratio=0.1).fit(mixed)
    calibration = detector.calibration
    assert calibration.sizes == ((80, 64),) * 3 + ((50, 90),) * 3
    for grid, size, peak in zip(calibration.grids, calibration.sizes, calibration.peaks, strict=True):
        assert peak == anomaly_map(grid, size, (64, 64), crop).max()
    assert (calibration.peaks > 0).all()


def same(one: Calibration, other: Calibration) -> None:
    for name in ARRAYS:
        first, second = getattr(one, name), getattr(other, name)
        assert first.dtype == second.dtype, name
        assert np.array_equal(first, second), name
    for name in ("source", "names", "sizes", "image_score", "neighbors"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("separate", [False, True])
def test_the_model_file_keeps_it_to_the_bit(
    separate: bool, good: UInt8, images: Callable[..., UInt8], small: dict[str, Any], tmp_path: Path
) -> None:
    detector = SAPatchCore(**small, coreset_ratio=0.1)
    detector.fit(good, calibrate=images(5, (80, 64), 3) if separate else None)
    detector.save(tmp_path / "model.safetensors")
    loaded = SAPatchCore.load(tmp_path / "model.safetensors", device="cpu")
    same(loaded.calibration, detector.calibration)
    assert loaded.threshold(0.2) == detector.threshold(0.2)
    assert loaded.pixel_threshold(0.2) == detector.pixel_threshold(0.2)
    loaded.save(tmp_path / "again.safetensors")
    same(SAPatchCore.load(tmp_path / "again.safetensors", device="cpu").calibration, detector.calibration)


def test_scores_of_another_kind_are_not_measured_against(good: UInt8, fitted: SAPatchCore, tmp_path: Path) -> None:
    fitted.save(tmp_path / "max.safetensors")
    has_none(SAPatchCore.load(tmp_path / "max.safetensors", device="cpu", image_score="reweighted"), good)
    # Neighbours weigh only reweighted scores.
    other = SAPatchCore.load(tmp_path / "max.safetensors", device="cpu", neighbors=3)
    assert np.array_equal(other.calibration.scores, fitted.calibration.scores)


def test_other_neighbours_make_other_reweighted_scores(good: UInt8, small: dict[str, Any], tmp_path: Path) -> None:
    detector = SAPatchCore(**small, image_score="reweighted", coreset_ratio=0.1).fit(good)
    detector.save(tmp_path / "model.safetensors")
    same(SAPatchCore.load(tmp_path / "model.safetensors", device="cpu").calibration, detector.calibration)
    has_none(SAPatchCore.load(tmp_path / "model.safetensors", device="cpu", neighbors=4), good)


@pytest.mark.parametrize("fitted_with", ["max", "reweighted", "smoothed"])
@pytest.mark.parametrize("asked", ["max", "smoothed"])
def test_another_image_score_is_calibrated_as_by_a_fit_with_it(
    fitted_with: str, asked: str, good: UInt8, small: dict[str, Any], tmp_path: Path
) -> None:
    options = {**small, "coreset_ratio": 0.1}
    SAPatchCore(**options, image_score=fitted_with).fit(good).save(tmp_path / "model.safetensors")
    loaded = SAPatchCore.load(tmp_path / "model.safetensors", device="cpu", image_score=asked)
    same(loaded.calibration, SAPatchCore(**options, image_score=asked).fit(good).calibration)


@pytest.mark.parametrize(
    ("separate", "image_score"),
    [
        (False, "max"),
        (True, "max"),
        (True, "reweighted"),
        (False, "reweighted"),
    ],
)
def test_what_a_forgotten_image_leaves_are_upper_bounds(
    separate: bool, image_score: str, good: UInt8, images: Callable[..., UInt8], small: dict[str, Any]
) -> None:
    """Without the images at hand the scores can only be bounded."""
    other = images(5, (64, 64), 3)
    detector = SAPatchCore(**small, image_score=image_score, coreset_ratio=0.1)
    detector.fit(good, calibrate=other if separate else None)
    if not separate:
        checks.left_out(detector, good)
    before = detector.calibration
    detector.forget("image 3")
    calibration, left = detector.calibration, np.delete(good, 3, axis=0)
    if separate:
        assert len(calibration) == 5
        truth = detector.predict(other)
        grids, scores = truth.patch_scores, truth.scores
    else:
        assert calibration.names == tuple(name for name in before.names if name != "image 3")
        assert calibration.images.tolist() == list(range(9))
        patches = embedded(detector, left)
        grids = left_out_grids(detector, patches).numpy()
        scores = grids.max((1, 2))
        if image_score == "reweighted":
            scores = np.array([reweighted(detector, patches, number) for number in range(9)])
    assert (calibration.grids >= grids * (1 - 1e-4)).all()
    assert (calibration.scores >= scores * (1 - 1e-3)).all()
    for grid, size, peak in zip(grids, calibration.sizes, calibration.peaks, strict=True):
        assert peak >= anomaly_map(grid.astype(np.float32), size, (64, 64), None).max() * (1 - 1e-4)
    assert calibration.rows.max() < len(detector.memory_bank)


def test_joined_takes_both_in_order(fitted: SAPatchCore) -> None:
    calibration = fitted.calibration
    both = concatenated(calibration, calibration)
    assert len(both) == 20
    assert both.names == calibration.names * 2
    assert both.scores.tolist() == calibration.scores.tolist() * 2


def test_arrays_that_do_not_fit_are_refused(fitted: SAPatchCore) -> None:
    calibration = fitted.calibration
    with pytest.raises(ValueError, match=r"Calibration\.peaks must have 10 entries\. Got 9\."):
        replace(calibration, peaks=calibration.peaks[:9])
    with pytest.raises(ValueError, match="finite"):
        replace(calibration, scores=np.full(10, np.nan, np.float32))
