"""Exact search of a large bank in a short copy of it: float16 or int8 rows, and what these leave open in float32.

How far a row b is from its short copy b̂ is known, |b − b̂| ≤ e, so that |x − b̂| ± e holds the true distance. A row whose
lower bound exceeds the smallest upper bound cannot be the nearest; the few others are compared by their float32 numbers, which
may stay in a mapped file.

Boxes (``memory/search/boxes.py``) leave most rows out beforehand: first those around blocks of leaves, then those around the
leaves, so that the bounds of a million rows take little memory.
"""

from __future__ import annotations

import torch

from sapatchcore.memory.search.boxes import Boxes, axes_of, flatten, leaves_of, places_of
from sapatchcore.memory.search.exact import MOST
from sapatchcore.memory.search.shortened import Kind, Shortened

QUERIES = 4096  # queries at a time
TOGETHER = 2048  # pairs of a query and a row that are compared in float32 at a time
PAIRS = 1_000_000  # such pairs that wait at most
OPEN = 4  # open rows of a leaf for one query, beyond which all the leaf's float32 rows are compared at once
_SLACK = 1e-5  # of the squared norms: above float32's rounding in bounds and products


class CompactIndex:
    """Exact search for the single nearest row of a fixed bank on the CPU.

    Beside the bank it keeps the short rows and about 100 bytes for each.
    """

    @torch.inference_mode()
    def __init__(self, bank: torch.Tensor, kind: Kind, groups: torch.Tensor | None = None) -> None:
        """bank: (m, d) float32 on the CPU, m ≥ 1; kept as it is, mapped or not. groups: (m,) int64.

        Raises DataError where the short rows belong on disk and the disk is full.
        """
        self._bank, self._groups = bank, groups
        self._mean = bank.mean(0)
        self._axes = axes_of(bank, self._mean)
        flat = flatten(bank, self._mean, self._axes)
        leaves = leaves_of(flat)
        self._order = torch.cat(leaves)  # (m,) which row of the bank each short one is
        self._boxes = Boxes(flat, leaves)
        self._short = Shortened(bank, self._mean, leaves, kind)
        self._largest = float(self._short.norms.max())

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept beside the bank, in memory or on disk."""
        return self._short.nbytes + self._order.nbytes + self._boxes.nbytes

    @torch.inference_mode()
    def nearest(self, queries: torch.Tensor, excluded: torch.Tensor | None = None) -> torch.Tensor:
        """(q,) int64: the nearest row of the bank for each of the queries (q, d) float32; near-ties may swap.

        excluded: (q,) int64, the group whose rows do not count for a query; some other row must be left.
        """
        parts = queries.split(QUERIES)
        away = [None] * len(parts) if excluded is None else excluded.split(QUERIES)
        return torch.cat([self._search(rows, out) for rows, out in zip(parts, away, strict=True)])

    def _search(self, queries: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
        flat = flatten(queries, self._mean, self._axes)
        asked = _Asked(queries, queries - self._mean, excluded, self._largest)
        # First the leaf whose middle is nearest to each query, which gives a near row; then what that could not rule out.
        first = self._boxes.first(flat)
        for leaf, chosen in places_of(first, len(self._short.errors)):
            self._compare(asked, leaf, chosen)
        for leaf, chosen in self._boxes.within(flat, asked.reach, first):
            self._compare(asked, leaf, chosen)
        self._settle(asked)
        return asked.found

    def _compare(self, asked: _Asked, leaf: int, chosen: torch.Tensor) -> None:
        """Meet the chosen queries with the short rows of a leaf; what they leave open waits for ``_settle``."""
        begin, end, error = self._short.ends[leaf], self._short.ends[leaf + 1], self._short.errors[leaf]
        # |x − b̂|² without |x|²: that is in ``within``, the same for all rows.
        # To pick most of the queries out costs more than to compare the few others for nothing.
        every = len(chosen) > MOST * len(asked.queries)
        chosen = torch.arange(len(asked.queries)) if every else chosen
        points = asked.centred if every else asked.centred[chosen]
        squared = torch.addmm(self._short.norms[begin:end], points, self._short.widened(leaf).T, alpha=-2)
        if asked.excluded is not None and self._groups is not None:
            squared.masked_fill_(self._groups[self._order[begin:end]] == asked.excluded[chosen, None], torch.inf)
        near = squared.amin(1)
        # Infinite where all rows are excluded, as is what is within reach while nothing is known.
        hit = ((near <= asked.within(chosen, error)) & near.isfinite()).nonzero().squeeze(1)
        if not len(hit):
            return
        chosen, points, squared, near = chosen[hit], points[hit], squared[hit], near[hit]
        asked.lower(chosen, near, error)
        still = squared <= asked.within(chosen, error)[:, None]
        many = (still.sum(1) > OPEN).nonzero().squeeze(1)
        if len(many):  # such as a leaf of rows that are all the same
            exact = self._bank[self._order[begin:end]] - self._mean
            products = torch.addmm(exact.square().sum(1), points[many], exact.T, alpha=-2)
            # A few, not the one: products lose digits that the differences will have.
            nearest = products.masked_fill_(~still[many], torch.inf).topk(max(OPEN, 1), largest=False).indices
            still[many] &= torch.zeros_like(still[many]).scatter_(1, nearest, True)
        query, row = still.nonzero().unbind(1)
        if asked.wait(chosen[query], row + begin, squared[query, row], error):
            self._settle(asked)

    def _settle(self, asked: _Asked) -> None:
        """Compare what waits in float32, from the differences themselves."""
        if not asked.waits:
            return
        query, place = asked.open()
        row, order = self._order[place].sort()  # in the order of a mapped file
        query = query[order]
        distances = torch.cat(
            [
                (asked.queries[q] - self._bank[r]).square_().sum(1).sqrt_()
                for q, r in zip(query.split(TOGETHER), row.split(TOGETHER), strict=True)
            ]
        )
        asked.settle(query, row, distances)


class _Asked:
    """Some queries while they are searched for.

    reach: (q,) float32, the squared distance of a box beyond which nothing nearer can be. found: (q,) int64, the nearest row
    of those that were settled.
    """

    def __init__(
        self, queries: torch.Tensor, centred: torch.Tensor, excluded: torch.Tensor | None, largest: float
    ) -> None:
        """centred: the queries (q, d) less the bank's mean. largest: squared norm among the bank's rows."""
        self.queries, self.centred, self.excluded = queries, centred, excluded
        self._norms = centred.square().sum(1)
        self._slack = _SLACK * (self._norms + largest)
        self._upper = torch.full_like(self._norms, torch.inf)  # what the nearest row is away at most
        self._settled = self._upper.clone()
        self.reach = self._upper.clone()
        self.found = torch.zeros(len(queries), dtype=torch.int64)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._pairs = 0

    def within(self, query: torch.Tensor, error: float) -> torch.Tensor:
        """The squared distance, less the query's squared norm, below which a short row leaves open whether it is nearest."""
        return (self._upper[query] + error).square_().add_(self._slack[query]).sub_(self._norms[query])

    def lower(self, query: torch.Tensor, squared: torch.Tensor, error: float) -> None:
        """A short row is so near to each of these queries: nothing farther than its float32 row need be looked at."""
        away = squared.add(self._norms[query]).add_(self._slack[query]).clamp_(min=0).sqrt_().add_(error)
        self._upper[query] = torch.minimum(self._upper[query], away)
        self.reach[query] = self._upper[query].square().add_(self._slack[query])

    def wait(self, query: torch.Tensor, place: torch.Tensor, squared: torch.Tensor, error: float) -> bool:
        """Let pairs of a query and a short row wait to be settled. True where they have become many."""
        least = squared.add(self._norms[query]).sub_(self._slack[query]).clamp_(min=0).sqrt_().sub_(error)
        self._waiting.append((query, place, least))
        self._pairs += len(query)
        return self._pairs > PAIRS

    @property
    def waits(self) -> bool:
        """Whether any pair waits."""
        return bool(self._waiting)

    def open(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the pairs that wait, those that still may be nearest; then none waits."""
        query, place, least = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._pairs = [], 0
        keep = least <= self._upper[query]
        return query[keep], place[keep]

    def settle(self, query: torch.Tensor, row: torch.Tensor, distances: torch.Tensor) -> None:
        """What was compared in float32, (pairs,) each; of equally near rows the first counts."""
        best = self._settled.scatter_reduce(0, query, distances, "amin")
        won = distances == best[query]
        last = torch.full_like(self.found, torch.iinfo(torch.int64).max)
        first = last.scatter_reduce_(0, query[won], row[won], "amin")
        self.found = torch.where(best < self._settled, first, self.found)
        self._settled = best
        self._upper = torch.minimum(self._upper, best)
        torch.add(self._upper.square(), self._slack, out=self.reach)  # in place: a search goes on with it
