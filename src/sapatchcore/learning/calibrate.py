"""How good images score: the calibration, taken when a bank is chosen, taken anew when it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.sources import Batch, Progress, Sources
from sapatchcore.embed.patches import Embedder
from sapatchcore.embed.whitening import ready
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import Begun, choose, squared_to_groups
from sapatchcore.memory.pooled import GlobalPart
from sapatchcore.memory.spill import Spill, bank_of
from sapatchcore.memory.training import TrainingImage, packed_turns
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import (
    CROSS_FITTED,
    REWEIGHTED,
    SEPARATE,
    Calibration,
    Float32,
    concatenated,
    largest_values,
    rows_needed,
    subset,
    with_scores,
)
from sapatchcore.score.fusion import fused, image_scores, scales_of
from sapatchcore.settings import Settings

FOLDS = 5


def separate(bank: Bank, embedder: Embedder, sources: Sources, progress: Progress | None) -> Calibration:
    """Good images that were not learned from, scored as predict scores them."""
    images, total = sources
    scored = ((batch, score_patches(patches, bank, embedder.settings)) for batch, patches in embedder.patches(images))
    result = gather_result(scored, embedder.settings, total=total, progress=progress, stage="calibrate")
    return as_calibration(result, SEPARATE, np.full(len(result), -1, np.int64), embedder.settings, bank)


def folds_of(images: int) -> int:
    """Into how many folds so many training images part: image i is in fold i modulo their number."""
    return min(FOLDS, images)


def fold_of_each(images: Sequence[TrainingImage]) -> torch.Tensor:
    """(n,) int64: the fold of each training image. Copies are in the fold of the image that they were made from: what is said of
    an image must not rest on itself."""
    turns = packed_turns(images)
    own = torch.ones(len(images), dtype=torch.int64) if turns is None else torch.from_numpy(turns == 0).long()
    return (own.cumsum(0) - 1) % folds_of(int(own.sum()))


def cross_fitted(
    x: torch.Tensor, spill: Spill, embedder: Embedder, whole: Bank, progress: Progress | None = None
) -> Calibration | None:
    """Every training image but the copies, scored by a bank of the patches outside its fold, with as many rows as ``whole``.

    It begins with the whole bank's rows from outside the fold; the others are chosen as these were. To choose all anew would take
    five times as long as the whole bank, for scores that are the same but for chance (docs/verdicts.md).

    x: (n·p, dimensions), projected patches of the n images that ``spill`` holds. progress: stage "calibrate"; done counts patches
    chosen and images scored. embedder: of the patches; a whitening is that of the other folds, too.

    None where there is one image, or too few rows.
    """
    p, count, settings = spill.patches_per_image, len(whole.rows), embedder.settings
    fold_of, turns = fold_of_each(whole.training), packed_turns(whole.training)
    scored = torch.ones_like(fold_of).bool() if turns is None else torch.from_numpy(turns == 0)
    n, folds = int(scored.sum()), int(fold_of.max()) + 1
    if folds < 2 or count < rows_needed(settings.image_score):
        return None
    found, steps = [], 0

    def report(done: int) -> None:
        if progress is not None:
            with torch.inference_mode(False):  # a caller's code, called from inside the choice
                progress("calibrate", steps + done, folds * count + n)

    rows, inside = whole.images * p + whole.cells, fold_of[whole.images]
    squared = squared_to_groups(x, rows, inside, folds)
    for fold in range(folds):
        others = rows_of(fold_of != fold, p)
        nearest = squared[[one for one in range(folds) if one != fold]].amin(0)
        begun, size = Begun(rows[inside != fold], nearest), min(count, len(others))
        coreset = choose(x, size, seed=settings.seed, among=others, begun=begun, progress=report)
        steps += count
        bank = bank_of(coreset, spill, whole.training, settings.search, x.device)
        numbers = (scored & (fold_of == fold)).nonzero()[:, 0].tolist()
        found.append(scored_by_others(fold, bank, spill, embedder, numbers, numbers, whole.training, report))
        steps += len(numbers)
    return in_order(found)


def rows_of(images: torch.Tensor, patches_per_image: int) -> torch.Tensor:
    """(r,) int64: the rows, numbered through all images, of those where ``images`` (n,) bool is true."""
    return images.repeat_interleave(patches_per_image).nonzero()[:, 0]


def scored_by_others(
    fold: int,
    bank: Bank,
    spill: Spill,
    embedder: Embedder,
    at: Sequence[int],
    numbers: Sequence[int],
    images: Sequence[TrainingImage],
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """The images of ``fold`` against the ``bank`` of all other folds, whitened without them where the metric is.

    at: their numbers in ``spill``. numbers: their numbers among all training images. images: what is kept of each, by ``at``.
    progress: called with the images scored so far.
    """
    settings, whitening = embedder.settings, embedder.whitening
    change = None if whitening is None else ready(whitening.folds[fold], bank.rows.device)
    if change is not None:
        bank = replace(bank, rows=change.of_rows(bank.rows))

    def scored() -> Iterator[tuple[Batch, tuple[npt.NDArray[Any], ...]]]:
        done = 0
        for patches in spill.images_again(at, settings.batch_size, bank.rows.device):
            here = [images[index] for index in at[done : done + len(patches.local)]]
            no_pixels = np.empty((0, 0, 0, 3), np.uint8)  # they were embedded before
            batch = Batch(tuple(image.name for image in here), tuple(image.size for image in here), no_pixels)
            if change is not None:
                patches = replace(patches, local=patches.local @ change.local, context=patches.context @ change.context)
            yield batch, score_patches(patches, bank, settings)
            done += len(here)
            if progress is not None:
                progress(done)

    result = gather_result(scored(), settings, total=len(at))
    return as_calibration(result, CROSS_FITTED, np.array(numbers, np.int64), settings, bank)


def in_order(folds: Sequence[Calibration]) -> Calibration:
    """The parts of a cross-fitted calibration as one, in the order of the training images."""
    whole = reduce(concatenated, folds)
    return subset(whole, whole.images.argsort())


def with_scales(bank: Bank, calibration: Calibration | None) -> tuple[Bank, Calibration | None]:
    """The bank with what brings its global part to the patches' scale, where that lacks it, and the calibration fused."""
    calibration = with_global_scores(calibration, bank)
    if bank.global_part is None or bank.global_part.scales is not None or calibration is None:
        return bank, calibration
    assert calibration.largest is not None
    assert calibration.global_scores is not None
    part = replace(bank.global_part, scales=scales_of(calibration.largest, calibration.global_scores))
    return replace(bank, global_part=part), fused_anew(calibration, part)


def with_global_scores(calibration: Calibration | None, bank: Bank) -> Calibration | None:
    """``calibration`` with the training images' global scores cross-fitted anew: the statistics of all are at hand, so that takes
    a moment. Separate images keep theirs."""
    part = bank.global_part
    if calibration is None or part is None:
        return calibration
    if calibration.source == SEPARATE:
        return fused_anew(calibration, part)
    scores = part.cross_fitted(fold_of_each(bank.training)).float().numpy()[calibration.images]
    largest = calibration.scores if calibration.largest is None else calibration.largest
    return fused_anew(replace(calibration, largest=largest, global_scores=scores), part)


def fused_anew(calibration: Calibration, part: GlobalPart) -> Calibration:
    """``calibration`` with the image scores that follow from its parts."""
    if part.scales is None or calibration.largest is None or calibration.global_scores is None:
        return calibration
    return replace(calibration, scores=fused(calibration.largest, calibration.global_scores, part.scales))


def with_image_score(
    bank: Bank, calibration: Calibration | None, settings: Settings, fitted: Mapping[str, Any]
) -> tuple[Bank, Calibration | None]:
    """What a model file holds, for the image scores of ``settings``.

    fitted: the settings in the file. With other image scores, what was taken from the first is taken anew of the kept patch
    scores; "reweighted" does not follow from these, and leaves no calibration and no scales.
    """
    reweighted = settings.image_score == REWEIGHTED
    if settings.image_score == fitted["image_score"] and (not reweighted or settings.neighbors == fitted["neighbors"]):
        return bank, calibration
    if bank.global_part is not None:
        bank = replace(bank, global_part=replace(bank.global_part, scales=None))
    if calibration is None or reweighted:
        return bank, None
    scores = image_scores(calibration.grids, settings.image_score)
    calibration = replace(calibration, scores=scores, image_score=settings.image_score, neighbors=settings.neighbors)
    return with_scales(bank, calibration if calibration.largest is None else replace(calibration, largest=scores))


def rescored(
    calibration: Calibration, indices: Sequence[int], bank: Bank, embedder: Embedder, progress: Progress | None
) -> Calibration:
    """``calibration`` with the images at ``indices`` compared with ``bank`` anew, as far as their files are at hand."""
    at_hand = [index for index in indices if Path(calibration.names[index]).is_file()]
    if not at_hand:
        return calibration
    images, settings = calibration.images[at_hand], embedder.settings
    excluded = torch.from_numpy(images)
    done, scored = 0, []
    for batch, patches in embedder.patches([calibration.names[index] for index in at_hand]):
        scored.append((batch, score_patches(patches, bank, settings, excluded[done : done + len(batch.names)])))
        done += len(batch.names)
        if progress is not None:
            progress("calibrate", done, len(at_hand))
    fresh = as_calibration(gather_result(scored, settings), calibration.source, images, settings, bank)
    return with_scores(calibration, at_hand, fresh)


def as_calibration(
    result: Result, source: str, images: npt.NDArray[np.int64], settings: Settings, bank: Bank | None = None
) -> Calibration:
    """Scored good images as a calibration.

    source, images: as of Calibration. settings: that they were scored with. bank: too; where the source is CROSS_FITTED, which
    keeps the image that each row came from.
    """
    rows = result.neighbours if bank is None or source != CROSS_FITTED else bank.images.numpy()[result.neighbours]
    of_global: dict[str, Float32] = {}
    if result.global_scores is not None:
        largest = np.hypot(result.local_scores, result.context_scores)  # the patches' own score, before it was fused
        of_global = {"largest": largest, "global_scores": result.global_scores}
    return Calibration(
        source=source,
        names=result.paths,
        images=images,
        scores=result.scores,
        local=result.local_patches.max((1, 2)),
        context=result.context_patches.max((1, 2)),
        peaks=largest_values(result.patch_scores, result.sizes, result.resize, result.crop),
        grids=result.patch_scores,
        rows=rows,
        sizes=result.sizes,
        image_score=settings.image_score,
        neighbors=settings.neighbors,
        attention=settings.attention,
        **of_global,
    )
