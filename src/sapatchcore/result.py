"""What ``predict`` returns: scores, their two parts, and maps on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.sources import Batch
from sapatchcore.data.transform import Size
from sapatchcore.errors import DataError
from sapatchcore.score.anomaly_map import Float32, Maps, anomaly_map, part_map


@dataclass(frozen=True, eq=False)
class Result:
    """n scored images; higher = more anomalous, everywhere.

    Attributes:
        paths: n texts, each image's path, or "image 3" for one that came as pixels.
        scores: (n,) float32, one an image. local_scores, context_scores: (n,) float32, its two parts:
            score² = local² + context².
        patch_scores: (n, h, w) float32 on layer 2's grid. local_patches, context_patches: (n, h, w) float32, the parts
            of each: patch score² = local² + context².
        neighbours: (n, h, w) int64, the nearest row of the memory bank.
        sizes: n × (H, W), the images' own sizes in pixels.
        resize, crop: how the images were brought to the network.

    Raises:
        ValueError: lengths or shapes that do not fit each other (a defect of the caller's code).
    """

    paths: tuple[str, ...]
    scores: Float32
    local_scores: Float32
    context_scores: Float32
    patch_scores: Float32
    local_patches: Float32
    context_patches: Float32
    neighbours: npt.NDArray[np.int64]
    sizes: tuple[Size, ...]
    resize: Size
    crop: Size | None

    def __post_init__(self) -> None:
        n = len(self.paths)
        for name in ("scores", "local_scores", "context_scores"):
            value = getattr(self, name)
            if value.shape != (n,) or value.dtype != np.float32:
                raise ValueError(f"Result.{name} must be ({n},) float32. Got {value.shape} {value.dtype}.")
        grid = self.patch_scores.shape
        for name in ("patch_scores", "local_patches", "context_patches", "neighbours"):
            value = getattr(self, name)
            if value.ndim != 3 or value.shape != grid or len(value) != n:
                raise ValueError(f"Result.{name} must be ({n}, h, w) as the others. Got {value.shape}.")
        if len(self.sizes) != n:
            raise ValueError(f"Result.sizes must have {n} entries. Got {len(self.sizes)}.")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def maps(self) -> Maps:
        """n anomaly maps, each (H, W) float32 at its image's own size, computed when asked for."""
        return Maps(self.sizes, lambda i: anomaly_map(self.patch_scores[i], self.sizes[i], self.resize, self.crop))

    @property
    def local_maps(self) -> Maps:
        """The local part of each map, (H, W) float32: map² = local² + context²."""
        return self._parts(self.local_patches)

    @property
    def context_maps(self) -> Maps:
        """The context part of each map, (H, W) float32."""
        return self._parts(self.context_patches)

    def _parts(self, part: Float32) -> Maps:
        return Maps(
            self.sizes,
            lambda i: part_map(self.patch_scores[i], part[i], self.sizes[i], self.resize, self.crop),
        )


def gather_result(
    scored: Iterable[tuple[Batch, Sequence[npt.NDArray[Any]]]],
    *,
    resize: Size,
    crop: Size | None,
    total: int | None,
    progress: Callable[[str, int, int | None], None] | None,
) -> Result:
    """One Result of scored batches, whatever scored them.

    scored: each batch with its scores, local and context scores (n,), and patch scores, their two parts and the nearest
    rows (n, h, w), in this order. total: images in all, where that is known; for ``progress("predict", done, total)``.

    Raises DataError where there is no image.
    """
    names: list[str] = []
    sizes: list[Size] = []
    parts = []
    for batch, arrays in scored:
        parts.append(arrays)
        names += batch.names
        sizes += batch.sizes
        if progress is not None:
            progress("predict", len(names), total)
    if not names:
        raise DataError("No image to score was given. Give at least one.")
    scores, local, context, whole, local_grid, context_grid, rows = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Result(
        paths=tuple(names),
        scores=scores,
        local_scores=local,
        context_scores=context,
        patch_scores=whole,
        local_patches=local_grid,
        context_patches=context_grid,
        neighbours=rows,
        sizes=tuple(sizes),
        resize=resize,
        crop=crop,
    )
