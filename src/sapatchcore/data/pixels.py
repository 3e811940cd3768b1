"""What a file or a Pillow image holds, as pixels: opening, orientation, 8-bit RGB from any mode, resizing.

We differ: other implementations call ``Image.open(path).convert("RGB")``, which clips 16-bit grey at 255 (nearly all white),
ignores a camera's EXIF orientation, and lets a truncated file end as an ``OSError`` without its name.

``prepare`` is the paper's step 1 (SA-PatchCore, section IV, implementation): both sides are resized to 256 (the aspect ratio
is not kept) with what the authors' code calls Pillow's ANTIALIAS, today LANCZOS; the middle 224×224 is cut out.
``embed/backbone.py`` does the rest of the step where the network computes.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sapatchcore.data.conversion import from_floats, from_integers, repeated
from sapatchcore.errors import DataError, SettingsError

# Only these decoders see a file: others of Pillow (EPS starts Ghostscript) have no place on a line PC.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
FORMATS_IN_WORDS = "PNG, JPEG, BMP, TIFF or WebP"

Size = tuple[int, int]  # (h, w)
UInt8Array = npt.NDArray[np.uint8]
Appearance = tuple[float, float, float]  # brightness, contrast, colour: see ``appearance``

# Where ``appearance`` looks, in shares of height and width: evenly, and in step with no stripes (Roberts' R2 sequence).
_LOOKED_AT = np.arange(1024) * np.array([[0.7548776662], [0.5698402910]]) % 1

# catch_warnings changes the whole process: one thread at a time, and only while it reads a header.
_header_lock = threading.Lock()


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The file's first frame, decoded and turned as its EXIF orientation says; closed at the end of ``with``.

    Raises DataError, with the file's name, size in bytes and (where known) format and mode, for a file that
    is missing, a folder, empty, no image, truncated or too large.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, where one image file is needed. Name a file inside it.")
    try:
        # By stream, not by name: Pillow maps a named TIFF into memory, and turns orientations 5 to 8 wrongly.
        stream = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error
    with stream:
        size = path.stat().st_size
        with _decoded(path, stream, size) as image:
            yield image


def rgb_from_bytes(data: bytes, name: str) -> UInt8Array:
    """The bytes of an image file as (h, w, 3) uint8 RGB, as ``open_image`` and ``rgb_from_image`` have it of a path.

    name: what messages call it. Raises DataError as these two.
    """
    with _decoded(name, io.BytesIO(data), len(data)) as image:
        return rgb_from_image(image, name)


@contextmanager
def _decoded(name: Path | str, stream: object, size: int) -> Iterator[Image.Image]:
    if size == 0:
        raise DataError(f"{name} is empty (0 bytes). Copy the image again.")
    with open_header(name, stream, size) as image:
        decode(image, f"{name} ({size} bytes, {image.format}, mode {image.mode})")
        yield turned(image)


def decode(image: Image.Image, name: str) -> None:
    """Decode ``image`` in place. Raises DataError that begins with ``name`` where its bytes are damaged."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes Pillow's decoders raise almost anything
        raise DataError(f"{name} cannot be decoded: {error}. Copy or export it again.") from error


def turned(image: Image.Image) -> Image.Image:
    """The decoded ``image`` as its EXIF orientation says; ``image`` itself where nothing is to be turned."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block says nothing about the orientation; the pixels are fine
        return image
    if orientation == 1:
        return image
    upright = ImageOps.exif_transpose(image)
    upright.format = image.format  # lost by turning; masks are read by it
    return upright


def rgb_from_image(image: Image.Image, name: str) -> UInt8Array:
    """A decoded Pillow image of any mode as (h, w, 3) uint8 RGB.

    Alpha is dropped and the colour under it kept as stored, as the other implementations do. 16-bit grey is scaled by 1/257 and
    rounded; of 16 bits per *colour* channel Pillow hands out the upper 8. 32-bit integers within 0..65535 count as 16-bit, floats
    within 0..1 are scaled by 255. Colour profiles are not applied.

    Raises DataError for an empty image, for numbers outside these ranges, and for modes that Pillow cannot turn into RGB.
    """
    if 0 in image.size:
        raise DataError(f"{name} has no pixels: it is {image.height}×{image.width}. Give an image of at least 1×1.")
    if image.mode == "RGB":
        return np.array(image)
    if image.mode.startswith("I"):
        return repeated(from_integers(np.asarray(image), name))
    if image.mode == "F":
        return repeated(from_floats(np.asarray(image), name))
    try:
        if image.mode == "P":
            # A palette with transparent entries must pass through RGBA, else Pillow warns.
            return np.array(image.convert("RGBA").convert("RGB"))
        if image.mode in ("La", "RGBa"):
            return np.array(image.convert("LA" if image.mode == "La" else "RGBA").convert("RGB"))
        return np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # ValueError, or what the colour management of LAB raises
        raise DataError(
            f"{name} has the mode {image.mode}, which cannot become RGB: {error}. Save it as RGB."
        ) from error


def crop_box(resize: Size, crop: Size | None) -> tuple[int, int, int, int]:
    """The centre crop in the resized image: (top, left, height, width); all of it for ``crop=None``.

    Rounds as torchvision's CenterCrop does. Raises SettingsError where ``crop`` is larger than ``resize``.
    """
    if crop is None:
        return 0, 0, *resize
    if crop[0] > resize[0] or crop[1] > resize[1]:
        raise SettingsError(
            f"crop must not be larger than resize. Got crop {crop} and resize {resize} (h, w). "
            "Use crop=None to keep the whole image."
        )
    top = round((resize[0] - crop[0]) / 2.0)
    left = round((resize[1] - crop[1]) / 2.0)
    return top, left, *crop


def prepare(image: UInt8Array, resize: Size, crop: Size | None) -> UInt8Array:
    """Resize with Lanczos to ``resize`` (h, w), then cut the centre ``crop`` (h, w) out.

    image: (h, w, 3) uint8 RGB. Returns (ch, cw, 3) uint8, contiguous; the same pixels as ``image`` where it
    has the size already. Raises SettingsError where ``crop`` is larger than ``resize``, DataError for
    another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"prepare needs (h, w, 3) uint8. Got shape {image.shape}, {image.dtype}. Use read_image first.")
    top, left, height, width = crop_box(resize, crop)
    if image.shape[:2] != resize:
        # Width first, then height: in one call Pillow's order, and with it the rounding, depends on its version and the shape.
        across = Image.fromarray(image).resize((resize[1], image.shape[0]), Image.Resampling.LANCZOS)
        resized = across.resize((resize[1], resize[0]), Image.Resampling.LANCZOS)
        image = np.array(resized)  # (h, w, 3), writable: torch.from_numpy warns of read-only memory
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def appearance(image: UInt8Array) -> Appearance:
    """Mean and standard deviation of the brightness, and the mean difference of the largest and the smallest channel, which is 0
    where all is grey: in levels of 255, of 1024 pixels of ``image`` (h, w, 3) uint8."""
    rows, columns = (_LOOKED_AT * ((image.shape[0],), (image.shape[1],))).astype(np.int64)
    red, green, blue = image[rows, columns].T.astype(np.float32)
    grey, largest = (red + green + blue) / 3, np.maximum(np.maximum(red, green), blue)
    colour = largest - np.minimum(np.minimum(red, green), blue)
    return float(grey.mean()), float(grey.std()), float(colour.mean())


@contextmanager
def open_header(path: Path | str, stream: object, size: int) -> Iterator[Image.Image]:
    """The image in ``stream``, not decoded; closed at the end of ``with``.

    path: what messages call it. size: its bytes. Raises DataError where it is no image that can be read, or too large.
    """
    try:
        with _header_lock, warnings.catch_warnings():
            # Between Pillow's limit and twice that it only warns; large inspection images are meant.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=FORMATS)  # type: ignore[arg-type]
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"{path} ({size} bytes) is too large: it has more than {limit} pixels, Pillow's safety limit. "
            "Cut it into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS where you trust the file."
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path} ({size} bytes) is not an image that can be read. Allowed: {FORMATS_IN_WORDS}. "
            "Export it again as PNG."
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{path} ({size} bytes) cannot be decoded: {error}. Copy or export it again.") from error
    with image:
        yield image
