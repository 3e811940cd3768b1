"""The end of step 1: pixels as the network's training had them.

Source: SA-PatchCore, section IV (implementation): values are scaled to [0, 1] and normalised with the mean and deviation
of ImageNet. We differ: images wait as uint8 until they are on the device, a quarter of the bytes; the arithmetic is the
same.
"""

from __future__ import annotations

import torch
from einops import rearrange

from sapatchcore.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
