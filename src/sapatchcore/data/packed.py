"""Many small items packed into one array: names, sizes or thumbnails of ten million images take their bytes and little more.

Each class is a sequence like a tuple of the same items, and equal to one; an item is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size

T = TypeVar("T")
Ints = npt.NDArray[np.signedinteger[Any]]

_ENCODING = "utf-8", "surrogatepass"  # names of files need not be text that UTF-8 knows


class Packed(Sequence[T]):
    """A sequence whose items are made of arrays."""

    def _item(self, index: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        chosen = range(len(self))[index]  # raises IndexError
        return tuple(map(self._item, chosen)) if isinstance(chosen, range) else self._item(chosen)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list: what is equal to a tuple would need its hash


class Files(Packed[bytes]):
    """content: (bytes,) uint8. ends: (n,) int64, where each of n items ends."""

    def __init__(self, content: npt.NDArray[np.uint8], ends: Ints) -> None:
        self.content, self.ends = content, ends

    @classmethod
    def of(cls, items: Iterable[bytes]) -> Files:
        content, ends = bytearray(), []
        for item in items:
            content += item
            ends.append(len(content))
        return cls(np.frombuffer(content, np.uint8), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def _item(self, index: int) -> bytes:
        return self.content[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])].tobytes()

    def check(self) -> None:
        """Raises ValueError where ``ends`` does not fit ``content``."""
        ends, content = self.ends, self.content
        if ends.ndim != 1 or ends.dtype.kind != "i" or content.ndim != 1 or content.dtype != np.uint8:
            raise ValueError(f"items of {content.dtype} that end at {ends.dtype}")
        last = int(ends[-1]) if len(ends) else 0
        if last != len(content) or bool((ends < 0).any()) or bool((ends[1:] < ends[:-1]).any()):
            raise ValueError("items that begin or end where nothing does")


class Texts(Packed[str]):
    """n texts in UTF-8, packed as ``Files``."""

    def __init__(self, files: Files) -> None:
        self.files = files

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Packed; ``texts`` itself where it is packed already."""
        if isinstance(texts, Texts):
            return texts
        return cls(Files.of(text.encode(*_ENCODING) for text in texts))

    def __len__(self) -> int:
        return len(self.files)

    def _item(self, index: int) -> str:
        return self.files[index].decode(*_ENCODING)

    def check(self) -> None:
        """Raises ValueError where an item is not UTF-8, or ``files`` is malformed."""
        self.files.check()
        for _ in self:
            pass


class Sizes(Packed[Size]):
    """The (H, W) of n images. array: (n, 2), whole numbers."""

    def __init__(self, array: Ints) -> None:
        self.array = array

    @classmethod
    def of(cls, sizes: Iterable[Size]) -> Sizes:
        """Packed; ``sizes`` itself where it is packed already."""
        if isinstance(sizes, Sizes):
            return sizes
        return cls(np.array(list(sizes), np.int32).reshape(-1, 2))

    def __len__(self) -> int:
        return len(self.array)

    def _item(self, index: int) -> Size:
        height, width = self.array[index].tolist()
        return height, width

    def check(self) -> None:
        """Raises ValueError where ``array`` is not (n, 2) integers."""
        if self.array.ndim != 2 or self.array.shape[1] != 2 or self.array.dtype.kind != "i":
            raise ValueError(f"sizes of the shape {self.array.shape} and {self.array.dtype}")
