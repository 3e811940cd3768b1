"""Smoothed image scores by hand and by loops; where a score lies in its tail, and which of two counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sapatchcore import SAPatchCore
from sapatchcore.score.fusion import fused, image_scores, scales_of, smoothed, smoothed_scores, tail


def test_smoothed_equals_loops() -> None:
    grids = np.random.default_rng(0).random((2, 3, 5), np.float32)
    for n, row, column in np.ndindex(grids.shape):
        inside = grids[n, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        assert smoothed(grids)[n, row, column] == pytest.approx(inside.mean(), rel=1e-5)


def test_smoothed_score_by_hand() -> None:
    local, context = np.zeros((1, 3, 3), np.float32), np.zeros((1, 3, 3), np.float32)
    local[0, 0, 0], context[0, 0, 0], local[0, 2, 2] = 3, 4, 4.5
    score, of_local, of_context = smoothed_scores(np.hypot(local, context), local, context)
    assert score == pytest.approx(5 / 4), "in the corner, the mean of four cells"
    assert (of_local[0], of_context[0]) == pytest.approx((3 / 4, 1)), "3 : 4, and score² their sum"


def test_image_scores_of_patch_scores_by_hand() -> None:
    grids = np.float32([[[6, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]])
    assert image_scores(grids, "max").tolist() == image_scores(grids, "reweighted").tolist() == [6, 1]
    assert image_scores(grids, "smoothed").tolist() == [1.5, 1], (
        "the mean of four cells in the corner, of six beside it"
    )


def test_tail_and_fusion_by_hand() -> None:
    own, whole = np.arange(11, dtype=np.float32), 10 * np.arange(11, dtype=np.float32)
    assert tail(own) == (9, 1)
    scales = scales_of(own, whole)
    assert scales == (9, 1, 90, 10)
    found = fused(np.float32([5, 5, 5, 40]), np.float32([90, 150, 60, 150]), scales)
    assert found.tolist() == [7, 13, 5, 40], (
        "leads of 0 and 6, less 2, above 9; below the patches' own it does not show"
    )
    alike = tail(np.ones(5, np.float32))
    assert alike == (1, pytest.approx(1e-6)), "good images that are all alike: any other is far"


def test_a_detector_s_scores_are_those_of_its_parts(good: np.ndarray, small: dict[str, Any], images: Any) -> None:
    options = {**small, "coreset_ratio": 0.1, "image_score": "smoothed", "global_part": "pooled"}
    detector = SAPatchCore(**options).fit(good)
    result, calibration = detector.predict(images(4, seed=3)), detector.calibration
    own = smoothed(result.patch_scores).max((1, 2))
    np.testing.assert_allclose(np.hypot(result.local_scores, result.context_scores), own, rtol=1e-5)
    scales = scales_of(calibration.largest, calibration.global_scores)
    assert detector.bank.global_part.scales == pytest.approx(scales)
    np.testing.assert_allclose(result.scores, fused(own, result.global_scores, scales), rtol=1e-5)
    np.testing.assert_allclose(
        calibration.scores, fused(calibration.largest, calibration.global_scores, scales), rtol=1e-6
    )
    np.testing.assert_allclose(result.global_patches.sum((1, 2)), result.global_scores**2, rtol=1e-3)


def test_learning_on_takes_global_scores_anew(good: np.ndarray, small: dict[str, Any], images: Any) -> None:
    """From the kept statistics of all training images, cross-fitted; with the scales of before."""
    detector = SAPatchCore(**small, coreset_ratio=0.1, global_part="pooled").fit(good)
    scales, count = detector.bank.global_part.scales, len(good)
    detector.update(images(3, seed=8))
    detector.forget("image 1")
    part, calibration = detector.bank.global_part, detector.calibration
    assert (len(part.rows), len(calibration), part.scales) == (count + 2, count + 2, scales)
    expected = part.cross_fitted(torch.arange(count + 2) % 5).numpy()[calibration.images]
    np.testing.assert_allclose(calibration.global_scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(calibration.scores, fused(calibration.largest, calibration.global_scores, scales))


@pytest.mark.parametrize("separate", [False, True])
def test_another_image_score_has_scales_of_its_own(
    separate: bool, good: np.ndarray, small: dict[str, Any], images: Any, tmp_path: Path
) -> None:
    """A model that is loaded with it scores and decides as one that was fitted with it."""
    options, path = {**small, "coreset_ratio": 0.1, "global_part": "pooled"}, tmp_path / "m.safetensors"
    apart, new = images(7, seed=9) if separate else None, images(4, seed=3)
    first = SAPatchCore(**options, image_score="max").fit(good, calibrate=apart)
    first.save(path)
    loaded = SAPatchCore.load(path, device="cpu", image_score="smoothed")
    expected = SAPatchCore(**options, image_score="smoothed").fit(good, calibrate=apart)
    scales = expected.bank.global_part.scales
    assert loaded.bank.global_part.scales == pytest.approx(scales, rel=1e-5)
    assert scales[:2] != pytest.approx(first.bank.global_part.scales[:2], rel=0.05), "or this could not fail"
    for name in ("scores", "largest", "global_scores"):
        found = getattr(loaded.calibration, name)
        np.testing.assert_allclose(found, getattr(expected.calibration, name), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(loaded.predict(new).scores, expected.predict(new).scores, rtol=1e-5)
    assert loaded.threshold(0.2) == pytest.approx(expected.threshold(0.2), rel=1e-5)
    loaded.save(tmp_path / "again")
    again = SAPatchCore.load(tmp_path / "again", device="cpu")
    assert again.bank.global_part.scales == loaded.bank.global_part.scales
    np.testing.assert_array_equal(again.calibration.scores, loaded.calibration.scores)


def test_scales_come_with_the_first_good_scores(
    good: np.ndarray, small: dict[str, Any], images: Any, tmp_path: Path
) -> None:
    """A reweighted score does not follow from what is kept: without calibration the score is the patches' own, and those who
    calibrate bring the scales."""
    path, new, apart = tmp_path / "m.safetensors", images(4, seed=3), images(7, seed=9)
    SAPatchCore(**small, coreset_ratio=0.1, global_part="pooled").fit(good).save(path)
    detector = SAPatchCore.load(path, device="cpu", image_score="reweighted")
    own = detector.predict(new)
    assert not detector.is_calibrated
    assert detector.bank.global_part.scales is None
    np.testing.assert_allclose(own.scores, np.hypot(own.local_scores, own.context_scores), rtol=1e-5)
    detector.calibrate(apart)
    calibration = detector.calibration
    scales = scales_of(calibration.largest, calibration.global_scores)
    assert detector.bank.global_part.scales == pytest.approx(scales)
    np.testing.assert_allclose(detector.predict(new).scores, fused(own.scores, own.global_scores, scales), rtol=1e-5)
    np.testing.assert_allclose(detector.predict(apart).scores, calibration.scores, rtol=1e-5)
    detector.calibrate(images(7, seed=8))
    assert detector.bank.global_part.scales == pytest.approx(scales), "they stay: other images only calibrate anew"
    learner = SAPatchCore.load(path, device="cpu", image_score="reweighted").update(apart)
    assert len(learner.calibration) == 7
    assert learner.bank.global_part.scales is not None


def test_raised_scores_of_separate_images_are_fused_anew(good: np.ndarray, small: dict[str, Any]) -> None:
    """An image is forgotten, and the others cannot be read again: the bounds count in the score that decides."""
    options = {**small, "coreset_ratio": 0.3, "global_part": "pooled", "image_score": "smoothed"}
    detector = SAPatchCore(**options).fit(good, calibrate=good[:6])
    before = detector.calibration
    detector.forget("image 1")
    after, part = detector.calibration, detector.bank.global_part
    assert (after.largest > before.largest).any()
    assert (after.largest <= image_scores(after.grids, "smoothed") * (1 + 1e-6)).all(), "no wider than patch scores say"
    np.testing.assert_array_equal(after.scores, fused(after.largest, after.global_scores, part.scales))
