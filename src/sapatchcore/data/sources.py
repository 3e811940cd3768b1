"""What a caller hands in as images — a folder, paths, arrays, Pillow images — as batches for the network.

An image is (h, w, 3) uint8 RGB as the user has it; ``pixels.py`` says what becomes of each mode.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.conversion import rgb_from_array
from sapatchcore.data.images import files_of
from sapatchcore.data.pixels import (
    Appearance,
    Size,
    UInt8Array,
    appearance,
    decode,
    open_image,
    prepare,
    rgb_from_bytes,
    rgb_from_image,
    turned,
)
from sapatchcore.data.remote import is_address, read_bytes
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.settings import Settings

ImageSource = str | os.PathLike[str] | npt.NDArray[np.generic] | Image.Image
Images = ImageSource | Iterable[ImageSource]
Sources = tuple[Iterable[ImageSource], int | None]  # one by one, and how many there are where that is known
Progress = Callable[[str, int, int | None], None]  # stage, how many are done, of how many (None: not known)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Batch:
    """names: n texts. sizes: n × (H, W), the images' own. pixels: (n, h, w, 3) uint8, as the network takes them. appearance: n,
    of the images themselves; none where nobody will ask. turns: n, of copies (copies.py); none where there is none."""

    names: tuple[str, ...]
    sizes: tuple[Size, ...]
    pixels: npt.NDArray[np.uint8]
    appearance: tuple[Appearance, ...] = ()
    turns: tuple[int, ...] = ()


def as_sources(images: Images, from_folder: Callable[[Path], Iterable[ImageSource]]) -> Sources:
    """The images one by one, and how many there are where that is known.

    images: a folder (``from_folder`` says which of its files), one path, an address (of an image, or of a folder: all images in
    and below it), one array (h, w, 3) or (h, w), a stack (n, h, w, 3), one Pillow image, or any iterable of paths, arrays and
    these.
    """
    if isinstance(images, str) and "://" in images:
        sources: Iterable[ImageSource] = files_of(images)
    elif isinstance(images, str | os.PathLike):
        path = Path(images)
        sources = from_folder(path) if not path.is_file() else [path]
    elif isinstance(images, np.ndarray):
        sources = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, Image.Image):
        sources = [images]
    elif isinstance(images, Iterable):
        sources = images
    else:
        raise DataError(
            f"images must be a folder, paths, (h, w, 3) uint8 arrays or Pillow images. Got {type(images).__name__}."
        )
    return sources, len(sources) if isinstance(sources, Sized) else None


def read_batches(sources: Iterable[ImageSource], settings: Settings, first: int = 0) -> Generator[Batch, None, None]:
    """Batches of up to ``batch_size`` images, read and resized by ``workers`` threads while the caller computes.

    first: the number of the first image, for the names of those that have no path.
    """

    def read(numbered: tuple[int, ImageSource]) -> tuple[str, Size, npt.NDArray[np.uint8], Appearance]:
        name = source_name(numbered[1], numbered[0])
        image = read_image(numbered[1], name)
        size, pixels = (image.shape[0], image.shape[1]), prepare(image, settings.resize, settings.crop)
        return name, size, pixels, appearance(image)

    workers, size = settings.workers, settings.batch_size
    with closing(load_ahead(enumerate(sources, first), read, workers=workers, ahead=size + workers)) as images:
        for batch in groups(images, size):
            names, sizes, pixels, looks = zip(*batch, strict=True)
            yield Batch(names, sizes, np.stack(pixels), looks)


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
    if isinstance(source, str) and "://" in source and is_address(source):
        return rgb_from_bytes(read_bytes(source), source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        with open_image(path) as image:
            return rgb_from_image(image, str(path))
    raise DataError(
        f"{name or 'An image'} must be a path, an (h, w, 3) uint8 array or a Pillow image. Got {type(source).__name__}."
    )


def load_ahead(
    sources: Iterable[T], prepare: Callable[[T], R], *, workers: int, ahead: int
) -> Generator[R, None, None]:
    """``prepare`` of each source, in order, by ``workers`` threads while the caller works on earlier ones.

    At most ``ahead`` results wait, so memory stays bounded for endless ``sources`` too; these are only ever advanced by the
    caller's thread. An exception, of ``prepare`` or of ``sources``, is raised at its position in the order. The threads end
    with the generator: exhausted, failed, closed or interrupted. ``workers=0`` uses no threads.

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

    def futures() -> Iterator[Future[R]]:
        remaining = iter(sources)
        while True:
            try:
                yield executor.submit(prepare, next(remaining))
            except StopIteration:
                return
            except Exception as error:  # raised when the results before it are out
                failure: Future[R] = Future()
                failure.set_exception(error)
                yield failure
                return

    try:
        waiting: deque[Future[R]] = deque()
        for future in futures():
            waiting.append(future)
            if len(waiting) > ahead:  # ahead of them, and the one that is handed out next
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter where they do not come out even."""
    while group := list(islice(items, size)):
        yield group
