"""How good images score: the calibration, taken when a bank is chosen, taken anew when it changes, kept in the model file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Sizes, Texts
from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch, Progress, Sources
from sapatchcore.embed.patches import Embedder
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.spill import Spill
from sapatchcore.memory.training import TrainingImage, TrainingImages, files_from_tensors, files_to_tensors
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import (
    ARRAYS,
    LEAVE_ONE_OUT,
    SEPARATE,
    Calibration,
    largest_values,
    rows_needed,
    with_scores,
)
from sapatchcore.settings import Settings

CALIBRATION_NAMES, _CALIBRATION_SIZES = "calibration.name", "calibration.sizes"  # tensors of the model file
# Of Calibration's arrays, those of whole numbers: 32 bits in the file, which no bank exceeds.
_WHOLE = ("images", "rows")


def separate(bank: Bank, embedder: Embedder, sources: Sources, progress: Progress | None) -> Calibration:
    """Good images that were not learned from, scored as predict scores them."""
    images, total = sources
    scored = ((batch, score_patches(patches, bank, embedder.settings)) for batch, patches in embedder.patches(images))
    result = gather_result(scored, embedder.settings, total=total, progress=progress, stage="calibrate")
    return as_calibration(result, SEPARATE, np.full(len(result), -1, np.int64), embedder.settings)


def leave_one_out(
    bank: Bank,
    spill: Spill,
    settings: Settings,
    numbers: Sequence[int],
    images: Sequence[TrainingImage],
    progress: Progress | None = None,
) -> Calibration | None:
    """The training images whose patches ``spill`` holds, each compared with the bank without its own rows.

    numbers: of each of them among all training images. images: what is kept of them, in the same order.

    None where too few rows would be left.
    """
    if bank.fewest_left < rows_needed(settings.image_score):
        return None

    def scored() -> Iterator[tuple[Batch, tuple[npt.NDArray[Any], ...]]]:
        done = 0
        for patches in spill.images_again(settings.batch_size, bank.rows.device):
            here = slice(done, done + len(patches.local))
            names, sizes = tuple(image.name for image in images[here]), tuple(image.size for image in images[here])
            no_pixels = np.empty((0, 0, 0, 3), np.uint8)  # they were embedded before
            excluded = torch.tensor(numbers[here])
            yield Batch(names, sizes, no_pixels), score_patches(patches, bank, settings, excluded)
            done = here.stop

    result = gather_result(scored(), settings, total=spill.images, progress=progress, stage="calibrate")
    return as_calibration(result, LEAVE_ONE_OUT, np.array(numbers, np.int64), settings)


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
    fresh = as_calibration(gather_result(scored, settings), calibration.source, images, settings)
    return with_scores(calibration, at_hand, fresh)


def as_calibration(result: Result, source: str, images: npt.NDArray[np.int64], settings: Settings) -> Calibration:
    """Scored good images as a calibration. source, images: as of Calibration. settings: that they were scored with."""
    return Calibration(
        source=source,
        names=result.paths,
        images=images,
        scores=result.scores,
        local=result.local_patches.max((1, 2)),
        context=result.context_patches.max((1, 2)),
        peaks=largest_values(result.patch_scores, result.sizes, result.resize, result.crop),
        grids=result.patch_scores,
        rows=result.neighbours,
        sizes=result.sizes,
        image_score=settings.image_score,
        neighbors=settings.neighbors,
    )


def calibration_header(calibration: Calibration | None) -> dict[str, Any] | None:
    """What the model file's header says of the calibration, JSON-ready."""
    if calibration is None:
        return None
    return {
        "source": calibration.source,
        "image_score": calibration.image_score,
        "neighbors": calibration.neighbors,
    }


def calibration_tensors(calibration: Calibration | None) -> dict[str, torch.Tensor]:
    """The calibration's arrays by their names in the model file; none where there is no calibration."""
    if calibration is None:
        return {}
    arrays = {name: torch.from_numpy(getattr(calibration, name)) for name in ARRAYS}
    arrays |= {name: arrays[name].to(torch.int32) for name in _WHOLE}
    tensors = {f"calibration.{name}": value for name, value in arrays.items()}
    if calibration.source == LEAVE_ONE_OUT:  # training images: their names and sizes are in the file
        return tensors
    names, sizes = Texts.of(calibration.names), Sizes.of(calibration.sizes)
    return {
        **tensors,
        **files_to_tensors(CALIBRATION_NAMES, names.files),
        _CALIBRATION_SIZES: torch.from_numpy(sizes.array),
    }


def calibration_from(
    header: dict[str, Any] | None, tensors: Mapping[str, torch.Tensor], training: TrainingImages, settings: Settings
) -> Calibration | None:
    """The calibration in a model file; None where it holds none, or one that ``settings`` score otherwise than.

    header, tensors: as of ``calibration_header`` and ``calibration_tensors``. Raises KeyError, ValueError, TypeError where they
    do not fit together.
    """
    if header is None or header["image_score"] != settings.image_score:
        return None
    if settings.image_score == "reweighted" and header["neighbors"] != settings.neighbors:
        return None
    arrays: dict[str, Any] = {name: tensors[f"calibration.{name}"].numpy() for name in ARRAYS}
    arrays |= {name: arrays[name].astype(np.int64) for name in _WHOLE}
    names, sizes = _calibration_images(tensors, header["source"], arrays["images"], training)
    return Calibration(
        source=header["source"],
        names=names,
        sizes=sizes,
        image_score=header["image_score"],
        neighbors=header["neighbors"],
        **arrays,
    )


def _calibration_images(
    tensors: Mapping[str, torch.Tensor], source: str, images: npt.NDArray[Any], training: TrainingImages
) -> tuple[Sequence[str], Sequence[Size]]:
    """Names and sizes of the images of a calibration; images: the number of each among the training images."""
    if source != LEAVE_ONE_OUT:
        names, sizes = Texts(files_from_tensors(CALIBRATION_NAMES, tensors)), Sizes(tensors[_CALIBRATION_SIZES].numpy())
        names.check()
        sizes.check()
        return names, sizes
    if len(images) and int(images.min()) < 0:
        raise ValueError("scores of an image that was not learned from")
    if np.array_equal(images, np.arange(len(training))):
        return training.names, training.sizes
    return tuple(training.names[i] for i in images), tuple(training.sizes[i] for i in images)
