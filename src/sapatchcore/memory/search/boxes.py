"""Boxes around rows of the bank that lie close together: how both exact searches leave comparisons out (paper step 7).

A box lies along the bank's first principal axes and one more axis for the length of what these leave out. That map shrinks
distances, never stretches them, so the distance to a box is a lower bound for every row in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

LEAF = 64  # rows of the bank under one box
AXES = 16  # principal axes of a box
SAMPLE = 20_000  # rows that the axes are found from, evenly over the bank
ROWS = 4096  # rows that are flattened at a time
BOXES = 16  # boxes that queries are held against at a time
FAN = 16  # leaves under one outer box
MIDDLES = 4096  # leaves whose middles are compared at a time


class Boxes:
    """A box around each leaf of a bank's rows, and an outer one around each ``FAN`` of them."""

    def __init__(self, flat: torch.Tensor, leaves: Sequence[torch.Tensor]) -> None:
        """flat: (m, axes + 1), the rows as of ``flatten``. leaves: the numbers of their rows."""
        self._low = torch.stack([flat[leaf].amin(0) for leaf in leaves])  # (leaves, axes + 1)
        self._high = torch.stack([flat[leaf].amax(0) for leaf in leaves])
        self._middles = torch.stack([flat[leaf].mean(0) for leaf in leaves])
        self._outer_low = torch.stack([low.amin(0) for low in self._low.split(FAN)])
        self._outer_high = torch.stack([high.amax(0) for high in self._high.split(FAN)])

    @property
    def nbytes(self) -> int:
        parts = (self._low, self._high, self._middles, self._outer_low, self._outer_high)
        return sum(part.nbytes for part in parts)

    def first(self, flat: torch.Tensor) -> torch.Tensor:
        """(q,) int64: the leaf whose middle is nearest to each flat query (q, axes + 1). A near row is likely to be there."""
        near = flat.new_full((len(flat),), torch.inf)
        first = torch.zeros(len(flat), dtype=torch.int64)
        start = 0
        for middles in self._middles.split(MIDDLES):
            values, leaves = torch.addmm(middles.square().sum(1), flat, middles.T, alpha=-2).min(1)
            first = torch.where(values < near, leaves + start, first)
            near = torch.minimum(near, values)
            start += len(middles)
        return first

    def within(
        self, flat: torch.Tensor, reach: torch.Tensor, first: torch.Tensor, less: torch.Tensor | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Each leaf with the queries (q, axes + 1) that may find something nearer in it; those of ``first`` have been there.

        reach: (q,) float32, the squared distance of a box beyond which nothing nearer can be; it may shrink in place between
        one leaf and the next. less: (q,), what is taken from squared distances before they are held against it.
        """
        outer = bounds_of(flat, self._outer_low, self._outer_high)
        if less is not None:
            outer -= less
        for block, bounds in enumerate(outer):
            few = (bounds <= reach).nonzero().squeeze(1)
            if not len(few):
                continue
            leaves = slice(block * FAN, (block + 1) * FAN)
            inner = bounds_of(flat[few], self._low[leaves], self._high[leaves])
            if less is not None:
                inner -= less[few]
            inner[first[few] - leaves.start == torch.arange(len(inner))[:, None]] = torch.inf
            for leaf, near in enumerate(inner, start=leaves.start):
                chosen = few[near <= reach[few]]
                if len(chosen):
                    yield leaf, chosen


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
    flat = bank.new_empty(len(bank), axes.shape[1] + 1)
    buffer = torch.empty_like(bank[:ROWS])
    for rows, out in zip(bank.split(ROWS), flat.split(ROWS), strict=True):
        centred = torch.sub(rows, mean, out=buffer[: len(rows)])
        along = centred @ axes
        # From the rest itself: a difference of squares would lose half of its digits where little is left out.
        out[:, -1] = centred.addmm_(along, axes.T, alpha=-1).square_().sum(1).sqrt_()
        out[:, :-1] = along
    return flat


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
