"""The memory bank: the kept patches of good images, and how far other patches are from them (paper step 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch

from sapatchcore.data.statistics import ImageStatistics
from sapatchcore.embed.patches import Patches
from sapatchcore.memory.pooled import GlobalPart
from sapatchcore.memory.search.exact import ExactIndex
from sapatchcore.memory.search.leaves import LEAF
from sapatchcore.memory.search.products import MOST_ROWS, CellProducts
from sapatchcore.memory.training import TrainingImage, made_from, statistics

# Bytes of patches at a time. More of them share the work on each block of the bank; beyond this their rows leave the
# processor's cache, and beyond 32 MB the allocator takes fresh memory for them every time.
_TOGETHER = 16_000_000

Search = Literal["exact", "float16", "int8", "faiss"]


class Index(Protocol):
    """What finds the nearest row of a bank: exact, in a quantised copy, or approximate."""

    def nearest(self, queries: torch.Tensor, excluded: torch.Tensor | None = None) -> torch.Tensor:
        """(q,) int64: the nearest row for each query (q, d) float32. excluded: (q,) int64, the group whose rows do not count."""
        ...


@dataclass(frozen=True)
class Bank:
    """The kept patches of good images.

    rows: (m, d) float32. images, cells: (m,) int64 on the CPU, the training image and the patch that each row came
    from. training: the images. grid: (h, w) of an image's patches. radius: every patch that was learned from lies within
    ``radius + loosened`` of a row, in the projection in which the rows were chosen; ``loosened`` is 0 until an image is
    forgotten. search: how ``compare`` finds the nearest row, an option of ``settings.py``. global_part: what good images are
    like as a whole, where settings ask for it.
    """

    rows: torch.Tensor
    images: torch.Tensor
    cells: torch.Tensor
    training: Sequence[TrainingImage]
    grid: tuple[int, int]
    radius: float = 0.0
    loosened: float = 0.0
    search: Search = "exact"
    global_part: GlobalPart | None = None

    @cached_property
    def index(self) -> Index:
        """Finds the nearest row; built when it is first needed. Small banks, and those of a GPU, are searched exactly.

        Raises DataError where a quantised copy belongs on disk and the disk is full; MissingPackageError without FAISS.
        """
        if self.search == "exact" or self.rows.device.type != "cpu" or len(self.rows) <= 4 * LEAF:
            return ExactIndex(self.rows, self.groups)
        if self.search == "faiss":
            from sapatchcore.memory.search.approximate import FEWEST, ApproximateIndex

            return (
                ApproximateIndex(self.rows, self.groups)
                if len(self.rows) > FEWEST
                else ExactIndex(self.rows, self.groups)
            )
        from sapatchcore.memory.search.quantised import QuantisedIndex

        return QuantisedIndex(self.rows, self.search, self.groups)

    @cached_property
    def products(self) -> CellProducts | None:
        """Finds the nearest row of a small bank on a CPU, instead of ``index``; built when it is first needed."""
        small = self.search == "exact" and self.rows.device.type == "cpu" and len(self.rows) <= MOST_ROWS
        return CellProducts(self.rows, self.groups) if small else None

    def build_index(self) -> None:
        """What ``compare`` needs, now: the first image need not wait for it. Raises as ``index``."""
        _ = self.products or self.index

    @cached_property
    def groups(self) -> torch.Tensor:
        """(m,) int64 where the rows are: ``images``, with copies counted as the image that they were made from."""
        return made_from(self.training, self.images).to(self.rows.device)

    @cached_property
    def owners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The training images that rows came from, sorted, and how many rows of each with its copies."""
        owners, counts = self.groups.cpu().unique(return_counts=True)
        return owners, counts

    @cached_property
    def usual(self) -> ImageStatistics | None:
        """What the training images had: sizes, brightness and so on. None where the model file is of an earlier version."""
        return statistics(self.training)

    @torch.inference_mode()
    def compare(self, patches: Patches, excluded: torch.Tensor | None = None) -> Distances:
        """Each patch of n images with its nearest row; distances are taken from the differences themselves.

        excluded: (n,) int64, for each image the training image whose rows do not count, -1 for none; another must have rows.
        """
        c2, per_image = patches.local.shape[2], patches.cell.shape[0]
        parts = []
        images, done = max(1, _TOGETHER // (4 * per_image * self.rows.shape[1])), 0
        for few in patches.split(images):
            rows, n = few.rows().flatten(0, 1), len(few.local)
            away = None if excluded is None else excluded[done : done + n].to(self.rows.device)
            if self.products is not None:
                found = self.products.nearest(few, away)
            else:
                found = self.index.nearest(rows, None if away is None else away.repeat_interleave(per_image))
            squared = rows.sub_(self.rows[found]).square_()
            local, context = squared[:, :c2].sum(1), squared[:, c2:].sum(1)
            parts.append(((local + context).sqrt(), local.sqrt_(), context.sqrt_(), found))
            done += n
        columns = [torch.cat(column).reshape(-1, per_image) for column in zip(*parts, strict=True)]
        return Distances(*columns)


@dataclass(frozen=True)
class Distances:
    """n images of p patches: each (n, p). whole² = local² + context²; row: int64, the nearest row of the bank."""

    whole: torch.Tensor
    local: torch.Tensor
    context: torch.Tensor
    row: torch.Tensor

    @property
    def parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """local, context, row."""
        return self.local, self.context, self.row
