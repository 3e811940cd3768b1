"""The image as a whole: statistics of its feature maps, and how far they are from those of good images.

Each channel of layer 2 and layer 3 gives two numbers an image, its mean over all places and its standard deviation. Of good
images they are taken as Gaussian; the *global* score of an image is its Mahalanobis distance,

    score² = (v − μ)ᵀ P (v − μ),   P = ((1 − λ) S + λ tr(S)/d · I)⁻¹

with S the covariance of the good images' v and λ by Ledoit and Wolf (2004), so that fewer images than numbers do. A part that
is missing, or one too many, changes what the image holds in all, though every place of it looks as in good images.

The score is explained exactly. A mean is a mean over places, so its share of score² is a sum over them; of a deviation σ,
σ − μ_σ = (σ² − μ_σ²) / (σ + μ_σ), and σ² is a mean over places, too. With w = P (v − μ), place i of N adds

    Σ_c [ w_c (f_ic − μ_c) + w'_c ((f_ic − m_c)² − μ_σc²) / (σ_c + μ_σc) ] / N

and all places of both layers add up to score². A place can lessen it: then the image is more usual for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from sapatchcore.errors import DataError
from sapatchcore.presets import FEWEST

ROWS, SCALES = "global.rows", "global_scales"  # a tensor of the model file, and an entry of its header
_LEAST_SHRINKAGE = 1e-4  # keeps P finite where the images outnumber the channels by far

Layers = tuple[torch.Tensor, torch.Tensor]


@torch.inference_mode()
def pooled(layers: Layers) -> torch.Tensor:
    """(n, 2 (c2 + c3)) float64 on the CPU: of each layer (n, c, h, w) float32 the means of all channels, then the deviations."""
    found = []
    for layer in layers:
        variance, mean = torch.var_mean(layer, dim=(2, 3), correction=0)
        found += [mean, variance.sqrt()]
    return torch.cat(found, 1).double().cpu()


@dataclass(frozen=True)
class Gaussian:
    """What good images' pooled statistics are like.

    mean: (d,) float64. axes: (r, d) float64, orthonormal: the directions in which good images differ. along: (r,) float64 in
    (0, 1], and scale: P = scale · (I − axesᵀ · axes + axesᵀ · diag(along) · axes).
    """

    mean: torch.Tensor
    axes: torch.Tensor
    along: torch.Tensor
    scale: float

    @classmethod
    def of(cls, rows: torch.Tensor) -> Gaussian:
        """Of the pooled statistics (k, d) of good images, k of 2 or more. Where they are all alike, any other image is
        infinitely far, up to float64."""
        rows = rows.double()
        count, width = rows.shape
        mean = rows.mean(0)
        centred = rows - mean
        shrinkage = max(ledoit_wolf(centred), _LEAST_SHRINKAGE)
        # Squared singular values over k are the covariance's own values; all others are 0.
        _, values, axes = torch.linalg.svd(centred, full_matrices=False)
        values = values.square() / count
        floor = max(shrinkage * float(values.sum()) / width, 1e-24)
        return cls(mean, axes, floor / ((1 - shrinkage) * values + floor), 1 / floor)

    def pull(self, x: torch.Tensor) -> torch.Tensor:
        """(n, d) float64 statistics → (n, d): P (x − mean)."""
        away = x - self.mean
        on_axes = away @ self.axes.T
        return self.scale * (away - (on_axes * (1 - self.along)) @ self.axes)

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        """(n, d) float64 statistics → (n,) float64 Mahalanobis distances."""
        return ((x - self.mean) * self.pull(x)).sum(1).clamp(min=0).sqrt()

    @torch.inference_mode()
    def shares(self, layers: Layers, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """(n, p) float32: what each place of layer 2 adds to distance²; they add up to it.

        layers: (n, c, h, w) each. x: (n, d) float64, their statistics. cell: (p,), the place of layer 3 that serves each of
        layer 2's, as of Patches: what it adds is shared out among these evenly.
        """
        pulled, at, found = self.pull(x), 0, []
        for layer in layers:
            c = layer.shape[1]
            mean, deviation = (x[:, at + first : at + first + c] for first in (0, c))
            usual, usual_deviation = (self.mean[at + first : at + first + c] for first in (0, c))
            of_mean, of_square = (
                pulled[:, at : at + c],
                pulled[:, at + c : at + 2 * c] / (deviation + usual_deviation).clamp(min=1e-24),
            )
            at += 2 * c
            # Σ_c of_mean (f − usual) + of_square ((f − mean)² − usual_deviation²), by powers of f.
            constant = (of_square * (mean.square() - usual_deviation.square()) - of_mean * usual).sum(1)
            linear = (of_mean - 2 * of_square * mean).to(layer.device, torch.float32)
            places = layer.flatten(2)  # (n, c, N)
            sums = torch.einsum("nc,ncp->np", linear, places) + torch.einsum(
                "nc,ncp->np", of_square.to(layer.device, torch.float32), places.square()
            )
            found.append((sums + constant.to(layer.device, torch.float32)[:, None]) / places.shape[2])
        served = torch.bincount(cell, minlength=found[1].shape[1]).to(found[1].dtype)
        return found[0] + (found[1] / served)[:, cell]


def ledoit_wolf(centred: torch.Tensor) -> float:
    """λ in [0, 1] for rows (k, d) float64 whose mean is 0 (Ledoit and Wolf 2004, section 3): the estimated squared error of the
    sample covariance over its squared distance from a multiple of I."""
    count, width = centred.shape
    product = centred @ centred.T if count < width else centred.T @ centred  # the same Frobenius norm and trace
    squared, trace = float(product.square().sum()) / count**2, float(product.trace()) / count
    from_identity = squared - trace**2 / width
    error = (float(centred.square().sum(1).square().sum()) / count - squared) / count
    return min(max(error, 0.0), from_identity) / from_identity if from_identity > 0 else 1.0


@dataclass(frozen=True)
class GlobalPart:
    """What good images are like as a whole.

    rows: (k, d) float32 on the CPU, the pooled statistics of each training image, in their order. scales: what brings the global
    score to the patches' scale, see ``score/fusion.py``; None until good images were scored.
    """

    rows: torch.Tensor
    scales: tuple[float, ...] | None = None

    @classmethod
    def of(cls, rows: torch.Tensor) -> GlobalPart:
        """Of the statistics (k, d) of all training images. Raises DataError where these are too few."""
        require_enough(len(rows))
        return cls(rows.float())

    @classmethod
    def from_file(cls, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any], images: int) -> GlobalPart:
        """As a model file has it, of so many training images. Raises KeyError, ValueError, TypeError where it does not fit."""
        rows, scales, wanted = tensors[ROWS], header[SCALES], (images, 2 * sum(header["channels"]))
        if rows.shape != wanted or not bool(torch.isfinite(rows).all()):
            raise ValueError(f"statistics of {tuple(rows.shape)}, not {wanted} finite numbers")
        if scales is None:
            return cls(rows)
        kept = tuple(float(one) for one in scales)
        if len(kept) != 4 or not all(map(math.isfinite, kept)) or min(kept[1::2]) <= 0:
            raise ValueError(f"scales {kept}")
        return cls(rows, kept)

    @cached_property
    def gaussian(self) -> Gaussian:
        """Of all rows."""
        return Gaussian.of(self.rows)

    def with_images(self, rows: torch.Tensor) -> GlobalPart:
        """With the statistics (n, d) of more training images behind the others'."""
        return GlobalPart(torch.cat((self.rows, rows.float())), self.scales)

    def without_image(self, number: int) -> GlobalPart:
        """Without those of one training image. Raises DataError where too few would be left."""
        require_enough(len(self.rows) - 1)
        return GlobalPart(torch.cat((self.rows[:number], self.rows[number + 1 :])), self.scales)

    def cross_fitted(self, fold: torch.Tensor) -> torch.Tensor:
        """(k,) float64: each training image's distance from those that are in no fold with it. fold: (k,) int64."""
        found = torch.zeros(len(self.rows), dtype=torch.float64)
        for one in fold.unique().tolist():
            found[fold == one] = Gaussian.of(self.rows[fold != one]).distance(self.rows[fold == one].double())
        return found


def require_enough(images: int) -> None:
    """Raises DataError where ``images`` good images are too few for a global part."""
    if images < FEWEST:
        raise DataError(
            f"`global_part` 'pooled' needs at least {FEWEST} good images, for how they differ. Got {images}. Give more, or use "
            "`global_part` none."
        )
