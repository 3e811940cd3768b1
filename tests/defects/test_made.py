"""Made defects: seen where the mask says, on the part, of several sizes, seeded; combinations that good images do not show."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import made_parts
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from sapatchcore.defects.foreground import Foreground
from sapatchcore.defects.local_defects import LOCAL
from sapatchcore.defects.made import GROUPS, KINDS, VISIBLE, changed, generator, made_defects, make_defect
from sapatchcore.defects.subject import Subject
from sapatchcore.defects.window import Window
from sapatchcore.errors import SettingsError

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
COMBINATIONS = [kind for kind, group in KINDS.items() if group == "combination"]


def drawn(name: str, seed: int) -> UInt8:
    made = getattr(made_parts, name)(seed)
    image: UInt8 = made[0] if isinstance(made, tuple) else made
    return image


@cache
def learned(name: str) -> Foreground:
    """From eight of ``made_parts``' pictures of one name."""
    return Foreground.of([drawn(name, seed) for seed in range(8)])


@cache
def seen(name: str, seed: int) -> Subject:
    return learned(name).find(drawn(name, seed))


def made(name: str, kind: str, count: int) -> list[tuple[Subject, UInt8, Bool]]:
    """What succeeds of ``count`` defects of a kind, on as many of six images."""
    found = []
    for number in range(count):
        subject = seen(name, number % 6)
        one = make_defect(subject, kind, generator(0, number, kind), learned(name))
        if one is not None:
            found.append((subject, *one))
    return found


def test_there_are_two_groups_of_kinds() -> None:
    assert tuple(dict.fromkeys(KINDS.values())) == GROUPS
    assert set(COMBINATIONS) == {"moved", "doubled", "removed", "swapped", "mirrored"}
    assert {"scratch", "spot", "stain", "crack", "bend", "smear", "missing-piece", "foreign-piece"} == set(LOCAL)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_where_the_image_changed_and_it_shows(kind: str) -> None:
    results = made("bar", kind, 8)
    assert len(results) >= 6
    for subject, image, mask in results:
        assert (image.dtype, image.shape, mask.dtype, mask.shape) == (np.uint8, (160, 160, 3), np.bool_, (160, 160))
        apart = np.abs(image.astype(int) - subject.image).max(-1)
        assert (apart[mask] > 0).all()
        assert apart[mask].mean() >= VISIBLE
        # What the mask leaves out is what nobody sees: soft edges, faint specks.
        assert (apart[~ndimage.binary_dilation(mask, iterations=3)] < 25).all()
        assert 8 <= mask.sum() < 0.5 * mask.size


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("name", ["bar", "mesh"])
def test_a_local_defect_lies_on_the_part(kind: str, name: str) -> None:
    for subject, _, mask in made(name, kind, 8):
        part = Image.fromarray(ndimage.binary_dilation(subject.part, iterations=2))
        full = np.asarray(part.resize((mask.shape[1], mask.shape[0]), Image.Resampling.NEAREST))
        # What lies on a part may jut out, and a bend pushes it out.
        assert (mask & full).sum() >= (0.4 if kind in ("foreign-piece", "bend", "smear") else 0.85) * mask.sum()


@pytest.mark.parametrize("kind", ["spot", "stain", "foreign-piece", "scratch"])
def test_defects_are_of_many_sizes_and_strengths(kind: str) -> None:
    results = made("mesh", kind, 40)
    areas = np.array([mask.sum() for _, _, mask in results])
    apart = np.array(
        [np.abs(image.astype(int) - subject.image).max(-1)[mask].mean() for subject, image, mask in results]
    )
    assert len(results) >= 36
    assert np.quantile(areas, 0.9) > 3 * np.quantile(areas, 0.1)
    assert np.quantile(apart, 0.9) > 1.5 * np.quantile(apart, 0.1)
    assert areas.min() < 0.004 * 160**2


@pytest.mark.parametrize("name", ["mesh", "casting"])
@pytest.mark.parametrize("kind", COMBINATIONS)
def test_a_texture_has_no_parts_to_combine(name: str, kind: str) -> None:
    assert made(name, kind, 3) == []


def test_what_has_no_lines_cannot_be_bent() -> None:
    assert made("casting", "bend", 3) == []
    assert len(made("mesh", "bend", 3)) == 3


def shown(image: UInt8, name: str) -> Bool:
    """(h, w) bool: the pixels of a tray's image that have the colour of a piece, whatever the light."""
    share = image / np.maximum(image.sum(-1, keepdims=True), 1)
    own = np.array(made_parts.PIECES[name]) / sum(made_parts.PIECES[name])
    found: Bool = np.abs(share - own).max(-1) < 0.06
    return found


def colour_at(image: UInt8, middle: tuple[int, int]) -> str:
    """Which piece shows there: the one whose colour is nearest, or "floor"."""
    row, column = middle
    window = image[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).mean(0)
    palette = {**made_parts.PIECES, "floor": (150, 158, 165)}
    return min(palette, key=lambda name: float(np.abs(window - palette[name]).sum()))


def test_a_removed_piece_leaves_the_floor() -> None:
    gone = set()
    for number in range(12):
        image, middles = made_parts.tray(number % 6)
        result = make_defect(seen("tray", number % 6), "removed", generator(0, number, "removed"), learned("tray"))
        assert result is not None
        after, mask = result
        there = {name: colour_at(after, middle) for name, middle in middles.items()}
        lost = [name for name, found in there.items() if found == "floor"]
        assert [name for name in there if colour_at(image, middles[name]) != name] == []
        assert len(lost) == 1
        assert mask[middles[lost[0]]]
        gone |= set(lost)
    assert gone == set(made_parts.PIECES)


def test_a_doubled_piece_is_there_twice() -> None:
    results = made("tray", "doubled", 6)
    assert len(results) == 6
    for subject, image, mask in results:
        times = {name: shown(image, name).sum() / shown(subject.image, name).sum() for name in made_parts.PIECES}
        assert sorted(round(float(value), 1) for value in times.values())[:2] == [1.0, 1.0]
        twice = max(times, key=lambda name: times[name])
        assert 1.7 < times[twice] < 2.4
        assert (shown(image, twice) & mask).sum() > 0.8 * shown(subject.image, twice).sum()


def test_a_moved_piece_lies_where_no_good_image_shows_one_like_it() -> None:
    usual = [made_parts.tray(seed)[1] for seed in range(8)]
    results = made("tray", "moved", 6)
    assert len(results) == 6
    for subject, image, mask in results:
        before, after = ({name: shown(one, name) for name in made_parts.PIECES} for one in (subject.image, image))
        moved = [name for name in before if (before[name] & after[name]).sum() < 0.5 * before[name].sum()]
        assert len(moved) == 1
        name = moved[0]
        assert 0.8 < after[name].sum() / before[name].sum() < 1.25
        assert mask[before[name]].mean() > 0.8
        assert mask[after[name]].mean() > 0.8
        middle = np.argwhere(after[name]).mean(0)
        assert min(np.hypot(*(middle - one[name])) for one in usual) > 20


def test_swapped_pieces_have_changed_places() -> None:
    results = made("tray", "swapped", 6)
    assert len(results) >= 4
    for subject, image, mask in results:
        seed = next(seed for seed in range(6) if seen("tray", seed) is subject)
        middles = made_parts.tray(seed)[1]
        changed_places = [name for name, middle in middles.items() if mask[middle]]
        assert len(changed_places) == 2
        kept = next(name for name in middles if name not in changed_places)
        assert colour_at(image, middles[kept]) == kept
        # The hook is laid by the middle of its box, so what shows in the other's middle may be its inner corner.
        assert all(colour_at(image, middles[name]) != name for name in changed_places)


def test_only_a_chiral_piece_is_mirrored() -> None:
    results = made("tray", "mirrored", 6)
    assert len(results) == 6
    for subject, _, mask in results:
        middles = made_parts.tray(next(seed for seed in range(6) if seen("tray", seed) is subject))[1]
        rows, columns = np.nonzero(mask)
        near = min(middles, key=lambda name: np.hypot(*np.subtract(middles[name], (rows.mean(), columns.mean()))))
        assert near == "hook"


def test_a_second_bar_is_laid_beside_the_first() -> None:
    wide = [made_parts.bar(seed, (160, 320), angle=1.5) for seed in range(4)]
    foreground = Foreground.of([image for image, _ in wide])
    for seed, (image, truth) in enumerate(wide):
        made_two = make_defect(foreground.find(image), "doubled", generator(0, seed, "doubled"), foreground)
        assert made_two is not None
        again = foreground.find(made_two[0])
        assert again.count == 2
        assert not (made_two[1] & truth).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(kind: str) -> None:
    subject, foreground = seen("bar", 0), learned("bar")
    first, again, other = (make_defect(subject, kind, np.random.default_rng(seed), foreground) for seed in (3, 3, 4))
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first[0].tobytes(), first[1].tobytes()) == (again[0].tobytes(), again[1].tobytes())
    assert first[0].tobytes() != other[0].tobytes()


def test_defects_of_a_list_depend_on_their_own_kind_and_image_alone() -> None:
    images = [drawn("bar", seed) for seed in range(3)]
    every = list(made_defects(images, learned("bar"), kinds=("spot", "crack", "removed"), seed=2))
    assert [(one.kind, one.source) for one in every] == [
        (kind, source) for source in range(3) for kind in ("spot", "crack", "removed")
    ]
    assert [one.group for one in every[:3]] == ["local", "local", "combination"]
    alone = list(made_defects(images, learned("bar"), kinds=("crack",), seed=2))
    assert [one.image.tobytes() for one in alone] == [one.image.tobytes() for one in every if one.kind == "crack"]
    other = list(made_defects(images, learned("bar"), kinds=("crack",), seed=3))
    assert [one.image.tobytes() for one in other] != [one.image.tobytes() for one in alone]


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_image_stays_grey(kind: str) -> None:
    grey = [np.repeat(drawn("bar", seed).mean(-1, keepdims=True), 3, -1).astype(np.uint8) for seed in range(4)]
    foreground = Foreground.of(grey)
    results = list(made_defects(grey, foreground, kinds=(kind,)))
    assert results
    assert all((one.image == one.image[..., :1]).all() for one in results)


@pytest.mark.parametrize("size", [(48, 48), (40, 120)])
def test_small_images_do(size: tuple[int, int]) -> None:
    images = [made_parts.bar(seed, size)[0] for seed in range(4)]
    found = list(made_defects(images, Foreground.of(images)))
    assert {one.kind for one in found} >= set(LOCAL)
    assert all(one.mask.shape == size for one in found)


def test_an_image_without_the_part_allows_none() -> None:
    empty = learned("bar").find(np.full((160, 160, 3), made_parts.GROUND, np.uint8))
    assert [kind for kind in KINDS if make_defect(empty, kind, generator(0, 0, kind), learned("bar"))] == []


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(SettingsError, match=r"Got 'scrach'\. Did you mean 'scratch'\?"):
        make_defect(seen("bar", 0), "scrach", np.random.default_rng(0), learned("bar"))
    with pytest.raises(SettingsError, match="kind must be scratch, spot"):
        next(made_defects([drawn("bar", 0)], learned("bar"), kinds=("bent",)))


@pytest.mark.parametrize(
    ("add", "pixels", "found"),
    [(40, 5, True), (8, 5, False), (40, 2, False), (0, 5, False)],
    ids=["seen", "too faint", "too small", "nothing"],
)
def test_what_nobody_would_see_is_no_defect(add: int, pixels: int, found: bool) -> None:
    before = np.full((40, 40, 3), 100, np.uint8)
    after = before.copy()
    after[10 : 10 + pixels, 12 : 12 + pixels, 1] += np.uint8(add)
    mask: Callable[..., Bool | None] = changed
    seen_mask = mask(before, after, Window(5, 30, 5, 30, 40, 40))
    assert (seen_mask is not None) == found
    if seen_mask is not None:
        assert np.array_equal(seen_mask, (after != before).any(-1))
