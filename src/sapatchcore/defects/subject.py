"""A good image on which a defect is made, with what is known of it: its part, its pieces, its ground, its lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from sapatchcore.errors import DataError

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Float = npt.NDArray[np.floating[Any]]  # float32 throughout
Labels = npt.NDArray[np.intp]

SIDE = 192  # pixels of the longer side at which parts are looked for
SMALLEST = 32  # pixels of an image's shorter side
TURNS = 24  # angles at which a mirrored outline is compared with itself
COARSE = 48  # pixels a side at which it is
OTHER = 0.32  # of a piece's area: what its outline and its mirror image's differ by at the best turn, at least
LONG = 1.5  # times as long as wide: a rounder part has no axis of its own
ORDERED = 0.52  # mean likeness of directions: of rough surfaces below 0.46; of wires, threads and outlines above 0.58


@dataclass(frozen=True)
class Subject:
    """A good image and what is known of it, at (hs, ws): its size with the longer side at SIDE.

    image: (h, w, 3) uint8. part: (hs, ws) bool. calm: (hs, ws) bool, ground or floor: what a part may lie on. pieces: (hs, ws),
    0 where there is none, else the piece's number. count: of pieces. carries: whether the part is a carrier and the pieces lie
    on it, or are the part. ground: (hs, ws, 3) float32, the ground's colour, also beneath the part. steep: (hs, ws) float32,
    the gradient.
    """

    image: UInt8
    part: Bool
    calm: Bool
    pieces: Labels
    count: int
    carries: bool
    ground: Float
    steep: Float

    @property
    def any_part(self) -> Bool:
        """(hs, ws) bool: the part, or where it is a carrier what it carries."""
        return self.pieces > 0 if self.carries else self.part

    @cached_property
    def depth(self) -> Float:
        """(hs, ws) float32: as ``depth_of`` the part."""
        return depth_of(self.part)

    @cached_property
    def order(self) -> tuple[Float, Float]:
        """How alike the directions of gradients are about each pixel, 0 to 1, and the angle, radians from the columns' direction,
        across the lines there; (hs, ws) float32 each. Source: the structure tensor, Bigün and Granlund 1987."""
        grey = shrunk(self.image).mean(-1)
        down, right = np.gradient(ndimage.gaussian_filter(grey, 0.9))
        across, along, mixed = (
            ndimage.gaussian_filter(one, 2.0, truncate=3) for one in (right * right, down * down, right * down)
        )
        alike = np.hypot(across - along, 2 * mixed) / (across + along + 1e-6)
        return alike, 0.5 * np.arctan2(2 * mixed, across - along)

    @cached_property
    def is_ordered(self) -> bool:
        """Whether the part shows lines, that can be bent or broken; a rough surface shows grains alone."""
        weights = self.steep * self.part
        return bool((self.order[0] * weights).sum() > ORDERED * weights.sum())

    @cached_property
    def chiral(self) -> frozenset[int]:
        """The numbers of the pieces whose outline no turn lays on that of their mirror image."""
        return frozenset(number for number in range(1, self.count + 1) if is_chiral(self.pieces == number))

    @cached_property
    def is_grey(self) -> bool:
        few = self.image[::4, ::4]
        return bool((few[..., :1] == few).all())


def shrunk(image: UInt8) -> Float:
    """(hs, ws, 3) float32: the image, (h, w, 3) uint8, with its longer side at SIDE, or as it is where it is smaller.

    Raises DataError where its shorter side is below SMALLEST.
    """
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise DataError(
            f"An image must have {SMALLEST} pixels a side or more to make a defect on it. Got {height}×{width} (h×w)."
        )
    scale = min(1.0, SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)).astype(np.float32)


def steepness(small: Float) -> Float:
    """(hs, ws) float32: the largest channel's gradient, grey levels a pixel."""
    is_grey = np.array_equal(small[..., 0], small[..., 1]) and np.array_equal(small[..., 0], small[..., 2])
    squares = []
    for channel in range(1 if is_grey else 3):
        smooth = ndimage.gaussian_filter(np.ascontiguousarray(small[..., channel]), 0.9)
        down, right = np.gradient(smooth)
        squares.append(down * down + right * right)
    return np.sqrt(_largest(squares))


def ground_colour(small: Float, calm: Bool) -> Float:
    """(hs, ws, 3) float32: the colour of calm pixels, smoothed, and carried on beneath all others from the nearest calm one."""
    if not calm.any():
        return np.broadcast_to(small.mean((0, 1)), small.shape).astype(np.float32)
    known = calm[::2, ::2] if calm[::2, ::2].any() else np.ones_like(calm[::2, ::2])
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    nearest = small[::2, ::2][rows, columns]
    smooth = [ndimage.gaussian_filter(nearest[..., one], 3, mode="nearest", truncate=2.5) for one in range(3)]
    size = (small.shape[1], small.shape[0])
    return np.dstack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in smooth])


def _largest(planes: Sequence[Float]) -> Float:
    """The largest of several at each pixel; NumPy's own maximum over a short last axis takes ten times as long."""
    largest = planes[0]
    for plane in planes[1:]:
        largest = np.maximum(largest, plane)
    return largest


def describe_piece(subject: Subject, number: int) -> npt.NDArray[np.float64]:
    """(6,) float64: x, y as shares of the sides, the area's logarithm, median colour of one of a subject's pieces."""
    rows, columns = np.nonzero(subject.pieces == number)
    height, width = subject.part.shape
    scale = subject.image.shape[0] / height, subject.image.shape[1] / width
    colours = subject.image[(rows * scale[0]).astype(int), (columns * scale[1]).astype(int)]
    area = np.log(len(rows) / subject.part.size)
    return np.array([columns.mean() / width, rows.mean() / height, area, *np.median(colours, axis=0)])


def depth_of(mask: Bool) -> Float:
    """(hs, ws) float32: how far each pixel of a mask lies from its edge, pixels; the image's border is no edge."""
    if mask.all():
        return np.full(mask.shape, max(mask.shape), np.float32)
    depth: Float = ndimage.distance_transform_edt(mask).astype(np.float32)
    return depth


def long_axis(mask: Bool) -> tuple[float, bool]:
    """The angle of a mask's longest axis, radians from the columns' direction, and whether it is clearly longer than wide."""
    rows, columns = np.nonzero(mask)
    if len(rows) < 3:
        return 0.0, False
    values, vectors = np.linalg.eigh(np.cov(np.stack([columns, rows])))
    return float(np.arctan2(vectors[1, 1], vectors[0, 1])), bool(values[1] > LONG**2 * values[0])


def is_chiral(mask: Bool) -> bool:
    """Whether no turn lays the mask's outline on that of its mirror image."""
    rows, columns = np.nonzero(mask)
    angle = long_axis(mask)[0]
    right, down = columns - columns.mean(), rows - rows.mean()
    reach = 1.1 * float(np.hypot(right, down).max()) + 1
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    outlines = []
    for sign in (1, -1):
        plane = np.zeros((COARSE, COARSE), np.float32)
        at = [np.clip(((one / reach + 1) / 2 * COARSE).astype(int), 0, COARSE - 1) for one in (sign * across, along)]
        np.add.at(plane, tuple(at), 1)
        outlines.append(Image.fromarray(np.minimum(ndimage.gaussian_filter(plane, COARSE / reach / 2.5), 1)))
    own = np.asarray(outlines[0])
    apart = [
        float(np.abs(own - np.asarray(outlines[1].rotate(360 * turn / TURNS, Image.Resampling.BILINEAR))).sum())
        for turn in range(TURNS)
    ]
    # A thin piece is mostly outline, which is known to a pixel at best.
    rim = int((mask & ~ndimage.binary_erosion(mask)).sum())
    return min(apart) >= (OTHER + 0.5 * rim / len(rows)) * float(own.sum())
