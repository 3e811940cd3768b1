"""What is decided of one image, and which kind of anomaly it shows.

The kind. Every patch score splits exactly, score² = local² + context². Of an image, L is the largest local part of any of its
patches and C the largest context part, each wherever it is; of the calibration images, the same. With medians over these,

    r_L = L / median(L_i),   r_C = C / median(C_i)
    co-occurrence  ⇔  r_C > r_L,   else local

in words: the part whose largest value is more times its usual largest value names the kind. Two maxima and not the split
of the worst patch, since a local defect is worst in one place, while the context is always large somewhere. *Both* where
L and C each exceed what 95 % of good images show, and their balance, r_C / r_L, is one that good images have, too.
``docs/verdicts.md`` says how often that is right, and where it cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sapatchcore.score.calibration import Calibration
from sapatchcore.score.threshold import possible_rate, threshold

LOCAL, CO_OCCURRENCE, BOTH = "local", "co-occurrence", "both"
UNUSUAL = 0.05  # share of good images of which a part, or the balance of both, is called unusual

_SENTENCES = {
    LOCAL: "local: something here is like no part of a good image.",
    CO_OCCURRENCE: "co-occurrence: every part is known, their combination is not.",
    BOTH: "both: something here is like no part of a good image, and the combination is unknown, too.",
}


@dataclass(frozen=True)
class Verdict:
    """One image's verdict.

    rejected: its score lies above the threshold. p_value: of its score. local, context: the two parts of the score, at the
    worst patch: score² = local² + context². local_ratio, context_ratio: the largest local and context part of any patch, as
    multiples of what is usual in good images. kind: LOCAL, CO_OCCURRENCE or BOTH, or "" where it is not rejected.
    """

    rejected: bool
    score: float
    threshold: float
    p_value: float
    local: float
    context: float
    local_ratio: float
    context_ratio: float
    kind: str

    @property
    def local_share(self) -> float:
        """local² / score², in [0, 1]; the context's share is the rest."""
        return self.local**2 / self.score**2 if self.score > 0 else 0.0

    @property
    def sentence(self) -> str:
        """The reason, for people."""
        return _SENTENCES.get(self.kind, "accepted: nothing here goes beyond what good images show.")


class KindClassifier:
    """Tells the kind of a rejected image by what is usual in good ones."""

    def __init__(self, calibration: Calibration) -> None:
        rate = possible_rate(len(calibration), UNUSUAL)
        self._local, self._context = (
            max(float(np.median(part)), 1e-12) for part in (calibration.local, calibration.context)
        )
        self._unusual = threshold(calibration.local, rate), threshold(calibration.context, rate)
        balance = self._balance(calibration.local, calibration.context)
        self._balances = -threshold(-balance, rate), threshold(balance, rate)

    def ratios(self, local: float, context: float) -> tuple[float, float]:
        """r_L and r_C of an image's largest local and context part."""
        return local / self._local, context / self._context

    def kind(self, local: float, context: float) -> str:
        """The kind of a rejected image, by its largest local and context part."""
        low, high = self._balances
        both = local > self._unusual[0] and context > self._unusual[1]
        if both and low <= float(self._balance(np.array(local), np.array(context))) <= high:
            return BOTH
        times_local, times_context = self.ratios(local, context)
        return CO_OCCURRENCE if times_context > times_local else LOCAL

    def _balance(self, local: npt.NDArray[np.floating], context: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        tiny = 1e-12  # a part can be 0 where images are alike
        found: npt.NDArray[np.float64] = np.log(
            np.maximum(context / self._context, tiny) / np.maximum(local / self._local, tiny)
        )
        return found
