"""The exact searches in float16 and int8 against a full matrix of differences in float64, and a detector that uses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from banks import GROUPS, KINDS, bank_of, groups_of, queries_of
from conftest import LIGHT
from hypothesis import given, settings
from hypothesis import strategies as st

from sapatchcore import DataError, SAPatchCore, SettingsError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.search import exact, quantised
from sapatchcore.memory.search.exact import ExactIndex
from sapatchcore.memory.search.quantised import QuantisedIndex, QuantisedRows
from sapatchcore.model_file import read_model, write_model

FORMATS = ["float16", "int8"]
WHERE = ["in the bank", "near", "elsewhere", "far away"]


def check(
    found: torch.Tensor,
    queries: torch.Tensor,
    bank: torch.Tensor,
    excluded: torch.Tensor | None = None,
    groups: torch.Tensor | None = None,
) -> None:
    """The rows named are as near as the nearest of all differences in float64, and none is excluded."""
    everything = oracle.all_distances(queries.double().numpy(), bank.double().numpy())
    if excluded is not None:
        everything[(excluded[:, None] == groups).numpy()] = np.inf
    assert found.dtype == torch.int64
    assert found.shape == (len(queries),)
    own = everything[np.arange(len(queries)), found.numpy()]
    centred = [(rows - bank.mean(0)).double().square().sum(1).max() for rows in (queries, bank)]
    atol = 3e-6 * float(max(centred))  # of float32's products, as of the exact search
    np.testing.assert_allclose(np.square(own), np.square(everything.min(1)), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("where", WHERE)
def test_equals_all_differences(kind: str, made: str, where: str) -> None:
    bank = bank_of(made)
    queries = queries_of(bank, where)
    check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("where", ["in the bank", "near"])
@pytest.mark.parametrize("groups", GROUPS)
def test_without_a_group_equals_all_differences(kind: str, made: str, where: str, groups: str) -> None:
    bank = bank_of(made, 700)
    queries, owners = queries_of(bank, where), groups_of(groups, bank)
    excluded = torch.arange(len(queries)) % 6 - 1  # -1, and a sixth group, bar nothing
    check(QuantisedIndex(bank, kind, owners).nearest(queries, excluded), queries, bank, excluded, owners)


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 420),
    d=st.integers(3, 40),
    q=st.integers(0, 90),
    kind=st.sampled_from(FORMATS),
    made=st.sampled_from(KINDS),
    where=st.sampled_from(WHERE),
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 1e4, 1e6]),
    seed=st.integers(0, 999),
)
def test_any_bank(m: int, d: int, q: int, kind: str, made: str, where: str, scale: float, seed: int) -> None:
    bank = bank_of(made, m, d, seed) * scale
    queries = queries_of(bank / scale, where, seed + 1)[: max(1, q)] * scale
    check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)


@pytest.mark.parametrize("kind", FORMATS)
def test_many_dimensions_where_nothing_can_be_left_out(kind: str) -> None:
    bank = bank_of("random", 600, 384)
    for where in WHERE:
        queries = queries_of(bank, where)
        check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 127, 128, 129, 1024, 1025])
def test_sizes_where_leaves_and_blocks_end(kind: str, rows: int) -> None:
    bank = bank_of("random", rows, 10)
    queries = queries_of(bank, "elsewhere")
    check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)


@pytest.mark.parametrize("kind", FORMATS)
def test_constants_of_the_search_do_not_show(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few at a time of everything: queries, boxes, pairs; and the first of equally near rows, whatever they are."""
    bank = bank_of("clustered", 1500, 12)
    queries = queries_of(bank, "near")
    expected = QuantisedIndex(bank, kind).nearest(queries)
    for name, value in {"QUERIES": 7, "FAN": 3, "CENTRES": 2, "TOGETHER": 5, "PAIRS": 3, "OPEN": 0}.items():
        monkeypatch.setattr(exact if name in ("FAN", "CENTRES") else quantised, name, value)
        assert torch.equal(QuantisedIndex(bank, kind).nearest(queries), expected), name


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_of_the_bank_are_found_at_distance_zero(kind: str) -> None:
    bank = bank_of("far from the origin")
    found = QuantisedIndex(bank, kind).nearest(bank)
    assert torch.equal(bank[found], bank)


@pytest.mark.parametrize("kind", FORMATS)
def test_duplicates_wait_one_by_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are all the same leave everything open: of each leaf one row waits, not all."""
    bank = bank_of("random", 3, 24)[torch.arange(3000) % 3]
    queries = torch.cat((bank[:3], bank[:3] + 0.1, bank_of("random", 20, 24, 5)))
    waited: list[int] = []
    wait = quantised._QuantisedSearch.wait
    monkeypatch.setattr(
        quantised._QuantisedSearch,
        "wait",
        lambda self, query, *rest: (waited.append(len(query)), wait(self, query, *rest))[1],
    )
    check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)
    assert sum(waited) <= quantised.OPEN * len(queries) * (3000 // 64 + 1)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_quantised_rows_alone_would_take_the_wrong_row(kind: str) -> None:
    """Two rows whose difference is lost in the quantised format; float32 tells them apart."""
    step = {"float16": 1e-5, "int8": 1e-3}[kind]
    bank = bank_of("random", 320, 8)
    bank[100] = torch.tensor([5.0, 5, 5, 5, -5, -5, -5, -5])
    bank[200] = bank[100] + step
    wrong = 0
    for query, nearest in ((bank[100] - step, 100), (bank[200] + step, 200)):
        index = QuantisedIndex(bank, kind)
        assert int(index.nearest(query[None])) == nearest
        short = torch.cat([index._copies.restored(leaf) for leaf in range(len(index._copies.errors))])
        alone = index._order[(short - (query - index._mean)).double().square().sum(1).argmin()]
        wrong += int(alone) != nearest
    assert wrong


@pytest.mark.parametrize("kind", FORMATS)
def test_errors_are_what_is_lost(kind: str) -> None:
    bank = bank_of("heavy tails", 200, 24)
    leaves = list(torch.arange(200).split(64))
    short = QuantisedRows(bank, bank.mean(0), leaves, kind)
    for number, leaf in enumerate(leaves):
        restored = short.restored(number)
        lost = (restored.double() - (bank[leaf] - bank.mean(0)).double()).square().sum(1).sqrt()
        assert float(lost.max()) <= short.errors[number] <= float(lost.max()) * 1.001 + 1e-12
        torch.testing.assert_close(short.norms[short.ends[number] : short.ends[number + 1]], restored.square().sum(1))
        reach = (bank[leaf] - bank[leaf].mean(0)).abs().amax(1).max()
        assert float(lost.max()) <= float(reach) * 24**0.5 * {"float16": 2**-11, "int8": 0.51 / 127}[kind]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("scale", [1e5, 1e8, 1e15])
def test_beyond_float16(kind: str, scale: float) -> None:
    """65504 is the largest float16, 6e-8 the smallest."""
    for factor in (scale, 1 / scale):
        bank = bank_of("random", 400) * factor
        queries = queries_of(bank / factor, "near") * factor
        check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)


@pytest.mark.parametrize("kind", FORMATS)
def test_one_row_far_from_all_others(kind: str) -> None:
    bank = bank_of("random", 400)
    bank[77] = 3e4
    queries = torch.cat((queries_of(bank_of("random", 400), "near"), bank[77:78] + 1))
    check(QuantisedIndex(bank, kind).nearest(queries), queries, bank)


@pytest.mark.parametrize("kind", FORMATS)
def test_copy_on_disk_gives_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of("clustered")
    queries = queries_of(bank, "near")
    held = QuantisedIndex(bank, kind)
    monkeypatch.setattr(quantised, "ON_DISK", 0)
    mapped = QuantisedIndex(bank, kind)
    assert mapped._copies._file is not None
    assert mapped.nbytes == held.nbytes
    assert torch.equal(mapped._copies._rows, held._copies._rows)
    assert torch.equal(mapped.nearest(queries), held.nearest(queries))


def test_full_disk_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: Any, _rows: Any, done: str) -> None:
        raise DataError(f"full after {done}.")

    monkeypatch.setattr(quantised, "ON_DISK", 0)
    monkeypatch.setattr(quantised, "write_whole", full)
    with pytest.raises(DataError, match=r"full after 0 of 1500 patches for search int8\."):
        QuantisedIndex(bank_of("random"), "int8")


def test_bank_stays_where_it_is_and_is_not_copied(tmp_path: Path) -> None:
    rows = bank_of("clustered").numpy()
    rows.tofile(tmp_path / "rows")
    mapped = torch.from_numpy(np.memmap(tmp_path / "rows", np.float32, mode="c", shape=rows.shape))
    index = QuantisedIndex(mapped, "int8")
    assert index._bank.data_ptr() == mapped.data_ptr()
    assert index.nbytes < rows.nbytes / 2 + 140 * len(rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_bank_picks_the_search(kind: Any) -> None:
    nothing = torch.zeros(257, dtype=torch.int64)
    rows = bank_of("random", 257)
    assert isinstance(Bank(rows, nothing, nothing, (), (1, 1), search=kind).index, QuantisedIndex)
    assert isinstance(Bank(rows[:256], nothing[:256], nothing[:256], (), (1, 1), search=kind).index, ExactIndex)
    assert isinstance(Bank(rows, nothing, nothing, (), (1, 1)).index, ExactIndex)
    assert isinstance(Bank(rows.to("meta"), nothing, nothing, (), (1, 1), search=kind).index, ExactIndex)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("score", ["max", "reweighted"])
def test_a_detector_scores_the_same(
    kind: str, score: str, good: np.ndarray, images: Callable[..., np.ndarray], small: dict[str, Any], tmp_path: Path
) -> None:
    test = images(4, seed=6)
    options = {**small, "coreset_ratio": 0.8, "image_score": score}
    exact = SAPatchCore(**options).fit(good)
    other = SAPatchCore(**options, search=kind).fit(good)
    assert len(exact.memory_bank) > 256
    assert isinstance(other.bank.index, QuantisedIndex)
    np.testing.assert_allclose(other.calibration.scores, exact.calibration.scores, rtol=1e-5)
    expected = exact.predict(test)
    exact.save(tmp_path / "m")
    loaded = SAPatchCore.load(tmp_path / "m", device="cpu", search=kind)
    assert (loaded.settings.search, SAPatchCore.load(tmp_path / "m").settings.search) == (kind, "exact")
    for detector in (other, loaded):
        found = detector.predict(test)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
        np.testing.assert_allclose(found.patch_scores, expected.patch_scores, rtol=1e-4, atol=1e-5)
    loaded.update(images(2, seed=9))
    assert loaded.bank.search == kind
    loaded.forget(loaded.provenance[0][0])
    assert isinstance(loaded.bank.index, QuantisedIndex)


def test_unknown_search() -> None:
    sentence = r"^search must be 'exact', 'float16', 'int8' or 'faiss'\. Got 'int9'\. Did you mean 'int8'\?$"
    with pytest.raises(SettingsError, match=sentence):
        SAPatchCore(search="int9")


def test_loading_makes_no_copy_of_the_bank(tmp_path: Path, run_python: Callable) -> None:
    """The memory of the process itself, without what is mapped from files, grows by less than a large bank."""
    code = """
import ctypes
import sys
from pathlib import Path
from sapatchcore import SAPatchCore, model_file

model_file.MAPPED = 30_000_000
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)


def own():
    trim(0)  # what was given back to the allocator is no longer of the process
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024


SAPatchCore.load(sys.argv[1])
before = own()
detector = SAPatchCore.load(sys.argv[2], search="int8")
loaded = own() - before
detector.bank.index
print(loaded, own() - before, detector.memory_bank.nbytes)
"""
    if not Path("/proc/self/status").is_file():
        pytest.skip("no /proc: the memory of a process cannot be told")

    detector = SAPatchCore(**LIGHT).fit(np.zeros((2, 64, 64, 3), np.uint8))
    detector.save(tmp_path / "small")
    stored = read_model(tmp_path / "small")
    rows = 75_000_000 // (4 * stored.bank.shape[1])  # three times the 25 MB that the network takes
    bank = torch.randn(rows, stored.bank.shape[1], generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(rows, dtype=torch.int64)
    header = {name: value for name, value in stored.header.items() if name != "sha256"}
    write_model(tmp_path / "large", replace(stored, header=header, bank=bank, images=nothing, cells=nothing))
    done = run_python(code, str(tmp_path / "small"), str(tmp_path / "large"))
    assert done.returncode == 0, done.stderr
    loaded, indexed, size = map(int, done.stdout.split())
    assert loaded < 0.4 * size
    assert indexed < 0.8 * size
