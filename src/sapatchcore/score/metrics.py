"""Threshold metrics, exact and with ties: AUROC, average precision, the best F-beta, areas under PRO curves.

Sources: T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006 (the curve, a
diagonal where scores tie); the per-region overlap that `pixels` builds on this core: see there.

The idea: a curve only turns at the score of a positive. So every metric follows from the distinct scores of
the positives u_1 < … < u_k, the weight of the positives at each, and how many negatives lie below, at and
above each u_j. Negatives stream through and are never stored, which bounds the memory by the positives: the
few defective pixels instead of all pixels of a test set. No score is squashed, binned or subsampled.

We differ: torchmetrics passes scores outside [0, 1] through a sigmoid, which can merge scores that differ; we
compare scores as they are, so every metric here is invariant under strictly increasing transformations. Where
a metric is undefined we raise `MetricError`; scikit-learn warns and returns 0 or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import MetricError

Scores = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

# Negatives are sorted in chunks of at least this many, so that small images share one search.
_CHUNK = 1 << 22


class RankCounts:
    """Where negatives rank among the positives; all that the metrics need.

    ``positives``: (p,) finite float32 or float64 with p ≥ 1. ``weights``: (p,) float64 > 0, what each
    positive adds to the height of the curve of `area`; 1 each if omitted. The other metrics count positives
    and ignore weights.
    """

    def __init__(self, positives: Scores, weights: npt.NDArray[np.float64] | None = None) -> None:
        order = np.argsort(positives, kind="stable")  # stable: equal scores add up in the order given
        ranked = positives[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))  # (k,)
        self.values: Scores = ranked[starts]  # (k,) increasing
        self.counts = np.diff(np.append(starts, ranked.size))  # (k,) positives at each value
        self.weights = self.counts.astype(np.float64)
        if weights is not None:
            self.weights = np.add.reduceat(weights[order], starts)
        self.positives = int(ranked.size)
        self._negatives = 0
        self._below = np.zeros(starts.size, np.int64)  # negatives < u_j
        self._upto = np.zeros(starts.size, np.int64)  # negatives <= u_j
        self._pending: list[Scores] = []
        self._pending_size = 0

    def add_negatives(self, scores: Scores) -> None:
        """Count ``scores``: (n,) finite. They are kept until a chunk is full, so hand over a copy."""
        self._pending.append(scores)
        self._pending_size += scores.size
        # Each chunk costs 2k searches; chunks of at least 2k keep that below one search a negative.
        if self._pending_size >= max(_CHUNK, 2 * self.values.size):
            self._flush()

    def _flush(self) -> None:
        if not self._pending_size:
            return
        chunk = np.concatenate(self._pending)  # a float64 among float32 widens the chunk: nothing is rounded
        self._pending, self._pending_size = [], 0
        chunk.sort()
        self._below += np.searchsorted(chunk, self.values, side="left")
        self._upto += np.searchsorted(chunk, self.values, side="right")
        self._negatives += chunk.size

    @property
    def negatives(self) -> int:
        """How many negatives were counted."""
        self._flush()
        return self._negatives

    def auroc(self) -> float:
        """The share of (positive, negative) pairs in the right order, a tie being half. Needs a negative."""
        n = self.negatives
        half_pairs = self._below + self._upto  # (k,) 2·below + ties
        # Integers throughout (2·p·n must stay below 2⁶³), so a perfect separation is exactly 1.
        return int(self.counts @ half_pairs) / (2 * self.positives * n)

    def average_precision(self) -> float:
        """Σ_j (recall gained at u_j) · (precision at u_j); 1 without negatives."""
        _, precision = self.precision_recall()
        return float(np.sum(self.counts * precision[::-1])) / self.positives

    def best_f1(self, beta: float = 1.0) -> tuple[float, float]:
        """The largest F-beta of "score >= u_j" and that u_j, the highest one if several are best."""
        n = self.negatives
        found = np.cumsum(self.counts[::-1])  # (k,) from the highest value down
        false = n - self._below[::-1]
        f = (1 + beta**2) * found / (beta**2 * self.positives + found + false)
        best = int(np.argmax(f))  # the first, that is the highest, of equals
        return float(f[best]), float(self.values[::-1][best])

    def area(self, fpr_limit: float = 1.0) -> float:
        """Area under (false positive rate, share of the weight found), 0 ≤ rate ≤ limit, over the limit.

        Piecewise linear, diagonal at ties, interpolated at the limit. Needs a negative.
        """
        limit = fpr_limit * self.negatives
        # The weight at u_j lifts the curve to the right of its step, which starts after the negatives above
        # u_j and climbs over the ties. Up to the limit it adds a triangle, then a rectangle.
        ties = self._upto - self._below
        above = self._negatives - self._upto
        climbed = np.clip(limit - above, 0, ties)
        width = climbed**2 / (2 * np.maximum(ties, 1)) + np.maximum(limit - above - ties, 0)
        # Both sums round alike, so the mean of shares in [0, 1] cannot leave [0, 1].
        return float(np.sum(self.weights * (width / limit)) / np.sum(self.weights))

    def corners(self) -> tuple[Float64, Float64]:
        """Where the curve of `area` turns, from (0, 0) to (1, 1): false positive rates and shares of the weight found,
        each (2k + 2,) and never falling. Needs a negative."""
        n = self.negatives
        # At u_j the rate grows over the negatives above it, and then over the ties while the weight at u_j is found.
        rates = np.stack((n - self._upto[::-1], n - self._below[::-1]), axis=1).ravel() / n  # (2k,)
        found = np.cumsum(self.weights[::-1])  # (k,) from the highest value down
        shares = np.stack((np.append(0.0, found[:-1]), found), axis=1).ravel() / found[-1]
        return np.concatenate(([0.0], rates, [1.0])), np.concatenate(([0.0], shares, [1.0]))

    def precision_recall(self) -> tuple[Float64, Float64]:
        """Recall and precision of "score >= u_j", each (k,), from the highest u_j down; what `average_precision` adds up."""
        n = self.negatives
        found = np.cumsum(self.counts[::-1])  # (k,)
        return found / self.positives, found / (found + (n - self._below[::-1]))


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, a tie counting one half.

    ``labels``: (n,) bool or 0 and 1, 1 = defect. ``scores``: (n,) finite, higher = more anomalous.
    Raises `MetricError` if only one class is present, or labels or scores are malformed.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return ranked("AUROC", labels, scores, need_negatives=True).auroc()


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision, stepwise as in scikit-learn: the sum of precision times the recall gained.

    ``labels``, ``scores``: as for `auroc`. Raises `MetricError` if there is no positive; 1 if there is no
    negative.
    """
    return ranked("Average precision", labels, scores, need_negatives=False).average_precision()


def best_f1(labels: npt.ArrayLike, scores: npt.ArrayLike, beta: float = 1.0) -> tuple[float, float]:
    """The largest F-beta over all thresholds t of "score >= t", and the highest score t that reaches it.

    ``labels``, ``scores``: as for `auroc`; ``beta`` > 0 weighs recall beta times as much as precision.
    Raises `MetricError` if there is no positive or ``beta`` is not positive.
    """
    check_beta(beta)
    return ranked("The best F-beta", labels, scores, need_negatives=False).best_f1(beta)


def per_defect_auroc(labels: Sequence[str], scores: npt.ArrayLike) -> dict[str, float]:
    """The AUROC of each defect's images against all good ones, sorted by the defect's name.

    ``labels``: n names, "good" for a normal image. ``scores``: (n,) finite. Raises `MetricError` without a
    good image.
    """
    names = np.asarray(labels, dtype=object)
    values = _finite(scores)
    _same_length(names.shape, values.shape)
    good = names == "good"
    if not good.any():
        raise MetricError(
            f"The AUROC of a defect needs images labelled 'good'. Got none among {names.size} images. "
            "Add good images to the test set."
        )
    defects = sorted(set(names[~good].tolist()))
    return {name: auroc((names == name)[good | (names == name)], values[good | (names == name)]) for name in defects}


def check_beta(beta: float) -> None:
    """Raise `MetricError` unless ``beta`` can weigh an F-beta."""
    if not (math.isfinite(beta) and beta > 0):
        raise MetricError(f"beta must be a number above 0. Got {beta}. Use 1 for F1, 2 to weigh recall twice.")


def ranked(metric: str, labels: npt.ArrayLike, scores: npt.ArrayLike, *, need_negatives: bool) -> RankCounts:
    """Check (n,) labels and scores, and rank the negatives among the positives."""
    given, values = np.asarray(labels), _finite(scores)
    _same_length(given.shape, values.shape)
    if given.dtype != np.bool_:
        wrong = given[~((given == 0) | (given == 1))]
        if wrong.size:
            raise MetricError(
                f"Labels must be 0 (good) or 1 (defect). Got {wrong[0].item()!r} and {wrong.size - 1} more "
                "that are neither. Convert the labels first, for example with np.asarray(names) != 'good'."
            )
    positive = given.astype(np.bool_)
    missing = [] if positive.any() else ["positives (label 1, defect)"]
    if need_negatives and positive.all():
        missing.append("negatives (label 0, good)")
    if missing:
        raise MetricError(
            f"{metric} is not defined without {' and '.join(missing)}. Got {values.size} samples, "
            f"{int(positive.sum())} of them positive. Add images of the missing class to the test set."
        )
    ranks = RankCounts(values[positive])
    ranks.add_negatives(values[~positive])
    return ranks


def _finite(scores: npt.ArrayLike) -> Scores:
    """(n,) scores as float32 or float64, all finite."""
    values = np.asarray(scores)
    if values.dtype.kind not in "biuf":
        raise MetricError(f"Scores must be real numbers. Got dtype {values.dtype}. Pass a float array.")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise MetricError(
            f"Scores must be finite. Got {bad} NaN or infinite of {values.size}. "
            "Find the images behind them and predict again."
        )
    return values


def _same_length(labels: tuple[int, ...], scores: tuple[int, ...]) -> None:
    if len(labels) != 1 or labels != scores:
        raise MetricError(
            "Labels and scores must be one-dimensional and of equal length. "
            f"Got shapes {labels} and {scores}. Pass one label and one score an image."
        )
