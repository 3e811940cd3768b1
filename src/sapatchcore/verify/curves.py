"""Curves to draw, and how far to trust the AUROC of a few hundred images.

Curves: ROC, precision-recall and per-region overlap (PRO), exact, from the same counts as the figures (`RankCounts`). So a
curve's area is its figure: the trapezia under ROC are AUROC, the steps of precision-recall are average precision, PRO up to
a limit is AUPRO. `thinned` keeps the points that show, as Douglas and Peucker do ("Algorithms for the reduction of the
number of points required to represent a digitized line", Cartographica 10, 1973): always the point farthest from what is
drawn so far. We differ: scikit-learn draws precision-recall from (0, 1) through its points; we draw the steps that are
added up.

Intervals: percentile bootstrap, B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. The images
of each class are drawn again, as many as there are and with replacement (stratified: a test set's share of defects is its
maker's choice), and the AUROC is taken anew; the interval holds the middle 95 % of these. Exact with ties: a resample only
weighs the scores that are there, so their ranks are found once,

    AUROC* = Σ_i w_i (Σ_{j: s_j < s_i} v_j + ½ Σ_{j: s_j = s_i} v_j) / (p n)     w, v multinomial: defects, good

An AUROC of 1 has the interval [1, 1], since every resample of separated scores is separated. And the images are taken as
independent: several pictures of one part count for less than they seem to.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import MetricError
from sapatchcore.score.metrics import Float64, auroc, ranked

POINTS = 400  # of a thinned curve, at most
UNSEEN = 1e-4  # of the side of a plot: a twentieth of a pixel of 500
RESAMPLES, LEVEL = 2_000, 0.95
_CELLS = 1 << 21  # weights at a time, of all resamples together: 16 MB


@dataclass(frozen=True, eq=False)
class Curve:
    """A polyline: x (p,) float64, never falling, and y (p,) float64, both in [0, 1]; p is at least 2."""

    x: Float64
    y: Float64

    def __len__(self) -> int:
        return len(self.x)

    def area(self, limit: float = 1.0) -> float:
        """The area below it for 0 ≤ x ≤ limit, over the limit."""
        cut = self.upto(limit)
        return float(np.sum(np.diff(cut.x) * (cut.y[1:] + cut.y[:-1])) / 2 / limit)

    def upto(self, limit: float) -> Curve:
        """The part with x ≤ limit; its last point is interpolated where none lies there."""
        if self.x[-1] <= limit:
            return self
        inside = int(np.searchsorted(self.x, limit, side="right"))
        last, first = self.x[inside - 1], self.x[inside]
        share = (limit - last) / (first - last)
        end = self.y[inside - 1] + share * (self.y[inside] - self.y[inside - 1])
        return Curve(np.append(self.x[:inside], limit), np.append(self.y[:inside], end))


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Curve:
    """x: false positive rate, y: true positive rate; diagonal where scores tie. Its area is `auroc`.

    ``labels``, ``scores`` and errors: as for `auroc`.
    """
    return Curve(*ranked("The ROC curve", labels, scores, need_negatives=True).corners())


def precision_recall_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Curve:
    """x: recall, y: precision, in steps: each precision holds for the recall that was gained with it. Its area is
    `average_precision`.

    ``labels``, ``scores`` and errors: as for `average_precision`.
    """
    counts = ranked("The precision-recall curve", labels, scores, need_negatives=False)
    recall, precision = counts.precision_recall()
    before = np.append(0.0, recall[:-1])
    return Curve(np.stack((before, recall), axis=1).ravel(), np.repeat(precision, 2))


def thinned(curve: Curve, most: int = POINTS) -> Curve:
    """The curve with at most ``most`` of its points, at least 2, ends among them; all that can be seen where they suffice.

    The point farthest from the drawn line joins it, again and again, until no point is farther than ``UNSEEN``.
    """
    points = np.stack((curve.x, curve.y), axis=1)  # (p, 2)
    kept = [0, len(points) - 1]
    waiting: list[tuple[float, int, int, int]] = []  # minus the distance, the point, and the kept ones around it

    def look(first: int, last: int) -> None:
        if last - first < 2:
            return
        away = _distances(points[first + 1 : last], points[first], points[last])
        at = int(away.argmax())
        heapq.heappush(waiting, (-float(away[at]), first + 1 + at, first, last))

    look(*kept)
    while waiting and len(kept) < most:
        distance, at, first, last = heapq.heappop(waiting)
        if -distance <= UNSEEN:
            break
        kept.append(at)
        look(first, at)
        look(at, last)
    kept.sort()
    return Curve(curve.x[kept], curve.y[kept])


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


def _distances(points: Float64, start: Float64, end: Float64) -> Float64:
    """(p,) distances of points (p, 2) from the line between start and end, (2,) each."""
    along, away = end - start, points - start
    length = float(along @ along)
    share = np.clip(away @ along / length, 0, 1) if length else np.zeros(len(points))
    found: Float64 = np.hypot(*(away - share[:, None] * along).T)
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
