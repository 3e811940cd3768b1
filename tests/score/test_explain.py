"""Why an image is rejected: shares of the context against three loops, cells against pixels, patches against the bank."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import checks
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from sapatchcore import DataError, Result, SAPatchCore
from sapatchcore.data.images import read_thumbnail
from sapatchcore.data.pixels import prepare
from sapatchcore.embed.patches import to_patches
from sapatchcore.score.explain import Cause, Explanation, cell_box, cells_under, drawn_from
from sapatchcore.score.regions import find_regions, window
from sapatchcore.settings import settings_from


@pytest.mark.parametrize("mode", ["self", "none"])
@pytest.mark.parametrize(("temperature", "weight"), [(1, 1), (0.2, 1), (7.5, 1), (1, 3), (0.5, 0.25)])
def test_shares_equal_three_loops(mode: str, temperature: float, weight: float) -> None:
    """Inner, border and corner cells, of both images."""
    checks.check_drawn_from(mode, temperature, weight)


@pytest.mark.parametrize("mode", ["self", "none"])
def test_shares_of_a_whitened_context_equal_loops(mode: str) -> None:
    checks.check_drawn_from(mode, 0.5, 3, whitened=True)


def shares_of(layer3: torch.Tensor, mode: str, patch: int, reference: float, **options: float) -> np.ndarray:
    """The shares for one channel (h, w), with layer 2 as fine as layer 3."""
    found = to_patches(torch.zeros(1, 1, *layer3.shape), layer3[None, None], mode, *options.values())
    return drawn_from(found, 0, patch, torch.tensor([5.0, reference]), settings_from({"attention": mode, **options}))


def test_shares_by_hand_without_attention() -> None:
    """A ninth of 9 in the corner is the centre's context, 1; the nearest good patch has 0: context² = 1 · 1."""
    layer3 = torch.zeros(3, 3)
    layer3[0, 2] = 9
    np.testing.assert_allclose(shares_of(layer3, "none", 4, 0), [[0, 0, 1], [0, 0, 0], [0, 0, 0]], atol=1e-6)
    # Of the reference 3, each of nine places lacks a third, and the corner has 9/9 more: (1 − 3) · (−3/9) = 2/3 each,
    # and (1 − 3) · (9 − 3)/9 = −4/3: the corner drew the patch back. All: 8 · 2/3 − 4/3 = 4 = (1 − 3)².
    shares = [[2 / 3, 2 / 3, -4 / 3], [2 / 3] * 3, [2 / 3] * 3]
    np.testing.assert_allclose(shares_of(layer3, "none", 4, 3), shares, atol=1e-6)


def test_zeros_around_the_image_count_for_the_place_itself() -> None:
    """In the corner of ones, four ninths are the image: 4/9 − 1 = −5/9. Five places of padding lack (−5/9) · (−1/9) each."""
    away = -5 / 9
    shares = np.zeros((3, 3))
    shares[:2, :2] = away * (1 - 1) / 9
    shares[0, 0] += 5 * away * (0 - 1) / 9
    np.testing.assert_allclose(shares_of(torch.ones(3, 3), "none", 0, 1), shares, atol=1e-6)
    assert shares.sum() == pytest.approx(away**2)


@pytest.mark.parametrize("patch", [0, 5, 11])
def test_shares_by_hand_with_attention(patch: int) -> None:
    """Where all places are alike, each has the same weight: of context² = (2 · 3 − 4)² every place has a twelfth."""
    shares = shares_of(torch.full((4, 3), 3.0), "self", patch, 4.0, temperature=1.0, context_weight=2.0)
    np.testing.assert_allclose(shares, np.full((4, 3), 4 / 12), rtol=1e-5)


def test_a_place_like_the_patch_draws_more_the_sharper_the_attention() -> None:
    """Two halves, 1 and −1; the patch is in the upper. The lower half has e^(−2/t) of the upper's weight."""
    layer3 = torch.cat((torch.ones(3, 4), -torch.ones(3, 4)))
    for temperature in (0.5, 1.0, 4.0):
        lower = np.exp(-2 / temperature)
        # Max pooling: the row below the border is 1, too: 4 rows against 2.
        upper_weight, lower_weight = np.array([1, lower]) / (16 + 8 * lower)
        context = 16 * upper_weight - 8 * lower_weight
        shares = shares_of(layer3, "self", 1, 0, temperature=temperature)
        np.testing.assert_allclose(shares[:4], np.full((4, 4), context * upper_weight), rtol=1e-5)
        np.testing.assert_allclose(shares[4:], np.full((2, 4), -context * lower_weight), rtol=1e-5)


VIEWS: list[tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int] | None]] = [
    ((8, 8), (64, 64), (64, 64), None),
    ((8, 8), (64, 64), (64, 64), (48, 48)),
    ((6, 7), (50, 44), (64, 60), (48, 40)),
    ((7, 5), (100, 31), (72, 80), (56, 40)),
    ((28, 28), (900, 700), (256, 256), (224, 224)),
    ((8, 10), (33, 47), (64, 80), None),
    ((5, 9), (41, 60), (33, 71), (32, 70)),
]


def axis(pixels: int, resized: int, seen: int) -> tuple[Fraction, Fraction]:
    """Where the seen part begins in the image, and how long it is there."""
    start = Fraction(round((resized - seen) / 2) * pixels, resized)
    return start, Fraction(seen * pixels, resized)


@pytest.mark.parametrize(("grid", "size", "resize", "crop"), VIEWS)
def test_boxes_tile_what_the_network_saw(
    grid: tuple[int, int], size: tuple[int, int], resize: tuple[int, int], crop: tuple[int, int] | None
) -> None:
    checks.check_cell_box(grid, size, resize, crop)


def test_boxes_by_hand() -> None:
    """The middle 48 of 64 pixels, six cells of 8: the first begins at 8. In an image twice as high: at 16, 16 high."""
    assert cell_box((0, 0), (6, 6), (64, 64), (64, 64), (48, 48)) == (8, 8, 8, 8)
    assert cell_box((5, 2), (6, 6), (64, 64), (64, 64), (48, 48)) == (48, 24, 8, 8)
    assert cell_box((1, 5), (6, 6), (128, 64), (64, 64), (48, 48)) == (32, 48, 16, 8)


SIDE = st.integers(32, 90)


@settings(deadline=None, max_examples=80)
@given(resize=st.tuples(SIDE, SIDE), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)), data=st.data())
def test_boxes_tile_any_view(resize: tuple[int, int], cut: tuple[float, float], data: st.DataObject) -> None:
    crop = tuple(32 + int(share * (side - 32)) for share, side in zip(cut, resize, strict=True))
    grid = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    size = data.draw(st.tuples(st.integers(60, 150), st.integers(60, 150)))
    for i in (0, 1):  # half a pixel goes either way
        start, length = axis(size[i], resize[i], crop[i])
        assume(all((start + length * k / grid[i]).denominator != 2 for k in range(grid[i] + 1)))
    checks.check_cell_box(grid, size, resize, crop)
    seen = np.zeros(size, bool)
    seen[window(size, resize, crop)] = True
    boxes = [cell_box((i, j), grid, size, resize, crop) for i in range(grid[0]) for j in range(grid[1])]
    assert sum(height * width for _, _, height, width in boxes) == int(seen.sum())
    assert all(seen[top : top + height, left : left + width].all() for top, left, height, width in boxes)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2), (40, 3)])
@pytest.mark.parametrize("crop", [None, (48, 56)])
def test_images_smaller_than_the_grid(size: tuple[int, int], crop: tuple[int, int] | None) -> None:
    """Cells share pixels: each has at least one, none lies outside, and together they are all that was seen."""
    covered = np.zeros(size, bool)
    for row in range(8):
        for column in range(8):
            top, left, height, width = cell_box((row, column), (8, 8), size, (64, 64), crop)
            assert min(height, width) >= 1
            assert min(top, left) >= 0
            assert top + height <= size[0]
            assert left + width <= size[1]
            covered[top : top + height, left : left + width] = True
    assert covered[window(size, (64, 64), crop)].all()


def centres(cells: int, pixels: int, resized: int, seen: int) -> list[Fraction]:
    """The cells' centres, in pixels of the image from its border."""
    start, length = axis(pixels, resized, seen)
    return [start + length * (2 * k + 1) / (2 * cells) for k in range(cells)]


@settings(deadline=None, max_examples=40)
@given(view=st.sampled_from(VIEWS), seed=st.integers(0, 999), share=st.floats(0.05, 0.95), coarse=st.integers(1, 12))
def test_cells_under_equals_looking_at_pixels(view: Any, seed: int, share: float, coarse: int) -> None:
    """Blobs and single pixels: a cell is under a region where the pixel that holds its centre belongs to it."""
    grid, size, resize, crop = view
    seen = crop or resize
    rng = np.random.default_rng(seed)
    spots = rng.random((-(-size[0] // coarse), -(-size[1] // coarse))) < share
    mask = np.kron(spots, np.ones((coarse, coarse)))[: size[0], : size[1]]
    rows, columns = (centres(grid[i], size[i], resize[i], seen[i]) for i in (0, 1))
    regions = find_regions(mask.astype(np.float32), 0.5)
    for region in [regions[i] for i in rng.permutation(len(regions))[:3]]:
        top, left, height, width = region.box
        whole = np.zeros(size, bool)
        whole[top : top + height, left : left + width] = region.mask
        found = cells_under(region, size, grid, resize, crop)
        assert found.shape == grid
        for i, y in enumerate(rows):
            for j, x in enumerate(columns):
                # A centre on the line between two pixels is in either.
                pixels = {(int(y - a), int(x - b)) for a in _line(y) for b in _line(x)}
                assert found[i, j] in {bool(whole[pixel]) for pixel in pixels}


def _line(value: Fraction) -> tuple[Fraction, ...]:
    return (Fraction(0), Fraction(1, 2)) if value.denominator == 1 else (Fraction(0),)


def test_cells_under_by_hand() -> None:
    """Cells of 8 pixels, centres at 4, 12, …: rows 4 to 12 and columns 13 to 27 hold two rows and the columns 2, at 20."""
    values = np.zeros((64, 64), np.float32)
    values[4:13, 13:28] = 1
    (region,) = find_regions(values, 0)
    found = cells_under(region, (64, 64), (8, 8), (64, 64), None)
    assert np.argwhere(found).tolist() == [[0, 2], [1, 2]]
    values[:] = 0
    values[5:12, 13:20] = 1  # between the centres
    (region,) = find_regions(values, 0)
    assert not cells_under(region, (64, 64), (8, 8), (64, 64), None).any()


DAMAGE = (slice(8, 24), slice(36, 52))


@pytest.fixture(scope="module")
def shown(good: np.ndarray, images: Callable) -> list[np.ndarray]:
    """Good ones, one with a red square, one with two, another size."""
    one, two = good[0].copy(), good[1].copy()
    one[DAMAGE] = two[DAMAGE] = (255, 0, 0)
    two[40:60, 4:20] = (0, 255, 0)
    return [good[2], one, images(1, seed=9)[0], two, np.asarray(Image.fromarray(one).resize((90, 50))), good[5]]


@pytest.fixture(scope="module")
def cropped(images: Callable, small: dict[str, Any]) -> SAPatchCore:
    """Learned from images of several sizes; the network sees the middle of them."""
    sizes = ((64, 64), (50, 90), (130, 70), (64, 80)) * 3  # fewer would say little of a covariance
    options = {
        **small,
        "resize": (72, 80),
        "crop": (64, 48),
        "coreset_ratio": 0.1,
        "context_weight": 2,
        "metric": "whitened",
    }
    return SAPatchCore(**options).fit([images(1, size, seed)[0] for seed, size in enumerate(sizes)])


@pytest.fixture(scope="module", params=["whole images", "cropped", "PatchCore"])
def detector(
    request: pytest.FixtureRequest,
    fitted: SAPatchCore,
    cropped: SAPatchCore,
    good: np.ndarray,
    small: dict[str, Any],
) -> SAPatchCore:
    if request.param == "PatchCore":
        return SAPatchCore(**small, coreset_ratio=0.1, attention="none").fit(good)
    return fitted if request.param == "whole images" else cropped


def with_causes(found: Iterable[Explanation], result: Result) -> Iterable[tuple[int, Cause]]:
    for i, (one, path) in enumerate(zip(found, result.paths, strict=True)):
        assert one.path == path
        assert 1 <= len(one.causes) <= 3
        yield from ((i, cause) for cause in one.causes)


def test_causes_are_what_predict_found(detector: SAPatchCore, shown: list[np.ndarray]) -> None:
    """The patch of the region with the largest score, all its numbers, and its row of the bank."""
    rate = 0.5  # every image with a square in it has a region
    result, found = detector.predict(shown), detector.explain(shown, false_reject=rate)
    seen = detector.settings.input_size
    shape = {"resize": detector.settings.resize, "crop": detector.settings.crop}
    assert [one.verdict.rejected for one in found] == [one.rejected for one in result.verdicts(rate)]
    regions_met = 0
    for i, cause in with_causes(found, result):
        scores, size = result.patch_scores[i], result.sizes[i]
        tolerance = 1e-4 * float(scores.max())
        under = np.ones(scores.shape, bool)
        if cause.region is not None:
            regions_met += 1
            assert cause.region.peak > result.pixel_threshold(rate)
            whole = np.zeros(size, bool)
            top, left, height, width = cause.region.box
            whole[top : top + height, left : left + width] = cause.region.mask
            rows, columns = (
                [int(place) for place in centres(scores.shape[k], size[k], shape["resize"][k], seen[k])] for k in (0, 1)
            )
            inside = whole[np.ix_(rows, columns)]
            under = inside if inside.any() else under
        assert cause.score == pytest.approx(scores[under].max(), abs=tolerance)
        assert under[cause.cell]
        assert cause.score == pytest.approx(scores[cause.cell], abs=tolerance)
        assert cause.local == pytest.approx(result.local_patches[i][cause.cell], abs=tolerance)
        assert cause.context == pytest.approx(result.context_patches[i][cause.cell], abs=tolerance)
        assert cause.box == cell_box(cause.cell, scores.shape, size, **shape)
        row = int(result.neighbours[i][cause.cell])
        names, owners, cells = detector.provenance
        assert cause.good.image == names[owners[row]]
        at = divmod(int(cells[row]), scores.shape[1])
        own_size = detector._bank.training[owners[row]].size  # type: ignore[union-attr]
        assert cause.good.box == cell_box(at, scores.shape, own_size, **shape)
        expected = (at[0] / scores.shape[0], at[1] / scores.shape[1], 1 / scores.shape[0], 1 / scores.shape[1])
        assert cause.good.thumbnail_box == pytest.approx(expected)
    assert regions_met >= 3


def test_shares_add_up_to_the_patch_s_context(detector: SAPatchCore, shown: list[np.ndarray]) -> None:
    for one in detector.explain(shown):
        for cause in one.causes:
            assert cause.drawn_from.shape == (
                detector.settings.input_size[0] // 16,
                detector.settings.input_size[1] // 16,
            )
            assert cause.drawn_from.sum() == pytest.approx(cause.context**2, rel=1e-3, abs=1e-5)


def test_the_thumbnail_is_the_good_patch_s_image(
    cropped: SAPatchCore, fitted: SAPatchCore, good: np.ndarray, images: Callable, shown: list[np.ndarray]
) -> None:
    sizes = ((64, 64), (50, 90), (130, 70), (64, 80)) * 3  # fewer would say little of a covariance
    learned = {cropped: [images(1, size, seed)[0] for seed, size in enumerate(sizes)], fitted: list(good)}
    for detector, training in learned.items():
        seen = [prepare(image, detector.settings.resize, detector.settings.crop) for image in training]
        for one in detector.explain(shown):
            for cause in one.causes:
                with Image.open(io.BytesIO(cause.good.thumbnail)) as file:
                    assert file.format == "JPEG"
                picture = read_thumbnail(cause.good.thumbnail).astype(int)
                assert picture.shape == seen[0].shape
                differences = [np.abs(picture - pixels).mean() for pixels in seen]
                assert f"image {np.argmin(differences)}" == cause.good.image
                assert sorted(differences)[0] < 0.5 * sorted(differences)[1]


def test_regions_come_in_the_order_of_their_peaks(fitted: SAPatchCore, shown: list[np.ndarray]) -> None:
    result = fitted.predict(shown)
    for i, one in enumerate(fitted.explain(shown, false_reject=0.5, most=2)):
        regions = result.regions(i, 0.5)
        if not regions:
            assert [cause.region for cause in one.causes] == [None]
            continue
        assert len(one.causes) == min(2, len(regions))
        for cause, region in zip(one.causes, regions, strict=False):
            assert cause.region is not None
            assert cause.region.peak == pytest.approx(region.peak, rel=1e-4)
    damaged = fitted.explain(shown[1])[0].causes[0]
    assert damaged.region is not None
    row, column = damaged.region.peak_at
    assert DAMAGE[0].start - 4 <= row < DAMAGE[0].stop + 4
    assert DAMAGE[1].start - 4 <= column < DAMAGE[1].stop + 4


def test_many_images_are_explained_as_each_by_itself(fitted: SAPatchCore, shown: list[np.ndarray]) -> None:
    assert len(shown) > fitted.settings.batch_size
    together = fitted.explain(shown, false_reject=0.2)
    for i, (one, image) in enumerate(zip(together, shown, strict=True)):
        (alone,) = fitted.explain(image, false_reject=0.2)
        assert (one.path, alone.path) == (f"image {i}", "image 0")
        assert one.verdict.kind == alone.verdict.kind
        assert one.verdict.score == pytest.approx(alone.verdict.score, rel=1e-4)
        assert len(one.causes) == len(alone.causes)
        for cause, other in zip(one.causes, alone.causes, strict=True):
            assert (cause.cell, cause.box, cause.good) == (other.cell, other.box, other.good)
            assert cause.score == pytest.approx(other.score, rel=1e-4)
            assert (cause.region is None) == (other.region is None)
            if cause.region is not None and other.region is not None:
                assert cause.region.peak_at == other.region.peak_at
            np.testing.assert_allclose(cause.drawn_from, other.drawn_from, rtol=0, atol=1e-3 * cause.context**2)


def test_an_image_rejected_without_a_pixel_above(
    good: np.ndarray, small: dict[str, Any], shown: list[np.ndarray]
) -> None:
    """A single bad cell is blurred away in the map: the image's worst patch is the cause."""
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good)
    calibration = detector.calibration
    detector._calibration = dataclasses.replace(calibration, peaks=calibration.peaks + 1000)
    result = detector.predict(shown)
    for i, one in enumerate(detector.explain(shown)):
        (cause,) = one.causes
        assert cause.region is None
        assert cause.cell == np.unravel_index(result.patch_scores[i].argmax(), (8, 8))
        assert cause.score == pytest.approx(result.scores[i], rel=1e-4)
    assert any(one.verdict.rejected for one in detector.explain(shown))


def test_a_region_between_the_cells_centres(good: np.ndarray, small: dict[str, Any], shown: list[np.ndarray]) -> None:
    """A threshold just below the peak leaves a few pixels, which hold no centre: the worst patch stands for them."""
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good)
    result = detector.predict(shown[1])
    calibration = detector.calibration
    peaks = np.full_like(calibration.peaks, float(result.maps[0].max()) * (1 - 1e-3))
    detector._calibration = dataclasses.replace(calibration, peaks=peaks)
    (one,) = detector.explain(shown[1])
    (cause,) = one.causes
    assert cause.region is not None
    assert not cells_under(cause.region, (64, 64), (8, 8), (64, 64), None).any(), "make another image"
    assert cause.cell == np.unravel_index(result.patch_scores[0].argmax(), (8, 8))


def test_every_kind_of_input(image_folder: Path, fitted: SAPatchCore, good: np.ndarray) -> None:
    assert [one.path for one in fitted.explain(image_folder)] == [str(path) for path in sorted(image_folder.iterdir())]
    assert [one.path for one in fitted.explain(iter(list(good[:6])))] == [f"image {i}" for i in range(6)]


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 64, 64, 3), np.uint8)])
def test_no_images(images: Any, fitted: SAPatchCore) -> None:
    with pytest.raises(DataError, match=r"^No image to explain was given\. Give at least one\.$"):
        fitted.explain(images)
