"""The nearest patches of the memory bank, exactly (paper step 7).

:func:`nearest` compares every query with every row, a block of the bank at a time, never storing the whole matrix.
:class:`NearestIndex` gives the same single nearest row and leaves most comparisons out. Rows of the bank that lie close
together form a block with a box around them (``memory/search/boxes.py``): a block whose box is farther away than the nearest row
found so far cannot hold a nearer one.

Both can leave rows out by their *group*, so that a training image is compared with the bank without its own patches.
"""

from __future__ import annotations

import torch

from sapatchcore.errors import SettingsError
from sapatchcore.memory.search.boxes import LEAF, Boxes, axes_of, flatten, leaves_of, places_of

MOST_NEIGHBOURS = 9
BLOCK = 4096  # rows of the bank in one matrix product of ``nearest``
QUERIES = 8192  # queries at a time
MOST = 0.6  # share of the queries above which a block meets all of them
_SLACK = 1e-5  # of the squared norms: above float32's rounding in bounds and products

Groups = torch.Tensor | None


@torch.inference_mode()
def nearest(
    queries: torch.Tensor, bank: torch.Tensor, k: int = 1, excluded: torch.Tensor | None = None, groups: Groups = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows of ``bank`` for each query, nearest first, exactly.

    Args:
        queries: (q, d) float32.
        bank: (m, d) float32 on the same device.
        k: 1 to 9, at most m; where groups are excluded, at most the rows that are left for every query.
        excluded: (q,) int64, the group whose rows do not count for a query. groups: (m,) int64, of the rows; with ``excluded``.

    Returns:
        distances (q, k) float32, Euclidean, from the differences themselves (a row of the bank has distance 0), and
        indices (q, k) int64.

    Raises:
        SettingsError: ``k`` is outside its range.
    """
    most = min(MOST_NEIGHBOURS, len(bank))
    if not 1 <= k <= most:
        raise SettingsError(f"k must be in 1 to {most} for a memory bank of {len(bank)} patches. Got {k}.")
    mean = bank.mean(0)
    away = [None] * -(-len(queries) // QUERIES) if excluded is None else excluded.split(QUERIES)
    parts = zip(queries.split(QUERIES), away, strict=True)
    found = torch.cat([_nearest(rows - mean, bank, mean, k, out, groups) for rows, out in parts])
    distances = _distances(queries, bank, found)
    distances, order = distances.sort(dim=1, stable=True)  # the products' rounding may have swapped near-ties
    return distances, found.gather(1, order)


def _nearest(
    queries: torch.Tensor,
    bank: torch.Tensor,
    mean: torch.Tensor,
    k: int,
    excluded: torch.Tensor | None = None,
    groups: Groups = None,
) -> torch.Tensor:
    best = queries.new_full((len(queries), k), torch.inf)
    found = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BLOCK):
        rows = bank[start : start + BLOCK] - mean
        # |q − b|² without |q|², which does not change the order.
        squared = torch.addmm(rows.square().sum(1), queries, rows.T, alpha=-2)
        if excluded is not None and groups is not None:
            squared.masked_fill_(groups[start : start + BLOCK] == excluded[:, None], torch.inf)
        values, indices = squared.topk(min(k, len(rows)), dim=1, largest=False)
        best, order = torch.cat((best, values), dim=1).topk(k, dim=1, largest=False)
        found = torch.cat((found, indices + start), dim=1).gather(1, order)
    return found


def _distances(queries: torch.Tensor, bank: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """(q, k) Euclidean distances to the rows ``found``, from the differences."""
    columns = [
        torch.cat(
            [
                (q - bank[i]).square_().sum(1).sqrt_()
                for q, i in zip(queries.split(QUERIES), column.split(QUERIES), strict=True)
            ]
        )
        for column in found.unbind(1)
    ]
    return torch.stack(columns, dim=1)


class NearestIndex:
    """Exact search for the single nearest row of a fixed bank, made for banks of thousands of rows on a CPU."""

    @torch.inference_mode()
    def __init__(self, bank: torch.Tensor, groups: Groups = None) -> None:
        """bank: (m, d) float32; kept, and copied once in the order of the blocks where boxes are used. groups: (m,) int64."""
        self.bank, self._groups = bank, groups
        # Other devices do the whole product faster than they could decide what to leave out.
        self._boxed = bank.device.type == "cpu" and len(bank) > 4 * LEAF
        if not self._boxed:
            return
        self._mean = bank.mean(0)
        self._axes = axes_of(bank, self._mean)
        flat = flatten(bank, self._mean, self._axes)
        self._leaves = leaves_of(flat)
        self._boxes = Boxes(flat, self._leaves)
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
        if excluded is None:
            return torch.cat([self._search(rows, None) for rows in queries.split(QUERIES)])
        parts = zip(queries.split(QUERIES), excluded.split(QUERIES), strict=True)
        return torch.cat([self._search(rows, away) for rows, away in parts])

    def _search(self, queries: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
        flat = flatten(queries, self._mean, self._axes)
        asked = _Asked(queries - self._mean, excluded, self._slack)
        # First each query's most promising block, which gives a near row; then what that could not rule out.
        first = self._boxes.first(flat)
        for leaf, chosen in places_of(first, len(self._leaves)):
            self._compare(asked, leaf, chosen)
        for leaf, chosen in self._boxes.within(flat, asked.best, first, asked.less):
            self._compare(asked, leaf, chosen)
        return asked.found

    def _compare(self, asked: _Asked, leaf: int, chosen: torch.Tensor) -> None:
        """Meet the chosen queries with all rows of a block."""
        # To pick most of the queries out costs more than to compare the few others for nothing.
        every = len(chosen) > MOST * len(asked.queries)
        points = asked.queries if every else asked.queries[chosen]
        squared = torch.addmm(self._norms[leaf], points, self._rows[leaf].T, alpha=-2)
        if asked.excluded is not None and self._groups is not None:
            away = asked.excluded if every else asked.excluded[chosen]
            squared.masked_fill_(self._groups[self._leaves[leaf]] == away[:, None], torch.inf)
        values, indices = squared.min(1)
        nearer = (values < (asked.best if every else asked.best[chosen])).nonzero().squeeze(1)
        at = nearer if every else chosen[nearer]
        asked.best[at] = values[nearer]
        asked.found[at] = self._leaves[leaf][indices[nearer]]


class _Asked:
    """Some queries while they are searched for.

    queries: (q, d), less the bank's mean. best: (q,) float32, squared distance of the nearest row so far, less the query's own
    squared norm. less: (q,), that norm and what rounding may add. found: (q,) int64, the nearest row so far.
    """

    def __init__(self, queries: torch.Tensor, excluded: torch.Tensor | None, slack: float) -> None:
        """slack: what rounding may add to a squared distance, of the bank's largest row."""
        self.queries, self.excluded = queries, excluded
        norms = queries.square().sum(1)
        self.best = torch.full_like(norms, torch.inf)
        self.less = norms * (1 + _SLACK) + slack
        self.found = torch.zeros(len(queries), dtype=torch.int64)
