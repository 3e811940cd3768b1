"""A report's pictures: cut-outs, boxes, where the context comes from, one scale for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sapatchcore.show.report_cards import SMALL, Scales, boxed, cut_out, drawn_over


@pytest.mark.parametrize("cell", [(0, 0), (7, 7), (3, 4), (0, 7)])
def test_cut_out_holds_its_patch(cell: tuple[int, int]) -> None:
    picture = np.zeros((80, 64, 3), np.uint8)
    box = (cell[0] / 8, cell[1] / 8, 1 / 8, 1 / 8)
    picture[cell[0] * 10 : cell[0] * 10 + 10, cell[1] * 8 : cell[1] * 8 + 8] = 255
    found = cut_out(picture, box)
    assert found.shape == (SMALL, SMALL, 3)
    white = (found > 200).all(2)
    # One of 7 cells a side, but for the blurred rim.
    assert white.sum() == pytest.approx((SMALL / 7) ** 2, rel=0.35)


def test_box_lies_around_its_cell() -> None:
    picture = np.full((144, 144, 3), 90, np.uint8)
    found = boxed(picture, (0.5, 0.25, 0.125, 0.125), 144)
    changed = (found != 90).any(2)
    assert not changed[72:90, 36:54].any()
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (69, 92, 33, 56)


def test_context_is_where_the_shares_are() -> None:
    seen = np.full((64, 64, 3), 128, np.uint8)
    shares = np.full((4, 4), -0.1, np.float32)
    shares[0, 3] = 3
    found, largest = drawn_over(seen, shares, (0.75, 0.0, 0.125, 0.125))
    assert largest == pytest.approx(3 / 1.5)
    colour = np.ptp(found.astype(int), axis=2)
    assert colour[10, -10] > 50
    assert colour[:40, :40].max() == 0
    assert drawn_over(seen, np.zeros((4, 4), np.float32), (0, 0, 0.125, 0.125))[1] == 0


def test_scales_are_one_for_all(made: Any) -> None:
    found = Scales.of(made.evaluation.result, None)
    assert found.whole.threshold == pytest.approx(made.evaluation.result.pixel_threshold())
    assert found.local.high == pytest.approx(float(made.evaluation.result.local_patches.max()))
    assert [caption for caption, _, _ in found.ramps()] == ["local part", "context part"]
    assert "pixel threshold" in found.legend().alt
