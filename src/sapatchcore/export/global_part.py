"""The image as a whole in the graph: pooled statistics, their distance from good images', each place's share, the fused score.

As memory/pooled.py and score/fusion.py, in float32: of a Gaussian only its axes and numbers are constants of the file.
"""

from __future__ import annotations

import torch

from sapatchcore.memory.pooled import GlobalPart
from sapatchcore.score.fusion import HANDICAP


class GlobalPartGraph(torch.nn.Module):
    """Two layers (n, c, h, w) and the patches' own score (n,) → the fused score, and ``metadata.GLOBAL``."""

    def __init__(self, part: GlobalPart, grid: tuple[int, int], cell: torch.Tensor, coarse: int) -> None:
        """part: with its scales. grid, cell: as of Patches. coarse: cells of layer 3."""
        super().__init__()
        gaussian = part.gaussian
        served = torch.bincount(cell, minlength=coarse)
        for name, values in (
            ("mean", gaussian.mean),
            ("axes", gaussian.axes),
            ("along", gaussian.along),
            ("cell", cell),
            ("served", served.float()),
        ):
            self.register_buffer(name, values.float() if values.is_floating_point() else values)
        self.mean: torch.Tensor
        self.axes: torch.Tensor
        self.along: torch.Tensor
        self.cell: torch.Tensor
        self.served: torch.Tensor
        self._scale, self._scales, self._grid = gaussian.scale, part.scales, grid

    def forward(
        self, layer2: torch.Tensor, layer3: torch.Tensor, score: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        statistics, places = [], []
        for layer in (layer2, layer3):
            flat = layer.flatten(2)  # (n, c, N)
            mean = flat.mean(2)
            statistics += [mean, (flat - mean[:, :, None]).square().mean(2).sqrt()]
            places.append(flat)
        away = torch.cat(statistics, 1) - self.mean
        on_axes = away @ self.axes.T
        beside = (
            away - on_axes @ self.axes
        )  # in float32 apart: along an axis on which good images differ much, little is left
        pulled = self._scale * (beside + (on_axes * self.along) @ self.axes)
        squared = beside.square().sum(1) + (on_axes.square() * self.along).sum(1)
        distance = (self._scale * squared).sqrt()
        shares, at = [], 0
        for flat, mean, deviation in zip(places, statistics[::2], statistics[1::2], strict=True):
            c = flat.shape[1]
            usual, usual_deviation = self.mean[at : at + c], self.mean[at + c : at + 2 * c]
            of_square = pulled[:, at + c : at + 2 * c] / (deviation + usual_deviation).clamp(min=1e-24)
            from_mean, spread = flat - usual[:, None], (flat - mean[:, :, None]).square()
            each = pulled[:, at : at + c, None] * from_mean
            each = each + of_square[:, :, None] * (spread - usual_deviation.square()[:, None])
            shares.append(each.sum(1) / flat.shape[2])
            at += 2 * c
        whole = shares[0] + (shares[1] / self.served).index_select(1, self.cell)
        if self._scales is not None:
            begin, tail, global_begin, global_tail = self._scales
            lead = (distance - global_begin) / global_tail - HANDICAP
            score = torch.maximum(score, begin + tail * lead)
        return score, distance, whole.unflatten(1, self._grid)
