"""How a bank is cut for searches: its principal axes, and leaves of rows that lie close together along them."""

from __future__ import annotations

import torch

LEAF = 64  # rows of the bank under one box
AXES = 16  # principal axes of a box
SAMPLE = 20_000  # rows that the axes are found from, evenly over the bank


def axes_of(bank: torch.Tensor, mean: torch.Tensor, most: int = AXES) -> torch.Tensor:
    """(d, axes) orthonormal: nearly the first principal axes of the bank (m, d) less its mean (d,), from SAMPLE rows.

    By subspace iteration (Halko et al. 2011); any orthonormal axes would give valid bounds.
    """
    centred = bank[:: -(-len(bank) // SAMPLE)] - mean
    count, dimensions = min(most, bank.shape[1]), bank.shape[1]
    axes = torch.randn(dimensions, min(2 * count, dimensions), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        axes = torch.linalg.qr(centred.T @ (centred @ axes))[0]
    # Rotated to the principal directions inside this span, largest variance first. In float64: where all rows are equal but for
    # rounding, products of their differences are subnormal in float32, and eigh does not converge.
    inside = (centred @ axes).double()
    _, rotation = torch.linalg.eigh(inside.T @ inside)
    principal: torch.Tensor = axes @ rotation.to(axes.dtype).flip(1)[:, :count]
    return principal


def leaves_of(points: torch.Tensor, most: int = LEAF) -> list[torch.Tensor]:
    """Row numbers in groups of at most ``most``, halved again and again across the widest axis."""
    waiting, leaves = [torch.arange(len(points))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            leaves.append(rows)
            continue
        here = points[rows]
        order = here[:, here.var(0).argmax()].argsort(stable=True)
        half = -(-len(rows) // 2 // most) * most  # whole leaves on the one side
        waiting += [rows[order[half:]], rows[order[:half]]]
    return leaves
