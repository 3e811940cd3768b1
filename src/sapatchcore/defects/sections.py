"""Wrong combinations where an image shows one part alone: an end of it broken off, displaced or lying beside it, a second part,
a spot of it that looks as another spot should, or the wrong way round."""

from __future__ import annotations

import math

import numpy as np

from sapatchcore.defects.canvas import Canvas, Lifted, grown, turned, turning
from sapatchcore.defects.subject import Bool, Float, long_axis

ENDS = {"moved": (0.15, 0.45), "removed": (0.08, 0.35), "doubled": (0.12, 0.4)}  # of the part's length
SPOTS = (0.4, 0.9)  # radii of a disc that fits in the part
LEAST_SPOT, MOST_SPOT = 4.0, 14.0  # pixels at SIDE: a smaller one shows nothing, a larger one is no spot
OTHER_SPOT = 12.0  # grey levels between what a spot shows and what it showed, on average
RAGGED = 1.2  # pixels at SIDE that a line of breakage runs to and fro
COPIES = 3  # turns at which a second part is tried
BENT = 0.3  # radians that a second part is turned by, at most, where all parts lie alike


def change_section(canvas: Canvas, part: Bool, kind: str, random: np.random.Generator, *, aligned: bool) -> bool:
    """Change a section of the part, (hs, ws) bool, as ``kind``, one of COMBINATIONS, says; whether there was room for it.

    aligned: whether good images show the part at one angle.
    """
    if kind in ("swapped", "mirrored"):
        return _change_spot(canvas, part, kind, random)
    if kind == "doubled":
        for _ in range(COPIES):
            angle = random.uniform(-BENT, BENT) if aligned else random.uniform(0, 2 * math.pi)
            place = canvas.free_place(part, angle, None, random)
            if place is not None:
                canvas.paste(turned(canvas.lift(part), turning(angle)), place)
                return True
    angle, is_long = long_axis(part)
    if not is_long:
        angle = random.uniform(0, math.pi)
    along, across = _axes(part, angle)
    low, high = (float(value) for value in np.quantile(along[part], (0.01, 0.99)))
    length = (high - low) * random.uniform(*ENDS[kind])
    at_low = bool(random.random() < 0.5)
    from_end = along - low if at_low else high - along
    band = from_end + _ragged(across, random) < length
    end = part & band
    if not end.any():
        return False
    if kind == "removed":
        canvas.erase(grown(part, 2) & band, random)
        return True
    piece = canvas.lift(end if kind == "doubled" else grown(part, 1) & band)
    if kind == "doubled":
        angle = random.uniform(0, 2 * math.pi)
        place = canvas.free_place(end, angle, None, random)
        if place is not None:
            canvas.paste(turned(piece, turning(angle)), place)
        return place is not None
    row, column = canvas.middle(grown(part, 1) & band)
    canvas.erase(grown(part, 2) & band, random)
    half = canvas.scale[0] * float(np.quantile(np.abs(across[end]), 0.95))
    aside = half * random.uniform(0.15, 0.5) * float(random.choice([-1, 1]))
    outward = half * random.uniform(0, 0.3) * (-1 if at_low else 1)
    row += aside * math.cos(angle) + outward * math.sin(angle)
    column += outward * math.cos(angle) - aside * math.sin(angle)
    canvas.paste(turned(piece, turning(random.uniform(-0.2, 0.2))), (row, column))
    return True


def _change_spot(canvas: Canvas, part: Bool, kind: str, random: np.random.Generator) -> bool:
    """Exchange two round spots of the part, or mirror one, each in the thick of it."""
    depth = canvas.subject.depth * part
    middles = np.argwhere(depth >= max(LEAST_SPOT, float(np.quantile(depth[part], 0.7))))
    if not len(middles):
        return False
    first = middles[int(random.integers(len(middles)))]
    radius = min(max(LEAST_SPOT, float(depth[tuple(first)]) * random.uniform(*SPOTS)), MOST_SPOT)
    spots = [first]
    if kind == "swapped":
        far = middles[np.hypot(*(middles - first).T) > 2.2 * radius]
        if not len(far):
            return False
        spots.append(far[int(random.integers(len(far)))])
    waves = random.uniform(0.05, 0.15, 3), random.uniform(0, 2 * math.pi, 3)
    pieces: list[Lifted] = []
    places: list[tuple[float, float]] = []
    for row, column in spots:
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        angle = np.arctan2(y - row, x - column)
        outline = 1 + sum(
            size * np.cos(number * angle + start) for number, size, start in zip((2, 3, 5), *waves, strict=True)
        )
        away = np.hypot(y - row, x - column)
        # A disc that holds it, so that its mirror image holds it too.
        room = away <= radius * float(outline.max())
        pieces.append(canvas.lift(away <= radius * outline, room))
        places.append(canvas.middle(room))
    if kind == "mirrored":
        about = long_axis(part)[0] + float(random.choice([0, math.pi / 2]))
        whole = turned(pieces[0], turning(0, mirrored=True, about=about))
        height, width = pieces[0].cover.shape
        top, left = ((large - small) // 2 for large, small in zip(whole.cover.shape, (height, width), strict=True))
        # What is mirrored is the look, not the outline of the spot.
        pieces = [Lifted(whole.patch[top : top + height, left : left + width], pieces[0].cover, pieces[0].ground)]
    return all(
        canvas.paste(piece, middle, fit=False) >= OTHER_SPOT
        for piece, middle in zip(pieces, reversed(places), strict=True)
    )


def _ragged(across: Float, random: np.random.Generator) -> Float:
    """How far a line of breakage lies off a straight one, at each distance across the part."""
    off = np.zeros_like(across)
    for wave in (19.0, 8.0, 4.5):
        off += (
            RAGGED
            * (wave / 19) ** 0.7
            * random.uniform(0.2, 1)
            * np.sin(across * (2 * math.pi / (wave * random.uniform(0.7, 1.4))))
        )
    return off


def _axes(part: Bool, angle: float) -> tuple[Float, Float]:
    """(hs, ws) how far each pixel lies along a line at ``angle`` through the part's middle, and across it."""
    rows, columns = np.nonzero(part)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    right, down = x - columns.mean(), y - rows.mean()
    return right * math.cos(angle) + down * math.sin(angle), down * math.cos(angle) - right * math.sin(angle)
