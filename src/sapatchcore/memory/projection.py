"""The random projection in which the coreset is chosen (paper step 6; Johnson and Lindenstrauss 1984).

A Gaussian matrix keeps distances up to a few percent in 128 dimensions, whatever the number of patches. We differ: the
authors take scikit-learn's SparseRandomProjection with eps 0.9; Roth et al. a learned-free linear map to 128. The matrix is
split like the patch, so that each cell of layer 3 is projected once and not once for every patch that it serves.
"""

from __future__ import annotations

import numpy as np
import torch

from sapatchcore.embed.patches import Patches


class Projection:
    """A seeded linear map (d,) → (dimensions,); ``dimensions=None`` gives the patch itself."""

    def __init__(self, local: int, context: int, dimensions: int | None, seed: int, device: torch.device) -> None:
        """local, context: channels of the two parts of a patch."""
        self.dimensions = dimensions or local + context
        self._matrix: torch.Tensor | None = None
        self._split = local
        if dimensions is not None:
            gauss = np.random.default_rng(seed).standard_normal((local + context, dimensions), dtype=np.float32)
            self._matrix = torch.from_numpy(gauss / np.float32(np.sqrt(dimensions))).to(device)

    def __call__(self, patches: Patches) -> torch.Tensor:
        """(n·p, dimensions) float32."""
        if self._matrix is None:
            return patches.rows().flatten(0, 1)
        local = patches.local @ self._matrix[: self._split]
        context = patches.context @ self._matrix[self._split :]
        return local.add_(context[:, patches.cell]).flatten(0, 1)

    def of_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """(m, dimensions) float32 of rows (m, d) of a memory bank."""
        return rows if self._matrix is None else rows @ self._matrix
