"""Maps over their images, and lines around regions, for people: one scale for a whole set, nothing hidden.

Lines: what was predicted is solid and light with a dark casing, the ground truth dashed and dark with a light casing. So
they stay two things in grey print and to the colour-blind, and each reads on any background. A line lies outside of its
region, so that it covers no pixel of what it points at. In these pictures the image is grey: every colour is a score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from sapatchcore.show.colours import INK, OPACITY, PAPER, Colour, Float32, UInt8Array, colours, ramp

Mask = npt.NDArray[np.bool_]
Style = Literal["solid", "dashed"]

PREDICTED: Colour = (80, 230, 255)  # light cyan and dark blue: not of the maps' colours, and far apart in lightness
TRUTH: Colour = (0, 50, 210)
LINE = 0.0115  # a line's width, of the picture's side: 2 pixels of 96, 3 of 224, 12 of 1024
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"


@dataclass(frozen=True)
class Scale:
    """Scores and their colours, the same for a whole set: ``low`` and below darkest, ``high`` and above brightest.

    threshold: the score from which a pixel counts as defective; None where there is none.
    Raises ValueError unless low < threshold <= high, all finite (a defect of the caller's code).
    """

    low: float
    threshold: float | None
    high: float

    def __post_init__(self) -> None:
        middle = (self.low + self.high) / 2 if self.threshold is None else self.threshold
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < middle <= self.high):
            raise ValueError(f"A scale needs finite low < threshold <= high. Got {self}.")

    def place(self, value: float) -> float:
        """Where a score lies on the scale, in [0, 1]; beyond its ends clipped."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def scale_of(threshold: float, *, low: float = 0.0, high: float | None = None) -> Scale:
    """The scale of a pixel threshold. low: a typical good pixel's score, as the median. high: the set's largest score;
    twice the threshold where none is given.

    Whatever the set holds, the threshold stays inside: low is at most 0.9 and high at least 1.25 times the threshold.
    Raises ValueError for a threshold that is not a finite number above 0 (a defect of the caller's code).
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"A scale's threshold must be a finite number above 0. Got {threshold}.")
    top = 2 * threshold if high is None else max(high, 1.25 * threshold)
    return Scale(min(low, 0.9 * threshold), threshold, top)


def heat(image: UInt8Array, values: Float32, scale: Scale, opacity: float | Float32 = OPACITY) -> UInt8Array:
    """(h, w, 3) uint8: the map's colours over the image in grey.

    image: (h, w, 3) uint8. values: (h, w) float32. opacity: of the colours, in [0, 1]; one for all or (h, w).
    Raises ValueError for other shapes and for values that are not finite (a defect of the caller's code).
    """
    _check(image, values)
    if not np.isfinite(values).all():
        raise ValueError("An anomaly map must hold finite scores. Got NaN or infinity.")
    share = np.asarray(opacity, np.float32)[..., None]
    grey = (image @ np.array(GREY, np.float32))[..., None]
    return np.rint(share * colours(values, (scale.low, scale.high)) + (1 - share) * grey).astype(np.uint8)


def overlay(
    image: UInt8Array, values: Float32, scale: Scale, *, truth: Mask | None, predicted: Mask | None
) -> UInt8Array:
    """(h, w, 3) uint8: the image in grey, heat where the map is high, and lines around both kinds of regions.

    image: (h, w, 3) uint8. values: (h, w) float32. truth, predicted: (h, w) bool, or None where not known. The heat is
    clear up to half of the way from the scale's low end to the threshold (without one, to the middle), and has its full
    opacity at the threshold: the part itself stays visible, and what counts as defective stands out.
    """
    full = (scale.low + scale.high) / 2 if scale.threshold is None else scale.threshold
    picture = heat(image, values, scale, ramp(values, scale.low, full))
    if predicted is not None:
        picture = contours(picture, predicted, PREDICTED, "solid")
    if truth is not None:  # last: through its gaps one sees a predicted line at the same place
        picture = contours(picture, truth, TRUTH, "dashed")
    return picture


def contours(picture: UInt8Array, mask: Mask, colour: Colour, style: Style, width: int | None = None) -> UInt8Array:
    """(h, w, 3) uint8: the picture with a cased line around every region of the mask, outside of it.

    picture: (h, w, 3) uint8. mask: (h, w) bool. width: the line's, in pixels; of the picture's size where None. Where a
    region touches the picture's border, the line is open; around a mask that fills the picture there is none.
    """
    _check(picture, mask)
    drawn = picture.copy()
    if not mask.any():
        return drawn
    width = width or math.ceil(LINE * math.sqrt(mask.size))
    casing = max(1, width // 2)
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    on = ~mask & (distance <= width + 2 * casing)
    if style == "dashed":
        on &= (_along(mask) % (5 * width) < 3 * width)[tuple(nearest)]
    drawn[on] = INK if np.dot(GREY, colour) > 127 else PAPER
    # Rounded, as a diagonal's pixels lie at 1.4, 2.8: an even line for the eye in every direction.
    drawn[on & (np.rint(distance) > casing) & (np.rint(distance) <= casing + width)] = colour
    return drawn


def legend(width: int, height: int, scale: Scale) -> UInt8Array:
    """(height, width, 3) uint8: the colours with ticks in units of the threshold, or in scores where there is none; and a
    key of both lines. About eight to twenty times as wide as high."""
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    small = font(max(9, min(height // 3, width // 30)))
    words = "ground truth"
    sample = (round(small.size * 2.2), height // 2 - 4)
    column = round(width - small.getlength(words) - sample[0] - 14)
    for place, (word, colour, style) in enumerate((("predicted", PREDICTED, "solid"), (words, TRUTH, "dashed"))):
        y = 2 + place * (height // 2)
        page.paste(_sample(sample, colour, style), (column, y))  # type: ignore[arg-type]
        pen.text((column + sample[0] + 8, y + sample[1] / 2), word, INK, small, anchor="lm")
    left, right, bottom = 4, column - round(small.size * 1.5), height - round(small.size * 1.6)
    ramp = colours(np.linspace(0, 1, right - left, dtype=np.float32), (0, 1))
    page.paste(Image.fromarray(np.rint(np.tile(ramp, (bottom - 2, 1, 1))).astype(np.uint8)), (left, 2))
    pen.rectangle((left - 1, 1, right, bottom), outline=INK)
    taken: list[tuple[float, float]] = []
    for value, word in _ticks(scale):
        x = left + scale.place(value) * (right - left - 1)
        long = small.getlength(word)
        start = min(max(x - long / 2, 0), right - long)
        if any(start < there + small.size * 0.7 and start + long > here - small.size * 0.7 for here, there in taken):
            continue
        taken.append((start, start + long))
        if value == scale.threshold:  # through the whole bar, cased as it crosses dark and light
            pen.rectangle((round(x) - 2, 2, round(x) + 2, bottom), INK)
            pen.rectangle((round(x) - 1, 2, round(x) + 1, bottom), PAPER)
        pen.line((x, bottom, x, bottom + 3), INK)
        pen.text((start, bottom + 3), word, INK, small, anchor="la")
    return np.asarray(page)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; it has ASCII and few other signs (no ×, no dash)."""
    found = ImageFont.load_default(size=size)
    if not isinstance(found, ImageFont.FreeTypeFont):  # a Pillow without FreeType has one tiny bitmap font
        raise RuntimeError("Pillow lacks FreeType, so it cannot write. Install Pillow's wheel from the package index.")
    return found


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Scores and their words, the most important first: where two words meet, the later one is left out."""
    if scale.threshold is None:
        return [(value, f"{value:.3g}") for value in np.linspace(scale.low, scale.high, 5)[[0, 4, 2, 1, 3]].tolist()]
    times = [1.0, 0.0, 2.0, 0.5, 1.5, 3.0, 4.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    shown = [(scale.threshold * share, f"{share:g}x threshold" if share == 1 else f"{share:g}x") for share in times]
    shown[1] = (0.0, "0")
    return [(value, word) for value, word in shown if scale.low <= value <= scale.high]


def _sample(size: tuple[int, int], colour: Colour, style: Style) -> Image.Image:
    """A line as it lies around a region, on a grey ground, for the legend."""
    picture = np.full((size[1], size[0], 3), 150, np.uint8)
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[-size[1] // 3 :] = True
    return Image.fromarray(contours(picture, mask, colour, style, max(1, size[1] // 7)))


def _along(mask: Mask) -> npt.NDArray[np.float64]:
    """(h, w) float64: how far each pixel on a region's edge lies from its edge's first, along the edge; elsewhere 0."""
    edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
    names, count = ndimage.label(edge, np.ones((3, 3)))
    far = np.zeros(mask.shape)
    if not count:
        return far
    number = np.cumsum(edge).reshape(edge.shape) - 1
    starts, ends, steps = [], [], []
    padded = np.pad(edge, 1)
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        there = padded[1 + down : 1 + down + mask.shape[0], 1 + right : 1 + right + mask.shape[1]]
        rows, columns = np.nonzero(edge & there)
        starts.append(number[rows, columns])
        ends.append(number[rows + down, columns + right])
        steps.append(np.full(len(rows), math.hypot(down, right)))
    nodes = int(edge.sum())
    graph = coo_array((np.concatenate(steps), (np.concatenate(starts), np.concatenate(ends))), (nodes, nodes))
    firsts = np.unique(names[edge], return_index=True)[1]  # one of each connected edge
    far[edge] = dijkstra(graph.tocsr(), directed=False, indices=firsts, min_only=True)
    return far


def _check(image: UInt8Array, plane: npt.NDArray[np.generic]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or plane.shape != image.shape[:2]:
        raise ValueError(
            f"An image must be (h, w, 3) uint8 and its map or mask (h, w). Got {image.shape} {image.dtype} and {plane.shape}."
        )
