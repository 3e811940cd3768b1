"""Approximate search of a very large bank with FAISS: an inverted file over the bank's first principal axes.

Rows are known by their coordinates along ``AXES`` axes and the length of what these leave out (``exact.py``), 260 bytes
each. FAISS sorts them into lists, looks through the ``PROBES`` lists nearest to a query, and names ``CANDIDATES`` rows; of
these the nearest by its float32 numbers is taken. It may be another than the nearest of all: then the distance is larger than
the exact one, never smaller.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch

from sapatchcore.errors import MissingPackageError, install
from sapatchcore.memory.search.exact import coordinates
from sapatchcore.memory.search.leaves import axes_of
from sapatchcore.memory.search.quantised import QuantisedIndex

AXES = 64
PROBES = 32  # lists that are looked through for a query
CANDIDATES = 16  # rows whose float32 numbers are compared
TRAINED = 40  # rows a list that the lists are made from: below 39, FAISS itself warns
FEWEST = TRAINED * PROBES  # rows of a bank: with fewer, no list could be left out
ROUNDS = 10  # of k-means
QUERIES = 2048  # queries at a time


def require_faiss() -> Any:
    """The module faiss. Raises MissingPackageError where it is not installed."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        raise MissingPackageError(
            f"Search faiss needs FAISS, which is not installed: {install('search')}. Search exact, float16 and int8 need "
            "nothing more.",
            name=error.name,
        ) from None
    return faiss


class ApproximateIndex:
    """Nearly always the nearest row of a fixed bank on the CPU; the same for the same bank and number of threads."""

    @torch.inference_mode()
    def __init__(self, bank: torch.Tensor, groups: torch.Tensor | None = None) -> None:
        """bank: (m, d) float32 on the CPU, m ≥ ``FEWEST``; kept as it is, mapped or not. groups: (m,) int64.

        Raises MissingPackageError without FAISS.
        """
        faiss = require_faiss()
        self._bank, self._groups = bank, groups
        self._mean = bank.mean(0)
        self._axes = axes_of(bank, self._mean, AXES)
        points = coordinates(bank, self._mean, self._axes)
        lists = min(4 * math.isqrt(len(bank)), len(bank) // TRAINED)
        self._middles = faiss.IndexFlatL2(points.shape[1])  # FAISS does not keep it alive itself
        self._lists = faiss.IndexIVFFlat(self._middles, points.shape[1], lists)
        self._lists.cp.niter, self._lists.nprobe = ROUNDS, PROBES
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(points), generator=generator)[: TRAINED * lists].sort().values
        self._lists.train(points[chosen].numpy())
        self._lists.add(points.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept beside the bank: coordinates and number of every row, and the lists' middles."""
        return int(self._lists.ntotal * (4 * self._lists.d + 8) + self._lists.nlist * 4 * self._lists.d)

    @torch.inference_mode()
    def nearest(self, queries: torch.Tensor, excluded: torch.Tensor | None = None) -> torch.Tensor:
        """(q,) int64: nearly always the nearest row of the bank for each of the queries (q, d) float32.

        excluded: (q,) int64, the group whose rows do not count for a query. Then the search is exact: an inverted file cannot
        leave out a group, and calibration would notice.
        """
        if excluded is not None:
            return self._exact.nearest(queries, excluded)
        return torch.cat([self._search(rows) for rows in queries.split(QUERIES)])

    def _search(self, queries: torch.Tensor) -> torch.Tensor:
        _, found = self._lists.search(coordinates(queries, self._mean, self._axes).numpy(), CANDIDATES)
        rows = torch.from_numpy(found)  # (q, candidates), −1 where the lists hold fewer
        missing = rows < 0
        rows = rows.clamp_(min=0)
        squared = torch.stack([(queries - self._bank[one]).square_().sum(1) for one in rows.unbind(1)], dim=1)
        return rows.gather(1, squared.masked_fill_(missing, torch.inf).argmin(1, keepdim=True))[:, 0]

    @cached_property
    def _exact(self) -> QuantisedIndex:
        return QuantisedIndex(self._bank, "float16", self._groups)
