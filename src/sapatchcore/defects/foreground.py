"""Where the part is in a good image, and which pieces it has: figure and ground, learned from good images alone.

An image is flooded from its border over calm pixels, as water rises over a relief of gradients (watersheds: Vincent and Soille
1991; the border as ground: Wei et al. 2012). What stays dry is the part, interior included. How high the water may rise is
read off all images together: where a part lies on a ground, the dry share stays the same over a long range of levels. On
a texture, whose border is as lively as its middle, there is no such range, and all that is lively is the part.

Where the part is a carrier (a tray, a board), the islands in its calm floors are its pieces; else its connected regions are.

Everything here is found at SIDE pixels; a ``Subject`` keeps it at that size, beside its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from sapatchcore.defects.subject import (
    Bool,
    Float,
    Labels,
    Subject,
    UInt8,
    describe_piece,
    ground_colour,
    shrunk,
    steepness,
)
from sapatchcore.errors import DataError

LOOKED_AT = 16  # good images, at most
FEW = 6  # of them, for a level of floors, which takes longer
LEVELS = np.geomspace(1.5, 90, 26)  # gradients, grey levels a pixel at SIDE
RANGE = 4  # levels over which the dry share must hold, at least
HOLDS = 0.75  # of it, from the first level of a range to its last
CALM_BORDER = 0.12  # a ground leaves at most this share of the border dry
LEAST = 0.0015  # of the image: a smaller region is no piece
MINOR = 0.1  # of the largest region: a smaller one is none of the parts
SHARP = 0.35  # of the sharpest outline: what has a softer one is behind the part
CARRIER = 0.5  # of the image: a part that covers more carries others
FLOOR = 0.02  # of the image: a smaller calm region is no floor
LARGEST = 0.15  # of the image: a larger island is no piece
SHADOW = 4  # pixels about a piece that are no floor, since its shadow may lie there
THICK = 0.012  # of the longer side: what is thinner to the middle is a wall's edge and no piece
LEFT = 0.4  # of a part without its shadow, at least
COLOURED = 25  # grey levels: a part that differs by this in colour alone is told by it
ALIGNED = 0.5  # share of the images' variance that their median explains, where all show things in the same places


@dataclass(frozen=True)
class Foreground:
    """How parts are told from their ground in images of one kind; ``of`` learns it, ``find`` uses it.

    flood: the gradient up to which water passes; None where nothing lies on a ground. lively: of images without a ground, the
    smoothed gradient from which a pixel is of the part. floor: the gradient up to which a carrier's floor is calm; None
    where there are no islands. aligned: whether all images show things in the same places. seen: (n, 6) float64, the
    pieces in good images: x and y of the middle as shares of the sides, the area's logarithm, median colour.
    """

    flood: float | None
    lively: float
    floor: float | None
    aligned: bool
    seen: npt.NDArray[np.float64]

    @classmethod
    def of(cls, images: Sequence[UInt8]) -> Foreground:
        """From good images, each (h, w, 3) uint8; they may differ in size. LOOKED_AT of them, evenly spaced, are looked at.

        Raises DataError where there is no image, one is smaller than SMALLEST, or none shows anything but a plain surface.
        """
        if not len(images):
            raise DataError("There are no good images to make defects on. Give at least one.")
        chosen = [images[index] for index in np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).round().astype(int))]
        small = [shrunk(image) for image in chosen]
        steep = [steepness(image) for image in small]
        flood = _flood_level(steep)
        lively = 0.25 * float(np.median([np.quantile(_smoothed(one), 0.9) for one in steep]))
        if flood is None and lively < 0.25 * LEVELS[0]:
            raise DataError(
                "The good images show no part: nothing in them stands out from one plain surface. Give images that show a part."
            )
        aligned = _are_aligned(small)
        first = cls(flood, lively, None, aligned, np.zeros((0, 6)))
        parts = [first._part(image, one) for image, one in zip(small, steep, strict=True)]
        if not any(part.any() for part in parts):
            raise DataError(
                "No part could be told from its ground in the good images. Give images that show it larger."
            )
        carries = float(np.median([part.mean() for part in parts])) > CARRIER and (flood is not None or aligned)
        second = cls(flood, lively, _floor_level(steep, parts) if carries else None, aligned, first.seen)
        seen = [_described(second.find(image)) for image in chosen]
        return cls(flood, lively, second.floor, aligned, np.concatenate(seen))

    def find(self, image: UInt8) -> Subject:
        """What ``image``, (h, w, 3) uint8, shows. Raises DataError where it is smaller than SMALLEST."""
        small = shrunk(image)
        steep = steepness(small)
        part = self._part(small, steep)
        if self.flood is not None and self.floor is None:
            pieces, count = _free_standing(part)
            calm = ~ndimage.binary_dilation(_dry(steep, self.flood) | part, iterations=2)
            return Subject(image, part, calm, pieces, count, False, ground_colour(small, calm), steep)
        floors = np.zeros(part.shape, np.intp) if self.floor is None else _floors(steep, self.floor)
        pieces, count = _islands(floors, part)
        calm = ndimage.binary_erosion(floors > 0) & ~ndimage.binary_dilation(pieces > 0, iterations=SHADOW)
        return Subject(image, part, calm, pieces, count, True, ground_colour(small, calm), steep)

    def _part(self, small: Float, steep: Float) -> Bool:
        """(hs, ws) bool of one shrunk image and its gradient."""
        if self.flood is None:
            part: Bool = _smoothed(steep) > self.lively
            return part
        dry = _dry(steep, self.flood)
        opened = _opened(dry, 2)  # lines go, unless the part is all lines
        part = opened if opened.sum() > 0.5 * dry.sum() else _opened(dry, 1)
        if part.any() and part.mean() <= CARRIER:
            part = _without_shadow(small, part, dry)
        return _large_only(part, steep)


def _smoothed(steep: Float) -> Float:
    smooth: Float = ndimage.gaussian_filter(steep, 0.03 * max(steep.shape))
    return smooth


def _border(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def _opened(mask: Bool, by: int) -> Bool:
    """The mask without what is thinner than ``2·by + 1``; what the image's border cuts counts as going on beyond it."""
    eroded = ndimage.binary_erosion(mask, iterations=by, border_value=1)
    opened: Bool = ndimage.binary_dilation(eroded, iterations=by) & mask
    return opened


def _dry(steep: Float, level: float) -> Bool:
    """(hs, ws) bool: what water from the border does not reach where it passes gradients below ``level``."""
    lakes, count = ndimage.label(steep < level)
    dry = np.ones(count + 1, np.bool_)
    dry[_border(lakes)] = False
    dry[0] = True
    found: Bool = dry[lakes]
    return found


def _flood_level(steep: Sequence[Float]) -> float | None:
    """The middle of the longest range of levels over which the dry share holds; None where no range is long enough."""
    dry = [[_dry(one, level) for one in steep] for level in LEVELS]
    shares = [float(np.median([one.mean() for one in row])) for row in dry]
    borders = [float(np.median([_border(one).mean() for one in row])) for row in dry]
    longest, level = 0, None
    for first, share in enumerate(shares):
        if borders[first] > CALM_BORDER or share < 2 * LEAST:
            continue
        last = first
        while last + 1 < len(LEVELS) and shares[last + 1] >= HOLDS * share:
            last += 1
        if last - first + 1 > max(longest, RANGE - 1):
            longest, level = last - first + 1, float(LEVELS[(first + last) // 2])
    return level


def _without_shadow(small: Float, part: Bool, dry: Bool) -> Bool:
    """The part without a soft shadow or halo around it: where it is nearer to the ground's colour than to its own.

    Where colours tell more than a darker ground could explain, brightness is left out: a shadow has the ground's colour.
    """
    ground = ground_colour(small, ~ndimage.binary_dilation(dry, iterations=2))[part]
    own = small[part]
    dimmed = ground * np.clip((own * ground).sum(-1) / np.maximum((ground * ground).sum(-1), 1), 0.45, 1.05)[:, None]
    away, by_colour = np.abs(own - ground).max(-1), np.abs(own - dimmed).max(-1)
    ways = [(by_colour, 0.3), (away, 0.35)] if np.quantile(by_colour, 0.75) > COLOURED else [(away, 0.35)]
    regions = ndimage.label(part, np.ones((3, 3)))[1]
    for differs, least in ways:
        far = np.zeros_like(part)
        far[part] = differs > least * np.quantile(differs, 0.75)
        joined = ndimage.binary_erosion(ndimage.binary_dilation(far, iterations=2), iterations=2, border_value=1)
        closed: Bool = ndimage.binary_fill_holes(joined) & part
        # A part with stripes of its ground's colour must not fall apart.
        if closed.sum() > LEFT * part.sum() and _count_large(closed) <= regions:
            return closed
    return part


def _count_large(mask: Bool) -> int:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    return int((np.bincount(labels.ravel(), minlength=count + 1)[1:] >= LEAST * mask.size).sum())


def _large_only(mask: Bool, steep: Float) -> Bool:
    """Without specks, and without what is so blurred beside the rest that it lies behind it."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    rim = np.where(ndimage.binary_erosion(mask), 0, labels)
    sharp = np.bincount(rim.ravel(), steep.ravel(), count + 1) / np.maximum(
        np.bincount(rim.ravel(), minlength=count + 1), 1
    )
    areas[0] = 0
    large = areas >= max(LEAST * mask.size, MINOR * areas.max())
    if large.any():
        large &= sharp >= SHARP * sharp[large].max()
    kept: Bool = large[labels]
    return kept


def _floors(steep: Float, level: float) -> Labels:
    """(hs, ws): the large calm regions numbered, 0 elsewhere."""
    labels, count = ndimage.label(steep < level)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= FLOOR * steep.size
    large[0] = False
    found: Labels = np.cumsum(large)[labels] * large[labels]
    return found


def _islands(floors: Labels, part: Bool) -> tuple[Labels, int]:
    """(hs, ws) numbers of what lies in the floors and is no floor, no wall and no speck, and how many there are."""
    found = np.zeros(part.shape, np.intp)
    count = 0
    for number, floor in enumerate(ndimage.find_objects(floors), start=1):
        holes = floors[floor] != number
        # Islands touch no side of their floor's box: what does is outside.
        outside = np.pad(holes, 1, constant_values=True)
        outer, _ = ndimage.label(outside)
        inside = ndimage.binary_opening(holes & (outer[1:-1, 1:-1] != outer[0, 0]))
        islands, amount = ndimage.label(inside, np.ones((3, 3)))
        for index, box in enumerate(ndimage.find_objects(islands, amount), start=1):
            island = islands[box] == index
            if not LEAST * part.size <= island.sum() <= LARGEST * part.size or floors[floor][box][island].any():
                continue
            thick = ndimage.distance_transform_edt(np.pad(island, 1)).max()
            if thick >= THICK * max(part.shape) and part[floor][box][island].any():
                count += 1
                found[floor][box][island] = count
    return found, count


def _free_standing(part: Bool) -> tuple[Labels, int]:
    """The part's connected regions, (hs, ws), and how many; those that the image's border cuts only where all are cut."""
    labels, count = ndimage.label(part, np.ones((3, 3)))
    cut = np.zeros(count + 1, np.bool_)
    cut[_border(labels)] = True
    cut[0] = True
    if not cut.all():
        numbers = np.cumsum(~cut) * ~cut
        labels, count = numbers[labels], int(numbers.max())
    return labels, count


def _floor_level(steep: Sequence[Float], parts: Sequence[Bool]) -> float | None:
    """The gradient, amid those at which floors show the most islands; None where fewer than two show in most images."""
    few = list(zip(steep, parts, strict=True))[:: -(-len(steep) // FEW)]
    counts = [np.median([_islands(_floors(one, level), part)[1] for one, part in few]) for level in LEVELS[::2]]
    best = np.flatnonzero(counts == np.max(counts))
    return float(LEVELS[2 * best[len(best) // 2]]) if np.max(counts) >= 2 else None


def _are_aligned(small: Sequence[Float]) -> bool:
    """Whether the median of all images explains most of each; unknown, and so False, of fewer than four."""
    if len(small) < 4:
        return False
    grey = np.stack([np.asarray(Image.fromarray(one.mean(-1)).resize((64, 64), Image.Resampling.BOX)) for one in small])
    off = ((grey - np.median(grey, axis=0)) ** 2).mean((1, 2))
    return bool(np.median(off / np.maximum(grey.var((1, 2)), 1e-6)) < 1 - ALIGNED)


def _described(subject: Subject) -> npt.NDArray[np.float64]:
    numbers = range(1, subject.count + 1)
    return np.array([describe_piece(subject, number) for number in numbers]).reshape(-1, 6)
