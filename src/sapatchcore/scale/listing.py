"""Which images there are: the one thing whose memory grows with their number, in a process that ends when it has told them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sapatchcore.data.images import IMAGE_SUFFIXES, all_images, images_below
from sapatchcore.data.packed import Texts
from sapatchcore.data.remote import is_address
from sapatchcore.data.sources import ImageSource, as_sources
from sapatchcore.datasets.folders import training_images, validation_images
from sapatchcore.errors import DataError
from sapatchcore.scale.parts import list_images
from sapatchcore.scale.places import Place


class Listing:
    """The images of a fit, dealt to the shares: image i of all goes to share i modulo their number."""

    def __init__(self, data: str, layout: str, calibrate: str | None) -> None:
        """data, calibrate: a folder or an address. calibrate: None for what the layout keeps apart, if anything.

        Raises DataError where there is no image.
        """
        if is_address(data):
            self._train, self._apart = _texts(as_sources(data, all_images)[0]), []
        else:
            self._train = _texts(training_images(data, layout))
            self._apart = _texts(validation_images(data, layout)) if calibrate is None else []
        if calibrate is not None:
            self._apart = _texts(as_sources(calibrate, all_images)[0])

    def counts(self) -> tuple[int, int]:
        """How many images to learn from, and to calibrate with; of these 0 where training images are left out instead."""
        return len(self._train), len(self._apart)

    def train(self, shares: int) -> list[Texts]:
        """The images to learn from: all, then those of each share."""
        return _dealt(self._train, shares)

    def apart(self, shares: int) -> list[Texts]:
        """The images to calibrate with, likewise."""
        return _dealt(self._apart, shares)


class Parts:
    """The images of a predict, in parts of a table each."""

    def __init__(self, output: str) -> None:
        self._place = Place(output)

    def list_images(self, sources: Sequence[str], part: int) -> list[int]:
        """Bring the list of images up to date; how many each part has."""
        counts = list_images(self._place, _images(sources), part)
        if not counts:
            raise DataError(f"{', '.join(sources)} holds no image. Allowed: {' '.join(IMAGE_SUFFIXES)}.")
        return counts


def _dealt(names: list[str], shares: int) -> list[Texts]:
    return [Texts.of(names), *(Texts.of(names[share::shares]) for share in range(shares))]


def _texts(sources: Iterable[ImageSource]) -> list[str]:
    return [os.fspath(source) for source in sources]  # type: ignore[arg-type]  # a folder's images are paths


def _images(sources: Sequence[str]) -> Iterator[str]:
    """Every image of the sources: of a folder or a folder's address all below it, in order; a path is made a whole one."""
    for source in sources:
        place = source if is_address(source) else str(Path(source).absolute())
        if place.lower().endswith(IMAGE_SUFFIXES) and (is_address(place) or Path(place).is_file()):
            yield place
        else:
            yield from images_below(place)
