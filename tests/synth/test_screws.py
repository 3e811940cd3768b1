"""Screws: any side, right masks, and no cue to a wrong combination but the combination itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial.distance import pdist

from sapatchcore.errors import SettingsError
from sapatchcore.synth import screws, steel

SIDE = 160
LARGE = 350  # where lengths are measured
COUNT = 150
CHANCE = 0.01  # of one false alarm in one comparison of all descriptors


def image(kind: str, seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    return screws.render(kind, side, np.random.default_rng(seed))


def screw(seed: int, side: int = SIDE) -> screws.Screw:
    """What ``render`` draws with this seed, before it looks at the kind."""
    random = np.random.default_rng(seed)
    random.integers(2**63)
    return screws.draw(side, random)


def places(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """u and v of every pixel, millimetres."""
    at = np.arange(side, dtype=np.float32) + np.float32(0.5)
    return screws._on_rod(screw(seed, side), at, at)


@pytest.mark.parametrize("side", [64, 97, 200])
@pytest.mark.parametrize("kind", screws.KINDS)
def test_any_side(kind: str, side: int) -> None:
    for seed in range(6):
        picture, mask = image(kind, seed, side)
        assert picture.shape == (side, side, 3)
        assert picture.dtype == np.uint8
        assert mask.shape == (side, side)
        assert mask.dtype == np.bool_
        assert mask.any() == (kind != "good")


def test_same_generator_same_image() -> None:
    assert np.array_equal(image("paint", 4)[0], image("paint", 4)[0])
    assert not np.array_equal(image("paint", 4)[0], image("paint", 5)[0])


def test_counts_are_those_of_cad_sd() -> None:
    assert tuple(screws.TEST) == screws.KINDS
    assert (screws.TRAIN, *screws.TEST.values()) == (400, 210, 41, 41, 44, 40)


@pytest.mark.parametrize(("kind", "side"), [("over_coupling", 128), ("good", 63)])
def test_what_cannot_be_made_is_refused(kind: str, side: int) -> None:
    with pytest.raises(SettingsError, match="must be"):
        image(kind, 0, side)


def seen(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The light of each pixel against the middle of the background's, its place in shares of the side, and the mask."""
    picture, mask = image(kind, seed, LARGE)
    drawn, share = screw(seed, LARGE), screw(seed, LARGE).scale / LARGE
    u, v = places(seed, LARGE)
    return picture.mean(-1) / (drawn.background.mean() * drawn.exposure * 255), u * share, v * share, mask


def extent(values: np.ndarray) -> float:
    """Between the outer pixels' middles, and half a pixel more on each side."""
    return float(np.ptp(values)) + 1 / LARGE


@pytest.mark.parametrize("seed", range(8))
def test_a_screw_is_as_large_as_in_cad_sd(seed: int) -> None:
    """Shares of the image's side: the screw 0.8 long, the rod 0.12 thick, the nut 0.30 by 0.15, its bright face 0.12."""
    light, u, v, _ = seen("good", seed)
    steely = light < 0.25
    assert 0.75 < extent(u[steely & (np.abs(v) < 0.05)]) < 0.85
    assert extent(v[steely & (np.abs(u) < 0.18)]) == pytest.approx(0.12, abs=0.008)
    _, u, v, nut = seen("over-coupling", seed)
    assert extent(v[nut]) == pytest.approx(0.30, abs=0.012)
    assert extent(u[nut]) == pytest.approx(0.15, abs=0.008)
    light, u, v, _ = seen("over-coupling", seed)
    face = ndimage.binary_opening(nut & (light > 0.5), iterations=3)
    assert extent(v[face & (np.abs(u - np.mean(u[nut])) < 0.03)]) == pytest.approx(0.12, abs=0.012)
    assert extent(u[face & (np.abs(v - np.mean(v[face])) < 0.03)]) == pytest.approx(0.12, abs=0.012)


@pytest.mark.parametrize("seed", range(8))
def test_a_screw_is_lit_as_in_cad_sd(seed: int) -> None:
    """Nearly black between the teeth of its edges, a bright dashed line in the middle, a halo that reaches 0.05."""
    light, u, v, _ = seen("good", seed)
    beside, bare = np.abs(v) - steel.RADIUS * screw(seed, LARGE).scale / LARGE, np.abs(u) < 0.18
    assert np.median(light[bare & (beside < -0.01)]) < 0.2
    teeth = light[bare & (np.abs(beside + 0.004) < 0.001)]
    assert 0.25 < np.mean(teeth < 0.25) < 0.75
    line = light[bare & (np.abs(v - 0.06 * np.sin(screw(seed, LARGE).rod.glint)) < 0.003)]
    assert np.percentile(line, 80) > 0.5
    assert np.percentile(line, 20) < 0.35
    close, edge, away = (np.median(light[bare & (np.abs(beside - far) < 0.003)]) for far in (0.01, 0.05, 0.08))
    assert close < 0.65 * away
    assert 0.93 * away < edge < away


def test_the_corners_have_two_thirds_of_the_light() -> None:
    corners = np.array([seen("lacking", seed)[0][[0, 0, -1, -1], [0, -1, 0, -1]].mean() for seed in range(20)])
    assert corners.mean() == pytest.approx(2 / 3, abs=0.02)
    assert (np.abs(corners - 2 / 3) < 0.07).all()


def test_scratch_and_paint_are_as_large_as_in_cad_sd() -> None:
    """A scratch reaches 0.06 to 0.10 of the side, paint 0.15 to 0.20 along the rod; both differ from image to image."""
    scratches, paints = [], []
    for seed in range(25):
        _, u, v, mask = seen("scratch", seed)
        scratches.append(pdist(np.stack([u[mask], v[mask]], 1)).max())
        _, u, v, mask = seen("paint", seed)
        paints.append(extent(u[mask]))
        assert 0.05 < extent(v[mask]) < 0.12  # the rod is not painted all over
    assert 0.06 < min(scratches) < 0.075
    assert 0.085 < max(scratches) < 0.105
    assert 0.15 < min(paints) < 0.17
    assert 0.185 < max(paints) < 0.205


@pytest.mark.parametrize("kind", ["scratch", "paint"])
def test_a_local_mask_holds_what_changed(kind: str) -> None:
    for seed in range(20):
        picture, mask = image(kind, seed)
        change = np.abs(picture.astype(int) - image("good", seed)[0]).max(-1)
        assert mask.sum() >= 25
        assert change[mask].mean() > 30
        assert change[~ndimage.binary_dilation(mask, iterations=3)].max() <= 12  # NOTICEABLE is 10 levels
        if kind == "paint":
            red, green, _ = picture[mask].mean(0)
            assert red > green + 20
        u, v = places(seed)
        assert (
            np.abs(u[mask]).max() < screw(seed).rod.length / 2 - steel.END + 0.5
        )  # on the thread, where no nut may sit
        assert np.abs(v[mask]).max() < steel.RADIUS + 1


def test_over_coupling_marks_one_nut_by_lot() -> None:
    ends = []
    for seed in range(30):
        _, mask = image("over-coupling", seed)
        drawn, (u, v) = screw(seed), places(seed)
        ends.append(int(np.sign(u[mask].mean())))
        nut = drawn.nuts[0 if ends[-1] > 0 else 1]
        assert np.abs(u[mask] - nut.middle).max() < steel.HEIGHT / 2 + 1
        assert np.abs(v[mask]).max() < steel.CORNER + 1
        assert mask.sum() == pytest.approx(2 * steel.CORNER * steel.HEIGHT * drawn.scale**2, rel=0.12)
    assert 8 <= ends.count(1) <= 22


def test_lacking_marks_both_ends() -> None:
    for seed in range(20):
        _, mask = image("lacking", seed)
        assert ndimage.label(mask)[1] == 2
        assert {int(sign) for sign in np.sign(places(seed)[0][mask])} == {1, -1}


def test_both_nuts_would_always_be_inside() -> None:
    for seed in range(300):
        _, mask = image("lacking", seed, 64)
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not edge.any()


@pytest.mark.parametrize(("kind", "end"), [("over-coupling", -1), ("lacking", 1)])
def test_a_kind_moves_nothing_but_its_nut(kind: str, end: int) -> None:
    """Rod, place, light and noise are the same to a grey level, 25 mm away from the end whose nut is added or left out."""
    for seed in range(10):
        away = np.abs(places(seed)[0] - end * 20) > 25
        change = np.abs(image(kind, seed)[0].astype(int) - image("good", seed)[0])
        assert change[away].max() <= 1
        assert change.max() > 60


def descriptors(picture: np.ndarray, seed: int, end: int) -> list[float]:
    """What a patch about one end looks like, upright, the end to the right, relative to the background's light."""
    drawn = screw(seed)
    outward, across = np.meshgrid(np.arange(-11.0, 2.5, 0.5), np.arange(-9.0, 9.5, 0.5))
    u, v = end * (drawn.rod.length / 2 + outward), end * across
    cosine, sine = np.cos(drawn.angle), np.sin(drawn.angle)
    x = drawn.centre[0] + drawn.scale * (u * cosine - v * sine) - 0.5
    y = drawn.centre[1] + drawn.scale * (u * sine + v * cosine) - 0.5
    patch = ndimage.map_coordinates(picture.mean(-1), [y, x], order=1) / (drawn.exposure * 255)
    down, along = np.gradient(patch)
    core = patch[np.abs(across) < 2]
    return [
        *(patch.mean(), patch.std(), np.hypot(down, along).mean(), core.mean(), core.std()),
        *np.percentile(patch, (5, 25, 50, 75, 95)),
        *np.percentile(core, (10, 90)),
    ]


def ends(kind: str, first: int, which: tuple[int, ...]) -> np.ndarray:
    """(COUNT, descriptors) of one end of each of COUNT images of ``kind``, the ends of ``which`` in turn."""
    seeds = range(first, first + COUNT)
    return np.array([descriptors(image(kind, seed)[0], seed, which[seed % len(which)]) for seed in seeds])


def smallest_chance(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov-Smirnov for each descriptor; the smallest p-value, by Bonferroni for their number."""
    found = [stats.ks_2samp(a, b).pvalue for a, b in zip(one.T, other.T, strict=True)]
    return min(1.0, min(found) * len(found))


@pytest.fixture(scope="module")
def good_nuts() -> np.ndarray:
    return ends("good", 10000, (1,))


@pytest.fixture(scope="module")
def good_bare() -> np.ndarray:
    return ends("good", 20000, (-1,))


def test_bare_ends_look_alike_in_good_and_lacking(good_bare: np.ndarray) -> None:
    assert smallest_chance(good_bare, ends("lacking", 30000, (1, -1))) > CHANCE


def test_nuts_look_alike_in_good_and_over_coupling(good_nuts: np.ndarray) -> None:
    assert smallest_chance(good_nuts, ends("over-coupling", 40000, (1, -1))) > CHANCE


def test_the_comparison_would_see_a_planted_cue(
    good_nuts: np.ndarray, good_bare: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nuts 5 % brighter are found out, and so are bare ends in place of nuts."""
    assert smallest_chance(good_nuts, good_bare) < 1e-9
    monkeypatch.setattr(steel, "nut", brighter(steel.nut))
    assert smallest_chance(good_nuts, ends("over-coupling", 40000, (1, -1))) < CHANCE / 10


def brighter(nut: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def planted(*place: object) -> tuple[np.ndarray, np.ndarray]:
        colour, cover = nut(*place)
        return colour * np.float32(1.05), cover

    return planted
