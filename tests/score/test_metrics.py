"""AUROC, average precision and F-beta against slow oracles, other libraries, and values derived by head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from sapatchcore.errors import MetricError
from sapatchcore.score import metrics
from sapatchcore.score.metrics import RankCounts, auroc, average_precision, best_f1, per_defect_auroc

# Few values, so ties are common; among them zeros of both signs, subnormals, neighbours and huge ones.
FEW = [-3.4e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 0.5, float(np.nextafter(np.float32(0.5), 1)), 2.0, 3.4e38]
SAMPLES = st.lists(st.tuples(st.booleans(), st.sampled_from(FEW)), min_size=2, max_size=40)
BOTH = SAMPLES.filter(lambda rows: len({label for label, _ in rows}) == 2)


def split(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows], np.float32)


def pairs_oracle(labels, scores) -> float:
    """Every (positive, negative) pair, one by one."""
    points = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[labels == 1] for n in scores[labels == 0]]
    return sum(points) / len(points)


def precision_oracle(labels, scores) -> float:
    """Every score as a threshold, from the highest."""
    area = recall = 0.0
    for t in sorted(set(scores.tolist()), reverse=True):
        found = np.sum((scores >= t) & (labels == 1))
        step = found / np.sum(labels == 1) - recall
        area += step * found / np.sum(scores >= t)
        recall += step
    return area


def f_oracle(labels, scores, beta) -> tuple[float, float]:
    """Every score as a threshold, from the highest; only a better one replaces the best."""
    best = (-1.0, math.nan)
    for t in sorted(set(scores.tolist()), reverse=True):
        hit = np.sum((scores >= t) & (labels == 1))
        if not hit:
            continue
        precision, recall = hit / np.sum(scores >= t), hit / np.sum(labels == 1)
        f = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        if f > best[0] + 1e-12:
            best = (f, t)
    return best


class TestByHead:
    labels = (0, 0, 1, 1)
    scores = (0.1, 0.4, 0.35, 0.8)

    def test_values(self) -> None:
        # Pairs: .35 > .1, .35 < .4, .8 > .1, .8 > .4, so 3 of 4.
        assert auroc(self.labels, self.scores) == 0.75
        # .8: half the recall at precision 1; .35: the other half at precision 2/3. (1 + 2/3) / 2.
        assert average_precision(self.labels, self.scores) == pytest.approx(5 / 6, abs=1e-15)
        # >= .8: F1 = 2/3; >= .35: precision 2/3, recall 1, F1 = 4/5.
        assert best_f1(self.labels, self.scores) == (pytest.approx(0.8, abs=1e-15), 0.35)
        # F½ = 1.25·P·R / (.25·P + R): >= .8: .625/.75 = 5/6; >= .35: (5/6)/(7/6) = 5/7. The other threshold.
        assert best_f1(self.labels, self.scores, 0.5) == (pytest.approx(5 / 6, abs=1e-15), 0.8)

    def test_ties(self) -> None:
        # All four equal: four half pairs; one threshold with precision 1/2, recall 1.
        assert auroc(self.labels, [7, 7, 7, 7]) == 0.5
        assert average_precision(self.labels, [7, 7, 7, 7]) == 0.5
        assert best_f1(self.labels, [7, 7, 7, 7]) == (pytest.approx(2 / 3), 7.0)

    def test_equal_f1_takes_the_highest_threshold(self) -> None:
        # >= 9: precision 1, recall 1/3, F1 1/2. >= 5: 2 of 5, recall 2/3, 1/2. >= 1: 3 of 9, recall 1, 1/2.
        labels = [1, 0, 0, 0, 1, 0, 0, 0, 1]
        assert best_f1(labels, [9, 8, 7, 6, 5, 4, 3, 2, 1]) == (0.5, 9.0)

    @pytest.mark.parametrize(("scores", "area"), [((1, 2, 3, 4), 1.0), ((4, 3, 2, 1), 0.0)])
    def test_perfect_and_inverted(self, scores, area) -> None:
        assert auroc(self.labels, scores) == area

    def test_integers_keep_their_digits(self) -> None:
        assert auroc([0, 1], [2**24, 2**24 + 1]) == 1.0  # float32 would make them equal

    def test_threshold_is_found_again_in_float32(self) -> None:
        scores = np.array([0.1, 0.2, 0.3], np.float32)
        f1, threshold = best_f1([0, 1, 1], scores)
        assert f1 == 1.0
        assert (scores >= threshold).tolist() == [False, True, True]


class TestOracles:
    @given(BOTH)
    def test_auroc(self, rows) -> None:
        labels, scores = split(rows)
        assert auroc(labels, scores) == pytest.approx(pairs_oracle(labels, scores), abs=1e-14)

    @given(BOTH)
    def test_average_precision(self, rows) -> None:
        labels, scores = split(rows)
        assert average_precision(labels, scores) == pytest.approx(precision_oracle(labels, scores), abs=1e-12)

    @given(BOTH, st.sampled_from([0.5, 1.0, 2.0]))
    def test_best_f1(self, rows, beta) -> None:
        labels, scores = split(rows)
        f, threshold = best_f1(labels, scores, beta)
        expected, expected_threshold = f_oracle(labels, scores, beta)
        assert f == pytest.approx(expected, abs=1e-12)
        assert threshold == expected_threshold

    @given(BOTH)
    def test_area_is_auroc(self, rows) -> None:
        labels, scores = split(rows)
        ranks = RankCounts(scores[labels])
        ranks.add_negatives(scores[~labels])
        assert ranks.area(1.0) == pytest.approx(pairs_oracle(labels, scores), abs=1e-12)

    @given(BOTH, st.integers(1, 5))
    def test_chunks_do_not_matter(self, rows, chunk) -> None:
        labels, scores = split(rows)
        ranks = RankCounts(scores[labels])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "_CHUNK", chunk)
            for one in scores[~labels]:
                ranks.add_negatives(np.array([one]))
            assert ranks.negatives == np.sum(~labels)
            assert ranks.auroc() == auroc(labels, scores)
            assert ranks.best_f1() == best_f1(labels, scores)

    def test_float64_negatives_are_not_rounded_to_float32_positives(self) -> None:
        ranks = RankCounts(np.array([1.0], np.float32))
        ranks.add_negatives(np.array([1.0 + 1e-12, 1.0 - 1e-12, 1.0]))
        assert ranks.auroc() == 0.5
        assert ranks.area(1 / 3) == 0.0  # the negative just above takes the first third


class TestOtherLibraries:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("decimals", [1, 2, 7])
    def test_parity(self, seed, decimals) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.random(500) < 0.3
        scores = np.round(rng.random(500) * 0.7 + 0.3 * labels * rng.random(500), decimals)
        tensors = torch.from_numpy(scores), torch.from_numpy(labels.astype(np.int64))
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        # torchmetrics accumulates in float32.
        assert auroc(labels, scores) == pytest.approx(binary_auroc(*tensors).item(), abs=1e-5)
        assert average_precision(labels, scores) == pytest.approx(binary_average_precision(*tensors).item(), abs=1e-5)

    def test_order_alone_counts_even_where_a_sigmoid_saturates(self) -> None:
        rng = np.random.default_rng(0)
        labels = rng.random(400) < 0.4
        scores = (0.5 * rng.random(400) + 0.3 * labels + 0.2).astype(np.float32)
        before = auroc(labels, scores), average_precision(labels, scores), best_f1(labels, scores)[0]
        for changed in (
            scores * np.float32(1024),
            np.float32(2) ** -130 * scores.astype(np.float64),
            scores - 9,
        ):
            after = auroc(labels, changed), average_precision(labels, changed), best_f1(labels, changed)[0]
            assert after == before
        # The same scores times 1024: torchmetrics' sigmoid makes nearly all of them 1.
        squashed = binary_auroc(torch.from_numpy(scores) * 1024, torch.from_numpy(labels.astype(np.int64)))
        assert squashed.item() < before[0] - 0.1


class TestErrors:
    @pytest.mark.parametrize("metric", [auroc, average_precision, best_f1])
    @pytest.mark.parametrize(
        ("labels", "scores", "message"),
        [
            (
                [0, 0],
                [1.0, 2.0],
                r"without positives \(label 1, defect\)\. Got 2 samples, 0 of them positive",
            ),
            ([], [], "without positives"),
            ([0, 1, 1], [1.0, math.nan, math.inf], r"Got 2 NaN or infinite of 3"),
            ([0, 1], [1.0, 2.0, 3.0], r"Got shapes \(2,\) and \(3,\)"),
            ([[0, 1]], [[1.0, 2.0]], r"Got shapes \(1, 2\)"),
            ([0, 2, 3, 1], [1.0, 2.0, 3.0, 4.0], r"0 \(good\) or 1 \(defect\)\. Got 2 and 1 more"),
            (["good", "bad"], [1.0, 2.0], "Got 'good'"),
            ([0, 1], ["a", "b"], "real numbers"),
        ],
    )
    def test_message(self, metric, labels, scores, message) -> None:
        with pytest.raises(MetricError, match=message):
            metric(labels, scores)

    def test_auroc_names_the_missing_class(self) -> None:
        with pytest.raises(MetricError, match=r"without negatives \(label 0, good\)\. Got 2 samples, 2 of them"):
            auroc([1, 1], [1.0, 2.0])
        with pytest.raises(MetricError, match=r"positives .* and negatives"):
            auroc([], [])

    def test_defined_without_negatives(self) -> None:
        assert average_precision([1, 1], [1.0, 2.0]) == 1.0
        assert best_f1([1, 1], [1.0, 2.0]) == (1.0, 1.0)

    @pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
    def test_beta(self, beta) -> None:
        with pytest.raises(MetricError, match="beta must be a number above 0"):
            best_f1([0, 1], [0.0, 1.0], beta)


class TestPerDefect:
    def test_each_defect_against_all_good(self) -> None:
        # scratch: 3 > 1, 3 > 2: 1. paint: 2 > 1, 2 = 2, 0 < both: 1.5 of 4. Scratches never meet paint.
        labels = ["scratch", "good", "paint", "good", "paint"]
        assert list(per_defect_auroc(labels, [3, 1, 2, 2, 0]).items()) == [("paint", 0.375), ("scratch", 1.0)]

    def test_only_good(self) -> None:
        assert per_defect_auroc(["good"], [1.0]) == {}

    def test_errors(self) -> None:
        with pytest.raises(MetricError, match="Got none among 2 images"):
            per_defect_auroc(["scratch", "Good"], [1.0, 2.0])
        with pytest.raises(MetricError, match="equal length"):
            per_defect_auroc(["good"], [1.0, 2.0])
