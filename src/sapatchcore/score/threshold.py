"""From which score on an image is rejected: a threshold with a promise, from good images alone.

Conformal prediction (Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2021, arXiv 2107.07511). With the scores
s_1 … s_n of n good *calibration* images, of a new image with score s:

    p = (1 + #{i : s_i ≥ s}) / (n + 1)
    rejected at the rate α  ⇔  p ≤ α  ⇔  s > t,   t = the k-th largest of s_1 … s_n,   k = ⌊α (n + 1)⌋

If the new image is good and like the calibration ones (exchangeable with them), it is rejected with a probability of at
most α, over the draw of both. No distribution is assumed, and no defect is needed. Ties only make rejections rarer.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import SettingsError

FALSE_REJECT = 0.01  # the promise where none was asked for: 1 good part in 100


def p_values(scores: npt.ArrayLike, calibration: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(m,) float64 in (0, 1]: small where few good images score as high.

    Args:
        scores: (m,) of the images in question.
        calibration: (n,) of good images.

    >>> p_values([0.5, 2.5, 9.0], [1.0, 2.0, 3.0])
    array([1.  , 0.5 , 0.25])
    """
    ordered = np.sort(np.asarray(calibration))
    at_least = len(ordered) - np.searchsorted(ordered, np.asarray(scores), side="left")
    found: npt.NDArray[np.float64] = (1 + at_least) / (len(ordered) + 1)
    return found


def smallest_rate(count: int) -> float:
    """The smallest false-reject rate that ``count`` calibration images can promise: 1 / (count + 1)."""
    return 1 / (count + 1)


def threshold(calibration: npt.ArrayLike, false_reject: float = FALSE_REJECT) -> float:
    """The score above which (not: from which on) an image is rejected, so that the promise holds.

    Args:
        calibration: (n,) scores of good images.
        false_reject: the promised rate, in (0, 1).

    Raises:
        SettingsError: the rate is outside its range, or smaller than n images can promise.

    >>> threshold([1.0, 2.0, 3.0], false_reject=0.25)
    3.0
    """
    ordered = np.sort(np.asarray(calibration))
    check_rate(false_reject, len(ordered))
    return float(ordered[-rank(false_reject, len(ordered))])


def rank(false_reject: float, count: int) -> int:
    """k: the threshold is the k-th largest of ``count`` calibration scores. 0 where they can promise no such rate."""
    return min(math.floor(false_reject * (count + 1) + 1e-9), count)  # 0.29 · 100 is 28.999…


def check_rate(false_reject: float, count: int) -> None:
    """Raises SettingsError where ``count`` calibration images cannot promise ``false_reject``."""
    if not 0 < false_reject < 1:
        raise SettingsError(
            f"false_reject must be in (0, 1). Got {false_reject}. Use 0.01 to reject at most 1 good part in 100."
        )
    least = smallest_rate(count)
    if false_reject < least * (1 - 1e-9):
        needed = math.ceil(1 / false_reject - 1e-9) - 1
        raise SettingsError(
            f"false_reject must be at least {math.ceil(least * 1e4) / 1e4:g}, the smallest rate that {count} calibration images "
            f"can promise. Got {false_reject:g}, which needs {needed}. Calibrate with more good images, or ask for a larger rate."
        )


def possible_rate(count: int, wanted: float = FALSE_REJECT) -> float:
    """``wanted``, or the smallest rate that ``count`` images can promise where that is larger."""
    return max(wanted, smallest_rate(count))


def promise_sentence(count: int) -> str:
    """What ``count`` calibration images can promise, and what they cannot, for whoever has to rely on it."""
    least = smallest_rate(count)
    if least <= FALSE_REJECT:
        return f"{count} calibration scores: a false-reject rate down to {least:.2%} can be promised."
    needed = math.ceil(1 / FALSE_REJECT - 1e-9) - 1
    return (
        f"{count} calibration scores: about 1 good part in {count + 1} rejected ({least:.1%}) is the least that can be promised. "
        f"The threshold then is the highest score of all, and hangs on a single image; {needed} images or more can promise "
        f"{FALSE_REJECT:.0%}."
    )


def default_rate(count: int) -> float:
    """FALSE_REJECT, or with a warning the smallest rate that ``count`` images can promise where that is larger."""
    rate = possible_rate(count)
    if rate > FALSE_REJECT:
        warnings.warn(
            f"{count} calibration images can promise a false-reject rate of {rate:.2g} at best, not {FALSE_REJECT:g}: the "
            "threshold is that of the larger rate. Calibrate with more good images, or name the rate.",
            stacklevel=4,
        )
    return rate
