"""Steps 1 to 9 as one plain graph, from the raw image, without loops or branches over values: what an exported file holds.

We differ from memory/search/exact.py only in the order of the work: every row of the bank is compared, in slices of fixed size,
so that the memory for an image is bounded. A patch's squared distance to a row is that of its local part plus that of its
context, and many patches share one context: the products are computed apart, the context's once for each cell of the coarse
grid.

The bank may be held in a shorter number format. Distances are float32 all the same, to the very numbers that the file holds.
With int8 rows the nearest row is searched in whole numbers, which processors multiply several times faster.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - it registers torch.ops.quantized_decomposed

from sapatchcore.data.pixels import crop_box
from sapatchcore.embed.whitening import Whitening
from sapatchcore.export.attention import anchored_attention
from sapatchcore.export.global_part import GlobalPartGraph
from sapatchcore.export.metadata import GLOBAL, OUTPUTS
from sapatchcore.export.resample import Enlarge, Lanczos
from sapatchcore.score.anomaly_score import largest
from sapatchcore.settings import Settings

BOUNDS = ("pixels", "layer2", "layer3")
EMBEDDING = ("local_embedding", "context_embedding")
INNER = (*BOUNDS, *EMBEDDING)

FORMATS = ("float32", "float16", "bfloat16", "int8")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_STEPS = 127  # of an int8 on either side of 0
_PRODUCT = 1 << 24  # numbers of an image's product with the bank in one slice (64 MB)

Features = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Graph(torch.nn.Module):
    """images (n, h, w, 3) uint8 → ``metadata.OUTPUTS``, then, for the code that writes the file, ``INNER``.

    INNER is where the network begins, (n, h, w, 3) uint8, and ends, its two layers, and the embedding, (n, p, c2), (n, r, c3).
    """

    def __init__(
        self,
        features: Features,
        rows: tuple[BankPart, BankPart],
        cell: torch.Tensor,
        grid: tuple[int, int],
        settings: Settings,
        calibration: np.ndarray | None,
        whitening: Whitening | None = None,
        global_part: GlobalPartGraph | None = None,
    ) -> None:
        """features: as of Backbone. rows: the bank's local and context part. cell, grid: as of Patches. calibration: (k,)
        scores of good images; None leaves p_value out. whitening: what both parts of a patch are multiplied by. global_part:
        None leaves ``metadata.GLOBAL`` out."""
        super().__init__()
        box = crop_box(settings.resize, settings.crop)
        self.lanczos, self.enlarge = Lanczos(settings.resize, box), Enlarge(grid, settings.resize, box)
        self._features, self._settings = features, settings
        self.local, self.context = rows
        self.global_part = global_part
        self.grid, self._count = grid, self.local.count
        self._neighbors = min(settings.neighbors, self._count) if settings.image_score == "reweighted" else None
        self.register_buffer("cell", cell)
        for name in ("local", "context"):
            self.register_buffer(f"whiten_{name}", None if whitening is None else getattr(whitening, name))
        self.whiten_local: torch.Tensor | None
        self.whiten_context: torch.Tensor
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
        (score, *others), of_whole, inner = self.inspect(pixels)  # steps 2 to 8
        anomaly_map = self.enlarge(others[2], images.shape[1], images.shape[2])  # step 9
        return (score, *others, anomaly_map, *self.p_value(score), *of_whole, pixels, *inner)

    def inspect(self, pixels: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], ...]:
        """What the network sees, (n, h, w, 3) uint8 → ``metadata.SCORES`` and ``GRIDS``; ``GLOBAL``; ``INNER`` less the first."""
        layers = self._features(pixels)  # step 2
        local, context = self._embed(*layers)  # steps 3 to 5
        score, *others = self.compare(local, context)  # steps 7 and 8
        of_whole: list[torch.Tensor] = []
        if self.global_part is not None:  # beyond the paper
            score, *of_whole = self.global_part(*layers, score)
        return (score, *others), tuple(of_whole), (*layers, local, context)

    def p_value(self, score: torch.Tensor) -> list[torch.Tensor]:
        """(n,) scores → their p-values; none without calibration."""
        return [] if self.good is None else [self.p_values[(self.good >= score[:, None]).to(torch.int32).sum(1)]]

    inner = INNER  # what it gives behind ``outputs``, by name

    @property
    def outputs(self) -> list[str]:
        """The names of what it gives, without ``INNER``."""
        left_out = {"p_value": self.good is None, **dict.fromkeys(GLOBAL, self.global_part is None)}
        return [name for name in OUTPUTS if not left_out.get(name)]

    def compare(
        self, local: torch.Tensor, context: torch.Tensor, excluded: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """``EMBEDDING`` → ``metadata.SCORES`` and ``metadata.GRIDS``. excluded: (m,) bool, rows of the bank that do not count."""
        coarse = _without(self.context.product(context), excluded)  # (n, r, m)
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
        # Step 7: from the differences.
        local_squared, context_squared = self.local.squared(local, row), self.context.squared(context, row)
        patch_scores = (local_squared + context_squared).sqrt()
        local_patches, context_patches = local_squared.sqrt(), context_squared.sqrt()

        parts, at = self.image_scores(patch_scores, local_squared, context_squared)  # step 8
        if self._neighbors is not None:
            patch = _pick(local, at), _pick(context, at)
            weight = self._weight(parts[0], *patch, row.gather(1, at[:, None]), self._neighbors, excluded)
            parts = [part * weight for part in parts]
        grids = (patch_scores, local_patches, context_patches, row)
        return (*parts, *(grid.unflatten(1, self.grid) for grid in grids))

    def image_scores(
        self, patch_scores: torch.Tensor, *squares: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """``metadata.SCORES`` of patch scores and their two squared parts, (n, p) each, and the worst patch, (n,)."""
        if self._settings.image_score == "smoothed":
            score, at = largest(self._smoothed(patch_scores))
            shares = [self._smoothed(square).gather(1, at[:, None])[:, 0] for square in squares]
            total = (shares[0] + shares[1]).clamp(min=1e-30)
            return [score, *(score * (share / total).sqrt() for share in shares)], at
        score, at = largest(patch_scores)
        return [score, *(square.gather(1, at[:, None])[:, 0].sqrt() for square in squares)], at

    def _smoothed(self, cells: torch.Tensor) -> torch.Tensor:
        """(n, p) → (n, p): the mean over 3×3 cells, of those in the grid."""
        grid = cells.unflatten(1, self.grid)[:, None]
        return F.avg_pool2d(grid, kernel_size=3, stride=1, padding=1, count_include_pad=False).flatten(1)

    def _embed(self, layer2: torch.Tensor, layer3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As to_patches: local (n, p, c2), context (n, r, c3)."""
        settings = self._settings
        local = F.avg_pool2d(layer2, kernel_size=3, stride=1, padding=1)  # step 3
        if settings.attention == "self":  # step 4
            pooled, sharpen = (
                F.max_pool2d(layer3, kernel_size=3, stride=1, padding=1),
                float(settings.temperature) ** -0.5,
            )
            context = anchored_attention(pooled * sharpen) / sharpen
        else:
            context = F.avg_pool2d(layer3, kernel_size=3, stride=1, padding=1)
        context = context * settings.context_weight
        parts = rearrange(local, "n c h w -> n (h w) c"), rearrange(context, "n c h w -> n (h w) c")
        return parts if self.whiten_local is None else (parts[0] @ self.whiten_local, parts[1] @ self.whiten_context)

    def _weight(
        self,
        score: torch.Tensor,
        local: torch.Tensor,
        context: torch.Tensor,
        row: torch.Tensor,
        k: int,
        excluded: torch.Tensor | None,
    ) -> torch.Tensor:
        """(n,) the weight of "reweighted"; local, context (n, 1, c): the worst patches. row: (n, 1), their nearest rows."""
        match = self.local.product(self.local.rows()[row]) + self.context.product(self.context.rows()[row])
        around = _without(match, excluded)[:, 0].topk(k, dim=1, largest=False).indices  # (n, k)
        distances = (self.local.squared(local, around) + self.context.squared(context, around)).sqrt()
        if excluded is not None:  # fewer than k may be left
            distances = distances.masked_fill(excluded[around], -torch.inf)
        # As neighbourhood_weight; without logsumexp, which the converter to opset 17 does not know.
        return 1 - 1 / (distances - score[:, None]).exp().sum(1).clamp(min=1)


class BankPart(torch.nn.Module):
    """One part of the memory bank, local or context, in one of ``FORMATS``."""

    def __init__(self, rows: torch.Tensor, precision: str) -> None:
        """rows: (m, c) float32. int8: each column is scaled by its own largest value."""
        super().__init__()
        kept, scale = _in_format(rows, precision)
        self.register_buffer("kept", kept)
        self.register_buffer("scale", scale)
        self.kept: torch.Tensor
        self.scale: torch.Tensor | None
        self.count = len(rows)
        full = self.rows()
        mean = full.mean(0)
        self.register_buffer("mean", mean)
        self.register_buffer("norms", (full - mean).square().sum(1))
        self.mean: torch.Tensor
        self.norms: torch.Tensor

    def rows(self) -> torch.Tensor:
        """(m, c) float32: the numbers that distances are taken to."""
        full: torch.Tensor = self.kept.float()
        return full if self.scale is None else full * self.scale

    def product(self, queries: torch.Tensor) -> torch.Tensor:
        """(n, q, c) → (n, q, m): the squared distance to each row, up to a number that depends on the query alone."""
        # |q − b|² with both centred; only q needs to be: (q − mean)·mean is the same for every row.
        centred = queries - self.mean
        if self.scale is not None:
            return self._integer_product(centred * self.scale)
        found: torch.Tensor = F.linear(-2 * centred.flatten(0, 1), self.rows(), self.norms).unflatten(
            0, queries.shape[:2]
        )
        return found

    def _integer_product(self, scaled: torch.Tensor) -> torch.Tensor:
        """From queries whose columns are scaled as the rows are: the product of int8 numbers, whole numbers below 2²⁴.

        Each query is divided by its own largest number, so that no image lies outside the range. Written as the two conversions
        with a product between them, the form in which both runtimes recognise an int8 product.
        """
        ops = torch.ops.quantized_decomposed
        top = scaled.abs().amax(2, keepdim=True).clamp(min=1e-30)
        whole = ops.quantize_per_tensor(scaled / top, 1 / _STEPS, 0, -_STEPS, _STEPS, torch.int8)
        whole = ops.dequantize_per_tensor(whole, 1 / _STEPS, 0, -_STEPS, _STEPS, torch.int8)
        rows = ops.dequantize_per_tensor(self.kept, 1.0, 0, -_STEPS, _STEPS, torch.int8)
        found: torch.Tensor = self.norms - 2 * top * (whole @ rows.T)
        return found

    def squared(self, queries: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """queries (n, q, c) or (n, 1, c), row (n, q) → (n, q) squared distances to these rows, from the differences."""
        chosen = self.kept[row].float()
        return (queries - (chosen if self.scale is None else chosen * self.scale)).square().sum(2)


def _in_format(rows: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """rows (m, c) float32 in ``precision``, and for int8 the scale (c,) that brings them back."""
    if precision != "int8":
        return rows.to(_DTYPES[precision]), None
    scale = rows.abs().amax(0).clamp(min=1e-30) / _STEPS
    return torch.round(rows / scale).to(torch.int8), scale


def _without(product: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
    """Rows that do not count become infinitely far."""
    return product if excluded is None else product.masked_fill(excluded, torch.inf)


def _pick(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """x (n, p, c), at (n,) → (n, 1, c)."""
    return x.gather(1, at[:, None, None].expand(-1, 1, x.shape[2]))
