"""Images beside their ground truth and their anomaly maps, as one picture: a row an image, one scale for each column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from sapatchcore.show.colours import INFERNO as INFERNO
from sapatchcore.show.colours import Float32, colours

PANEL = 224  # pixels of a panel's width
GAP = 8
LEFT = 150  # of the column of words
HEAD, FOOT = 40, 78  # of the line of heads, of the scale
OUTLINE = (0, 255, 120)  # no screw, no paper and no colour of the maps is like it
INK, FAINT = (20, 20, 20), (95, 95, 95)
COLOUR = 0.75  # of a map's panel; the rest is the image in grey, so that one sees where the heat lies

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One image. name: in large letters; lines: below it. image: (h, w, 3) uint8. truth: (h, w) bool, True where
    defective. maps: each (h, w) float32."""

    name: str
    lines: tuple[str, ...]
    image: UInt8Array
    truth: npt.NDArray[np.bool_]
    maps: tuple[Float32, ...]


def gallery(rows: Sequence[Row], heads: Sequence[str], scales: Sequence[tuple[float, float]], note: str) -> UInt8Array:
    """(height, width, 3) uint8: of every row its words, the image, the ground truth's outline and its maps.

    rows: all of one image size and with equally many maps. heads: a word for each column of panels. scales: of each map's
    column the scores of the darkest and of the brightest colour. note: what the scales are, below.

    Raises ValueError where there is no row, sizes differ or heads are too few (a defect of the caller's code).
    """
    if not rows or len({row.image.shape for row in rows}) != 1 or any(len(row.maps) + 2 != len(heads) for row in rows):
        raise ValueError("gallery needs rows of one image size, and a head for each of their panels.")
    height, width = rows[0].image.shape[:2]
    panel = (PANEL, max(1, round(PANEL * height / width)))
    size = (LEFT + len(heads) * (PANEL + GAP), HEAD + len(rows) * (panel[1] + GAP) + FOOT)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for place, head in enumerate(heads):
        pen.text((_column(place) + PANEL / 2, HEAD / 2), head, INK, _font(18), anchor="mm")
    for number, row in enumerate(rows):
        y = HEAD + number * (panel[1] + GAP)
        pen.text((GAP, y + 6), row.name, INK, _font(20))
        for place, line in enumerate(row.lines):
            pen.text((GAP, y + 38 + 23 * place), line, FAINT, _font(16))
        shown = Image.fromarray(row.image).resize(panel, Image.Resampling.LANCZOS)
        panels = [shown, _outlined(shown, row.truth), *map(partial(_heat, shown), row.maps, scales)]
        for place, picture in enumerate(panels):
            page.paste(picture, (_column(place), y))
    for place, scale in enumerate(scales):
        _scale(page, pen, place + 2, scale)
    pen.text((page.width - GAP, page.height - 2 * GAP), note, FAINT, _font(16), anchor="rm")
    return np.asarray(page)


def _column(place: int) -> int:
    return LEFT + place * (PANEL + GAP)


def _outlined(shown: Image.Image, truth: npt.NDArray[np.bool_]) -> Image.Image:
    """The panel with a line around what is defective; the line lies outside, so that it covers nothing."""
    small = Image.fromarray(truth.astype(np.uint8) * 255).resize(shown.size, Image.Resampling.BOX)
    inside = np.asarray(small) > 0
    pixels = np.array(shown)
    near, far = (ndimage.binary_dilation(inside, iterations=steps) for steps in (1, 3))
    pixels[far & ~near] = OUTLINE
    return Image.fromarray(pixels)


def _heat(shown: Image.Image, values: Float32, scale: tuple[float, float]) -> Image.Image:
    small = np.asarray(Image.fromarray(values).resize(shown.size, Image.Resampling.BILINEAR))
    grey = np.asarray(shown.convert("L"), np.float32)[..., None]
    return Image.fromarray(np.rint(COLOUR * colours(small, scale) + (1 - COLOUR) * grey).astype(np.uint8))


def _scale(page: Image.Image, pen: ImageDraw.ImageDraw, column: int, scale: tuple[float, float]) -> None:
    """The bar of colours under one column of maps, with its two ends."""
    left, right = _column(column), _column(column) + PANEL
    y = page.height - FOOT + 8
    ramp = colours(np.linspace(*scale, right - left, dtype=np.float32), scale)
    page.paste(Image.fromarray(np.rint(np.tile(ramp, (16, 1, 1))).astype(np.uint8)), (left, y))
    pen.text((left, y + 20), f"{scale[0]:.3g}", INK, _font(16))
    pen.text((right, y + 20), f"{scale[1]:.3g}", INK, _font(16), anchor="ra")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
