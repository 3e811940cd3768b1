"""Regions of a map above a threshold: maps that one draws by hand, any map against flooding, any mask against SciPy."""

from __future__ import annotations

from itertools import cycle

import checks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from sapatchcore.score.regions import find_regions, label_regions, whole_mask

# Two pixels that touch at a corner on the left, two on the right, and one alone below.
DRAWN = np.array(
    [
        [0, 2, 0, 0, 0],
        [2, 0, 0, 0, 9],
        [0, 0, 0, 5, 0],
        [0, 0, 0, 0, 0],
        [3, 0, 0, 0, 0],
    ],
    np.float32,
)


def test_by_hand() -> None:
    right, below, left = find_regions(DRAWN, 1)
    assert (right.box, right.area, right.peak, right.peak_at) == ((1, 3, 2, 2), 2, 9, (1, 4))
    assert right.mask.tolist() == [[False, True], [True, False]]
    assert (below.box, below.area, below.peak, below.peak_at) == ((4, 0, 1, 1), 1, 3, (4, 0))
    assert below.mask.tolist() == [[True]]
    assert (left.box, left.area, left.peak, left.peak_at) == ((0, 0, 2, 2), 2, 2, (0, 1)), "the first of equal peaks"
    checks.check_regions(DRAWN, 1)


def test_plain_numbers() -> None:
    """What goes on to JSON and to people: no NumPy scalars."""
    region = find_regions(DRAWN, 4)[0]
    numbers = (*region.box, region.area, *region.peak_at)
    assert {type(number) for number in numbers} == {int}
    assert type(region.peak) is float


@pytest.mark.parametrize(("threshold", "areas"), [(9, []), (8.99, [1]), (5, [1]), (4.99, [2]), (3, [2]), (2, [2, 1])])
def test_above_does_not_mean_from_which_on(threshold: float, areas: list[int]) -> None:
    assert [region.area for region in find_regions(DRAWN, threshold)] == areas


def test_a_peak_as_threshold_is_not_above_itself() -> None:
    """0.1 is a little more in float32 than in float64; a threshold that came from a map has the map's own value."""
    values = np.full((3, 3), 0.1, np.float32)
    assert find_regions(values, float(values.max())) == []
    assert len(find_regions(values, float(np.nextafter(values.max(), np.float32(0))))) == 1


def test_nothing_and_everything() -> None:
    assert find_regions(DRAWN, 100) == []
    assert find_regions(np.zeros((4, 6), np.float32), 0) == []
    assert not whole_mask([], (4, 6)).any()
    assert whole_mask([], (4, 6)).shape == (4, 6)
    everything = find_regions(DRAWN, -1)
    assert len(everything) == 1
    assert (everything[0].box, everything[0].area, everything[0].peak_at) == ((0, 0, 5, 5), 25, (1, 4))
    assert everything[0].mask.all()


def test_a_gap_of_one_pixel_separates() -> None:
    values = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]], np.float32)
    assert [region.peak_at for region in find_regions(values, 0)] == [(0, 0), (0, 2), (2, 0), (2, 2)]
    values[1, 1] = 1
    assert [region.area for region in find_regions(values, 0)] == [5]


def test_a_region_inside_the_box_of_another() -> None:
    """Boxes overlap, masks do not; and the higher inner peak is not the ring's."""
    values = np.ones((5, 5), np.float32)
    values[1:4, 1:4] = 0
    values[2, 2] = 7
    inner, ring = find_regions(values, 0.5)
    assert (inner.area, inner.peak, inner.box) == (1, 7, (2, 2, 1, 1))
    assert (ring.area, ring.peak, ring.box) == (16, 1, (0, 0, 5, 5))
    assert not ring.mask[2, 2]
    np.testing.assert_array_equal(whole_mask([ring], (5, 5)), (values > 0.5) & (values < 2))
    np.testing.assert_array_equal(whole_mask([ring, inner], (5, 5)), values > 0.5)


def test_labels_count_from_one() -> None:
    labels, count = label_regions(DRAWN > 1)
    assert count == 3
    assert labels.dtype == np.int32
    assert labels.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 2], [0, 0, 0, 2, 0], [0, 0, 0, 0, 0], [3, 0, 0, 0, 0]]
    labels, count = label_regions(np.zeros((2, 3), bool))
    assert (labels.any(), count) == (False, 0)


SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)


@settings(deadline=None, max_examples=150)
@given(
    values=arrays.arrays(np.float32, SHAPES, elements=st.integers(0, 4)), limit=st.sampled_from([-1, 0, 1, 2.5, 3, 4])
)
def test_equals_flooding(values: np.ndarray, limit: float) -> None:
    """Few different values: peaks tie, and the limit is often a value itself."""
    checks.check_regions(values, limit)


@settings(deadline=None, max_examples=60)
@given(mask=arrays.arrays(np.bool_, SHAPES))
def test_labels_equal_flooding(mask: np.ndarray) -> None:
    labels, count = label_regions(mask)
    regions = checks.flood(mask)
    assert count == len(regions)
    assert sorted(np.unique(labels[mask]).tolist()) == list(range(1, count + 1))
    assert not labels[~mask].any()
    for region in regions:
        assert len({int(labels[place]) for place in region}) == 1


def spiral(side: int) -> np.ndarray:
    """(side, side) bool: one line, a pixel wide, from the corner to the middle; a pixel lies between its turns."""
    mask = np.zeros((side, side), bool)
    row = column = 0
    mask[row, column] = True
    lengths = [side - 1, *(length for length in range(side - 1, 0, -2) for _ in range(2))]
    for length, (down, right) in zip(lengths, cycle(((0, 1), (1, 0), (0, -1), (-1, 0))), strict=False):
        for _ in range(length):
            row, column = row + down, column + right
            mask[row, column] = True
    return mask


def comb(teeth: int, length: int, *, below: bool) -> np.ndarray:
    """(length + 1, 2 · teeth) bool: teeth that meet in a single row, below or above."""
    mask = np.zeros((length + 1, 2 * teeth), bool)
    mask[:, ::2] = True
    mask[-1 if below else 0] = True
    return mask


def stairs(side: int) -> np.ndarray:
    """(side, side) bool: diagonals of both directions, that meet at corners only."""
    rows, columns = np.indices((side, side))
    return ((rows + columns) % 7 == 0) | ((rows - columns) % 11 == 0)


def equals_scipy(mask: np.ndarray) -> int:
    """The labels are SciPy's to the number: regions count in reading order."""
    labels, count = label_regions(mask)
    expected, many = ndimage.label(mask, np.ones((3, 3)))
    assert count == many
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)
    boxes = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(expected)]
    found = [(top, left, top + h, left + w) for top, left, h, w in (one.box for one in find_regions(1.0 * mask, 0.5))]
    assert sorted(found) == sorted(boxes)
    return count


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (np.zeros((6, 9), bool), 0),
        (np.ones((6, 9), bool), 1),
        (np.ones((1, 1), bool), 1),
        (np.array([[1, 1, 0, 1, 0, 0, 1]], bool), 3),
        (np.array([[1, 1, 0, 1, 0, 0, 1]], bool).T, 3),
        (np.array([[0, 0, 1], [1, 0, 0]], bool), 2),  # the end of a row does not touch the beginning of the next
        (np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], bool), 1),
        (np.indices((40, 40)).sum(0) % 2 == 0, 1),  # a checkerboard holds together at its corners
        (np.indices((40, 41)).prod(0) % 2 == 1, 400),
        (spiral(33), 1),
        (~spiral(33), 1),
        (spiral(33)[::-1, ::-1], 1),
        (comb(50, 30, below=True), 1),
        (comb(50, 30, below=False), 1),
        (np.kron(np.eye(9, dtype=bool)[::-1], np.ones((4, 5), bool)), 1),
        (stairs(60), 1),
    ],
)
def test_drawn_masks(mask: np.ndarray, count: int) -> None:
    assert equals_scipy(mask) == count


@settings(deadline=None, max_examples=150)
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_any_mask(shape: tuple[int, int], share: float, seed: int) -> None:
    """Up to the densities where regions wind through each other."""
    equals_scipy(np.random.default_rng(seed).random(shape) < share)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_a_mask_without_pixels(shape: tuple[int, int]) -> None:
    labels, count = label_regions(np.zeros(shape, bool))
    assert (labels.shape, count) == (shape, 0)


def test_a_view_of_a_mask() -> None:
    mask = np.random.default_rng(0).random((60, 80)) < 0.4
    for view in (mask[::2, ::3], mask.T, mask[::-1], np.asfortranarray(mask)):
        equals_scipy(view)
