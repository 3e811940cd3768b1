"""The search benchmark runs on a tiny size, and its tables say what its result says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import script


def test_quick_run_and_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'sapatchcore[search]'")
    benchmark = script("benchmarks/core/search.py")
    monkeypatch.setattr(benchmark, "PATCHES", 20)
    benchmark.main(["--quick", "--output", str(tmp_path / "search.json")])
    content = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))
    results = content["results"]
    assert [list(searches) for searches in results["banks"].values()] == [
        ["exact", "float16", "int8"],
        ["exact", "float16", "int8", "faiss"],
    ]
    for searches in results["banks"].values():
        for name in ("exact", "float16", "int8"):
            assert searches[name]["recall"] == 1
    told, _, head, line, *rows, _, pays = table_of(content).splitlines()
    assert told == "Patches: Gaussian mixture, 1536 numbers each."
    assert len(rows) == 7
    assert {row.count("|") for row in rows} == {head.count("|")} == {line.count("|")}
    assert rows[0].startswith("| 300 | exact | ")
    assert rows[0].endswith(" | 1.00 (1.00–1.00) | 1.0000 | 0 |")
    assert pays.startswith("Faster than exact in this run: ")


def table_of(content: dict[str, Any]) -> str:
    return str(script("benchmarks/tables.py").part("docs/search.md", "search", {"search": content}))


def ratios(*pairs: tuple[int, float | None]) -> dict[str, Any]:
    return {
        str(size): {"exact": {}, **({} if ratio is None else {"faiss": {"over_exact": {"median": ratio}}})}
        for size, ratio in pairs
    }


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
    assert script("benchmarks/figures.py").pays_from(ratios(*pairs), "faiss") == expected


def test_accuracy_rows() -> None:
    one = {"auroc": 0.9, "difference": -0.00012, "largest_score_difference": 0.0123}
    whole = {"category": "screw", "images": 160, "bank": 25088, "searches": {"faiss": one}}
    patches = {"kind": "real", "width": 384, "copies": 0}
    told = table_of({"results": {"patches": patches, "banks": {}, "image_auroc": whole}})
    assert "Faster than exact in this run: none.\n" in told
    assert "The built-in network on screw, 160 images, a bank of 25,088 patches:" in told
    assert told.endswith("|\n| faiss | 0.9000 | -0.0001 | 0.01 |")
