"""The memory bank, and how far patches are from it (paper step 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from sapatchcore.embed.patches import Patches
from sapatchcore.memory.neighbours import NearestIndex, nearest

# Bytes of patches at a time. More of them share the work on each block of the bank; beyond this their rows leave the
# processor's cache, and beyond 32 MB the allocator takes fresh memory for them every time.
_TOGETHER = 16_000_000


@dataclass(frozen=True)
class Bank:
    """The kept patches of good images.

    rows: (m, d) float32. images, cells: (m,) int64 on the CPU, the training image and the patch that each row came
    from. names: of the training images. grid: (h, w) of an image's patches.
    """

    rows: torch.Tensor
    images: torch.Tensor
    cells: torch.Tensor
    names: tuple[str, ...]
    grid: tuple[int, int]

    @cached_property
    def index(self) -> NearestIndex:
        """Finds the nearest row; built when it is first needed."""
        return NearestIndex(self.rows)

    def compare(self, patches: Patches) -> Distances:
        """Each patch of n images with its nearest row; distances are taken from the differences themselves."""
        c2, per_image = patches.local.shape[2], patches.cell.shape[0]
        parts = []
        for few in patches.split(max(1, _TOGETHER // (4 * per_image * self.rows.shape[1]))):
            rows = few.rows().flatten(0, 1)
            found = self.index.nearest(rows)
            squared = rows.sub_(self.rows[found]).square_()
            local, context = squared[:, :c2].sum(1), squared[:, c2:].sum(1)
            parts.append(((local + context).sqrt(), local.sqrt_(), context.sqrt_(), found))
        columns = [torch.cat(column).reshape(-1, per_image) for column in zip(*parts, strict=True)]
        return Distances(*columns)

    def around(self, patch: torch.Tensor, row: torch.Tensor, k: int) -> torch.Tensor:
        """(n, k) distances from each patch (n, d) to the k rows nearest to *row* (n,), the row itself among them."""
        _, neighbours = nearest(self.rows[row], self.rows, min(k, len(self.rows)))
        return (patch[:, None] - self.rows[neighbours]).square().sum(2).sqrt()


@dataclass(frozen=True)
class Distances:
    """n images of p patches: each (n, p). whole² = local² + context²; row: int64, the nearest row of the bank."""

    whole: torch.Tensor
    local: torch.Tensor
    context: torch.Tensor
    row: torch.Tensor
