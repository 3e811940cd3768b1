"""The gallery: panels where they belong, a scale for each column, colours whose lightness rises evenly."""

from __future__ import annotations

import numpy as np
import pytest

from sapatchcore.show import gallery as show
from sapatchcore.show.colours import colours
from sapatchcore.show.gallery import Row, gallery

HEADS = ("image", "ground truth", "map", "part")


def row(level: float, *, side: int = 40, defective: bool = True) -> Row:
    """A grey image, a square defect in its middle, and two flat maps."""
    truth = np.zeros((side, side), np.bool_)
    truth[15:25, 15:25] = defective
    image = np.full((side, side, 3), 128, np.uint8)
    maps = (np.full((side, side), level, np.float32), np.full((side, side), level / 2, np.float32))
    return Row("scratch", (f"score {level}",), image, truth, maps)


SCALES = ((0.0, 2.0), (0.0, 1.0))


def panel(page: np.ndarray, line: int, column: int) -> np.ndarray:
    """(PANEL, PANEL, 3) of a page of square images."""
    left, top = show.LEFT + column * (show.PANEL + show.GAP), show.HEAD + line * (show.PANEL + show.GAP)
    return page[top : top + show.PANEL, left : left + show.PANEL]


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of (n, 3) sRGB colours in [0, 255], after the standard's formulas."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


def test_page_holds_every_panel() -> None:
    page = gallery([row(1.0), row(2.0)], HEADS, SCALES, "note")
    step = show.PANEL + show.GAP
    assert page.shape == (show.HEAD + 2 * step + show.FOOT, show.LEFT + 4 * step, 3)
    assert page.dtype == np.uint8
    assert (panel(page, 0, 0) == 128).all()
    assert (page[:, show.LEFT - 4 : show.LEFT] == 255).all()  # words end before the panels


def test_outline_lies_around_the_defect() -> None:
    page = gallery([row(1.0), row(1.0, defective=False)], HEADS, SCALES, "")
    outlined = (panel(page, 0, 1) == show.OUTLINE).all(2)
    scale = show.PANEL / 40
    rows, columns = np.nonzero(outlined)
    for places in (rows, columns):
        assert 15 * scale - 5 <= places.min() < 15 * scale
        assert 25 * scale <= places.max() + 1 <= 25 * scale + 5
    assert not outlined[round(16 * scale) : round(24 * scale), round(16 * scale) : round(24 * scale)].any()
    assert (panel(page, 1, 1) == 128).all()


def test_each_column_has_its_scale() -> None:
    page = gallery([row(1.0), row(2.0)], HEADS, SCALES, "")
    first, whole, part = panel(page, 0, 2), panel(page, 1, 2), panel(page, 1, 3)
    assert not (first == whole).all()
    assert (whole == part).all()  # 2 of 2 in its column, and 1 of 1 in the other
    np.testing.assert_array_equal(whole[0, 0], np.rint(show.COLOUR * show.INFERNO[-1] + (1 - show.COLOUR) * 128))


def test_images_that_are_not_square() -> None:
    wide = Row(
        "good", (), np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), np.bool_), (np.ones((20, 40), np.float32),)
    )
    page = gallery([wide], HEADS[:3], [(0.0, 1.0)], "")
    assert page.shape[0] == show.HEAD + show.PANEL // 2 + show.GAP + show.FOOT


@pytest.mark.parametrize("rows", [[], [row(1.0), row(1.0, side=41)]])
def test_rows_that_do_not_fit(rows: list[Row]) -> None:
    with pytest.raises(ValueError, match="one image size"):
        gallery(rows, HEADS, SCALES, "")


def test_lightness_rises_evenly() -> None:
    steps = np.diff(lightness(colours(np.linspace(0, 1, 65, dtype=np.float32), (0.0, 1.0))))
    assert (steps > 0).all()
    assert steps.max() < 1.6 * np.median(steps)


def test_colours_end_at_the_top() -> None:
    found = colours(np.array([0, 1, 4, 5, 9], np.float32), (1.0, 5.0))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 1, 3, 4]], show.INFERNO[[0, 0, -1, -1]])
    np.testing.assert_array_equal(found[2], show.INFERNO[12])  # 3 of the scale's 4 is anchor 12 of 16
