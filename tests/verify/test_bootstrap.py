"""The bootstrap interval against resampling image by image, and its limits."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from sapatchcore.errors import MetricError
from sapatchcore.verify import bootstrap
from sapatchcore.verify.bootstrap import auroc_interval, per_defect_intervals
from sapatchcore.verify.metrics import auroc


def made(good: int = 30, defective: int = 50, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([False, True], [good, defective])
    scores = rng.normal(size=labels.size) + labels
    return labels, (np.round(scores) if ties else scores).astype(np.float32)


def resampled_oracle(labels: np.ndarray, scores: np.ndarray, resamples: int, seed: int) -> list[float]:
    """Every resample written out, image by image, and its AUROC as of any scores."""
    of_defective, of_good = np.random.default_rng(seed).spawn(2)
    defective, good = scores[labels], np.sort(scores[~labels])
    areas = []
    for _ in range(resamples):
        w = of_defective.multinomial(len(defective), np.full(len(defective), 1 / len(defective)))
        v = of_good.multinomial(len(good), np.full(len(good), 1 / len(good)))
        drawn = np.concatenate((np.repeat(defective, w), np.repeat(good, v)))
        areas.append(auroc(np.repeat([True, False], [len(defective), len(good)]), drawn))
    return areas


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("good", "defective"), [(2, 2), (7, 3), (30, 50)])
def test_equals_resampling_image_by_image(good: int, defective: int, ties: bool) -> None:
    labels, scores = made(good, defective, seed=good, ties=ties)
    order = np.random.default_rng(9).permutation(len(labels))
    # The oracle draws in the order of the defects as they come.
    areas = resampled_oracle(labels[order], scores[order], 200, seed=4)
    found = auroc_interval(labels[order], scores[order], resamples=200, seed=4)
    assert found.auroc == auroc(labels, scores)
    np.testing.assert_allclose([found.low, found.high], np.quantile(areas, [0.025, 0.975]), atol=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = made()
    whole = auroc_interval(labels, scores)
    monkeypatch.setattr(bootstrap, "_CELLS", 1000)
    assert auroc_interval(labels, scores) == whole


def test_width_follows_the_level_and_the_images() -> None:
    labels, scores = made()
    narrow, wide = (auroc_interval(labels, scores, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.auroc < narrow.high < wide.high
    many = auroc_interval(*made(300, 500))
    assert many.high - many.low < 0.5 * (auroc_interval(labels, scores).high - auroc_interval(labels, scores).low)
    # Hanley and McNeil 1982: the standard error from the AUROC alone; 1.96 of them either side, roughly.
    a, p, n = many.auroc, 500, 300
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (p - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (p * n))
    assert many.high - many.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_seeds() -> None:
    labels, scores = made()
    assert auroc_interval(labels, scores) == auroc_interval(labels, scores)
    assert auroc_interval(labels, scores) != auroc_interval(labels, scores, seed=1)


def test_separated_scores_have_no_width() -> None:
    found = auroc_interval([0, 0, 1, 1], [1, 2, 3, 4])
    assert (found.low, found.high) == (1, 1)


def test_labels_of_any_kind() -> None:
    labels, scores = made()
    assert auroc_interval(labels.astype(int), scores) == auroc_interval(labels.tolist(), scores.tolist())


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0, 1]])
def test_one_image_of_a_class_says_nothing(labels: list[int]) -> None:
    with pytest.raises(MetricError, match=r"2 or more images of each class\. Got"):
        auroc_interval(labels, [1.0, 2.0, 3.0])


def test_wrong_use() -> None:
    labels, scores = made()
    with pytest.raises(MetricError, match="without positives"):
        auroc_interval(np.zeros(3), [1, 2, 3])
    with pytest.raises(MetricError, match="resamples of at least 1"):
        auroc_interval(labels, scores, resamples=0)
    with pytest.raises(MetricError, match="Got 2000 and 95"):
        auroc_interval(labels, scores, level=95)


def test_each_defect_against_the_good_images() -> None:
    labels = ["good"] * 4 + ["dent"] * 3 + ["scratch"]
    scores = np.array([1, 2, 3, 4, 2.5, 6, 7, 9])
    found = per_defect_intervals(labels, scores, resamples=100)
    assert list(found) == ["dent", "scratch"]
    assert found["dent"] == auroc_interval([0] * 4 + [1] * 3, scores[:7], resamples=100)
    assert found["scratch"].auroc == 1
    assert math.isnan(found["scratch"].low)
    assert "Got 4 good and 1 defective" in found["scratch"].reason
    with pytest.raises(MetricError, match="without negatives"):
        per_defect_intervals(["dent", "dent"], [1, 2])


def test_fast_enough_for_a_report() -> None:
    labels, scores = made(41, 119)
    start = time.perf_counter()
    auroc_interval(labels, scores)
    assert time.perf_counter() - start < 2  # measured: below 0.1 s
