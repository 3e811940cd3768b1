"""Curves to draw: ROC, precision-recall and per-region overlap (PRO), exact, and then thinned for the eye.

The points come from the same counts as the figures (`RankCounts`), so a curve's area is its figure: the trapezia under
ROC are AUROC, the steps of precision-recall are average precision, PRO up to a limit is AUPRO. `thinned` keeps the
points that show, as Douglas and Peucker do ("Algorithms for the reduction of the number of points required to represent a
digitized line", Cartographica 10, 1973): always the point farthest from what is drawn so far.

We differ: scikit-learn draws precision-recall from (0, 1) through its points; we draw the steps that are added up.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sapatchcore.verify.metrics import Float64, ranked

POINTS = 400  # of a thinned curve, at most
UNSEEN = 1e-4  # of the side of a plot: a twentieth of a pixel of 500


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


def _distances(points: Float64, start: Float64, end: Float64) -> Float64:
    """(p,) how far each of the points (p, 2) lies from the line between start and end, (2,) each."""
    along, away = end - start, points - start
    length = float(along @ along)
    share = np.clip(away @ along / length, 0, 1) if length else np.zeros(len(points))
    found: Float64 = np.hypot(*(away - share[:, None] * along).T)
    return found
