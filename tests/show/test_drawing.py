"""Drawing: the scale's colours, masks that lose no speck, lines that hide nothing and are told apart by the colour-blind."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore.score.anomaly_score import anomaly_map
from sapatchcore.show.drawing import (
    INFERNO,
    INK,
    OPACITY,
    PAPER,
    PREDICTED,
    TRUTH,
    Scale,
    colours,
    contours,
    filled,
    font,
    heat,
    outlined,
    overlay,
    resized_mask,
    scale_of,
    shaded,
)

SCALE = Scale(0.0, 2.0, 4.0)

# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0; on linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)]
    ),
    "deuteranopia": np.array(
        [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)]
    ),
    "tritanopia": np.array(
        [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)]
    ),
}


def lab(rgb: object, eye: str = "all cones") -> np.ndarray:
    """CIE L*a*b* (D65) of (..., 3) sRGB colours in [0, 255], as an eye sees them."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ SEEN[eye].T, 0, 1)
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    xyz = linear @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (xyz * 24389 / 27 + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def grey(level: int, *shape: int) -> np.ndarray:
    return np.full((*shape, 3), level, np.uint8)


def square(side: int, first: int, last: int) -> np.ndarray:
    mask = np.zeros((side, side), np.bool_)
    mask[first:last, first:last] = True
    return mask


def test_lab_of_known_colours() -> None:
    np.testing.assert_allclose(lab((255, 255, 255)), (100, 0, 0), atol=0.01)
    np.testing.assert_allclose(lab((255, 0, 0)), (53.24, 80.09, 67.20), atol=0.05)
    # What they confuse comes nearer, or the simulation is none.
    red_green = (200, 60, 60), (110, 110, 40)
    far, near = (
        np.linalg.norm(np.subtract(*(lab(one, eye) for one in red_green))) for eye in ("all cones", "deuteranopia")
    )
    assert near < far / 2


@pytest.mark.parametrize("eye", SEEN)
def test_lines_are_told_apart(eye: str) -> None:
    predicted, truth = lab(PREDICTED, eye), lab(TRUTH, eye)
    assert np.linalg.norm(predicted - truth) > 50
    assert predicted[0] - truth[0] > 40  # in grey print too
    assert predicted[0] - lab(INK, eye)[0] > 40  # each from its casing
    assert lab(PAPER, eye)[0] - truth[0] > 40


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize(("line", "casing"), [(PREDICTED, INK), (TRUTH, PAPER)])
def test_lines_read_on_every_colour_of_the_maps(eye: str, line: tuple[int, ...], casing: tuple[int, ...]) -> None:
    greys = np.repeat(np.arange(0, 256, 15), 3).reshape(-1, 3)
    ground = np.concatenate([INFERNO, OPACITY * INFERNO + (1 - OPACITY) * 128, greys])
    seen = lab(ground, eye)
    contrast = np.maximum(*(np.linalg.norm(seen - lab(one, eye), axis=1) for one in (line, casing)))
    assert contrast.min() > 35


@pytest.mark.parametrize("eye", SEEN)
def test_lightness_of_the_maps_rises_for_every_eye(eye: str) -> None:
    ramp = lab(colours(np.linspace(0, 1, 65, dtype=np.float32), (0, 1)), eye)[:, 0]
    assert (np.diff(ramp) > 0).all()


@pytest.mark.parametrize(
    "numbers", [(1, 1, 2), (2, 1, 3), (0, 3, 2), (1, None, 1), (float("nan"), None, 1), (0, 1, float("inf"))]
)
def test_scales_that_are_none(numbers: tuple[float, float | None, float]) -> None:
    with pytest.raises(ValueError, match="low < threshold <= high"):
        Scale(*numbers)


def test_scale_of_a_threshold() -> None:
    assert scale_of(4.0, low=1.0) == Scale(1.0, 4.0, 8.0)
    assert scale_of(4.0, low=1.0, high=20.0) == Scale(1.0, 4.0, 20.0)
    assert scale_of(4.0, low=4.0, high=3.0) == Scale(3.6, 4.0, 5.0)  # a set whose every score is good
    for threshold in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            scale_of(threshold)


def test_heat_by_hand() -> None:
    values = np.array([[0, 2, 4, -1, 9]], np.float32)
    anchors = [0, 8, 16, 0, 16]  # of inferno's 17: the threshold is the middle of this scale; beyond its ends clipped
    np.testing.assert_array_equal(heat(grey(100, 1, 5), values, SCALE, 1.0)[0], INFERNO[anchors])
    mixed = np.rint(0.75 * INFERNO[anchors] + 0.25 * 100)
    np.testing.assert_array_equal(heat(grey(100, 1, 5), values, SCALE)[0], mixed)
    blue = np.full((1, 5, 3), (0, 0, 255), np.uint8)
    np.testing.assert_array_equal(heat(blue, values, SCALE, 0.0), grey(29, 1, 5))  # 0.114 × 255


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_heat_refuses_what_is_no_number(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        heat(grey(0, 1, 2), np.array([[1, wrong]], np.float32), SCALE)


@pytest.mark.parametrize(
    ("image", "shape"), [(grey(0, 2, 3), (3, 2)), (np.zeros((2, 3), np.uint8), (2, 3)), (np.zeros((2, 3, 3)), (2, 3))]
)
def test_shapes_that_do_not_fit(image: np.ndarray, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        heat(image, np.zeros(shape, np.float32), SCALE)
    with pytest.raises(ValueError, match="must be"):
        contours(image, np.ones(shape, np.bool_), TRUTH, "solid")


def test_overlay_shows_the_part_where_the_map_is_low() -> None:
    values = np.array([[0, 1, 1.5, 2, 4]], np.float32)
    found = overlay(grey(100, 1, 5), values, SCALE, truth=None, predicted=None)[0]
    np.testing.assert_array_equal(found[:2], 100)  # up to half of the threshold
    share = np.array([[0.5], [1], [1]]) * OPACITY
    np.testing.assert_array_equal(found[2:], np.rint(share * INFERNO[[6, 8, 16]] + (1 - share) * 100))


def test_overlay_has_both_lines() -> None:
    flat = np.zeros((80, 80), np.float32)
    found = overlay(grey(128, 80, 80), flat, SCALE, truth=square(80, 10, 30), predicted=square(80, 50, 70))
    assert (found[:40, :40] == TRUTH).all(2).any()
    assert not (found[:40, :40] == PREDICTED).all(2).any()
    assert (found[45:, 45:] == PREDICTED).all(2).any()
    assert not (found[45:, 45:] == TRUTH).all(2).any()


def test_predicted_line_shows_through_the_gaps_of_the_truth() -> None:
    mask = square(80, 20, 60)
    found = overlay(grey(128, 80, 80), np.zeros((80, 80), np.float32), SCALE, truth=mask, predicted=mask)
    assert (found == TRUTH).all(2).any()
    assert (found == PREDICTED).all(2).any()


def test_line_by_hand() -> None:
    """width 1: a casing, the line, a casing; from the mask's border outwards."""
    found = contours(grey(128, 11, 11), square(11, 4, 7), PREDICTED, "solid", width=1)
    np.testing.assert_array_equal(found[5, :5], [(128,) * 3, INK, PREDICTED, INK, (128,) * 3])
    assert (found[4:7, 4:7] == 128).all()


@pytest.mark.parametrize("style", ["solid", "dashed"])
@pytest.mark.parametrize("seed", range(5))
def test_line_covers_no_pixel_of_its_mask(style: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 90, 2))
    mask = rng.random(shape) < rng.choice([0.002, 0.3, 0.95])
    picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = picture.copy()
    found = contours(picture, mask, TRUTH, style)
    np.testing.assert_array_equal(found[mask], before[mask])
    np.testing.assert_array_equal(picture, before)  # the caller's stays
    if mask.any() and not mask.all():
        assert (found[~mask] != before[~mask]).any()


@pytest.mark.parametrize("style", ["solid", "dashed"])
def test_masks_at_the_limits(style: str) -> None:
    for mask in (np.zeros((6, 9), np.bool_), np.ones((6, 9), np.bool_), np.ones((1, 1), np.bool_)):
        assert (contours(grey(7, *mask.shape), mask, PREDICTED, style) == 7).all()
    at_border = np.zeros((40, 40), np.bool_)
    at_border[:10, :10] = True
    assert (contours(grey(7, 40, 40), at_border, PREDICTED, style)[:10, :10] == 7).all()
    one = np.zeros((40, 40), np.bool_)
    one[20, 20] = True
    assert (contours(grey(7, 40, 40), one, PREDICTED, style) == PREDICTED).all(2).any()


def test_dashes_and_gaps_alternate_along_the_line() -> None:
    mask = square(60, 20, 40)
    solid, dashed = (contours(grey(128, 60, 60), mask, TRUTH, style, width=1) for style in ("solid", "dashed"))
    above = (dashed[18, 20:40] == TRUTH).all(1)  # the line above the square, width 1 at two pixels from it
    assert (solid[18, 20:40] == TRUTH).all()
    runs = [(value, len(list(group))) for value, group in itertools.groupby(above.tolist())]
    assert runs[:4] == [(True, 3), (False, 2), (True, 3), (False, 2)]
    assert (dashed == 128).all(2).sum() > (solid == 128).all(2).sum()


def test_dashes_go_around_any_shape() -> None:
    """Neither a diagonal nor a ring is all dash or all gap: their lengths run along the edge."""
    y, x = np.mgrid[:200, :200]
    for mask in (np.abs(x - y) < 8, np.abs(np.hypot(x - 100, y - 100) - 60) < 12):
        solid, dashed = (
            (contours(grey(128, 200, 200), mask, TRUTH, style) == TRUTH).all(2).sum() for style in ("solid", "dashed")
        )
        assert 0.5 < dashed / solid < 0.7


def test_line_grows_with_the_picture() -> None:
    thick = []
    for side in (100, 400):
        found = contours(grey(128, side, side), square(side, side // 4, side // 2), PREDICTED, "solid")
        thick.append(int((found[side // 3] == PREDICTED).all(1).sum()) // 2)  # left and right of the square
    assert thick == [2, 5]


def test_lightness_rises_evenly() -> None:
    steps = np.diff(lab(colours(np.linspace(0, 1, 65, dtype=np.float32), (0.0, 1.0)))[:, 0])
    assert steps.max() < 1.6 * np.median(steps)


def test_colours_end_at_the_top() -> None:
    found = colours(np.array([0, 1, 4, 5, 9], np.float32), (1.0, 5.0))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 1, 3, 4]], INFERNO[[0, 0, -1, -1]])
    np.testing.assert_array_equal(found[2], INFERNO[12])  # 3 of the scale's 4 is anchor 12 of 16


def test_palette_of_ones_own() -> None:
    found = colours(np.array([0, 5, 10], np.float32), (0.0, 10.0), np.array([(0, 0, 0), (200, 100, 50)], np.float32))
    np.testing.assert_array_equal(found, [(0, 0, 0), (100, 50, 25), (200, 100, 50)])


def test_filled_and_outlined_by_hand() -> None:
    image, mask = grey(100, 9, 9), square(9, 4, 5)
    np.testing.assert_array_equal(filled(image, mask, (200, 0, 101))[4, 3:6], [(100,) * 3, (150, 50, 100), (100,) * 3])
    line = (outlined(image, mask, TRUTH) == TRUTH).all(2)
    assert line[4].tolist() == [False, True, True, False, False, False, True, True, False]
    assert (image == 100).all()


@pytest.mark.parametrize("seed", range(40))
def test_resized_mask_loses_no_pixel(seed: int) -> None:
    """However much smaller or larger: each pixel falls on one of the new ones, and nothing else is True."""
    rng = np.random.default_rng(seed)
    shape, size = tuple(rng.integers(1, 700, 2)), tuple(rng.integers(1, 400, 2))
    one = np.zeros(shape, np.bool_)
    one[tuple(rng.integers(0, shape))] = True
    found = resized_mask(one, size)
    assert found.shape == size
    assert found.dtype == np.bool_
    larger = np.ceil(np.divide(size, shape))  # of one pixel, where the mask grows
    assert 1 <= found.sum() <= larger.prod()
    mask = rng.random(shape) < rng.choice([0.001, 0.1, 0.9])
    covered = Image.fromarray(mask.astype(np.float32)).resize(size[::-1], Image.Resampling.BOX)
    np.testing.assert_array_equal(resized_mask(mask, size), np.asarray(covered) > 0)


def test_resized_mask_by_hand() -> None:
    np.testing.assert_array_equal(resized_mask(square(6, 0, 3), (2, 2)), [[True, False], [False, False]])
    np.testing.assert_array_equal(resized_mask(square(4, 1, 2), (2, 2)), [[True, False], [False, False]])
    np.testing.assert_array_equal(resized_mask(np.array([[True, False]]), (1, 4)), [[True, True, False, False]])
    speck = np.zeros((6000, 30), np.bool_)  # in 8 bits its share of a pixel would be rounded to nothing
    speck[4321, 7] = True
    assert resized_mask(speck, (6, 3)).tolist() == [
        [row == 4 and column == 0 for column in range(3)] for row in range(6)
    ]


def test_font_has_what_pictures_say() -> None:
    missing = bytes(font(20).getmask("\ue123"))
    for sign in "0123456789.x=:/ abcdefghijklmnopqrstuvwxyz_-":
        assert bytes(font(20).getmask(sign)) != missing or sign == " "


def test_what_was_not_inspected_is_dark_with_a_line_around_the_rest() -> None:
    picture = grey(100, 8, 12)
    found = shaded(picture, ((64, 64), (32, 32)))  # the middle half of either side
    expected = np.full((8, 12), 45)
    expected[1:7, 2:10] = 200
    expected[2:6, 3:9] = 100
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, 2))
    assert picture.min() == 100


@pytest.mark.parametrize("seen", [None, ((64, 64), None), ((64, 64), (64, 64))])
def test_without_a_crop_nothing_is_shaded(seen: Any) -> None:
    picture = grey(100, 8, 12)
    assert shaded(picture, seen) is picture


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (255, 301)])
@pytest.mark.parametrize("crop", [(32, 32), (32, 63), (63, 64)])
def test_shading_lies_where_the_map_is_0(size: tuple[int, int], crop: tuple[int, int]) -> None:
    resize = (64, 64)
    seen = anomaly_map(np.ones((4, 4), np.float32), size, resize, crop) > 0
    found = shaded(grey(100, *size), (resize, crop))[..., 0]
    np.testing.assert_array_equal(found == 100, seen)


def test_a_crop_that_holds_no_middle_of_a_pixel_still_has_one() -> None:
    assert (shaded(grey(100, 4, 4), ((8192, 8192), (32, 32))) == 100).all(2).sum() == 1


def test_overlay_is_dark_where_nobody_looked() -> None:
    flat = np.zeros((80, 80), np.float32)
    found = overlay(grey(100, 80, 80), flat, SCALE, truth=None, predicted=None, seen=((64, 64), (32, 32)))
    assert (found[0, 0] == 45).all()
    assert (found[40, 40] == 100).all()
