"""What fit and update do once a bank stands: look back at the training images, and take in or give up single ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.sources import Batch
from sapatchcore.data.thumbnails import thumbnail
from sapatchcore.embed.patches import Patches
from sapatchcore.errors import DataError
from sapatchcore.memory.bank import Bank, TrainingImage
from sapatchcore.memory.spill import Spill
from sapatchcore.result import as_calibration, gather_result
from sapatchcore.score.calibration import LEFT_OUT, Calibration, rows_needed
from sapatchcore.settings import Settings

Progress = Callable[[str, int, int | None], None]  # stage, how many are done, of how many (None: not known)
Score = Callable[[Patches, Bank, torch.Tensor | None], tuple[npt.NDArray[Any], ...]]


def kept_of(batch: Batch) -> list[TrainingImage]:
    """What is kept of each image of a batch, its picture among it."""
    images = zip(batch.names, batch.sizes, batch.pixels, strict=True)
    return [TrainingImage(name, size, thumbnail(pixels)) for name, size, pixels in images]


def look_back(
    bank: Bank,
    spill: Spill,
    score: Score,
    settings: Settings,
    *,
    first: int = 0,
    progress: Progress | None = None,
) -> Calibration | None:
    """The training images ``first``, ``first`` + 1, … , whose patches ``spill`` holds, without their own rows of the bank.

    score: scores a batch of patches, for each image without the rows of one training image. None where too few rows would
    be left.
    """
    if bank.fewest_left < rows_needed(settings.image_score):
        return None
    batches: list[tuple[Batch, tuple[npt.NDArray[Any], ...]]] = []
    done = first
    for patches in spill.images_again(settings.batch_size, bank.rows.device):
        numbers = range(done, done + len(patches.local))
        images = [bank.training[number] for number in numbers]
        names, sizes = tuple(image.name for image in images), tuple(image.size for image in images)
        nothing = np.empty((0, 0, 0, 3), np.uint8)  # their pixels have been seen
        batches.append((Batch(names, sizes, nothing), score(patches, bank, torch.tensor(numbers))))
        done += len(numbers)
        if progress is not None:
            progress("calibrate", done - first, spill.images)
    result = gather_result(batches, resize=settings.resize, crop=settings.crop, total=None, progress=None)
    numbers_of_all = np.arange(first, done, dtype=np.int64)
    return as_calibration(result, LEFT_OUT, numbers_of_all, settings.image_score, settings.neighbors)


def number_of(bank: Bank, image: str) -> int:
    """The training image's number. Raises DataError for a name that was not learned from."""
    names = [one.name for one in bank.training]
    if image not in names:
        raise DataError(
            f"{image} is not among the {len(names)} images that were learned from. Name it as it was then, for example "
            f"{names[0]}."
        )
    return names.index(image)


def first_unused(bank: Bank) -> int:
    """The first number that no training image without a path has in its name, nor will have."""
    named = (re.fullmatch(r"image (\d+)", image.name) for image in bank.training)
    return max([len(bank.training), *(int(match[1]) + 1 for match in named if match)])


def refuse_known(known: set[str], names: Sequence[str]) -> None:
    """Raises DataError where one of ``names`` is among the ``known``, or twice among themselves; then all are known."""
    for name in names:
        if name in known:
            raise DataError(f"{name} was learned from already. Leave it out, or forget it first.")
        known.add(name)
