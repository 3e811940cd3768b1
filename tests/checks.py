"""Checks that both the tests and the mutants call: each must pass on the code as it is, and fail on a mutant of it.

They reach the code through its modules, so that a mutant put there is what they see.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle
import torch
import torchvision

from sapatchcore import SAPatchCore
from sapatchcore.embed import attention, patches
from sapatchcore.memory import coreset, neighbours
from sapatchcore.score import anomaly_map, image_score
from sapatchcore.verify import metrics


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
    if same_radius:
        radii = [oracle.radius(points, one) for one in (rows, oracle.k_center(points, count, first))]
        np.testing.assert_allclose(radii[0] ** 2, radii[1] ** 2, rtol=2e-5, atol=noise)


def check_nearest(queries: torch.Tensor, bank: torch.Tensor, k: int) -> None:
    """The k smallest of all distances, nearest first, and rows that have these distances."""
    distances, indices = neighbours.nearest(queries, bank, k)
    everything = oracle.all_distances(queries.double().numpy(), bank.double().numpy())
    expected = np.sort(everything, axis=1)[:, :k]
    assert distances.shape == indices.shape == (len(queries), k)
    _same_distances(distances.numpy(), expected, queries, bank)
    own = np.take_along_axis(everything, indices.numpy(), axis=1)
    np.testing.assert_allclose(distances.numpy(), own, rtol=1e-5, atol=1e-6 * max(everything.max(), 1e-30))
    assert all(len(set(row)) == k for row in indices.tolist())


def check_index(queries: torch.Tensor, bank: torch.Tensor) -> None:
    """NearestIndex names a row whose distance is the smallest."""
    found = neighbours.NearestIndex(bank).nearest(queries).numpy()
    everything = oracle.all_distances(queries.double().numpy(), bank.double().numpy())
    assert found.shape == (len(queries),)
    _same_distances(everything[np.arange(len(queries)), found], everything.min(axis=1), queries, bank)


def _same_distances(distances: np.ndarray, expected: np.ndarray, queries: torch.Tensor, bank: torch.Tensor) -> None:
    # |q|² + |b|² − 2q·b in float32 tells rows apart whose squared distances differ by 1e-6 of the numbers' own squares.
    scale = max(
        float((queries - bank.mean(0)).square().sum(1).max()), float((bank - bank.mean(0)).square().sum(1).max())
    )
    np.testing.assert_allclose(np.square(distances), np.square(expected), rtol=1e-5, atol=3e-6 * scale)


def check_image_score() -> None:
    """Worked by hand. The patch (0, 0) lies 3, 4 and 5 from the bank's rows; its nearest row has distance 3."""
    scores, at = image_score.largest(torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 0.0]]))
    assert scores.tolist() == [3.0, 4.0]
    assert at.tolist() == [1, 0], "the first of equals"
    weight = image_score.neighbourhood_weight(torch.tensor([3.0]), torch.tensor([[3.0, 4.0, 5.0]]))
    # 1 − e³ / (e³ + e⁴ + e⁵) = 1 − 1 / (1 + e + e²) = 1 − 1 / 11.107338 = 0.909969
    np.testing.assert_allclose(weight.numpy(), [0.909969], atol=1e-6)


def check_map(
    grid: tuple[int, int], size: tuple[int, int], resize: tuple[int, int], crop: tuple[int, int] | None
) -> None:
    """Equal to bilinear, blur, placement and bilinear, pixel by pixel in float64."""
    scores = np.random.default_rng(0).gamma(2.0, 1.0, grid).astype(np.float32)
    found = anomaly_map.anomaly_map(scores, size, resize, crop)
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
