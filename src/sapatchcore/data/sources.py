"""What a caller hands in as images — a folder, paths, arrays, Pillow images — as batches for the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.images import (
    IMAGE_SUFFIXES,
    ImageSource,
    all_images,
    images_below,
    load_ahead,
    read_image,
    source_name,
)
from sapatchcore.data.pixels import Size, prepare
from sapatchcore.data.remote import is_address
from sapatchcore.errors import DataError

Images = ImageSource | Iterable[ImageSource]
Sources = tuple[Iterable[ImageSource], int | None]  # one by one, and how many there are where that is known
Progress = Callable[[str, int, int | None], None]  # stage, how many are done, of how many (None: not known)

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """names: n texts. sizes: n × (H, W), the images' own. pixels: (n, h, w, 3) uint8, as the network takes them."""

    names: tuple[str, ...]
    sizes: tuple[Size, ...]
    pixels: npt.NDArray[np.uint8]


def as_sources(images: Images, from_folder: Callable[[Path], Iterable[ImageSource]]) -> Sources:
    """The images one by one, and how many there are where that is known.

    images: a folder (``from_folder`` says which of its files), one path, an address (of an image, or of a folder whose
    images are taken, those below it too), one array (h, w, 3) or (h, w), a stack
    (n, h, w, 3), one Pillow image, or any iterable of paths, arrays and Pillow images.
    """
    if isinstance(images, str) and is_address(images):
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


def read_batches(
    sources: Iterable[ImageSource], *, resize: Size, crop: Size | None, batch_size: int, workers: int, first: int = 0
) -> Generator[Batch, None, None]:
    """Batches of up to ``batch_size`` images, read and resized by ``workers`` threads while the caller computes.

    first: the number of the first image, for the names of those that have no path.
    """

    def read(numbered: tuple[int, ImageSource]) -> tuple[str, Size, npt.NDArray[np.uint8]]:
        name = source_name(numbered[1], numbered[0])
        image = read_image(numbered[1], name)
        return name, (image.shape[0], image.shape[1]), prepare(image, resize, crop)

    with closing(load_ahead(enumerate(sources, first), read, workers=workers, ahead=batch_size + workers)) as images:
        for batch in groups(images, batch_size):
            names, sizes, pixels = zip(*batch, strict=True)
            yield Batch(names, sizes, np.stack(pixels))


def files_of(path_or_address: str) -> list[ImageSource]:
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


def groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter where they do not come out even."""
    while group := list(islice(items, size)):
        yield group
