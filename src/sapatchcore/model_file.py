"""The model file: one ``.safetensors`` with everything that scoring and a verdict need, and no code.

Tensors: ``bank`` (m, d) float32; ``bank.image`` (m,) int32 and ``bank.cell`` (m,) int32, the training image and the patch that
each row came from; ``training.name`` (bytes,) uint8, names in UTF-8 one after another, and ``training.name.end`` (n,) int64,
where each ends; ``training.size`` (n, 2) int32, ``training.turn`` (n,) int32, of copies; ``thumbnails`` and ``thumbnails.end``,
JPEG files likewise; ``calibration.*``, the arrays of ``Calibration``, and names and sizes where its images were not learned
from; ``global.rows`` (n, d) float32, the training images' pooled statistics, where there is a global part; ``whitening.local``
and ``whitening.context``, what patches are multiplied by; ``weights.*``, the network up to its second layer. Header: one JSON
text with the format's number, settings, versions, and a SHA-256 over all of it; safetensors reads none above 100 MB, so nothing
in it grows with the images. The target is whole at all times, before or after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from sapatchcore.atomic import atomic_write
from sapatchcore.data.packed import Texts
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.patches import Embedder
from sapatchcore.embed.weights import PACKAGED, Weights, digest, origin
from sapatchcore.embed.whitening import Whitening
from sapatchcore.errors import ModelFileError, SettingsError
from sapatchcore.learning import calibration_file as kept
from sapatchcore.learning.calibrate import with_image_score
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.pooled import ROWS, SCALES, GlobalPart
from sapatchcore.memory.training import NAMES, TrainingImages, counted, files_to_tensors
from sapatchcore.score.calibration import Calibration
from sapatchcore.settings import Settings, settings_from

FORMAT, OLDEST = 4, 2  # 3: names as tensors; 4: cross-fitted scores, too, and then images in place of rows
HEADER, _WEIGHTS = "sapatchcore", "weights."
_BANK = {"bank", "bank.image", "bank.cell"}
AUTO = {"temperature": "auto"}  # of ``Settings.requested``, as the header has it
MAPPED = 256_000_000  # bytes of a tensor that stays in the file
_TOGETHER = 1024  # rows of the bank that are checked at a time

Parts = tuple[Settings, Embedder, Bank, Calibration | None]  # of a detector


@dataclass(frozen=True)
class Stored:
    """What a model file holds.

    header: JSON-ready; ``settings`` among them. bank: (m, d) float32. images, cells: (m,) int64, where each row came from.
    weights: the network's tensors, or None where the file was written without them; every header has their ``weights_sha256``.
    """

    header: dict[str, Any]
    bank: torch.Tensor
    images: torch.Tensor
    cells: torch.Tensor
    weights: Weights | None
    more: Mapping[str, torch.Tensor] = field(default_factory=dict)


def write_model(path: Path, stored: Stored, noted: Mapping[str, Any] | None = None) -> None:
    """Write ``stored``, and ``noted`` in its header, to ``path``, or leave ``path`` as it was. Raises ModelFileError then."""
    tensors = {
        "bank": stored.bank.detach().cpu().contiguous(),
        "bank.image": stored.images.to(torch.int32),
        "bank.cell": stored.cells.to(torch.int32),
        **{name: value.contiguous() for name, value in stored.more.items()},
    }
    for name, value in (stored.weights or {}).items():
        tensors[_WEIGHTS + name] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
    header = {**stored.header, **(noted or {}), "format": FORMAT}
    text = json.dumps({**header, "sha256": _checksum(header, tensors)}, sort_keys=True)
    size = sum(value.nbytes for value in tensors.values()) / 1e6

    def sentence(error: Exception) -> str:
        return (
            f"{path} cannot be written ({size:.0f} MB): {error}. What was there before is unchanged. Free space, or name "
            "another folder."
        )

    with atomic_write(path, ModelFileError, sentence, durable=True) as part:
        try:
            safetensors.torch.save_file(tensors, part, metadata={HEADER: text})
        except safetensors.SafetensorError as error:  # a full disk, among others
            raise ModelFileError(sentence(error)) from None


def read_model(path: Path) -> Stored:
    """Read and check a model file. Raises ModelFileError where it is missing, cut, altered, or from a newer format."""
    if not path.is_file():
        raise ModelFileError(
            f"The model file {path} does not exist. Check the path, or make one with `sapatchcore fit`."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER)
            tensors = {name: _read(file, name) for name in file.keys()} if text else {}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"{path} ({path.stat().st_size} bytes) is cut off or no model file: {error}. Copy it again, or make it anew."
        ) from None
    if text is None:
        raise ModelFileError(
            f"{path} is a safetensors file, but not a model of sapatchcore. Make one with `sapatchcore fit`."
        )
    header = _header(path, text)
    missing = _BANK - set(tensors)
    if missing or header.pop("sha256", None) != _checksum(header, tensors):
        raise ModelFileError(
            f"{path} was altered after it was written: its checksum does not fit. Copy it again, or make it anew."
        )
    weights = {name.removeprefix(_WEIGHTS): value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
    more = {name: value for name, value in tensors.items() if name not in _BANK and not name.startswith(_WEIGHTS)}
    if header["format"] == 2:
        more |= _names_as_tensors(path, header)
    images, cells = tensors["bank.image"].long(), tensors["bank.cell"].long()
    return Stored(header, tensors["bank"], images, cells, weights or None, more)


def _read(file: Any, name: str) -> torch.Tensor:
    """A tensor in memory of its own, or mapped where it is large.

    safetensors maps all: were the file then written over in place, as ``cp`` does, the model would change without a word or
    the process would end (SIGBUS).
    """
    tensor: torch.Tensor = file.get_tensor(name)
    return tensor.clone() if tensor.nbytes < MAPPED else tensor


def has_weights(path: Path) -> bool:
    """Whether a model file that ``read_model`` takes holds the network's weights."""
    with safetensors.safe_open(path, framework="pt") as file:
        return any(name.startswith(_WEIGHTS) for name in file.keys())  # noqa: SIM118 - no mapping


def describe(path: Path, stored: Stored) -> dict[str, Any]:
    """What a person wants to know of a model file, JSON-ready."""
    header = dict(stored.header)
    if (calibration := header.get("calibration")) is not None:
        header["calibration"] = {**calibration, "images": len(stored.more["calibration.scores"])}
    if header.pop("requested", None) == AUTO:
        header["temperature"] = f"auto → {header['settings']['temperature']}"
    size = sum(value.nbytes for value in (stored.weights or {}).values()) / 1e6
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "bank": f"{stored.bank.shape[0]} patches of {stored.bank.shape[1]} numbers",
        **counted(stored.more),
        "network_weights": f"{size:.1f} MB inside" if stored.weights else "not inside, checked when loaded",
        **header,
    }


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        number = header["format"]
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: brackets nested a hundred thousand deep
        raise ModelFileError(f"{path} is damaged: its header cannot be read. Copy it again, or make it anew.") from None
    if not isinstance(number, int) or number > FORMAT:
        raise ModelFileError(
            f"{path} has the format {number}; this version of sapatchcore reads {FORMAT}. Update sapatchcore."
        )
    if number < OLDEST:
        raise ModelFileError(
            f"{path} has the format {number}, of an earlier version; this version reads {OLDEST} to {FORMAT}. Fit "
            "it anew with `sapatchcore fit`."
        )
    return dict(header)


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    values = {name: value for name, value in header.items() if name != "sha256"}
    return hashlib.sha256((json.dumps(values, sort_keys=True) + digest(tensors)).encode()).hexdigest()


def _names_as_tensors(path: Path, header: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Names of images, which format 2 has in its header, as the tensors of format 3; taken out of ``header``."""
    try:
        tensors = files_to_tensors(NAMES, Texts.of(header.pop("training_images")).files)
        if (calibration := header["calibration"]) is not None:
            tensors |= files_to_tensors(kept.CALIBRATION_NAMES, Texts.of(calibration.pop("names")).files)
    except (KeyError, TypeError, AttributeError):
        raise ModelFileError(
            f"{path} is damaged: its header names no images. Copy it again, or make it anew."
        ) from None
    header["format"] = FORMAT
    return tensors


def to_stored(
    settings: Settings,
    embedder: Embedder,
    bank: Bank,
    calibration: Calibration | None,
    include_weights: bool,
    include_thumbnails: bool,
) -> Stored:
    """All that the model file of a fitted detector holds."""
    backbone = embedder.network
    header: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        **origin(settings),
        "versions": {name: version(name) for name in ("sapatchcore", "torch", "timm")},
        "layers": backbone.layers,
        "channels": backbone.channels,
        "strides": backbone.strides,
        "grid": bank.grid,
        "covering_radius": {"chosen": bank.radius, "loosened": bank.loosened},
        "calibration": kept.calibration_header(calibration),
        "weights_sha256": digest(backbone.weights),
    }
    more = TrainingImages.of(bank.training).tensors(include_thumbnails) | kept.calibration_tensors(calibration)
    if bank.global_part is not None:
        more[ROWS], header[SCALES] = bank.global_part.rows, bank.global_part.scales
    if embedder.whitening is not None:
        more |= embedder.whitening.tensors()
    weights = backbone.weights if include_weights else None
    return Stored(header, bank.rows, bank.images, bank.cells, weights, more)


def load_model_file(path: Path, options: Mapping[str, Any]) -> Parts:
    """What ``write_model`` wrote, with the ``options`` that may differ here. Parameters and errors as of SAPatchCore.load."""
    return loaded(path, read_model(path), options)


def loaded(path: Path, stored: Stored, options: Mapping[str, Any], network: Backbone | None = None) -> Parts:
    """The same of what was read from ``path``. network: its own, where it is at hand."""
    local = {"device", "precision", "batch_size", "workers", "weights", "image_score", "neighbors", "search"}
    if fixed := sorted(set(options) - local & set(Settings.model_fields)):
        raise SettingsError(f"{', '.join(fixed)} cannot change after fit. Allowed at load: {', '.join(sorted(local))}.")
    fitted = stored.header.get("settings")
    if not isinstance(fitted, dict):
        raise ModelFileError(f"{path} does not say with which settings it was fitted. Make it anew.")
    packaged = PACKAGED.get(str(fitted.get("backbone")))
    if packaged is not None and "network" not in stored.header:  # written when the name meant timm's own network
        fitted = {**fitted, "backbone": packaged.former}
    settings = settings_from({**fitted, "device": "auto", **options})
    if stored.header.get("requested") == AUTO:
        settings = settings.resolved(temperature=settings.temperature)
    embedder = Embedder(settings, stored.weights)
    embedder._network = network  # None: built when it is needed
    if stored.weights is None and digest(embedder.network.weights) != stored.header.get("weights_sha256"):
        raise ModelFileError(
            f"{path} holds no network weights, and those found here ({settings.weights}) are not the ones it was "
            "fitted with. Name the right file with weights, or save the model with its weights."
        )
    return settings, embedder, *_restored(path, stored, settings, embedder)


def _restored(path: Path, stored: Stored, settings: Settings, embedder: Embedder) -> tuple[Bank, Calibration | None]:
    """The bank, its rows on the network's device, and the calibration, as ``settings`` score; ``embedder`` gets its whitening.

    Raises ModelFileError where the file's parts do not fit together: its checksum has no key, so anybody can write one that
    fits whatever the file holds.
    """
    try:
        training = TrainingImages.from_tensors(stored.more)
        bank = _bank_from(stored, training, embedder.network.device, settings)
        if settings.metric == "whitened":
            embedder.whitening = Whitening.from_tensors(stored.more, stored.header["channels"])
        rows, width = bank.rows.shape
        if width != sum(stored.header["channels"]) or not len(bank.images) == len(bank.cells) == rows > 0:
            raise ValueError(f"a bank of {rows} × {width} numbers")
        if not all(bool(torch.isfinite(some).all()) for some in bank.rows.split(_TOGETHER)):
            raise ValueError("numbers of the bank that are not finite")
        for numbers, most in ((bank.images, len(bank.training)), (bank.cells, bank.grid[0] * bank.grid[1])):
            if int(numbers.min()) < 0 or int(numbers.max()) >= most:
                raise ValueError("a row that came from no image")
        calibration = kept.calibration_from(stored.header["calibration"], stored.more, training, settings)
        return with_image_score(bank, calibration, settings, stored.header["settings"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelFileError(
            f"{path} does not hold what a model of sapatchcore holds ({type(error).__name__}: {reason}). Make it anew."
        ) from None


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
        None if settings.global_part == "none" else GlobalPart.from_file(stored.more, header, len(training)),
    )
