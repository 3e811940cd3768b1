"""Which product an image shows, told by its feature maps' statistics, which the network gave for the score anyway.

With v the pooled statistics of an image (memory/pooled.py), μ_k their mean over product k's good images, and S the covariance
within products, of all good images' v less their own product's mean, shrunk as there,

    d_k² = (v − μ_k)ᵀ S⁻¹ (v − μ_k),   the product = the k with the smallest d_k

as in linear discriminant analysis (Fisher 1936). One covariance for all, since with each product's own one whose good images vary
much would draw in the defects of one whose images are all alike. Every product weighs the same in S, however many images it has.

An image is *unlike every product* where even the smallest d_k lies above half the distance from μ_k to the nearest other mean:
it is nowhere between products then. Good images of k may lie as far where products are alike, so that the limit is at least
``MARGIN`` times the largest d_k of k's own good images, each with μ_k and S from those of other folds. No verdict rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.learning.calibrate import fold_of_each
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.pooled import Gaussian, GlobalPart

MARGIN = 1.5
MOST = 64  # of a product's images, evenly spread, that means and covariance are taken from: opening a file takes no longer then

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Telling:
    """What tells K products. parts: of their banks. means: (K, d) float64. within: the Gaussian of what good images differ by
    from their product's mean. limits: (K,) float64, of d_k."""

    parts: tuple[GlobalPart, ...]
    means: torch.Tensor
    within: Gaussian
    limits: Float64

    @classmethod
    def of(cls, banks: Sequence[Bank]) -> Telling:
        """Of the products' banks, each with a global part of three or more images; K of 2 or more."""
        parts = tuple(bank.global_part for bank in banks if bank.global_part is not None)
        rows, folds = [], []
        for part, bank in zip(parts, banks, strict=True):
            chosen = np.unique(np.linspace(0, len(part.rows) - 1, MOST).round().astype(int))
            rows.append(part.rows[chosen].double())
            folds.append(fold_of_each(bank.training)[chosen])
        means, within = _fitted(rows)
        largest = np.zeros(len(rows))
        for fold in torch.cat(folds).unique().tolist():
            others, of_others = _fitted([some[at != fold] for some, at in zip(rows, folds, strict=True)])
            for k, (some, at) in enumerate(zip(rows, folds, strict=True)):
                if bool((at == fold).any()):
                    largest[k] = max(largest[k], float(of_others.distance(some[at == fold] - others[k]).max()))
        apart = np.stack([within.distance(means - mean).numpy() for mean in means])
        np.fill_diagonal(apart, np.inf)
        return cls(parts, means, within, np.maximum(apart.min(1) / 2, MARGIN * largest))

    def is_of(self, banks: Sequence[Bank]) -> bool:
        """Whether it is still that of ``banks``: a product may have learned on."""
        return all(part is bank.global_part for part, bank in zip(self.parts, banks, strict=True))

    def told(self, statistics: torch.Tensor) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """Of the pooled statistics (n, d) float64 of n images, (n,) each: the number of the product, and whether the image is
        unlike every one."""
        distances = np.stack([self.within.distance(statistics - mean).numpy() for mean in self.means], 1)
        product = distances.argmin(1)
        return product, distances[np.arange(len(distances)), product] > self.limits[product]


def _fitted(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Gaussian]:
    """Of each product's statistics (k, d) the means (K, d), and what all differ by from them, each product of the same weight."""
    means = torch.stack([some.mean(0) for some in rows])
    count = sum(map(len, rows)) / len(rows)
    differences = [(some - mean) * (count / len(some)) ** 0.5 for some, mean in zip(rows, means, strict=True)]
    return means, Gaussian.of(torch.cat(differences))
