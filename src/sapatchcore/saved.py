"""Between what a detector holds and its model file: the bank, its training images and the calibration as tensors."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.weights import digest
from sapatchcore.errors import ModelFileError
from sapatchcore.memory.bank import Bank, TrainingImage
from sapatchcore.memory.store import Stored
from sapatchcore.score.calibration import ARRAYS, Calibration
from sapatchcore.settings import Settings

_SIZES, _THUMBNAILS, _ENDS = "training.size", "thumbnails", "thumbnails.end"
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
        "training_images": [image.name for image in bank.training],
        "weights_sha256": digest(backbone.weights),
    }
    more = {**_bank_tensors(bank, include_thumbnails), **_calibration_tensors(calibration)}
    weights = backbone.weights if include_weights else None
    return Stored(header, bank.rows, bank.images, bank.cells, weights, more)


def _bank_tensors(bank: Bank, thumbnails: bool) -> dict[str, torch.Tensor]:
    """What the model file holds of the training images, beside their names. thumbnails: keep their pictures."""
    tensors = {_SIZES: torch.tensor([image.size for image in bank.training], dtype=torch.int32)}
    files = [image.thumbnail for image in bank.training]
    if thumbnails and any(files):
        tensors[_THUMBNAILS] = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
        tensors[_ENDS] = torch.tensor([len(file) for file in files]).cumsum(0)
    return tensors


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
        bank = _bank_from(stored, device, settings)
        rows, width = bank.rows.shape
        if width != sum(stored.header["channels"]) or not len(bank.images) == len(bank.cells) == rows > 0:
            raise ValueError(f"a bank of {rows} × {width} numbers")
        if not all(bool(torch.isfinite(some).all()) for some in bank.rows.split(_TOGETHER)):
            raise ValueError("numbers of the bank that are not finite")
        for numbers, most in ((bank.images, len(bank.training)), (bank.cells, bank.grid[0] * bank.grid[1])):
            if int(numbers.min()) < 0 or int(numbers.max()) >= most:
                raise ValueError("a row that came from no image")
        return bank, _calibration_from(stored, settings)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelFileError(
            f"{path} does not hold what a model of sapatchcore holds ({type(error).__name__}: {reason}). Make it anew."
        ) from None


def _bank_from(stored: Stored, device: torch.device, settings: Settings) -> Bank:
    """The bank that ``stored`` holds, its rows on ``device``: on the CPU the very tensor, which is mapped from the file."""
    header = stored.header
    names, sizes = header["training_images"], stored.more[_SIZES].tolist()
    pictures = [b""] * len(names)
    if _THUMBNAILS in stored.more:
        content, ends = stored.more[_THUMBNAILS].numpy().tobytes(), stored.more[_ENDS].tolist()
        pictures = [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    training = tuple(
        TrainingImage(name, (size[0], size[1]), picture)
        for name, size, picture in zip(names, sizes, pictures, strict=True)
    )
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
        "names": calibration.names,
        "image_score": calibration.image_score,
        "neighbors": calibration.neighbors,
    }


def _calibration_tensors(calibration: Calibration | None) -> dict[str, torch.Tensor]:
    """The calibration's arrays by their names in the model file; none where there is no calibration."""
    if calibration is None:
        return {}
    arrays = {name: torch.from_numpy(getattr(calibration, name)) for name in ARRAYS}
    arrays |= {name: arrays[name].to(torch.int32) for name in _WHOLE}
    arrays["sizes"] = torch.tensor(calibration.sizes, dtype=torch.int32)
    return {f"calibration.{name}": value for name, value in arrays.items()}


def _calibration_from(stored: Stored, settings: Settings) -> Calibration | None:
    """The calibration that ``stored`` holds; None where it holds none, or one that ``settings`` score otherwise than."""
    facts = stored.header["calibration"]
    if facts is None or facts["image_score"] != settings.image_score:
        return None
    if settings.image_score == "reweighted" and facts["neighbors"] != settings.neighbors:
        return None
    arrays: dict[str, Any] = {name: stored.more[f"calibration.{name}"].numpy() for name in ARRAYS}
    arrays |= {name: arrays[name].astype(np.int64) for name in _WHOLE}
    sizes = tuple((height, width) for height, width in stored.more["calibration.sizes"].tolist())
    return Calibration(
        source=facts["source"],
        names=tuple(facts["names"]),
        sizes=sizes,
        image_score=facts["image_score"],
        neighbors=facts["neighbors"],
        **arrays,
    )
