"""A bank that takes in images and gives them up: against the plain loop, and its promise by all differences."""

from __future__ import annotations

from dataclasses import replace

import checks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sapatchcore import DataError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.growth import Growth, without_image
from sapatchcore.memory.training import TrainingImage, pictured


def made(n: int, p: int, d: int = 5, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    """(n, p, d) patches of n images."""
    return torch.randn(n, p, d, generator=torch.Generator().manual_seed(seed)) + shift


def chosen(learned: torch.Tensor, every: int, dimensions: int | None = None) -> Bank:
    """A bank of every so many of the patches ``learned`` (n, p, d), with its covering radius in so many dimensions."""
    n, p, _ = learned.shape
    picked = torch.arange(0, n * p, every)
    bank = checks.plain_bank(learned.flatten(0, 1)[picked], picked // p, n, p)
    bank = replace(bank, cells=picked % p)
    return replace(bank, radius=reach(bank, learned, dimensions))


def reach(bank: Bank, learned: torch.Tensor, dimensions: int | None = None) -> float:
    """The largest distance from a patch to the bank, by all differences in float64, in so many projected dimensions."""
    patches = checks.projected(learned.flatten(0, 1), dimensions)
    return float(cdist(patches, checks.projected(bank.rows, dimensions)).min(1).max())


def grown(bank: Bank, new: torch.Tensor, together: int = 1000, dimensions: int | None = None) -> Bank:
    """``bank`` after the images ``new`` (n, p, d), so many at a time, in so many projected dimensions."""
    growth = Growth(bank, checks.projection_of(new.shape[2], dimensions))
    for start in range(0, len(new), together):
        few = new[start : start + together]
        names = [TrainingImage(f"new {start + i}.png", (9, 9)) for i in range(len(few))]
        growth.add(checks.plain_patches(few), names)
    return growth.bank()


def without(bank: Bank, number: int, dimensions: int | None = None) -> Bank:
    return without_image(bank, number, checks.projection_of(bank.rows.shape[1], dimensions))


def test_by_hand() -> None:
    """Rows 0 and 10, radius 2. Of 1, 4, 5, 6, 20 the farthest, 20, joins; then 5, and 4 and 6 are within 2 of it."""
    learned = torch.zeros(1, 2, 3)
    learned[0, 1, 0] = 10
    bank = checks.plain_bank(learned[0], torch.zeros(2, dtype=torch.int64), 1, 5, radius=2.0)
    new = torch.zeros(2, 5, 3)
    new[0, :, 0] = torch.tensor([1.0, 4.0, 5.0, 6.0, 20.0])
    new[1, :, 0] = torch.tensor([3.0, 18.0, 23.0, 22.0, 12.0])  # 3 away, and 2 away from new rows; 23 is 3 from 20
    found = grown(bank, new)
    assert found.rows[:, 0].tolist() == [0, 10, 20, 5, 23]
    assert found.images.tolist() == [0, 0, 1, 1, 2]
    assert found.cells.tolist() == [0, 1, 4, 2, 2]
    assert [image.name for image in found.training] == ["0.png", "new 0.png", "new 1.png"]
    assert (found.radius, found.loosened) == (2.0, 0.0)
    assert (found.images.dtype, found.cells.dtype) == (torch.int64, torch.int64)


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.5, 2.5, 100.0])
@pytest.mark.parametrize("old", [1, 30, 600])
@pytest.mark.parametrize("dimensions", [None, 2, 4, 9])
def test_equals_the_plain_loop(radius: float, old: int, dimensions: int | None) -> None:
    checks.check_growth(made(1, old)[0], made(4, 20, seed=1, shift=0.5), radius, dimensions)


@settings(deadline=None, max_examples=60)
@given(
    old=st.integers(1, 20),
    n=st.integers(1, 4),
    p=st.integers(1, 12),
    d=st.integers(3, 6),
    radius=st.floats(0, 4),
    dimensions=st.sampled_from([None, 2, 5]),
    seed=st.integers(0, 999),
)
def test_equals_the_plain_loop_for_any_shape(
    old: int, n: int, p: int, d: int, radius: float, dimensions: int | None, seed: int
) -> None:
    checks.check_growth(made(1, old, d, seed)[0], made(n, p, d, seed + 1), radius, dimensions)


@pytest.mark.parametrize("together", [1, 2, 3, 100])
def test_images_at_a_time_do_not_show(together: int) -> None:
    bank = chosen(made(3, 30), 7)
    new = made(5, 30, seed=1)
    one, other = grown(bank, new), grown(bank, new, together)
    assert torch.equal(one.rows, other.rows)
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.cells, other.cells)


@settings(deadline=None, max_examples=40)
@given(
    every=st.integers(1, 9),
    spread=st.floats(0.3, 4),
    shift=st.floats(0, 30),
    dimensions=st.sampled_from([None, 3]),
    seed=st.integers(0, 999),
    p=st.integers(3, 40),
)
def test_every_patch_lies_within_the_radius(
    every: int, spread: float, shift: float, dimensions: int | None, seed: int, p: int
) -> None:
    """Old and new, by all differences; and each added row was farther away from all before it."""
    learned, new = made(3, p, 6, seed), made(3, p, 6, seed + 1) * spread + shift
    bank = chosen(learned, every, dimensions)
    after = grown(bank, new, dimensions=dimensions)
    assert reach(after, torch.cat((learned, new)), dimensions) <= bank.radius + 1e-4
    rows = checks.projected(after.rows, dimensions)
    for i in range(len(bank.rows), len(rows)):
        assert cdist(rows[i : i + 1], rows[:i]).min() >= bank.radius - 1e-4, f"row {i} was near enough"
    for image, cell, row in zip(after.images.tolist(), after.cells.tolist(), after.rows, strict=True):
        assert torch.equal(torch.cat((learned, new))[image, cell], row)


@pytest.mark.parametrize("every", [1, 4])
def test_nothing_new_adds_nothing(every: int) -> None:
    """The very images again, and images that are patches of old ones; at radius 0, too."""
    learned = made(3, 30)
    bank = chosen(learned, every)
    if every > 1:  # a patch that defines the radius lies on its edge, however it is rounded
        bank = replace(bank, radius=bank.radius + 1e-5)
    mixed = torch.stack((learned[0], learned.flatten(0, 1)[torch.randperm(90)[:30]]))
    after = grown(bank, torch.cat((learned, mixed)))
    assert torch.equal(after.rows, bank.rows)
    assert torch.equal(after.images, bank.images)
    assert [image.name for image in after.training[3:]] == [f"new {i}.png" for i in range(5)]
    assert after.radius == bank.radius


def test_at_radius_0_every_new_patch_joins_once() -> None:
    learned, new = made(2, 10), made(2, 10, seed=1)
    new[1, :4] = new[0, :4]
    new[1, 9] = new[1, 8]
    after = grown(chosen(learned, 1), new)
    assert len(after.rows) == 20 + 10 + 5
    assert reach(after, torch.cat((learned, new))) == 0


def test_the_old_bank_is_left_alone() -> None:
    bank = chosen(made(3, 30), 7)
    before = bank.rows.clone(), bank.images.clone(), bank.cells.clone(), bank.training
    new = made(2, 30, seed=1, shift=4)
    kept = new.clone()
    after = grown(bank, new)
    assert len(after.rows) > len(bank.rows)
    assert torch.equal(new, kept)
    assert all(
        torch.equal(one, other) for one, other in zip(before[:3], (bank.rows, bank.images, bank.cells), strict=True)
    )
    assert bank.training == before[3]
    new.zero_()
    assert after.rows[len(bank.rows) :].abs().sum() > 0, "rows are copies"


def test_pictures_of_the_images_with_rows_alone() -> None:
    """Of old images that have none, too; what is kept beside it stays."""
    training = [TrainingImage(f"{i}.png", (8, i), f"picture {i}".encode()) for i in range(4)]
    found = pictured(training, torch.tensor([3, 1, 1]))
    assert [image.thumbnail for image in found] == [b"", b"picture 1", b"", b"picture 3"]
    assert [(image.name, image.size) for image in found] == [(f"{i}.png", (8, i)) for i in range(4)]
    growth = Growth(chosen(made(3, 30), 7), checks.projection_of(5, None))
    growth.add(checks.plain_patches(torch.stack((made(3, 30)[0], made(1, 30, shift=9)[0]))), training[:2])
    assert [image.thumbnail for image in growth.bank().training] == [b"", b"", b"", b"", b"picture 1"]


def test_giving_up_by_hand() -> None:
    """Rows 0, 3, 10 and 11 of images 0, 1, 1 and 2: without image 1, what was near 10 has 11, and what was near 3 has 0."""
    rows = torch.zeros(4, 3)
    rows[:, 0] = torch.tensor([0.0, 3.0, 10.0, 11.0])
    bank = checks.plain_bank(rows, torch.tensor([0, 1, 1, 2]), 4, 5, radius=0.5)
    left = without(bank, 1)
    assert left.rows[:, 0].tolist() == [0, 11]
    assert left.images.tolist() == [0, 1]
    assert left.cells.tolist() == [0, 3]
    assert [image.name for image in left.training] == ["0.png", "2.png", "3.png"]
    assert (left.radius, left.loosened) == (0.5, 3.0)
    again = without(left, 1)
    assert again.rows[:, 0].tolist() == [0]
    assert again.loosened == 3 + 11


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("every", [1, 7, 13])
@pytest.mark.parametrize("dimensions", [None, 3])
def test_the_promise_holds_without_an_image(number: int, every: int, dimensions: int | None) -> None:
    learned = made(4, 30)
    bank = chosen(learned, every, dimensions)
    checks.check_forgetting(bank, learned, number, dimensions)
    assert bank.images.bincount(minlength=4)[number] > 0
    left = without(bank, number, dimensions)
    gone, kept = (checks.projected(rows, dimensions) for rows in (bank.rows[bank.images == number], left.rows))
    assert left.loosened == pytest.approx(cdist(gone, kept).min(1).max(), rel=1e-4)


@settings(deadline=None, max_examples=40)
@given(every=st.integers(1, 12), seed=st.integers(0, 999), order=st.permutations(range(5)), shift=st.floats(0, 20))
def test_the_promise_holds_for_one_after_another(every: int, seed: int, order: list[int], shift: float) -> None:
    """Down to one image, with new ones taken in between."""
    learned = made(5, 12, 4, seed)
    bank = chosen(learned, every)
    names = [image.name for image in bank.training]
    for number in order[:3]:
        place = [image.name for image in bank.training].index(names[number])
        owners = set(bank.images.tolist())
        if owners == {place}:
            return
        checks.check_forgetting(bank, learned, place)
        bank = without(bank, place)
        learned = torch.cat((learned[:place], learned[place + 1 :]))
        new = made(1, 12, 4, seed + number + 1, shift)
        bank, learned = grown(bank, new), torch.cat((learned, new))
        assert reach(bank, learned) <= bank.radius + bank.loosened + 1e-4


def test_giving_up_an_image_without_rows() -> None:
    learned = made(3, 30)
    bank = chosen(learned, 7)
    bank = replace(grown(replace(bank, radius=99.0), made(2, 30, seed=1)), radius=bank.radius)
    left = without(bank, 3)
    assert torch.equal(left.rows, bank.rows)
    assert torch.equal(left.images, bank.images)
    assert left.loosened == 0
    assert [image.name for image in left.training] == ["0.png", "1.png", "2.png", "new 1.png"]


def test_giving_up_all_that_is_known() -> None:
    bank = checks.plain_bank(made(1, 6)[0], torch.ones(6, dtype=torch.int64), 3, 6)
    with pytest.raises(DataError) as caught:
        without(bank, 1)
    assert str(caught.value) == (
        "All 6 patches of the memory bank come from 1.png: without it nothing is known. Fit a new model instead."
    )
    assert torch.equal(without(bank, 0).images, torch.zeros(6, dtype=torch.int64))


def test_equal_rows_of_others_loosen_nothing() -> None:
    rows = made(1, 6)[0].repeat(2, 1)
    bank = checks.plain_bank(rows, torch.arange(12) // 6, 2, 6, radius=1.0)
    assert without(bank, 0).loosened == 0
    assert np.isfinite(without(bank, 1).loosened)
