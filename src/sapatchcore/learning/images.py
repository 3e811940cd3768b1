"""Learning on: a detector that takes in more good images, or gives one up, and what becomes of its calibration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.images import all_images
from sapatchcore.data.sources import Images, Progress, Sources, as_sources
from sapatchcore.datasets.folders import training_images as good_images
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError
from sapatchcore.learning.calibrate import as_calibration, rescored, separate, with_global_scores, with_scales
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import projection_of
from sapatchcore.memory.growth import Growth, fewest_left, without_image
from sapatchcore.memory.pooled import pooled
from sapatchcore.memory.search.brute_force import nearest
from sapatchcore.memory.training import training_images
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import (
    CROSS_FITTED,
    LEAVE_ONE_OUT,
    REWEIGHTED,
    SEPARATE,
    Calibrated,
    Calibration,
    Float32,
    concatenated,
    largest_values,
    rows_needed,
    subset,
    upper_bounds,
)
from sapatchcore.score.fusion import image_scores
from sapatchcore.settings import Settings


class Updatable(Calibrated):
    """What a detector has learned, and what it can go on learning with: ``calibrate``, ``update`` and ``forget``."""

    embedder: Embedder
    bank: Bank
    _bank: Bank | None

    if TYPE_CHECKING:
        fit: Callable[..., Self]
        predict: Callable[..., Result]

    def take(self, settings: Settings, embedder: Embedder, bank: Bank, calibration: Calibration | None) -> Self:
        """Have learned this."""
        self.settings, self.embedder, self._bank, self._calibration = settings, embedder, bank, calibration
        return self

    @property
    def networks(self) -> tuple[Updatable, ...]:
        """The detectors of several networks, whose scores become one; of one network this detector itself."""
        return (self,)

    @property
    def calibration(self) -> Calibration:
        """As of ``Calibrated``. Raises NotFittedError before ``fit`` or ``load``, too."""
        self._require_learned()
        return super().calibration

    @property
    def is_calibrated(self) -> bool:
        """As of ``Calibrated``. Raises NotFittedError before ``fit`` or ``load``."""
        self._require_learned()
        return super().is_calibrated

    @property
    def rows(self) -> int:
        """Of the memory banks of all networks."""
        return sum(len(one.bank.rows) for one in self.networks)

    def _require_learned(self) -> object:
        return self.bank

    @property
    def memory_bank(self) -> Float32:
        """(m, d) float32, read-only: the kept patches of good images. Raises as ``bank``."""
        rows = self.bank.rows.cpu().numpy()
        rows.flags.writeable = False  # on the CPU these are the very numbers that predict compares with
        return rows

    @property
    def covering_radius(self) -> float:
        """Every patch learned from lies within this distance of a row of the bank, in the projection of the choice."""
        return self.bank.radius + self.bank.loosened

    @property
    def provenance(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Names of the training images, and for each row of the bank the number of its image and its patch, (m,)."""
        bank = self.bank
        return tuple(image.name for image in bank.training), bank.images.numpy(), bank.cells.numpy()

    @property
    def device(self) -> str:
        """What the network computes on: "cpu", "cuda" or "mps"."""
        return self.embedder.network.device.type

    def embed(self, images: Images) -> Float32:
        """(n, h, w, d) float32: the patches of each image, exactly as fit and predict see them."""
        sources, _ = as_sources(images, all_images)
        found = [one.rows().unflatten(1, one.grid).cpu().numpy() for _, one in self.embedder.patches(sources)]
        if not found:
            raise DataError("No image to embed was given. Give at least one.")
        return np.concatenate(found)

    def calibrate(self, images: Images, progress: Progress | None = None) -> Self:
        """Score good images that were not learned from; the thresholds then rest on them. As fit's ``calibrate``."""
        calibration = separate(self.bank, self.embedder, as_sources(images, all_images), progress)
        self._bank, self._calibration = with_scales(self.bank, calibration)
        return self

    def update(
        self,
        images: Images,
        progress: Progress | None = None,
        *,
        calibrate: Images | None = None,
        rescore: bool = True,
    ) -> Self:
        """Learn more good images: patches farther from the bank than its covering radius join it.

        Calibration goes on as it was made. Where it came from the training images, their scores stay, and the new images join
        with those that the bank of before gives them: of images that it had not learned from. So no threshold falls because of
        what was learned, and no good image that was accepted is rejected for it; but a global part is measured anew by all
        images, and its scores move a little either way. Separate images are scored anew where their files are at hand; where
        not, their scores stay, as upper bounds: the bank grew. calibrate: as of ``fit``, takes the place of all this. rescore:
        False keeps the scores of before without looking for files.

        Raises as ``fit``, and DataError for an image that was learned from already; the detector then is as it was.
        """
        self._bank, self._calibration = add_images(
            self.bank,
            self._calibration,
            self.embedder,
            as_sources(images, good_images),
            apart=None if calibrate is None else as_sources(calibrate, all_images),
            rescore=rescore,
            progress=progress,
        )
        return self

    def forget(self, image: str | os.PathLike[str], progress: Progress | None = None) -> Self:
        """Give up what was learned from one training image, by its name in ``provenance``.

        Calibration images that were measured from its patches are scored anew where they can be read; where not, their
        scores are raised by what they may have grown at most. progress: stage "calibrate".

        Raises DataError where the name is not known, or nothing would be left.
        """
        parts = self.bank, self._calibration, self.embedder
        self._bank, self._calibration = remove_image(*parts, os.fspath(image), progress)
        return self


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
    learned = {image.name for image in bank.training}
    join = apart is None and (calibration is None or calibration.source != SEPARATE)
    join = join and len(bank.rows) >= rows_needed(settings.image_score)
    for batch, patches in embedder.patches(sources[0], _first_unused(bank)):
        _refuse_learned(learned, batch.names)
        if join:
            scored.append((batch, score_patches(patches, bank, settings)))
        growth.add(patches, training_images(batch))
        if patches.layers is not None:
            statistics.append(pooled(patches.layers).float())
        if progress is not None:
            progress("embed", growth.images, sources[1])
    if not growth.images:
        raise DataError("No image to learn from was given. Give at least one good image.")
    grown = growth.bank()
    if grown.global_part is not None:
        grown = replace(grown, global_part=grown.global_part.with_images(torch.cat(statistics)))
    if apart is not None:
        return grown, separate(grown, embedder, apart, progress)
    if join:
        source = CROSS_FITTED if calibration is None else calibration.source
        numbers = np.arange(len(bank.training), len(grown.training))
        new = as_calibration(gather_result(scored, settings), source, numbers, settings, bank)
        whole = new if calibration is None else concatenated(calibration, new)
        return with_scales(grown, whole)
    if calibration is not None:
        before = range(len(calibration)) if rescore else ()
        calibration = rescored(upper_bounds(calibration), before, grown, embedder, progress)
    return grown, with_global_scores(calibration, grown.global_part)


def remove_image(
    bank: Bank, calibration: Calibration | None, embedder: Embedder, image: str, progress: Progress | None
) -> tuple[Bank, Calibration | None]:
    """``bank`` and its calibration without one training image; as SAPatchCore.forget."""
    number = _number_of(bank, image)
    left = without_image(bank, number, projection_of(embedder.settings, embedder.network))
    if calibration is not None:
        calibration, raised = _raised(calibration, bank, left, number, embedder.settings)
        if calibration is not None:
            calibration = rescored(calibration, raised, left, embedder, progress)
    return left, with_global_scores(calibration, left.global_part)


def _raised(
    calibration: Calibration, before: Bank, after: Bank, number: int, settings: Settings
) -> tuple[Calibration | None, list[int]]:
    """What is left of ``calibration`` when training image ``number`` is forgotten; None where nothing is.

    before, after: the bank with and without the image. Also returns the indices of the images whose scores may have grown:
    those are upper bounds now. By the triangle inequality a patch whose nearest row r goes is at most |r − r'| farther from
    a row r' that is left; that is wide, but it holds. Of cross-fitted scores r itself is not kept; but every patch that was
    learned from lies within the covering radius of a row that is left, in the projection.
    """
    calibration = subset(calibration, np.flatnonzero(calibration.images != number))
    if not len(calibration) or (
        calibration.source == LEAVE_ONE_OUT and fewest_left(after) < rows_needed(calibration.image_score)
    ):
        return None, []
    crossed = calibration.source == CROSS_FITTED
    gone = np.arange(len(before.training)) == number if crossed else (before.images == number).numpy()
    new_row = np.cumsum(~gone) - 1  # of each row, or image, that stays
    rows_before = calibration.rows
    touched = gone[rows_before]  # (n, h, w)
    grew = touched.any((1, 2))
    fewer = len(after.rows) < len(before.rows)
    if calibration.image_score == REWEIGHTED and fewer:  # wherever a row goes, weights may grow
        calibration, grew = upper_bounds(calibration), np.ones(len(calibration), np.bool_)
    images = np.where(calibration.images > number, calibration.images - 1, calibration.images)
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


def _refuse_learned(learned: set[str], names: Sequence[str]) -> None:
    """Adds ``names`` to ``learned``. Raises DataError where one is there already, or twice among themselves."""
    for name in names:
        if name in learned:
            raise DataError(f"{name} was learned from already. Leave it out, or forget it first.")
        learned.add(name)
