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
from sapatchcore.score.verdict import CO_OCCURRENCE, LOCAL, UNCLEAR, KindClassifier, Parts, Verdict

# The 0.9 quantiles are 9 and 18, and what lies beyond is 1 and 2 in the mean.
ELEVEN = KindClassifier(calibration_of(range(11), range(0, 22, 2)))
PLAIN = KindClassifier(calibration_of(range(11), range(0, 22, 2), attention="none"))
WHOLE = KindClassifier(calibration_of(range(11), range(0, 22, 2), range(0, 33, 3), attention="none"))


def test_ratios_are_of_the_medians() -> None:
    assert ELEVEN.ratios(Parts(10, 20, 0)) == (2, 2, None)
    assert WHOLE.ratios(Parts(5, 5, 0, 30)) == (1, 0.5, 2)
    even = KindClassifier(calibration_of([1, 9, 2, 4], [1, 1, 1, 5]))
    assert even.ratios(Parts(6, 6, 0)) == (2, 6, None), "of an even number, the middle two's mean"


@pytest.mark.parametrize(
    ("usual", "local", "context", "kind"),
    [
        pytest.param(ELEVEN, 12, 20, LOCAL, id="leads 3 and 1"),
        pytest.param(ELEVEN, 10, 24, CO_OCCURRENCE, id="1 and 3"),
        pytest.param(ELEVEN, 12, 22, UNCLEAR, id="3 and 2: a margin of 1 is not enough"),
        pytest.param(ELEVEN, 12.1, 22, LOCAL, id="3.1 and 2"),
        pytest.param(ELEVEN, 9, 14, UNCLEAR, id="0 and -2: neither leads"),
        pytest.param(ELEVEN, 0, 18.1, CO_OCCURRENCE, id="-9 and 0.05"),
        pytest.param(PLAIN, 9, 60, LOCAL, id="nothing measures combinations"),
        pytest.param(PLAIN, 0, 0, LOCAL, id="whatever the parts"),
    ],
)
def test_kind_by_hand(usual: KindClassifier, local: float, context: float, kind: str) -> None:
    assert usual.kind(Parts(local, context, 0)) == kind


@pytest.mark.parametrize(
    ("local", "largest", "whole", "kind"),
    [
        pytest.param(9, 0, 36, CO_OCCURRENCE, id="0 and 3"),
        pytest.param(13, 0, 30, LOCAL, id="4 and 1"),
        pytest.param(0, 29.2, 30, LOCAL, id="the patches' whole score leads"),
        pytest.param(11, 0, 36, UNCLEAR, id="2 and 3"),
    ],
)
def test_the_global_score_stands_for_the_combination(local: float, largest: float, whole: float, kind: str) -> None:
    """Without self-attention the context is a place like any other."""
    assert WHOLE.kind(Parts(local, 60, largest, whole)) == kind


@pytest.mark.filterwarnings("error")
def test_parts_that_are_zero() -> None:
    """Training images that are all alike: any difference is infinitely unusual."""
    nothing = KindClassifier(calibration_of([0, 0, 0], [0, 0, 0]))
    assert nothing.ratios(Parts(0, 0, 0)) == (0, 0, None)
    assert nothing.kind(Parts(0, 0, 0)) == UNCLEAR
    assert nothing.kind(Parts(0, 1, 1)) == CO_OCCURRENCE
    assert nothing.kind(Parts(1, 0, 1)) == LOCAL
    assert nothing.kind(Parts(1, 1, 1)) == UNCLEAR


def kind_written_plainly(local: list[float], context: list[float], one: float, other: float) -> str | None:
    """The kind by the module's own text; None where a limit is met too closely to say."""

    def lead(values: list[float], x: float) -> float:
        ordered = sorted(values)
        at = 0.9 * (len(ordered) - 1)
        low = math.floor(at)
        q = ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])
        beyond = [value - q for value in ordered if value > q]
        return (x - q) / max(statistics.fmean(beyond) if beyond else 0, 1e-6 * abs(q), 1e-12)

    leads = lead(local, one), lead(context, other)
    difference = leads[0] - leads[1]
    if min(abs(abs(difference) - 1), abs(max(leads))) < 1e-3 * max(1, *map(abs, leads)):
        return None
    if max(leads) <= 0 or abs(difference) <= 1:
        return UNCLEAR
    return LOCAL if difference > 0 else CO_OCCURRENCE


PARTS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=70)


@settings(deadline=None, max_examples=200)
@given(parts=PARTS, local=st.integers(1, 60), context=st.integers(1, 60))
def test_kind_for_any_calibration(parts: list[tuple[int, int]], local: int, context: int) -> None:
    columns = [list(column) for column in zip(*parts, strict=True)]
    expected = kind_written_plainly(*columns, local, context)
    assume(expected is not None)
    assert KindClassifier(calibration_of(*columns)).kind(Parts(local, context, 0)) == expected


@settings(deadline=None, max_examples=60)
@given(parts=PARTS, local=st.floats(0.5, 60), context=st.floats(0.5, 60))
def test_kind_does_not_depend_on_the_unit(parts: list[tuple[int, int]], local: float, context: float) -> None:
    """A part that is ten times as large in good images, too, names the same kind."""
    columns = [list(column) for column in zip(*parts, strict=True)]
    assume(kind_written_plainly(*columns, local, context) is not None)
    times = [column if i == 0 else [10 * value for value in column] for i, column in enumerate(columns)]
    assert KindClassifier(calibration_of(*columns)).kind(Parts(local, context, 0)) == KindClassifier(
        calibration_of(*times)
    ).kind(Parts(local, 10 * context, 0))


def verdict(**changes: Any) -> Verdict:
    values = {"rejected": True, "score": 5.0, "threshold": 2.0, "p_value": 0.1, "local": 3.0, "context": 4.0}
    return Verdict(**{**values, "local_ratio": 1.0, "context_ratio": 1.0, "kind": LOCAL, **changes})


def test_share_by_hand() -> None:
    assert verdict().local_share == pytest.approx(9 / 25)
    assert verdict(local=0.0, context=5.0).local_share == 0
    assert verdict(local=5.0, context=0.0).local_share == 1
    assert verdict(local=0.0, context=0.0).local_share == 0, "nothing is shared out"


def test_sentences() -> None:
    assert verdict(kind=LOCAL).sentence == "local: a place here is unlike any place of good images."
    whole = "co-occurrence: the image as a whole is unlike good ones, more than any place of it is."
    assert verdict(kind=CO_OCCURRENCE).sentence == whole
    assert verdict(kind=UNCLEAR).sentence.startswith("unclear: the image is unlike good ones, but ")
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
