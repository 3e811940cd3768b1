"""The gallery's panels and scales; the legend's bar and keys."""

from __future__ import annotations

import numpy as np
import pytest

from sapatchcore.show import maps
from sapatchcore.show.drawing import INFERNO, INK, OPACITY, PAPER, PREDICTED, TRUTH, Scale
from sapatchcore.show.maps import GalleryRow, gallery, legend

SCALE = Scale(0.0, 2.0, 4.0)
HEADS = ("image", "ground truth", "map", "part")


def row(level: float, *, side: int = 40, defective: bool = True) -> GalleryRow:
    """A grey image, a square defect in its middle, and two flat maps."""
    truth = np.zeros((side, side), np.bool_)
    truth[15:25, 15:25] = defective
    image = np.full((side, side, 3), 128, np.uint8)
    maps = (np.full((side, side), level, np.float32), np.full((side, side), level / 2, np.float32))
    return GalleryRow("scratch", (f"score {level}",), image, truth, maps)


SCALES = (Scale(0.0, None, 2.0), Scale(0.0, None, 1.0))


def panel(page: np.ndarray, line: int, column: int) -> np.ndarray:
    """(PANEL, PANEL, 3) of a page of square images."""
    left, top = maps.LEFT + column * (maps.PANEL + maps.GAP), maps.HEAD + line * (maps.PANEL + maps.GAP)
    return page[top : top + maps.PANEL, left : left + maps.PANEL]


def test_page_holds_every_panel() -> None:
    page = gallery([row(1.0), row(2.0)], HEADS, SCALES, "note")
    step = maps.PANEL + maps.GAP
    assert page.shape == (maps.HEAD + 2 * step + maps.FOOT, maps.LEFT + 4 * step, 3)
    assert page.dtype == np.uint8
    assert (panel(page, 0, 0) == 128).all()
    assert (page[:, maps.LEFT - 4 : maps.LEFT] == 255).all()  # words end before the panels


def test_outline_lies_around_the_defect() -> None:
    page = gallery([row(1.0), row(1.0, defective=False)], HEADS, SCALES, "")
    outlined = (panel(page, 0, 1) == maps.OUTLINE).all(2)
    scale = maps.PANEL / 40
    rows, columns = np.nonzero(outlined)
    for positions in (rows, columns):
        assert 15 * scale - 5 <= positions.min() < 15 * scale
        assert 25 * scale <= positions.max() + 1 <= 25 * scale + 5
    assert not outlined[round(16 * scale) : round(24 * scale), round(16 * scale) : round(24 * scale)].any()
    assert (panel(page, 1, 1) == 128).all()


def test_each_column_has_its_scale() -> None:
    page = gallery([row(1.0), row(2.0)], HEADS, SCALES, "")
    first, whole, part = panel(page, 0, 2), panel(page, 1, 2), panel(page, 1, 3)
    assert not (first == whole).all()
    assert (whole == part).all()  # 2 of 2 in its column, and 1 of 1 in the other
    np.testing.assert_array_equal(whole[0, 0], np.rint(OPACITY * INFERNO[-1] + (1 - OPACITY) * 128))


def test_images_that_are_not_square() -> None:
    wide = GalleryRow(
        "good", (), np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), np.bool_), (np.ones((20, 40), np.float32),)
    )
    page = gallery([wide], HEADS[:3], [Scale(0.0, None, 1.0)], "")
    assert page.shape[0] == maps.HEAD + maps.PANEL // 2 + maps.GAP + maps.FOOT


@pytest.mark.parametrize("rows", [[], [row(1.0), row(1.0, side=41)]])
def test_rows_that_do_not_fit(rows: list[GalleryRow]) -> None:
    with pytest.raises(ValueError, match="one image size"):
        gallery(rows, HEADS, SCALES, "")


@pytest.mark.parametrize("scale", [SCALE, Scale(3.0, 4.0, 5.0), Scale(0.0, 1.0, 60.0), Scale(1.0, None, 7.0)])
@pytest.mark.parametrize("size", [(936, 56), (404, 40), (320, 30)])
def test_legend_has_bar_and_keys(scale: Scale, size: tuple[int, int]) -> None:
    found = legend(*size, scale)
    assert found.shape == (size[1], size[0], 3)
    for colour in (PREDICTED, TRUTH, INK):
        assert (found == colour).all(2).any()
    assert (found[:, -1] == PAPER).all()  # words end before the border,
    assert (found[-1] == PAPER).all()  # and above it


def test_legend_marks_the_threshold_where_it_lies() -> None:
    marked = (legend(900, 56, SCALE)[8] == PAPER).all(1)
    bar = np.flatnonzero(~marked)
    inside = np.flatnonzero(marked[: bar[bar < 740].max()])
    line = inside[inside > 10]
    assert abs(line.mean() - (bar.min() + bar[bar < 740].max()) / 2) < 3  # 2 of 0 to 4
