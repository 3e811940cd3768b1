"""What every picture is drawn with: colours of scores, one scale for a whole set, heat over an image, lines around regions.

Colours: inferno by Nathaniel Smith and Stéfan van der Walt (matplotlib, CC0), every 16th of its 256 colours and straight
lines between them. Its lightness rises evenly, so that equal steps of a score look equal, in print and to the colour-blind.

Lines: what was predicted is solid and light with a dark casing, the ground truth dashed and dark with a light casing. So
they stay two things in grey print and to the colour-blind, and each reads on any background. A line lies outside of its
region, so that it covers no pixel of what it points at.

SciPy is imported where a line is drawn: the server, which draws no lines, runs without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sapatchcore.data.pixels import Size
from sapatchcore.score.regions import is_whole, window

Float32 = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]
Style = Literal["solid", "dashed"]
Seen = tuple[Size, Size | None]  # what the network sees of an image: ``resize`` and ``crop``, as of Result

OPACITY = 0.75  # of the maps' colours; the rest is the image in grey, so that one sees where the heat lies
INK: Colour = (20, 20, 20)
PAPER: Colour = (255, 255, 255)
RIM: Colour = (200, 200, 200)  # around what was inspected: no colour of the maps, no line of a region
PREDICTED: Colour = (80, 230, 255)  # light cyan and dark blue: not of the maps' colours, and far apart in lightness
TRUTH: Colour = (0, 50, 210)
BORDER = 0.45  # how bright what was not inspected stays
LINE = 0.0115  # a line's width, of the picture's side: 2 pixels of 96, 3 of 224, 12 of 1024
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"
INFERNO = np.array(
    [
        (0, 0, 4), (11, 7, 36), (33, 12, 74), (60, 9, 101), (87, 16, 109), (112, 25, 110), (137, 34, 106), (163, 43, 97),
        (187, 55, 85), (209, 70, 68), (227, 89, 50), (241, 113, 30), (249, 141, 10), (252, 171, 15), (249, 202, 50),
        (242, 232, 101), (252, 255, 164),
    ],
    np.float32,
)  # fmt: skip


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

    def position(self, score: float) -> float:
        """Where a score lies on the scale, in [0, 1]; beyond its ends clipped."""
        return min(max((score - self.low) / (self.high - self.low), 0.0), 1.0)


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


def colours(values: Float32, ends: tuple[float, float], palette: Float32 = INFERNO) -> Float32:
    """(…, 3) float32 in [0, 255]: the colour of each number.

    values: (…) float32. ends: the numbers of the palette's first and last colour; what lies beyond has the nearer one.
    palette: (k, 3) float32, evenly spaced between the ends.
    """
    low, high = ends
    position = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    knots = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(position, knots, channel) for channel in palette.T], axis=-1).astype(np.float32)


def ramp(values: Float32, low: float, full: float) -> Float32:
    """The opacity of a map's colours, (…) float32 in [0, OPACITY]: none up to half of the way from ``low``, the usual level, to
    ``full``, the threshold, and all of it from there on. So the part stays visible, and what counts as defective stands out.
    """
    clear = (low + full) / 2
    opacity: Float32 = np.float32(OPACITY) * np.clip((values - clear) / (full - clear), 0, 1)
    return opacity


def heat(image: UInt8Array, values: Float32, scale: Scale, opacity: float | Float32 = OPACITY) -> UInt8Array:
    """(h, w, 3) uint8: the map's colours over the image in grey, so that every colour is a score.

    image: (h, w, 3) uint8. values: (h, w) float32. opacity: of the colours, in [0, 1]; one for all or (h, w).
    Raises ValueError for other shapes and for values that are not finite (a defect of the caller's code).
    """
    _check(image, values)
    if not np.isfinite(values).all():
        raise ValueError("An anomaly map must hold finite scores. Got NaN or infinity.")
    share = np.asarray(opacity, np.float32)[..., None]
    grey = (image @ np.array(GREY, np.float32))[..., None]
    return np.rint(share * colours(values, (scale.low, scale.high)) + (1 - share) * grey).astype(np.uint8)


def shaded(picture: UInt8Array, seen: Seen | None) -> UInt8Array:
    """(h, w, 3) uint8: the picture, (h, w, 3) uint8, darkened where it was not inspected, with a thin light line around the rest;
    the picture itself where all of it was."""
    if seen is None or is_whole(*seen):
        return picture
    rows, columns = window((picture.shape[0], picture.shape[1]), *seen)
    drawn: UInt8Array = np.rint(picture * np.float32(BORDER)).astype(np.uint8)
    drawn[max(rows.start - 1, 0) : rows.stop + 1, max(columns.start - 1, 0) : columns.stop + 1] = RIM
    drawn[rows, columns] = picture[rows, columns]
    return drawn


def overlay(
    image: UInt8Array,
    values: Float32,
    scale: Scale,
    *,
    truth: Mask | None,
    predicted: Mask | None,
    seen: Seen | None = None,
) -> UInt8Array:
    """(h, w, 3) uint8: the image in grey, heat where the map is high, and lines around both kinds of regions.

    image: (h, w, 3) uint8. values: (h, w) float32. truth, predicted: (h, w) bool, or None where there is none. seen: as of
    ``shaded``. The heat is clear up to half of the way from the scale's low end to the threshold (without one, to the
    middle), and has its full opacity at the threshold: the part itself stays visible, and what counts as defective stands out.
    """
    full = (scale.low + scale.high) / 2 if scale.threshold is None else scale.threshold
    picture = shaded(heat(image, values, scale, ramp(values, scale.low, full)), seen)
    if predicted is not None:
        picture = contours(picture, predicted, PREDICTED, "solid")
    if truth is not None:  # last: a predicted line in the same position shows through its gaps
        picture = contours(picture, truth, TRUTH, "dashed")
    return picture


def filled(image: UInt8Array, mask: Mask, colour: Colour) -> UInt8Array:
    """(h, w, 3) uint8: the image, (h, w, 3) uint8, with the colour half over it where the mask, (h, w) bool, is True."""
    _check(image, mask)
    picture = image.copy()
    picture[mask] = (0.5 * image[mask] + 0.5 * np.array(colour)).astype(np.uint8)
    return picture


def contours(picture: UInt8Array, mask: Mask, colour: Colour, style: Style, width: int | None = None) -> UInt8Array:
    """(h, w, 3) uint8: the picture with a cased line around every region of the mask, outside of it.

    picture: (h, w, 3) uint8. mask: (h, w) bool. width: the line's, in pixels; of the picture's size where None. Where a
    region touches the picture's border, the line is open; around a mask that fills the picture there is none.
    """
    _check(picture, mask)
    from scipy import ndimage

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


def outlined(picture: UInt8Array, mask: Mask, colour: Colour) -> UInt8Array:
    """(h, w, 3) uint8: the picture with a plain line, two pixels wide, around every region of the mask, one pixel outside."""
    from scipy import ndimage

    _check(picture, mask)
    drawn = picture.copy()
    near, far = (ndimage.binary_dilation(mask, iterations=steps) for steps in (1, 3))
    drawn[far & ~near] = colour
    return drawn


def resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at ``size`` (h, w): True where any of the pixels that fall there is, so that no speck is ever lost.

    In float32: with Pillow's 8 bits, what covers less than half of a 255th of a pixel is rounded away.
    """
    height, width = size
    return np.asarray(Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)) > 0


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; it has ASCII and few other signs (no ×, no dash)."""
    found = ImageFont.load_default(size=size)
    if not isinstance(found, ImageFont.FreeTypeFont):  # a Pillow without FreeType has one tiny bitmap font
        raise RuntimeError("Pillow lacks FreeType, so it cannot write. Install Pillow's wheel from the package index.")
    return found


def write_fitted(
    pen: ImageDraw.ImageDraw, position: tuple[float, float], text: str, room: float, size: int, ink: Colour, anchor: str
) -> None:
    """The text in at most ``room`` pixels: in smaller letters where it is longer, then without its middle."""
    least = min(size, 11)
    while size > least and font(size).getlength(text) > room:
        size -= 1
    kept, shown = len(text), text
    while kept > 2 and font(size).getlength(shown) > room:
        kept -= 1
        shown = text[: kept // 2] + "..." + text[len(text) - (kept - kept // 2) :]
    pen.text(position, shown, ink, font(size), anchor=anchor)


def _along(mask: Mask) -> npt.NDArray[np.float64]:
    """(h, w) float64: how far each pixel on a region's edge lies from its edge's first, along the edge; elsewhere 0."""
    from scipy import ndimage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

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
