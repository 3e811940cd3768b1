"""The random projection: the same as projecting whole patches, seeded, and faithful to distances."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch

from sapatchcore.embed.patches import Patches, to_patches
from sapatchcore.memory.coreset import Projection

CPU = torch.device("cpu")


@pytest.fixture
def patches() -> Patches:
    generator = torch.Generator().manual_seed(0)
    return to_patches(
        torch.randn(3, 96, 6, 8, generator=generator), torch.randn(3, 160, 3, 4, generator=generator), "self"
    )


@pytest.mark.parametrize("dimensions", [1, 16, 128, 300])
def test_equals_the_matrix_product_of_whole_patches(patches: Patches, dimensions: int) -> None:
    found = Projection(96, 160, dimensions, 7, CPU)(patches)
    expected = patches.rows().flatten(0, 1).double().numpy() @ oracle.projection_matrix(256, dimensions, 7)
    assert found.shape == (3 * 48, dimensions)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_none_is_the_patch_itself(patches: Patches) -> None:
    projection = Projection(96, 160, None, 0, CPU)
    assert projection.dimensions == 256
    assert torch.equal(projection(patches), patches.rows().flatten(0, 1))


def test_distances_are_kept_up_to_a_few_percent(patches: Patches) -> None:
    rows = patches.rows().flatten(0, 1)
    projected = Projection(96, 160, 1024, 0, CPU)(patches)
    ratio = torch.pdist(projected) / torch.pdist(rows)
    assert 0.97 < ratio.mean() < 1.03
    assert ratio.std() < 0.05


def test_seed_decides(patches: Patches) -> None:
    one, same, other = (Projection(96, 160, 16, seed, CPU)(patches) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_patches_are_not_changed(patches: Patches) -> None:
    before = patches.rows().clone()
    Projection(96, 160, 16, 0, CPU)(patches)
    assert torch.equal(patches.rows(), before)
