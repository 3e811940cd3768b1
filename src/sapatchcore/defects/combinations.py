"""Wrong combinations on a good image: each piece looks as it should, and is where it should not be, or is not there.

Where an image shows several pieces, a whole one is moved, doubled, removed, exchanged or mirrored. Where it shows one part alone,
a section of that part is (``sections.py``).

What good images show anyway is no defect: a piece is moved only to where none of those that the foreground was learned from shows
one like it, two are exchanged only where that holds for both, and one is mirrored only where no turn brings it back.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sapatchcore.defects.canvas import SAME_GROUND, Canvas, grown, turned, turning
from sapatchcore.defects.foreground import Foreground
from sapatchcore.defects.sections import change_section
from sapatchcore.defects.subject import Bool, Subject, UInt8, describe_piece, long_axis
from sapatchcore.defects.window import Window

COMBINATIONS = ("moved", "doubled", "removed", "swapped", "mirrored")
ALIKE_COLOUR = 30  # grey levels
ALIKE_AREA = 0.5  # of its logarithm
ALIKE_AWAY = 2.0  # sizes of a piece: nearer than this to where good images show one like it is no other place
CROWDED = 0.15  # of a piece's area: what may lie on other things where it takes another one's place
PAIRS = 12  # of pieces tried for an exchange
SECTIONED = 0.03  # of the image: a smaller piece is not cut into sections


def make_combination(
    subject: Subject, kind: str, random: np.random.Generator, foreground: Foreground
) -> tuple[UInt8, Window] | None:
    """The image, (h, w, 3) uint8, with one try at ``kind``, one of COMBINATIONS, and the window that it may have changed.

    None where the image allows none. Whether the change is seen is the caller's to ask.
    """
    if not subject.count or not subject.calm.any():
        return None
    canvas = Canvas(subject)
    areas = np.bincount(subject.pieces.ravel(), minlength=subject.count + 1)[1:]
    made = (subject.count > 1 or subject.carries) and _change_piece(canvas, kind, random, foreground)
    if not made and not subject.carries and areas.max() >= SECTIONED * subject.pieces.size:
        part = subject.pieces == 1 + int(areas.argmax())
        made = change_section(canvas, part, kind, random, aligned=foreground.aligned)
    return canvas.finished() if made else None


def _change_piece(canvas: Canvas, kind: str, random: np.random.Generator, foreground: Foreground) -> bool:
    """Change a whole piece; whether there was one to change."""
    subject = canvas.subject
    numbers = [int(number) for number in 1 + random.permutation(subject.count)]
    if kind == "swapped":
        return _exchange(canvas, numbers, random, foreground)
    if kind == "mirrored":
        numbers = [number for number in numbers if number in subject.chiral]
    for number in numbers:
        mask = subject.pieces == number
        if kind == "removed":
            canvas.erase(grown(mask, 2), random)
            return True
        piece = canvas.lift(grown(mask, 1))
        if kind == "mirrored":
            canvas.erase(grown(mask, 2), random)
            other = turned(piece, turning(0, mirrored=True, about=long_axis(mask)[0]))
            canvas.paste(other, canvas.middle(mask), fit=False)
            return True
        angle = random.uniform(0, 2 * math.pi)
        allowed = None if kind == "doubled" else _elsewhere(subject, number, foreground)
        place = canvas.free_place(mask, angle, allowed, random)
        if place is not None:
            if kind == "moved":
                canvas.erase(grown(mask, 2), random)
            canvas.paste(turned(piece, turning(angle)), place)
            return True
    return False


def _exchange(canvas: Canvas, numbers: list[int], random: np.random.Generator, foreground: Foreground) -> bool:
    """Exchange two pieces that differ; whether there were two."""
    subject = canvas.subject
    pairs = [(one, other) for index, one in enumerate(numbers) for other in numbers[index + 1 :]]
    for one, other in [pairs[index] for index in random.permutation(len(pairs))[:PAIRS]]:
        if _alike(describe_piece(subject, one), describe_piece(subject, other)[None])[0]:
            continue
        masks = [subject.pieces == number for number in (one, other)]
        small = [tuple(int(value) for value in np.argwhere(mask).mean(0)) for mask in masks]
        if not (_elsewhere(subject, one, foreground)[small[1]] and _elsewhere(subject, other, foreground)[small[0]]):
            continue
        blocked = ~(subject.calm | grown(masks[0] | masks[1], 3))
        if any(_overlap(mask, small[1 - index], blocked) > CROWDED for index, mask in enumerate(masks)):
            continue
        pieces = [canvas.lift(grown(mask, 1)) for mask in masks]
        if np.abs(pieces[0].ground - pieces[1].ground).max() > SAME_GROUND:
            continue
        for mask in masks:
            canvas.erase(grown(mask, 2), random)
        for piece, mask in zip(pieces, reversed(masks), strict=True):
            canvas.paste(piece, canvas.middle(mask))
        return True
    return False


def _elsewhere(subject: Subject, number: int, foreground: Foreground) -> Bool:
    """(hs, ws) bool: where no good image shows a piece like this one."""
    piece = describe_piece(subject, number)
    height, width = subject.part.shape
    alike = foreground.seen[_alike(piece, foreground.seen)]
    far = np.ones(subject.part.shape, np.bool_)
    rows, columns = (alike[:, 1] * height).astype(int), (alike[:, 0] * width).astype(int)
    far[np.minimum(rows, height - 1), np.minimum(columns, width - 1)] = False
    if far.all():
        return far
    size = math.sqrt(math.exp(piece[2]) * subject.part.size)
    away: Bool = ndimage.distance_transform_edt(far) > ALIKE_AWAY * size
    return away


def _alike(one: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> Bool:
    """(n,) bool: whether a piece looks like each of the others; all as of ``describe_piece``."""
    same_colour = np.abs(one[3:] - others[:, 3:]).max(-1) < ALIKE_COLOUR
    alike: Bool = same_colour & (np.abs(one[2] - others[:, 2]) < ALIKE_AREA)
    return alike


def _overlap(mask: Bool, middle: tuple[int, ...], blocked: Bool) -> float:
    """The share of the mask, moved to middle, that lies on what is blocked or outside of the image."""
    rows, columns = np.nonzero(mask)
    rows, columns = rows - int(rows.mean()) + middle[0], columns - int(columns.mean()) + middle[1]
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    return 1 - float((~blocked[rows[inside], columns[inside]]).sum()) / len(rows)
