"""What an exported file says of itself: the names of its outputs, one JSON text that its scores rest on, and its checksum.

The checksum is a SHA-256 over the file, kept in the file: what was cut, flipped or mixed up is refused, never scored. It is
taken with its own 64 characters as zeros; of OpenVINO's two files, over the .xml and then the .bin. It guards against damage and
mistakes. Whoever changes a file on purpose can compute it again: it is no signature.

No PyTorch here: this is imported where images are scored.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.statistics import ImageStatistics
from sapatchcore.errors import ModelFileError
from sapatchcore.score.calibration import GLOBAL_ARRAYS, Calibration
from sapatchcore.score.threshold import possible_rate, threshold

FORMAT = 2
METADATA = "sapatchcore"  # the JSON text's name in the file
INPUT = "images"
SCORES = ("score", "local_score", "context_score")  # (n,) float32
GRIDS = ("patch_scores", "local_patches", "context_patches", "neighbours")  # (n, gh, gw) float32; the last int64
GLOBAL = ("global_score", "global_patches")  # (n,) and (n, gh, gw) float32, where there is a global part
OUTPUTS = (*SCORES, *GRIDS, "map", "p_value", *GLOBAL)  # map: (n, h, w) float32; p_value: (n,) float32
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}

CHECKSUM = "sapatchcore.seal"  # the checksum's name in the file
ZEROS = "0" * 64
# What stands before the checksum: protobuf's key (16 bytes), then field 2 of 64 bytes; an attribute in XML.
_BEFORE = {".onnx": CHECKSUM.encode() + b"\x12\x40", ".xml": f'<{CHECKSUM} value="'.encode()}

_ARRAYS = ("scores", "local", "context", "peaks", *GLOBAL_ARRAYS)  # of Calibration, what verdicts need


def is_exported(path: Path) -> bool:
    """Whether the file's name is that of an exported model, not of a model file."""
    return path.suffix.lower() in SUFFIXES


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a model is made of: OpenVINO's has its numbers in a second one."""
    return (path, path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else (path,)


def calibration_metadata(calibration: Calibration | None) -> dict[str, Any] | None:
    """JSON-ready: the arrays that verdicts need, float32 in base64, and in plain numbers the usual thresholds."""
    if calibration is None:
        return None
    rate = possible_rate(len(calibration))
    return {
        "source": calibration.source,
        "image_score": calibration.image_score,
        "neighbors": calibration.neighbors,
        "images": len(calibration),
        "false_reject": rate,
        "threshold": threshold(calibration.scores, rate),
        "pixel_threshold": threshold(calibration.peaks, rate),
        **{name: _text(getattr(calibration, name)) for name in _ARRAYS if name in calibration.array_names},
    }


def calibration_from(metadata: dict[str, Any]) -> Calibration | None:
    """The calibration as far as verdicts need it: which images they were, their grids and sizes stay with the model file."""
    stored = metadata["calibration"]
    if stored is None:
        return None
    arrays: dict[str, Any] = {name: _numbers(stored[name]) for name in _ARRAYS if name in stored}
    n = len(arrays["scores"])
    return Calibration(
        source=stored["source"],
        names=("",) * n,
        images=np.full(n, -1, np.int64),
        grids=np.empty((n, 0, 0), np.float32),
        rows=np.empty((n, 0, 0), np.int64),
        sizes=((0, 0),) * n,
        image_score=stored["image_score"],
        neighbors=stored["neighbors"],
        attention=metadata["settings"]["attention"],
        **arrays,
    )


def usual_from(metadata: dict[str, Any]) -> ImageStatistics | None:
    """What the training images had; None where the file does not say. Raises as ``ImageStatistics.from_dict``."""
    stored = metadata.get("training_statistics")
    return None if stored is None else ImageStatistics.from_dict(stored)


def read_metadata(path: Path, text: str | None) -> dict[str, Any]:
    """The JSON text of the file ``path``. Raises ModelFileError where it is none of ours, or from another format."""
    try:
        metadata = json.loads(text or "")
        number = metadata["format"]
        whole = {"settings", "calibration", "check"} <= set(metadata)
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ModelFileError(
            f"{path} was not exported by sapatchcore. Export the model file with `sapatchcore export`."
        ) from None
    if number != FORMAT:
        raise ModelFileError(
            f"{path} has the format {number}; this version of sapatchcore reads {FORMAT}. Export the model file again, or "
            "use the version that wrote it."
        )
    if not whole:
        raise ModelFileError(f"{path} is damaged: its metadata is not whole. Copy it again, or export it anew.")
    return dict(metadata)


def without_arrays(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same for people: the calibration without its arrays."""
    stored = metadata["calibration"]
    shown = None if stored is None else {name: value for name, value in stored.items() if name not in _ARRAYS}
    return {**metadata, "calibration": shown}


def with_checksum(content: bytes, suffix: str, beside: bytes = b"") -> bytes:
    """``content``, which has ``ZEROS`` for its checksum, with the checksum. beside: of OpenVINO the .bin's bytes.

    Raises ValueError where ``content`` has no zeros to put it.
    """
    at = _checksum_position(content, suffix)
    if at is None or content[at : at + 64] != ZEROS.encode():
        raise ValueError("The file has no room for its checksum.")
    return content[:at] + _digest(content, at, beside).encode() + content[at + 64 :]


def verify_checksum(path: Path, content: bytes, beside: bytes = b"") -> None:
    """Raises ModelFileError unless the bytes of the file ``path`` are as they were written."""
    at = _checksum_position(content, path.suffix.lower())
    if at is None:
        raise ModelFileError(
            f"{path} ({len(content)} bytes) is cut off, or was not exported by this version of sapatchcore: it has no checksum. "
            "Copy it again, or export the model file with `sapatchcore export`."
        )
    if content[at : at + 64] != _digest(content, at, beside).encode():
        both = f"{path} and {path.with_suffix('.bin').name} do not belong together, or one" if beside else f"{path}"
        raise ModelFileError(
            f"{both} was altered after it was written: its checksum does not fit. Copy it again, or export it anew."
        )


def _checksum_position(content: bytes, suffix: str) -> int | None:
    before = _BEFORE[suffix]
    found = content.find(before)
    return None if found < 0 or found + len(before) + 64 > len(content) else found + len(before)


def _digest(content: bytes, at: int, beside: bytes) -> str:
    total = hashlib.sha256(len(content).to_bytes(8, "little"))  # else bytes could move from one file to the other
    total.update(memoryview(content)[:at])
    total.update(ZEROS.encode())
    total.update(memoryview(content)[at + 64 :])
    total.update(beside)
    return total.hexdigest()


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _numbers(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
