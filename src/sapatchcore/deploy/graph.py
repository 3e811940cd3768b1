"""Steps 1 to 8 as one plain graph without loops or branches over values: what an ONNX file can hold.

We differ from embed/attention.py and memory/neighbours.py in the order of the work alone: every position is a query,
every row of the bank is compared. Both are cut into slices of fixed size, so that the memory for an image is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore.memory.bank import Bank
from sapatchcore.score.image_score import largest
from sapatchcore.settings import Settings

OUTPUTS = (
    *("score", "local_score", "context_score"),
    *("patch_scores", "local_patches", "context_patches", "neighbours"),
)
_ATTENTION = 1 << 24  # numbers of an image's attention weights in one slice (64 MB); more slices make a slower export
_PRODUCT = 1 << 24  # numbers of an image's product with the bank in one slice (64 MB)

Features = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Graph(torch.nn.Module):
    """images (n, h, w, 3) uint8 → the tensors named by ``OUTPUTS``: three (n,), four (n, gh, gw)."""

    def __init__(
        self, features: Features, bank: Bank, cell: torch.Tensor, settings: Settings, neighbors: int | None
    ) -> None:
        """features: as of Backbone. cell: (p,) as of Patches. neighbors: of the reweighted image score; None for "max"."""
        super().__init__()
        self._features, self._grid, self._attention = features, bank.grid, settings.attention
        self._sharpen, self._weight = settings.temperature**-0.5, settings.context_weight
        self._neighbors = None if neighbors is None else min(neighbors, len(bank.rows))
        mean = bank.rows.mean(0)
        self.register_buffer("rows", bank.rows)
        self.register_buffer("mean", mean)
        self.register_buffer("norms", (bank.rows - mean).square().sum(1))
        self.register_buffer("cell", cell)
        self.rows: torch.Tensor
        self.mean: torch.Tensor
        self.norms: torch.Tensor
        self.cell: torch.Tensor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        layer2, layer3 = self._features(images)  # steps 1 and 2
        local = F.avg_pool2d(layer2, kernel_size=3, stride=1, padding=1)  # step 3
        if self._attention == "self":  # step 4
            pooled = F.max_pool2d(layer3, kernel_size=3, stride=1, padding=1)
            context = plain_attention(pooled * self._sharpen) / self._sharpen
        else:
            context = F.avg_pool2d(layer3, kernel_size=3, stride=1, padding=1)
        local = rearrange(local, "n c h w -> n (h w) c")
        context = rearrange(context * self._weight, "n c h w -> n (h w) c")[:, self.cell]
        patches = torch.cat((local, context), dim=2)  # step 5: (n, p, d)

        step = max(1, _PRODUCT // len(self.rows))
        found = torch.cat([self._product(part).argmin(2) for part in patches.split(step, dim=1)], dim=1)
        squared = (patches - self.rows[found]).square()  # step 7: from the differences, as Bank.compare
        channels = local.shape[2]
        near, far = squared[:, :, :channels].sum(2), squared[:, :, channels:].sum(2)
        whole, near, far = (near + far).sqrt(), near.sqrt(), far.sqrt()

        score, at = largest(whole)  # step 8
        place = at[:, None]
        parts = [score, near.gather(1, place)[:, 0], far.gather(1, place)[:, 0]]
        if self._neighbors is not None:
            worst = patches.gather(1, place[:, :, None].expand(-1, 1, patches.shape[2]))  # (n, 1, d)
            match = self.rows[found.gather(1, place)]  # (n, 1, d)
            around = self._product(match)[:, 0].topk(self._neighbors, dim=1, largest=False).indices  # (n, k)
            distances = (worst - self.rows[around]).square().sum(2).sqrt()
            # As neighbourhood_weight; without logsumexp, which the way down to opset 17 does not know.
            weight = 1 - 1 / (distances - score[:, None]).exp().sum(1).clamp(min=1)
            parts = [part * weight for part in parts]
        return (*parts, *(grid.unflatten(1, self._grid) for grid in (whole, near, far, found)))

    def _product(self, queries: torch.Tensor) -> torch.Tensor:
        """(n, q, d) → (n, q, m): squared distance to each row of the bank, less a number that is the query's own."""
        # |q − b|² with both centred; only q needs to be: (q − mean)·mean is the same for every row.
        flat = (queries - self.mean).flatten(0, 1)
        product = F.linear(-2 * flat, self.rows, self.norms)
        return rearrange(product, "(n q) m -> n q m", q=queries.shape[1])


def plain_attention(x: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) float32 → the same: out[i] = Σ_j softmax_j(x[i]·x[j]) · x[j] for each channel by itself."""
    rows = rearrange(x, "n c h w -> n c (h w)")
    step = max(1, _ATTENTION // rows.shape[2] ** 2)
    mixed = []
    for part in rows.split(step, dim=1):
        weights = torch.softmax(part[:, :, :, None] * part[:, :, None, :], dim=3)
        mixed.append((weights @ part[:, :, :, None])[:, :, :, 0])
    return rearrange(torch.cat(mixed, dim=1), "n c (h w) -> n c h w", h=x.shape[2])
