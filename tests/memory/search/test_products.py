"""Every product, the context's once a cell: the nearest row of all, whatever the grids, and no cell in two parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sapatchcore.embed.patches import to_patches
from sapatchcore.memory.search import products
from sapatchcore.memory.search.products import CellProducts, shared_cells


@pytest.mark.parametrize("together", [1, 7, 50, 512])
@pytest.mark.parametrize(
    ("fine", "coarse"), [((8, 6), (4, 3)), ((7, 9), (4, 5)), ((5, 5), (5, 5)), ((6, 4), (1, 1)), ((1, 13), (1, 4))]
)
@pytest.mark.parametrize("away", [0.0, 40.0])
def test_equals_all_differences(
    together: int, fine: tuple[int, int], coarse: tuple[int, int], away: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all numbers are far from 0."""
    monkeypatch.setattr(products, "TOGETHER", together)
    random = torch.Generator().manual_seed(0)
    layers = (torch.randn(3, c, *size, generator=random) + away for c, size in ((4, fine), (9, coarse)))
    patches = to_patches(*layers, "none")
    bank, groups = torch.randn(60, 13, generator=random) * 0.5 + away, torch.arange(60) % 4
    everything = cdist(patches.rows().flatten(0, 1).double().numpy(), bank.double().numpy())
    found = CellProducts(bank, groups).nearest(patches).numpy()
    np.testing.assert_array_equal(found, everything.argmin(1))
    excluded = torch.tensor([2, -1, 0])
    owners = excluded.repeat_interleave(fine[0] * fine[1])
    everything[(groups == owners[:, None]).numpy()] = np.inf
    np.testing.assert_array_equal(CellProducts(bank, groups).nearest(patches, excluded).numpy(), everything.argmin(1))


def test_parts_by_hand() -> None:
    """4×4 patches over 2×2 cells: two rows of patches share a row of cells."""
    cell = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3])
    assert shared_cells(cell, 8) == [(0, 8, 0, 2), (8, 16, 2, 4)]
    assert shared_cells(cell, 1) == [(0, 8, 0, 2), (8, 16, 2, 4)], "not less than share their cells"
    assert shared_cells(cell, 16) == [(0, 16, 0, 4)]
    assert shared_cells(torch.arange(5), 2) == [(0, 2, 0, 2), (2, 4, 2, 4), (4, 5, 4, 5)]
    assert shared_cells(torch.tensor([0, 1, 0]), 1) == [(0, 3, 0, 2)]
