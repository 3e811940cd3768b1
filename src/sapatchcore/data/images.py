"""Image files and masks of a folder: listed in a fixed order, masks read; thumbnails of images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.pixels import UInt8Array, open_image
from sapatchcore.data.remote import below, is_address
from sapatchcore.errors import DataError

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # what telephones write: a JPEG with more pictures behind it
    "BMP": "image/bmp",
    "DIB": "image/bmp",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

THUMBNAIL_SIDE = 256  # pixels at most: what the network sees by default, so that a patch of 8 pixels can still be told
THUMBNAIL_QUALITY = 80  # JPEG: 5 to 10 KB each


def is_image(path: Path) -> bool:
    """Whether ``path`` is a file with an image's suffix (any case) that is not hidden (``._x.png``)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_images(folder: Path, *, recursive: bool = False) -> tuple[Path, ...]:
    """The image files of ``folder``, sorted by their path below it (upper case first, on every system).

    ``recursive`` descends into sub-folders. Hidden files and folders are ignored. Raises DataError where the
    folder is missing, is a file, or holds no image.
    """
    if not folder.exists():
        raise DataError(f"The folder {folder} does not exist. Check the path.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, where a folder of images is needed. Name the folder that holds it.")
    found = [path for path in (folder.rglob("*") if recursive else folder.iterdir()) if is_image(path)]
    found = [path for path in found if not _inside_hidden(path, folder)]
    if not found:
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        more = ", ..." if len(others) > 3 else ""
        got = f"Got {len(others)} other entries: {', '.join(others[:3])}{more}" if others else "It is empty"
        raise DataError(f"{folder} holds no image. {got}. Allowed: {' '.join(IMAGE_SUFFIXES)}.")
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def all_images(folder: Path) -> tuple[Path, ...]:
    """The image files of ``folder`` and below it, as ``list_images``."""
    return list_images(folder, recursive=True)


def images_below(folder: str) -> Iterator[str]:
    """The image files of a folder (a path or an address) and below it one by one, in the order of their texts.

    For folders of millions: one sub-folder at a time is in memory. Raises DataError where it cannot be listed.
    """
    return (name for name in below(folder) if name.lower().endswith(IMAGE_SUFFIXES))


def files_of(path_or_address: str) -> list[str | Path]:
    """The image files that a path or an address means: of a folder all in it and below it, else itself."""
    if is_address(path_or_address):
        is_file = path_or_address.lower().endswith(IMAGE_SUFFIXES)
        return [path_or_address] if is_file else list(_listed(path_or_address))
    path = Path(path_or_address)
    return list(all_images(path)) if path.is_dir() else [path]


def _listed(address: str) -> list[str]:
    if not (found := list(images_below(address))):
        raise DataError(f"{address} holds no image. Allowed: {' '.join(IMAGE_SUFFIXES)}.")
    return found


def read_mask(paths: Sequence[Path], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The union of the masks ``paths`` as (h, w) bool; all False where there are none.

    A pixel is defective where its stored number is not 0: of a palette its index, of RGB any channel; alpha
    is ignored. In JPEG, whose compression blurs 0 into small numbers, it must exceed 127.

    shape: (h, w) of the image that the masks belong to. Raises DataError where a mask has another size or
    cannot be read.
    """
    union = np.zeros(shape, dtype=np.bool_)
    for path in paths:
        union |= read_mask_values(path, shape) != 0
    return union


def read_mask_values(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
    """One mask's stored numbers, (h, w); of colour channels the largest. Errors as in ``read_mask``."""
    with open_image(path) as image:
        is_jpeg = image.format == "JPEG"
        inverted = image.mode in ("CMYK", "YCbCr", "LAB", "HSV")  # there black is not 0
        values = np.asarray(image.convert("RGB") if inverted else image)
        if image.mode in ("LA", "PA", "RGBA"):
            values = values[:, :, :-1]
    if values.ndim == 3:
        values = values.max(axis=2)
    if values.shape != shape:
        raise DataError(
            f"The mask {path} is {values.shape[0]}×{values.shape[1]} (h×w), its image {shape[0]}×{shape[1]}. "
            "A mask must have its image's size: scale it without interpolation."
        )
    return values > 127 if is_jpeg else values


def thumbnail(pixels: UInt8Array) -> bytes:
    """A JPEG file of ``pixels`` (h, w, 3) uint8, what the network sees, no side longer than ``THUMBNAIL_SIDE``."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()


def read_thumbnail(content: bytes) -> UInt8Array:
    """(h, w, 3) uint8 of a thumbnail's bytes."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def _inside_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
