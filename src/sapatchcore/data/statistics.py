"""What the training images had in common, and where a new image differs: its size, shape, brightness, contrast, colour.

A model scores whatever it is given, resized to what its network takes: also a picture of another camera, a squashed one, one
taken in the dark, and such a score means little. So each of five numbers is compared with its smallest and largest among the
training images, widened by a margin, and what lies outside is said in a sentence. The margins are wide on purpose: good
parts, taken as those were, get next to no notes (``docs/verdicts.md`` has the figures). No verdict rests on a note.

The three that are measured of pixels come from the image itself, before it is resized: so an exported model, which resizes in its
graph, says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Appearance, Size

Range = tuple[float, float]  # the smallest and the largest

SIDE, SHAPE, CONTRAST = 1.25, 1.1, 1.5  # the margins that are factors: this much beyond the smallest or the largest
BRIGHTNESS = 16.0  # levels of 255 beyond it, or half of the range where that is more
FAINTEST = 4.0  # levels of contrast: between images with less there is no difference to speak of
GREY, COLOUR = 1.0, 4.0  # levels between channels: below, an image is called grey; from here on, in colour


@dataclass(frozen=True)
class ImageStatistics:
    """Of the training images, each from the smallest to the largest.

    side: pixels of the longer side. shape: width / height. brightness, contrast, colour: levels of 255, as ``appearance`` of
    data/pixels.py measures them.
    """

    side: Range
    shape: Range
    brightness: Range
    contrast: Range
    colour: Range

    @classmethod
    def of(cls, sizes: npt.NDArray[Any], appearance: npt.NDArray[np.float32]) -> Self:
        """sizes: (n, 2), each (H, W). appearance: (n, 3). n is 1 or more."""
        columns = (sizes.max(1), sizes[:, 1] / sizes[:, 0], *appearance.T)
        return cls(*((float(column.min()), float(column.max())) for column in columns))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """From what ``to_dict`` gave. Raises KeyError, TypeError, ValueError where something is missing or is no range."""
        ranges = {field.name: tuple(float(value) for value in stored[field.name]) for field in fields(cls)}
        for name, values in ranges.items():
            if len(values) != 2 or not 0 <= values[0] <= values[1] < float("inf"):
                raise ValueError(f"{name} from {values}")
        return cls(**ranges)  # type: ignore[arg-type]  # two numbers each

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-ready."""
        return {name: list(values) for name, values in asdict(self).items()}

    def notes(self, sizes: Iterable[Size], appearance: Iterable[Appearance]) -> tuple[tuple[str, ...], ...]:
        """For each of n images the sentences on what lies outside; () where all lies inside.

        sizes: n × (H, W) pixels. appearance: n.
        """
        return tuple(tuple(self._of_one(size, *looks)) for size, looks in zip(sizes, appearance, strict=True))

    def _of_one(self, size: Size, brightness: float, contrast: float, colour: float) -> Iterator[str]:
        side, shape = max(size), size[1] / size[0]
        if word := _outside(side, _times(self.side, SIDE), "Smaller", "Larger"):
            yield f"{word} than the training images: the longer side has {side} pixels, theirs {_span(self.side, '.0f')}."
        if word := _outside(shape, _times(self.shape, SHAPE), "Narrower", "Wider"):
            yield f"{word} than the training images: width / height is {shape:.2f}, theirs {_span(self.shape, '.2f')}."
        low, high = self.brightness
        margin = max(BRIGHTNESS, (high - low) / 2)
        if word := _outside(brightness, (low - margin, high + margin), "Darker", "Brighter"):
            yield f"{word} than the training images: mean brightness {brightness / 255:.0%}, theirs {_percent(self.brightness)}."
        low, high = self.contrast
        if word := _outside(contrast, (low / CONTRAST - FAINTEST, high * CONTRAST + FAINTEST), "Less", "More"):
            yield (
                f"{word} contrast than the training images: brightness deviates by {contrast / 255:.0%}, theirs "
                f"{_percent(self.contrast)}."
            )
        if self.colour[1] < GREY and colour >= COLOUR:
            yield "In colour: the training images are grey."
        elif self.colour[0] >= COLOUR and colour < GREY:
            yield "Without colour: the training images have colour."


def _times(ends: Range, factor: float) -> Range:
    return ends[0] / factor, ends[1] * factor


def _outside(value: float, ends: Range, below: str, above: str) -> str:
    """The word for the side on which ``value`` lies outside; "" inside."""
    return below if value < ends[0] else above if value > ends[1] else ""


def _span(ends: Range, form: str) -> str:
    low, high = (format(end, form) for end in ends)
    return low if low == high else f"{low} to {high}"


def _percent(ends: Range) -> str:
    return _span((ends[0] / 255, ends[1] / 255), ".0%")
