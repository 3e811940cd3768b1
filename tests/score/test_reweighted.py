"""The image score and Roth et al.'s weight, worked by hand and at the ends of the number range."""

from __future__ import annotations

import math

import checks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapatchcore.score.anomaly_score import largest
from sapatchcore.score.reweighted import neighbourhood_weight


def test_by_hand() -> None:
    checks.check_image_score()


def test_weight_is_one_minus_a_share_of_softmax() -> None:
    # Two patches equally far: each has half of the softmax. Four: a quarter.
    assert neighbourhood_weight(torch.tensor([2.0]), torch.full((1, 2), 2.0)).item() == pytest.approx(0.5)
    assert neighbourhood_weight(torch.tensor([2.0]), torch.full((1, 4), 2.0)).item() == pytest.approx(0.75)
    # The match alone: nothing else is near, and the weight vanishes, as the formula says.
    assert neighbourhood_weight(torch.tensor([2.0]), torch.tensor([[2.0]])).item() == 0


@pytest.mark.parametrize("distance", [0.0, 1.0, 88.0, 1000.0, 1e6])
def test_weight_is_stable_for_large_distances(distance: float) -> None:
    """exp(1000) overflows even in float64; only differences matter."""
    around = torch.tensor([[distance, distance + 1, distance + 2]])
    found = neighbourhood_weight(torch.tensor([distance]), around).item()
    assert found == pytest.approx(1 - 1 / (1 + math.e + math.e**2), abs=1e-6)


def test_weight_of_neighbours_far_beyond() -> None:
    assert neighbourhood_weight(torch.tensor([1.0]), torch.tensor([[1.0, 500.0, 900.0]])).item() == 1.0


@settings(deadline=None, max_examples=60)
@given(
    distances=st.lists(st.floats(0, 50, width=32), min_size=1, max_size=9),
    others=st.lists(st.floats(0, 50, width=32), min_size=1, max_size=4),
)
def test_weight_equals_the_formula(distances: list[float], others: list[float]) -> None:
    nearest = min(distances)
    found = neighbourhood_weight(torch.tensor([nearest, *others]), torch.tensor([distances] * (1 + len(others))))
    assert ((found >= 0) & (found <= 1)).all()
    expected = 1 - math.exp(nearest) / sum(math.exp(distance) for distance in distances)
    assert found[0].item() == pytest.approx(expected, abs=1e-5)


def test_largest_takes_the_first_of_equals() -> None:
    scores, at = largest(torch.tensor([[0.0, 0.0, 0.0], [1.0, 5.0, 5.0], [7.0, 1.0, 7.0]]))
    assert scores.tolist() == [0.0, 5.0, 7.0]
    assert at.tolist() == [0, 1, 0]


def test_largest_equals_the_maximum() -> None:
    x = torch.from_numpy(np.random.default_rng(0).random((20, 64), dtype=np.float32))
    scores, at = largest(x)
    assert torch.equal(scores, x.amax(1))
    assert torch.equal(at, x.argmax(1))


def test_largest_of_numbers_that_are_none_is_none() -> None:
    """A NaN that gave way to the other patches would pass for a good image."""
    assert math.isnan(largest(torch.tensor([[1.0, math.nan, 3.0]]))[0].item())
