"""The calibration in the model file: its tensors, what the header says of it, and both as a calibration again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Sizes, Texts
from sapatchcore.data.pixels import Size
from sapatchcore.memory.training import TrainingImages, files_from_tensors, files_to_tensors
from sapatchcore.score.calibration import ARRAYS, GLOBAL_ARRAYS, SEPARATE, Calibration
from sapatchcore.settings import Settings

CALIBRATION_NAMES, _CALIBRATION_SIZES = "calibration.name", "calibration.sizes"  # tensors of the model file
# Of Calibration's arrays, those of whole numbers: 32 bits in the file, which no bank exceeds.
_WHOLE = ("images", "rows")


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
    arrays = {name: torch.from_numpy(getattr(calibration, name)) for name in calibration.array_names}
    arrays |= {name: arrays[name].to(torch.int32) for name in _WHOLE}
    tensors = {f"calibration.{name}": value for name, value in arrays.items()}
    if calibration.source != SEPARATE:  # training images: their names and sizes are in the file
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
    """The calibration in a model file; None where it holds none.

    header, tensors: as of ``calibration_header`` and ``calibration_tensors``. Raises KeyError, ValueError, TypeError where they
    do not fit together.
    """
    if header is None:
        return None
    names_there = ARRAYS if settings.global_part == "none" else (*ARRAYS, *GLOBAL_ARRAYS)
    arrays: dict[str, Any] = {name: tensors[f"calibration.{name}"].numpy() for name in names_there}
    arrays |= {name: arrays[name].astype(np.int64) for name in _WHOLE}
    names, sizes = _calibration_images(tensors, header["source"], arrays["images"], training)
    return Calibration(
        source=header["source"],
        names=names,
        sizes=sizes,
        image_score=header["image_score"],
        neighbors=header["neighbors"],
        attention=settings.attention,
        **arrays,
    )


def _calibration_images(
    tensors: Mapping[str, torch.Tensor], source: str, images: npt.NDArray[Any], training: TrainingImages
) -> tuple[Sequence[str], Sequence[Size]]:
    """Names and sizes of the images of a calibration; images: the number of each among the training images."""
    if source == SEPARATE:
        names, sizes = Texts(files_from_tensors(CALIBRATION_NAMES, tensors)), Sizes(tensors[_CALIBRATION_SIZES].numpy())
        names.check()
        sizes.check()
        return names, sizes
    if len(images) and int(images.min()) < 0:
        raise ValueError("scores of an image that was not learned from")
    if np.array_equal(images, np.arange(len(training))):
        return training.names, training.sizes
    return tuple(training.names[i] for i in images), tuple(training.sizes[i] for i in images)
