"""The nearest patch of the memory bank, exactly, with most comparisons left out (paper step 7).

A bounding box around rows that lie close together (a leaf), when it is farther away than the nearest row found so far, cannot
hold a nearer one. A box lies along the bank's first principal axes and one more for the length of what these leave out. That
map shrinks distances, never stretches them, so the distance to a box is a lower bound for every row in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sapatchcore.memory.search.brute_force import QUERIES, nearest
from sapatchcore.memory.search.leaves import LEAF, axes_of, leaves_of

MOST = 0.6  # share of the queries above which a leaf meets all of them: to pick most of them out costs more
ROWS = 4096  # rows whose coordinates are taken at a time
BOXES = 16  # boxes that queries are held against at a time
FAN = 16  # leaves under one outer box
CENTRES = 4096  # leaves whose centres are compared at a time
_SLACK = 1e-5  # of the squared norms: above float32's rounding in bounds and products


class ExactIndex:
    """Exact search for the single nearest row of a fixed bank, made for banks of thousands of rows on a CPU."""

    @torch.inference_mode()
    def __init__(self, bank: torch.Tensor, groups: torch.Tensor | None = None) -> None:
        """bank: (m, d) float32; kept, and copied once in the order of the leaves where boxes are used. groups: (m,) int64."""
        self.bank, self._groups = bank, groups
        # Other devices do the whole product faster than they could decide what to leave out.
        self._boxed = bank.device.type == "cpu" and len(bank) > 4 * LEAF
        if not self._boxed:
            return
        self._mean = bank.mean(0)
        self._axes = axes_of(bank, self._mean)
        points = coordinates(bank, self._mean, self._axes)
        self._leaves = leaves_of(points)
        self._boxes = BoundingBoxes(points, self._leaves)
        # As one piece of memory each: leaf by leaf, what is freed between them would be too small to be used again.
        sizes = [len(leaf) for leaf in self._leaves]
        self._rows = bank[torch.cat(self._leaves)].sub_(self._mean).split(sizes)
        norms = bank.new_empty(len(bank))
        self._norms = norms.split(sizes)
        for rows, out in zip(self._rows, self._norms, strict=True):
            torch.sum(rows.square(), 1, out=out)
        self._slack = _SLACK * float(norms.max())

    @torch.inference_mode()
    def nearest(self, queries: torch.Tensor, excluded: torch.Tensor | None = None) -> torch.Tensor:
        """(q,) int64: the nearest row of the bank for each of the queries (q, d) float32; near-ties may swap.

        excluded: (q,) int64, the group whose rows do not count for a query; some other row must be left.
        """
        if not self._boxed:
            return nearest(queries, self.bank, 1, excluded, self._groups)[1][:, 0]
        parts = queries.split(QUERIES)
        out = [None] * len(parts) if excluded is None else excluded.split(QUERIES)
        return torch.cat([self._search(*part) for part in zip(parts, out, strict=True)])

    def _search(self, queries: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
        points = coordinates(queries, self._mean, self._axes)
        search = _Search(queries - self._mean, excluded, self._slack)
        # First each query's most promising leaf, which gives a near row; then what that could not rule out.
        first = self._boxes.first(points)
        for leaf, chosen in positions_of(first, len(self._leaves)):
            self._compare(search, leaf, chosen)
        for leaf, chosen in self._boxes.within(points, search.best, first, search.offset):
            self._compare(search, leaf, chosen)
        return search.found

    def _compare(self, search: _Search, leaf: int, chosen: torch.Tensor) -> None:
        """Compare the chosen queries with all rows of a leaf."""
        every = len(chosen) > MOST * len(search.queries)
        queries = search.queries if every else search.queries[chosen]
        squared = torch.addmm(self._norms[leaf], queries, self._rows[leaf].T, alpha=-2)
        if search.excluded is not None and self._groups is not None:
            excluded = search.excluded if every else search.excluded[chosen]
            squared.masked_fill_(self._groups[self._leaves[leaf]] == excluded[:, None], torch.inf)
        values, indices = squared.min(1)
        nearer = (values < (search.best if every else search.best[chosen])).nonzero().squeeze(1)
        index = nearer if every else chosen[nearer]
        search.best[index] = values[nearer]
        search.found[index] = self._leaves[leaf][indices[nearer]]


class _Search:
    """Some queries while they are searched for.

    queries: (q, d), less the bank's mean. best: (q,) float32, squared distance of the nearest row so far, less the query's own
    squared norm. offset: (q,), that norm and what rounding may add. found: (q,) int64, the nearest row so far.
    """

    def __init__(self, queries: torch.Tensor, excluded: torch.Tensor | None, slack: float) -> None:
        """slack: what rounding may add to a squared distance, of the bank's largest row."""
        self.queries, self.excluded = queries, excluded
        norms = queries.square().sum(1)
        self.best = torch.full_like(norms, torch.inf)
        self.offset = norms * (1 + _SLACK) + slack
        self.found = torch.zeros(len(queries), dtype=torch.int64)


class BoundingBoxes:
    """A bounding box around each leaf of a bank's rows, and an outer one around each ``FAN`` of them."""

    def __init__(self, points: torch.Tensor, leaves: Sequence[torch.Tensor]) -> None:
        """points: (m, axes + 1), the rows as of ``coordinates``. leaves: their row numbers."""
        self._low = torch.stack([points[leaf].amin(0) for leaf in leaves])  # (leaves, axes + 1)
        self._high = torch.stack([points[leaf].amax(0) for leaf in leaves])
        self._centres = torch.stack([points[leaf].mean(0) for leaf in leaves])
        self._outer_low = torch.stack([low.amin(0) for low in self._low.split(FAN)])
        self._outer_high = torch.stack([high.amax(0) for high in self._high.split(FAN)])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in vars(self).values())

    def first(self, points: torch.Tensor) -> torch.Tensor:
        """(q,) int64: the leaf whose centre is nearest to each query (q, axes + 1). A near row is likely to be there."""
        best = points.new_full((len(points),), torch.inf)
        first = torch.zeros(len(points), dtype=torch.int64)
        start = 0
        for centres in self._centres.split(CENTRES):
            values, leaves = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2).min(1)
            first = torch.where(values < best, leaves + start, first)
            best = torch.minimum(best, values)
            start += len(centres)
        return first

    def within(
        self, points: torch.Tensor, reach: torch.Tensor, first: torch.Tensor, offset: torch.Tensor | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Each leaf with the queries (q, axes + 1) that may find something nearer in it; those of ``first`` have been there.

        reach: (q,) float32, the squared distance of a box beyond which nothing nearer can be; it may shrink in place between
        one leaf and the next. offset: (q,), taken from squared distances before they are compared with it.
        """
        outer = lower_bounds(points, self._outer_low, self._outer_high)
        if offset is not None:
            outer -= offset
        for block, bounds in enumerate(outer):
            few = (bounds <= reach).nonzero().squeeze(1)
            if not len(few):
                continue
            leaves = slice(block * FAN, (block + 1) * FAN)
            inner = lower_bounds(points[few], self._low[leaves], self._high[leaves])
            if offset is not None:
                inner -= offset[few]
            inner[first[few] - leaves.start == torch.arange(len(inner))[:, None]] = torch.inf
            for leaf, near in enumerate(inner, start=leaves.start):
                chosen = few[near <= reach[few]]
                if len(chosen):
                    yield leaf, chosen


def coordinates(rows: torch.Tensor, mean: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """(q, d) → (q, axes + 1): the coordinates along the axes, and the length of what these leave out."""
    points = rows.new_empty(len(rows), axes.shape[1] + 1)
    buffer = torch.empty_like(rows[:ROWS])
    for some, out in zip(rows.split(ROWS), points.split(ROWS), strict=True):
        centred = torch.sub(some, mean, out=buffer[: len(some)])
        along = centred @ axes
        # From the rest itself: a difference of squares would lose half of its digits where little is left out.
        out[:, -1] = centred.addmm_(along, axes.T, alpha=-1).square_().sum(1).sqrt_()
        out[:, :-1] = along
    return points


def lower_bounds(points: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """(boxes, q): the squared distance from each query (q, axes + 1) to each box, low and high (boxes, axes + 1)."""
    parts = []
    for lower, upper in zip(low.split(BOXES), high.split(BOXES), strict=True):
        outside = points - points.clamp(lower[:, None], upper[:, None])  # (boxes, q, axes + 1)
        parts.append(torch.linalg.vecdot(outside, outside))
    return torch.cat(parts)


def positions_of(values: torch.Tensor, count: int) -> list[tuple[int, torch.Tensor]]:
    """The positions at which each of the values 0 to count − 1 stands, for those that occur."""
    sizes = torch.bincount(values, minlength=count).tolist()
    parts = values.argsort(stable=True).split(sizes)
    return [(value, part) for value, part in enumerate(parts) if len(part)]
