"""The model file: one ``.safetensors`` with everything that scoring and a verdict need, and no code.

Tensors: ``bank`` (m, d) float32; ``bank.image`` (m,) int32 and ``bank.cell`` (m,) int32, the training image and the
patch that each row came from; ``training.name`` (bytes,) uint8, names in UTF-8 one after another, and ``training.name.end``
(n,) int64, where each ends; ``training.size`` (n, 2) int32; ``thumbnails`` and ``thumbnails.end``, JPEG files likewise;
``calibration.*``, the arrays of ``Calibration``, and names and sizes where its images were not learned from;
``weights.*``, the network up to its second layer. Header: one JSON text with the format's number, settings, versions, and a
SHA-256 over all of it; safetensors reads none above 100 MB, so nothing in it grows with the images. The target is whole at
all times, before or after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from sapatchcore.atomic import atomic_write
from sapatchcore.embed.weights import Weights, digest
from sapatchcore.errors import ModelFileError

FORMAT = 3
_HEADER, _WEIGHTS = "sapatchcore", "weights."
_BANK = {"bank", "bank.image", "bank.cell"}


@dataclass(frozen=True)
class Stored:
    """What a model file holds.

    header: JSON-ready facts; ``settings`` among them. bank: (m, d) float32. images, cells: (m,) int64, where each row
    came from. weights: the network's tensors, or None where the file was written without them (its header then has
    their ``weights_sha256``, as every file does).
    """

    header: dict[str, Any]
    bank: torch.Tensor
    images: torch.Tensor
    cells: torch.Tensor
    weights: Weights | None
    more: Mapping[str, torch.Tensor] = field(default_factory=dict)


def write_model(path: Path, stored: Stored) -> None:
    """Write ``stored`` to ``path``, or leave ``path`` as it was. Raises ModelFileError where it cannot be written."""
    tensors = {
        "bank": stored.bank.detach().cpu().contiguous(),
        "bank.image": stored.images.to(torch.int32),
        "bank.cell": stored.cells.to(torch.int32),
        **{name: value.contiguous() for name, value in stored.more.items()},
    }
    for name, value in (stored.weights or {}).items():
        tensors[_WEIGHTS + name] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
    header = {**stored.header, "format": FORMAT}
    text = json.dumps({**header, "sha256": _seal(header, tensors)}, sort_keys=True)
    size = sum(value.nbytes for value in tensors.values()) / 1e6

    def sentence(error: Exception) -> str:
        return (
            f"{path} cannot be written ({size:.0f} MB): {error}. What was there before is unchanged. Free space, or name "
            "another folder."
        )

    with atomic_write(path, ModelFileError, sentence, durable=True) as part:
        try:
            safetensors.torch.save_file(tensors, part, metadata={_HEADER: text})
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
            text = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118 - no mapping
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
    if missing or header.pop("sha256", None) != _seal(header, tensors):
        raise ModelFileError(
            f"{path} was altered after it was written: its checksum does not fit. Copy it again, or make it anew."
        )
    weights = {name.removeprefix(_WEIGHTS): value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
    more = {name: value for name, value in tensors.items() if name not in _BANK and not name.startswith(_WEIGHTS)}
    images, cells = tensors["bank.image"].long(), tensors["bank.cell"].long()
    return Stored(header, tensors["bank"], images, cells, weights or None, more)


def has_weights(path: Path) -> bool:
    """Whether a model file that ``read_model`` takes holds the network's weights."""
    with safetensors.safe_open(path, framework="pt") as file:
        return any(name.startswith(_WEIGHTS) for name in file.keys())  # noqa: SIM118 - no mapping


def describe(path: Path, stored: Stored) -> dict[str, Any]:
    """What a person wants to know of a model file, JSON-ready."""
    header = dict(stored.header)
    if (calibration := header.get("calibration")) is not None:
        header["calibration"] = {**calibration, "images": len(stored.more["calibration.scores"])}
    size = sum(value.nbytes for value in (stored.weights or {}).values()) / 1e6
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "bank": f"{stored.bank.shape[0]} patches of {stored.bank.shape[1]} numbers",
        "training_images": len(stored.more["training.size"]),
        "network_weights": f"{size:.1f} MB inside" if stored.weights else "not inside, checked when loaded",
        **header,
    }


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        version = header["format"]
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: brackets nested a hundred thousand deep
        raise ModelFileError(f"{path} is damaged: its header cannot be read. Copy it again, or make it anew.") from None
    if not isinstance(version, int) or version > FORMAT:
        raise ModelFileError(
            f"{path} has the format {version}; this version of sapatchcore reads {FORMAT}. Update sapatchcore."
        )
    if version < FORMAT:
        raise ModelFileError(
            f"{path} has the format {version}, of an earlier version; this version of sapatchcore reads {FORMAT}. Fit it anew "
            "with `sapatchcore fit`."
        )
    return dict(header)


def _seal(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    facts = {name: value for name, value in header.items() if name != "sha256"}
    return hashlib.sha256((json.dumps(facts, sort_keys=True) + digest(tensors)).encode()).hexdigest()
