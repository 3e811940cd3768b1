"""The search benchmark runs on a tiny size, and its tables say what its result says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import script


def test_quick_run_and_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'sapatchcore[search]'")
    benchmark, summary = script("benchmarks/search.py"), script("benchmarks/search_summary.py")
    monkeypatch.setattr(benchmark, "PATCHES", 20)
    benchmark.main(["--quick", "--output", str(tmp_path / "search.json")])
    results = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))["results"]
    assert [list(searches) for searches in results["banks"].values()] == [
        ["exact", "float16", "int8"],
        ["exact", "float16", "int8", "faiss"],
    ]
    for searches in results["banks"].values():
        for name in ("exact", "float16", "int8"):
            assert searches[name]["recall"] == 1
    rows = summary.search_rows(results)
    assert len(rows) == 7
    assert {len(row) for row in rows} == {len(summary.HEAD)}
    assert rows[0][:2] == ("300", "exact")
    assert rows[0][4:] == ("1.00 (1.00–1.00)", "1.0000", "0")
    assert summary.conditions(results) == "Patches: Gaussian mixture, 1536 numbers each."


def ratios(*pairs: tuple[int, float | None]) -> dict[str, Any]:
    banks = {
        str(size): {"exact": {}, **({} if ratio is None else {"faiss": {"over_exact": {"median": ratio}}})}
        for size, ratio in pairs
    }
    return {"banks": banks}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(10, None), (20, 1.5), (30, 0.9), (40, 0.5)], 30),
        ([(10, 0.5), (20, 1.5), (30, 0.9)], 30),
        ([(10, 0.5), (20, 1.5)], None),
        ([(10, 0.5), (20, 0.2)], 10),
    ],
)
def test_from_which_size_it_pays(pairs: list[tuple[int, float | None]], expected: int | None) -> None:
    assert script("benchmarks/search_summary.py").pays_from(ratios(*pairs), "faiss") == expected


def test_accuracy_rows() -> None:
    summary = script("benchmarks/search_summary.py")
    one = {"auroc": 0.9, "difference": -0.00012, "largest_score_difference": 0.0123}
    rows = summary.auroc_rows({"image_auroc": {"searches": {"faiss": one}}})
    assert rows == [("faiss", "0.9000", "-0.0001", "0.01")]
    assert len(rows[0]) == len(summary.AUROC_HEAD)
    told = {"image_auroc": {"category": "screw", "images": 160, "bank": 25088}}
    assert summary.auroc_conditions(told) == "The built-in network on screw, 160 images, a bank of 25,088 patches:"
