"""Random numbers and coordinates for a whole batch at a time, on the generator's device."""

from __future__ import annotations

import torch


def plane(side: int, place: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    along = (torch.arange(side, device=place) + 0.5) / side
    return along[:, None], along[None]


def uniform(size: tuple[int, ...], low: float, high: float, random: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(size, generator=random, device=random.device)


def normal(size: tuple[int, ...], deviation: float, random: torch.Generator) -> torch.Tensor:
    return deviation * torch.randn(size, generator=random, device=random.device)
