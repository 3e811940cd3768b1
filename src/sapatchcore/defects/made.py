"""Defects made on good images, each with its mask: what a user without a defect can judge a detector by.

Kinds come in two groups. Local ones change how the part looks in one place (``local_defects.py``); combinations leave every
piece as it is and put it where it does not belong, or nowhere (``combinations.py``). A detector may find the one and
miss the other, so each group is judged by itself.

A defect counts where a person can see it: a pixel is in the mask where it changed, and the whole must be large and strong
enough; else another is tried, and an image on which none succeeds is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sapatchcore.defects.combinations import COMBINATIONS, make_combination
from sapatchcore.defects.foreground import Foreground
from sapatchcore.defects.local_defects import LOCAL, make_local
from sapatchcore.defects.subject import Bool, Subject, UInt8
from sapatchcore.defects.window import Window
from sapatchcore.errors import SettingsError, did_you_mean

VERSION = 1
GROUPS = ("local", "combination")
KINDS: dict[str, str] = {**dict.fromkeys(LOCAL, "local"), **dict.fromkeys(COMBINATIONS, "combination")}
TRIES = 8
NOTICEABLE = 6  # grey levels about a pixel from which it counts as changed
VISIBLE = 10  # grey levels that the mask's pixels changed by on average, at least
SMALLEST_MASK = 8  # pixels
LEAST_SHARE = 4e-5  # of the image


@dataclass(frozen=True)
class MadeDefect:
    """image: (h, w, 3) uint8. mask: (h, w) bool, True where the image changed. kind: one of KINDS. source: the number of the good
    image it was made on."""

    image: UInt8
    mask: Bool
    kind: str
    source: int

    @property
    def group(self) -> str:
        """One of GROUPS."""
        return KINDS[self.kind]


def make_defect(
    subject: Subject, kind: str, random: np.random.Generator, foreground: Foreground
) -> tuple[UInt8, Bool] | None:
    """A defect of ``kind``, one of KINDS, on a good image: (h, w, 3) uint8, and its mask, (h, w) bool.

    subject: the image as ``foreground.find`` sees it. random: the only source of chance. None where the image does not allow
    the kind: a surface without lines cannot be bent, an image without pieces has none to swap.
    Raises SettingsError for another kind.
    """
    if kind not in KINDS:
        raise SettingsError(f"kind must be {', '.join(KINDS)}. Got {kind!r}.{did_you_mean(kind, KINDS)}")
    for _ in range(TRIES):
        is_local = KINDS[kind] == "local"
        made = make_local(subject, kind, random) if is_local else make_combination(subject, kind, random, foreground)
        if made is None:
            continue
        image, window = made
        mask = changed(subject.image, image, window)
        if mask is not None:
            return image, mask
    return None


def made_defects(
    images: Iterable[UInt8], foreground: Foreground, *, kinds: Sequence[str] = tuple(KINDS), seed: int = 0
) -> Iterator[MadeDefect]:
    """One defect of each kind on each of the good images, (h, w, 3) uint8; the kinds that an image does not allow are left out.

    A defect depends on the seed, the image, its number and the kind alone, not on the other kinds. Errors as of ``make_defect``.
    """
    for source, image in enumerate(images):
        subject = foreground.find(image)
        for kind in kinds:
            made = make_defect(subject, kind, generator(seed, source, kind), foreground)
            if made is not None:
                yield MadeDefect(*made, kind, source)


def generator(seed: int, source: int, kind: str) -> np.random.Generator:
    """The source of chance of one defect, apart from all others'."""
    return np.random.default_rng([seed, source, list(KINDS).index(kind) if kind in KINDS else len(KINDS)])


def changed(before: UInt8, after: UInt8, window: Window) -> Bool | None:
    """(h, w) bool: where two images, (h, w, 3) uint8, that are equal outside of the window differ; None where nobody sees it."""
    rows, columns = window.within
    apart = np.abs(before[rows, columns].astype(np.int16) - after[rows, columns])
    largest = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2]).astype(np.float32)
    # Judged with its neighbours, so that grain that happens to be alike leaves no holes.
    found = (ndimage.uniform_filter(largest, 3) >= NOTICEABLE) & (largest > 0)
    labels, count = ndimage.label(found, np.ones((3, 3)))
    if not count:
        return None
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    found = (areas >= max(SMALLEST_MASK // 2, 0.02 * areas.max()))[labels] & found
    least = max(SMALLEST_MASK, LEAST_SHARE * before.shape[0] * before.shape[1])
    if found.sum() < least or largest[found].mean() < VISIBLE:
        return None
    mask = np.zeros(before.shape[:2], np.bool_)
    mask[rows, columns] = found
    return mask
