"""What an exported file says of itself: the names of its outputs, and one JSON text with all that its scores rest on.

No PyTorch here: this is what runs on the line.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import ModelFileError
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.threshold import possible_rate, threshold

FORMAT = 2
METADATA = "sapatchcore"  # the JSON text's name in the file
INPUT = "images"
SCORES = ("score", "local_score", "context_score")  # (n,) float32
GRIDS = ("patch_scores", "local_patches", "context_patches", "neighbours")  # (n, gh, gw) float32; the last int64
OUTPUTS = (*SCORES, *GRIDS, "map", "p_value")  # map: (n, h, w) float32; p_value: (n,) float32
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}

_ARRAYS = ("scores", "local", "context", "peaks")  # of Calibration, what verdicts need


def is_exported(path: Path) -> bool:
    """Whether the file's name is that of an exported model, not of a model file."""
    return path.suffix.lower() in SUFFIXES


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a model is made of: OpenVINO's has its numbers in a second one."""
    return (path, path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else (path,)


def calibration_facts(calibration: Calibration | None) -> dict[str, Any] | None:
    """JSON-ready: the levels that verdicts need, float32 in base64, and in plain numbers the usual thresholds."""
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
        **{name: _text(getattr(calibration, name)) for name in _ARRAYS},
    }


def calibration_from(facts: dict[str, Any]) -> Calibration | None:
    """The calibration as far as verdicts need it: which images they were, their grids and sizes stay with the model file."""
    known = facts["calibration"]
    if known is None:
        return None
    arrays: dict[str, Any] = {name: _numbers(known[name]) for name in _ARRAYS}
    n = len(arrays["scores"])
    return Calibration(
        source=known["source"],
        names=("",) * n,
        images=np.full(n, -1, np.int64),
        grids=np.empty((n, 0, 0), np.float32),
        rows=np.empty((n, 0, 0), np.int64),
        sizes=((0, 0),) * n,
        image_score=known["image_score"],
        neighbors=known["neighbors"],
        **arrays,
    )


def read_facts(path: Path, text: str | None) -> dict[str, Any]:
    """The JSON text of the file ``path``. Raises ModelFileError where it is none of ours, or from another format."""
    try:
        facts = json.loads(text or "")
        number = facts["format"]
        known = {"settings", "calibration", "check"} <= set(facts)
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ModelFileError(
            f"{path} was not exported by sapatchcore. Export the model file with `sapatchcore export`."
        ) from None
    if number != FORMAT:
        raise ModelFileError(
            f"{path} has the format {number}; this version of sapatchcore reads {FORMAT}. Export the model file again, or "
            "use the version that wrote it."
        )
    if not known:
        raise ModelFileError(f"{path} is damaged: its metadata is not whole. Copy it again, or export it anew.")
    return dict(facts)


def without_arrays(facts: dict[str, Any]) -> dict[str, Any]:
    """The same for people: the calibration without its arrays."""
    known = facts["calibration"]
    shown = None if known is None else {name: value for name, value in known.items() if name not in _ARRAYS}
    return {**facts, "calibration": shown}


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _numbers(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
