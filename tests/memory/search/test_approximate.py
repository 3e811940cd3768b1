"""The search with FAISS against all differences in float64: nearly always the nearest row, never one that is nearer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from banks import bank_of, queries_of

from sapatchcore import MissingPackageError, SAPatchCore
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.search import approximate
from sapatchcore.memory.search.approximate import FEWEST, ApproximateIndex
from sapatchcore.memory.search.exact import ExactIndex

try:
    import faiss  # noqa: F401
except ImportError:
    MISSING = True
else:
    MISSING = False
needs_faiss = pytest.mark.skipif(MISSING, reason="FAISS is not installed: pip install 'sapatchcore[search]'")


def distances(queries: torch.Tensor, bank: torch.Tensor) -> oracle.Float64:
    return oracle.all_distances(queries.double().numpy(), bank.double().numpy())


@needs_faiss
@pytest.mark.parametrize("made", ["random", "clustered", "low rank", "far from the origin", "heavy tails"])
@pytest.mark.parametrize("where", ["in the bank", "near"])
def test_nearly_always_the_nearest(made: str, where: str) -> None:
    bank = bank_of(made, 6000)
    queries = queries_of(bank, where)
    index = ApproximateIndex(bank)
    assert index._lists.nlist > 4 * approximate.PROBES
    everything = distances(queries, bank)
    found = everything[np.arange(len(queries)), index.nearest(queries).numpy()]
    assert (found >= everything.min(1)).all()
    assert np.mean(found <= everything.min(1) * (1 + 1e-5) + 1e-5) >= 0.95


@needs_faiss
def test_equal_rows_and_fewer_axes_than_usual() -> None:
    bank = bank_of("all equal", 2000, 3)
    assert ApproximateIndex(bank).nearest(bank[:5]).shape == (5,)


@needs_faiss
def test_is_the_same_every_time_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of("random", 3000)
    queries = queries_of(bank, "near")
    found = ApproximateIndex(bank).nearest(queries)
    monkeypatch.setattr(approximate, "QUERIES", 7)
    assert torch.equal(ApproximateIndex(bank).nearest(queries), found)


@needs_faiss
def test_lists_that_hold_fewer_rows_than_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS then names row -1."""
    bank = bank_of("random", 1500)
    index = ApproximateIndex(bank)
    index._lists.nprobe = 1
    monkeypatch.setattr(approximate, "CANDIDATES", 500)
    found = index.nearest(queries_of(bank, "in the bank"))
    assert 0 <= int(found.min()) <= int(found.max()) < 1500


@needs_faiss
def test_without_a_group_it_is_exact() -> None:
    bank, groups = bank_of("random", 2000), torch.arange(2000) % 3
    queries, excluded = queries_of(bank, "in the bank"), torch.arange(90) % 3
    found = ApproximateIndex(bank, groups).nearest(queries, excluded)
    everything = distances(queries, bank)
    everything[(excluded[:, None] == groups).numpy()] = np.inf
    np.testing.assert_allclose(everything[np.arange(90), found.numpy()], everything.min(1), rtol=1e-5)


@needs_faiss
def test_bank_picks_it_where_lists_can_be_left_out() -> None:
    nothing = torch.zeros(FEWEST + 1, dtype=torch.int64)
    rows = bank_of("random", FEWEST + 1)
    assert isinstance(Bank(rows, nothing, nothing, (), (1, 1), search="faiss").index, ApproximateIndex)
    small = Bank(rows[1:], nothing[1:], nothing[1:], (), (1, 1), search="faiss")
    assert isinstance(small.index, ExactIndex)


@needs_faiss
def test_a_detector_scores_nearly_the_same(
    images: Callable[..., np.ndarray], small: dict[str, Any], tmp_path: Path
) -> None:
    good, test = images(30, seed=2), images(4, seed=6)
    options = {**small, "coreset_ratio": 1.0}
    exact = SAPatchCore(**options).fit(good)
    assert len(exact.memory_bank) > FEWEST
    other = SAPatchCore(**options, search="faiss").fit(good)
    assert isinstance(other.bank.index, ApproximateIndex)
    np.testing.assert_allclose(other.calibration.scores, exact.calibration.scores, rtol=1e-5, err_msg="is exact")
    exact.save(tmp_path / "m")
    loaded = SAPatchCore.load(tmp_path / "m", device="cpu", search="faiss")
    expected = exact.predict(test)
    for detector in (other, loaded):
        found = detector.predict(test)
        assert (found.patch_scores >= expected.patch_scores * (1 - 1e-5) - 1e-5).all()
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0.05)
        assert np.mean(found.patch_scores <= expected.patch_scores * (1 + 1e-5) + 1e-5) > 0.95


def test_without_faiss_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    sentence = (
        r'^Search faiss needs FAISS, which is not installed: pip install "sapatchcore\[search\]"\. Search exact, '
        r"float16 and int8 need nothing more\.$"
    )
    with pytest.raises(MissingPackageError, match=sentence):
        SAPatchCore(search="faiss")
    with pytest.raises(MissingPackageError, match=sentence):
        ApproximateIndex(bank_of("random", 1500))
    SAPatchCore(search="int8")
