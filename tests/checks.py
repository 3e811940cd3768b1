"""Checks that both the tests and the mutants call: each must pass on the code as it is, and fail on a mutant of it.

They reach the code through its modules, so that a mutant put there is what they see.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torchvision
from scipy.spatial.distance import cdist

from sapatchcore import SAPatchCore
from sapatchcore.data.images import all_images
from sapatchcore.data.sources import as_sources
from sapatchcore.embed import attention, patches, whitening
from sapatchcore.learning.calibrate import as_calibration
from sapatchcore.memory import coreset, growth
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.search import brute_force, exact
from sapatchcore.memory.training import TrainingImage
from sapatchcore.result import gather_result
from sapatchcore.score import anomaly_score, explain, metrics, regions, reweighted, threshold, verdict
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import LEAVE_ONE_OUT, Calibration
from sapatchcore.score.verdict import Parts
from sapatchcore.settings import settings_from


def check_attention(x: torch.Tensor) -> None:
    """Equal to three loops in float64 within 1e-5 of the largest value."""
    expected = oracle.attention_by_loops(x.double().numpy())
    out = attention.self_attention(x)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1e-30))


def check_patches(layer2: torch.Tensor, layer3: torch.Tensor, mode: str) -> None:
    """Equal to pooling, attention, nearest upsampling and concatenation in float64."""
    found = patches.to_patches(layer2, layer3, mode)
    for row, one, other in zip(found.rows(), layer2, layer3, strict=True):
        expected = oracle.embedded(one[None], other[None], mode)
        np.testing.assert_allclose(row.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def check_coreset(x: torch.Tensor, count: int, seed: int, *, same_radius: bool = True) -> None:
    """Distinct rows, the seeded pick first, every pick the farthest, and the plain loop's covering radius.

    same_radius: False where points tie: then two greedy choices may end at different radii.
    """
    chosen = coreset.greedy_coreset(x, count, seed=seed)
    points = x.double().numpy()
    rows = chosen.tolist()
    assert chosen.dtype == torch.int64
    assert len(rows) == len(set(rows)) == count
    first = int(np.random.default_rng(seed).integers(len(x)))
    assert rows[0] == first, "the first centre belongs to the coreset"
    # Squared distances in float32 carry rounding of the squared numbers, whatever the distance.
    noise = 4e-6 * float(np.square(points - points.mean(0)).sum(1).max()) + 1e-9 * float(np.square(points).max())
    squared = np.full(len(points), np.inf)
    for before, row in pairwise(rows):
        squared = np.minimum(squared, np.square(points - points[before]).sum(1))
        assert squared[row] >= squared.max() * (1 - 1e-5) - noise, f"point {row} was not the farthest"
    whole = coreset.choose(x, count, seed=seed)
    assert torch.equal(whole.rows, coreset.greedy_coreset(x, count, seed=seed))
    np.testing.assert_allclose(whole.radius**2, oracle.radius(points, whole.rows.tolist()) ** 2, rtol=2e-5, atol=noise)
    if same_radius:
        radii = [oracle.radius(points, one) for one in (rows, oracle.k_center(points, count, [first]))]
        np.testing.assert_allclose(radii[0] ** 2, radii[1] ** 2, rtol=2e-5, atol=noise)


def check_nearest(queries: torch.Tensor, bank: torch.Tensor, k: int) -> None:
    """The k smallest of all distances, nearest first, and rows that have these distances."""
    distances, indices = brute_force.nearest(queries, bank, k)
    everything = oracle.all_distances(queries.double().numpy(), bank.double().numpy())
    expected = np.sort(everything, axis=1)[:, :k]
    assert distances.shape == indices.shape == (len(queries), k)
    _same_distances(distances.numpy(), expected, queries, bank)
    own = np.take_along_axis(everything, indices.numpy(), axis=1)
    np.testing.assert_allclose(distances.numpy(), own, rtol=1e-5, atol=1e-6 * max(everything.max(), 1e-30))
    assert all(len(set(row)) == k for row in indices.tolist())


def check_index(queries: torch.Tensor, bank: torch.Tensor) -> None:
    """ExactIndex names a row whose distance is the smallest."""
    found = exact.ExactIndex(bank).nearest(queries).numpy()
    everything = oracle.all_distances(queries.double().numpy(), bank.double().numpy())
    assert found.shape == (len(queries),)
    _same_distances(everything[np.arange(len(queries)), found], everything.min(axis=1), queries, bank)


def check_nearest_excluded(
    queries: torch.Tensor, bank: torch.Tensor, k: int, excluded: torch.Tensor, groups: torch.Tensor
) -> None:
    """``check_nearest`` with the rows of each query's excluded group infinitely far."""
    distances, indices = brute_force.nearest(queries, bank, k, excluded, groups)
    everything = _without(queries, bank, excluded, groups)
    assert distances.shape == indices.shape == (len(queries), k)
    assert not (groups[indices] == excluded[:, None]).any(), "a excluded row counts"
    assert (distances[:, 1:] >= distances[:, :-1]).all()
    _same_distances(distances.numpy(), np.sort(everything, axis=1)[:, :k], queries, bank)
    own = np.take_along_axis(everything, indices.numpy(), axis=1)
    np.testing.assert_allclose(distances.numpy(), own, rtol=1e-5, atol=1e-6 * max(own.max(), 1e-30))
    assert all(len(set(row)) == k for row in indices.tolist())


def check_index_excluded(
    queries: torch.Tensor, bank: torch.Tensor, excluded: torch.Tensor, groups: torch.Tensor
) -> None:
    """``check_index`` with the rows of each query's excluded group infinitely far."""
    found = exact.ExactIndex(bank, groups).nearest(queries, excluded)
    everything = _without(queries, bank, excluded, groups)
    assert found.shape == (len(queries),)
    assert not (groups[found] == excluded).any(), "a excluded row counts"
    _same_distances(everything[np.arange(len(queries)), found.numpy()], everything.min(axis=1), queries, bank)


def _without(queries: torch.Tensor, bank: torch.Tensor, excluded: torch.Tensor, groups: torch.Tensor) -> oracle.Float64:
    everything = oracle.all_distances(queries.double().numpy(), bank.double().numpy())
    everything[(excluded[:, None] == groups).numpy()] = np.inf
    return everything


def _same_distances(distances: np.ndarray, expected: np.ndarray, queries: torch.Tensor, bank: torch.Tensor) -> None:
    # |q|² + |b|² − 2q·b in float32 tells rows apart whose squared distances differ by 1e-6 of the numbers' own squares.
    scale = max(
        float((queries - bank.mean(0)).square().sum(1).max()), float((bank - bank.mean(0)).square().sum(1).max())
    )
    np.testing.assert_allclose(np.square(distances), np.square(expected), rtol=1e-5, atol=3e-6 * scale)


def check_image_score() -> None:
    """Worked by hand. The patch (0, 0) lies 3, 4 and 5 from the bank's rows; its nearest row has distance 3."""
    scores, at = anomaly_score.largest(torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 0.0]]))
    assert scores.tolist() == [3.0, 4.0]
    assert at.tolist() == [1, 0], "the first of equals"
    weight = reweighted.neighbourhood_weight(torch.tensor([3.0]), torch.tensor([[3.0, 4.0, 5.0]]))
    # 1 − e³ / (e³ + e⁴ + e⁵) = 1 − 1 / (1 + e + e²) = 1 − 1 / 11.107338 = 0.909969
    np.testing.assert_allclose(weight.numpy(), [0.909969], atol=1e-6)


def check_map(
    grid: tuple[int, int], size: tuple[int, int], resize: tuple[int, int], crop: tuple[int, int] | None
) -> None:
    """Equal to bilinear, blur, placement and bilinear, pixel by pixel in float64."""
    scores = np.random.default_rng(0).gamma(2.0, 1.0, grid).astype(np.float32)
    found = anomaly_score.anomaly_map(scores, size, resize, crop)
    assert found.dtype == np.float32
    expected = oracle.anomaly_map(scores, size, resize, crop)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * expected.max())


def check_auroc() -> None:
    """Equal to counting pairs, ties and all, and 1 for a perfect separation."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        labels = [0, 1, *rng.integers(0, 2, 30).tolist()]
        scores = rng.integers(0, 6, len(labels)).tolist()
        assert abs(metrics.auroc(labels, scores) - oracle.auroc_by_pairs(labels, scores)) < 1e-12
    assert metrics.auroc([0, 0, 1], [0.0, 1.0, 2.0]) == 1.0


def torchvision_resnet18(path: Path) -> oracle.Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """torchvision's own ResNet-18 with seeded weights, saved at ``path``; gives layers 2 and 3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = torchvision.models.resnet18().eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), path)

    def layers(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        second = network.layer2(network.layer1(x))
        return second, network.layer3(second)

    return layers


def check_pipeline(
    folder: Path,
    good: np.ndarray,
    test: np.ndarray,
    *,
    attention: str = "self",
    image_score: str = "max",
    projection: int | None = 64,
    resize: tuple[int, int] = (72, 80),
    crop: tuple[int, int] | None = (64, 64),
) -> None:
    """fit and predict against the nine steps written naively, scores and maps within 1e-4 of the largest."""
    checkpoint = folder / "resnet18.pth"
    network = torchvision_resnet18(checkpoint)
    naive = oracle.Pipeline(network, resize, crop, attention, 0.1, projection, seed=3)
    neighbors = 5 if image_score == "reweighted" else None
    expected = naive.predict(test, naive.fit(good), neighbors)
    detector = SAPatchCore(
        backbone="resnet18",
        weights=str(checkpoint),
        resize=resize,
        crop=crop,
        attention=attention,
        coreset_ratio=0.1,
        projection=projection,
        image_score=image_score,
        neighbors=5,
        seed=3,
        batch_size=4,
        device="cpu",
    )
    result = detector.fit(good).predict(test)
    largest = max(one.score for one in expected)
    for i, one in enumerate(expected):
        tolerance = {"rtol": 0, "atol": 1e-4 * largest}
        np.testing.assert_allclose(result.patch_scores[i], one.patch_scores, **tolerance)
        np.testing.assert_allclose(result.scores[i], one.score, **tolerance)
        np.testing.assert_allclose(result.local_scores[i], one.local, **tolerance)
        np.testing.assert_allclose(result.context_scores[i], one.context, **tolerance)
        np.testing.assert_allclose(result.maps[i], one.map, **tolerance)


def left_out_grids(detector: SAPatchCore, images: Any) -> oracle.Float64:
    """(n, h, w) float64: each patch's distance to the nearest row that comes from another image; all training images."""
    found = detector.embed(images).astype(np.float64)
    _, owners, _ = detector.provenance
    bank = detector.memory_bank.astype(np.float64)
    grids = [cdist(rows.reshape(-1, rows.shape[2]), bank[owners != i]).min(1) for i, rows in enumerate(found)]
    return np.reshape(grids, found.shape[:3])


def left_out(detector: SAPatchCore, images: Any) -> SAPatchCore:
    """``detector`` with the calibration of earlier versions: its training images, each against the bank without its own rows."""
    scored, done = [], 0
    for batch, found in detector.embedder.patches(as_sources(images, all_images)[0]):
        numbers = torch.arange(done, done + len(batch.names))
        scored.append((batch, score_patches(found, detector.bank, detector.settings, numbers)))
        done += len(batch.names)
    result = gather_result(scored, detector.settings)
    result = dataclasses.replace(result, paths=tuple(detector.provenance[0]))
    detector._calibration = as_calibration(result, LEAVE_ONE_OUT, np.arange(done), detector.settings, detector.bank)
    return detector


def check_cross_fitted(detector: SAPatchCore, images: Any) -> None:
    """The calibration is what detectors say that know the other folds alone, with as many rows: the bank's own from there, then
    always the patch that is farthest from all."""
    calibration, settings = detector.calibration, detector.settings.model_dump()
    n, rows = len(images), len(detector.memory_bank)
    folds = min(5, n)
    patches = detector.bank.grid[0] * detector.bank.grid[1]
    x = detector.embed(images).reshape(n * patches, -1).astype(np.float64)
    if settings["projection"] is not None:
        x = x @ oracle.projection_matrix(x.shape[1], settings["projection"], settings["seed"])
    for fold in range(folds):
        inside = [i for i in range(n) if i % folds == fold]
        others = [i for i in range(n) if i % folds != fold]
        outside = np.flatnonzero(np.arange(n).repeat(patches) % folds != fold)
        bank = detector.bank.images * patches + detector.bank.cells
        kept = np.searchsorted(outside, bank[detector.bank.images % folds != fold])
        chosen = torch.tensor(oracle.k_center(x[outside], min(rows, len(outside)), kept.tolist()))
        other = SAPatchCore(**settings).fit([images[i] for i in others], calibrate=images[:1])
        learned = torch.from_numpy(other.embed([images[i] for i in others])).flatten(0, 2)
        own = {"rows": learned[chosen], "images": chosen // patches, "cells": chosen % patches}
        other._bank = dataclasses.replace(other.bank, **own)
        result = other.predict([images[i] for i in inside])
        for name, expected in (
            ("scores", result.scores),
            ("grids", result.patch_scores),
            ("local", result.local_patches.max((1, 2))),
            ("context", result.context_patches.max((1, 2))),
            ("peaks", [values.max() for values in result.maps]),
        ):
            np.testing.assert_allclose(getattr(calibration, name)[inside], expected, rtol=1e-4, atol=1e-4, err_msg=name)
        owners = np.array(others)[other.provenance[1][result.neighbours]]
        found, of_row = calibration.rows[inside], np.array(others)[own["images"]]
        embedded = torch.from_numpy(other.embed([images[i] for i in inside]))
        for at in zip(*np.nonzero(found != owners), strict=True):  # another owner has a row that is as near
            distances = (own["rows"][torch.from_numpy(of_row == found[at])] - embedded[at]).norm(dim=1)
            np.testing.assert_allclose(float(distances.min()), calibration.grids[inside][at], rtol=1e-4, atol=1e-4)


def check_left_out(detector: SAPatchCore, images: Any) -> None:
    """The calibration is what all differences in float64 say of each training image without its own rows."""
    calibration = detector.calibration
    expected = left_out_grids(detector, images)
    tolerance = {"rtol": 0, "atol": 1e-4 * expected.max()}
    np.testing.assert_allclose(calibration.grids, expected, **tolerance)
    np.testing.assert_allclose(calibration.scores, expected.max((1, 2)), **tolerance)
    shape = {"resize": detector.settings.resize, "crop": detector.settings.crop}
    maps = [oracle.anomaly_map(grid, size, **shape) for grid, size in zip(expected, calibration.sizes, strict=True)]
    np.testing.assert_allclose(calibration.peaks, [one.max() for one in maps], **tolerance)
    away = detector.embed(images) - detector.memory_bank[calibration.rows]  # (n, h, w, d)
    c2 = detector.embedder.network.channels[0]
    for part, found in ((away[..., :c2], calibration.local), (away[..., c2:], calibration.context)):
        np.testing.assert_allclose(found, np.linalg.norm(part, axis=3).max((1, 2)), **tolerance)
    assert not (detector.provenance[1][calibration.rows] == np.arange(len(calibration))[:, None, None]).any()


def check_threshold() -> None:
    """A score is rejected where p ≤ α, with p by counting; 1 to 40 calibration images, with ties."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 9, 19, 20, 39, 40):
        good = rng.integers(0, 15, n).astype(float)
        for rate in (0.05, 0.1, 0.5, 0.9):
            if rate * (n + 1) < 1 - 1e-9:
                continue
            limit = threshold.threshold(good, rate)
            for score in np.arange(-1, 16, 0.5):
                p = Fraction(1 + sum(bool(one >= score) for one in good), n + 1)
                assert (score > limit) == (p <= Fraction(str(rate))), f"{score} of {n} images at {rate}"
                assert threshold.p_values([score], good)[0] == float(p)


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """The regions of a mask, pixel by pixel from neighbour to neighbour, corners among them; in reading order."""
    left = dict.fromkeys((int(row), int(column)) for row, column in np.argwhere(mask))  # a set in reading order
    found: list[set[tuple[int, int]]] = []
    while left:
        start = next(iter(left))
        region, queue = {start}, deque([start])
        while queue:
            row, column = queue.popleft()
            left.pop((row, column), None)
            around = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            new = [place for place in around if place in left and place not in region]
            region.update(new)
            queue.extend(new)
        found.append(region)
    return found


def check_regions(values: np.ndarray, limit: float) -> None:
    """Regions are what flooding finds above the limit, each with its own box, area, peak and mask; largest peak first."""
    found = regions.find_regions(values, limit)
    expected = flood(values > limit)
    places = []
    for region in found:
        top, left, height, width = region.box
        assert region.mask.shape == (height, width)
        places.append({(top + int(row), left + int(column)) for row, column in np.argwhere(region.mask)})
    assert len(places) == len(expected)
    assert all(one in expected for one in places)
    for region, own in zip(found, places, strict=True):
        rows, columns = {row for row, _ in own}, {column for _, column in own}
        height, width = max(rows) - min(rows) + 1, max(columns) - min(columns) + 1
        assert region.box == (min(rows), min(columns), height, width)
        assert region.area == len(own)
        assert region.peak == max(float(values[place]) for place in own)
        assert region.peak_at in own
        assert values[region.peak_at] == region.peak
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)
    np.testing.assert_array_equal(regions.whole_mask(found, values.shape), values > limit)


def calibration_of(
    local: Sequence[float],
    context: Sequence[float],
    global_scores: Sequence[float] | None = None,
    attention: str = "self",
) -> Calibration:
    """n images whose largest local and context parts, and global scores, these are."""
    parts = np.array([local, context], np.float32)
    scores = np.hypot(*parts)
    return Calibration(
        source=LEAVE_ONE_OUT,
        names=tuple(f"{i}.png" for i in range(len(local))),
        images=np.arange(len(local)),
        scores=scores,
        local=parts[0],
        context=parts[1],
        peaks=scores,
        grids=scores[:, None, None],
        rows=np.zeros((len(local), 1, 1), np.int64),
        sizes=((8, 8),) * len(local),
        image_score="max",
        neighbors=9,
        attention=attention,
        largest=None if global_scores is None else scores,
        global_scores=None if global_scores is None else np.array(global_scores, np.float32),
    )


def check_kinds() -> None:
    """By hand. Of 0 to 10 the 0.9 quantile is 9, and what lies beyond 1 in the mean; of the context, twice as large, 18 and 2."""
    usual = verdict.KindClassifier(calibration_of(range(11), range(0, 22, 2)))
    assert usual.kind(Parts(12, 20, 0)) == "local", "leads 3 and 1"
    assert usual.kind(Parts(10, 24, 0)) == "co-occurrence", "leads 1 and 3"
    assert usual.kind(Parts(12, 23, 0)) == "unclear", "leads 3 and 2.5"
    assert usual.kind(Parts(9, 14, 0)) == "unclear", "neither leads"
    assert usual.kind(Parts(9.5, 14, 0)) == "local", "leads 0.5 and -2"
    with_global = verdict.KindClassifier(calibration_of(range(11), range(0, 22, 2), range(0, 33, 3), attention="none"))
    assert with_global.kind(Parts(9, 60, 0, 36)) == "co-occurrence", "leads 0 and 3; the context does not count"
    with_global = verdict.KindClassifier(calibration_of(range(11), range(0, 22, 2), range(0, 33, 3)))
    assert with_global.kind(Parts(13, 18, 0, 42)) == "unclear", "leads 4 and 5"
    assert with_global.kind(Parts(13, 18, 0, 43)) == "co-occurrence"


def made_patches(
    mode: str, temperature: float = 1.0, weight: float = 1.0, seed: int = 0
) -> tuple[patches.Patches, oracle.Float64]:
    """Two images' patches, 8×6 with 3 + 5 numbers, over a 4×3 layer 3; and what their context was mixed from, by plain
    pooling and with zeros around it for average pooling: (2, 5, 4, 3), or (2, 5, 6, 5)."""
    generator = torch.Generator().manual_seed(seed)
    layer2 = torch.randn(2, 3, 8, 6, generator=generator)
    layer3 = torch.randn(2, 5, 4, 3, generator=generator)
    found = patches.to_patches(layer2, layer3, mode, temperature, weight)
    if mode == "none":
        return found, np.pad(layer3.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    padded = np.pad(layer3.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return found, np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3)).max((4, 5))


def check_whitening() -> None:
    """Of whitened patches the distances are Mahalanobis', by solving for each pair, but for a factor: the variance stays."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 1, (200, width)) @ rng.normal(0, 1, (width, width)) for width in (2, 5)]
    moments = [whitening.Moments(part.shape[1]) for part in parts]
    for moment, part, weight in zip(moments, parts, (1, 2.5), strict=True):
        moment.add(torch.from_numpy(weight * part))
    found = whitening.Whitening.of([(moments[0], moments[1])])
    for part, matrix, weight in zip(parts, (found.local, found.context), (1, 2.5), strict=True):
        width = part.shape[1]
        covariance = np.zeros((width, width))
        for row in part:
            covariance += np.outer(row - part.mean(0), row - part.mean(0)) / len(part)
        shrunk = 0.9 * covariance + 0.1 * sum(covariance[i, i] for i in range(width)) / width * np.eye(width)
        rows = torch.from_numpy(weight * part).float() @ matrix
        assert float(rows.var(0, correction=0).sum()) == pytest.approx(weight**2 * np.trace(covariance), rel=1e-4)
        factor = math.sqrt(np.trace(covariance) / np.trace(np.linalg.solve(shrunk, covariance)))
        for one, other in rng.integers(0, 200, (30, 2)):
            away = part[one] - part[other]
            expected = weight * factor * math.sqrt(away @ np.linalg.solve(shrunk, away))
            np.testing.assert_allclose(float((rows[one] - rows[other]).norm()), expected, rtol=1e-4, atol=1e-4)


def shares_by_loops(
    mixed: oracle.Float64,
    cell: tuple[int, int],
    good: oracle.Float64,
    mode: str,
    temperature: float,
    weight: float,
    matrix: oracle.Float64,
) -> tuple[oracle.Float64, float]:
    """Each place's share of context², and context² itself; channel by channel, place by place, in float64.

    mixed: as ``made_patches`` of one image. cell: on layer 3's grid. good: (c3,) the context of the nearest good patch. matrix:
    (c3, c3), by which the context was multiplied, I where it was not.
    """
    channels, (height, width) = len(mixed), (4, 3)
    out, before = np.zeros(channels), np.linalg.inv(matrix) @ good
    by_place = np.zeros((height, width, channels))  # what each place adds to out − before
    for c in range(channels):
        if mode == "self":
            places = [(row, column, row, column) for row in range(height) for column in range(width)]
            logits = [mixed[c][cell] * mixed[c, row, column] / temperature for row, column, _, _ in places]
            exps = [math.exp(logit - max(logits)) for logit in logits]
            weights = [value / sum(exps) for value in exps]
        else:  # nine places; those outside the image are zeros, and count for the cell itself
            places = []
            for row in range(cell[0] - 1, cell[0] + 2):
                for column in range(cell[1] - 1, cell[1] + 2):
                    inside = 0 <= row < height and 0 <= column < width
                    places.append((row + 1, column + 1, *((row, column) if inside else cell)))
            weights = [1 / 9] * 9
        out[c] = weight * sum(a * mixed[c, i, j] for a, (i, j, _, _) in zip(weights, places, strict=True))
        for a, (i, j, row, column) in zip(weights, places, strict=True):
            by_place[row, column, c] += a * (weight * mixed[c, i, j] - before[c])
    away = matrix @ out - good
    shares = sum(away[k] * (by_place @ matrix[k]) for k in range(channels))
    return shares, float(away @ away)


def check_drawn_from(mode: str, temperature: float = 1.0, weight: float = 1.0, *, whitened: bool = False) -> None:
    """Every patch of two images: the shares are those of three loops, and add up to context²."""
    found, mixed = made_patches(mode, temperature, weight)
    matrix = torch.eye(5)
    if whitened:
        root = torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
        matrix = root @ root.T / 5 + 0.3 * torch.eye(5)
        by = whitening.Whitening(torch.eye(3), matrix)
        found = dataclasses.replace(found, context=found.context @ matrix, whitening=by)
    options = settings_from({"attention": mode, "temperature": temperature, "context_weight": weight})
    good = torch.randn(8, generator=torch.Generator().manual_seed(1))
    for image in range(2):
        for patch in range(48):
            shares = explain.drawn_from(found, image, patch, good, options)
            assert shares.shape == (4, 3)
            assert shares.dtype == np.float32
            cell = (patch // 6 // 2, patch % 6 // 2)
            expected, squared = shares_by_loops(
                mixed[image], cell, good[3:].double().numpy(), mode, temperature, weight, matrix.double().numpy()
            )
            np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-5 * max(squared, np.abs(expected).max()))
            context = found.rows()[image, patch, 3:] - good[3:]
            np.testing.assert_allclose(shares.sum(dtype=np.float64), float(context.square().sum()), rtol=1e-5)


def check_cell_box(
    grid: tuple[int, int], size: tuple[int, int], resize: tuple[int, int], crop: tuple[int, int] | None
) -> None:
    """The cells' boxes cover what the network saw, every pixel once; for images of as many pixels as cells, or more."""
    covered = np.zeros(size, np.int64)
    for row in range(grid[0]):
        for column in range(grid[1]):
            top, left, height, width = explain.cell_box((row, column), grid, size, resize, crop)
            assert min(top, left) >= 0
            assert min(height, width) >= 1
            covered[top : top + height, left : left + width] += 1
    expected = np.zeros(size, np.int64)
    seen = crop or resize
    edges = []
    for axis in (0, 1):
        start = Fraction(round((resize[axis] - seen[axis]) / 2) * size[axis], resize[axis])
        end = start + Fraction(seen[axis] * size[axis], resize[axis])
        edges.append((round(start), round(end)))
    expected[edges[0][0] : edges[0][1], edges[1][0] : edges[1][1]] = 1
    np.testing.assert_array_equal(covered, expected)


def plain_patches(rows: torch.Tensor, c2: int = 2) -> patches.Patches:
    """Patches of n images from ``rows`` (n, p, d), the first c2 numbers local; each has its own cell of the context."""
    p = rows.shape[1]
    return patches.Patches(rows[..., :c2].contiguous(), rows[..., c2:].contiguous(), torch.arange(p), (1, p))


def plain_bank(rows: torch.Tensor, owners: torch.Tensor, images: int, patches_each: int, radius: float = 0.0) -> Bank:
    """A bank of ``rows`` (m, d) from ``owners`` (m,) among so many images."""
    training = tuple(TrainingImage(f"{i}.png", (8, 8)) for i in range(images))
    return Bank(rows, owners, torch.arange(len(rows)), training, (1, patches_each), radius)


def projection_of(d: int, dimensions: int | None, c2: int = 2) -> coreset.Projection:
    """The projection of patches of d numbers, c2 of them local."""
    return coreset.Projection(c2, d - c2, dimensions, 0, torch.device("cpu"))


def projected(x: torch.Tensor, dimensions: int | None) -> oracle.Float64:
    """(…, d) → (…, dimensions), in float64; for None as it is."""
    rows = x.double().numpy()
    return rows if dimensions is None else rows @ oracle.projection_matrix(x.shape[-1], dimensions, 0)


def check_growth(old: torch.Tensor, new: torch.Tensor, radius: float, dimensions: int | None = None) -> None:
    """What joins a bank of ``old`` (m, d) is what the plain loop takes of the images ``new`` (n, p, d), in its order.

    dimensions: of the projection in which distances count.
    """
    bank = plain_bank(old, torch.zeros(len(old), dtype=torch.int64), 1, new.shape[1], radius)
    grown = growth.Growth(bank, projection_of(old.shape[1], dimensions))
    grown.add(plain_patches(new), [TrainingImage(f"new {i}.png", (9, 9)) for i in range(len(new))])
    found = grown.bank()
    rows, added = [*projected(old, dimensions)], []
    for number, image in enumerate(projected(new, dimensions), start=1):
        while (distances := cdist(image, np.array(rows)).min(1)).max() > radius:
            pick = int(distances.argmax())
            added.append((number, pick))
            rows.append(image[pick])
            assert len(added) <= new.shape[0] * new.shape[1]
    assert torch.equal(found.rows[: len(old)], old)
    places = zip(found.images[len(old) :].tolist(), found.cells[len(old) :].tolist(), strict=True)
    assert list(places) == added
    for row, (number, pick) in zip(found.rows[len(old) :], added, strict=True):
        assert torch.equal(row, new[number - 1, pick]), "a row keeps all its numbers"
    assert [image.name for image in found.training] == ["0.png", *(f"new {i}.png" for i in range(len(new)))]


def check_forgetting(bank: Bank, learned: torch.Tensor, number: int, dimensions: int | None = None) -> None:
    """Rows, numbers and names of the others stay, and so does the promise: all their patches lie within the radius.

    learned: (n, p, d), all that the bank was chosen from. dimensions: of the projection in which distances count.
    """
    left = growth.without_image(bank, number, projection_of(learned.shape[2], dimensions))
    kept = [row for row in range(len(bank.rows)) if int(bank.images[row]) != number]
    names = [image.name for image in bank.training]
    assert torch.equal(left.rows, bank.rows[kept])
    assert torch.equal(left.cells, bank.cells[kept])
    assert [names[int(i)] for i in bank.images[kept]] == [left.training[int(i)].name for i in left.images]
    assert [image.name for image in left.training] == names[:number] + names[number + 1 :]
    assert left.radius == bank.radius
    others = torch.cat((learned[:number], learned[number + 1 :])).flatten(0, 1)
    reach = cdist(projected(others, dimensions), projected(left.rows, dimensions)).min(1).max()
    assert reach <= (left.radius + left.loosened) * (1 + 1e-5) + 1e-6
