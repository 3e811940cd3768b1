"""Several networks' parts on one scale: by hand, by loops, and what holds of their sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sapatchcore.score.calibration import CROSS_FITTED, Calibration
from sapatchcore.score.fusion import fused, scales_of, smoothed, tail
from sapatchcore.score.together import (
    CommonScale,
    calibration_together,
    covering,
    on_grid,
    together,
    unit_of,
)


def arrays_of(local: Any, context: Any, rows: Any, of_global: tuple[Any, Any] | None = None) -> tuple[Any, ...]:
    """What ``score_patches`` gives, of grids (n, h, w); the image scores are not looked at."""
    local, context = (np.asarray(part, np.float32) for part in (local, context))
    nothing = np.zeros(len(local), np.float32)
    found = (nothing, nothing, nothing, np.hypot(local, context), local, context, np.asarray(rows))
    return found if of_global is None else (*found, *(np.asarray(part, np.float32) for part in of_global))


def random_arrays(seed: int, grid: tuple[int, int] = (4, 5), *, whole: bool = False) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    local, context = rng.random((2, 3, *grid))
    shares = rng.random((3, *grid)) - 0.2
    of_global = (np.sqrt(np.maximum(shares.sum((1, 2)), 0)), shares) if whole else None
    return arrays_of(local, context, rng.integers(0, 7, (3, *grid)), of_global)


def calibration_of(grids: Any, **more: Any) -> Calibration:
    """Good images with these patch scores (n, h, w), of which the context is nothing."""
    grids = np.asarray(grids, np.float32)
    n = len(grids)
    scores = grids.max((1, 2))
    return Calibration(
        source=CROSS_FITTED,
        names=tuple(f"image {i}" for i in range(n)),
        images=np.arange(n),
        scores=more.get("largest", scores),
        local=scores,
        context=np.zeros_like(scores),
        peaks=scores,
        grids=grids,
        rows=np.zeros(grids.shape, np.int64),
        sizes=((64, 64),) * n,
        image_score="max",
        neighbors=9,
        **more,
    )


def test_by_hand() -> None:
    """3-4-5 of a network with unit 1, 6-8-10 of one with unit 2: equal shares, and the first of equals decides."""
    one = arrays_of([[[3, 0]]], [[[4, 0]]], [[[5, 6]]])
    other = arrays_of([[[6, 0]]], [[[8, 14]]], [[[1, 2]]])
    score, local, context, whole, _, _, rows = together([one, other], CommonScale((1, 2)), "max", [10, 10])
    assert (score[0], local[0], context[0]) == pytest.approx((5, 3, 4))
    assert whole[0, 0] == pytest.approx([5, 7 / np.sqrt(2)]), "the mean of 0² and 7², its root"
    assert rows[0, 0].tolist() == [5, 12], "rows of the second bank are counted behind those of the first"


@pytest.mark.parametrize("image_score", ["max", "smoothed"])
def test_three_networks_equal_loops(image_score: str) -> None:
    each, units = [random_arrays(seed) for seed in (1, 2, 3)], (0.5, 2.0, 1.0)
    score, local, context, whole, local_patches, context_patches, rows = together(
        each, CommonScale(units), image_score, [7, 7, 7]
    )
    for n, row, column in np.ndindex(whole.shape):
        here = [one[3][n, row, column] / unit for one, unit in zip(each, units, strict=True)]
        assert whole[n, row, column] == pytest.approx(np.sqrt(np.mean(np.square(here))), rel=1e-5)
        decides = int(np.argmax(here))
        assert rows[n, row, column] == each[decides][6][n, row, column] + 7 * decides
    expected = (smoothed(whole) if image_score == "smoothed" else whole).max((1, 2))
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    np.testing.assert_allclose(score**2, local**2 + context**2, rtol=1e-5)
    np.testing.assert_allclose(whole**2, local_patches**2 + context_patches**2, rtol=1e-5)


def test_units_of_one_and_the_same_network_twice_change_nothing() -> None:
    one = random_arrays(4)
    found = together([one, one], CommonScale((1, 1)), "max", [7, 7])
    for mine, own in zip(found[3:], one[3:], strict=True):
        np.testing.assert_allclose(mine, own, rtol=1e-6)


def test_global_parts_come_together_and_are_fused() -> None:
    each = [random_arrays(seed, whole=True) for seed in (1, 2)]
    fusion = (0.5, 0.1, 1.0, 0.2)
    found = together(each, CommonScale((1, 1), (0.5, 2), fusion), "max", [7, 7])
    expected = np.sqrt(((each[0][7] / 0.5) ** 2 + (each[1][7] / 2) ** 2) / 2)
    np.testing.assert_allclose(found[7], expected, rtol=1e-5)
    np.testing.assert_allclose(found[8].sum((1, 2)), found[7] ** 2, rtol=1e-4)
    own = np.hypot(found[1], found[2])
    np.testing.assert_allclose(found[0], fused(own, found[7], fusion), rtol=1e-5)


def test_a_coarser_grid_comes_to_the_finest() -> None:
    fine, coarse = random_arrays(1, (4, 6), whole=True), random_arrays(2, (2, 3), whole=True)
    fine_with_coarse = together([coarse, fine], CommonScale((1, 1), (1, 1), (0, 1, 0, 1)), "max", [7, 7])
    whole, local, context, rows = fine_with_coarse[3:7]
    assert whole.shape == (3, 4, 6)
    np.testing.assert_allclose(whole**2, local**2 + context**2, rtol=1e-5)
    np.testing.assert_allclose(fine_with_coarse[8].sum((1, 2)), fine_with_coarse[7] ** 2, rtol=1e-4)
    of_coarse = rows < 7
    np.testing.assert_array_equal(rows[of_coarse], covering(coarse[6], (4, 6))[of_coarse])
    line = np.float32([[[0, 4]]])
    np.testing.assert_allclose(on_grid(line, (1, 4))[0, 0], [0, 1, 3, 4], err_msg="along a straight line, ends as ends")


def test_the_scale_is_that_of_good_images() -> None:
    """0 to 10: the 0.9 quantile is 9, the variance 10."""
    grids = np.arange(11, dtype=np.float32).reshape(11, 1, 1)
    scale = CommonScale.of([calibration_of(grids), calibration_of(10 * grids)])
    unit = np.sqrt(9 * np.sqrt(10))
    assert scale.units == pytest.approx((unit, 10 * unit))
    assert (scale.global_units, scale.fusion) == ((), None)
    found = calibration_together([calibration_of(grids), calibration_of(10 * grids)], scale, (64, 64), None)
    np.testing.assert_allclose(found.scores, np.arange(11) / unit, rtol=1e-6)
    np.testing.assert_allclose(found.local, found.scores, rtol=1e-6)
    np.testing.assert_allclose(found.peaks, found.scores, rtol=1e-5)


def test_images_that_are_alike_give_a_unit_still() -> None:
    assert unit_of(np.full(4, 2, np.float32)) == pytest.approx(np.sqrt(2 * 0.02))
    assert unit_of(np.zeros(4, np.float32)) == pytest.approx(1e-12)


def test_near_the_quantile_a_network_weighs_by_how_little_its_good_scores_vary() -> None:
    """What 1 more of σ adds is the same for both, to first order, whatever q."""
    good = [100 + np.float32([-3, -1, 1, 3]), 10 + np.float32([-0.6, -0.2, 0.2, 0.6])]
    units = [unit_of(one) for one in good]
    begin, spread = [tail(one)[0] for one in good], [float(np.std(one)) for one in good]
    added = []
    for k in range(2):
        more = [q + (0.01 * s if k == i else 0) for i, (q, s) in enumerate(zip(begin, spread, strict=True))]
        squares = [sum((value / unit) ** 2 for value, unit in zip(v, units, strict=True)) for v in (begin, more)]
        added.append(squares[1] - squares[0])
    assert added[0] == pytest.approx(added[1], rel=1e-2)


def test_the_calibration_of_a_global_part_is_fused_from_both() -> None:
    rng = np.random.default_rng(0)
    each = []
    for _ in range(2):
        grids = rng.random((20, 3, 3)).astype(np.float32)
        wholes = rng.random(20).astype(np.float32)
        each.append(calibration_of(grids, largest=grids.max((1, 2)), global_scores=wholes))
    scale = CommonScale.of(each)
    assert scale.units == tuple(unit_of(one.largest) for one in each)
    assert scale.global_units == tuple(unit_of(one.global_scores) for one in each)
    found = calibration_together(each, scale, (64, 64), None)
    assert scale.fusion == scales_of(found.largest, found.global_scores)
    np.testing.assert_allclose(found.scores, fused(found.largest, found.global_scores, scale.fusion), rtol=1e-6)


def test_the_largest_parts_of_good_images_lose_what_whole_scores_lose() -> None:
    """Two networks whose largest scores lie in different places: together each image's largest is 1/√2 of theirs."""
    one, other = calibration_of([[[4, 0]]] * 3), calibration_of([[[0, 4]]] * 3)
    found = calibration_together([one, replace(other, local=other.local / 2)], CommonScale((4, 4)), (64, 64), None)
    np.testing.assert_allclose(found.scores, np.sqrt(0.5), rtol=1e-6)
    np.testing.assert_allclose(found.local, np.sqrt(0.5) * np.sqrt((1 + 1 / 4) / 2), rtol=1e-6)
