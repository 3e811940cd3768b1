"""The scores of good images that verdicts are measured against, kept with the model.

Three sources. *Cross-fitted* (Vovk 2015, cross-conformal prediction): the training images part into five folds, and each
image is scored by a bank that was chosen from the other folds alone, with as many rows as the whole bank; no image has to be
given up. New good images meet the whole bank, which has seen a fourth more images in as many rows: two small effects against
each other. What conformal prediction promises exactly for one split holds here about, as nearly as ``docs/verdicts.md``
measured. *Separate*: good images that were not learned from; the promise then is conformal prediction's own. *Left out*, in
models of earlier versions: every training image against the bank less its own patches, a bank that was chosen with the
image at hand; thresholds lie higher, on the careful side.

When the bank changes, ``learning/changes.py`` says what becomes of the scores: kept as upper bounds, taken anew, or raised from
the patch scores, which are kept for this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size
from sapatchcore.errors import NotFittedError
from sapatchcore.score.anomaly_score import anomaly_map
from sapatchcore.score.drift import Drift, drift
from sapatchcore.score.threshold import default_rate, threshold
from sapatchcore.settings import Settings

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

CROSS_FITTED, SEPARATE, LEAVE_ONE_OUT = "cross-fitted", "separate", "left out"
REWEIGHTED = "reweighted"
ARRAYS = ("images", "scores", "local", "context", "peaks", "grids", "rows")
GLOBAL_ARRAYS = ("largest", "global_scores")
NO_CALIBRATION = (
    "There are no scores of good images to measure against: the model was fitted on one image, or loaded with image_score "
    "reweighted where it was fitted with another, or with other neighbors. Calibrate it with good images: "
    "`detector.calibrate(images)`, or `sapatchcore fit` with --calibrate."
)


@dataclass(frozen=True, eq=False)
class Calibration:
    """n good images as the detector scores them.

    source: CROSS_FITTED, SEPARATE or LEAVE_ONE_OUT. names: of the images, n texts. images: (n,) int64, the number of each among
    the training images, -1 for a separate one. scores: (n,) float32, image scores. local, context: (n,) float32, the largest
    local and context part of any patch. peaks: (n,) float32, the largest value of each anomaly map. grids: (n, h, w) float32
    patch scores; rows: (n, h, w) int64, the bank's row that each is measured from, or where the source is CROSS_FITTED, whose
    banks are not kept, the training image that the row came from. sizes: n × (H, W). image_score, neighbors, attention:
    the options that the scores were taken with. largest, global_scores: (n,) float32, where there is a global part: the
    patches' own score and the global one, which ``scores`` are fused from.
    """

    source: str
    names: Sequence[str]
    images: Int64
    scores: Float32
    local: Float32
    context: Float32
    peaks: Float32
    grids: Float32
    rows: Int64
    sizes: Sequence[Size]
    image_score: str
    neighbors: int
    attention: str = "self"
    largest: Float32 | None = None
    global_scores: Float32 | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        for name in ("names", "sizes", *self.array_names):
            if len(getattr(self, name)) != n:
                raise ValueError(f"Calibration.{name} must have {n} entries. Got {len(getattr(self, name))}.")
        if not np.isfinite(self.scores).all():
            raise ValueError("Calibration needs finite scores.")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def array_names(self) -> tuple[str, ...]:
        """Of the arrays with an entry an image."""
        return ARRAYS if self.global_scores is None else (*ARRAYS, *GLOBAL_ARRAYS)

    @cached_property
    def typical(self) -> float:
        """The median patch score of all images; 0 where their grids are not at hand, as in an exported model."""
        return float(np.median(self.grids)) if self.grids.size else 0.0

    def threshold(self, false_reject: float | None = None) -> float:
        """As of ``Calibrated``."""
        return threshold(self.scores, default_rate(len(self)) if false_reject is None else false_reject)

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """As of ``Calibrated``."""
        return threshold(self.peaks, default_rate(len(self)) if false_reject is None else false_reject)


class Calibrated:
    """Thresholds and a watch on drift, as detectors and exported models both have them."""

    settings: Settings
    _calibration: Calibration | None

    @property
    def calibration(self) -> Calibration:
        """The scores of good images that verdicts are measured against, as far as they are kept. Raises NotFittedError where
        there are none."""
        if self._calibration is None:
            raise NotFittedError(NO_CALIBRATION)
        return self._calibration

    @property
    def is_calibrated(self) -> bool:
        """Whether ``calibration`` is there, so that verdicts can be given."""
        return self._calibration is not None

    def threshold(self, false_reject: float | None = None) -> float:
        """The score above which an image is rejected, so that of good parts like the calibration ones at most the share
        ``false_reject`` is (conformal prediction; see score/threshold.py).

        false_reject: None for 0.01, or for the smallest rate that the calibration can promise where that is larger; a warning
        says so then.

        Raises NotFittedError without calibration; SettingsError, with the smallest rate possible, where the calibration
        images are too few.
        """
        return self.calibration.threshold(false_reject)

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """The map value such that at most ``false_reject`` of good images show any pixel above it; as ``threshold``."""
        return self.calibration.pixel_threshold(false_reject)

    def drift(self, p_values: npt.ArrayLike, *, false_alarm: float = 0.01) -> Drift:
        """Whether a stream of p-values of good parts, (t,) in their order, has ceased to look like the calibration's.

        false_alarm: the chance, at most, of an alarm at any time while nothing changes; see score/drift.py.
        """
        return drift(p_values, len(self.calibration), false_alarm=false_alarm, seed=self.settings.seed)


def largest_values(grids: Float32, sizes: Sequence[Size], resize: Size, crop: Size | None) -> Float32:
    """(n,) float32: the largest value of each anomaly map of the patch scores ``grids`` (n, h, w)."""
    values = [anomaly_map(grid, size, resize, crop).max() for grid, size in zip(grids, sizes, strict=True)]
    return np.array(values, np.float32)


def concatenated(one: Calibration, other: Calibration) -> Calibration:
    """Both, in order; of the same source and options."""
    arrays: dict[str, Any] = {
        name: np.concatenate((getattr(one, name), getattr(other, name))) for name in one.array_names
    }
    return replace(one, names=(*one.names, *other.names), sizes=(*one.sizes, *other.sizes), **arrays)


def subset(calibration: Calibration, indices: Int64) -> Calibration:
    """The images at ``indices`` (m,), in this order; arrays of its own."""
    arrays: dict[str, Any] = {name: getattr(calibration, name)[indices] for name in calibration.array_names}
    names, sizes = ([each[index] for index in indices.tolist()] for each in (calibration.names, calibration.sizes))
    return replace(calibration, names=tuple(names), sizes=tuple(sizes), **arrays)


def with_scores(calibration: Calibration, indices: Sequence[int], fresh: Calibration) -> Calibration:
    """``calibration`` with the scores of ``fresh`` at ``indices``, in their order."""
    arrays: dict[str, Any] = {}
    for name in calibration.array_names[1:]:  # all but the images' numbers
        arrays[name] = getattr(calibration, name).copy()
        arrays[name][list(indices)] = getattr(fresh, name)
    return replace(calibration, **arrays)


def upper_bounds(calibration: Calibration) -> Calibration:
    """``calibration`` for a bank that has changed: a "reweighted" score without its weight, which is below 1 and may have
    grown."""
    if calibration.image_score != REWEIGHTED:
        return calibration
    largest = calibration.grids.max((1, 2))
    if calibration.largest is not None:  # what they are fused to is taken anew with the global scores
        return replace(calibration, largest=largest)
    return replace(calibration, scores=largest)


def rows_needed(image_score: str) -> int:
    """Rows of other images without which none can be left out: two where a row's neighbours weigh the score."""
    return 2 if image_score == REWEIGHTED else 1
