"""The coreset chosen in rounds, from shares that never meet, against the plain loop over all patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle import k_center, radius

from sapatchcore.memory.distributed import Choice, Frontier

KINDS = ("isotropic", "clustered", "far from the origin", "duplicates", "one dimension")


def made(kind: str, n: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 8))
    if kind == "clustered":
        x = x * 0.05 + rng.standard_normal((6, 8))[rng.integers(6, size=n)] * 4
    elif kind == "far from the origin":
        x += 100
    elif kind == "duplicates":
        x = x[rng.integers(n // 4, size=n)]
    elif kind == "one dimension":
        x = x[:, :1]
    return torch.from_numpy(x.astype(np.float32))


def in_rounds(
    x: torch.Tensor, count: int, shares: int, shown: int, first: int, among: torch.Tensor | None = None
) -> tuple[list[int], float, int]:
    """Rows of ``x`` in the order of choice, the covering radius, and the number of rounds. among: (n,) bool, to choose from."""
    frontiers = [
        Frontier(x[share::shares].contiguous(), share, None if among is None else among[share::shares].nonzero()[:, 0])
        for share in range(shares)
    ]
    choice = Choice(count)
    centres = choice.begin(first % shares, first // shares, x[first])
    rounds = 1
    while True:
        for frontier in frontiers:
            frontier.meet(centres)
        if choice.chosen == count:
            break
        centres = choice.among([frontier.candidates(shown) for frontier in frontiers])
        rounds += 1
    found = choice.all()
    torch.testing.assert_close(found.projected, x[found.rows * shares + found.shares])
    return (found.rows * shares + found.shares).tolist(), max(one.radius() for one in frontiers), rounds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shares", "shown"), [(1, 8), (2, 1), (3, 16), (7, 64), (16, 1000)])
def test_the_choice_is_that_of_the_plain_loop(kind: str, shares: int, shown: int) -> None:
    x, count, first = made(kind, 700, 3), 60, 123
    rows, covered, _ = in_rounds(x, count, shares, shown, first)
    assert rows[0] == first
    assert len(set(rows)) == count
    exact = x.double().numpy()
    plain = k_center(exact, count, [first])
    if kind != "duplicates":  # among these any is as far as its twin
        assert rows == plain
    assert covered == pytest.approx(radius(exact, rows), rel=1e-4, abs=1e-3)
    assert radius(exact, rows) == pytest.approx(radius(exact, plain), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_some_patches_alone_are_chosen_as_if_there_were_no_others(kind: str) -> None:
    """Also where a share has none of them, and where all of them are chosen."""
    x, among = made(kind, 400, 8), torch.arange(400) % 4 != 1
    among[3::4] = torch.arange(100) % 3 == 0
    left = among.nonzero()[:, 0]
    for count in (50, len(left)):
        rows, covered, _ = in_rounds(x, count, 4, 16, 0, among)
        assert set(rows) <= set(left.tolist())
        exact = x[left].double().numpy()
        plain = k_center(exact, count, [0])
        if kind != "duplicates":
            assert rows[:50] == left[plain].tolist()[:50]
        assert covered == pytest.approx(radius(exact, plain), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_all_patches_may_be_chosen(kind: str) -> None:
    x = made(kind, 90, 4)
    rows, covered, _ = in_rounds(x, 90, 4, 7, 0)
    assert sorted(rows) == list(range(90))
    assert covered == 0


def test_rounds_are_few() -> None:
    """A round decides many centres: otherwise it would be the plain loop over a network."""
    x = made("clustered", 20_000, 5)
    rows, _, rounds = in_rounds(x, 400, 4, 512, 7)
    assert len(rows) == 400
    assert rounds < 40


def test_a_share_that_is_made_again_meets_all_rounds() -> None:
    x = made("isotropic", 400, 6)
    one, another = (Frontier(x[::2].contiguous(), 0) for _ in range(2))
    choice = Choice(30)
    rounds: list[Any] = [choice.begin(1, 5, x[11])]
    other = Frontier(x[1::2].contiguous(), 1)
    while choice.chosen < 30:
        one.meet(rounds[-1])
        other.meet(rounds[-1])
        rounds.append(choice.among([one.candidates(5), other.candidates(5)]))
    one.meet(rounds[-1])
    for centres in rounds:
        another.meet(centres)
    assert another.met == one.met == len(rounds)
    assert torch.equal(one.candidates(20).squared, another.candidates(20).squared)


def test_a_share_smaller_than_what_it_may_show() -> None:
    frontier = Frontier(torch.zeros(3, 2), 0)
    shown = frontier.candidates(10)
    assert shown.rows.tolist() == [0, 1, 2]
    assert shown.bound == -float("inf")
