"""Has the scene changed? A test martingale over the p-values of good parts, in the order in which they came.

Sources: V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2nd edition 2022; V. Vovk,
"Testing randomness online", Statistical Science 36, 2021; V. Vovk et al., "Retrain or not retrain: conformal test
martingales for change-point detection", COPA 2021 (bets against small p-values, the jumper). M. Herbster and M.
Warmuth, "Tracking the best expert", Machine Learning 32, 1998 (sharing the capital again and again).

    b_t = p_t (n + 1)                                          the gap between n calibration scores, 1 the topmost
    u_t = (Σ_{b' < b_t} w_b' + θ_t w_{b_t}) / (n + t)          w_b = 1 + earlier parts in gap b,  θ_t uniform
    M_t = M_{t-1} Σ_k share_k f_k(u_t),   f_k(u) = k u^(k-1)   the capital; f_1 = 1 does not bet

A light that ages, a dusty lens or another supplier lift the scores of good parts, mostly by too little for any one
of them to look defective. Their p-values then crowd near 0, and bets on small values win.

Why not bet on p_t itself: all p-values share one set of calibration scores, so they are dependent. Where those
scores happen to be low, every later part looks a little too high, and over a long stream the bets win although
nothing has changed. If calibration images and parts are exchangeable and no scores tie, the gaps follow Pólya's
urn: part t falls into gap b with chance w_b / (n + t). So u_t is the randomised distribution function of the gap
at the gap itself, and u_1, u_2, … are independent and uniform exactly, for every n.

The promise (Ville's inequality): on a stream of good parts the capital *ever* reaches 1 / false_alarm with a chance
of at most false_alarm, however long the stream and however often one looks.

What to feed it: the p-values of parts that were accepted or are known to be good. Two departures keep the promise,
because each makes small gaps rarer than the urn expects, and the bets decrease in u, so they lose on the average:
  - Parts below a fixed p-value are left out: the gaps that remain follow the urn of those gaps alone.
  - Every gap moves up by a fixed non-decreasing rule. Leave-one-image-out calibration comes near to this: its scores
    come from banks that lack an image, so they are a little too large, and fresh p-values larger than uniform.
    It is not exactly this, since its scores share images; the tests count its false alarms.
p-values that are large at first and uniform later are no such case. That is a change, and may raise the alarm.
Scores tie only where images are duplicates; then the p-value counts the tie against the alarm.

We differ: the jumper redistributes a fixed share J of the capital before each bet and so loses up to 3J/4 of it at
each quiet part: the longer the quiet, the longer a change goes unseen. Our share is min(0.01, 1 / t). The capital
falls no faster than about t^(-3/4), and a change is found soon after a long quiet time as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import SettingsError

_POWERS = np.array([1.0, 0.75, 0.5, 0.25])  # k of the experts; every f_k decreases and has the mean 1
_JUMP = 0.01  # the largest share of the capital that is redistributed before a bet
# How far p (n + 1) may be from a whole number: six decimals pass for n < 2,000, float32 for n < 10,000.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Drift:
    """What a stream of t parts says about a change. Places count from 0 in the order of the parts.

    Attributes:
        log_capital: (t,) float64, the natural logarithm of the capital after each part; it starts at 0.
        false_alarm: The chance of ever raising the alarm on a stream of good parts is at most this.
        alarm: The first part after which the capital had reached 1 / false_alarm, or None.
        since: About the first changed part: the capital was lowest just before it. None without an alarm.
            An estimate without a promise; a change is sometimes dated too early, by some tens of parts.
    """

    log_capital: npt.NDArray[np.float64]
    false_alarm: float
    alarm: int | None
    since: int | None

    @property
    def sentence(self) -> str:
        """The finding and its promise for people, who count parts from 1."""
        parts, limit = self.log_capital.size, f"{1 / self.false_alarm:.6g}"
        promise = f"good parts alone ever lead there with a chance of at most {100 * self.false_alarm:.6g} %"
        if self.alarm is None or self.since is None:
            count = f"{parts} parts" if parts > 1 else "1 part"
            largest = math.exp(min(max(float(self.log_capital.max()), 0), 700))  # exp(710) overflows
            return f"No drift: over {count} the evidence reached {largest:.3g} of {limit}; {promise}."
        return (
            f"Drift since about part {self.since + 1} of {parts}: the evidence reached {limit} at part "
            f"{self.alarm + 1}; {promise}. Check light, lens and supplier."
        )


def drift(p_values: npt.ArrayLike, calibration: int, *, false_alarm: float = 0.01, seed: int = 0) -> Drift:
    """Bet against the p-values of good parts; a large capital says that the scores have grown.

    Args:
        p_values: (t,) in the order in which the parts came, of parts that were accepted or known to be good:
            p = (1 + the number of calibration scores >= the part's score) / (n + 1), not rounded.
        calibration: n, the number of calibration scores behind the p-values.
        false_alarm: The chance that a stream of good parts *ever* raises the alarm is at most this.
        seed: Of θ, which spreads the parts of one gap. To be chosen before the parts are seen: whoever tries
            seeds until one raises the alarm has no promise. A longer stream keeps the values of a shorter one.

    Returns:
        The capital after each part, and the alarm if there was one.

    Raises:
        SettingsError: An argument is out of its range, or p_values are not of ``calibration`` scores.

    >>> drift([0.75, 0.5, 1.0, 0.25], calibration=3).alarm is None
    True
    """
    if not 0 < false_alarm < 1:
        raise SettingsError(f"false_alarm must be in (0, 1). Got {false_alarm}. Use 0.01 for 1 %.")
    gaps = _gaps(p_values, calibration)
    theta = 1 - np.random.default_rng(seed).random(gaps.size)  # (0, 1]: u = 0 would win without bounds
    log_capital = _log_capital(_online(gaps, calibration, theta))
    reached = np.flatnonzero(log_capital >= -math.log(false_alarm))
    if not reached.size:
        return Drift(log_capital, false_alarm, None, None)
    alarm = int(reached[0])
    before = np.concatenate(([0.0], log_capital[:alarm]))  # (alarm + 1,) the logarithm before each part
    return Drift(log_capital, false_alarm, alarm, int(before.argmin()))


def _gaps(p_values: npt.ArrayLike, calibration: int) -> npt.NDArray[np.int64]:
    """(t,) p-values → (t,) in 1 … n + 1, where 1 lies above all calibration scores."""
    if not isinstance(calibration, int | np.integer) or calibration < 1:
        raise SettingsError(
            f"calibration must be a whole number of at least 1. Got {calibration}. "
            "Pass the number of calibration scores behind the p-values."
        )
    given = np.asarray(p_values)
    if given.ndim != 1:
        raise SettingsError(
            f"p_values must be one-dimensional. Got shape {given.shape}. Pass one p-value a part, in order."
        )
    if not given.size:
        raise SettingsError("p_values must not be empty. Got 0 parts. Pass one p-value a part, in order.")
    if given.dtype.kind not in "iuf":
        raise SettingsError(f"p_values must be real numbers. Got dtype {given.dtype}. Pass a float array.")
    p = given.astype(np.float64)
    outside = np.flatnonzero(~((p > 0) & (p <= 1)))  # NaN is outside as well
    if outside.size:
        raise SettingsError(
            f"p_values must be in (0, 1]. Got {p[outside[0]]} at place {outside[0]}. "
            "Pass p-values, not scores, and leave out parts that have none."
        )
    gaps = np.rint(p * (calibration + 1))
    between = np.flatnonzero((np.abs(p * (calibration + 1) - gaps) > _TOLERANCE) | (gaps < 1))
    if between.size:
        raise SettingsError(
            f"p_values of {calibration} calibration scores must be multiples of 1/{calibration + 1}. "
            f"Got {p[between[0]]} at place {between[0]}. Pass them unrounded, with the number of scores behind them."
        )
    return gaps.astype(np.int64)


def _online(gaps: npt.NDArray[np.int64], calibration: int, theta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(t,) gaps and (t,) θ in (0, 1] → (t,) u in (0, 1], independent and uniform on good parts."""
    weights = np.ones(calibration + 1)
    u = np.empty(gaps.size)
    for t, own in enumerate(gaps - 1):
        u[t] = (weights[:own].sum() + theta[t] * weights[own]) / (calibration + 1 + t)
        weights[own] += 1
    return u


def _log_capital(u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(t,) u in (0, 1] → (t,) natural logarithm of the capital after each bet."""
    gains = _POWERS * u[:, None] ** (_POWERS - 1)  # (t, 4)
    growth = np.empty(u.size)
    shares = np.full(_POWERS.size, 1 / _POWERS.size)  # of the capital; they add up to 1, so nothing overflows
    for t, gain in enumerate(gains):
        jump = min(_JUMP, 1 / (t + 1))
        shares = ((1 - jump) * shares + jump / _POWERS.size) * gain
        growth[t] = shares.sum()
        shares /= growth[t]
    return np.cumsum(np.log(growth))
