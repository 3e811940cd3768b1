"""From distances to scores: one an image (paper step 8) and a map at the image's own size (step 9).

The image score is the largest patch score, as the authors of SA-PatchCore have it ("max"); ``reweighted.py`` has Roth et al.'s.

Anomaly map: the patch scores go bilinearly to the size of what the network saw, are blurred by a Gaussian of sigma 4 there, and
go bilinearly on to the image's own size. All three are linear and act on rows and columns separately, so the whole step is one
small matrix on either side of the grid: map = R · scores · Cᵀ. Outside the centre crop nothing was looked at; the map is 0
there. We differ: the authors stop at the cropped size; their blur is SciPy's, which mirrors the border's pixels with the
border's own one twice; ours is kornia's ("reflect", once).

The squared parts go the same way, and share out each pixel's score in their ratio: map² = local² + context² exactly. Importing
this needs no PyTorch: exported models draw their maps with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size, crop_box
from sapatchcore.settings import Settings

if TYPE_CHECKING:
    import torch

    from sapatchcore.embed.patches import Patches
    from sapatchcore.memory.bank import Bank

SIGMA = 4.0
_RADIUS = 16  # 4 sigma
# Multiplications of one matrix product. Up to here OpenBLAS, which NumPy's wheels hold, stays on the caller's thread. Its
# other threads would go on spinning after a product, and take the processor from those of the network.
_ONE_THREAD = 1 << 18

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def score_patches(
    patches: Patches, bank: Bank, settings: Settings, excluded: torch.Tensor | None = None
) -> tuple[npt.NDArray[Any], ...]:
    """Steps 7 and 8 for one batch: what ``Result`` holds of each image, in its order.

    excluded: (n,) int64, for each image a training image whose rows of the bank do not count.

    Raises SettingsError for image_score "reweighted" with a bank of one patch.
    """
    distances = bank.compare(patches, excluded)  # step 7: the nearest patch of the bank
    scores, worst = largest(distances.whole)  # step 8: the image score is the largest patch score,
    local, context, row = (grid.gather(1, worst[:, None])[:, 0] for grid in distances.parts)
    parts = [scores, local, context]
    if settings.image_score == "reweighted":  # or that, weighted by how crowded the bank is around its match
        from sapatchcore.score.reweighted import weights

        weight = weights(scores, patches, worst, row, bank, settings.neighbors, excluded)
        parts = [part * weight for part in parts]
    grids = (grid.unflatten(1, patches.grid) for grid in (distances.whole, *distances.parts))
    arrays = tuple(value.cpu().numpy() for value in (*parts, *grids))
    if settings.image_score != "smoothed" and bank.global_part is None:
        return arrays
    from sapatchcore.score.fusion import beyond_the_largest

    return beyond_the_largest(arrays, patches, bank.global_part, settings)


def largest(patch_scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, p) → the largest score of each image and which patch has it, (n,) each; the first one of equals."""
    top = patch_scores.amax(1)
    return top, (patch_scores == top[:, None]).int().argmax(1)


@lru_cache(maxsize=64)
def axis_operator(cells: int, resized: int, start: int, cropped: int, size: int) -> Float32:
    """The step along one axis, as a matrix (size, cells).

    Args:
        cells: of the grid. resized: pixels after resizing. start, cropped: where the crop begins and how long it is.
        size: pixels of the image itself.
    """
    centres = (np.arange(cropped) + 0.5) * cells / cropped - 0.5  # of the crop's pixels, in cells
    enlarged = interpolated(np.eye(cells), centres)  # (cropped, cells)
    radius = min(_RADIUS, cropped - 1)  # what a reflected border allows
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / SIGMA))
    weights /= weights.sum()
    padded = np.pad(enlarged, ((radius, radius), (0, 0)), mode="reflect")
    blurred = sum(weight * padded[first : first + cropped] for first, weight in enumerate(weights))
    centres = (np.arange(size) + 0.5) * resized / size - 0.5 - start  # of the image's pixels, in pixels of the crop
    inside = (centres >= -0.5) & (centres < cropped - 0.5)
    operator = (interpolated(blurred, centres) * inside[:, None]).astype(np.float32)
    operator.setflags(write=False)
    return operator


def interpolated(rows: Float64, positions: Float64) -> Float64:
    """(n, k) rows and (m,) positions among them, row i at position i → (m, k), by straight lines; beyond an end, the end's
    row."""
    positions = positions.clip(0, len(rows) - 1)
    lower = positions.astype(np.int64)
    share = (positions - lower)[:, None]
    found: Float64 = rows[lower] * (1 - share) + rows[np.minimum(lower + 1, len(rows) - 1)] * share
    return found


def anomaly_map(scores: Float32, size: Size, resize: Size, crop: Size | None) -> Float32:
    """(h, w) patch scores → (H, W) float32 at the image's own size; 0 outside the crop."""
    top, left, height, width = crop_box(resize, crop)
    rows = axis_operator(scores.shape[0], resize[0], top, height, size[0])
    columns = axis_operator(scores.shape[1], resize[1], left, width, size[1])
    return _product(_product(rows, np.asarray(scores, np.float32)), columns.T)


def _product(a: Float32, b: Float32) -> Float32:
    """(m, k) · (k, n) → (m, n), a square tile at a time, so that no other thread wakes."""
    out = np.empty((len(a), b.shape[1]), np.float32)
    side = max(1, math.isqrt(_ONE_THREAD // len(b)))
    for top in range(0, len(a), side):
        for left in range(0, b.shape[1], side):
            here = slice(top, top + side), slice(left, left + side)
            np.matmul(a[here[0]], b[:, here[1]], out=out[here])
    return out


def part_map(scores: Float32, part: Float32, size: Size, resize: Size, crop: Size | None) -> Float32:
    """The share of ``part`` (h, w), local or context patch scores, in the anomaly map of ``scores``: (H, W) float32."""
    whole = anomaly_map(scores, size, resize, crop)
    squared = anomaly_map(np.square(part), size, resize, crop)
    total = anomaly_map(np.square(scores), size, resize, crop)
    share = np.divide(squared, total, out=np.zeros_like(total), where=total > 0)
    share = np.sqrt(np.clip(share, 0, 1), out=share)
    part_of_whole: Float32 = whole * share
    return part_of_whole


class Maps(Sequence[Float32]):
    """n maps, each computed when it is asked for: a set of large images is never in memory as a whole."""

    def __init__(self, sizes: Sequence[Size], compute: Callable[[int], Float32]) -> None:
        self.sizes = tuple(sizes)
        self._compute = compute

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> Float32: ...
    @overload
    def __getitem__(self, index: slice) -> list[Float32]: ...
    def __getitem__(self, index: int | slice) -> Float32 | list[Float32]:
        positions = range(len(self))[index]
        return self._compute(positions) if isinstance(positions, int) else [self._compute(one) for one in positions]
