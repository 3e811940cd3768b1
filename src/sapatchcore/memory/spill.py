"""The training embeddings while the coreset is chosen: projections in memory, the patches themselves on disk.

The patches go to a temporary file, from which the few that the bank
keeps are read back. The file has no name in the folder where the system allows it (everywhere but on Windows), so that
it is gone with the process, however that ends.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.embed.patches import Patches
from sapatchcore.errors import DataError
from sapatchcore.memory.bank import Bank, Search
from sapatchcore.memory.coreset import Coreset
from sapatchcore.memory.pooled import GlobalPart
from sapatchcore.memory.training import TrainingImage, pictured

Float32 = npt.NDArray[np.float32]


class Spill:
    """Patches by the number of their image. Use as a context manager; the file is removed on leaving."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="sapatchcore-", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._images = 0
        self._shapes: tuple[tuple[int, int], tuple[int, int]] = (
            (0, 0),
            (0, 0),
        )  # rows and channels of each part
        self._cell = torch.empty(0, dtype=torch.int64)
        self._grid = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def images(self) -> int:
        return self._images

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of an image's patches."""
        return self._grid

    @property
    def patches_per_image(self) -> int:
        return self._shapes[0][0]

    def append(self, patches: Patches) -> None:
        """Write the patches of n more images. Raises DataError where the disk is full."""
        local, context = patches.local.cpu().numpy(), patches.context.cpu().numpy()
        self._shapes = (local.shape[1:], context.shape[1:])
        self._cell, self._grid = patches.cell.cpu(), patches.grid
        done = f"{self._images} images; each takes {(local[0].nbytes + context[0].nbytes) / 1e6:.1f} MB while fit runs"
        self._file.seek(0, os.SEEK_END)
        for one, other in zip(local, context, strict=True):
            write_whole(self._file, one, done)
            write_whole(self._file, other, done)
        self._images += len(local)

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """(m, c2 + c3) float32: the patches ``rows`` (m,) int64, numbered through all images in order."""
        (patches, c2), (cells, c3) = self._shapes
        stride = 4 * (patches * c2 + cells * c3)
        out = np.empty((len(rows), c2 + c3), dtype=np.float32)
        for at in rows.argsort().tolist():  # in the file's order
            image, patch = divmod(int(rows[at]), patches)
            self._read_into(out[at, :c2], image * stride + 4 * patch * c2)
            self._read_into(out[at, c2:], image * stride + 4 * (patches * c2 + int(self._cell[patch]) * c3))
        return torch.from_numpy(out)

    def images_again(self, images: Sequence[int], together: int, device: torch.device) -> Iterator[Patches]:
        """``images``, numbers in the order in which they were appended, ``together`` at a time, on ``device``."""
        (patches, c2), (cells, c3) = self._shapes
        for first in range(0, len(images), together):
            some = images[first : first + together]
            both = np.empty((len(some), patches * c2 + cells * c3), dtype=np.float32)
            for one, image in zip(both, some, strict=True):
                self._read_into(one, image * one.nbytes)
            local = both[:, : patches * c2].reshape(len(some), patches, c2)
            context = both[:, patches * c2 :].reshape(len(some), cells, c3)
            yield Patches(
                torch.from_numpy(local).to(device),
                torch.from_numpy(context).to(device),
                self._cell.to(device),
                self._grid,
            )

    def _read_into(self, out: Float32, offset: int) -> None:
        self._file.seek(offset)
        view = out.data.cast("B")
        while len(view):
            got = self._file.readinto(view)
            if not got:
                raise DataError(
                    "The temporary file of the training embeddings was cut off while fit ran. Run fit again."
                )
            view = view[got:]


def bank_of(
    coreset: Coreset,
    spill: Spill,
    training: Sequence[TrainingImage],
    search: Search,
    device: torch.device,
    statistics: Sequence[torch.Tensor] = (),
) -> Bank:
    """The patches that ``coreset`` chose of all in ``spill``, with all their numbers. training: the images in ``spill``; pictures
    are kept of those alone that a row comes from. statistics: of each batch of them, pooled, where there is to be a global part;
    raises DataError where these are too few.
    """
    rows = spill.read(coreset.rows).to(device)
    images, cells = coreset.rows // spill.patches_per_image, coreset.rows % spill.patches_per_image
    part = GlobalPart.of(torch.cat(list(statistics))) if statistics else None
    kept = pictured(training, images)
    return Bank(rows, images, cells, kept, spill.grid, coreset.radius, search=search, global_part=part)


class GrowingRows:
    """Rows (m, d) float32 of a number that is not known beforehand, without a moment in which they are held twice.

    Use as a context manager where they may lie on disk; the file is removed on leaving.
    """

    def __init__(self, *, on_disk: bool) -> None:
        """on_disk: keep them in a temporary file that is mapped into memory, as far as the system has room."""
        self._file = tempfile.TemporaryFile(prefix="sapatchcore-", buffering=0) if on_disk else None  # noqa: SIM115
        self._rows = np.empty((0, 0), dtype=np.float32)
        self._used = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, rows: torch.Tensor) -> None:
        """rows: (r, d) float32, on any device. Raises DataError where they are kept on a disk that is full."""
        new = rows.cpu().numpy()
        if self._file is not None:
            write_whole(
                self._file, new, f"{self._used} patches; each takes {4 * new.shape[1]} bytes more for projection none"
            )
        else:
            needed = self._used + len(new)
            if needed > len(self._rows):
                # realloc: the system moves large blocks without copying them. By an eighth, as what is new is zeroed.
                self._rows.resize((max(needed, len(self._rows) * 9 // 8), new.shape[1]), refcheck=False)
            self._rows[self._used : needed] = new
        self._used += len(new)
        self._width = new.shape[1]

    def tensor(self) -> torch.Tensor:
        """All rows, (m, d) float32, sharing this object's memory."""
        if self._file is None:
            return torch.from_numpy(self._rows[: self._used])
        return torch.from_numpy(np.memmap(self._file, np.float32, mode="r+", shape=(self._used, self._width)))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def mapped(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros in a temporary file that is mapped into memory: the system writes out what it has no room for. The file is gone
    with the array. Raises DataError where the disk is full."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="sapatchcore-", buffering=0) as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # else a full disk would end the process at the first write that needs it
            with disk_errors(f"0 of {size / 1e6:.0f} MB"):
                os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, mode="r+", shape=shape)


def write_whole(file: Any, array: Float32, done: str) -> None:
    """All bytes of ``array`` to the raw ``file``. Raises DataError where the disk is full; done: after what."""
    view = np.ascontiguousarray(array).data.cast("B")
    with disk_errors(done):
        while len(view):
            view = view[file.write(view) :]


@contextmanager
def disk_errors(done: str) -> Iterator[None]:
    """A block that writes to the temporary folder. Raises DataError where its disk is full; done: after what."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DataError(
            f"The disk of the temporary folder {tempfile.gettempdir()} is full after {done}. Free space there, or name "
            "another folder in the variable TMPDIR."
        ) from None
