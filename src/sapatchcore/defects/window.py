"""A window of a good image: taken out and put back, what is known of the image in it, and what it would show without the part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from sapatchcore.defects.shapes import clouds
from sapatchcore.defects.subject import Float, Subject, UInt8

TILE = 5  # pixels at SIDE of the calm square that gives a ground's grain
TILES = 5  # of them looked at
DEEP = 15.0  # grey levels that a hole is darker than the surface, at least


@dataclass(frozen=True)
class Window:
    """A rectangle of an image (height × width), rows top to bottom and columns left to right, ends excluded.

    It may stick out of the image: what is taken there repeats the image's edge, what is put back there is lost.
    """

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def within(self) -> tuple[slice, slice]:
        """Its rows and columns that lie in the image, in the image."""
        return slice(max(0, self.top), min(self.height, self.bottom)), slice(
            max(0, self.left), min(self.width, self.right)
        )

    @property
    def kept(self) -> tuple[slice, slice]:
        """The same rows and columns, in the window."""
        rows, columns = self.within
        return slice(rows.start - self.top, rows.stop - self.top), slice(
            columns.start - self.left, columns.stop - self.left
        )


def window_around(middle: tuple[int, int], half: int, size: tuple[int, int]) -> Window:
    """The square of ``2·half + 1`` about middle, row and column of an image of ``size`` (h, w)."""
    row, column = middle
    return Window(row - half, row + half + 1, column - half, column + half + 1, *size)


def taken(image: UInt8, window: Window) -> Float:
    """(h, w, 3) float32: the window's pixels."""
    rows = np.clip(np.arange(window.top, window.bottom), 0, window.height - 1)
    columns = np.clip(np.arange(window.left, window.right), 0, window.width - 1)
    return image[rows[:, None], columns].astype(np.float32)


def put_back(image: UInt8, patch: Float, window: Window) -> UInt8:
    """(h, w, 3) uint8: a copy of the image with the patch, (h, w, 3) float32, in its window."""
    changed = image.copy()
    changed[window.within] = np.clip(np.rint(patch[window.kept]), 0, 255).astype(np.uint8)
    return changed


def enlarged(plane: npt.NDArray[np.generic], subject: Subject, window: Window) -> Float:
    """(h, w) float32: a plane (hs, ws) of the subject's own as the window shows it; 0 outside of the image."""
    rows, columns = window.within
    small_height, small_width = subject.part.shape
    down, across = small_height / window.height, small_width / window.width
    box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    seen = Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BILINEAR, box=box)
    full = np.zeros(window.shape, np.float32)
    full[window.kept] = np.asarray(seen)
    return full


def behind(subject: Subject, window: Window, random: np.random.Generator) -> Float | None:
    """(h, w, 3) float32: what the window would show without the part: the ground's colour with the ground's own grain.

    None where the image shows no ground.
    """
    if not subject.calm.any():
        return None
    planes = [enlarged(subject.ground[..., one], subject, window) for one in range(3)]
    return np.stack(planes, axis=-1) + _grain(subject, window.shape, random)


def hole(patch: Float, random: np.random.Generator) -> Float:
    """(h, w, 3) float32: what a hole in a surface without a ground shows: one tone, dark or light, a little uneven."""
    grey = patch.mean(-1)
    order = np.argsort(grey, axis=None)
    few = max(4, grey.size // 50)
    level = float(grey[tuple(length // 2 for length in grey.shape)])
    dark, light = (patch.reshape(-1, 3)[some].mean(0) for some in (order[:few], order[-few:]))
    is_dark = level - float(dark.mean()) > DEEP and random.random() < 0.7
    uneven = 6 * clouds(grey.shape, max(4.0, grey.shape[0] / 3), random) + 0.35 * (grey - grey.mean())
    shown: Float = ((dark if is_dark else light) + uneven[..., None]).astype(np.float32)
    return shown


def _grain(subject: Subject, shape: tuple[int, int], random: np.random.Generator) -> Float:
    """(h, w, 3) float32: what the ground's pixels differ by from its colour: a calm square of it, mirrored on and on."""
    whole = ndimage.minimum_filter(subject.calm, TILE, mode="constant")
    spots = np.flatnonzero(whole)
    if not len(spots):
        return np.zeros((*shape, 3), np.float32)
    down, across = (full / small for full, small in zip(subject.image.shape, whole.shape, strict=False))
    tiles = []
    for index in random.choice(spots, TILES):
        row, column = np.unravel_index(int(index), whole.shape)
        top, left = int((row - TILE // 2) * down), int((column - TILE // 2) * across)
        tile = subject.image[top : top + max(4, int(TILE * down)), left : left + max(4, int(TILE * across))]
        flat = tile.astype(np.float32)
        tiles.append(flat - ndimage.gaussian_filter(flat, (0.2 * len(flat), 0.2 * len(flat), 0), mode="nearest"))
    flat = sorted(tiles, key=lambda one: float(one.std()))[TILES // 2]  # neither blurred nor with an edge in it
    beyond = [(0, max(0, full - own)) for full, own in zip(shape, flat.shape, strict=False)]
    return np.pad(flat, [*beyond, (0, 0)], mode="symmetric")[: shape[0], : shape[1]]
