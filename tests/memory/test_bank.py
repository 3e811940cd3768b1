"""Comparing patches with the bank: however many go at a time, the result is the same."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.distance import cdist

from sapatchcore.embed.patches import Patches, to_patches
from sapatchcore.memory import bank as module
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.training import TrainingImage
from sapatchcore.score.reweighted import distances_around, neighbourhood_weight


@pytest.mark.parametrize("rows", [40, 700])  # the index compares with all rows, or uses its boxes
def test_any_number_of_images_together(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 0)
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
        type(bank.index),
        "nearest",
        lambda self, queries, excluded: (met.append(queries.nbytes), search(self, queries, excluded))[1],
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


def made(rows: int, owners: torch.Tensor, images: int) -> tuple[Bank, Patches]:
    """A bank of so many rows, and five images' patches, 8×6, of 3 + 5 numbers."""
    random = torch.Generator().manual_seed(0)
    patches = to_patches(torch.randn(5, 3, 8, 6, generator=random), torch.randn(5, 5, 4, 3, generator=random), "none")
    training = tuple(TrainingImage(f"{i}.png", (8, 6)) for i in range(images))
    return Bank(torch.randn(rows, 8, generator=random), owners, torch.arange(rows), training, patches.grid), patches


def distances_without(bank: Bank, patches: Patches, excluded: list[int]) -> npt.NDArray[np.float64]:
    """(n, p, m) float64: every patch to every row, those of each image's excluded one infinitely far."""
    rows = bank.rows.double().numpy()
    found = np.stack([cdist(one, rows) for one in patches.rows().double().numpy()])
    for i, number in enumerate(excluded):
        found[i][:, (bank.images == number).numpy()] = np.inf
    return found


@pytest.mark.parametrize("most", [0, 8192], ids=["index", "products"])
@pytest.mark.parametrize("rows", [2, 40, 700])
@pytest.mark.parametrize("together", [0.5, 2.9, 100])
@pytest.mark.parametrize("excluded", [[0, 1, 2, 3, 4], [3, 3, 3, 3, 3], [4, 0, 9, 0, -1]])
def test_compare_without_an_image_s_rows(
    most: int, rows: int, together: float, excluded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for images that have no rows, or are none (−1)."""
    monkeypatch.setattr(module, "MOST_ROWS", most)
    monkeypatch.setattr(module, "_TOGETHER", int(together * 4 * 48 * 8))
    bank, patches = made(rows, torch.arange(rows) % 5, 10)
    found = bank.compare(patches, torch.tensor(excluded))
    everything = distances_without(bank, patches, excluded)
    np.testing.assert_allclose(found.whole.numpy(), everything.min(2), rtol=1e-5, atol=1e-6)
    own = np.take_along_axis(everything, found.row.numpy()[..., None], 2)[..., 0]
    np.testing.assert_allclose(found.whole.numpy(), own, rtol=1e-5, atol=1e-6)
    squared = (patches.rows() - bank.rows[found.row]).double().square()
    np.testing.assert_allclose(found.local.numpy(), squared[..., :3].sum(2).sqrt(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.context.numpy(), squared[..., 3:].sum(2).sqrt(), rtol=1e-5, atol=1e-6)
    assert not (bank.images[found.row] == torch.tensor(excluded)[:, None]).any()


def test_compare_leaves_the_patches_alone() -> None:
    """A row that is found twice, with another image excluded: distances come from the same numbers."""
    bank, patches = made(40, torch.arange(40) % 5, 5)
    before = patches.rows().clone()
    one = bank.compare(patches, torch.arange(5))
    other = bank.compare(patches, torch.arange(5))
    assert torch.equal(patches.rows(), before)
    assert all(torch.equal(a, b) for a, b in zip(astuple(one), astuple(other), strict=True))


@pytest.mark.parametrize("rows", [30, 700])
@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("excluded", [None, [0, 1, 2, 3, 4], [3, 3, 0, 8, 9]])
def test_around_equals_all_differences(rows: int, k: int, excluded: list[int] | None) -> None:
    """The k rows nearest to the row of the match, itself among them, and how far the patch is from each."""
    bank, patches = made(rows, torch.arange(rows) % 5, 10)
    away = None if excluded is None else torch.tensor(excluded)
    patch = patches.rows()[:, 7]
    row = bank.compare(patches, away).row[:, 7]
    found = distances_around(bank, patch, row, k, away)
    numbers = bank.rows.double().numpy()
    assert found.shape == (5, k)
    for i in range(5):
        left = np.flatnonzero((bank.images != (-5 if excluded is None else excluded[i])).numpy())
        near = cdist(numbers[row[i]][None], numbers[left])[0].argsort(kind="stable")[:k]
        expected = cdist(patch[i][None].double().numpy(), numbers[left[near]])[0]
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-5)
        assert left[near[0]] == row[i]


def test_around_where_fewer_rows_are_left() -> None:
    """What is lacking of k weighs nothing, however many another image beside it has."""
    bank, patches = made(7, torch.tensor([0, 0, 0, 0, 1, 2, 2]), 3)
    patch = patches.rows()[:3, 7]
    excluded, row, left = torch.tensor([0, 1, 2]), torch.tensor([4, 5, 3]), [3, 6, 5]
    together = distances_around(bank, patch, row, 9, excluded)
    assert together.shape == (3, 9)
    assert together.isfinite().sum(1).tolist() == left
    weights = neighbourhood_weight(together[:, 0], together)
    for i, count in enumerate(left):
        alone = distances_around(bank, patch[i : i + 1], row[i : i + 1], 9, excluded[i : i + 1])
        assert torch.equal(alone[0], together[i])
        assert (alone[0, count:] == -torch.inf).all()
        enough = distances_around(bank, patch[i : i + 1], row[i : i + 1], count, excluded[i : i + 1])
        assert torch.equal(enough[0], together[i, :count])
        torch.testing.assert_close(weights[i], neighbourhood_weight(enough[:, 0], enough)[0])
    assert distances_around(bank, patch, row, 9).isfinite().sum(1).tolist() == [7] * 3


def test_around_without_a_training_image_to_bar() -> None:
    """Images that were not learned from are numbered −1: all rows count for them, even where one image has them all."""
    bank, patches = made(12, torch.ones(12, dtype=torch.int64), 2)
    patch, row = patches.rows()[:2, 7], torch.tensor([3, 4])
    found = distances_around(bank, patch, row, 9, torch.tensor([-1, -1]))
    assert found.shape == (2, 9)
    assert torch.equal(found, distances_around(bank, patch, row, 9))
