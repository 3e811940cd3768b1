"""The nearest row of a small bank, exactly, by every product of a patch with a row; the context's share of it once a cell.

    |patch − row|² = |patch|² + |row|² − 2 local·row_local − 2 context·row_context

Several patches share a cell of the context (four, where layer 3 has half of layer 2's resolution), and the last term is the same
for all of them. That halves the work for the usual networks, whose layer 3 has twice the channels. Up to some thousand rows no
bound pays that would leave products out; beyond, ``exact.py`` does.
"""

from __future__ import annotations

import torch

from sapatchcore.embed.patches import Patches

MOST_ROWS = 8192  # of the bank: with more, boxes leave out so much that they are faster
TOGETHER = 512  # patches in one matrix product: more leave the processor's cache


class CellProducts:
    """Exact search for the single nearest row of a fixed bank of at most some thousand rows, on a CPU."""

    @torch.inference_mode()
    def __init__(self, bank: torch.Tensor, groups: torch.Tensor) -> None:
        """bank: (m, d) float32; copied once. groups: (m,) int64."""
        self._mean, self._groups = bank.mean(0), groups  # taken off: fewer digits are lost
        self._rows = bank - self._mean
        self._norms = self._rows.square().sum(1)

    @torch.inference_mode()
    def nearest(self, patches: Patches, excluded: torch.Tensor | None = None) -> torch.Tensor:
        """(n·p,) int64: the nearest row of the bank for each patch; near-ties may swap.

        excluded: (n,) int64, the group whose rows do not count for an image; some other row must be left.
        """
        n, p, c2 = patches.local.shape
        local_rows, context_rows = self._rows[:, :c2].T, self._rows[:, c2:].T
        local, context = patches.local - self._mean[:c2], patches.context - self._mean[c2:]
        parts = shared_cells(patches.cell, TOGETHER)
        most = max(end - begin for begin, end, _, _ in parts)
        squared = local.new_empty(most, len(self._rows))
        found = torch.empty(n, p, dtype=torch.int64)
        for image in range(n):
            norms = self._norms
            if excluded is not None:
                norms = norms.masked_fill(self._groups == excluded[image], torch.inf)
            for begin, end, first, last in parts:
                once = torch.addmm(norms, context[image, first:last], context_rows, alpha=-2)
                here = torch.index_select(once, 0, patches.cell[begin:end] - first, out=squared[: end - begin])
                here.addmm_(local[image, begin:end], local_rows, alpha=-2)
                found[image, begin:end] = here.min(1).indices
        return found.flatten()


def shared_cells(cell: torch.Tensor, most: int) -> list[tuple[int, int, int, int]]:
    """An image's patches in parts that share no cell: (begin, end) of the patches, (first, last) of their cells, ends exclusive.

    cell: (p,) int64, as of Patches. A part has at most so many patches, or as few as share no cell with others.
    """
    before = cell.cummax(0).values[:-1]
    after = cell.flip(0).cummin(0).values.flip(0)[1:]
    # A cut: before it, no cell was used of those that are used from there on.
    cuts = ((before < after).nonzero().squeeze(1) + 1).tolist()
    parts, begin, end = [], 0, 0
    for cut in (*cuts, len(cell)):
        if cut - begin > most and end > begin:
            parts.append((begin, end))
            begin = end
        end = cut
    parts.append((begin, end))
    return [(begin, end, int(cell[begin:end].min()), int(cell[begin:end].max()) + 1) for begin, end in parts]
