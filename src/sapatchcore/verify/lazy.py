"""A list whose items are computed when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Lazy(Generic[T_co]):
    """``length`` items, item i being ``compute(i)``: a set of large masks is never in memory as a whole."""

    def __init__(self, length: int, compute: Callable[[int], T_co]) -> None:
        self._length, self._compute = length, compute

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> T_co:
        return self._compute(index)
