"""Between what a detector holds and its model file: the bank, its training images and the calibration as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Files, Sizes, Texts
from sapatchcore.data.pixels import Size
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.weights import digest
from sapatchcore.errors import ModelFileError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.training import TrainingImages
from sapatchcore.model_file import Stored
from sapatchcore.score.calibration import ARRAYS, LEFT_OUT, Calibration
from sapatchcore.settings import Settings

_NAMES, _SIZES, _THUMBNAILS = "training.name", "training.size", "thumbnails"
_KNOWN_NAMES, _KNOWN_SIZES = "calibration.name", "calibration.sizes"
_END = ".end"  # of a tensor that says where each part of another ends
# Of Calibration's arrays, those of whole numbers: 32 bits in the file, which no bank exceeds.
_WHOLE = ("images", "rows")
_TOGETHER = 1024  # rows of the bank that are checked at a time


def to_stored(
    settings: Settings,
    backbone: Backbone,
    bank: Bank,
    calibration: Calibration | None,
    include_weights: bool,
    include_thumbnails: bool,
) -> Stored:
    """All that the model file of a fitted detector holds."""
    header = {
        "settings": settings.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("sapatchcore", "torch", "timm")},
        "layers": backbone.layers,
        "channels": backbone.channels,
        "strides": backbone.strides,
        "grid": bank.grid,
        "covering_radius": {"chosen": bank.radius, "loosened": bank.loosened},
        "calibration": _calibration_facts(calibration),
        "weights_sha256": digest(backbone.weights),
    }
    more = {**_bank_tensors(bank, include_thumbnails), **_calibration_tensors(calibration)}
    weights = backbone.weights if include_weights else None
    return Stored(header, bank.rows, bank.images, bank.cells, weights, more)


def _bank_tensors(bank: Bank, thumbnails: bool) -> dict[str, torch.Tensor]:
    """What the model file holds of the training images. thumbnails: keep their pictures."""
    training = TrainingImages.of(bank.training)
    tensors = {**_files_tensors(_NAMES, training.names.files), _SIZES: torch.from_numpy(training.sizes.array)}
    if thumbnails and training.thumbnails is not None:
        tensors |= _files_tensors(_THUMBNAILS, training.thumbnails)
    return tensors


def _files_tensors(name: str, files: Files) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(files.content), name + _END: torch.from_numpy(files.ends)}


def _files_from(stored: Stored, name: str) -> Files:
    return Files(stored.more[name].numpy(), stored.more[name + _END].numpy())


def stored_settings(path: Path, stored: Stored) -> dict[str, Any]:
    """The options that the model was fitted with, by name. Raises ModelFileError where the file has none."""
    options = stored.header.get("settings")
    if not isinstance(options, dict):
        raise ModelFileError(f"{path} does not say with which settings it was fitted. Make it anew.")
    return options


def restored(path: Path, stored: Stored, settings: Settings, device: torch.device) -> tuple[Bank, Calibration | None]:
    """The bank, its rows on ``device``, and the calibration, None where ``settings`` score otherwise than it was taken.

    Raises ModelFileError where the file's parts do not fit together: its checksum has no key, so anybody can write one that
    fits whatever the file holds.
    """
    try:
        training = _training_from(stored)
        bank = _bank_from(stored, training, device, settings)
        rows, width = bank.rows.shape
        if width != sum(stored.header["channels"]) or not len(bank.images) == len(bank.cells) == rows > 0:
            raise ValueError(f"a bank of {rows} × {width} numbers")
        if not all(bool(torch.isfinite(some).all()) for some in bank.rows.split(_TOGETHER)):
            raise ValueError("numbers of the bank that are not finite")
        for numbers, most in ((bank.images, len(bank.training)), (bank.cells, bank.grid[0] * bank.grid[1])):
            if int(numbers.min()) < 0 or int(numbers.max()) >= most:
                raise ValueError("a row that came from no image")
        return bank, _calibration_from(stored, training, settings)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelFileError(
            f"{path} does not hold what a model of sapatchcore holds ({type(error).__name__}: {reason}). Make it anew."
        ) from None


def _training_from(stored: Stored) -> TrainingImages:
    """The images that were learned from, packed as they are in the file."""
    pictures = _files_from(stored, _THUMBNAILS) if _THUMBNAILS in stored.more else None
    training = TrainingImages(Texts(_files_from(stored, _NAMES)), Sizes(stored.more[_SIZES].numpy()), pictures)
    training.check()
    return training


def _bank_from(stored: Stored, training: TrainingImages, device: torch.device, settings: Settings) -> Bank:
    """The bank that ``stored`` holds, its rows on ``device``: on the CPU the very tensor, which is mapped from the file."""
    header = stored.header
    grid, reach = header["grid"], header["covering_radius"]
    return Bank(
        stored.bank.to(device),
        stored.images,
        stored.cells,
        training,
        (grid[0], grid[1]),
        reach["chosen"],
        reach["loosened"],
        settings.search,
    )


def _calibration_facts(calibration: Calibration | None) -> dict[str, Any] | None:
    """What the model file's header says of the calibration, JSON-ready."""
    if calibration is None:
        return None
    return {
        "source": calibration.source,
        "image_score": calibration.image_score,
        "neighbors": calibration.neighbors,
    }


def _calibration_tensors(calibration: Calibration | None) -> dict[str, torch.Tensor]:
    """The calibration's arrays by their names in the model file; none where there is no calibration."""
    if calibration is None:
        return {}
    arrays = {name: torch.from_numpy(getattr(calibration, name)) for name in ARRAYS}
    arrays |= {name: arrays[name].to(torch.int32) for name in _WHOLE}
    tensors = {f"calibration.{name}": value for name, value in arrays.items()}
    if calibration.source == LEFT_OUT:  # training images: their names and sizes are in the file
        return tensors
    names, sizes = Texts.of(calibration.names), Sizes.of(calibration.sizes)
    return {**tensors, **_files_tensors(_KNOWN_NAMES, names.files), _KNOWN_SIZES: torch.from_numpy(sizes.array)}


def _calibration_from(stored: Stored, training: TrainingImages, settings: Settings) -> Calibration | None:
    """The calibration that ``stored`` holds; None where it holds none, or one that ``settings`` score otherwise than."""
    facts = stored.header["calibration"]
    if facts is None or facts["image_score"] != settings.image_score:
        return None
    if settings.image_score == "reweighted" and facts["neighbors"] != settings.neighbors:
        return None
    arrays: dict[str, Any] = {name: stored.more[f"calibration.{name}"].numpy() for name in ARRAYS}
    arrays |= {name: arrays[name].astype(np.int64) for name in _WHOLE}
    names, sizes = _known_images(stored, facts["source"], arrays["images"], training)
    return Calibration(
        source=facts["source"],
        names=names,
        sizes=sizes,
        image_score=facts["image_score"],
        neighbors=facts["neighbors"],
        **arrays,
    )


def _known_images(
    stored: Stored, source: str, images: npt.NDArray[Any], training: TrainingImages
) -> tuple[Sequence[str], Sequence[Size]]:
    """Names and sizes of the images of a calibration; images: the number of each among the training images."""
    if source != LEFT_OUT:
        names, sizes = Texts(_files_from(stored, _KNOWN_NAMES)), Sizes(stored.more[_KNOWN_SIZES].numpy())
        names.check()
        sizes.check()
        return names, sizes
    if len(images) and int(images.min()) < 0:
        raise ValueError("scores of an image that was not learned from")
    if np.array_equal(images, np.arange(len(training))):
        return training.names, training.sizes
    return tuple(training.names[i] for i in images), tuple(training.sizes[i] for i in images)
