"""Shorter number formats: of the memory bank here, inside the graph; of the network, in what the exporter wrote.

The file holds fewer bytes; all arithmetic of distances stays in float32, from the very numbers that the file holds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from sapatchcore.memory.bank import Bank

FORMATS = ("float32", "float16", "bfloat16", "int8")
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
        flat = (queries - self.mean).flatten(0, 1)
        found: torch.Tensor = F.linear(-2 * flat, self.rows(), self.norms).unflatten(0, queries.shape[:2])
        return found

    def squared(self, queries: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """queries (n, q, c) or (n, 1, c), row (n, q) → (n, q) squared distances to these rows, from the differences."""
        chosen = self.kept[row].float()
        return (queries - (chosen if self.scale is None else chosen * self.scale)).square().sum(2)


def reduced_bank(bank: Bank, precision: str, channels: int) -> Bank:
    """The bank whose rows are the numbers that the file holds. channels: of the local part."""
    if precision == "float32":
        return bank
    parts = [Rows(part, precision).rows() for part in (bank.rows[:, :channels], bank.rows[:, channels:])]
    return replace(bank, rows=torch.cat(parts, dim=1))


def reduced(rows: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """rows (m, c) float32 in ``precision``, and for int8 the scale (c,) that brings them back."""
    if precision != "int8":
        return rows.to(_DTYPES[precision]), None
    scale = rows.abs().amax(0).clamp(min=1e-30) / 127
    return torch.round(rows / scale).to(torch.int8), scale
