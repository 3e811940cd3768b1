"""A bank's rows in float16 or int8, and how far each leaf of them is from its float32 rows.

A row is the mean of its leaf plus a short number for each difference from that, times the row's own scale: rows of a leaf
lie close together, so that little is lost, and none is too large for float16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Literal

import numpy as np
import torch

from sapatchcore.memory.spill import write_whole

Kind = Literal["float16", "int8"]

ON_DISK = 256_000_000  # bytes from which short rows are mapped from a temporary file, so that the system may drop them
_DTYPES: dict[Kind, torch.dtype] = {"float16": torch.float16, "int8": torch.int8}
# What the largest difference of a row becomes: far from float16's ends at 65504 and 6e-5.
_LARGEST: dict[Kind, float] = {"float16": 128.0, "int8": 127.0}
_ROUNDING = 1 + 1e-5  # above float32's, in the norm of an error


class Shortened:
    """The short rows, leaf after leaf.

    ends: (leaves + 1), where each leaf begins and ends among the rows. norms: (m,) float32, of the rows as ``widened`` gives
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
        parts = self._shorten((bank[leaf] - mean for leaf in leaves), kind)
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

    def widened(self, leaf: int) -> torch.Tensor:
        """(r, d) float32: the rows of a leaf, less the mean that was given."""
        begin, end = self.ends[leaf], self.ends[leaf + 1]
        return _widened(self._rows[begin:end], self._scales[begin:end], self._centres[leaf])

    def _shorten(self, leaves: Iterable[torch.Tensor], kind: Kind) -> Iterator[torch.Tensor]:
        for number, rows in enumerate(leaves):
            begin, end = self.ends[number], self.ends[number + 1]
            centre = torch.mean(rows, 0, out=self._centres[number])
            away = rows - centre
            scales = torch.div(away.abs().amax(1, keepdim=True), _LARGEST[kind], out=self._scales[begin:end])
            scales[scales == 0] = 1
            away /= scales
            short = (away.round_().clamp_(-127, 127) if kind == "int8" else away).to(_DTYPES[kind])
            again = _widened(short, scales, centre)
            torch.sum(again.square(), 1, out=self.norms[begin:end])
            self.errors.append(float((rows - again).square_().sum(1).max().sqrt()) * _ROUNDING)
            yield short


def _widened(short: torch.Tensor, scales: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(centre, short.float(), scales)
