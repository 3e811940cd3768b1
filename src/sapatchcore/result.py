"""What ``predict`` returns: scores, their two parts, maps on demand, and verdicts where good images were scored before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch
from sapatchcore.errors import DataError, NotFittedError
from sapatchcore.score.anomaly_score import Float32, Maps, anomaly_map, part_map
from sapatchcore.score.calibration import NO_CALIBRATION, Calibration
from sapatchcore.score.regions import Region, find_regions
from sapatchcore.score.threshold import p_values, possible_rate
from sapatchcore.score.verdict import KindClassifier, Verdict
from sapatchcore.settings import Settings

_ROUNDING = 1e-5  # of a map's values, relative, at most
_OF_IMAGES = ("scores", "local_scores", "context_scores")
_OF_PATCHES = ("patch_scores", "local_patches", "context_patches", "neighbours")


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
        calibration: the scores of good images that verdicts are measured against; None where there are none.

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
        if len(self.sizes) != n:
            raise ValueError(f"Result.sizes must have {n} entries. Got {len(self.sizes)}.")

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, image: int) -> Result:
        """The result of the image number ``image`` alone."""
        here = slice(image, image + 1)
        each = (f.name for f in fields(self) if f.name not in ("resize", "crop", "calibration"))
        return replace(self, **{name: getattr(self, name)[here] for name in each})

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
    def p_values(self) -> npt.NDArray[np.float64]:
        """(n,) float64 in (0, 1]: small where few good images score as high. Raises NotFittedError without calibration."""
        return p_values(self.scores, self._calibrated().scores)

    def rate(self, false_reject: float | None = None) -> float:
        """The promised rate: ``false_reject``, or where it is None 0.01, or the smallest rate that the calibration can
        promise where that is larger. Raises NotFittedError without calibration."""
        count = len(self._calibrated())
        return possible_rate(count) if false_reject is None else false_reject

    def threshold(self, false_reject: float | None = None) -> float:
        """The score above which an image is rejected, so that at most ``false_reject`` of good parts are; see ``Calibrated``."""
        return self._calibrated().threshold(false_reject)

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """The map value such that at most ``false_reject`` of good images show any pixel above it; as ``threshold``."""
        return self._calibrated().pixel_threshold(false_reject)

    def regions(self, image: int, false_reject: float | None = None) -> list[Region]:
        """The regions of one image above ``pixel_threshold``, with area, box and mask, the highest peak first."""
        limit = self.pixel_threshold(false_reject)
        if self.patch_scores[image].max() * (1 + _ROUNDING) <= limit:  # as of most good images
            return []  # a map's values are means of patch scores: none exceeds them all
        return find_regions(self.maps[image], limit)

    def verdicts(self, false_reject: float | None = None) -> list[Verdict]:
        """What is decided of each image, and of which kind it is; false_reject and errors as of ``threshold``."""
        kinds, limit = KindClassifier(self._calibrated()), self.threshold(false_reject)
        parts = self.local_patches.max((1, 2)), self.context_patches.max((1, 2))
        verdicts = []
        for row in zip(self.scores, self.p_values, self.local_scores, self.context_scores, *parts, strict=True):
            score, p, local, context, most_local, most_context = (float(value) for value in row)
            ratios = kinds.ratios(most_local, most_context)
            kind = kinds.kind(most_local, most_context) if score > limit else ""
            verdicts.append(Verdict(score > limit, score, limit, p, local, context, *ratios, kind))
        return verdicts

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise NotFittedError(NO_CALIBRATION)
        return self.calibration

    def _parts(self, part: Float32) -> Maps:
        return Maps(
            self.sizes, lambda i: part_map(self.patch_scores[i], part[i], self.sizes[i], self.resize, self.crop)
        )


def gather_result(
    scored: Iterable[tuple[Batch, Sequence[npt.NDArray[Any]]]],
    settings: Settings,
    *,
    calibration: Calibration | None = None,
    total: int | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    stage: str = "predict",
) -> Result:
    """One Result of scored batches, whatever scored them.

    scored: each batch with its arrays in the order of ``score_patches``. settings: that they were scored with. calibration: what
    verdicts are measured against. total: images in all, where that is known; for ``progress(stage, done, total)``.

    Raises DataError where there is no image.
    """
    names: list[str] = []
    sizes: list[Size] = []
    columns = _Columns(total or 0)
    for batch, some in scored:
        columns.append(some)
        names += batch.names
        sizes += batch.sizes
        if progress is not None:
            progress(stage, len(names), total)
    if not names:
        raise DataError("No image to score was given. Give at least one.")
    arrays: dict[str, Any] = dict(zip((*_OF_IMAGES, *_OF_PATCHES), columns.arrays(), strict=True))
    arrays |= {"resize": settings.resize, "crop": settings.crop, "calibration": calibration}
    return Result(paths=tuple(names), sizes=tuple(sizes), **arrays)


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
