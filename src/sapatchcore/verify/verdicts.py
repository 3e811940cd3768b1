"""What thresholds would have decided on a test set: the promised one, from good images alone, and the one that saw labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sapatchcore.datasets.samples import GOOD
from sapatchcore.result import Result

FROM_GOOD = "good images alone"
FROM_LABELS = "the test's own labels: optimistic"


@dataclass(frozen=True)
class Decisions:
    """What one image threshold decides.

    source: FROM_GOOD or FROM_LABELS. false_reject: the promised rate, None where nothing is promised. image, pixel: the
    thresholds, None where there is none. rejected: by label, good among them, how many are rejected and of how many.
    """

    source: str
    false_reject: float | None
    image: float | None
    pixel: float | None
    rejected: dict[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "from": self.source,
            "false_reject": self.false_reject,
            "image": self.image,
            "pixel": self.pixel,
            "rejected": {label: {"rejected": count, "of": of} for label, (count, of) in self.rejected.items()},
        }


def promised(result: Result, labels: Sequence[str], false_reject: float | None = None) -> Decisions | None:
    """The decisions with the promised rate (None: as of Result.threshold); None where there is no calibration."""
    if result.calibration is None:
        return None
    rate = result.rate(false_reject)
    image = result.threshold(rate)
    return Decisions(FROM_GOOD, rate, image, result.pixel_threshold(rate), _counts(result.scores > image, labels))


def best_of_labels(result: Result, labels: Sequence[str], image: float, pixel: float) -> Decisions:
    """The decisions with thresholds that were chosen for the best F-beta on these very ``labels``; NaN: undefined."""
    rejected = {} if math.isnan(image) else _counts(result.scores >= image, labels)
    return Decisions(FROM_LABELS, None, _defined(image), _defined(pixel), rejected)


def _counts(rejected: Any, labels: Sequence[str]) -> dict[str, tuple[int, int]]:
    names = np.asarray(labels, dtype=object)
    order = sorted(set(labels), key=lambda label: (label != GOOD, label))
    return {label: (int(rejected[names == label].sum()), int((names == label).sum())) for label in order}


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
