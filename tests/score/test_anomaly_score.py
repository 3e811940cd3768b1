"""Maps against bilinear enlargement, kornia's blur and placement done one after the other, by PyTorch."""

from __future__ import annotations

import checks
import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sapatchcore.data.pixels import crop_box
from sapatchcore.score.anomaly_score import Maps, anomaly_map, axis_operator, part_map
from sapatchcore.score.regions import window

Size = tuple[int, int]


def scores_of(grid: Size, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, grid).astype(np.float32)


@pytest.mark.parametrize(
    ("grid", "size"), [((28, 28), (224, 224)), ((8, 8), (64, 64)), ((8, 12), (64, 96)), ((5, 3), (40, 33))]
)
def test_without_resizing_it_is_interpolation_and_blur(grid: Size, size: Size) -> None:
    """The authors' own steps, where the image has the size that the network sees."""
    scores = scores_of(grid)
    enlarged = F.interpolate(torch.from_numpy(scores)[None, None], size=size, mode="bilinear", align_corners=False)
    blurred = kornia.filters.gaussian_blur2d(enlarged, (33, 33), (4.0, 4.0), border_type="reflect")[0, 0].numpy()
    np.testing.assert_allclose(anomaly_map(scores, size, size, None), blurred, rtol=0, atol=2e-5 * blurred.max())


@pytest.mark.parametrize(
    ("grid", "size", "resize", "crop"),
    [
        ((8, 8), (64, 64), (64, 64), None),
        ((7, 7), (64, 64), (64, 64), (56, 56)),
        ((7, 7), (90, 64), (64, 64), (56, 56)),
        ((8, 8), (50, 120), (64, 64), None),
        ((8, 10), (100, 70), (80, 96), (64, 80)),
        ((6, 6), (64, 64), (65, 64), (48, 49)),
        ((4, 4), (20, 25), (33, 40), (32, 32)),
        ((1, 2), (40, 40), (40, 40), None),
        ((4, 4), (3, 2), (64, 64), (32, 32)),
    ],
)
def test_equals_the_steps_one_by_one(grid: Size, size: Size, resize: Size, crop: Size | None) -> None:
    checks.check_map(grid, size, resize, crop)


@settings(deadline=None, max_examples=15)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.tuples(st.integers(40, 60), st.integers(40, 60)),
    crop=st.none() | st.tuples(st.integers(32, 40), st.integers(32, 40)),
)
def test_equals_the_steps_for_any_sizes(grid: Size, size: Size, resize: Size, crop: Size | None) -> None:
    checks.check_map(grid, size, resize, crop)


def test_zero_outside_the_crop() -> None:
    found = anomaly_map(scores_of((28, 28)) + 1, (256, 256), (256, 256), (224, 224))
    assert (found[16:240, 16:240] > 0.5).all()
    outside = found.copy()
    outside[16:240, 16:240] = 0
    assert not outside.any()


def test_constant_scores_give_a_constant_map() -> None:
    found = anomaly_map(np.full((7, 9), 3, np.float32), (123, 77), (64, 80), None)
    np.testing.assert_allclose(found, 3, rtol=1e-5)


def test_peak_lies_where_the_patch_lies() -> None:
    scores = np.zeros((28, 28), np.float32)
    scores[5, 20] = 1
    found = anomaly_map(scores, (700, 900), (256, 256), (224, 224))
    row, column = np.unravel_index(found.argmax(), found.shape)
    # The patch's middle is (5.5, 20.5)·8 + 16 in 256 pixels.
    assert abs(row - (5.5 * 8 + 16) * 700 / 256) < 3
    assert abs(column - (20.5 * 8 + 16) * 900 / 256) < 3
    assert found.max() < 1, "the blur takes the peak down"


def test_map_never_exceeds_the_scores() -> None:
    scores = scores_of((9, 9))
    found = anomaly_map(scores, (100, 100), (72, 72), None)
    assert found.min() >= scores.min() - 1e-4
    assert found.max() <= scores.max() + 1e-4


@pytest.mark.parametrize(
    ("size", "resize", "crop", "rows", "columns"),
    [
        ((256, 256), (256, 256), (224, 224), (16, 240), (16, 240)),
        ((256, 256), (256, 256), None, (0, 256), (0, 256)),
        ((512, 1024), (256, 256), (224, 224), (32, 480), (64, 960)),
        ((256, 256), (256, 256), (224, 128), (16, 240), (64, 192)),
        ((1, 1), (256, 256), (224, 224), (0, 1), (0, 1)),
    ],
)
def test_window(size: Size, resize: Size, crop: Size | None, rows: Size, columns: Size) -> None:
    found = window(size, resize, crop)
    assert (found[0].start, found[0].stop) == rows
    assert (found[1].start, found[1].stop) == columns


@pytest.mark.parametrize(
    ("size", "resize", "crop"), [((90, 61), (64, 64), (50, 41)), ((33, 500), (256, 300), (224, 32))]
)
def test_window_is_where_the_map_is_not_zero(size: Size, resize: Size, crop: Size) -> None:
    found = anomaly_map(np.ones((4, 5), np.float32), size, resize, crop)
    inside = np.zeros(size, bool)
    inside[window(size, resize, crop)] = True
    assert ((found > 0) == inside).all()


def test_crop_lies_where_the_images_crop_lies() -> None:
    top, left, height, width = crop_box((65, 70), (48, 49))
    found = anomaly_map(np.ones((6, 6), np.float32), (65, 70), (65, 70), (48, 49)) > 0
    assert found[top : top + height, left : left + width].all()
    assert found.sum() == height * width


@pytest.mark.parametrize("crop", [None, (56, 56)])
def test_parts_share_the_map_exactly(crop: Size | None) -> None:
    local, context = scores_of((7, 7), 1), scores_of((7, 7), 2)
    local[:3], context[4:] = 0, 0
    scores = np.sqrt(local**2 + context**2)
    sizes = ((90, 70), (64, 64), crop)
    whole = anomaly_map(scores, *sizes)
    one, other = part_map(scores, local, *sizes), part_map(scores, context, *sizes)
    scale = float(whole.max()) ** 2
    np.testing.assert_allclose(one**2 + other**2, whole**2, rtol=0, atol=1e-6 * scale)
    assert (one <= whole + 1e-6).all()
    assert one.dtype == other.dtype == np.float32


def test_parts_of_a_map_of_zeros_are_zeros() -> None:
    zeros = np.zeros((4, 4), np.float32)
    found = part_map(zeros, zeros, (32, 32), (32, 32), None)
    assert not found.any()


def operator_by_torch(cells: int, resized: int, start: int, cropped: int, size: int) -> torch.Tensor:
    """Each cell alone, one step after the other: PyTorch's enlargement, kornia's blur, straight lines between pixels."""
    alone = torch.eye(cells, dtype=torch.float64)[:, None]  # (cells, 1, cells)
    enlarged = F.interpolate(alone, size=cropped, mode="linear", align_corners=False)  # (cells, 1, cropped)
    radius = min(16, cropped - 1)
    kernel = kornia.filters.get_gaussian_kernel1d(2 * radius + 1, 4.0, dtype=torch.float64)  # (1, taps)
    blurred = F.conv1d(F.pad(enlarged, (radius, radius), mode="reflect"), kernel[:, None])[:, 0].T  # (cropped, cells)
    out = torch.zeros(size, cells, dtype=torch.float64)
    for pixel in range(size):
        centre = (pixel + 0.5) * resized / size - 0.5 - start
        if -0.5 <= centre < cropped - 0.5:
            place = min(max(centre, 0), cropped - 1)
            share = place - int(place)
            out[pixel] = blurred[int(place)] * (1 - share) + blurred[min(int(place) + 1, cropped - 1)] * share
    return out


@pytest.mark.parametrize(
    ("cells", "resized", "start", "cropped", "size"),
    [
        (28, 256, 16, 224, 1024),
        (28, 256, 16, 224, 256),
        (28, 256, 16, 224, 100),
        (28, 224, 0, 224, 224),
        (7, 64, 4, 56, 90),
        (40, 32, 0, 32, 77),  # more cells than pixels
        (3, 64, 20, 17, 64),  # the border reflects all that there is
        (2, 40, 8, 9, 31),
        (5, 33, 16, 2, 60),
        (4, 32, 7, 1, 50),
        (1, 32, 0, 32, 1),
    ],
)
def test_operator_is_each_cell_taken_through_the_steps(
    cells: int, resized: int, start: int, cropped: int, size: int
) -> None:
    found = axis_operator(cells, resized, start, cropped, size)
    assert (found.shape, found.dtype) == ((size, cells), np.float32)
    expected = operator_by_torch(cells, resized, start, cropped, size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)  # float32's rounding of numbers up to 1
    assert ((found == 0).all(1) == (expected == 0).all(1).numpy()).all()


@settings(deadline=None, max_examples=40)
@given(cells=st.integers(1, 9), cropped=st.integers(1, 50), border=st.integers(0, 9), size=st.integers(1, 80))
def test_operator_of_any_sizes(cells: int, cropped: int, border: int, size: int) -> None:
    given = (cells, cropped + 2 * border, border, cropped, size)
    np.testing.assert_allclose(axis_operator(*given), operator_by_torch(*given), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("grid", "size"), [((28, 28), (1025, 97)), ((128, 90), (300, 333)), ((3, 700), (40, 250)), ((1, 1), (5, 600))]
)
def test_tiles_are_the_whole_product_and_each_stays_on_one_thread(
    grid: Size, size: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = scores_of(grid)
    seen = (8 * grid[0], 8 * grid[1])
    down, across = (axis_operator(cells, 8 * cells, 0, 8 * cells, side) for cells, side in zip(grid, size, strict=True))
    products = []
    right = np.matmul

    def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        products.append(a.shape[0] * a.shape[1] * b.shape[1])
        return right(a, b, out=out)

    monkeypatch.setattr(np, "matmul", counted)
    found = anomaly_map(scores, size, seen, None)
    monkeypatch.undo()
    expected = down.astype(np.float64) @ scores @ across.astype(np.float64).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert max(products) <= 1 << 18  # 65,536 · 4, up to where OpenBLAS wakes no other thread
    assert sum(products) == size[0] * grid[1] * (grid[0] + size[1]), "nothing twice"


def test_operator_is_shared_and_read_only() -> None:
    operator = axis_operator(7, 64, 4, 56, 90)
    assert operator is axis_operator(7, 64, 4, 56, 90)
    with pytest.raises(ValueError, match="read-only"):
        operator[0, 0] = 1


def test_maps_are_computed_when_asked_for() -> None:
    asked: list[int] = []

    def compute(i: int) -> np.ndarray:
        asked.append(i)
        return np.full((2, 2), i, np.float32)

    maps = Maps([(2, 2)] * 5, compute)
    assert len(maps) == 5
    assert asked == []
    assert maps[3][0, 0] == 3
    assert maps[-1][0, 0] == 4
    assert maps[np.int64(2)][0, 0] == 2
    assert asked == [3, 4, 2]
    assert [int(one[0, 0]) for one in maps[1:4]] == [1, 2, 3]
    assert [int(one[0, 0]) for one in maps[::-2]] == [4, 2, 0]
    assert [int(one[0, 0]) for one in maps] == [0, 1, 2, 3, 4]
    assert [int(one[0, 0]) for one in reversed(maps)] == [4, 3, 2, 1, 0]
    for wrong in (5, -6):
        with pytest.raises(IndexError):
            maps[wrong]
