"""Curves: their areas are the figures, thinning hides nothing that is seen. Intervals: against every resample written out."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve as sklearn_roc_curve

from sapatchcore.errors import MetricError
from sapatchcore.score.metrics import RankCounts, auroc, average_precision
from sapatchcore.verify import curves
from sapatchcore.verify.curves import (
    POINTS,
    UNSEEN,
    Curve,
    _distances,
    auroc_interval,
    per_defect_intervals,
    precision_recall_curve,
    roc_curve,
    thinned,
)
from sapatchcore.verify.pixels import pixel_metrics

FEW = [-3.4e38, -1.0, -1e-45, 0.0, 1e-45, 0.5, 2.0, 3.4e38]  # few values, so that ties are common
ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from(FEW)), min_size=2, max_size=40)
BOTH = ROWS.filter(lambda rows: len({label for label, _ in rows}) == 2)


def split(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows], np.float32)


class TestByHead:
    labels = (0, 0, 1, 1)
    scores = (0.1, 0.4, 0.35, 0.8)

    def test_roc(self) -> None:
        # From the top: .8 is a defect (up), .4 good (right), .35 a defect (up), .1 good (right).
        found = thinned(roc_curve(self.labels, self.scores))
        assert list(zip(found.x, found.y, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]

    def test_roc_is_diagonal_at_ties(self) -> None:
        found = roc_curve([0, 1], [7, 7])
        assert found.area() == 0.5
        assert {(0.0, 0.0), (1.0, 1.0)} == set(zip(found.x.tolist(), found.y.tolist(), strict=True))

    def test_precision_recall(self) -> None:
        # .8: half of the recall at precision 1; .35: the other half at 2 of 3.
        found = precision_recall_curve(self.labels, self.scores)
        assert found.x.tolist() == [0, 0.5, 0.5, 1]
        assert found.y.tolist() == [1, 1, 2 / 3, 2 / 3]

    def test_pro_weighs_regions(self) -> None:
        # A region of one pixel, found first, and one of two; half of the negatives between them.
        ranks = RankCounts(np.array([9.0, 5.0, 5.0]), np.array([1.0, 0.5, 0.5]))
        ranks.add_negatives(np.array([7.0, 1.0]))
        found = Curve(*ranks.corners())
        assert found.area() == 0.75
        assert found.area(0.5) == 0.5
        # To a quarter: the first region alone, half of all weight.
        cut = found.upto(0.25)
        assert (cut.x[-1], cut.y[-1]) == (0.25, 0.5)


class TestAreas:
    @given(BOTH)
    def test_roc(self, rows) -> None:
        labels, scores = split(rows)
        assert roc_curve(labels, scores).area() == pytest.approx(auroc(labels, scores), abs=1e-12)

    @given(BOTH)
    def test_precision_recall(self, rows) -> None:
        labels, scores = split(rows)
        found = precision_recall_curve(labels, scores)
        assert found.area() == pytest.approx(average_precision(labels, scores), abs=1e-12)

    @given(BOTH, st.sampled_from([0.01, 0.05, 0.3, 0.5, 1.0]))
    def test_weights_and_limits(self, rows, limit) -> None:
        labels, scores = split(rows)
        positives = scores[labels]
        ranks = RankCounts(positives, np.arange(1.0, len(positives) + 1))
        ranks.add_negatives(scores[~labels])
        found = Curve(*ranks.corners())
        assert (np.diff(found.x) >= 0).all()
        assert (np.diff(found.y) >= 0).all()
        assert found.area(limit) == pytest.approx(ranks.area(limit), abs=1e-12)

    @given(BOTH)
    def test_roc_passes_scikit_learns_points(self, rows) -> None:
        labels, scores = split(rows)
        ranks = np.unique(scores, return_inverse=True)[1]  # it subtracts scores, and these overflow
        x, y, _ = sklearn_roc_curve(labels, ranks, drop_intermediate=False)
        found = roc_curve(labels, scores)
        for point in np.stack((x, y), axis=1):
            starts, ends = np.stack((found.x, found.y), axis=1)[:-1], np.stack((found.x, found.y), axis=1)[1:]
            nearest = min(_distances(point[None], *both)[0] for both in zip(starts, ends, strict=True))
            assert nearest < 1e-9

    def test_only_defects_have_a_precision(self) -> None:
        assert precision_recall_curve([1, 1], [1.0, 2.0]).area() == 1.0
        with pytest.raises(MetricError, match="The ROC curve is not defined without negatives"):
            roc_curve([1, 1], [1.0, 2.0])


class TestPixels:
    def images(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        rng = np.random.default_rng(3)
        masks = [np.zeros((40, 50), bool) for _ in range(4)]
        masks[0][3:9, 4:20] = masks[0][30:32, 40:45] = masks[2][10:30, 10:12] = True
        return masks, [rng.normal(size=mask.shape).astype(np.float32) + 1.5 * mask for mask in masks]

    @pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
    def test_pro_comes_with_the_metrics(self, limit: float) -> None:
        masks, maps = self.images()
        found = pixel_metrics(masks, maps, fpr_limit=limit)
        assert found.pro is not None
        assert 2 < len(found.pro) <= POINTS
        assert found.pro.x[-1] == limit
        assert found.pro.area(limit) == pytest.approx(found.aupro, abs=2e-3)  # as thinned

    def test_none_without_ground_truth(self) -> None:
        assert pixel_metrics([], []).pro is None
        assert pixel_metrics([np.ones((2, 2), bool)], [np.ones((2, 2))]).pro is None


class TestThinned:
    def curve(self, points: int) -> Curve:
        rng = np.random.default_rng(0)
        x, y = (np.sort(rng.random(points)) for _ in range(2))
        return Curve(np.concatenate(([0], x, [1])), np.concatenate(([0], np.sqrt(y), [1])))

    def test_keeps_ends_and_shape(self) -> None:
        whole = self.curve(20_000)
        found = thinned(whole)
        assert len(found) <= POINTS
        assert [found.x[0], found.x[-1], found.y[0], found.y[-1]] == [0, 1, 0, 1]
        assert np.abs(np.interp(whole.x, found.x, found.y) - whole.y).max() < 0.02
        assert found.area() == pytest.approx(whole.area(), abs=1e-3)
        assert set(zip(found.x, found.y, strict=True)) <= set(zip(whole.x, whole.y, strict=True))

    def test_fewer_points_draw_less(self) -> None:
        whole = self.curve(2_000)
        drawn = [thinned(whole, most) for most in (5, 50)]
        errors = [np.abs(np.interp(whole.x, one.x, one.y) - whole.y).max() for one in drawn]
        assert errors[0] > errors[1]
        assert len(thinned(whole, 2)) == 2

    def test_corners_stay_and_straight_lines_lose_their_points(self) -> None:
        steps = np.repeat(np.linspace(0, 1, 11), 2)
        stairs = Curve(steps[:-1], steps[1:])
        assert len(thinned(stairs)) == len(stairs)
        line = np.linspace(0, 1, 500)
        assert len(thinned(Curve(line, line))) == 2

    def test_a_curve_that_ends_where_it_begins(self) -> None:
        found = thinned(Curve(np.array([0.5, 0.5, 0.5]), np.array([0.2, 0.9, 0.2])))
        assert found.y.tolist() == [0.2, 0.9, 0.2]

    def test_unseen_is_below_a_pixel(self) -> None:
        assert UNSEEN * 1000 < 1
        assert math.isfinite(UNSEEN)


def made_scores(
    good: int = 30, defective: int = 50, seed: int = 0, ties: bool = False
) -> tuple[np.ndarray, np.ndarray]:
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
    labels, scores = made_scores(good, defective, seed=good, ties=ties)
    order = np.random.default_rng(9).permutation(len(labels))
    # The oracle draws in the order of the defects as they come.
    areas = resampled_oracle(labels[order], scores[order], 200, seed=4)
    found = auroc_interval(labels[order], scores[order], resamples=200, seed=4)
    assert found.auroc == auroc(labels, scores)
    np.testing.assert_allclose([found.low, found.high], np.quantile(areas, [0.025, 0.975]), atol=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = made_scores()
    whole = auroc_interval(labels, scores)
    monkeypatch.setattr(curves, "_CELLS", 1000)
    assert auroc_interval(labels, scores) == whole


def test_width_follows_the_level_and_the_images() -> None:
    labels, scores = made_scores()
    narrow, wide = (auroc_interval(labels, scores, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.auroc < narrow.high < wide.high
    many = auroc_interval(*made_scores(300, 500))
    assert many.high - many.low < 0.5 * (auroc_interval(labels, scores).high - auroc_interval(labels, scores).low)
    # Hanley and McNeil 1982: the standard error from the AUROC alone; 1.96 of them either side, roughly.
    a, p, n = many.auroc, 500, 300
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (p - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (p * n))
    assert many.high - many.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_seeds() -> None:
    labels, scores = made_scores()
    assert auroc_interval(labels, scores) == auroc_interval(labels, scores)
    assert auroc_interval(labels, scores) != auroc_interval(labels, scores, seed=1)


def test_separated_scores_have_no_width() -> None:
    found = auroc_interval([0, 0, 1, 1], [1, 2, 3, 4])
    assert (found.low, found.high) == (1, 1)


def test_labels_of_any_kind() -> None:
    labels, scores = made_scores()
    assert auroc_interval(labels.astype(int), scores) == auroc_interval(labels.tolist(), scores.tolist())


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0, 1]])
def test_one_image_of_a_class_says_nothing(labels: list[int]) -> None:
    with pytest.raises(MetricError, match=r"2 or more images of each class\. Got"):
        auroc_interval(labels, [1.0, 2.0, 3.0])


def test_wrong_use() -> None:
    labels, scores = made_scores()
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
    labels, scores = made_scores(41, 119)
    start = time.perf_counter()
    auroc_interval(labels, scores)
    assert time.perf_counter() - start < 2  # measured: below 0.1 s
