"""How far to trust an AUROC of a few hundred images: a percentile bootstrap interval.

Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. The images of each class are
drawn again, as many as there are and with replacement (stratified: a test set's share of defects is its maker's choice), and
the AUROC is taken anew; the interval holds the middle 95 % of these. Exact with ties: a resample only weighs the scores that
are there, so their ranks are found once,

    AUROC* = Σ_i w_i (Σ_{j: s_j < s_i} v_j + ½ Σ_{j: s_j = s_i} v_j) / (p n)     w, v multinomial: defects, good

What it does not say: an AUROC of 1 has the interval [1, 1], since every resample of separated scores is separated. And the
images are taken as independent; several pictures of one part are fewer than they seem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import MetricError
from sapatchcore.verify.metrics import auroc

RESAMPLES, LEVEL = 2_000, 0.95
_CELLS = 1 << 21  # weights at a time, of all resamples together: 16 MB


@dataclass(frozen=True)
class Interval:
    """An AUROC and the bounds that hold the middle ``level`` of its resamples; NaN where ``reason`` says why."""

    auroc: float
    low: float
    high: float
    level: float = LEVEL
    resamples: int = RESAMPLES
    reason: str = ""


def auroc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """The AUROC with its percentile bootstrap interval; the same seed gives the same interval.

    ``labels``: (n,) bool or 0 and 1, 1 = defect. ``scores``: (n,) finite, higher = more anomalous. Raises `MetricError`
    as `auroc` does, and for fewer than 2 images of a class: drawn again, one image is always itself.
    """
    if resamples < 1 or not 0 < level < 1:
        raise MetricError(
            f"An interval needs resamples of at least 1 and a level in (0, 1). Got {resamples} and {level}. "
            f"Use {RESAMPLES} and {LEVEL}."
        )
    whole = auroc(labels, scores)
    positive, values = np.asarray(labels).astype(np.bool_), np.asarray(scores)
    defective, good = values[positive], np.sort(values[~positive])
    if min(len(defective), len(good)) < 2:
        raise MetricError(
            f"An interval of an AUROC needs 2 or more images of each class. Got {len(good)} good and {len(defective)} "
            "defective: one image says nothing of how others vary. Add test images."
        )
    drawn = _resampled(defective, good, resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(whole, float(low), float(high), level, resamples)


def per_defect_intervals(
    labels: Sequence[str],
    scores: npt.ArrayLike,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """Each defect's images against all good ones, as `per_defect_auroc`; NaN bounds with the reason for a single image.

    ``labels``: n names, "good" for a normal image. Raises `MetricError` without a good image.
    """
    names, values = np.asarray(labels, dtype=object), np.asarray(scores)
    good = names == "good"
    found = {}
    for name in sorted(set(names[~good].tolist())):
        taken = good | (names == name)
        defective = names[taken] == name
        try:
            found[name] = auroc_interval(defective, values[taken], resamples=resamples, level=level, seed=seed)
        except MetricError as error:
            area = auroc(defective, values[taken])
            found[name] = Interval(area, math.nan, math.nan, level, resamples, str(error))
    return found


def _resampled(
    defective: npt.NDArray[np.floating], good: npt.NDArray[np.floating], resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """(resamples,) AUROC of each resample. good: sorted."""
    below = np.searchsorted(good, defective, side="left")  # (p,)
    upto = np.searchsorted(good, defective, side="right")
    # One generator a class: however many resamples are drawn at a time, they are the same.
    of_defective, of_good = np.random.default_rng(seed).spawn(2)
    p, n = len(defective), len(good)
    together = max(1, _CELLS // (p + n))
    found = np.empty(resamples)
    for start in range(0, resamples, together):
        count = min(together, resamples - start)
        w = of_defective.multinomial(p, np.full(p, 1 / p), count)  # (count, p) int64
        v = of_good.multinomial(n, np.full(n, 1 / n), count)
        before = np.concatenate((np.zeros((count, 1), np.int64), np.cumsum(v, axis=1)), axis=1)  # (count, n + 1)
        half_pairs = (w * (before[:, below] + before[:, upto])).sum(axis=1)  # twice below, and ties once
        found[start : start + count] = half_pairs / (2 * p * n)
    return found
