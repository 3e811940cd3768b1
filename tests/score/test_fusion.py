"""Smoothed image scores by hand and by loops; where a score lies in its tail, and which of two counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sapatchcore import SAPatchCore
from sapatchcore.score.fusion import fused, scales_of, smoothed, smoothed_scores, tail


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
    expected = part.cross_fitted(5).numpy()[calibration.images]
    np.testing.assert_allclose(calibration.global_scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(calibration.scores, fused(calibration.largest, calibration.global_scores, scales))
