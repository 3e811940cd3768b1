"""What a camera makes of made scenes, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scenes import normal, plane, uniform
from torch.nn.functional import conv2d, grid_sample, pad


def photograph(images: torch.Tensor, random: torch.Generator, *, mono: float = 0.0) -> torch.Tensor:
    """What a camera makes of (n, 3, h, w) scenes: exposure, colour cast, uneven light, blur, noise, 8 bits; in [0, 1].

    mono: share of the photographs that a camera without colours takes.
    """
    count, _, side, _ = images.shape
    y, x = plane(side, random.device)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(images, grey, (uniform((count, 1, 1, 1), 0, 1, random) < mono).float())
    middle = images.mean((1, 2, 3), keepdim=True)
    contrast = torch.exp(uniform((count, 1, 1, 1), -0.9, 0.4, random))
    images = (images - middle) * contrast + middle + uniform((count, 1, 1, 1), -0.25, 0.25, random)
    slope = uniform((count, 1, 1), -0.3, 0.3, random) * x + uniform((count, 1, 1), -0.3, 0.3, random) * y
    corner = uniform((count, 1, 1), 0, 0.3, random) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    images = images * (1 + slope - corner)[:, None] * (1 + normal((count, 3, 1, 1), 0.06, random))
    images = images.clamp(0.002, 1) ** torch.exp(normal((count, 1, 1, 1), 0.25, random))
    images = _blurred(images, uniform((count,), 0, 1.3, random))
    deviation = uniform((count, 1, 1, 1), 0, 0.035, random) ** 1.5 * 5
    images = images + deviation * torch.randn(images.shape, generator=random, device=random.device)
    return (images * 255).round().clamp(0, 255) / 255


@dataclass(frozen=True)
class Stand:
    """Where a second photograph was taken from: it shows at p what the first shows at turn · p + shift, in [-1, 1]².

    turn: (n, 2, 2). shift: (n, 2).
    """

    turn: torch.Tensor
    shift: torch.Tensor

    @staticmethod
    def draw(count: int, random: torch.Generator, turn: float) -> Stand:
        """Turned by up to ``turn`` radians either way, scaled by up to half as much, shifted by a few hundredths."""
        angle = uniform((count,), -turn, turn, random)
        scale = torch.exp(uniform((count,), -turn / 2, turn / 2, random))
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        matrix = torch.stack((cos, -sin, sin, cos), 1).view(count, 2, 2)
        return Stand(matrix, uniform((count, 2), -0.06, 0.06, random))

    def look(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) as they look from there."""
        side = images.shape[-1]
        y, x = (2 * part - 1 for part in plane(side, images.device))
        points = torch.stack(torch.broadcast_tensors(x, y), -1).flatten(0, 1)
        where = torch.einsum("nij,pj->npi", self.turn, points) + self.shift[:, None]
        return grid_sample(images, where.unflatten(1, (side, side)), padding_mode="reflection", align_corners=False)

    def find(self, points: torch.Tensor) -> torch.Tensor:
        """(p, 2) points of the first photograph → (n, p, 2), where they are in the second."""
        return torch.einsum("nij,npj->npi", torch.linalg.inv(self.turn), points - self.shift[:, None])


def _blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of its own width an image, sigma (n,) pixels; none below a fifth of a pixel."""
    count, bands, height, width = images.shape
    reach = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-(reach**2) / (2 * sigma.clamp(min=0.2)[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(bands, 0)[:, None]
    flat = pad(images.reshape(1, count * bands, height, width), (3, 3, 3, 3), mode="reflect")
    flat = conv2d(flat, kernel[:, :, None], groups=count * bands)
    flat = conv2d(flat, kernel[:, :, :, None], groups=count * bands)
    return flat.view(count, bands, height, width)
