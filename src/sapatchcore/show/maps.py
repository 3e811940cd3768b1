"""Anomaly maps as files: one for each image, in folders as the images lie in."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sapatchcore.atomic import atomic_write
from sapatchcore.errors import DataError, SettingsError, did_you_mean
from sapatchcore.result import Result

FORMATS = ("png", "tiff", "npy")


def check_format(name: str) -> None:
    """Raises SettingsError for a format other than png, tiff or npy."""
    if name not in FORMATS:
        raise SettingsError(f"The map format must be {', '.join(FORMATS)}. Got {name!r}.{did_you_mean(name, FORMATS)}")


def write_maps(
    result: Result, folder: Path, name: str, progress: Callable[[str, int, int | None], None] | None = None
) -> list[Path]:
    """Write every map and return the files, in the images' order.

    "npy" and "tiff" hold the float32 scores themselves. "png" holds 16-bit numbers, 65535 for the largest patch score
    of the whole set, so that the images of one set compare; its text entry "scale" is the score of one step.
    Raises DataError where a file cannot be written; those before it stay.
    """
    check_format(name)
    scale = float(result.patch_scores.max()) / 65535 or 1.0
    parents = {os.path.dirname(os.path.abspath(path)) for path in result.paths}  # noqa: PTH100, PTH120 - texts, not files
    shared = os.path.commonpath(parents)
    files = []
    for at, (path, values) in enumerate(zip(result.paths, result.maps, strict=True)):
        # The image's whole name is kept: a.png and a.jpg beside each other stay two maps.
        file = folder / f"{os.path.relpath(os.path.abspath(path), shared)}.{name}"  # noqa: PTH100
        _write_map(file, values, name, scale)
        files.append(file)
        if progress is not None:
            progress("maps", at + 1, len(result))
    return files


def _write_map(file: Path, values: npt.NDArray[np.float32], name: str, scale: float) -> None:
    def sentence(error: OSError) -> str:
        return (
            f"{file} cannot be written: {error.strerror or error}. Free space, or name another folder for the maps; those "
            "written before it stay."
        )

    with atomic_write(file, DataError, sentence, make_folder=True) as part:
        part.write_bytes(map_file(values, name, scale))


def map_file(values: npt.NDArray[np.float32], name: str, scale: float = 1.0) -> bytes:
    """A map (H, W) float32 as the bytes of a file. name: png, tiff or npy. scale: of a PNG, the score of one of its steps."""
    out = io.BytesIO()
    if name == "npy":
        np.save(out, values)
    elif name == "tiff":
        Image.fromarray(values).save(out, "TIFF")
    else:
        entry = PngInfo()
        entry.add_text("scale", repr(scale))
        levels = np.clip(np.rint(values / scale), 0, 65535).astype(np.uint16)
        Image.fromarray(levels).save(out, "PNG", pnginfo=entry)
    return out.getvalue()
