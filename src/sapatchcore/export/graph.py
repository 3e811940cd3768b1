"""Steps 1 to 9 as one plain graph, from the raw image, without loops or branches over values: what an exported file holds.

We differ from memory/search/exact.py in the order of the work alone: every row of the bank is compared, in slices of fixed size,
so that the memory for an image is bounded. A patch's squared distance to a row is that of its local part and that of its
context, and many patches share one context: the products are taken apart, the context's once for each cell of the coarse grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore.data.pixels import crop_box
from sapatchcore.export.attention import anchored_attention
from sapatchcore.export.enlarge import Enlarge
from sapatchcore.export.reduce import Rows
from sapatchcore.export.resample import Lanczos
from sapatchcore.score.anomaly_score import largest
from sapatchcore.settings import Settings

_PRODUCT = 1 << 24  # numbers of an image's product with the bank in one slice (64 MB)

BOUNDS = ("pixels", "layer2", "layer3")
EMBEDDING = ("local_embedding", "context_embedding")
INNER = (*BOUNDS, *EMBEDDING)

Features = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Graph(torch.nn.Module):
    """images (n, h, w, 3) uint8 → ``facts.OUTPUTS``, then, for who writes the file, ``INNER``.

    These are where the network begins, (n, h, w, 3) uint8, and ends, its two layers, and the embedding, (n, p, c2), (n, r, c3).
    """

    def __init__(
        self,
        features: Features,
        rows: tuple[Rows, Rows],
        cell: torch.Tensor,
        grid: tuple[int, int],
        settings: Settings,
        calibration: np.ndarray | None,
    ) -> None:
        """features: as of Backbone. rows: the bank's local and context part. cell, grid: as of Patches. calibration: (k,)
        scores of good images; without them there is no p_value."""
        super().__init__()
        box = crop_box(settings.resize, settings.crop)
        self.lanczos, self.enlarge = Lanczos(settings.resize, box), Enlarge(grid, settings.resize, box)
        self._features, self._settings = features, settings
        self.local, self.context = rows
        self._grid, self._count = grid, self.local.count
        self._neighbors = min(settings.neighbors, self._count) if settings.image_score == "reweighted" else None
        self.register_buffer("cell", cell)
        good = None if calibration is None else np.sort(calibration)[None]  # (1, k)
        # As threshold.p_values has it for each number of scores that are as high: looked up, since a runtime may divide
        # by multiplying with 1 / (k + 1).
        table = None if good is None else ((1 + np.arange(good.size + 1)) / (good.size + 1)).astype(np.float32)
        for name, values in (("good", good), ("p_values", table)):
            self.register_buffer(name, None if values is None else torch.from_numpy(values))
        self.cell: torch.Tensor
        self.good: torch.Tensor | None
        self.p_values: torch.Tensor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pixels = self.lanczos(images).to(torch.uint8)  # step 1
        layers = self._features(pixels)  # step 2
        local, context = self._embed(*layers)  # steps 3 to 5
        arrays = self.compare(local, context)  # steps 7 and 8
        anomaly_map = self.enlarge(arrays[3], images.shape[1], images.shape[2])  # step 9
        score, *_ = arrays
        known = [] if self.good is None else [self.p_values[(self.good >= score[:, None]).to(torch.int32).sum(1)]]
        return (*arrays, anomaly_map, *known, pixels, *layers, local, context)

    def compare(
        self, local: torch.Tensor, context: torch.Tensor, excluded: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """``EMBEDDING`` → ``facts.SCORES`` and ``facts.GRIDS``. excluded: (m,) bool, rows of the bank that do not count."""
        coarse = _less(self.context.product(context), excluded)  # (n, r, m)
        step = max(1, _PRODUCT // self._count)
        slices = [slice(first, first + step) for first in range(0, len(self.cell), step)]
        # Not argmin, which OpenVINO turns into a stable sort.
        found = [
            (self.local.product(local[:, part]) + coarse.index_select(1, self.cell[part])).topk(
                1, 2, largest=False, sorted=False
            )
            for part in slices
        ]
        row = torch.cat([one.indices[:, :, 0] for one in found], dim=1)  # (n, p)
        context = context.index_select(1, self.cell)
        near, far = self.local.squared(local, row), self.context.squared(context, row)  # step 7: from the differences
        whole, near, far = (near + far).sqrt(), near.sqrt(), far.sqrt()

        score, at = largest(whole)  # step 8
        place = at[:, None]
        parts = [score, near.gather(1, place)[:, 0], far.gather(1, place)[:, 0]]
        if self._neighbors is not None:
            worst = _pick(local, at), _pick(context, at)
            weight = self._weight(score, *worst, row.gather(1, place), self._neighbors, excluded)
            parts = [part * weight for part in parts]
        return (*parts, *(grid.unflatten(1, self._grid) for grid in (whole, near, far, row)))

    def _embed(self, layer2: torch.Tensor, layer3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As to_patches: local (n, p, c2), context (n, r, c3)."""
        settings, sharpen = self._settings, self._settings.temperature**-0.5
        local = F.avg_pool2d(layer2, kernel_size=3, stride=1, padding=1)  # step 3
        if settings.attention == "self":  # step 4
            pooled = F.max_pool2d(layer3, kernel_size=3, stride=1, padding=1)
            context = anchored_attention(pooled * sharpen) / sharpen
        else:
            context = F.avg_pool2d(layer3, kernel_size=3, stride=1, padding=1)
        context = context * settings.context_weight
        return rearrange(local, "n c h w -> n (h w) c"), rearrange(context, "n c h w -> n (h w) c")

    def _weight(
        self,
        score: torch.Tensor,
        local: torch.Tensor,
        context: torch.Tensor,
        row: torch.Tensor,
        k: int,
        excluded: torch.Tensor | None,
    ) -> torch.Tensor:
        """(n,) the weight of "reweighted"; local, context (n, 1, c): the worst patches. row: (n, 1), their nearest ones."""
        match = self.local.product(self.local.rows()[row]) + self.context.product(self.context.rows()[row])
        around = _less(match, excluded)[:, 0].topk(k, dim=1, largest=False).indices  # (n, k)
        distances = (self.local.squared(local, around) + self.context.squared(context, around)).sqrt()
        if excluded is not None:  # fewer than k may be left
            distances = distances.masked_fill(excluded[around], -torch.inf)
        # As neighbourhood_weight; without logsumexp, which the way down to opset 17 does not know.
        return 1 - 1 / (distances - score[:, None]).exp().sum(1).clamp(min=1)


def _less(product: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
    """Without the rows that do not count: nothing is as far as they are."""
    return product if excluded is None else product.masked_fill(excluded, torch.inf)


def _pick(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """x (n, p, c), at (n,) → (n, 1, c)."""
    return x.gather(1, at[:, None, None].expand(-1, 1, x.shape[2]))
