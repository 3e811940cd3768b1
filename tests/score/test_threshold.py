"""Thresholds: by hand, against counting, and the promise itself: how many good images are rejected in the end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scripts import script

from sapatchcore import SAPatchCore
from sapatchcore.data.sources import Batch
from sapatchcore.embed.patches import Embedder, Patches, covering_cell
from sapatchcore.errors import SettingsError
from sapatchcore.score.threshold import (
    FALSE_REJECT,
    check_rate,
    p_values,
    possible_rate,
    promise_sentence,
    smallest_rate,
    threshold,
)
from sapatchcore.synth.write import write_dataset

Floats = npt.NDArray[np.floating]

# Whole numbers tie often; every rate is j / 1000, so that the oracle counts in exact fractions.
SCORES = st.lists(st.integers(-3, 12), min_size=1, max_size=40)
THOUSANDTHS = st.integers(1, 999)


def rejected_by_counting(score: float, calibration: Sequence[float], rate: Fraction) -> bool:
    """p ≤ α, where p is counted one by one."""
    at_least = 0
    for other in calibration:
        at_least += other >= score
    return Fraction(1 + at_least, len(calibration) + 1) <= rate


def test_p_values_by_hand() -> None:
    assert p_values([0.0, 1.0, 1.5, 3.0, 3.5], [3.0, 1.0, 2.0]).tolist() == [1.0, 1.0, 0.75, 0.5, 0.25]


def test_ties_count_as_higher() -> None:
    """Calibration 1 2 2 2 5: of a score of 2, four are at least as high."""
    assert p_values([2.0, 2.5], [2.0, 5.0, 2.0, 1.0, 2.0]).tolist() == [5 / 6, 2 / 6]


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.25, 3.0), (0.49, 3.0), (0.5, 2.0), (0.74, 2.0), (0.75, 1.0), (0.99, 1.0)]
)
def test_threshold_by_hand(rate: float, expected: float) -> None:
    """k = ⌊4 α⌋-th largest of 3 scores."""
    assert threshold([2.0, 3.0, 1.0], rate) == expected


def test_a_score_at_the_threshold_is_accepted() -> None:
    t = threshold([1.0, 2.0, 3.0], 0.25)
    scores = np.array([t, np.nextafter(t, math.inf)])
    assert (scores > t).tolist() == (p_values(scores, [1.0, 2.0, 3.0]) <= 0.25).tolist() == [False, True]


@pytest.mark.parametrize("k", range(1, 100))
def test_rates_that_floats_only_come_near_to(k: int) -> None:
    """0.29 · 100 is 28.999…; the 29th largest is meant."""
    assert threshold(np.arange(99.0), k / 100) == 99 - k


@given(calibration=SCORES, scores=SCORES, thousandths=THOUSANDTHS)
@example(calibration=[1, 1, 1], scores=[1, 2], thousandths=250)
def test_above_the_threshold_is_what_counting_rejects(
    calibration: list[int], scores: list[int], thousandths: int
) -> None:
    rate = Fraction(thousandths, 1000)
    expected = [rejected_by_counting(score, calibration, rate) for score in scores]
    p = p_values(scores, calibration)
    assert (p <= float(rate)).tolist() == expected
    if rate < Fraction(1, len(calibration) + 1):
        assert not any(expected)
        with pytest.raises(SettingsError):
            threshold(calibration, float(rate))
    else:
        assert (np.array(scores) > threshold(calibration, float(rate))).tolist() == expected


@given(calibration=SCORES, scores=SCORES)
def test_p_values_fall_as_scores_rise(calibration: list[int], scores: list[int]) -> None:
    p = p_values(sorted(scores), calibration)
    assert (np.diff(p) <= 0).all()
    assert ((p >= smallest_rate(len(calibration))) & (p <= 1)).all()


def test_order_does_not_matter_and_nothing_is_changed() -> None:
    good = np.array([3.0, 1.0, 2.0], np.float32)
    assert threshold(good, 0.5) == threshold(good[::-1], 0.5) == 2.0
    assert p_values([2.0], good).tolist() == [0.75]
    assert good.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_rates_outside_the_range(rate: float) -> None:
    message = (
        rf"^false_reject must be in \(0, 1\)\. Got {re.escape(str(rate))}\. Use 0\.01 to reject at most 1 good part"
    )
    with pytest.raises(SettingsError, match=message):
        threshold([1.0, 2.0], rate)


def test_too_few_images_for_a_rate() -> None:
    with pytest.raises(SettingsError) as caught:
        threshold([1.0, 2.0, 3.0], 0.01)
    assert str(caught.value) == (
        "false_reject must be at least 0.25, the smallest rate that 3 calibration images can promise. Got 0.01, which "
        "needs 99. Calibrate with more good images, or ask for a larger rate."
    )


@given(count=st.integers(1, 2000), thousandths=THOUSANDTHS)
@example(count=198, thousandths=5)
@example(count=199, thousandths=5)
def test_the_sentence_names_a_rate_and_a_number_that_will_do(count: int, thousandths: int) -> None:
    rate = thousandths / 1000
    if Fraction(thousandths, 1000) * (count + 1) >= 1:
        check_rate(rate, count)
        return
    with pytest.raises(SettingsError) as caught:
        check_rate(rate, count)
    found = re.search(r"at least ([\d.]+), .* which needs (\d+)\.", str(caught.value))
    assert found is not None
    named, needed = float(found[1]), int(found[2])
    assert smallest_rate(count) <= named + 1e-12 < smallest_rate(count) + 1.001e-4  # rounded up, to four digits
    check_rate(named, count)
    check_rate(rate, needed)
    with pytest.raises(SettingsError):
        check_rate(rate, needed - 1)


def test_what_few_images_cannot_promise_is_said() -> None:
    assert promise_sentence(99) == "99 calibration scores: a false-reject rate down to 1.00% can be promised."
    few = promise_sentence(28)
    assert few.startswith(
        "28 calibration scores: about 1 good part in 29 rejected (3.4%) is the least that can be promised."
    )
    assert few.endswith("hangs on a single image; 99 images or more can promise 1%.")


def test_possible_rate() -> None:
    assert FALSE_REJECT == 0.01
    assert possible_rate(98) == 1 / 99
    assert possible_rate(99) == possible_rate(5000) == 0.01
    assert possible_rate(3, 0.05) == 0.25
    assert possible_rate(3, 0.5) == 0.5


@given(st.integers(1, 3000))
def test_the_smallest_rate_is_possible(count: int) -> None:
    """And means: above all that was seen."""
    assert threshold(np.arange(count), smallest_rate(count)) == count - 1
    assert threshold(np.arange(count), possible_rate(count)) >= count - 1 - count // 100


RATES = (0.005, 0.01, 0.05, 0.1)
SPLITS, NAIVE_SPLITS = 200, 20
LEARNED, CALIBRATED, IMAGES = 199, 199, 560  # with 199 calibration images, each of RATES is a whole number of ranks


class Made(Embedder):
    """The detector's pipeline over made embeddings: 12 patches of 6 + 2 numbers an image. Images are numbers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(SAPatchCore(resize=32, crop=None, batch_size=200, **options).settings)
        rng = np.random.default_rng(0)
        kind = rng.normal(0, 0.6, (IMAGES, 1, 8)) * rng.choice((0.5, 1, 3), (IMAGES, 1, 1), p=(0.5, 0.4, 0.1))
        place = rng.normal(0, 1, (1, 12, 8))
        noise = rng.normal(0, 0.4, (IMAGES, 12, 8)) * rng.gamma(2, 0.5, (IMAGES, 12, 1))  # some patches are odd ones
        values = torch.from_numpy((place + kind + noise).astype(np.float32))
        self._local, self._context = values[:, :, :6], values[:, :4, 6:]

    @property
    def network(self) -> Any:
        return SimpleNamespace(channels=(6, 2), device=torch.device("cpu"))

    def patches(self, sources: Sequence[int], first: int = 0) -> Iterator[tuple[Batch, Patches]]:
        for at in range(first, len(sources), self.settings.batch_size):
            few = list(sources[at : at + self.settings.batch_size])
            batch = Batch(
                tuple(map(str, few)), ((32, 32),) * len(few), np.zeros((len(few), 1, 1, 3), np.uint8)
            )  # the pixels are for thumbnails alone
            cell = covering_cell((4, 3), (2, 2))
            yield batch, Patches(self._local[few].contiguous(), self._context[few].contiguous(), cell, (4, 3))


def detector_of(pipeline: Made) -> SAPatchCore:
    detector = SAPatchCore(**pipeline.settings.model_dump())
    detector.embedder = pipeline
    return detector


Pairs = list[tuple[Floats, Floats]]  # calibration scores and those of other good images, of each split


@pytest.fixture(scope="module")
def splits() -> dict[str, Pairs]:
    """The detector's own fit and calibrate on 200 random splits: "calibration, threshold" → what it scored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sapatchcore.memory.training.thumbnail", lambda _: b"")  # nobody looks at them, 40,000 times
        return split_again()  # the patch ends here: other fixtures, made later, are to have their pictures


def split_again() -> dict[str, Pairs]:
    detector = detector_of(Made(coreset_ratio=0.03))
    found: dict[str, Pairs] = {}
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(IMAGES).tolist()
        learned, rest = order[:LEARNED], order[LEARNED:]
        crossed = detector.fit(learned).calibration
        assert crossed.source == "cross-fitted"
        fresh = detector.calibrate(rest).calibration
        assert fresh.source == "separate"
        kept = (
            detector.calibrate(learned).calibration if split < NAIVE_SPLITS else None
        )  # with their own patches: wrong
        for kind in ("scores", "peaks"):
            scores = getattr(fresh, kind)
            found.setdefault(f"cross-fitted, {kind}", []).append((getattr(crossed, kind), scores))
            found.setdefault(f"separate, {kind}", []).append((scores[:CALIBRATED], scores[CALIBRATED:]))
            if kept is not None:
                found.setdefault(f"on the whole bank, {kind}", []).append((getattr(kept, kind), scores))
    return found


def realised(pairs: Pairs, rate: float, limit: Callable[[Floats, float], float] = threshold) -> tuple[float, float]:
    """The mean share of good images above the limit, and its standard error."""
    shares = [float(np.mean(other > limit(good, rate))) for good, other in pairs]
    return float(np.mean(shares)), float(np.std(shares, ddof=1)) / math.sqrt(len(shares))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["scores", "peaks"])
@pytest.mark.parametrize("calibration", ["separate", "cross-fitted"])
def test_promise_is_kept(calibration: str, kind: str, rate: float, splits: dict[str, Pairs]) -> None:
    mean, error = realised(splits[f"{calibration}, {kind}"], rate)
    if calibration == "separate":  # the splits are exchangeable by construction, and nothing ties: it is α exactly
        assert rate - 3 * error <= mean <= rate + 3 * error
        assert error < rate / 4
    else:  # about α: a fold's bank has as many rows for four fifths of the images, so it lies a little nearer to a new one
        assert 0.6 * rate <= mean <= 1.15 * rate + 3 * error


@pytest.mark.parametrize("rate", RATES[:2])
@pytest.mark.parametrize("kind", ["scores", "peaks"])
def test_a_plain_quantile_breaks_the_promise(kind: str, rate: float, splits: dict[str, Pairs]) -> None:
    def plain(good: Floats, rate: float) -> float:
        return float(np.quantile(good, 1 - rate))

    mean, error = realised(splits[f"separate, {kind}"], rate, plain)
    assert mean > rate + 3 * error


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["scores", "peaks"])
def test_on_the_whole_bank_the_promise_is_broken(kind: str, rate: float, splits: dict[str, Pairs]) -> None:
    """Training images are too near to a bank that holds their own patches."""
    mean, error = realised(splits[f"on the whole bank, {kind}"], rate)
    assert mean > 1.5 * rate + 3 * error


@pytest.mark.parametrize("rate", [None, 0.1, 0.25, 0.5, 0.9])
def test_detector_result_and_verdicts_agree(rate: float | None, fitted: SAPatchCore, images: Callable) -> None:
    result = fitted.predict([*images(8, seed=5), *np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)])
    calibration = fitted.calibration
    least = 1 / 11 if rate is None else rate
    t = fitted.threshold(least)
    assert t == result.threshold(rate) == threshold(calibration.scores, least)
    assert fitted.pixel_threshold(least) == result.pixel_threshold(rate) == threshold(calibration.peaks, least)
    verdicts = result.verdicts(rate)
    assert [one.rejected for one in verdicts] == (result.p_values <= least).tolist() == (result.scores > t).tolist()
    assert [one.threshold for one in verdicts] == [t] * 10
    assert result.p_values.tolist() == p_values(result.scores, calibration.scores).tolist()
    assert verdicts[9].rejected
    for i in range(10):
        assert bool(result.regions(i, rate)) == bool(result.maps[i].max() > result.pixel_threshold(rate))


def test_ten_images_cannot_promise_one_percent(fitted: SAPatchCore) -> None:
    with pytest.raises(
        SettingsError, match=r"at least 0\.091, the smallest rate that 10 calibration images can promise"
    ):
        fitted.threshold(0.01)
    with pytest.raises(SettingsError, match=r"Got 0\.05, which needs 19\."):
        fitted.pixel_threshold(0.05)


def test_the_benchmark_scores_as_the_detector(images: Callable, small: dict[str, Any]) -> None:
    benchmark = script("benchmarks/core/thresholds.py")
    options = {**small, "coreset_ratio": 0.1, "seed": 0}
    detector = SAPatchCore(**options)
    pool = list(images(12, (80, 64), 3))
    remembered = benchmark.Remembering(detector.settings, pool)
    order = np.random.default_rng([0, 8]).permutation(12).tolist()
    ((left, rest),) = benchmark.split_again(remembered, 8, 0.1, 1)
    detector.fit([pool[number] for number in order[:8]], calibrate=[pool[number] for number in order[8:]])
    assert rest.scores.tolist() == pytest.approx(detector.calibration.scores.tolist(), rel=1e-5)
    assert rest.peaks.tolist() == pytest.approx(detector.calibration.peaks.tolist(), rel=1e-5)
    detector.fit([pool[number] for number in order[:8]])
    assert left.scores.tolist() == pytest.approx(detector.calibration.scores.tolist(), rel=1e-5)
    assert left.names == tuple(f"image {number}" for number in order[:8])


def test_the_benchmark_runs_and_its_results_make_the_page(tmp_path: Path) -> None:
    write_dataset(tmp_path / "given", "screws", side=96, train=20, test={"good": 8, "lacking": 1})
    output = tmp_path / "thresholds.json"
    script("benchmarks/core/thresholds.py").main(
        ["--quick", "--data", str(tmp_path / "given"), "--output", str(output)]
    )
    text = output.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    results = json.loads(text)["results"]
    assert {row["set"] for row in results["rates"]} == {"made screws", "given"} == set(results["sets"])
    assert {row["promised"] for row in results["rates"] if row["possible"]} == {0.05, 0.1}
    page = script("benchmarks/tables.py").part("docs/verdicts.md", "promise", {"thresholds": json.loads(text)})
    assert "not possible" in page
    assert "| made screws |" in page
