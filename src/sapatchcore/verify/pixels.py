"""Pixel metrics of a whole test set, exact, with memory for its defective pixels only.

Sources: P. Bergmann et al., "MVTec AD", CVPR 2019 and IJCV 2021: per-region overlap, PRO, the mean over all
connected defect regions of the share of the region that is found, integrated over the false positive rate of
all pixels outside the ground truth up to 0.3. P. Bergmann et al., "Beyond Dents and Scratches", IJCV 2022:
saturated PRO, min(|A ∩ P| / s, 1), where s pixels of a region A are enough.

Both are counts with weights, so `RankCounts` computes them as it computes an AUROC. PRO: each pixel of a
region weighs 1 / size. sPRO: the region's s highest scoring pixels weigh 1 / s, the others nothing; at any
threshold the weight found is min(|A ∩ P|, s) / s. As in the benchmarks' own evaluations, regions of PRO are
8-connected, every region (PRO) or channel (sPRO) of every image has equal weight, and the negatives are the
pixels outside all regions of their image.

We differ: the benchmark of MVTec LOCO AD refines thresholds until neighbouring points of the curve are close,
and that of MVTec AD needs all pixels in memory; here every score is a threshold, and negatives stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import MetricError
from sapatchcore.score.metrics import RankCounts, Scores, check_beta
from sapatchcore.score.regions import label_regions
from sapatchcore.verify.curves import Curve, thinned

Mask = npt.NDArray[np.bool_]
T_co = TypeVar("T_co", covariant=True)


class Indexed(Protocol[T_co]):
    """A list, or anything with a length whose items may be computed when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


class Lazy(Generic[T_co]):
    """``length`` items, item i being ``compute(i)``: a set of large masks is never in memory as a whole."""

    def __init__(self, length: int, compute: Callable[[int], T_co]) -> None:
        self._length, self._compute = length, compute

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> T_co:
        return self._compute(index)


@dataclass(frozen=True)
class PixelMetrics:
    """Pixel metrics of a test set. NaN where a metric is undefined: ``reasons`` says why, by its name.

    pro: the curve whose area up to ``fpr_limit`` is ``aupro``, up to there and thinned for drawing; None without one.
    """

    auroc: float
    average_precision: float
    f1: float
    f1_threshold: float
    aupro: float
    defective_pixels: int
    pixels: int
    regions: int
    reasons: dict[str, str] = field(default_factory=dict)
    pro: Curve | None = field(default=None, compare=False, repr=False)


def pixel_metrics(
    masks: Indexed[Mask],
    maps: Indexed[npt.NDArray[Any]],
    *,
    fpr_limit: float = 0.3,
    beta: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> PixelMetrics:
    """AUROC, average precision, best F-beta (as f1) and AUPRO over all pixels of all images.

    ``masks``: n × (h, w) bool, True = defective, all False for a good image; each image has its own size. No
    masks at all (length 0) gives NaN. ``maps``: n × (h, w) float32 or float64, higher = more anomalous.

    Items are fetched by index, one image at a time, in two passes: first the maps whose mask has a defect,
    then all. So a lazy ``maps`` computes the map of a good image once and of a defective image twice.
    ``progress`` is called with 1, 2, … 2·n, images done in the first pass, then in the second.

    Raises `MetricError`, with the image's index, for a map that does not fit its mask or is not finite.
    """
    _check_limit(fpr_limit)
    check_beta(beta)
    if not len(masks):
        return _undefined("no ground-truth masks", pixels=0)
    _check_lengths("masks", len(masks), len(maps))
    done = progress or _ignore

    scores: list[Scores] = []
    weights: list[npt.NDArray[np.float64]] = []
    shapes: list[tuple[int, ...]] = []
    defective: list[bool] = []
    regions = 0
    for i in range(len(masks)):
        mask = _checked_mask(masks[i], f"The mask of image {i}")
        shapes.append(mask.shape)
        defective.append(bool(mask.any()))
        if defective[i]:
            labels, count = label_regions(mask)
            inside = labels[mask]  # (p,) region of each defective pixel
            regions += count
            scores.append(_checked_map(maps[i], i, mask.shape)[mask])
            weights.append(1.0 / np.bincount(inside)[inside])
        done(i + 1)
    pixels = sum(math.prod(shape) for shape in shapes)
    if not scores:
        done(2 * len(masks))
        return _undefined("no defective pixel in the ground truth", pixels)

    ranks = RankCounts(np.concatenate(scores), np.concatenate(weights))
    del scores, weights
    for i, shape in enumerate(shapes):
        values = _checked_map(maps[i], i, shape)
        ranks.add_negatives(values[~masks[i]] if defective[i] else values.flatten())
        done(len(maps) + i + 1)

    f1, threshold = ranks.best_f1(beta)
    reasons: dict[str, str] = {}
    area = aupro = math.nan
    pro = None
    if ranks.negatives:
        area, aupro = ranks.auroc(), ranks.area(fpr_limit)
        pro = thinned(Curve(*ranks.corners()).upto(fpr_limit))
    else:
        reasons = dict.fromkeys(("auroc", "aupro"), "no pixel outside the ground truth's defects")
    return PixelMetrics(
        auroc=area,
        average_precision=ranks.average_precision(),
        f1=f1,
        f1_threshold=threshold,
        aupro=aupro,
        defective_pixels=ranks.positives,
        pixels=pixels,
        regions=regions,
        reasons=reasons,
        pro=pro,
    )


def spro_metrics(
    regions: Indexed[Sequence[tuple[Mask, int]]],
    maps: Indexed[npt.NDArray[Any]],
    *,
    fpr_limits: Sequence[float] = (0.01, 0.05, 0.1, 0.3, 1.0),
    progress: Callable[[int], None] | None = None,
) -> dict[float, float]:
    """The area under the sPRO curve up to each limit of the false positive rate, divided by that limit.

    ``regions``: for each of n images its regions, each a mask (h, w) bool and the saturation area in pixels
    (at least 1; more than the region has counts as all of it); [] for a good image. Regions may overlap.
    ``maps``, the two passes and ``progress``: as for `pixel_metrics`.

    MVTec LOCO AD reports logical and structural anomalies apart, each with all good images, and the mean of
    the two: call this once for each. Raises `MetricError` if there is no region, or no pixel outside the
    regions.
    """
    for limit in fpr_limits:
        _check_limit(limit)
    _check_lengths("lists of regions", len(regions), len(maps))
    done = progress or _ignore

    scores: list[Scores] = []
    weights: list[npt.NDArray[np.float64]] = []
    for i in range(len(maps)):
        found = _checked_regions(regions[i], i)
        if found:
            values = _checked_map(maps[i], i, found[0][0].shape)
        for mask, saturation in found:
            inside = values[mask]
            s = min(saturation, inside.size)
            scores.append(np.partition(inside, inside.size - s)[inside.size - s :])
            weights.append(np.full(s, 1.0 / s))
        done(i + 1)
    if not scores:
        raise MetricError(
            "sPRO is not defined without a defect region. Got none in "
            f"{len(maps)} images. Add defective images with ground truth to the test set."
        )

    ranks = RankCounts(np.concatenate(scores), np.concatenate(weights))
    del scores, weights
    for i in range(len(maps)):
        found = _checked_regions(regions[i], i)
        values = _checked_map(maps[i], i, found[0][0].shape if found else None)
        outside = ~np.logical_or.reduce([mask for mask, _ in found]) if found else None
        ranks.add_negatives(values.flatten() if outside is None else values[outside])
        done(len(maps) + i + 1)
    if not ranks.negatives:
        raise MetricError(
            "sPRO is not defined without pixels outside the defect regions. Got regions that cover "
            f"all pixels of {len(maps)} images. Add good images to the test set."
        )
    return {limit: ranks.area(limit) for limit in fpr_limits}


def _undefined(reason: str, pixels: int) -> PixelMetrics:
    names = ("auroc", "average_precision", "f1", "f1_threshold", "aupro")
    undefined: dict[str, Any] = dict.fromkeys(names, math.nan)
    return PixelMetrics(
        **undefined,
        defective_pixels=0,
        pixels=pixels,
        regions=0,
        reasons=dict.fromkeys(names, reason),
    )


def _ignore(_done: int) -> None:
    """Nobody watches the progress."""


def _check_limit(limit: float) -> None:
    if not 0 < limit <= 1:
        raise MetricError(f"A limit of the false positive rate must be in (0, 1]. Got {limit}. Use 0.3 for 30 %.")


def _check_lengths(what: str, given: int, maps: int) -> None:
    if given != maps:
        raise MetricError(
            f"Every image needs its ground truth and its map. Got {given} {what} and {maps} maps. "
            "Use an empty entry for a good image."
        )


def _checked_mask(mask: Mask, what: str) -> Mask:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise MetricError(
            f"{what} must be a (h, w) bool array. Got shape {mask.shape}, dtype {mask.dtype}. "
            "Compare it with its background first: mask > 0."
        )
    return mask


def _checked_map(values: npt.NDArray[Any], index: int, shape: tuple[int, ...] | None) -> Scores:
    """``values`` (h, w) as float32 or float64, finite, of ``shape`` if there is one to fit."""
    if values.ndim != 2 or (shape is not None and values.shape != shape):
        raise MetricError(
            f"The map of image {index} must be (h, w) and as large as its mask. Got a map of {values.shape} "
            f"and {'no mask' if shape is None else f'a mask of {shape}'}. Bring both to the image's own size."
        )
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise MetricError(
            f"The map of image {index} must be finite. Got {bad} NaN or infinite of {values.size} pixels. "
            "Check that image and predict it again."
        )
    return values


def _checked_regions(regions: Sequence[tuple[Mask, int]], index: int) -> Sequence[tuple[Mask, int]]:
    for number, (mask, saturation) in enumerate(regions):
        _checked_mask(mask, f"Region {number} of image {index}")
        if mask.shape != regions[0][0].shape:
            raise MetricError(
                f"All regions of image {index} must have one shape. "
                f"Got {regions[0][0].shape} and {mask.shape}. Bring them to the image's own size (h, w)."
            )
        if not mask.any() or saturation < 1:
            raise MetricError(
                f"Region {number} of image {index} must have pixels and a saturation area of at least 1. Got "
                f"{int(mask.sum())} pixels and {saturation}. Leave an empty region out."
            )
    return regions
