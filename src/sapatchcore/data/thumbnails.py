"""Small pictures of training images, so that a verdict can show the nearest good patch where the images are not at hand."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sapatchcore.data.pixels import UInt8Array

LONGER_SIDE = 256  # pixels at most: what the network sees by default, so that a patch of 8 pixels can still be told
QUALITY = 80  # JPEG: 5 to 10 KB each


def thumbnail(pixels: UInt8Array) -> bytes:
    """A JPEG file of ``pixels`` (h, w, 3) uint8, what the network sees, no side longer than ``LONGER_SIDE``."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def read_thumbnail(content: bytes) -> UInt8Array:
    """(h, w, 3) uint8 of a thumbnail's bytes."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))
