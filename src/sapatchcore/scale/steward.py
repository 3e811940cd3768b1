"""What happens once in a distributed fit: listing, the choice of patches, the model file.

It runs in a process of its own on the machine where the command was given, and holds what the model file will: each image's
name, size and calibration. The process that gave the command holds a handle for each share, however many images there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sapatchcore.data.folders import training_images, validation_images
from sapatchcore.data.images import all_images
from sapatchcore.data.remote import is_address
from sapatchcore.data.sources import as_sources
from sapatchcore.memory.bank import Bank, TrainingImage
from sapatchcore.memory.rounds import Candidates, Centres, Choice
from sapatchcore.memory.store import write_model
from sapatchcore.pipeline import Pipeline
from sapatchcore.saved import to_stored
from sapatchcore.scale.share import Broadcast, Kept, Task
from sapatchcore.score.calibration import ARRAYS, Calibration
from sapatchcore.settings import settings_from


class Steward:
    """The images by shares (image i of all is in share i modulo their number), and what is made of the shares' answers."""

    def __init__(self, data: str, layout: str, calibrate: str | None, options: dict[str, Any]) -> None:
        """data, calibrate: a folder or an address. calibrate: None for what the layout keeps apart, if anything. options: of
        settings.py.

        Raises DataError where there is no image; WeightsError, SettingsError for the network, which is found here alone.
        """
        if is_address(data):
            self._train, apart = _texts(as_sources(data, all_images)[0]), []
        else:
            self._train = _texts(training_images(data, layout))
            apart = _texts(validation_images(data, layout)) if calibrate is None else []
        self._apart = apart if calibrate is None else _texts(as_sources(calibrate, all_images)[0])
        self._options = options
        self._pipeline = Pipeline(settings_from(options))

    def counts(self) -> tuple[int, int]:
        """How many images to learn from, and to calibrate with; of these 0 where training images are left out instead."""
        return len(self._train), len(self._apart)

    def begin(self, folder: str, threads: int, shares: int) -> None:
        """What all shares are told lies ready once for all of them. folder: where relative paths start."""
        import ray

        weights = {name: value.cpu().numpy() for name, value in self._pipeline.network.weights.items()}
        self._task = ray.put(Task(self._options, weights, folder, threads, shares))
        self._shares = shares

    def task(self, share: int) -> tuple[Any, list[str]]:
        """A reference to what every share is told, and the images of one of them."""
        return self._task, self._train[share :: self._shares]

    def apart(self, share: int) -> list[str]:
        """The images that one share scores for the calibration."""
        return self._apart[share :: self._shares]

    def first(self, count: int, per_image: int) -> tuple[int, int]:
        """(share, row) of the first of ``count`` centres: the patch that one machine would draw."""
        self._choice, self._per_image = Choice(count), per_image
        drawn = int(np.random.default_rng(self._pipeline.settings.seed).integers(len(self._train) * per_image))
        image, cell = divmod(drawn, per_image)
        return image % self._shares, image // self._shares * per_image + cell

    def begin_with(self, share: int, row: int, projected: torch.Tensor) -> Centres:
        """The first centre, as a round."""
        return self._choice.begin(share, row, projected)

    def among(self, *shares: Candidates) -> tuple[Centres, int]:
        """The next round of centres, and how many there are by then."""
        return self._choice.among(shares), self._choice.chosen

    def centres(self) -> Centres:
        """All of them, in the order of choice."""
        return self._choice.all()

    def bank(self, grid: tuple[int, int], *kept: Kept) -> Broadcast:
        """The memory bank of the centres, images numbered through all shares."""
        centres = self._choice.all()
        shares, rows = centres.shares.numpy(), centres.rows.numpy()
        patches = np.empty((len(rows), kept[0].rows.shape[1]), np.float32)
        for share, one in enumerate(kept):
            patches[shares == share] = one.rows
        images = shares + rows // self._per_image * self._shares
        return Broadcast(patches, images, rows % self._per_image, len(self._train), grid)

    def write(
        self, path: str, inside: tuple[bool, bool], made: Broadcast, answers: Sequence[Sequence[Any]]
    ) -> dict[str, Any]:
        """Write the model file, the same as from one machine; what there is to say of it.

        inside: whether the network's weights and the training images' pictures go into it. answers: references to what every
        share answered to ``kept``, ``radius``, ``sizes``, and ``look_back`` or ``calibration``.

        Raises ModelFileError where it cannot be written.
        """
        import ray

        kept, radii, sizes, known = (ray.get(list(of_each)) for of_each in answers)
        pictures = {number: picture for one in kept for number, picture in one.thumbnails.items()}
        training = tuple(
            TrainingImage(name, size, pictures.get(number, b""))
            for number, (name, size) in enumerate(zip(self._train, _interleaved(sizes), strict=True))
        )
        bank: Bank = replace(made.bank(torch.device("cpu")), training=training, radius=max(radii))
        calibration = gathered(known)
        write_model(Path(path), to_stored(self._pipeline.settings, self._pipeline.network, bank, calibration, *inside))
        return {
            "training_images": len(training),
            "bank": list(made.rows.shape),
            "calibration_images": 0 if calibration is None else len(calibration),
            "covering_radius": bank.radius,
        }


def gathered(shares: Sequence[Calibration | None]) -> Calibration | None:
    """The calibration of all images in their order, from that of the images i, i + n, i + 2n, … of each of n shares."""
    found = [one for one in shares if one is not None]
    if not found:
        return None
    total, parts = sum(len(one) for one in found), len(found)
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        first = getattr(found[0], name)
        arrays[name] = np.empty((total, *first.shape[1:]), first.dtype)
        for number, one in enumerate(found):
            arrays[name][number::parts] = getattr(one, name)
    names, sizes = _interleaved([one.names for one in found]), _interleaved([one.sizes for one in found])
    return replace(found[0], names=tuple(names), sizes=tuple(sizes), **arrays)


def _interleaved(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """One list of the items i, i + n, i + 2n, … of each of n ``parts``."""
    whole: list[Any] = [None] * sum(len(part) for part in parts)
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def _texts(sources: Any) -> list[str]:
    return [os.fspath(source) for source in sources]
