"""Boxes around rows of the bank that lie close together: how both exact searches leave comparisons out (paper step 7).

A box lies along the bank's first principal axes and one more axis for the length of what these leave out. That map shrinks
distances, never stretches them, so the distance to a box is a lower bound for every row in it.
"""

from __future__ import annotations

import torch

LEAF = 64  # rows of the bank under one box
AXES = 16  # principal axes of a box
SAMPLE = 20_000  # rows that the axes are found from, evenly over the bank
ROWS = 4096  # rows that are flattened at a time
BOXES = 16  # boxes that queries are held against at a time


def principal_axes(centred: torch.Tensor, count: int) -> torch.Tensor:
    """(d, count) orthonormal: nearly the first principal axes (Halko et al. 2011). Any orthonormal axes are valid."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(centred.shape[1], min(2 * count, centred.shape[1]), generator=generator)
    for _ in range(3):
        axes = torch.linalg.qr(centred.T @ (centred @ axes))[0]
    # Rotated to the principal directions inside this span, largest variance first.
    _, rotation = torch.linalg.eigh((inside := centred @ axes).T @ inside)
    principal: torch.Tensor = axes @ rotation.flip(1)[:, :count]
    return principal


def axes_of(bank: torch.Tensor, mean: torch.Tensor, most: int = AXES) -> torch.Tensor:
    """(d, axes) orthonormal: nearly the first principal axes of the bank (m, d) less its mean (d,), from SAMPLE rows."""
    return principal_axes(bank[:: -(-len(bank) // SAMPLE)] - mean, min(most, bank.shape[1]))


def flatten(bank: torch.Tensor, mean: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """(q, d) → (q, axes + 1): the coordinates along the axes, and the length of what these leave out."""
    parts = []
    for rows in bank.split(ROWS):
        centred = rows - mean
        along = centred @ axes
        # From the rest itself: a difference of squares would lose half of its digits where little is left out.
        rest = centred.addmm_(along, axes.T, alpha=-1).square_().sum(1).sqrt_()
        parts.append(torch.cat((along, rest[:, None]), dim=1))
    return torch.cat(parts)


def bounds_of(flat: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """(boxes, q): the squared distance from each flat query (q, axes + 1) to each box, low and high (boxes, axes + 1)."""
    parts = []
    for lower, upper in zip(low.split(BOXES), high.split(BOXES), strict=True):
        outside = flat - flat.clamp(lower[:, None], upper[:, None])  # (boxes, q, axes + 1)
        parts.append(torch.linalg.vecdot(outside, outside))
    return torch.cat(parts)


def leaves_of(flat: torch.Tensor, most: int = LEAF) -> list[torch.Tensor]:
    """Row numbers in groups of at most ``most``, halved again and again across the widest axis."""
    waiting, leaves = [torch.arange(len(flat))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            leaves.append(rows)
            continue
        points = flat[rows]
        order = points[:, points.var(0).argmax()].argsort(stable=True)
        half = -(-len(rows) // 2 // most) * most  # whole leaves on the one side
        waiting += [rows[order[half:]], rows[order[:half]]]
    return leaves


def places_of(values: torch.Tensor, count: int) -> list[tuple[int, torch.Tensor]]:
    """The positions at which each of the values 0 to count − 1 stands, for those that occur."""
    sizes = torch.bincount(values, minlength=count).tolist()
    parts = values.argsort(stable=True).split(sizes)
    return [(value, part) for value, part in enumerate(parts) if len(part)]
