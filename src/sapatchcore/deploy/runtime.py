"""Scores from an exported ONNX file: images are read and resized as ``predict`` does it, ONNX Runtime does the rest."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from sapatchcore.data.images import all_images
from sapatchcore.data.sources import Images, Progress, as_sources, read_batches
from sapatchcore.deploy.graph import OUTPUTS
from sapatchcore.errors import ModelFileError, SAPatchCoreError
from sapatchcore.result import Result, gather_result
from sapatchcore.settings import Settings, settings_from

FORMAT, METADATA = 1, "sapatchcore"


def predict_onnx(path: str | os.PathLike[str], images: Images, progress: Progress | None = None) -> Result:
    """Score images with an exported file, on the CPU; images, progress and the result as of SAPatchCore.predict.

    Raises SAPatchCoreError without ONNX Runtime; ModelFileError where the file is missing, damaged, or not from
    ``export_onnx``; DataError where an image cannot be read, or there is none.
    """
    session = open_session(Path(path))
    settings = _settings(Path(path), session)
    sources, total = as_sources(images, all_images)
    batches = read_batches(
        sources,
        resize=settings.resize,
        crop=settings.crop,
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    scored = ((batch, session.run(list(OUTPUTS), {"images": batch.pixels})) for batch in batches)
    return gather_result(scored, resize=settings.resize, crop=settings.crop, total=total, progress=progress)


def open_session(path: Path) -> Any:
    """ONNX Runtime's session of the file, on the CPU. Raises as ``predict_onnx``."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise SAPatchCoreError("An ONNX file needs onnxruntime: pip install sapatchcore[export]") from None
    if not path.is_file():
        raise ModelFileError(f"The ONNX file {path} does not exist. Check the path, or export it first.")
    try:
        return runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())[:240]
        raise ModelFileError(f"{path} is cut off or no ONNX file: {reason}. Export it again.") from None


def _settings(path: Path, session: Any) -> Settings:
    try:
        facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        number, options = facts["format"], facts["settings"]
    except (KeyError, ValueError, TypeError):
        raise ModelFileError(
            f"{path} is an ONNX file, but not one that sapatchcore exported. Export it anew."
        ) from None
    if number != FORMAT:
        raise ModelFileError(
            f"{path} has the format {number}; this version of sapatchcore reads {FORMAT}. Export it again."
        )
    return settings_from(options)
