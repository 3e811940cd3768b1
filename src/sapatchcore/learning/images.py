"""What fit, update and forget do once a bank stands: look back at the training images, take in or give up others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.images import thumbnail
from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch, Progress, Sources
from sapatchcore.errors import DataError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.growth import Growth, without_image
from sapatchcore.memory.search.exact import nearest
from sapatchcore.memory.spill import Spill
from sapatchcore.memory.training import TrainingImage
from sapatchcore.pipeline import Pipeline
from sapatchcore.result import as_calibration, gather_result
from sapatchcore.score.calibration import (
    LEFT_OUT,
    REWEIGHTED,
    Calibration,
    joined,
    largest_values,
    picked,
    rows_needed,
    upper_bounds,
)


def kept_of(batch: Batch) -> list[TrainingImage]:
    """What is kept of each image of a batch, its picture among it."""
    images = zip(batch.names, batch.sizes, batch.pixels, strict=True)
    return [TrainingImage(name, size, thumbnail(pixels)) for name, size, pixels in images]


def look_back(
    bank: Bank,
    spill: Spill,
    pipeline: Pipeline,
    numbers: Sequence[int],
    images: Sequence[TrainingImage],
    progress: Progress | None = None,
) -> Calibration | None:
    """The training images whose patches ``spill`` holds, without their own rows of the bank.

    numbers: of each of them among all training images. images: what is known of them, in the same order.

    None where too few rows would be left.
    """
    settings = pipeline.settings
    if bank.fewest_left < rows_needed(settings.image_score):
        return None

    def scored() -> Iterator[tuple[Batch, tuple[npt.NDArray[Any], ...]]]:
        done = 0
        for patches in spill.images_again(settings.batch_size, bank.rows.device):
            these = slice(done, done + len(patches.local))
            names, sizes = tuple(image.name for image in images[these]), tuple(image.size for image in images[these])
            nothing = np.empty((0, 0, 0, 3), np.uint8)  # their pixels have been seen
            yield Batch(names, sizes, nothing), pipeline.score(patches, bank, torch.tensor(numbers[these]))
            done = these.stop

    result = gather_result(scored(), **pipeline.shape, total=spill.images, progress=progress, stage="calibrate")
    return as_calibration(result, LEFT_OUT, np.array(numbers, np.int64), settings.image_score, settings.neighbors)


def grown(
    bank: Bank,
    known: Calibration | None,
    pipeline: Pipeline,
    sources: Sources,
    *,
    separate: Sources | None,
    rescore: bool,
    progress: Progress | None,
) -> tuple[Bank, Calibration | None]:
    """``bank`` and its calibration after more good images; as SAPatchCore.update."""
    growth, first = Growth(bank, pipeline.projection), len(bank.training)
    taken = {image.name for image in bank.training}
    with Spill() as spill:
        for batch, patches in pipeline.patches(sources[0], _first_unused(bank)):
            _refuse_known(taken, batch.names)
            growth.add(patches, kept_of(batch))
            spill.append(patches)
            if progress is not None:
                progress("embed", spill.images, sources[1])
        if not spill.images:
            raise DataError("No image to learn from was given. Give at least one good image.")
        bank = growth.bank()
        if separate is not None:
            return bank, pipeline.calibration(bank, separate, progress)
        if known is not None:
            before = range(len(known)) if rescore else ()
            known = pipeline.scored_again(upper_bounds(known), before, bank, progress)
        if known is None or known.source == LEFT_OUT:
            numbers, added = range(first, len(bank.training)), bank.training[first:]
            known = joined(known, look_back(bank, spill, pipeline, numbers, added, progress))
    return bank, known


def shrunk(
    bank: Bank, known: Calibration | None, pipeline: Pipeline, image: str, progress: Progress | None
) -> tuple[Bank, Calibration | None]:
    """``bank`` and its calibration without one training image; as SAPatchCore.forget."""
    number = _number_of(bank, image)
    left = without_image(bank, number, pipeline.projection)
    if known is not None:
        known, raised = _raised(known, bank, left, number, **pipeline.shape)
        if known is not None:
            known = pipeline.scored_again(known, raised, left, progress)
    return left, known


def _raised(
    known: Calibration, before: Bank, after: Bank, number: int, resize: Size, crop: Size | None
) -> tuple[Calibration | None, list[int]]:
    """What is left of ``known`` when training image ``number`` is forgotten; None where nothing is.

    before, after: the bank with and without the image. Also returns the places of the images whose scores may have grown:
    those are upper bounds now. By the triangle inequality a patch whose nearest row r goes is at most |r − r'| farther from
    a row r' that is left; that is wide, but it holds.
    """
    known = picked(known, known.images != number)
    if not len(known) or (known.source == LEFT_OUT and after.fewest_left < rows_needed(known.image_score)):
        return None, []
    gone = (before.images == number).numpy()
    place = np.cumsum(~gone) - 1  # of each row that stays
    rows_before = known.rows
    touched = gone[rows_before]  # (n, h, w)
    grew = touched.any((1, 2))
    if known.image_score == REWEIGHTED and gone.any():  # wherever a row goes, weights may grow
        known, grew = upper_bounds(known), np.ones(len(known), np.bool_)
    images = np.where(known.images > number, known.images - 1, known.images)
    known = replace(known, images=images, rows=place[rows_before])
    for i in np.flatnonzero(touched.any((1, 2))).tolist():
        where, before_max = touched[i], float(known.grids[i].max())
        lost, patch = np.unique(rows_before[i][where], return_inverse=True)
        excluded = torch.full((len(lost),), int(images[i]), device=after.rows.device)
        farther, found = nearest(before.rows[torch.from_numpy(lost)], after.rows, 1, excluded, after.groups)
        known.rows[i][where] = found[:, 0].cpu().numpy()[patch]
        known.grids[i][where] += farther[:, 0].cpu().numpy()[patch]
        known.scores[i] = known.grids[i].max()
        growth = float(known.scores[i]) / max(before_max, 1e-12)
        for part in (known.local, known.context):  # no bounds, but levels: both grow alike
            part[i] *= growth
        known.peaks[i] = largest_values(known.grids[i : i + 1], known.sizes[i : i + 1], resize, crop)[0]
    return known, np.flatnonzero(grew).tolist()


def _number_of(bank: Bank, image: str) -> int:
    """The training image's number. Raises DataError for a name that was not learned from."""
    names = [one.name for one in bank.training]
    if image not in names:
        raise DataError(
            f"{image} is not among the {len(names)} images that were learned from. Name it as it was then, for example "
            f"{names[0]}."
        )
    return names.index(image)


def _first_unused(bank: Bank) -> int:
    """The first number that no training image without a path has in its name, nor will have."""
    named = (re.fullmatch(r"image (\d+)", image.name) for image in bank.training)
    return max([len(bank.training), *(int(match[1]) + 1 for match in named if match)])


def _refuse_known(known: set[str], names: Sequence[str]) -> None:
    """Raises DataError where one of ``names`` is among the ``known``, or twice among themselves; then all are known."""
    for name in names:
        if name in known:
            raise DataError(f"{name} was learned from already. Leave it out, or forget it first.")
        known.add(name)
