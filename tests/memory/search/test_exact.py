"""The nearest patches of the bank against a full matrix of differences in float64."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import checks
import numpy as np
import pytest
import torch
from banks import GROUPS, KINDS, bank_of, groups_of, queries_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sapatchcore import SettingsError
from sapatchcore.memory.search import brute_force, exact
from sapatchcore.memory.search.brute_force import nearest
from sapatchcore.memory.search.exact import ExactIndex


@pytest.mark.parametrize("k", range(1, 10))
def test_nearest_equals_all_differences(k: int) -> None:
    bank = bank_of("random", 200, 12)
    checks.check_nearest(queries_of(bank, "elsewhere"), bank, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["in the bank", "near", "elsewhere", "far away"])
def test_nearest_for_every_kind_of_bank(kind: str, where: str) -> None:
    bank = bank_of(kind, 300)
    checks.check_nearest(queries_of(bank, where), bank, 4)


@pytest.mark.parametrize("block", [1, 3, 50, 199, 200, 201])
@pytest.mark.parametrize("at_a_time", [1, 7, 90])
def test_blocks_do_not_show(block: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brute_force, "BLOCK", block)
    monkeypatch.setattr(brute_force, "QUERIES", at_a_time)
    bank = bank_of("clustered", 200, 6)
    checks.check_nearest(queries_of(bank, "near"), bank, 5)


def test_triangles_by_hand() -> None:
    # Three patches; from (0, 0) they lie 3, 4 and 5 away, from (3, 4) they lie 4, 3 and 0 away.
    bank = torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]])
    distances, indices = nearest(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), bank, 3)
    assert distances.tolist() == [[3.0, 4.0, 5.0], [0.0, 3.0, 4.0]]
    assert indices.tolist() == [[0, 1, 2], [2, 1, 0]]


def test_rows_of_the_bank_have_distance_zero_exactly() -> None:
    bank = bank_of("far from the origin", 500)
    distances, indices = nearest(bank, bank, 2)
    assert (distances[:, 0] == 0).all()
    assert indices[:, 0].tolist() == list(range(500))


@pytest.mark.parametrize(("rows", "k", "most"), [(20, 0, 9), (20, 10, 9), (20, -1, 9), (4, 5, 4)])
def test_wrong_k(rows: int, k: int, most: int) -> None:
    bank = torch.zeros(rows, 2)
    with pytest.raises(SettingsError) as caught:
        nearest(bank, bank, k)
    assert str(caught.value) == f"k must be in 1 to {most} for a memory bank of {rows} patches. Got {k}."


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 40),
    q=st.integers(1, 12),
    d=st.integers(1, 6),
    kind=st.sampled_from(KINDS),
    block=st.sampled_from([1, 4, 4096]),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_nearest_for_any_shape(m: int, q: int, d: int, kind: str, block: int, seed: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brute_force, "BLOCK", block)
        bank = bank_of(kind, m, max(d, 3), seed)
        queries = bank_of("random", q, max(d, 3), seed + 1)
        checks.check_nearest(queries, bank, data.draw(st.integers(1, min(9, m))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["in the bank", "near", "elsewhere", "far away"])
def test_index_equals_all_differences(kind: str, where: str) -> None:
    bank = bank_of(kind)
    checks.check_index(queries_of(bank, where), bank)


def test_index_in_many_dimensions_where_nothing_can_be_left_out() -> None:
    bank = bank_of("random", 600, 384)
    checks.check_index(queries_of(bank, "elsewhere"), bank)
    checks.check_index(queries_of(bank, "in the bank"), bank)


@pytest.mark.parametrize("kind", ["random", "clustered", "far from the origin"])
def test_index_finds_rows_of_the_bank_at_distance_zero(kind: str) -> None:
    bank = bank_of(kind)
    found = ExactIndex(bank).nearest(bank)
    assert (bank[found] - bank).abs().max() == 0


@pytest.mark.parametrize("rows", [1, 2, 64, 255, 256, 257, 320, 321])
def test_index_at_the_sizes_where_its_form_changes(rows: int) -> None:
    bank = bank_of("random", rows, 10)
    checks.check_index(queries_of(bank, "elsewhere"), bank)


@pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 33])
def test_index_with_fewer_dimensions_than_axes(d: int) -> None:
    bank = bank_of("random", 400, d)
    checks.check_index(queries_of(bank, "near"), bank)


@pytest.mark.parametrize("at_a_time", [1, 13, 90])
def test_index_takes_queries_in_parts(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of("clustered", 700, 12)
    queries = queries_of(bank, "near")
    monkeypatch.setattr(brute_force, "QUERIES", at_a_time)
    checks.check_index(queries, bank)


@settings(deadline=None, max_examples=40)
@given(
    m=st.integers(257, 420),
    d=st.integers(3, 24),
    kind=st.sampled_from(KINDS),
    where=st.sampled_from(["in the bank", "near", "elsewhere", "far away"]),
    seed=st.integers(0, 999),
)
def test_index_for_any_bank(m: int, d: int, kind: str, where: str, seed: int) -> None:
    bank = bank_of(kind, m, d, seed)
    checks.check_index(queries_of(bank, where, seed + 1), bank)


@pytest.mark.parametrize(("m", "d", "scale"), [(274, 36, 1e-6), (346, 9, 1e-6), (358, 10, 1e-3)])
def test_rows_that_differ_by_rounding_alone(m: int, d: int, scale: float) -> None:
    """Their axes are of subnormal numbers, for which eigh once did not converge."""
    bank = bank_of("all equal", m, d) * scale
    queries = queries_of(bank, "near")
    checks.check_index(queries, bank)


def test_index_leaves_comparisons_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters far from each other: most blocks are never looked at."""
    bank = bank_of("clustered", 2000, 24)
    index = ExactIndex(bank)
    compared = []
    compare = ExactIndex._compare

    def counted(self: ExactIndex, asked: Any, leaf: int, chosen: torch.Tensor) -> None:
        compared.append(len(chosen) * len(self._leaves[leaf]))
        compare(self, asked, leaf, chosen)

    monkeypatch.setattr(ExactIndex, "_compare", counted)
    queries = queries_of(bank, "near")
    index.nearest(queries)
    assert sum(compared) < 0.5 * len(queries) * len(bank)


@pytest.mark.parametrize(("name", "value"), [("FAN", 1), ("FAN", 3), ("FAN", 1000), ("CENTRES", 2), ("BOXES", 1)])
def test_boxes_do_not_show(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of("clustered", 1500, 24)
    queries = queries_of(bank, "near")
    expected = ExactIndex(bank).nearest(queries)
    monkeypatch.setattr(exact, name, value)
    assert torch.equal(ExactIndex(bank).nearest(queries), expected)


def test_index_is_the_same_every_time() -> None:
    bank = bank_of("random")
    queries = queries_of(bank, "elsewhere")
    assert torch.equal(ExactIndex(bank).nearest(queries), ExactIndex(bank).nearest(queries))


def test_distances_do_not_lose_digits_far_from_the_origin() -> None:
    """|q|² + |b|² − 2q·b alone would give 0 or NaN here."""
    bank = torch.tensor([[1000.0, 1000.0], [1000.0, 1000.5]])
    distances, indices = nearest(torch.tensor([[1000.0, 1000.2]]), bank, 2)
    assert indices.tolist() == [[0, 1]]
    assert math.isclose(float(distances[0, 0]), 0.2, rel_tol=1e-3)


@pytest.mark.parametrize("k", range(1, 10))
def test_nearest_without_a_group_equals_all_differences(k: int) -> None:
    bank = bank_of("random", 200, 12)
    groups = groups_of("at random", bank)
    queries = queries_of(bank, "near")
    checks.check_nearest_excluded(queries, bank, k, torch.arange(len(queries)) % 6, groups)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", GROUPS)
def test_nearest_without_a_group_for_every_kind_of_bank(kind: str, groups: str) -> None:
    bank = bank_of(kind, 300)
    queries = queries_of(bank, "in the bank")
    excluded = groups_of(groups, bank)[:: len(bank) // 90][: len(queries)]  # the group of the very row
    checks.check_nearest_excluded(queries, bank, 4, excluded, groups_of(groups, bank))


@pytest.mark.parametrize("block", [1, 3, 50, 199, 200, 201])
@pytest.mark.parametrize("at_a_time", [1, 7, 90])
def test_blocks_do_not_show_without_a_group(block: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole blocks can be excluded: the groups are runs of the bank."""
    monkeypatch.setattr(brute_force, "BLOCK", block)
    monkeypatch.setattr(brute_force, "QUERIES", at_a_time)
    bank = bank_of("clustered", 200, 6)
    checks.check_nearest_excluded(queries_of(bank, "near"), bank, 5, torch.arange(90) % 4, torch.arange(200) // 50)


def test_triangles_without_a_group_by_hand() -> None:
    # From (0, 0) the rows lie 3, 4 and 5 away; the first query may not see the nearest, the second not the other two.
    bank = torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]])
    groups = torch.tensor([7, 8, 8])
    distances, indices = nearest(torch.zeros(1, 2), bank, 2, torch.tensor([7]), groups)
    assert (distances.tolist(), indices.tolist()) == ([[4.0, 5.0]], [[1, 2]])
    distances, indices = nearest(torch.zeros(2, 2), bank, 1, torch.tensor([7, 8]), groups)
    assert (distances.tolist(), indices.tolist()) == ([[4.0], [3.0]], [[1], [0]])
    assert ExactIndex(bank, groups).nearest(torch.zeros(2, 2), torch.tensor([7, 8])).tolist() == [1, 0]


def test_exactly_as_many_rows_as_are_left() -> None:
    """k = 3 of 100 rows, all but three excluded, in the last of the blocks."""
    bank = bank_of("random", 100, 6)
    groups = torch.zeros(100, dtype=torch.int64)
    groups[[40, 97, 99]] = 1
    _, indices = nearest(queries_of(bank, "near"), bank, 3, torch.zeros(90, dtype=torch.int64), groups)
    assert {tuple(sorted(row)) for row in indices.tolist()} == {(40, 97, 99)}


@pytest.mark.parametrize("groups", GROUPS)
def test_a_group_that_is_nowhere_changes_nothing(groups: str) -> None:
    bank = bank_of("clustered")
    queries, nobody = queries_of(bank, "near"), torch.full((90,), -1)
    one, other = nearest(queries, bank, 5), nearest(queries, bank, 5, nobody, groups_of(groups, bank))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    index = ExactIndex(bank, groups_of(groups, bank))
    assert torch.equal(index.nearest(queries), index.nearest(queries, nobody))
    assert torch.equal(index.nearest(queries), ExactIndex(bank).nearest(queries))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["in the bank", "near", "elsewhere", "far away"])
@pytest.mark.parametrize("groups", GROUPS)
def test_index_without_a_group_equals_all_differences(kind: str, where: str, groups: str) -> None:
    bank = bank_of(kind)
    queries = queries_of(bank, where)
    checks.check_index_excluded(queries, bank, torch.arange(len(queries)) % 5, groups_of(groups, bank))


@pytest.mark.parametrize("rows", [2, 64, 255, 256, 257, 320, 321])
def test_index_without_a_group_where_its_form_changes(rows: int) -> None:
    bank = bank_of("random", rows, 10)
    queries = queries_of(bank, "elsewhere")
    checks.check_index_excluded(queries, bank, torch.arange(len(queries)) % 2, torch.arange(rows) % 2)


@pytest.mark.parametrize("many", [3, 80])  # few queries of a block are picked out, most go in whole
def test_a_whole_block_is_excluded(many: int) -> None:
    """The query's most promising block, and all other blocks of its cluster, hold nothing but what may not count."""
    bank = bank_of("clustered", 2000, 24)
    index = ExactIndex(bank)
    leaf = index._leaves[3]
    groups = torch.arange(2000) % 7
    groups[leaf] = 9
    queries = bank[leaf][torch.arange(many) % len(leaf)] + 0.01
    checks.check_index_excluded(queries, bank, torch.full((many,), 9), groups)
    near = torch.cdist(bank, queries[:1])[:, 0] < 0.5 * torch.cdist(bank, queries[:1]).max()
    groups[near] = 9
    assert 100 < int((groups == 9).sum()) < 1900
    checks.check_index_excluded(queries, bank, torch.full((many,), 9), groups)
    mixed = torch.where(torch.arange(many) % 2 == 0, 9, 2)
    checks.check_index_excluded(queries, bank, mixed, groups)


@pytest.mark.parametrize("at_a_time", [1, 13, 90])
def test_index_takes_queries_and_their_groups_in_parts(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of("clustered", 700, 12)
    monkeypatch.setattr(brute_force, "QUERIES", at_a_time)
    checks.check_index_excluded(
        queries_of(bank, "in the bank"), bank, torch.arange(90) % 5, groups_of("at random", bank)
    )


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(2, 420),
    d=st.integers(3, 12),
    kind=st.sampled_from(KINDS),
    where=st.sampled_from(["in the bank", "near", "elsewhere"]),
    count=st.integers(2, 6),
    block=st.sampled_from([3, 64, 4096]),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_any_groups(
    m: int, d: int, kind: str, where: str, count: int, block: int, seed: int, data: st.DataObject
) -> None:
    """Both searches, for as many neighbours as the largest group leaves."""
    bank = bank_of(kind, m, d, seed)
    rng = np.random.default_rng(seed)
    groups = torch.from_numpy(rng.integers(0, count, m) ** 2)  # unevenly, and some numbers do not occur
    groups[0], groups[1] = 0, 1  # at least two
    queries = queries_of(bank, where, seed + 1)
    excluded = torch.from_numpy(rng.integers(0, count, len(queries)) ** 2)
    left = m - int(groups.bincount().max())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brute_force, "BLOCK", block)
        checks.check_nearest_excluded(queries, bank, data.draw(st.integers(1, min(9, left))), excluded, groups)
    checks.check_index_excluded(queries, bank, excluded, groups)


INDEX = """
import resource, torch
from sapatchcore.memory.search.exact import ExactIndex
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
bank = torch.empty(75_000, 512)
for part in bank.split(1000):
    torch.randn(len(part), 512, out=part)
ExactIndex(bank[:20_000])
before = peak()
index = ExactIndex(bank)
print((peak() - before) * 2**20 / bank.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units")
def test_index_takes_no_more_than_its_copy_of_the_bank(run_python: Callable) -> None:
    """Copied leaf by leaf, it took up to twice that: what was freed between the leaves was not used again."""
    done = run_python(INDEX)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.15
