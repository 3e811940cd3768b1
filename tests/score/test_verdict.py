"""The kind of an anomaly on calibrations whose medians one sees, and a result's verdicts counted plainly."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import checks
import numpy as np
import pytest
from checks import calibration_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sapatchcore import NotFittedError, Result, SAPatchCore, SettingsError
from sapatchcore.score.verdict import BOTH, CO_OCCURRENCE, LOCAL, KindClassifier, Verdict

# Medians 2 and 4. Of three images, the largest parts, 3 and 6, are what is called unusual; all balances are 1.
THREE = KindClassifier(calibration_of([1, 2, 3], [2, 4, 6]))
# Medians 2 and 4. Balances (C / 4) / (L / 2): 2, 1 and 1/2. Unusual: 4 and 4.
UNEVEN = KindClassifier(calibration_of([1, 2, 4], [4, 4, 4]))
ONE = KindClassifier(calibration_of([2], [3]))


def test_ratios_are_of_the_medians() -> None:
    assert THREE.ratios(4, 4) == (2, 1)
    assert THREE.ratios(1, 12) == (0.5, 3)
    assert KindClassifier(calibration_of([1, 9, 2, 4], [1, 1, 1, 5])).ratios(6, 6) == (2, 6), (
        "of an even number, the middle two's mean"
    )


@pytest.mark.parametrize(
    ("usual", "local", "context", "kind"),
    [
        pytest.param(THREE, 4, 4, LOCAL, id="2 times and 1 time the usual"),
        pytest.param(THREE, 2, 12, CO_OCCURRENCE, id="1 time and 3 times"),
        pytest.param(THREE, 2, 4, LOCAL, id="a tie below is local"),
        pytest.param(THREE, 3, 6, LOCAL, id="a tie at the limits does not exceed them"),
        pytest.param(THREE, 4, 8, BOTH, id="both exceed, in the balance of good images"),
        pytest.param(THREE, 4, 9, CO_OCCURRENCE, id="both exceed, the context by more"),
        pytest.param(THREE, 5, 9, LOCAL, id="both exceed, the local part by more"),
        pytest.param(UNEVEN, 5, 19, BOTH, id="3.8 : 2 is within 1/2 to 2"),
        pytest.param(UNEVEN, 5, 21, CO_OCCURRENCE, id="4.2 : 2 is not"),
        pytest.param(UNEVEN, 9, 9.5, BOTH, id="2.4 : 4.5 is within, too"),
        pytest.param(UNEVEN, 11, 9.5, LOCAL, id="2.4 : 5.5 is not"),
        pytest.param(UNEVEN, 3.9, 7.9, CO_OCCURRENCE, id="one exceeds, one does not"),
        pytest.param(UNEVEN, 9, 3.9, LOCAL, id="the other exceeds"),
        pytest.param(ONE, 4, 6, BOTH, id="one image: its own balance alone is usual"),
        pytest.param(ONE, 4, 7, CO_OCCURRENCE, id="one image: more context"),
        pytest.param(ONE, 4, 5, LOCAL, id="one image: less context"),
        pytest.param(ONE, 2, 3, LOCAL, id="one image: itself"),
    ],
)
def test_kind_by_hand(usual: KindClassifier, local: float, context: float, kind: str) -> None:
    assert usual.kind(local, context) == kind


def test_unusual_is_what_one_in_twenty_exceeds() -> None:
    """Of 40 images, k = ⌊0.05 · 41⌋ = 2: the second largest, 39; of 38 and fewer it is the largest."""
    forty = KindClassifier(calibration_of(range(1, 41), range(1, 41)))
    assert forty.kind(39.5, 39.5) == BOTH
    assert forty.kind(39, 39) == LOCAL
    fewer = KindClassifier(calibration_of(range(1, 39), range(1, 39)))
    assert fewer.kind(37.5, 37.5) == LOCAL
    assert fewer.kind(38.5, 38.5) == BOTH


def test_unusual_balances_are_left_out_at_both_ends() -> None:
    """40 images with L = 1: the second largest and second smallest of the balances, 39 and 2 of a median 20.5, bound."""
    usual = KindClassifier(calibration_of([1] * 40, range(1, 41)))
    assert usual.kind(1.5, 1.5 * 39.5) == CO_OCCURRENCE
    assert usual.kind(1.5, 1.5 * 38.5) == BOTH
    assert usual.kind(25, 25 * 2.1) == BOTH
    assert usual.kind(25, 25 * 1.9) == LOCAL


@pytest.mark.filterwarnings("error")
def test_parts_that_are_zero() -> None:
    """Training images that are all alike: any difference is infinitely unusual."""
    nothing = KindClassifier(calibration_of([0, 0, 0], [0, 0, 0]))
    assert nothing.ratios(0, 0) == (0, 0)
    assert nothing.kind(0, 0) == LOCAL
    assert nothing.kind(0, 1) == CO_OCCURRENCE
    assert nothing.kind(1, 0) == LOCAL
    assert nothing.kind(1, 1) == BOTH
    same_context = KindClassifier(calibration_of([1, 2, 3], [0, 0, 0]))
    assert same_context.kind(1, 0.5) == CO_OCCURRENCE
    assert same_context.kind(9, 0) == LOCAL
    some_zeros = KindClassifier(calibration_of([0, 2, 4], [0, 3, 3]))
    assert some_zeros.kind(5, 0) == LOCAL
    assert some_zeros.kind(0, 5) == CO_OCCURRENCE
    assert some_zeros.kind(5, 7.5) == BOTH


def kind_written_plainly(local: list[int], context: list[int], one: float, other: float) -> str | None:
    """The kind by the module's own text, in plain numbers; None where a limit is met too closely to say."""
    n = len(local)
    k = math.floor(Fraction(1, 20) * (n + 1)) or 1
    usual_local, usual_context = statistics.median(local), statistics.median(context)
    balances = sorted((c / usual_context) / (x / usual_local) for x, c in zip(local, context, strict=True))
    balance = (other / usual_context) / (one / usual_local)
    if any(math.isclose(balance, edge, rel_tol=1e-5) for edge in (balances[k - 1], balances[-k], 1)):
        return None
    exceed = one > sorted(local)[-k] and other > sorted(context)[-k]
    if exceed and balances[k - 1] < balance < balances[-k]:
        return BOTH
    return CO_OCCURRENCE if balance > 1 else LOCAL


PARTS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=70)


@settings(deadline=None, max_examples=200)
@given(parts=PARTS, local=st.integers(1, 60), context=st.integers(1, 60))
def test_kind_for_any_calibration(parts: list[tuple[int, int]], local: int, context: int) -> None:
    columns = [list(column) for column in zip(*parts, strict=True)]
    expected = kind_written_plainly(*columns, local, context)
    assume(expected is not None)
    assert KindClassifier(calibration_of(*columns)).kind(local, context) == expected


@settings(deadline=None, max_examples=60)
@given(parts=PARTS, local=st.floats(0.5, 60), context=st.floats(0.5, 60))
def test_kind_does_not_depend_on_the_unit(parts: list[tuple[int, int]], local: float, context: float) -> None:
    """A part that is ten times as large in good images, too, names the same kind."""
    columns = [list(column) for column in zip(*parts, strict=True)]
    assume(kind_written_plainly(*columns, local, context) is not None)
    times = [column if i == 0 else [10 * value for value in column] for i, column in enumerate(columns)]
    assert KindClassifier(calibration_of(*columns)).kind(local, context) == KindClassifier(calibration_of(*times)).kind(
        local, 10 * context
    )


def verdict(**changes: Any) -> Verdict:
    values = {"rejected": True, "score": 5.0, "threshold": 2.0, "p_value": 0.1, "local": 3.0, "context": 4.0}
    return Verdict(**{**values, "local_ratio": 1.0, "context_ratio": 1.0, "kind": LOCAL, **changes})


def test_share_by_hand() -> None:
    assert verdict().local_share == pytest.approx(9 / 25)
    assert verdict(local=0.0, context=5.0).local_share == 0
    assert verdict(local=5.0, context=0.0).local_share == 1
    assert verdict(score=0.0, local=0.0, context=0.0).local_share == 0, "nothing is shared out"


def test_sentences() -> None:
    assert verdict(kind=LOCAL).sentence == "local: something here is like no part of a good image."
    assert verdict(kind=CO_OCCURRENCE).sentence == "co-occurrence: every part is known, their combination is not."
    both = "both: something here is like no part of a good image, and the combination is unknown, too."
    assert verdict(kind=BOTH).sentence == both
    assert verdict(rejected=False, kind="").sentence == "accepted: nothing here goes beyond what good images show."


@pytest.fixture(scope="module")
def result(fitted: SAPatchCore, good: np.ndarray, images: Callable) -> Result:
    """Training images, other textures, and training images with a red square."""
    damaged = good[:4].copy()
    damaged[:, 20:34, 30:44] = (255, 0, 0)
    return fitted.predict(np.concatenate((good[:3], images(6, seed=3), damaged)))


@pytest.mark.parametrize("rate", [None, 0.1, 0.2, 0.5, 0.9])
def test_verdicts_counted_plainly(rate: float | None, result: Result, fitted: SAPatchCore) -> None:
    calibration = fitted.calibration
    assert result.calibration is calibration
    promised = Fraction(1, 11) if rate is None else Fraction(str(rate))
    levels = {"local": calibration.local.tolist(), "context": calibration.context.tolist()}
    kinds = set()
    for i, one in enumerate(result.verdicts(rate)):
        score = float(result.scores[i])
        p = Fraction(1 + sum(bool(value >= score) for value in calibration.scores.tolist()), 11)
        assert one.rejected == (p <= promised)
        assert (one.score, one.p_value) == (score, pytest.approx(float(p)))
        assert result.p_values[i] == one.p_value
        assert (
            one.threshold == result.threshold(rate) == sorted(calibration.scores.tolist())[-math.floor(promised * 11)]
        )
        assert (one.local, one.context) == (result.local_scores[i], result.context_scores[i])
        assert one.local**2 + one.context**2 == pytest.approx(one.score**2, rel=1e-5)
        parts = float(result.local_patches[i].max()), float(result.context_patches[i].max())
        assert one.local_ratio == pytest.approx(parts[0] / statistics.median(levels["local"]), rel=1e-6)
        assert one.context_ratio == pytest.approx(parts[1] / statistics.median(levels["context"]), rel=1e-6)
        expected = kind_written_plainly(levels["local"], levels["context"], *parts) if one.rejected else ""
        assert expected is not None, "make other images"
        assert one.kind == expected
        kinds.add(one.kind)
    if rate in (None, 0.2):
        assert [one.rejected for one in result.verdicts(rate)][:3] == [False] * 3, "training images are good"
        assert all(one.rejected for one in result.verdicts(rate)[-4:])
        assert "" in kinds
        assert len(kinds) > 1


@pytest.mark.parametrize("rate", [None, 0.2, 0.9])
def test_regions_are_where_the_map_exceeds_the_peaks_of_good_images(
    rate: float | None, result: Result, fitted: SAPatchCore
) -> None:
    peaks = sorted(fitted.calibration.peaks.tolist())
    limit = peaks[-1 if rate is None else -math.floor(Fraction(str(rate)) * 11)]
    assert result.pixel_threshold(rate) == limit
    for i, values in enumerate(result.maps):
        found = result.regions(i, rate)
        assert bool(found) == bool((values > limit).any())
        assert sum(region.area for region in found) == int((values > limit).sum())
        assert [region.peak for region in found[:1]] == [float(values.max())] * bool(found)
        checks.check_regions(values, limit)
    assert any(result.regions(i, rate) for i in range(len(result)))
    assert not any(result.regions(i) for i in range(3)), "nothing in a training image"


def test_a_calibration_image_is_rejected_by_none_of_its_own_limits(fitted: SAPatchCore, good: np.ndarray) -> None:
    """The scores and maps of a calibration never exceed thresholds at the smallest rate: the largest are the limits."""
    calibration = fitted.calibration
    scores = dataclasses.replace(fitted.predict(good), scores=calibration.scores, patch_scores=calibration.grids)
    assert not any(one.rejected for one in scores.verdicts())
    assert not any(scores.regions(i) for i in range(10))


def test_the_detector_has_the_same_thresholds(result: Result, fitted: SAPatchCore) -> None:
    assert fitted.threshold(0.2) == result.threshold(0.2)
    assert fitted.pixel_threshold(0.2) == result.pixel_threshold(0.2)


def test_rates_that_cannot_be_promised(result: Result, fitted: SAPatchCore) -> None:
    too_few = (
        r"^false_reject must be at least 0\.091, .* 10 calibration images can promise\. Got 0\.05, which needs 19\."
    )
    asked: list[Callable] = [result.threshold, result.pixel_threshold, result.verdicts, fitted.threshold]
    for ask in (*asked, fitted.pixel_threshold, lambda rate: result.regions(0, rate)):
        with pytest.raises(SettingsError, match=too_few):
            ask(0.05)
        with pytest.raises(SettingsError, match=r"^false_reject must be in \(0, 1\)\. Got 1\.5\."):
            ask(1.5)


def test_no_verdict_without_calibration(good: np.ndarray, small: dict[str, Any]) -> None:
    detector = SAPatchCore(**small).fit(good[:1])
    assert not detector.is_calibrated
    bare = detector.predict(good[:2])
    assert bare.calibration is None
    message = r"^There are no scores of good images to measure against: .* Calibrate it with good images: "
    asked: list[Callable] = [
        bare.verdicts,
        bare.threshold,
        bare.pixel_threshold,
        lambda: bare.regions(0),
        lambda: bare.p_values,
        detector.threshold,
        detector.pixel_threshold,
        lambda: detector.calibration,
        lambda: detector.explain(good[:1]),
    ]
    for ask in asked:
        with pytest.raises(NotFittedError, match=message):
            ask()
    detector.calibrate(good[1:5])
    assert detector.is_calibrated
    assert len(detector.predict(good[5:7]).verdicts()) == 2
