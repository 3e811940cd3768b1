"""The image as a whole in float32: every place's share, distance and fused score, by hand and against the float64 of predict."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sapatchcore.embed.patches import covering_cell  # noqa: E402 - these need torch
from sapatchcore.export.global_part import GlobalPartGraph  # noqa: E402
from sapatchcore.memory.pooled import Gaussian, GlobalPart, pooled  # noqa: E402
from sapatchcore.score.fusion import fused  # noqa: E402


def test_by_hand() -> None:
    """One channel a layer: means 2 and 3, deviations 2 and 2, each 1 more than usual; P = 4 I. So distance² = 4 · 4."""
    layers = torch.tensor([0.0, 0, 4, 4]).reshape(1, 1, 1, 4), torch.tensor([1.0, 5]).reshape(1, 1, 1, 2)
    usual = torch.tensor([1.0, 1, 2, 1], dtype=torch.float64)
    no_axes, along = torch.empty(0, 4, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    gaussian, cell = Gaussian(usual, no_axes, along, 4.0), torch.tensor([0, 0, 1, 1])
    # Layer 2: (4 (f − 1) + 4/3 ((f − 2)² − 1)) / 4 is 0 and 4. Layer 3: (4 (f − 2) + 4/3 ((f − 3)² − 1)) / 2 is 0 and 8, and
    # each of its places serves two patches.
    expected = [0, 0, 4 + 8 / 2, 4 + 8 / 2]
    assert gaussian.shares(layers, pooled(layers), cell)[0].tolist() == pytest.approx(expected, abs=1e-6)
    scales = (10.0, 2.0, 1.0, 0.5)  # the distance of 4 leads by 6, less 2: 10 + 2 · 4
    for kept, own, score in ((scales, 7, 18), (scales, 20, 20), (None, 7, 7)):
        part = SimpleNamespace(gaussian=gaussian, scales=kept)
        graph = GlobalPartGraph(part, (1, 4), cell, 2)
        found, distance, shares = graph(*layers, torch.tensor([float(own)]))
        assert (found.item(), distance.item()) == pytest.approx((score, 4))
        assert shares[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("good_images", [3, 12, 60], ids="{} good".format)
@pytest.mark.parametrize(
    ("grids", "channels"),
    [
        (((4, 6), (2, 3)), (3, 5)),
        (((5, 7), (3, 4)), (8, 2)),  # odd: places of layer 3 at the border serve fewer patches
        (((6, 6), (6, 6)), (1, 1)),
    ],
    ids=["even", "odd", "alike"],
)
def test_shares_are_those_of_predict_cell_by_cell(
    good_images: int, grids: tuple[tuple[int, int], tuple[int, int]], channels: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(good_images)

    def layers(images: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (
            torch.randn(images, c, *grid, generator=generator) * spread + 0.3
            for c, grid in zip(channels, grids, strict=True)
        )
        return first.relu(), 5 * second

    part = GlobalPart(GlobalPart.of(pooled(layers(good_images, 1))).rows, scales=(3.0, 0.5, 2.0, 0.25))
    cell, new, own = covering_cell(*grids), layers(4, 1.5), torch.rand(4, generator=generator)
    statistics = pooled(new)
    distance, shares = part.gaussian.distance(statistics), part.gaussian.shares(new, statistics, cell)
    assert not torch.allclose(shares, shares.mean(1, keepdim=True), rtol=0.1), "places differ, or nothing is compared"
    graph = GlobalPartGraph(part, grids[0], cell, grids[1][0] * grids[1][1])
    with torch.inference_mode():
        score, found_distance, found = graph(*new, own)
    torch.testing.assert_close(found_distance.double(), distance, rtol=1e-4, atol=0)
    largest = float(shares.abs().max())
    torch.testing.assert_close(found.flatten(1), shares, rtol=1e-4, atol=1e-5 * largest)
    expected = fused(own.numpy(), distance.numpy().astype(np.float32), part.scales)
    np.testing.assert_allclose(score, expected, rtol=1e-4)
