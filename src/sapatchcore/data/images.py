"""Images and masks from a folder to memory: listed in a fixed order, decoded to RGB, read ahead by threads; thumbnails.

An image is (h, w, 3) uint8 RGB as the user has it; ``pixels.py`` says what becomes of each mode.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.pixels import (
    UInt8Array,
    decode,
    open_image,
    rgb_from_array,
    rgb_from_bytes,
    rgb_from_image,
    turned,
)
from sapatchcore.data.remote import below, is_address, read_bytes
from sapatchcore.errors import DataError, SettingsError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

THUMBNAIL_SIDE = 256  # pixels at most: what the network sees by default, so that a patch of 8 pixels can still be told
THUMBNAIL_QUALITY = 80  # JPEG: 5 to 10 KB each

ImageSource = str | os.PathLike[str] | npt.NDArray[np.generic] | Image.Image

T = TypeVar("T")
R = TypeVar("R")


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


def source_name(source: ImageSource, index: int) -> str:
    """What messages and results call source number ``index``: its path, or "image 3" for pixels."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"image {index}"


def read_image(source: ImageSource, name: str = "") -> UInt8Array:
    """One image as (h, w, 3) uint8 RGB, contiguous.

    source: the path or address (s3://…) of a PNG, JPEG, BMP, TIFF (first page) or WebP (first frame) file; a Pillow image;
    or an array (h, w, 3) or (h, w) uint8, which is not copied where it is already what is returned. EXIF
    orientation is applied to files and Pillow images. name: what messages call a source that has no path.

    Raises DataError for what cannot be read as such an image, with the file's name, size, format and mode,
    or the array's shape and dtype.
    """
    if isinstance(source, np.ndarray):
        return rgb_from_array(source, name or "An image array")
    if isinstance(source, Image.Image):
        name = f"{name or 'A Pillow image'} (mode {source.mode})"
        decode(source, name)
        return rgb_from_image(turned(source), name)
    if isinstance(source, str) and is_address(source):
        return rgb_from_bytes(read_bytes(source), source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        with open_image(path) as image:
            return rgb_from_image(image, str(path))
    raise DataError(
        f"{name or 'An image'} must be a path, an (h, w, 3) uint8 array or a Pillow image. Got {type(source).__name__}."
    )


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


def load_ahead(
    sources: Iterable[T], prepare: Callable[[T], R], *, workers: int, ahead: int
) -> Generator[R, None, None]:
    """``prepare`` of each source, in order, by ``workers`` threads while the caller works on earlier ones.

    At most ``ahead`` results wait, so memory stays bounded for endless ``sources`` too; these are only ever
    advanced by the caller's thread. An exception, of ``prepare`` or of ``sources``, is raised at its
    position in the order. The threads end with the generator: exhausted, failed, closed or interrupted. ``workers=0``
    uses no threads.

    Raises SettingsError for negative ``workers`` or ``ahead`` below 1.
    """
    if workers < 0:
        raise SettingsError(f"workers must be 0 or more. Got {workers}. Use 0 to read without threads.")
    if ahead < 1:
        raise SettingsError(f"ahead must be 1 or more. Got {ahead}. Use about two results a worker.")
    # A function of its own, so that wrong numbers raise at the call and not at the first result.
    return _load_ahead(sources, prepare, workers, ahead)


def _load_ahead(sources: Iterable[T], prepare: Callable[[T], R], workers: int, ahead: int) -> Generator[R, None, None]:
    if workers == 0:
        for source in sources:
            yield prepare(source)
        return
    executor = ThreadPoolExecutor(workers, thread_name_prefix="load-ahead")
    try:
        waiting: deque[Future[R]] = deque()
        remaining = iter(sources)
        failure: Exception | None = None
        more = True
        while more or waiting:
            while more and len(waiting) <= ahead:  # ahead of them, and the one that is handed out next
                try:
                    waiting.append(executor.submit(prepare, next(remaining)))
                except StopIteration:
                    more = False
                except Exception as error:  # kept until the results before it are out
                    failure, more = error, False
            if waiting:
                yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _inside_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
