"""What ``predict`` returns: scores, their two parts, maps on demand, and verdicts where good images were scored before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Appearance, Size
from sapatchcore.data.sources import Batch
from sapatchcore.data.statistics import ImageStatistics
from sapatchcore.errors import DataError
from sapatchcore.score.anomaly_score import Float32, Maps, anomaly_map, part_map
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.verdict import Verdicts
from sapatchcore.settings import Settings

_OF_IMAGES = ("scores", "local_scores", "context_scores")
_OF_PATCHES = ("patch_scores", "local_patches", "context_patches", "neighbours")
_OF_GLOBAL = ("global_scores", "global_patches")  # where there is a global part


@dataclass(frozen=True, eq=False)
class Result(Verdicts):
    """n scored images; higher = more anomalous, everywhere.

    Attributes:
        paths: n texts, each image's path, or "image 3" for one that came as pixels.
        scores: (n,) float32, one an image. local_scores, context_scores: (n,) float32, its two parts:
            score² = local² + context², where there is no global part.
        patch_scores: (n, h, w) float32 on layer 2's grid. local_patches, context_patches: (n, h, w) float32, the parts
            of each: patch score² = local² + context².
        neighbours: (n, h, w) int64, the nearest row of the memory bank.
        sizes: n × (H, W), the images' own sizes in pixels.
        resize, crop: how the images were brought to the network.
        calibration: the scores of good images that verdicts are measured against; None where there are none.
        global_scores: (n,) float32, how far each image as a whole is from good ones, and global_patches: (n, h, w) float32, what
            each place adds to its square; None where settings have no global part. With it ``scores`` are fused, see
            score/fusion.py, and local² + context² is the square of the patches' own score.
        appearance: n × (brightness, contrast, colour), or (). usual: what the training images had; None where not kept.

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
    calibration: Calibration | None = None
    global_scores: Float32 | None = None
    global_patches: Float32 | None = None
    appearance: tuple[Appearance, ...] = ()
    usual: ImageStatistics | None = None

    def __post_init__(self) -> None:
        n = len(self.paths)
        for name in _OF_IMAGES:
            value = getattr(self, name)
            if value.shape != (n,) or value.dtype != np.float32:
                raise ValueError(f"Result.{name} must be ({n},) float32. Got {value.shape} {value.dtype}.")
        grid = self.patch_scores.shape
        for name in _OF_PATCHES:
            value = getattr(self, name)
            if value.ndim != 3 or value.shape != grid or len(value) != n:
                raise ValueError(f"Result.{name} must be ({n}, h, w) as the others. Got {value.shape}.")
        for name, wanted in zip(_OF_GLOBAL, ((n,), grid), strict=True):
            value = getattr(self, name)
            if value is not None and value.shape != wanted:
                raise ValueError(f"Result.{name} must be {wanted}. Got {value.shape}.")
        if len(self.sizes) != n:
            raise ValueError(f"Result.sizes must have {n} entries. Got {len(self.sizes)}.")

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, image: int) -> Result:
        """The result of the image number ``image`` alone."""
        here = slice(image, image + 1)
        each = [f.name for f in fields(self) if f.name not in ("resize", "crop", "calibration", "usual")]
        each = [name for name in each if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name)[here] for name in each})

    @property
    def notes(self) -> tuple[tuple[str, ...], ...]:
        """n × sentences: what of an image lies outside of what the training images had, its size for example; mostly none."""
        if self.usual is None or not self.appearance:
            return ((),) * len(self)
        return self.usual.notes(self.sizes, self.appearance)

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

    @property
    def global_maps(self) -> Maps | None:
        """What each place adds to the square of the global score, (H, W) float32, smoothed as the others; below 0 where the image
        is more usual for it. None without a global part."""
        shares = self.global_patches
        if shares is None:
            return None
        return Maps(self.sizes, lambda i: anomaly_map(shares[i], self.sizes[i], self.resize, self.crop))

    def _parts(self, part: Float32) -> Maps:
        return Maps(
            self.sizes, lambda i: part_map(self.patch_scores[i], part[i], self.sizes[i], self.resize, self.crop)
        )


def gather_result(
    scored: Iterable[tuple[Batch, Sequence[npt.NDArray[Any]]]],
    settings: Settings,
    calibration: Calibration | None = None,
    usual: ImageStatistics | None = None,
    *,
    total: int | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    stage: str = "predict",
) -> Result:
    """One Result of scored batches, whatever scored them.

    scored: each batch with its arrays in the order of ``score_patches``. settings: that they were scored with. calibration,
    usual: as of Result. total: images in all, where that is known; for ``progress(stage, done, total)``.

    Raises DataError where there is no image.
    """
    names: list[str] = []
    sizes: list[Size] = []
    looks: list[Appearance] = []
    columns = _Columns(total or 0)
    for batch, some in scored:
        columns.append(some)
        names += batch.names
        sizes += batch.sizes
        looks += batch.appearance
        if progress is not None:
            progress(stage, len(names), total)
    if not names:
        raise DataError("No image to score was given. Give at least one.")
    found = columns.arrays()
    arrays: dict[str, Any] = dict(zip((*_OF_IMAGES, *_OF_PATCHES, *_OF_GLOBAL)[: len(found)], found, strict=True))
    arrays |= {"resize": settings.resize, "crop": settings.crop, "calibration": calibration, "usual": usual}
    return Result(paths=tuple(names), sizes=tuple(sizes), appearance=tuple(looks), **arrays)


class _Columns:
    """Arrays of n images that grow by batches, in room that is taken beforehand.

    Kept batch by batch, they would lie between the large arrays that come and go with a batch, and the allocator would take fresh
    memory for those every time: 1.6 MB an image.
    """

    def __init__(self, expected: int) -> None:
        """expected: images, or 0 where their number is not known."""
        self._room, self._used = expected, 0
        self._arrays: list[npt.NDArray[Any]] = []

    def append(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        start, self._used = self._used, self._used + len(arrays[0])
        if not self._arrays or self._used > self._room:
            self._room = max(self._room, 2 * self._used if self._arrays else self._used)
            before, self._arrays = self._arrays, [np.empty((self._room, *one.shape[1:]), one.dtype) for one in arrays]
            for new, old in zip(self._arrays, before, strict=bool(before)):
                new[:start] = old[:start]
        for whole, part in zip(self._arrays, arrays, strict=True):
            whole[start : self._used] = part

    def arrays(self) -> list[npt.NDArray[Any]]:
        return [one[: self._used] for one in self._arrays]
