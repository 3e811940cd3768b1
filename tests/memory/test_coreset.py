"""The random projection, faithful to distances; greedy k-center selection against the plain loop, for every input."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import checks
import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sapatchcore import SettingsError
from sapatchcore.embed.patches import Patches, to_patches
from sapatchcore.memory import coreset
from sapatchcore.memory.coreset import Projection, covering_radius, greedy_coreset

CPU = torch.device("cpu")


def points(n: int, d: int, kind: str = "normal", seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    if kind == "clustered":
        x = rng.standard_normal((7, d))[rng.integers(0, 7, n)] * 5 + x * 0.1
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 4), n)]
    elif kind == "far from the origin":
        x = x + 50
    elif kind == "a line":
        x = np.outer(rng.random(n), np.ones(d))
    elif kind == "equal":
        x = np.ones((n, d)) * 3
    return torch.from_numpy(x.astype(np.float32))


KINDS = ["normal", "clustered", "duplicates", "far from the origin", "a line", "equal"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d", "count"), [(300, 8, 30), (1200, 32, 60), (257, 3, 257)])
def test_equals_the_plain_loop(kind: str, n: int, d: int, count: int) -> None:
    checks.check_coreset(points(n, d, kind), count, seed=5, same_radius=kind != "duplicates")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "rows"), [(30, 200), (90, 90), (1, 3)])
def test_some_rows_alone_are_chosen_as_if_there_were_no_others(kind: str, count: int, rows: int) -> None:
    x = points(900, 8, kind)
    among = torch.from_numpy(np.sort(np.random.default_rng(7).choice(900, rows, replace=False)))
    found, alone = coreset.choose(x, count, seed=5, among=among), coreset.choose(x[among], count, seed=5)
    assert set(found.rows.tolist()) <= set(among.tolist())
    if kind not in ("duplicates", "equal") and count < rows:  # near-ties, as between twins and at the end, may swap
        assert found.rows.tolist() == among[alone.rows].tolist()
    assert found.radius == pytest.approx(alone.radius, rel=1e-4, abs=1e-3)
    with pytest.raises(SettingsError, match=f"in 1 to {rows}, the number of patches. Got {rows + 1}"):
        coreset.choose(x, rows + 1, seed=5, among=among)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("begin", "count"), [(1, 60), (40, 60), (60, 60), (59, 800)])
def test_goes_on_from_rows_that_are_chosen_already(kind: str, begin: int, count: int) -> None:
    """As the plain loop does, among some rows alone."""
    x, rng = points(1000, 8, kind), np.random.default_rng(7)
    among = np.sort(rng.choice(1000, 800, replace=False))
    kept = rng.choice(800, begin, replace=False)
    rows = torch.from_numpy(among[kept])
    squared = coreset.squared_to_groups(x, rows, torch.zeros(begin, dtype=torch.int64), 1)[0]
    begun = coreset.Begun(rows, squared)
    found = coreset.choose(x, count, seed=5, among=torch.from_numpy(among), begun=begun)
    assert found.rows[:begin].tolist() == rows.tolist()
    assert len(set(found.rows.tolist())) == count
    assert set(found.rows.tolist()) <= set(among.tolist())
    plain = among[oracle.k_center(x.double().numpy()[among], count, kept.tolist())]
    if kind in ("normal", "clustered", "far from the origin") and count < 800:
        assert found.rows.tolist() == plain.tolist()
    covered = x.double().numpy()[among]
    expected, own = (cdist(covered, x.double().numpy()[one]).min(1).max() for one in (plain, found.rows))
    assert found.radius == pytest.approx(own, rel=1e-4, abs=2e-2)
    if kind != "duplicates":
        assert own == pytest.approx(expected, rel=1e-4, abs=2e-2)


@pytest.mark.parametrize("n", [1, 511, 1300])
def test_squared_distances_to_the_rows_of_each_group(n: int) -> None:
    x, rows = points(1300, 8, "normal")[:n], torch.arange(0, n, 3)
    group = torch.from_numpy(np.random.default_rng(1).choice([0, 1, 3], len(rows)))
    found = coreset.squared_to_groups(x, rows, group, 4)
    for number in range(4):
        own = x[rows[group == number]].double().numpy()
        expected = cdist(x.double().numpy(), own).min(1) ** 2 if len(own) else np.full(n, np.inf)
        np.testing.assert_allclose(found[number].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("block", [1, 2, 7, 299, 300, 301])
def test_blocks_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "BLOCK", block)
    checks.check_coreset(points(300, 6, "clustered"), 80, seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("anchors", [1, 2, 10])
def test_parts_of_parts_do_not_show(kind: str, anchors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are parted by few anchors first, also where most or all are alike: every row is in one block."""
    monkeypatch.setattr(coreset, "BLOCK", 5)
    monkeypatch.setattr(coreset, "ANCHORS", anchors)
    x = points(300, 6, kind)
    x[:200] = x[0] if anchors == 10 else x[:200]
    blocks = coreset.blocks_of(x, x.mean(0), np.random.default_rng(3))
    assert sorted(torch.cat([block.rows for block in blocks]).tolist()) == list(range(300))
    assert max(len(block.rows) for block in blocks) <= 5
    for block in blocks:
        away = (x[block.rows] - x.mean(0) - block.middle).norm(dim=1).max()
        assert block.reach == pytest.approx(float(away), abs=1e-5)
    checks.check_coreset(x, 80, seed=1, same_radius=False)


def test_work_on_blocks_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row meets more anchors than twice the root of the blocks."""
    monkeypatch.setattr(coreset, "BLOCK", 4)
    monkeypatch.setattr(coreset, "ANCHORS", 16)
    met: list[int] = []
    close = coreset._close

    def counted(x: torch.Tensor, mean: torch.Tensor, random: Any, rows: torch.Tensor) -> Any:
        blocks = -(-len(rows) // 4)
        met.append(len(rows) * (blocks if blocks <= 16 else math.isqrt(blocks)))
        yield from close(x, mean, random, rows)

    monkeypatch.setattr(coreset, "_close", counted)
    coreset.blocks_of(points(4000, 3), torch.zeros(3), np.random.default_rng(0))
    assert len(met) > 1
    assert sum(met) < 4000 * 3 * math.isqrt(1000)


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 5),
    share=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    block=st.sampled_from([1, 5, 16, 512]),
    seed=st.integers(0, 2**63 - 1),
)
def test_holds_for_any_points(n: int, d: int, share: float, kind: str, block: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "BLOCK", block)
        x = points(n, d, kind, seed=seed % 1000)
        checks.check_coreset(x, max(1, round(share * n)), seed=seed, same_radius=False)


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=30), data=st.data())
def test_holds_for_whole_numbers_with_ties(values: list[int], data: st.DataObject) -> None:
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    checks.check_coreset(x, data.draw(st.integers(1, len(values))), seed=0, same_radius=False)


def test_by_hand() -> None:
    # Points 0, 1, 6, 10 on a line. Whichever is first, the second is an end, and so on.
    x = torch.tensor([[0.0], [1.0], [6.0], [10.0]])
    expected = {0: [0, 3, 2, 1], 1: [1, 3, 2, 0], 2: [2, 0, 3, 1], 3: [3, 0, 2, 1]}
    firsts = set()
    for seed in range(40):
        chosen = greedy_coreset(x, 4, seed=seed).tolist()
        firsts.add(chosen[0])
        assert chosen == expected[chosen[0]]
    assert firsts == {0, 1, 2, 3}, "the first centre is drawn from all points"


def test_distinct_points_come_before_duplicates() -> None:
    x = points(5, 3).repeat(20, 1)
    chosen = greedy_coreset(x, 8, seed=0)
    assert len({tuple(row) for row in x[chosen[:5]].tolist()}) == 5
    assert len(set(chosen.tolist())) == 8


def test_one_point() -> None:
    assert greedy_coreset(torch.ones(1, 4), 1, seed=3).tolist() == [0]


def test_prefix_of_a_larger_coreset() -> None:
    x = points(500, 8)
    assert torch.equal(greedy_coreset(x, 60, seed=2)[:20], greedy_coreset(x, 20, seed=2))


def test_same_seed_same_result_and_input_unchanged() -> None:
    x = points(700, 8)
    before = x.clone()
    one = greedy_coreset(x, 50, seed=4)
    assert torch.equal(one, greedy_coreset(x, 50, seed=4))
    assert not torch.equal(one, greedy_coreset(x, 50, seed=5))
    assert torch.equal(x, before)


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the legacy generator is what must not move
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    greedy_coreset(points(200, 4), 20, seed=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_progress_grows_to_the_count() -> None:
    calls: list[int] = []
    greedy_coreset(points(300, 4), 200, seed=0, progress=calls.append)
    assert calls == sorted(calls)
    assert calls[-1] == 200
    assert len(calls) >= 4


@pytest.mark.parametrize("count", [0, -1, 11])
def test_wrong_count(count: int) -> None:
    with pytest.raises(SettingsError) as caught:
        greedy_coreset(points(10, 2), count, seed=0)
    assert str(caught.value) == f"The coreset's size must be in 1 to 10, the number of patches. Got {count}."


def test_covering_radius_by_hand() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    assert covering_radius(x, torch.tensor([0])) == pytest.approx(10)
    assert covering_radius(x, torch.tensor([1])) == pytest.approx(5)
    assert covering_radius(x, torch.tensor([0, 1, 2])) == pytest.approx(0, abs=1e-3)


BLOCKS = """
import resource, numpy as np, torch
from sapatchcore.memory.coreset import blocks_of
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
x = torch.empty(300_000, 256)
for part in x.split(1000):
    torch.randn(len(part), 256, out=part)
blocks_of(x[:20_000], x.mean(0), np.random.default_rng(0))
before = peak()
blocks = blocks_of(x, x.mean(0), np.random.default_rng(0))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units")
def test_blocks_take_little_memory(run_python: Callable) -> None:
    """About 20 MB, whole numbers, beside rows of 293 MB; made anew for each piece, what is large took 85 to 280 MB more."""
    done = run_python(BLOCKS)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60


@pytest.fixture
def patches() -> Patches:
    generator = torch.Generator().manual_seed(0)
    return to_patches(
        torch.randn(3, 96, 6, 8, generator=generator), torch.randn(3, 160, 3, 4, generator=generator), "self"
    )


@pytest.mark.parametrize("dimensions", [1, 16, 128, 300])
def test_equals_the_matrix_product_of_whole_patches(patches: Patches, dimensions: int) -> None:
    found = Projection(96, 160, dimensions, 7, CPU)(patches)
    expected = patches.rows().flatten(0, 1).double().numpy() @ oracle.projection_matrix(256, dimensions, 7)
    assert found.shape == (3 * 48, dimensions)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_none_is_the_patch_itself(patches: Patches) -> None:
    projection = Projection(96, 160, None, 0, CPU)
    assert projection.dimensions == 256
    assert torch.equal(projection(patches), patches.rows().flatten(0, 1))


def test_distances_are_kept_up_to_a_few_percent(patches: Patches) -> None:
    rows = patches.rows().flatten(0, 1)
    projected = Projection(96, 160, 1024, 0, CPU)(patches)
    ratio = torch.pdist(projected) / torch.pdist(rows)
    assert 0.97 < ratio.mean() < 1.03
    assert ratio.std() < 0.05


def test_seed_decides(patches: Patches) -> None:
    one, same, other = (Projection(96, 160, 16, seed, CPU)(patches) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_patches_are_not_changed(patches: Patches) -> None:
    before = patches.rows().clone()
    Projection(96, 160, 16, 0, CPU)(patches)
    assert torch.equal(patches.rows(), before)
