"""Synthetic kits: what they promise to hold, and that no part gives a defective one away."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, stats

from sapatchcore.errors import SettingsError
from sapatchcore.synth import kits, parts

SMALL = 160
# Half the side of a window that shows nothing but the part (and what is seen through its hole), at any angle.
WINDOWS = {"nut": 0.024, "washer": 0.028, "pin": 0.0078, "plug": 0.015}
GOOD = Counter((name, kind) for name, one in kits.COMPARTMENTS.items() for kind in one.holds)


def layouts(kind: str, count: int, seed: int = 0) -> list[kits.Layout]:
    random = np.random.default_rng(seed)
    return [kits.lay_out(kind, random) for _ in range(count)]


def held(layout: kits.Layout) -> Counter[tuple[str, str]]:
    return Counter((part.compartment, part.type) for part in layout.parts)


def seen_at(part: parts.KitPart, layout: kits.Layout) -> npt.NDArray[np.float64]:
    """The part's centre in the image, x and y as fractions of the side."""
    turn = np.array([[np.cos(layout.turn), -np.sin(layout.turn)], [np.sin(layout.turn), np.cos(layout.turn)]])
    return turn @ (part.x, part.y) + (layout.x, layout.y)


def axis(part: parts.KitPart, count: int = 41) -> npt.NDArray[np.float64]:
    """(count, 2) points along the part's axis, in the tray."""
    along = np.linspace(-1, 1, count)[:, None] * parts.REACH[part.type][0]
    return np.array([part.x, part.y]) + along * (np.cos(part.angle), np.sin(part.angle))


def assert_apart(placed: list[parts.KitPart]) -> None:
    for one, other in combinations(placed, 2):
        apart = np.linalg.norm(axis(one)[:, None] - axis(other)[None], axis=-1).min()
        assert apart > parts.REACH[one.type][1] + parts.REACH[other.type][1] + 0.012, (one, other)


def assert_within(part: parts.KitPart) -> None:
    home = kits.COMPARTMENTS[part.compartment]
    beyond = np.abs(axis(part) - (home.x, home.y)) + parts.REACH[part.type][1] - (home.half_width, home.half_height)
    assert beyond.max() < 0, part


def test_a_good_kit_holds_what_it_should_and_its_pair_agrees() -> None:
    found = set()
    for layout in layouts("good", 60):
        assert held(layout) == GOOD
        assert not layout.offending
        assert not layout.lacking
        colours = {part.colour for part in layout.parts if part.type in ("plug", "socket")}
        assert len(colours) == 1
        found |= colours
    assert found == set(parts.COLOURS)


def test_a_missing_part_is_one_of_any_compartment() -> None:
    lacking = set()
    for layout in layouts("missing", 100):
        gone = GOOD - held(layout)
        assert not held(layout) - GOOD
        assert gone.total() == 1
        assert layout.lacking == next(iter(gone))[0]
        assert not layout.offending
        lacking |= set(gone)
    assert lacking == set(GOOD)


def test_an_extra_part_is_one_of_those_its_compartment_holds() -> None:
    extra = set()
    for layout in layouts("extra", 100):
        more = held(layout) - GOOD
        assert not GOOD - held(layout)
        assert more.total() == 1
        (marked,) = layout.offending
        part = layout.parts[marked]
        assert {(part.compartment, part.type)} == set(more)
        assert len({one.colour for one in layout.parts if one.colour}) == 1, "the extra part must fit the pair"
        extra |= set(more)
    assert extra == set(GOOD)


def test_any_of_the_like_parts_may_be_the_one_marked_as_extra() -> None:
    positions = set()
    for layout in layouts("extra", 60):
        part = layout.parts[layout.offending[0]]
        if part.type == "nut":
            positions.add([one for one in layout.parts if one.type == "nut"].index(part))
    assert positions == {0, 1, 2}


def test_swapped_parts_change_places_and_nothing_else() -> None:
    for layout in layouts("swapped", 60):
        one, other = (layout.parts[index] for index in layout.offending)
        assert one.compartment != other.compartment
        for part, its_own in ((one, other), (other, one)):
            assert part.type not in kits.COMPARTMENTS[part.compartment].holds
            assert part.type in kits.COMPARTMENTS[its_own.compartment].holds
        assert Counter(part.type for part in layout.parts) == Counter(kind for _, kind in GOOD.elements())
        changed = (held(layout) - GOOD) + (GOOD - held(layout))
        assert changed.total() == 4


def test_a_wrong_pair_has_two_known_colours() -> None:
    found = set()
    for layout in layouts("wrong-pair", 100):
        assert held(layout) == GOOD
        plug, socket = (layout.parts[index] for index in layout.offending)
        assert (plug.type, socket.type) == ("plug", "socket")
        assert plug.colour != socket.colour
        found.add((plug.colour, socket.colour))
    assert len(found) == 6, "each colour of a plug meets each other colour of a socket"


@pytest.mark.parametrize("kind", kits.KINDS)
def test_parts_lie_in_their_compartments_without_touching(kind: str) -> None:
    for layout in layouts(kind, 60):
        for name in kits.COMPARTMENTS:
            placed = [part for part in layout.parts if part.compartment == name]
            assert_apart(placed)
            for part in placed:
                assert_within(part)


def test_parts_are_put_side_by_side_when_no_free_arrangement_is_found() -> None:
    random = np.random.default_rng(0)
    for name, compartment in kits.COMPARTMENTS.items():
        foreign = [()] if name == "screws" else [(), *((kind,) for kind in parts.REACH if kind != "screw")]
        for first in foreign:
            types = [*first, *compartment.holds[len(first) :], compartment.holds[-1]]
            rows = kits.arrange(compartment, types, random, attempts=0)
            placed = [parts.KitPart(kind, name, *row, "", 1.0) for kind, row in zip(types, rows, strict=True)]
            assert_apart(placed)
            for part in placed:
                assert_within(part)


@pytest.mark.parametrize("kind", parts.REACH)
def test_a_part_lies_within_its_reach(kind: str) -> None:
    lengths = np.linspace(-0.15, 0.15, 601, dtype=np.float32)
    u, v = lengths[None, :], lengths[:, None]
    half, radius = parts.REACH[kind]
    from_axis = np.hypot(np.maximum(np.abs(u) - half, 0), v)
    inside = parts.outline(kind, u, v) <= 0
    assert inside.any()
    assert from_axis[inside].max() <= radius + 1e-6
    assert from_axis[inside].max() > 0.9 * radius, "a loose reach wastes room"


@pytest.mark.parametrize("kind", kits.KINDS)
def test_room_for_one_part_more_is_kept_in_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    arrange = kits.arrange

    def counted(
        compartment: kits.Compartment, types: list[str], random: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        asked.append(len(types))
        return arrange(compartment, types, random)

    monkeypatch.setattr(kits, "arrange", counted)
    layouts(kind, 3)
    assert asked == 3 * [len(one.holds) + 1 for one in kits.COMPARTMENTS.values()]


def test_the_part_placed_last_is_no_nearer_to_the_others() -> None:
    random = np.random.default_rng(0)
    rows = np.array([kits.arrange(kits.COMPARTMENTS["nuts"], ["nut"] * 3, random) for _ in range(1600)])[..., :2]
    first, last = (
        np.linalg.norm(half[:, 1] - half[:, other], axis=-1) for half, other in ((rows[:800], 0), (rows[800:], 2))
    )
    assert stats.ks_2samp(first, last).pvalue > 0.01
    assert stats.ks_2samp(rows[:800, 0, 0], rows[800:, 2, 0]).pvalue > 0.01


def descriptors(image: npt.NDArray[np.uint8], part: parts.KitPart, layout: kits.Layout) -> list[float]:
    """Colour, spread and edges of a window that shows the part alone."""
    half = WINDOWS[part.type] * len(image)
    x, y = seen_at(part, layout) * len(image)
    rows, columns = (slice(int(np.ceil(at - half - 0.5)), int(np.floor(at + half - 0.5)) + 1) for at in (y, x))
    window = image[rows, columns].astype(np.float64)
    grey = window.mean(-1)
    edges = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    own = parts.COLOURS.get(part.colour, (1.0, 1.0, 1.0))  # so that three colours are one distribution
    brightness = window[..., int(np.argmax(own))].mean() / max(own)
    return [brightness, *window.mean((0, 1)), float(grey.std()), float(grey.max()), float(grey.min()), float(edges)]


def windows_of(kind: str, count: int, seed: int, brighter: float = 1.0) -> dict[str, npt.NDArray[np.float64]]:
    """(count, 8) descriptors of each type of part, of one part an image: an offending one, or any of a good image."""
    random = np.random.default_rng(seed)
    found: dict[str, list[list[float]]] = {name: [] for name in WINDOWS}
    while wanted := [name for name, some in found.items() if len(some) < count]:
        layout = kits.lay_out(kind, random)
        chosen = range(len(layout.parts)) if kind == "good" else layout.offending
        by_type = {name: [i for i in chosen if layout.parts[i].type == name] for name in wanted}
        picked = {name: int(random.choice(some)) for name, some in by_type.items() if some}
        if not picked:
            continue
        shown = tuple(
            replace(part, shade=part.shade * brighter) if index in picked.values() else part
            for index, part in enumerate(layout.parts)
        )
        image, _ = kits.draw(replace(layout, parts=shown), SMALL, random)
        for name, index in picked.items():
            found[name].append(descriptors(image, layout.parts[index], layout))
    return {name: np.array(some) for name, some in found.items()}


def smallest_p(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Bonferroni's p of all descriptors together."""
    return float(stats.ks_2samp(one, other, axis=0).pvalue.min()) * one.shape[1]


def test_no_part_gives_a_defective_kit_away() -> None:
    good = windows_of("good", 100, seed=10)
    brighter = windows_of("extra", 100, 13, brighter=1.06)
    defective = {kind: windows_of(kind, 100, seed) for seed, kind in enumerate(("extra", "swapped"), start=11)}
    for part_type in WINDOWS:
        for kind, found in defective.items():
            assert smallest_p(good[part_type], found[part_type]) > 0.01, (kind, part_type)
        assert smallest_p(good[part_type], brighter[part_type]) < 0.001, ("a cue must be found", part_type)


@pytest.mark.parametrize("part_type", ["plug", "socket"])
def test_each_colour_is_as_frequent_in_a_wrong_pair_as_in_a_good_one(part_type: str) -> None:
    tables = [
        Counter(part.colour for layout in layouts(kind, 600, seed) for part in layout.parts if part.type == part_type)
        for seed, kind in enumerate(("good", "wrong-pair"))
    ]
    counts = [[table[colour] for colour in parts.COLOURS] for table in tables]
    assert stats.chi2_contingency(counts).pvalue > 0.01


def test_the_mask_of_a_good_kit_is_empty() -> None:
    _, mask = kits.render("good", SMALL, np.random.default_rng(0))
    assert mask.dtype == np.bool_
    assert not mask.any()


@pytest.mark.parametrize("kind", ["extra", "swapped", "wrong-pair"])
def test_the_mask_covers_the_offending_parts_alone(kind: str) -> None:
    side = 320
    for layout in layouts(kind, 12):
        image, mask = kits.draw(layout, side, np.random.default_rng(5))
        centres = (np.arange(side) + 0.5) / side
        near = np.zeros_like(mask)
        for part in (layout.parts[index] for index in layout.offending):
            x, y = seen_at(part, layout)
            near |= np.hypot(centres[None, :] - x, centres[:, None] - y) <= sum(parts.REACH[part.type]) + 1 / side
            assert mask[int(y * side), int(x * side)] or part.type == "plug", "holes count as part of a part"
        assert not (mask & ~near).any()
        # What taking the parts away changes most is the parts themselves; their shadows and holes change less.
        rest = tuple(part for index, part in enumerate(layout.parts) if index not in layout.offending)
        without, _ = kits.draw(replace(layout, parts=rest, offending=()), side, np.random.default_rng(5))
        changed = np.abs(image.astype(int) - without).max(-1) > 60
        assert changed.sum() > 0.2 * mask.sum()
        assert (changed & ~ndimage.binary_dilation(mask)).sum() < 0.05 * mask.sum()


def test_the_mask_of_a_missing_part_is_the_floor_of_its_compartment() -> None:
    side = 320
    for layout in layouts("missing", 12):
        _, mask = kits.draw(layout, side, np.random.default_rng(0))
        for name, one in kits.COMPARTMENTS.items():
            at = parts.KitPart("pin", name, one.x, one.y, 0.0, "", 1.0)
            x, y = (seen_at(at, layout) * side).astype(int)
            assert mask[y, x] == (name == layout.lacking)
        one = kits.COMPARTMENTS[layout.lacking]
        outline = 4 * one.half_width * one.half_height * side**2
        assert 0.8 * outline < mask.sum() < outline


def test_a_part_changes_nothing_beyond_itself_and_its_shadow() -> None:
    side, layout = 256, layouts("good", 1)[0]
    for index, part in enumerate(layout.parts):
        fewer = replace(layout, parts=(*layout.parts[:index], *layout.parts[index + 1 :]))
        one, other = (kits.draw(each, side, np.random.default_rng(0))[0] for each in (layout, fewer))
        rows, columns = np.nonzero((one != other).any(-1))
        x, y = seen_at(part, layout) * side
        assert len(rows) > 0
        assert np.hypot(columns + 0.5 - x, rows + 0.5 - y).max() < (sum(parts.REACH[part.type]) + 0.04) * side


@pytest.mark.parametrize("kind", kits.KINDS)
def test_the_same_seed_gives_the_same_bytes(kind: str) -> None:
    first, again, other = (kits.render(kind, 128, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()


@pytest.mark.parametrize("side", [96, 97, 131, 512])
@pytest.mark.parametrize("kind", kits.KINDS)
def test_any_size_shows_the_same_kit(kind: str, side: int) -> None:
    layout = layouts(kind, 1)[0]
    image, mask = kits.draw(layout, side, np.random.default_rng(0))
    assert image.shape == (side, side, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (side, side)
    _, large = kits.draw(layout, 384, np.random.default_rng(0))
    assert abs(mask.mean() - large.mean()) < 0.1 * large.mean() + 1e-12


def test_the_counts_name_every_kind_in_order() -> None:
    assert tuple(kits.TEST) == kits.KINDS


@pytest.mark.parametrize(
    ("kind", "side", "message"),
    [
        ("mising", 128, "'mising' is not a kind of kit. Did you mean 'missing'\\? Allowed: good, missing, extra"),
        ("good", 95, "side must be at least 96 pixels. Got 95."),
    ],
)
def test_wrong_use_is_named(kind: str, side: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        kits.render(kind, side, np.random.default_rng(0))
