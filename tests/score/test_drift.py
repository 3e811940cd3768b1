"""The drift alarm: by hand, against plain rankings, its promise on good parts, and how soon it finds a change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from sapatchcore.errors import SettingsError
from sapatchcore.score.drift import Drift, _log_capital, _online, drift

Floats = npt.NDArray[np.float64]
Gaps = npt.NDArray[np.int64]

POWERS = (1.0, 0.75, 0.5, 0.25)


def gaps_of(calibration: Floats, scores: Floats) -> Gaps:
    """1 + the calibration scores >= each score."""
    return 1 + calibration.size - np.searchsorted(np.sort(calibration), scores)


def p_values_of(calibration: Floats, scores: Floats) -> Floats:
    return gaps_of(calibration, scores) / (calibration.size + 1)


def thetas(seed: int, parts: int) -> Floats:
    return 1 - np.random.default_rng(seed).random(parts)


def ranked_online(calibration: Floats, scores: Floats, theta: Floats) -> Floats:
    """Slow oracle: the online p-values from the scores themselves, ranked at the resolution of the calibration."""
    u = []
    for t, score in enumerate(scores):
        above, level = 0, 1  # the part itself is level with itself
        for other in calibration:
            above += bool(other >= score)
        for other in scores[:t]:
            between = [limit for limit in calibration if min(score, other) <= limit < max(score, other)]
            level += not between
            above += bool(between and other > score)
        u.append((above + theta[t] * level) / (calibration.size + t + 1))
    return np.array(u)


def staked(u: Floats) -> Floats:
    """Slow oracle: four purses of plain money, shared out anew before each bet."""
    purses, capital = [0.25] * 4, []
    for t, value in enumerate(u, start=1):
        jump, total = min(0.01, 1 / t), sum(purses)
        purses = [(1 - jump) * purse + jump * total / 4 for purse in purses]
        purses = [purse * k * float(value) ** (k - 1) for k, purse in zip(POWERS, purses, strict=True)]
        capital.append(sum(purses))
    return np.array(capital)


def test_urn_by_hand() -> None:
    """n = 1, p = 1/2, 1, 1/2: gaps 1, 2, 1. Weights before each part: 1 1, then 2 1, then 2 2."""
    u = _online(np.array([1, 2, 1]), 1, np.array([0.5, 0.5, 0.25]))
    assert u.tolist() == pytest.approx([0.5 * 1 / 2, (2 + 0.5 * 1) / 3, 0.25 * 2 / 4], abs=1e-15)


def test_capital_by_hand() -> None:
    """u = 1/16 multiplies the quarters by 1, 1.5, 2 and 2; of the rest, 1 % is shared out; u = 1 multiplies by k."""
    first = (1 + 1.5 + 2 + 2) / 4
    second = 0.99 * (1 * 1 + 1.5 * 0.75 + 2 * 0.5 + 2 * 0.25) / 4 + 0.01 * first * (1 + 0.75 + 0.5 + 0.25) / 4
    assert np.exp(_log_capital(np.array([1 / 16, 1.0]))).tolist() == pytest.approx([first, second], rel=1e-14)


def test_bets_are_fair() -> None:
    """The mean growth over uniform u is 1. With u = v⁴ the integral is smooth: ∫ growth du = ∫ growth 4 v³ dv."""
    v = (np.arange(4000) + 0.5) / 4000
    past = np.array([0.02, 0.9, 0.3])
    before = _log_capital(past)[-1]
    growth = np.array([math.exp(_log_capital(np.append(past, value))[-1] - before) for value in v**4])
    assert np.mean(growth * 4 * v**3) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("calibration", "parts"), [(1, 30), (7, 60), (30, 40)])
def test_urn_equals_plain_ranking(calibration: int, parts: int) -> None:
    rng = np.random.default_rng(calibration)
    good, scores = rng.normal(size=calibration), rng.normal(0.5, 1, size=parts)
    theta = thetas(3, parts)
    expected = ranked_online(good, scores, theta)
    np.testing.assert_allclose(_online(gaps_of(good, scores), calibration, theta), expected, rtol=1e-13)
    found = drift(p_values_of(good, scores), calibration, seed=3)
    np.testing.assert_allclose(found.log_capital, np.log(staked(expected)), atol=1e-11)


def test_urn_with_the_right_theta_is_the_full_ranking() -> None:
    """θ of a gap = (rank among its parts + θ) / their number gives the conformal p-value of all scores exactly."""
    rng = np.random.default_rng(0)
    good, scores, theta = rng.normal(size=9), rng.normal(size=80), rng.random(80)
    gaps = gaps_of(good, scores)
    full, within = [], []
    for t, score in enumerate(scores):
        seen = np.concatenate((good, scores[:t]))
        full.append((np.sum(seen > score) + theta[t]) / (seen.size + 1))
        peers = scores[:t][gaps[:t] == gaps[t]]
        within.append((np.sum(peers > score) + theta[t]) / (peers.size + 1))
    np.testing.assert_allclose(_online(gaps, 9, np.array(within)), full, rtol=1e-13)


def test_capital_equals_plain_money() -> None:
    """Long enough for the share that is redistributed to fall below its cap at 100 parts."""
    u = thetas(5, 400)
    np.testing.assert_allclose(_log_capital(u), np.log(staked(u)), atol=1e-10)


def test_online_values_are_uniform_and_independent() -> None:
    """Bets on p itself would not be fair: within a stream the p-values share one set of calibration scores."""
    rng = np.random.default_rng(1)
    parts, calibration = 200, 20
    u, raw = np.empty((400, parts)), np.empty((400, parts))
    for stream in range(400):
        gaps = gaps_of(rng.normal(size=calibration), rng.normal(size=parts))
        theta = 1 - rng.random(parts)
        u[stream] = _online(gaps, calibration, theta)
        raw[stream] = (gaps - 1 + theta) / (calibration + 1)

    def mean_is_normal(values: Floats) -> float:  # what independence makes of a stream's mean
        return float(stats.kstest((values.mean(1) - 0.5) * math.sqrt(12 * parts), "norm").pvalue)

    assert stats.kstest(u.ravel(), "uniform").pvalue > 0.01
    assert stats.kstest(u[:, -1], "uniform").pvalue > 0.01
    assert stats.kstest((u[:, :-1:2] + u[:, 1::2]).ravel() % 1, "uniform").pvalue > 0.01
    assert stats.kstest(u[:, 1:][u[:, :-1] < 0.1], "uniform").pvalue > 0.01
    assert mean_is_normal(u) > 0.01
    assert mean_is_normal(raw) < 1e-9


def test_promise_on_good_parts() -> None:
    """The alarms keep within the promise, where bets on the p-values themselves break it."""
    rng = np.random.default_rng(2)
    streams, parts, calibration = 400, 500, 50
    best, naive = np.empty(streams), np.empty(streams)
    for stream in range(streams):
        p_values = p_values_of(rng.normal(size=calibration), rng.normal(size=parts))
        best[stream] = drift(p_values, calibration, seed=stream).log_capital.max()
        naive[stream] = _log_capital(p_values).max()

    def allowed(promised: float) -> float:  # and three standard errors
        return promised + 3 * math.sqrt(promised * (1 - promised) / streams)

    for promised in (0.1, 0.05, 0.01):
        assert np.mean(best >= -math.log(promised)) <= allowed(promised)
    assert np.mean(best >= -math.log(0.1)) > 0.01  # an alarm that never rings keeps every promise
    assert np.mean(naive >= -math.log(0.01)) > allowed(0.01)


def test_promise_on_leave_one_out_calibration() -> None:
    """Nearest neighbours, calibrated without the image itself: not the theorem's case, but near enough to it."""
    rng = np.random.default_rng(3)
    streams, parts, images = 300, 400, 50
    best = np.empty(streams)
    for stream in range(streams):
        bank, fresh = rng.normal(size=(images, 8)), rng.normal(size=(parts, 8))
        distances = np.linalg.norm(bank[:, None] - bank, axis=2) + np.diag(np.full(images, np.inf))
        scores = np.sqrt(np.maximum((fresh**2).sum(1)[:, None] + (bank**2).sum(1) - 2 * fresh @ bank.T, 0)).min(1)
        best[stream] = drift(p_values_of(distances.min(1), scores), images, seed=stream).log_capital.max()
    for promised in (0.1, 0.05):
        assert np.mean(best >= -math.log(promised)) <= promised + 3 * math.sqrt(promised / streams)


@pytest.mark.parametrize(("quiet", "streams"), [(300, 40), (10_000, 6)])
def test_finds_a_shift_of_two_standard_deviations(quiet: int, streams: int) -> None:
    """Within 40 parts, after a long quiet time as well, where a fixed redistributed share would take longer."""
    rng = np.random.default_rng(4)
    for stream in range(streams):
        good, scores = rng.normal(size=320), rng.normal(size=quiet + 60)
        scores[quiet:] += 2
        found = drift(p_values_of(good, scores), 320, seed=stream)
        assert found.alarm is not None
        assert found.since is not None
        assert quiet <= found.alarm < quiet + 40
        assert found.since <= found.alarm


def test_dates_the_change() -> None:
    rng = np.random.default_rng(5)
    places = []
    for stream in range(21):
        good, scores = rng.normal(size=320), rng.normal(size=360)
        scores[300:] += 2
        found = drift(p_values_of(good, scores), 320, seed=stream)
        assert found.since is not None
        assert found.alarm is not None
        assert found.log_capital[found.since - 1] == found.log_capital[: found.alarm].min()
        places.append(found.since)
    assert abs(np.median(places) - 300) <= 5


def test_drift_from_the_first_part_on() -> None:
    """Without a part before the change the capital is lowest at its start."""
    found = drift(np.full(50, 1 / 321), 320)
    assert found.since == 0
    assert found.alarm is not None
    assert found.alarm < 10


@pytest.mark.parametrize("false_alarm", [0.2, 0.01, 1e-4])
def test_alarm_is_where_the_capital_first_reaches_the_limit(false_alarm: float) -> None:
    """The steps of this stream are smaller than the margin of a wrong limit."""
    found = drift(np.full(200, 30 / 321), 320, false_alarm=false_alarm)
    assert found.alarm is not None
    limit = math.log(1 / false_alarm)
    assert (found.log_capital[: found.alarm] < limit).all()
    assert limit <= found.log_capital[found.alarm] < limit + 0.5


@pytest.mark.parametrize("keep_above", [0.05, 0.2])
def test_accepted_parts_alone_do_not_alarm(keep_above: float) -> None:
    rng = np.random.default_rng(6)
    for stream in range(100):
        p_values = p_values_of(rng.normal(size=100), rng.normal(size=500))
        assert drift(p_values[p_values > keep_above], 100, false_alarm=0.05, seed=stream).alarm is None


def test_gaps_moved_up_do_not_alarm() -> None:
    rng = np.random.default_rng(7)
    for stream in range(100):
        gaps = gaps_of(rng.normal(size=100), rng.normal(size=500))
        assert drift(np.minimum(gaps + 10, 101) / 101, 100, false_alarm=0.05, seed=stream).alarm is None


def test_large_p_values_that_become_uniform_are_a_change() -> None:
    """Not under the promise, and the docstring says so."""
    rng = np.random.default_rng(8)
    gaps = np.concatenate((rng.integers(161, 322, 1000), rng.integers(1, 322, 500)))
    alarm = drift(gaps / 321, 320).alarm
    assert alarm is not None
    assert alarm >= 1000


def test_long_streams_stay_finite() -> None:
    high = drift(np.full(100_000, 1 / 321), 320)
    assert np.isfinite(high.log_capital).all()
    assert high.alarm is not None
    low = drift(np.ones(100_000), 320)
    assert low.alarm is None
    # The purse that does not bet loses nothing but what it shares out: at most 3/4 of min(0.01, 1/t) a part.
    kept = math.log(0.25) + np.cumsum(np.log1p(-0.75 * np.minimum(0.01, 1 / np.arange(1, 100_001))))
    assert np.isfinite(low.log_capital).all()
    assert (low.log_capital >= kept).all()
    assert kept[-1] > -7.5


def test_same_seed_same_answer() -> None:
    p_values = np.random.default_rng(9).integers(1, 52, 300) / 51
    once, again, other = drift(p_values, 50, seed=4), drift(p_values, 50, seed=4), drift(p_values, 50, seed=5)
    assert once.log_capital.tobytes() == again.log_capital.tobytes()
    assert not np.array_equal(once.log_capital, other.log_capital)
    # Later parts do not change what was said of earlier ones.
    np.testing.assert_array_equal(drift(p_values[:120], 50, seed=4).log_capital, once.log_capital[:120])


def test_float32_and_six_decimals_are_the_same_p_values() -> None:
    p_values = np.random.default_rng(10).integers(1, 322, 200) / 321
    expected = drift(p_values, 320).log_capital.tolist()
    assert drift(p_values.astype(np.float32), 320).log_capital.tolist() == expected
    assert drift([round(p, 6) for p in p_values.tolist()], 320).log_capital.tolist() == expected


def test_sentence_without_drift() -> None:
    assert drift(np.ones(20), 320).sentence == (
        "No drift: over 20 parts the evidence reached 1 of 100; "
        "good parts alone ever lead there with a chance of at most 1 %."
    )
    beyond = Drift(np.array([720.0]), 5e-324, alarm=None, since=None)  # exp(720) is beyond the floats
    assert beyond.sentence.startswith("No drift: over 1 part the evidence reached ")


def test_sentence_of_a_drift_counts_from_one() -> None:
    found = drift(np.concatenate((np.ones(5), np.full(30, 1 / 321))), 320, false_alarm=0.05)
    assert found.since == 5
    assert found.alarm is not None
    assert found.sentence == (
        f"Drift since about part 6 of 35: the evidence reached 20 at part {found.alarm + 1}; "
        "good parts alone ever lead there with a chance of at most 5 %. Check light, lens and supplier."
    )


@pytest.mark.parametrize(
    ("p_values", "options", "message"),
    [
        ([], {}, r"p_values must not be empty\. Got 0 parts\."),
        ([[0.5, 1.0]], {}, r"p_values must be one-dimensional\. Got shape \(1, 2\)\."),
        (0.5, {}, r"p_values must be one-dimensional\. Got shape \(\)\."),
        (["0.5"], {}, r"p_values must be real numbers\. Got dtype <U3\."),
        ([None], {}, r"p_values must be real numbers\. Got dtype object\."),
        ([0.5, math.nan], {}, r"p_values must be in \(0, 1\]\. Got nan at place 1\."),
        ([0.5, 0.0], {}, r"p_values must be in \(0, 1\]\. Got 0\.0 at place 1\."),
        ([1.25, 0.5], {}, r"p_values must be in \(0, 1\]\. Got 1\.25 at place 0\."),
        ([0.5, 0.3], {}, r"p_values of 3 calibration scores must be multiples of 1/4\. Got 0\.3 at place 1\."),
        ([1e-9], {}, r"must be multiples of 1/4\. Got 1e-09 at place 0\."),
        ([0.5], {"calibration": 2}, r"p_values of 2 calibration scores must be multiples of 1/3\."),
        ([0.5], {"calibration": 0}, r"calibration must be a whole number of at least 1\. Got 0\."),
        ([0.5], {"calibration": 3.5}, r"calibration must be a whole number of at least 1\. Got 3\.5\."),
        ([0.5], {"false_alarm": 0}, r"false_alarm must be in \(0, 1\)\. Got 0\. Use 0\.01 for 1 %\."),
        ([0.5], {"false_alarm": 1}, r"false_alarm must be in \(0, 1\)\. Got 1\."),
        ([0.5], {"false_alarm": math.nan}, r"false_alarm must be in \(0, 1\)\. Got nan\."),
    ],
)
def test_wrong_use(p_values: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        drift(p_values, **{"calibration": 3, **options})
