"""``metric`` "whitened": patches are compared after whitening, so that a distance between two is a Mahalanobis distance.

Good patches differ much in some directions and hardly in others, and channels go together. With C their covariance, shrunk
towards a multiple of I, each patch is multiplied by

    W = s · ((1 − λ) C + λ tr(C)/d · I)^(−1/2)   so that |W a − W b|² = s² (a − b)ᵀ ((1 − λ) C + λ tr(C)/d · I)⁻¹ (a − b)

and a deviation counts by how rare it is among good patches. The idea is Rippel et al.'s ("Modeling the Distribution of Normal
Data in Pre-Trained Deep Features for Anomaly Detection", ICPR 2020, arXiv 2005.14140). We differ: they take the distance to one
Gaussian; here each patch is compared with its nearest row of the bank, in the whitened space, where the bank is chosen, too.

Local and context part are whitened apart, each by its own matrix, and score² = local² + context² stays exact. One matrix for
both would mix their channels, and no part of a distance would belong to one of them. The factor s of each gives the good patches
the variance that they had, tr(W C W) = tr(C): whitening says which directions of a part count, not how much the part does, which
the network's scales and ``context_weight`` say. With s = 1 layer 3 would count most, which has more channels.

An image that C was taken from scores lower than a new one: what is rare in it is less rare in C. So the cross-fitted calibration
scores each fold's images in the whitening that was taken without them (``Whitening.folds``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch

from sapatchcore.errors import NotFittedError

SHRINKAGE = 0.1  # λ: no direction counts more than 1/√λ times what it would if all were alike
_NO_SPREAD = 1e-30  # mean variance of a channel below which nothing is known to whiten by
_NAMES = ("whitening.local", "whitening.context")


class Moments:
    """Of rows that come in parts: their covariance, in float64 on the CPU."""

    def __init__(self, width: int) -> None:
        self._count = 0
        self._total = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        """rows: (k, width), any floating point dtype and device."""
        rows = rows.cpu().double()
        self._count += len(rows)
        self._total += rows.sum(0)
        self._products += rows.T @ rows

    def __add__(self, other: Moments) -> Moments:
        both = Moments(len(self._total))
        both._count, both._total = self._count + other._count, self._total + other._total
        both._products = self._products + other._products
        return both

    def covariance(self) -> torch.Tensor:
        """(width, width) float64, divided by the number of rows; zeros where there are none."""
        count = max(1, self._count)
        mean = self._total / count
        return self._products / count - torch.outer(mean, mean)


def whitening_matrix(covariance: torch.Tensor) -> torch.Tensor:
    """(d, d) float64, symmetric → W, (d, d) float64, symmetric; I where there is no spread at all."""
    width = len(covariance)
    usual = float(covariance.trace()) / width
    if not usual > _NO_SPREAD:
        return torch.eye(width, dtype=torch.float64)
    values, axes = torch.linalg.eigh(covariance)
    shrunk = (1 - SHRINKAGE) * values.clamp(min=0) + SHRINKAGE * usual
    scale = (values.clamp(min=0).sum() / (values.clamp(min=0) / shrunk).sum()).sqrt()
    matrix: torch.Tensor = scale * (axes * shrunk.rsqrt() @ axes.T)
    return matrix


Pair = tuple[Moments, Moments]  # of good patches' local and context parts


@dataclass(frozen=True, eq=False)
class Whitening:
    """What rows of patches are multiplied by, from the right. local: (c2, c2), context: (c3, c3) float32, symmetric.

    folds: for fit's calibration, what brings whitened patches to the whitening without the images of each fold; not symmetric.
    Empty where there are no folds, and in a loaded model.
    """

    local: torch.Tensor
    context: torch.Tensor
    folds: tuple[Whitening, ...] = ()

    @classmethod
    def of(cls, folds: Sequence[Pair]) -> Self:
        """folds: the moments of each fold's patches."""

        def matrices(pairs: Sequence[Pair]) -> list[torch.Tensor]:
            sums = (reduce(Moments.__add__, parts) for parts in zip(*pairs, strict=True))
            return [whitening_matrix(moments.covariance()) for moments in sums]

        whole, changes = matrices(folds), []
        for fold in range(len(folds) if len(folds) > 1 else 0):
            without = matrices([*folds[:fold], *folds[fold + 1 :]])
            pairs = zip(whole, without, strict=True)
            changes.append(cls(*(torch.linalg.solve(one, other).float() for one, other in pairs)))
        return cls(whole[0].float(), whole[1].float(), tuple(changes))

    def of_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """(m, c2 + c3) float32 patches, multiplied."""
        c2 = len(self.local)
        by = ready(self, rows.device)
        return torch.cat((rows[:, :c2] @ by.local, rows[:, c2:] @ by.context), 1)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], channels: Sequence[int]) -> Self:
        """What ``tensors()`` gave. channels: (c2, c3). Raises KeyError or ValueError where it cannot be that."""
        local, context = (tensors[name] for name in _NAMES)
        for matrix, width in ((local, channels[0]), (context, channels[1])):
            right = matrix.shape == (width, width) and matrix.dtype == torch.float32
            if not right or not bool(torch.isfinite(matrix).all()):
                raise ValueError(f"a whitening of {tuple(matrix.shape)} numbers, not {width} × {width} finite ones")
        return cls(local, context)

    def tensors(self) -> dict[str, torch.Tensor]:
        """For the model file, by name."""
        return dict(zip(_NAMES, (self.local, self.context), strict=True))


def ready(whitening: Whitening | None, device: torch.device) -> Whitening:
    """``whitening`` on ``device``. Raises NotFittedError where there is none yet."""
    if whitening is None:
        raise NotFittedError("`metric` whitened is taken from good images. Call fit first, or use `metric` euclidean.")
    return Whitening(whitening.local.to(device), whitening.context.to(device))
