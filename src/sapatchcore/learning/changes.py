"""What a bank and its calibration become when good images are added, or one is given up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sapatchcore.data.sources import Batch, Progress, Sources
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError
from sapatchcore.learning.calibrate import as_calibration, rescored, separate, with_global_scores, with_scales
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import projection_of
from sapatchcore.memory.growth import Growth, fewest_left, without_image
from sapatchcore.memory.pooled import pooled
from sapatchcore.memory.search.brute_force import nearest
from sapatchcore.memory.training import training_images
from sapatchcore.result import gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import (
    CROSS_FITTED,
    LEAVE_ONE_OUT,
    REWEIGHTED,
    SEPARATE,
    Calibration,
    concatenated,
    largest_values,
    rows_needed,
    subset,
    upper_bounds,
)
from sapatchcore.score.fusion import image_scores
from sapatchcore.settings import Settings


def add_images(
    bank: Bank,
    calibration: Calibration | None,
    embedder: Embedder,
    sources: Sources,
    *,
    apart: Sources | None,
    rescore: bool,
    progress: Progress | None,
) -> tuple[Bank, Calibration | None]:
    """``bank`` and its calibration after more good images; as SAPatchCore.update. apart: good images to calibrate with alone."""
    projection = projection_of(embedder.settings, embedder.network)
    growth, settings, scored = Growth(bank, projection), embedder.settings, []
    statistics: list[torch.Tensor] = []
    learned, originals = {image.name for image in bank.training}, []
    join = apart is None and (calibration is None or calibration.source != SEPARATE)
    join = join and len(bank.rows) >= rows_needed(settings.image_score)
    for batch, patches in embedder.learned(sources[0], progress, sources[1], _first_unused(bank)):
        own = [i for i in range(len(batch.names)) if not batch.turns or not batch.turns[i]]  # those that are no copies
        names, sizes = tuple(batch.names[i] for i in own), tuple(batch.sizes[i] for i in own)
        _refuse_learned(learned, names)
        if join and own:
            arrays = tuple(one[own] for one in score_patches(patches, bank, settings))
            scored.append((Batch(names, sizes, batch.pixels[:0]), arrays))
        originals += [len(bank.training) + growth.images + i for i in own]
        growth.add(patches, training_images(batch))
        if patches.layers is not None:
            statistics.append(pooled(patches.layers).float())
    if not growth.images:
        raise DataError("No image to learn from was given. Give at least one good image.")
    grown = growth.bank()
    if grown.global_part is not None:
        grown = replace(grown, global_part=grown.global_part.with_images(torch.cat(statistics)))
    if apart is not None:
        return grown, separate(grown, embedder, apart, progress)
    if join:
        source = CROSS_FITTED if calibration is None else calibration.source
        new = as_calibration(gather_result(scored, settings), source, np.array(originals), settings, bank)
        whole = new if calibration is None else concatenated(calibration, new)
        return with_scales(grown, whole)
    if calibration is not None:
        before = range(len(calibration)) if rescore else ()
        calibration = rescored(upper_bounds(calibration), before, grown, embedder, progress)
    return grown, with_global_scores(calibration, grown)


def remove_image(
    bank: Bank, calibration: Calibration | None, embedder: Embedder, image: str, progress: Progress | None
) -> tuple[Bank, Calibration | None]:
    """``bank`` and its calibration without one training image and its copies; as SAPatchCore.forget."""
    numbers, left = _numbers_of(bank, image), bank
    for number in reversed(numbers):
        left = without_image(left, number, projection_of(embedder.settings, embedder.network))
    if calibration is not None:
        calibration, raised = _raised(calibration, bank, left, numbers, embedder.settings)
        if calibration is not None:
            calibration = rescored(calibration, raised, left, embedder, progress)
    return left, with_global_scores(calibration, left)


def _raised(
    calibration: Calibration, before: Bank, after: Bank, numbers: Sequence[int], settings: Settings
) -> tuple[Calibration | None, list[int]]:
    """What is left of ``calibration`` when the training images ``numbers``, one behind the other, are forgotten; None where
    nothing is.

    before, after: the bank with and without them. Also returns the indices of the images whose scores may have grown:
    those are upper bounds now. By the triangle inequality a patch whose nearest row r goes is at most |r − r'| farther from
    a row r' that is left; that is wide, but it holds. Of cross-fitted scores r itself is not kept; but every patch that was
    learned from lies within the covering radius of a row that is left, in the projection.
    """
    calibration = subset(calibration, np.flatnonzero(~np.isin(calibration.images, numbers)))
    if not len(calibration) or (
        calibration.source == LEAVE_ONE_OUT and fewest_left(after) < rows_needed(calibration.image_score)
    ):
        return None, []
    crossed = calibration.source == CROSS_FITTED
    gone = np.isin(np.arange(len(before.training)) if crossed else before.images.numpy(), numbers)
    new_row = np.cumsum(~gone) - 1  # of each row, or image, that stays
    rows_before = calibration.rows
    touched = gone[rows_before]  # (n, h, w)
    grew = touched.any((1, 2))
    fewer = len(after.rows) < len(before.rows)
    if calibration.image_score == REWEIGHTED and fewer:  # wherever a row goes, weights may grow
        calibration, grew = upper_bounds(calibration), np.ones(len(calibration), np.bool_)
    images = np.where(calibration.images > numbers[-1], calibration.images - len(numbers), calibration.images)
    rows = new_row[rows_before]
    if crossed:  # from none that is left: from its own image, which no score is measured from
        rows[touched] = images[touched.nonzero()[0]]
    calibration = replace(calibration, images=images, rows=rows)
    for i in np.flatnonzero(touched.any((1, 2))).tolist():
        where, before_raised = touched[i], image_scores(calibration.grids[i : i + 1], calibration.image_score)
        if crossed:
            calibration.grids[i][where] += after.radius + after.loosened
        else:
            removed, patch = np.unique(rows_before[i][where], return_inverse=True)
            excluded = torch.full((len(removed),), int(images[i]), device=after.rows.device)
            farther, found = nearest(before.rows[torch.from_numpy(removed)], after.rows, 1, excluded, after.groups)
            calibration.rows[i][where] = found[:, 0].cpu().numpy()[patch]
            calibration.grids[i][where] += farther[:, 0].cpu().numpy()[patch]
        own = calibration.scores if calibration.largest is None else calibration.largest
        own[i] = image_scores(calibration.grids[i : i + 1], calibration.image_score)[0]
        growth = float(own[i]) / max(float(before_raised[0]), 1e-12)
        for part in (calibration.local, calibration.context):  # no bounds, but levels: both grow alike
            part[i] *= growth
        calibration.peaks[i] = largest_values(
            calibration.grids[i : i + 1], calibration.sizes[i : i + 1], settings.resize, settings.crop
        )[0]
    if calibration.source != SEPARATE and fewest_left(after) < rows_needed(calibration.image_score):
        return calibration, []  # too few rows are left to score an image anew without its own
    return calibration, np.flatnonzero(grew).tolist()


def _numbers_of(bank: Bank, image: str) -> list[int]:
    """The numbers of the training image and its copies. Raises DataError for a name that was not learned from."""
    names = [one.name for one in bank.training]
    if image not in names:
        raise DataError(
            f"{image} is not among the {len(set(names))} images that were learned from. Name it as it was then, for example "
            f"{names[0]}."
        )
    return [number for number, name in enumerate(names) if name == image]


def _first_unused(bank: Bank) -> int:
    """The first number that no training image without a path has in its name, nor will have."""
    named = (re.fullmatch(r"image (\d+)", image.name) for image in bank.training)
    return max([len(bank.training), *(int(match[1]) + 1 for match in named if match)])


def _refuse_learned(learned: set[str], names: Sequence[str]) -> None:
    """Adds ``names`` to ``learned``. Raises DataError where one is there already, or twice among themselves."""
    for name in names:
        if name in learned:
            raise DataError(f"{name} was learned from already. Leave it out, or forget it first.")
        learned.add(name)
