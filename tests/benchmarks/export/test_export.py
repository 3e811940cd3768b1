"""export.py runs, and what docs/export.md says of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exporting import already_fitted, exporter_done, program, tiny
from scripts import script

from sapatchcore import SAPatchCore
from sapatchcore.synth.write import write_dataset

__all__ = ["exporter_done", "program", "tiny"]  # fixtures

for needed in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")


def rows_of(name: str, **contents: dict[str, Any]) -> tuple[str, list[str]]:
    """What stands before the table of docs/export.md, and the table's rows, of these results."""
    text = script("benchmarks/tables.py").part("docs/export.md", name, contents)
    told, _, table = text.rpartition("\n\n")
    return told, table.splitlines()[2:]


@pytest.mark.usefixtures("exporter_done")
def test_it_runs(tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "kits", "kits", side=96, train=4, test={"good": 3, "missing": 3})
    output = tmp_path / "export.json"
    choice = ["--runtimes", "onnx", "--precisions", "float32,float16", "--bank-precisions", "float32"]
    given = ["--quick", "--data", str(tmp_path / "kits"), *choice, "--output", str(output)]
    benchmark = script("benchmarks/export/export.py")
    monkeypatch.setattr(benchmark, "SAPatchCore", already_fitted(tiny))
    benchmark.main(given)
    content = json.loads(output.read_text(encoding="utf-8"))
    runs = content["results"]["runs"]
    assert [(run["precision"], run["bank_precision"]) for run in runs] == [
        ("float32", "float32"),
        ("float16", "float32"),
    ]
    plain, short = runs
    assert (plain["images"], plain["other_verdicts"], plain["auroc_difference"]) == (6, 0, 0)
    assert plain["largest_score_difference"] < 1e-4 < short["largest_score_difference"] < 0.1
    assert short["megabytes"] < plain["megabytes"]
    assert short["calibration_scores"] == "taken anew with this file"
    assert len(rows_of("export", export=content)[1]) == 2


def run(category: str, precision: str, **changes: Any) -> dict[str, Any]:
    found = {
        "category": category,
        "backbone": "builtin",
        "runtime": "onnx",
        "version": "onnxruntime 1",
        "bank": [200, 9],
        "precision": precision,
        "bank_precision": "float32",
        "megabytes": 10.0,
        "images": 10,
        "auroc_difference": 0.0,
        "median_score_difference": 1e-3,
        "largest_score_difference": 2e-3,
        "other_verdicts": 0,
    }
    return {**found, **changes}


def test_rows_by_hand() -> None:
    runs = [
        run("a", "float32"),
        run("a", "int8", megabytes=4.0, auroc_difference=-0.02, other_verdicts=1),
        run("b", "int8", megabytes=6.0, auroc_difference=0.01, largest_score_difference=0.05, bank=[300, 9], images=30),
    ]
    told, rows = rows_of("export", export={"results": {"runs": runs}})
    assert rows == [
        "| onnx | float32 | float32 | 10 | +0.0000 | 0.001 | 0.002 | 0 of 10 |",
        "| onnx | int8 | float32 | 5 | -0.0050 (-0.0200 to +0.0100) | 0.001 | 0.05 | 1 of 40 |",
    ]
    assert "banks of 200 to 300 rows, test images of a, b; onnxruntime 1." in told


def test_speed_rows_by_hand() -> None:
    speed = {
        "ms_an_image": {"ours, X int8: graph": {"median": 35.4}, "anomalib, graph, float32": {"median": 89.7}},
        "times_faster, graph": {"ours, X int8: graph": {"anomalib, graph, float32": {"median": 2.534}}},
        "times_faster, predict": {},
    }
    found = {"speed": speed, "versions": {"theirs": {"anomalib": "2.7"}}, "bank": [2508, 1536]}
    content = {"results": found, "environment": {"cpus": 2, "cpu": "X"}}
    told, rows = rows_of("speed", export_speed=content)
    assert "bank of 2,508 × 1,536, batch 1, 2 cores of X" in told
    assert rows == ["| X int8: graph | 35 | 2.53 |  |  |", "| anomalib 2.7, float32: graph | 90 |  |  |  |"]


def test_edge_rows_by_hand() -> None:
    times = {
        clock: {"edge": {"median": 0.5}, "learn": {"median": 4.0}, "learn_over_edge": {"median": 8.0}}
        for clock in CLOCKS
    }
    found = {
        "installed": {
            "edge": {"megabytes": 200.0, "of_it_for_gpus": 0.0},
            "learn": {"megabytes": 6000.0, "of_it_for_gpus": 5000.0},
        },
        "seconds": {"import what scores": times, "sapatchcore predict": times},
    }
    _, rows = rows_of("edge", edge={"results": found})
    assert rows[:3] == [
        "| installed, MB | 200 | 6,000 | 30 |",
        "| installed, less what only GPUs use, MB | 200 | 1,000 | 5.0 |",
        "| import what scores, s | 0.50 | 4.00 | 8.0 |",
    ]
    assert len(rows) == 6


CLOCKS = ("by_the_clock", "by_the_processor")
