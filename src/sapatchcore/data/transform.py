"""Step 1 of the paper: an image of any size gets the size that the network takes.

Source: SA-PatchCore, section IV (implementation); the authors' code uses Pillow's ANTIALIAS, today called
LANCZOS. Both sides are resized to 256 (the aspect ratio is not kept), the middle 224×224 is cut out.
``embed/normalise.py`` does the rest of the step where the network computes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sapatchcore.data.pixels import UInt8Array
from sapatchcore.errors import DataError, SettingsError

Size = tuple[int, int]  # (h, w)


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
        # Width first, then height: in one call Pillow's order, and with it the rounding, hangs on its version and the shape.
        across = Image.fromarray(image).resize((resize[1], image.shape[0]), Image.Resampling.LANCZOS)
        resized = across.resize((resize[1], resize[0]), Image.Resampling.LANCZOS)
        image = np.array(resized)  # (h, w, 3), writable: torch.from_numpy warns of read-only memory
    return np.ascontiguousarray(image[top : top + height, left : left + width])
