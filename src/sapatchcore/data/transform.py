"""Step 1 of the paper: an image of any size becomes what the backbone expects.

Source: SA-PatchCore, section IV (implementation); the authors' code uses Pillow's ANTIALIAS, today called
LANCZOS. Both sides are resized to 256 (the aspect ratio is not kept), the middle 224×224 is cut out, values
are scaled to [0, 1] and normalised with the mean and deviation of ImageNet.

We differ: images wait as uint8 until they are on the device, a quarter of the bytes; the arithmetic is the
same.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from sapatchcore.data.pixels import UInt8Array
from sapatchcore.errors import DataError, SettingsError

Size = tuple[int, int]  # (h, w)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
        resized = Image.fromarray(image).resize((resize[1], resize[0]), Image.Resampling.LANCZOS)
        image = np.array(resized)  # (h, w, 3), writable: torch.from_numpy warns of read-only memory
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def normalise(
    batch: torch.Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> torch.Tensor:
    """(n, h, w, 3) uint8 on any device → (n, 3, h, w) float32 there: scaled to [0, 1], minus mean, over std.

    mean, std: of the backbone's own training where it is not ImageNet's. Raises DataError for another shape
    or dtype.
    """
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != torch.uint8:
        raise DataError(f"normalise needs (n, h, w, 3) uint8. Got shape {tuple(batch.shape)}, {batch.dtype}.")
    planes = rearrange(batch, "n h w c -> n c h w")
    scaled = planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    offset = torch.tensor(mean, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1)
    deviation = torch.tensor(std, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1)
    return scaled.sub_(offset).div_(deviation)
