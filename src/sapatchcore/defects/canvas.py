"""A good image on which pieces are erased, lifted, turned and laid elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage, signal

from sapatchcore.defects.shapes import smooth_step, softened
from sapatchcore.defects.subject import Bool, Float, Subject, UInt8
from sapatchcore.defects.window import Window, behind, enlarged, taken

SAME_GROUND = 35.0  # grey levels between the grounds of two places, at most, for a piece to go from one to the other
BRIGHTER = 1.1  # times a piece may become lighter or darker to fit its new ground
OVERLAP = 0.02  # of a piece's area: what may lie on other things than ground
SHADE = 8  # pixels at SIDE about a part that its shadow may darken
SHADE_CARRIED = 2  # the same about a piece on a carrier, where walls are near


@dataclass(frozen=True)
class Lifted:
    """A piece taken out of an image: patch (h, w, 3) float32, cover (h, w) float32, and its ground's colour, (3,) float32."""

    patch: Float
    cover: Float
    ground: Float


class Canvas:
    """A subject's image while pieces are erased and pasted. pixels: (h, w, 3) float32. window: holds all that was touched."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.pixels = subject.image.astype(np.float32)
        self.window: Window | None = None
        full, small = subject.image.shape, subject.part.shape
        self.scale = full[0] / small[0], full[1] / small[1]

    def lift(self, mask: Bool, room: Bool | None = None) -> Lifted:
        """What the original image shows in the mask, (hs, ws) bool, with a soft edge. room: a larger mask, whose box it fills."""
        window = self._around(mask if room is None else room)
        ground = self._ground_at(self.middle(mask))
        return Lifted(taken(self.subject.image, window), self._cover(mask, window, 0.6), ground)

    def erase(self, mask: Bool, random: np.random.Generator) -> None:
        """Put what is behind the part in the mask's place, (hs, ws) bool, and lighten its shadow; nothing without a ground."""
        shaded = (
            grown(mask, SHADE_CARRIED if self.subject.carries else SHADE)
            & ~self.subject.calm
            & (mask | ~self.subject.any_part)
        )
        for region, soft in ((shaded, 1.5), (mask, 0.6)):
            window = self._around(region)
            seen = behind(self.subject, window, random)
            if seen is not None:
                self._blend(seen, self._cover(region, window, soft), window)

    def paste(self, lifted: Lifted, middle: tuple[float, float], *, fit: bool = True) -> float:
        """Lay a piece about middle, row and column. fit: with its brightness fitted to the ground there.

        Returns by how many grey levels it changed the pixels that it covers, on average.
        """
        height, width = lifted.cover.shape
        top, left = round(middle[0] - height / 2), round(middle[1] - width / 2)
        window = Window(top, top + height, left, left + width, *self.pixels.shape[:2])
        # A factor, as light is: a dark piece stays dark on a lighter ground.
        light = np.clip((self._ground_at(middle) + 1) / (lifted.ground + 1), 1 / BRIGHTER, BRIGHTER) if fit else 1
        return self._blend(lifted.patch * light, lifted.cover, window)

    def middle(self, mask: Bool) -> tuple[float, float]:
        """Row and column, in the image, of the middle of the mask's box, (hs, ws) bool."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        return (rows[0] + rows[-1] + 1) / 2 * self.scale[0], (columns[0] + columns[-1] + 1) / 2 * self.scale[1]

    def free_place(
        self, mask: Bool, angle: float, allowed: Bool | None, random: np.random.Generator
    ) -> tuple[float, float] | None:
        """A row and a column of the image about which the mask, (hs, ws) bool, turned by ``angle``, lies on ground like its own.

        allowed: (hs, ws) bool, where the middle may be; None: anywhere. None where there is no such place.
        """
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        own = Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8))
        shape = _halved(np.asarray(own.rotate(-math.degrees(angle), expand=True)) > 0)
        blocked = _halved(~self.subject.calm)
        if shape.shape[0] > blocked.shape[0] or shape.shape[1] > blocked.shape[1]:
            return None
        over = signal.fftconvolve(blocked.astype(np.float32), shape[::-1, ::-1].astype(np.float32), mode="valid")
        y, x = np.nonzero(over <= OVERLAP * shape.sum())
        y, x = 2 * y + shape.shape[0], 2 * x + shape.shape[1]
        y, x = np.minimum(y, mask.shape[0] - 1), np.minimum(x, mask.shape[1] - 1)
        ground = self.subject.ground[mask].mean(0)
        fits = np.abs(self.subject.ground[y, x] - ground).max(-1) <= SAME_GROUND
        if allowed is not None:
            fits &= allowed[y, x]
        if not fits.any():
            return None
        index = int(random.choice(np.flatnonzero(fits)))
        return y[index] * self.scale[0], x[index] * self.scale[1]

    def finished(self) -> tuple[UInt8, Window]:
        """The image, (h, w, 3) uint8, and the window outside of which nothing changed."""
        height, width = self.pixels.shape[:2]
        window = Window(0, 1, 0, 1, height, width) if self.window is None else self.window
        image = self.subject.image.copy()
        image[window.within] = np.clip(np.rint(self.pixels[window.within]), 0, 255).astype(np.uint8)
        return image, window

    def _ground_at(self, middle: tuple[float, float]) -> Float:
        """(3,) float32."""
        row, column = (
            min(max(0, int(at / scale)), small - 1)
            for at, scale, small in zip(middle, self.scale, self.subject.part.shape, strict=True)
        )
        colour: Float = self.subject.ground[row, column]
        return colour

    def _around(self, mask: Bool) -> Window:
        """The mask's box in the image with room for its soft edge."""
        height, width = self.pixels.shape[:2]
        down, across = self.scale
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        room = 3 * max(down, across)
        top, bottom = int(rows[0] * down - room), math.ceil((rows[-1] + 1) * down + room)
        left, right = int(columns[0] * across - room), math.ceil((columns[-1] + 1) * across + room)
        return Window(top, bottom, left, right, height, width)

    def _cover(self, mask: Bool, window: Window, soft: float) -> Float:
        wide = softened(enlarged(mask.astype(np.float32), self.subject, window), max(0.5, soft * self.scale[0]))
        return smooth_step((wide - 0.2) / 0.6)

    def _blend(self, patch: Float, cover: Float, window: Window) -> float:
        there, seen = self.pixels[window.within], cover[window.kept][..., None]
        change = seen * (patch[window.kept] - there)
        there += change
        old = window if self.window is None else self.window
        self.window = Window(
            min(old.top, window.top),
            max(old.bottom, window.bottom),
            min(old.left, window.left),
            max(old.right, window.right),
            window.height,
            window.width,
        )
        return float(np.abs(change).sum() / max(3 * float(seen.sum()), 1e-6))


def grown(mask: Bool, by: int) -> Bool:
    """The mask with ``by`` pixels more around it."""
    larger: Bool = ndimage.binary_dilation(mask, iterations=by)
    return larger


def turning(angle: float, *, mirrored: bool = False, about: float = 0.0) -> npt.NDArray[np.float64]:
    """(2, 2): x and y turned by ``angle``, radians; mirrored: at the line through the middle in direction ``about`` first."""
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    if not mirrored:
        return turn
    double = 2 * about
    mirror = np.array([[math.cos(double), math.sin(double)], [math.sin(double), -math.cos(double)]])
    both: npt.NDArray[np.float64] = turn @ mirror
    return both


def turned(lifted: Lifted, matrix: npt.NDArray[np.float64]) -> Lifted:
    """The piece under a turn or a mirror, (2, 2) as of ``turning``, about its middle; the window grows to hold it."""
    height, width = lifted.cover.shape
    reach = np.abs(matrix) @ np.array([width, height])
    wide, high = math.ceil(reach[0]), math.ceil(reach[1])
    inverse = np.linalg.inv(matrix)
    offset = np.array([width / 2, height / 2]) - inverse @ np.array([wide / 2, high / 2])
    data = (*inverse[0], offset[0], *inverse[1], offset[1])
    size, affine = (wide, high), Image.Transform.AFFINE
    pixels = Image.fromarray(np.clip(np.rint(lifted.patch), 0, 255).astype(np.uint8))
    patch = np.asarray(pixels.transform(size, affine, data, Image.Resampling.BICUBIC)).astype(np.float32)
    cover = Image.fromarray(lifted.cover).transform(size, affine, data, Image.Resampling.BILINEAR)
    return Lifted(patch, np.asarray(cover), lifted.ground)


def _halved(mask: Bool) -> Bool:
    """(h/2, w/2) bool: True where any of the four pixels is."""
    padded = np.pad(mask, [(0, mask.shape[0] % 2), (0, mask.shape[1] % 2)])
    halved: Bool = padded[::2, ::2] | padded[1::2, ::2] | padded[::2, 1::2] | padded[1::2, 1::2]
    return halved
