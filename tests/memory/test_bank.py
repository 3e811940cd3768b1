"""Comparing patches with the bank: however many go at a time, the result is the same."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch

from sapatchcore.embed.patches import to_patches
from sapatchcore.memory import bank as module
from sapatchcore.memory.bank import Bank


@pytest.mark.parametrize("rows", [40, 700])  # the index compares with all rows, or uses its boxes
def test_any_number_of_images_together(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    patches = to_patches(
        torch.randn(5, 3, 8, 6, generator=random), torch.randn(5, 5, 4, 3, generator=random), attention="none"
    )
    nothing = torch.zeros(rows, dtype=torch.int64)
    bank = Bank(torch.randn(rows, 8, generator=random), nothing, nothing, (), patches.grid)
    an_image = 4 * 48 * 8  # bytes
    met: list[int] = []
    search = type(bank.index).nearest
    monkeypatch.setattr(
        type(bank.index), "nearest", lambda self, queries: (met.append(queries.nbytes), search(self, queries))[1]
    )
    found = {}
    for images, sizes in ((0.5, [1] * 5), (2.9, [2, 2, 1]), (100, [5])):
        met.clear()
        monkeypatch.setattr(module, "_TOGETHER", int(images * an_image))
        found[images] = astuple(bank.compare(patches))
        assert met == [size * an_image for size in sizes]
    for one, other, another in zip(*found.values(), strict=True):
        assert one.shape == (5, 48)
        assert torch.equal(one, other)
        assert torch.equal(one, another)
    distances = torch.cdist(patches.rows().double(), bank.rows.double()).amin(2)
    torch.testing.assert_close(found[100][0].double(), distances)
