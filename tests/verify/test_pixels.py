"""Pixel metrics against brute force over every threshold, and values derived by head."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from sapatchcore.errors import MetricError
from sapatchcore.score import metrics
from sapatchcore.score.regions import label_regions
from sapatchcore.verify.pixels import pixel_metrics, spro_metrics

FEW = [-3.4e38, -1.0, -1e-45, 0.0, 1e-45, 0.5, 2.0, 3.4e38]
LIMITS = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)


def grow(seed: tuple[int, int], mask: np.ndarray) -> np.ndarray:
    """The pixels of ``mask`` that a king reaches from ``seed``, one step at a time."""
    region, todo = np.zeros_like(mask), [seed]
    while todo:
        y, x = todo.pop()
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not region[y, x]:
            region[y, x] = True
            todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return region


def regions_oracle(mask: np.ndarray) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for y, x in np.argwhere(mask):
        if not any(region[y, x] for region in found):
            found.append(grow((int(y), int(x)), mask))
    return found


def curve_oracle(regions, maps, limit) -> float:
    """Every score of every pixel as a threshold; trapezia; the last one cut at the limit by interpolation."""
    points = [(0.0, 0.0)]
    maps = [values.astype(np.float64) for values in maps]  # else >= rounds a float64 threshold to float32
    outside = [
        ~np.any([mask for mask, _ in found], axis=0) if found else np.ones(values.shape, bool)
        for found, values in zip(regions, maps, strict=True)
    ]
    negatives = sum(int(o.sum()) for o in outside)
    for t in sorted({v for values in maps for v in values.ravel().tolist()}, reverse=True):
        false = sum(int(((values >= t) & o).sum()) for values, o in zip(maps, outside, strict=True))
        overlaps = [
            min(int(((values >= t) & mask).sum()) / min(s, int(mask.sum())), 1.0)
            for found, values in zip(regions, maps, strict=True)
            for mask, s in found
        ]
        points.append((false / negatives, sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def images(draw, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """``count`` masks and maps, each of its own size up to 5 × 5."""
    masks, maps = [], []
    for _ in range(count):
        h, w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        bits = draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
        values = draw(st.lists(st.sampled_from(FEW), min_size=h * w, max_size=h * w))
        masks.append(np.array(bits).reshape(h, w))
        maps.append(np.array(values, np.float32).reshape(h, w))
    return masks, maps


@st.composite
def benchmark_sets(draw) -> tuple[list[np.ndarray], list[np.ndarray]]:
    masks, maps = images(draw, draw(st.integers(1, 3)))
    masks[draw(st.integers(0, len(masks) - 1))][:] = False  # a good image somewhere
    good = np.array([draw(st.lists(st.sampled_from(FEW), min_size=3, max_size=3))], np.float32)
    return [*masks, np.zeros((1, 3), bool)], [*maps, good]


@st.composite
def region_sets(draw):
    regions, maps = [], []
    for _ in range(draw(st.integers(1, 3))):
        masks, values = images(draw, 1)
        mask, values = masks[0], values[0]
        found = [(mask, draw(st.integers(1, 30)))] if mask.any() else []
        if found and draw(st.booleans()):  # a second region that may overlap the first
            found.append((np.roll(mask, 1, axis=1), draw(st.integers(1, 30))))
        regions.append(found)
        maps.append(values)
    return [*regions, []], [*maps, np.array([draw(st.lists(st.sampled_from(FEW), min_size=3, max_size=3))])]


class TestRegions:
    def test_diagonal_neighbours_are_one_region(self) -> None:
        labels, count = label_regions(np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], bool))
        assert count == 3
        assert labels.dtype == np.int32
        assert labels[0, 0] == labels[1, 1] != 0
        assert labels[0, 1] == 0

    def test_none(self) -> None:
        assert label_regions(np.zeros((2, 2), bool))[1] == 0

    @given(st.lists(st.booleans(), min_size=24, max_size=24))
    def test_oracle(self, bits) -> None:
        mask = np.array(bits).reshape(4, 6)
        labels, count = label_regions(mask)
        expected = regions_oracle(mask)
        assert count == len(expected)
        assert all(len(set(labels[region].tolist())) == 1 for region in expected)


class TestByHead:
    # Two regions: a of one pixel (score 9), b of two (scores 5 and 1). Negatives: 7, 5 and zeros.
    mask = np.array([[1, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], bool)
    values = np.array([[9, 7, 5, 1, 5, 0, 0], [0, 0, 0, 0, 0, 0, 0]], np.float32)

    def metrics(self, limit: float):
        # Two images of 7 and 6 pixels: 3 defective pixels, ten negatives.
        masks = [self.mask[:1], self.mask[1:, :6]]
        return pixel_metrics(masks, [self.values[:1], self.values[1:, :6]], fpr_limit=limit)

    @pytest.mark.parametrize(
        ("limit", "area"),
        [
            # The curve (FPR, PRO): (0, 1/2) after 9, (.1, 1/2) after 7, a diagonal to (.2, 3/4) by the tie
            # at 5, (.2, 1) after 1, then 1.
            (0.1, 0.05),
            (0.15, 0.05 + 0.05 * (1 / 2 + 5 / 8) / 2),
            (0.2, 0.05 + 0.1 * 5 / 8),
            (0.3, 0.05 + 0.1 * 5 / 8 + 0.1),
            (1.0, 0.05 + 0.1 * 5 / 8 + 0.8),
        ],
    )
    def test_aupro(self, limit, area) -> None:
        assert self.metrics(limit).aupro == pytest.approx(area / limit, abs=1e-14)

    def test_the_rest(self) -> None:
        result = self.metrics(0.3)
        # Pairs: 9 beats 10; 5 beats 8 and ties 1; 1 beats 8. 26.5 of 30.
        assert result.auroc == 26.5 / 30
        # Precisions 1/1, 2/4, 3/5, a third of the recall each.
        assert result.average_precision == pytest.approx((1 + 0.5 + 0.6) / 3, abs=1e-15)
        # >= 9: 2·1/(1+3); >= 5: 2·2/(4+3); >= 1: 2·3/(5+3) = 3/4.
        assert (result.f1, result.f1_threshold) == (0.75, 1.0)
        assert (result.defective_pixels, result.pixels, result.regions) == (3, 13, 2)
        assert result.reasons == {}

    def test_beta_moves_the_threshold(self) -> None:
        # F½ = 1.25·TP / (.25·3 + TP + FP): >= 9: 1.25/1.75 = .714; >= 5: 2.5/4.75; >= 1: 3.75/5.75 = .652.
        result = pixel_metrics([self.mask], [self.values], beta=0.5)
        assert (result.f1, result.f1_threshold) == (pytest.approx(5 / 7), 9.0)

    def test_default_limit(self) -> None:
        assert pixel_metrics([self.mask], [self.values]) == pixel_metrics([self.mask], [self.values], fpr_limit=0.3)

    def test_spro(self) -> None:
        # Region b saturates at one pixel: its better pixel (5, tied with a negative) is all that counts.
        # Curve: (0, 1/2), (.1, 1/2), diagonal to (.2, 1), 1.
        first, second = np.zeros_like(self.mask), np.zeros_like(self.mask)
        first[0, 0] = second[0, 2:4] = True
        regions = [[(first[:1], 1), (second[:1], 1)], []]
        areas = spro_metrics(regions, [self.values[:1], self.values[1:, :6]], fpr_limits=(0.1, 0.2, 1.0))
        expected = {0.1: 0.5, 0.2: (0.05 + 0.075) / 0.2, 1.0: 0.05 + 0.075 + 0.8}
        assert areas == pytest.approx(expected, abs=1e-14)

    def test_spro_of_whole_regions_is_pro(self) -> None:
        regions = [[(self.mask & (np.arange(7) < 1), 99), (self.mask & (np.arange(7) > 1), 2)]]
        assert spro_metrics(regions, [self.values], fpr_limits=[0.3])[0.3] == pytest.approx(
            pixel_metrics([self.mask], [self.values]).aupro, abs=1e-14
        )

    def test_spro_limits(self) -> None:
        assert list(spro_metrics([[(self.mask, 1)]], [self.values])) == [0.01, 0.05, 0.1, 0.3, 1.0]

    @pytest.mark.parametrize(("sign", "area"), [(1, 1.0), (-1, 0.0)])
    def test_perfect_and_inverted(self, sign, area) -> None:
        rng = np.random.default_rng(0)
        mask = rng.random((30, 30)) < 0.2
        values = (sign * (mask + 0.5 * rng.random((30, 30)))).astype(np.float32)
        result = pixel_metrics([mask], [values])
        assert (result.auroc, result.aupro) == (area, area)
        assert set(spro_metrics([[(mask, 7)]], [values]).values()) == {area}
        assert result.f1 == 1.0 or sign < 0


class TestOracles:
    @given(benchmark_sets(), st.sampled_from(LIMITS))
    def test_pixel_metrics(self, data, limit) -> None:
        masks, maps = data
        result = pixel_metrics(masks, maps, fpr_limit=limit)
        if not any(mask.any() for mask in masks):
            assert math.isnan(result.aupro)
            return
        regions = [[(region, int(region.sum())) for region in regions_oracle(mask)] for mask in masks]
        assert result.aupro == pytest.approx(curve_oracle(regions, maps, limit), abs=1e-12)
        labels = np.concatenate([mask.ravel() for mask in masks])
        scores = np.concatenate([values.ravel() for values in maps]).astype(np.float64)
        assert result.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert result.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        hits = [np.sum(labels & (scores >= t)) for t in scores]
        f1 = max(2 * h / (labels.sum() + np.sum(scores >= t)) for h, t in zip(hits, scores, strict=True))
        assert result.f1 == pytest.approx(f1, abs=1e-12)
        assert (result.pixels, result.defective_pixels) == (labels.size, labels.sum())
        assert result.regions == sum(len(found) for found in regions)

    @given(region_sets())
    def test_spro(self, data) -> None:
        regions, maps = data
        if not any(regions):
            with pytest.raises(MetricError, match="without a defect region"):
                spro_metrics(regions, maps)
            return
        areas = spro_metrics(regions, maps, fpr_limits=LIMITS)
        assert areas == pytest.approx({x: curve_oracle(regions, maps, x) for x in LIMITS}, abs=1e-12)


class Lazy:
    """A sequence that counts how often each of its items is computed."""

    def __init__(self, items) -> None:
        self.items, self.asked = items, [0] * len(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        self.asked[index] += 1
        # A new array each time, as if computed; the caller may write into it afterwards.
        return self.items[index].copy()


class TestStreaming:
    masks = (np.zeros((2, 3), bool), np.eye(3, dtype=bool), np.zeros((4, 1), bool))
    maps = tuple(np.arange(m.size, dtype=np.float32).reshape(m.shape) for m in masks)

    def test_good_maps_once_defective_maps_twice(self) -> None:
        masks, maps, told = Lazy(self.masks), Lazy(self.maps), []
        result = pixel_metrics(masks, maps, progress=told.append)
        assert maps.asked == [1, 2, 1]
        assert masks.asked == [1, 2, 1]
        assert told == [1, 2, 3, 4, 5, 6]
        assert result == pixel_metrics(self.masks, self.maps)

    def test_spro_asks_alike(self) -> None:
        maps, told = Lazy(self.maps), []
        spro_metrics([[], [(self.masks[1], 1)], []], maps, progress=told.append)
        assert maps.asked == [1, 2, 1]
        assert told == [1, 2, 3, 4, 5, 6]

    def test_a_map_may_be_overwritten_after_its_turn(self) -> None:
        buffer = np.empty((3, 3), np.float32)

        class Reused(Lazy):
            def __getitem__(self, index: int):
                buffer[:] = self.items[index]
                return buffer

        masks = [np.eye(3, dtype=bool), np.zeros((3, 3), bool), np.zeros((3, 3), bool)]
        maps = [np.full((3, 3), v, np.float32) + np.eye(3, dtype=np.float32) for v in (1, 0, 5)]
        assert pixel_metrics(masks, Reused(maps)) == pixel_metrics(masks, maps)

    def test_memory_does_not_grow_with_good_images(self, monkeypatch) -> None:
        monkeypatch.setattr(metrics, "_CHUNK", 1 << 16)

        class Computed(Lazy):
            def __getitem__(self, index: int):
                return self.items[min(index, 1)] + self.items[1]

        def peak(count: int) -> int:
            mask = np.zeros((128, 128), bool)
            mask[:20, :20] = True
            masks = Computed([mask, np.zeros_like(mask)] * (count // 2))
            maps = Computed([np.eye(128, dtype=np.float32), np.eye(128, dtype=np.float32)] * (count // 2))
            tracemalloc.start()
            pixel_metrics(masks, maps)
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return size

        assert peak(60) < 1.1 * peak(20)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
    def test_dtypes(self, dtype) -> None:
        expected = pixel_metrics(self.masks, self.maps)
        assert pixel_metrics(self.masks, [m.astype(dtype) for m in self.maps]) == expected

    def test_integers_keep_their_digits(self) -> None:
        values = np.array([[2**24, 2**24 + 1]])  # float32 would make them equal
        assert pixel_metrics([np.array([[False, True]])], [values]).auroc == 1.0


class TestUndefined:
    def test_no_defect(self) -> None:
        told: list[int] = []
        result = pixel_metrics([np.zeros((2, 2), bool)], [np.zeros((2, 2))], progress=told.append)
        values = (result.auroc, result.average_precision, result.f1, result.f1_threshold, result.aupro)
        assert all(map(math.isnan, values))
        assert result.reasons == dict.fromkeys(
            ("auroc", "average_precision", "f1", "f1_threshold", "aupro"),
            "no defective pixel in the ground truth",
        )
        assert (result.defective_pixels, result.pixels, result.regions) == (0, 4, 0)
        assert told[-1] == 2

    def test_no_masks(self) -> None:
        result = pixel_metrics([], [np.zeros((2, 2))])
        assert math.isnan(result.auroc)
        assert set(result.reasons.values()) == {"no ground-truth masks"}

    def test_no_good_pixel(self) -> None:
        result = pixel_metrics([np.ones((2, 2), bool)], [np.arange(4.0).reshape(2, 2)])
        assert math.isnan(result.auroc)
        assert math.isnan(result.aupro)
        assert set(result.reasons) == {"auroc", "aupro"}
        assert (result.average_precision, result.f1, result.f1_threshold) == (1.0, 1.0, 0.0)

    def test_spro(self) -> None:
        with pytest.raises(MetricError, match="without pixels outside the defect regions"):
            spro_metrics([[(np.ones((2, 2), bool), 1)]], [np.zeros((2, 2))])


GOOD, BAD = np.zeros((2, 2), bool), np.eye(2, dtype=bool)
FLAT = np.zeros((2, 2), np.float32)


class TestErrors:
    @pytest.mark.parametrize(
        ("masks", "maps", "message"),
        [
            ([BAD], [], "Got 1 masks and 0 maps"),
            (
                [BAD, GOOD],
                [FLAT, FLAT[:1]],
                r"map of image 1 .* Got a map of \(1, 2\) and a mask of \(2, 2\)",
            ),
            ([GOOD, BAD], [FLAT, FLAT.T[:, :1]], r"map of image 1 .* Got a map of \(2, 1\)"),
            ([BAD, GOOD], [FLAT, FLAT + np.nan], "map of image 1 must be finite. Got 4 NaN or infinite of 4"),
            ([GOOD, BAD], [FLAT, FLAT + np.inf], "map of image 1 must be finite"),
            ([BAD, 255 * GOOD.astype(np.uint8)], [FLAT, FLAT], "mask of image 1 .* uint8. .*mask > 0"),
            ([BAD, GOOD[0]], [FLAT, FLAT], r"mask of image 1 .* Got shape \(2,\)"),
        ],
    )
    def test_pixel_metrics(self, masks, maps, message) -> None:
        with pytest.raises(MetricError, match=message):
            pixel_metrics(masks, maps)

    @pytest.mark.parametrize("limit", [0.0, -0.1, 1.01, math.nan])
    def test_limits(self, limit) -> None:
        with pytest.raises(MetricError, match=r"must be in \(0, 1\]"):
            pixel_metrics([BAD], [FLAT], fpr_limit=limit)
        with pytest.raises(MetricError, match=r"must be in \(0, 1\]"):
            spro_metrics([[(BAD, 1)]], [FLAT], fpr_limits=[0.3, limit])

    def test_beta(self) -> None:
        with pytest.raises(MetricError, match="beta"):
            pixel_metrics([BAD], [FLAT], beta=0.0)

    @pytest.mark.parametrize(
        ("regions", "maps", "message"),
        [
            ([[(BAD, 1)]], [], "Got 1 lists of regions and 0 maps"),
            ([[], [(BAD, 0)]], [FLAT, FLAT], "Region 0 of image 1 .* Got 2 pixels and 0"),
            ([[(BAD, 1), (GOOD, 1)]], [FLAT], "Region 1 of image 0 .* Got 0 pixels and 1"),
            ([[(BAD, 1), (BAD[:1], 1)]], [FLAT], r"one shape. Got \(2, 2\) and \(1, 2\)"),
            ([[(BAD.astype(int), 1)]], [FLAT], "Region 0 of image 0 must be a .* bool array"),
            ([[(BAD, 1)]], [FLAT[:1]], r"Got a map of \(1, 2\) and a mask of \(2, 2\)"),
            ([[(BAD, 1)], []], [FLAT, FLAT[0]], r"Got a map of \(2,\) and no mask"),
        ],
    )
    def test_spro(self, regions, maps, message) -> None:
        with pytest.raises(MetricError, match=message):
            spro_metrics(regions, maps)
