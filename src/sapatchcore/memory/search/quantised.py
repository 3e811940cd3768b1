"""Exact search of a large bank in a quantised copy of it: float16 or int8 rows, and what these leave open in float32.

How far a row b is from its copy b̂ is known, |b − b̂| ≤ e, so that |x − b̂| ± e holds the true distance. A row whose
lower bound exceeds the smallest upper bound cannot be the nearest; the few others are compared by their float32 numbers, which
may stay in a mapped file. Bounding boxes (``exact.py``) leave most rows out beforehand: first those around blocks of leaves, then
those around the leaves, so that the bounds of a million rows take little memory.

A copy is the mean of its leaf plus a short number for each difference from that, times the row's own scale: rows of a leaf
lie close together, so that little is lost, and none is too large for float16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Literal

import numpy as np
import torch

from sapatchcore.memory.search.exact import MOST, BoundingBoxes, coordinates, positions_of
from sapatchcore.memory.search.leaves import axes_of, leaves_of
from sapatchcore.memory.spill import write_whole

Kind = Literal["float16", "int8"]

QUERIES = 4096  # queries at a time
TOGETHER = 2048  # pairs of a query and a row that are compared in float32 at a time
PAIRS = 1_000_000  # such pairs that wait at most
OPEN = 4  # open rows of a leaf for one query, beyond which all the leaf's float32 rows are compared at once
_SLACK = 1e-5  # of the squared norms: above float32's rounding in bounds and products
ON_DISK = (
    256_000_000  # bytes from which quantised rows are mapped from a temporary file, so that the system may drop them
)
_DTYPES: dict[Kind, torch.dtype] = {"float16": torch.float16, "int8": torch.int8}
# What the largest difference of a row becomes: far from float16's ends at 65504 and 6e-5.
_LARGEST: dict[Kind, float] = {"float16": 128.0, "int8": 127.0}
_ROUNDING = 1 + 1e-5  # above float32's, in the norm of an error


class QuantisedIndex:
    """Exact search for the single nearest row of a fixed bank on the CPU.

    Beside the bank it keeps the quantised rows and about 100 bytes for each.
    """

    @torch.inference_mode()
    def __init__(self, bank: torch.Tensor, kind: Kind, groups: torch.Tensor | None = None) -> None:
        """bank: (m, d) float32 on the CPU, m ≥ 1; kept as it is, mapped or not. groups: (m,) int64.

        Raises DataError where the quantised rows belong on disk and the disk is full.
        """
        self._bank, self._groups = bank, groups
        self._mean = bank.mean(0)
        self._axes = axes_of(bank, self._mean)
        points = coordinates(bank, self._mean, self._axes)
        leaves = leaves_of(points)
        self._order = torch.cat(leaves)  # (m,) which row of the bank each quantised one is
        self._boxes = BoundingBoxes(points, leaves)
        self._copies = QuantisedRows(bank, self._mean, leaves, kind)
        self._largest = float(self._copies.norms.max())

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept beside the bank, in memory or on disk."""
        return self._copies.nbytes + self._order.nbytes + self._boxes.nbytes

    @torch.inference_mode()
    def nearest(self, queries: torch.Tensor, excluded: torch.Tensor | None = None) -> torch.Tensor:
        """(q,) int64: the nearest row of the bank for each of the queries (q, d) float32; near-ties may swap.

        excluded: (q,) int64, the group whose rows do not count for a query; some other row must be left.
        """
        parts = queries.split(QUERIES)
        away = [None] * len(parts) if excluded is None else excluded.split(QUERIES)
        return torch.cat([self._search(rows, out) for rows, out in zip(parts, away, strict=True)])

    def _search(self, queries: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
        points = coordinates(queries, self._mean, self._axes)
        search = _QuantisedSearch(queries, queries - self._mean, excluded, self._largest)
        # First the leaf whose middle is nearest to each query, which gives a near row; then what that could not rule out.
        first = self._boxes.first(points)
        for leaf, chosen in positions_of(first, len(self._copies.errors)):
            self._compare(search, leaf, chosen)
        for leaf, chosen in self._boxes.within(points, search.reach, first):
            self._compare(search, leaf, chosen)
        self._settle(search)
        return search.found

    def _compare(self, search: _QuantisedSearch, leaf: int, chosen: torch.Tensor) -> None:
        """Meet the chosen queries with the quantised rows of a leaf; what they leave open waits for ``_settle``."""
        begin, end, error = self._copies.ends[leaf], self._copies.ends[leaf + 1], self._copies.errors[leaf]
        # |x − b̂|² without |x|²: that is in ``within``, the same for all rows.
        # To pick most of the queries out costs more than to compare the few others for nothing.
        every = len(chosen) > MOST * len(search.queries)
        chosen = torch.arange(len(search.queries)) if every else chosen
        points = search.centred if every else search.centred[chosen]
        squared = torch.addmm(self._copies.norms[begin:end], points, self._copies.restored(leaf).T, alpha=-2)
        if search.excluded is not None and self._groups is not None:
            squared.masked_fill_(self._groups[self._order[begin:end]] == search.excluded[chosen, None], torch.inf)
        near = squared.amin(1)
        # Infinite where all rows are excluded, as is what is within reach while nothing is known.
        hit = ((near <= search.within(chosen, error)) & near.isfinite()).nonzero().squeeze(1)
        if not len(hit):
            return
        chosen, points, squared, near = chosen[hit], points[hit], squared[hit], near[hit]
        search.lower(chosen, near, error)
        still = squared <= search.within(chosen, error)[:, None]
        many = (still.sum(1) > OPEN).nonzero().squeeze(1)
        if len(many):  # such as a leaf of rows that are all the same
            exact = self._bank[self._order[begin:end]] - self._mean
            products = torch.addmm(exact.square().sum(1), points[many], exact.T, alpha=-2)
            # A few, not the one: products lose digits that the differences will have.
            nearest = products.masked_fill_(~still[many], torch.inf).topk(max(OPEN, 1), largest=False).indices
            still[many] &= torch.zeros_like(still[many]).scatter_(1, nearest, True)
        query, row = still.nonzero().unbind(1)
        if search.wait(chosen[query], row + begin, squared[query, row], error):
            self._settle(search)

    def _settle(self, search: _QuantisedSearch) -> None:
        """Compare what waits in float32, from the differences themselves."""
        if not search.waits:
            return
        query, place = search.open()
        row, order = self._order[place].sort()  # in the order of a mapped file
        query = query[order]
        distances = torch.cat(
            [
                (search.queries[q] - self._bank[r]).square_().sum(1).sqrt_()
                for q, r in zip(query.split(TOGETHER), row.split(TOGETHER), strict=True)
            ]
        )
        search.settle(query, row, distances)


class _QuantisedSearch:
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
        """The squared distance, less the query's squared norm, below which a quantised row leaves open whether it is nearest."""
        return (self._upper[query] + error).square_().add_(self._slack[query]).sub_(self._norms[query])

    def lower(self, query: torch.Tensor, squared: torch.Tensor, error: float) -> None:
        """A quantised row is so near to each of these queries: nothing farther than its float32 row need be looked at."""
        away = squared.add(self._norms[query]).add_(self._slack[query]).clamp_(min=0).sqrt_().add_(error)
        self._upper[query] = torch.minimum(self._upper[query], away)
        self.reach[query] = self._upper[query].square().add_(self._slack[query])

    def wait(self, query: torch.Tensor, place: torch.Tensor, squared: torch.Tensor, error: float) -> bool:
        """Let pairs of a query and a quantised row wait to be settled. True where they have become many."""
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


class QuantisedRows:
    """The quantised rows, leaf after leaf.

    ends: (leaves + 1), where each leaf begins and ends among the rows. norms: (m,) float32, of the rows as ``restored`` gives
    them, squared. errors: for each leaf the e that none of its rows is farther from its float32 row.
    """

    def __init__(self, bank: torch.Tensor, mean: torch.Tensor, leaves: Sequence[torch.Tensor], kind: Kind) -> None:
        """bank: (m, d) float32, read a leaf at a time; mean: (d,), taken from every row. leaves: the numbers of their rows.

        Raises DataError where the rows belong on disk and the disk is full.
        """
        m, d = bank.shape
        self.ends = [0, *torch.tensor([len(leaf) for leaf in leaves]).cumsum(0).tolist()]
        self.norms = torch.empty(m)
        self.errors: list[float] = []
        self._centres, self._scales = torch.empty(len(leaves), d), torch.empty(m, 1)
        self._file: IO[bytes] | None = None  # open as long as the rows are mapped
        parts = self._quantise((bank[leaf] - mean for leaf in leaves), kind)
        if m * d * _DTYPES[kind].itemsize < ON_DISK:
            self._rows = torch.empty(m, d, dtype=_DTYPES[kind])
            for begin, part in zip(self.ends, parts, strict=False):  # the last end begins no leaf
                self._rows[begin : begin + len(part)] = part
            return
        self._file = tempfile.TemporaryFile(prefix="sapatchcore-", buffering=0)  # noqa: SIM115
        for number, part in enumerate(parts):
            write_whole(self._file, part.numpy(), f"{self.ends[number]} of {m} patches for search {kind}")
        dtype = np.int8 if kind == "int8" else np.float16
        self._rows = torch.from_numpy(np.memmap(self._file, dtype, mode="r+", shape=(m, d)))

    @property
    def nbytes(self) -> int:
        """Bytes of all this, in memory or on disk."""
        return sum(part.nbytes for part in (self._rows, self._scales, self._centres, self.norms))

    def restored(self, leaf: int) -> torch.Tensor:
        """(r, d) float32: the rows of a leaf, less the mean that was given."""
        begin, end = self.ends[leaf], self.ends[leaf + 1]
        return _restored(self._rows[begin:end], self._scales[begin:end], self._centres[leaf])

    def _quantise(self, leaves: Iterable[torch.Tensor], kind: Kind) -> Iterator[torch.Tensor]:
        for number, rows in enumerate(leaves):
            begin, end = self.ends[number], self.ends[number + 1]
            centre = torch.mean(rows, 0, out=self._centres[number])
            away = rows - centre
            scales = torch.div(away.abs().amax(1, keepdim=True), _LARGEST[kind], out=self._scales[begin:end])
            scales[scales == 0] = 1
            away /= scales
            rounded = (away.round_().clamp_(-127, 127) if kind == "int8" else away).to(_DTYPES[kind])
            again = _restored(rounded, scales, centre)
            torch.sum(again.square(), 1, out=self.norms[begin:end])
            self.errors.append(float((rows - again).square_().sum(1).max().sqrt()) * _ROUNDING)
            yield rounded


def _restored(rounded: torch.Tensor, scales: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(centre, rounded.float(), scales)
