"""Shorter number formats: of the memory bank here, inside the graph; of the network, in what the exporter wrote.

The file holds fewer bytes; distances are float32, taken from the very numbers that the file holds. With int8 rows, which row is
nearest is looked for in whole numbers, which processors multiply several times faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - it registers torch.ops.quantized_decomposed

FORMATS = ("float32", "float16", "bfloat16", "int8")
_STEPS = 127  # of an int8 on either side of 0
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Rows(torch.nn.Module):
    """One part of the memory bank, local or context, in one of ``FORMATS``."""

    def __init__(self, rows: torch.Tensor, precision: str) -> None:
        """rows: (m, c) float32. int8: each column is scaled by its own largest value."""
        super().__init__()
        kept, scale = reduced(rows, precision)
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
        """(n, q, c) → (n, q, m): squared distance to each row, less a number that is the query's own."""
        # |q − b|² with both centred; only q needs to be: (q − mean)·mean is the same for every row.
        centred = queries - self.mean
        if self.scale is not None:
            return self._whole_product(centred * self.scale)
        found: torch.Tensor = F.linear(-2 * centred.flatten(0, 1), self.rows(), self.norms).unflatten(
            0, queries.shape[:2]
        )
        return found

    def _whole_product(self, scaled: torch.Tensor) -> torch.Tensor:
        """From queries whose columns are scaled as the rows are: the product of int8 numbers, whole numbers below 2²⁴.

        Each query by its own largest number, so that no image lies outside the range. Written as the two conversions with a
        product between them, which is how both runtimes know an int8 product.
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


def reduced(rows: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """rows (m, c) float32 in ``precision``, and for int8 the scale (c,) that brings them back."""
    if precision != "int8":
        return rows.to(_DTYPES[precision]), None
    scale = rows.abs().amax(0).clamp(min=1e-30) / _STEPS
    return torch.round(rows / scale).to(torch.int8), scale
