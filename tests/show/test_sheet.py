"""The sheet of examples: what was good, what was made, and where in the whole image."""

from __future__ import annotations

import numpy as np
import pytest

from sapatchcore.show.sheet import ACROSS, CELL, GAP, LABEL, OUTLINE, Example, example_sheet


def example(name: str, size: tuple[int, int] = (200, 200), at: tuple[int, int] = (150, 40), side: int = 10) -> Example:
    original = np.full((*size, 3), 100, np.uint8)
    defect, mask = original.copy(), np.zeros(size, np.bool_)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = True
    defect[mask] = (20, 20, 200)
    return Example(original, defect, mask, name)


def test_rows_and_columns() -> None:
    one, four = example_sheet([example("spot")]), example_sheet([example("spot")] * 4)
    row = CELL + LABEL + GAP
    assert one.shape == (row + GAP, 3 * CELL + 5 * GAP, 3)
    assert four.shape == (2 * row + GAP, ACROSS * (3 * CELL + 3 * GAP) + 2 * GAP, 3)
    assert one.dtype == np.uint8


def test_a_small_defect_is_shown_large_and_outlined_in_the_whole_image() -> None:
    sheet = example_sheet([example("spot")]).astype(int)
    pictures = [sheet[GAP + LABEL : GAP + LABEL + CELL, left : left + CELL] for left in pictures_at()]
    blue = [((picture - (20, 20, 200)) ** 2).sum(-1) < 3000 for picture in pictures]
    outlined = [((picture - OUTLINE) ** 2).sum(-1) < 300 for picture in pictures]
    assert not blue[0].any()
    # 10 of 50 pixels a side are shown: a quarter of the image's side.
    assert blue[1].sum() == pytest.approx((CELL * 10 / 50) ** 2, rel=0.25)
    assert blue[2].sum() == pytest.approx((CELL * 10 / 200) ** 2, rel=0.4)
    assert [bool(one.any()) for one in outlined] == [False, False, True]
    rows, columns = np.nonzero(outlined[2])
    assert abs(rows.mean() - CELL * 155 / 200) < 4
    assert abs(columns.mean() - CELL * 45 / 200) < 4


def pictures_at() -> list[int]:
    """The left edge of an example's three pictures."""
    return [GAP + index * (CELL + GAP // 2) for index in range(3)]


@pytest.mark.parametrize("size", [(60, 400), (400, 60), (40, 40)])
@pytest.mark.parametrize("corner", [(0, 0), (30, 30)])
def test_any_shape_and_a_defect_at_the_border(size: tuple[int, int], corner: tuple[int, int]) -> None:
    sheet = example_sheet([example("a name that is much too long for the room there is" * 3, size, corner)])
    assert sheet.shape[1] == 3 * CELL + 5 * GAP


def test_a_defect_as_large_as_the_image_and_no_example() -> None:
    assert example_sheet([example("moved", (50, 50), (0, 0), 50)]).any()
    with pytest.raises(ValueError, match="A sheet needs an example"):
        example_sheet([])
