"""The benchmarks of work on many machines: shares.py runs on a tiny size, the figures and tables say what results say."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from scripts import script


def test_quick_run_of_shares_and_its_rows(tmp_path: Path) -> None:
    benchmark = script("benchmarks/scale/shares.py")
    benchmark.main(["--quick", "--output", str(tmp_path / "shares.json")])
    content = json.loads((tmp_path / "shares.json").read_text(encoding="utf-8"))
    results = content["results"]
    (runs,) = (found["runs"] for found in results["sets"].values())
    assert [(run["shares"], run["way"]) for run in runs] == [
        (shares, way) for shares in (2, 3) for way in (benchmark.ROUNDS, benchmark.TWO_ROUNDS)
    ]
    for run in runs:
        if run["way"] == benchmark.ROUNDS:
            assert run["radius_over_single"] == pytest.approx(1, abs=1e-5)
            assert run["in_common"] > 0.9
        else:
            assert run["rounds"] == 2
            assert run["candidates"] == run["shares"] * results["sets"]["made screws"]["bank"]
    told, _, *table = part("shares", shares=content).splitlines()
    assert told.startswith("Network: builtin. Made screws, 6 images to learn from, ")
    assert len(table) == 6
    assert len({line.count("|") for line in table}) == 1


def part(name: str, **contents: Any) -> str:
    """A generated part of docs/scale.md, of these results."""
    return str(script("benchmarks/tables.py").part("docs/scale.md", name, contents))


def test_rows_of_shares_are_rows_of_all() -> None:
    benchmark = script("benchmarks/scale/shares.py")
    x = torch.arange(5 * 3 * 2).reshape(5, 3, 2).float()
    for share in range(2):
        own = benchmark.share_of(x, share, 2)
        rows = torch.arange(len(own))
        found = benchmark.numbers(torch.full_like(rows, share), rows, 2, 3)
        assert torch.equal(x.flatten(0, 1)[found], own)


def test_radius_is_the_largest_distance() -> None:
    x = torch.tensor([[0.0], [1.0], [5.0], [7.5]])
    assert script("benchmarks/scale/shares.py").radius(x, torch.tensor([0, 2])) == 2.5


def test_a_line_through_made_seconds() -> None:
    scale = script("benchmarks/scale/scale.py")
    found = scale.line([100, 1000, 10_000], [3 + 0.02 * n for n in (100, 1000, 10_000)])
    assert found["a"] == pytest.approx(3)
    assert found["b"] == pytest.approx(0.02)
    assert found["residuals"] == pytest.approx([0, 0, 0], abs=1e-9)
    assert scale.line([10, 100, 1000], [1, 10, 1000])["exponent"] == pytest.approx(2)


def test_the_clock_gives_each_stage_its_seconds() -> None:
    times = iter([0, 1, 4, 9, 11, 16, 18])
    clock = script("benchmarks/scale/scale.py").Clock(lambda: float(next(times)))
    for stage, done in (("embed", 0), ("embed", 5), ("coreset", 9)):
        clock(stage, done, 9)
    # 0: made; 1: nothing done yet; 4, 9: first and last of embed; 11, 16: of coreset; 18: the end.
    assert clock.fit() == {"start": 4, "embed": 5, "coreset": 7, "calibrate": 0, "write": 2, "whole": 18}


def watching() -> Any:
    return script("benchmarks/scale/processes.py")


def test_roles_of_processes() -> None:
    processes = watching()
    assert processes.role_of("steward-1a", "Host") == processes.role_of("ledger-1a", "Host") == processes.STEWARD
    assert processes.role_of("share-1a-0", "Host") == processes.WORKERS
    assert processes.role_of("", "MapWorker(MapBatches(Scorers))") == processes.WORKERS
    assert processes.role_of("listing-1a", "Host") == processes.LISTING
    assert processes.role_of("desk-1a", "Desk") is None


def test_what_processes_take_by_their_role() -> None:
    processes = watching()
    watch, me, mb = processes.Watch(), psutil.Process().pid, 1_000_000
    watch._before = {me: processes.Seen(50 * mb, 7.0)}
    watch._seen = {
        pid: processes.Seen(peak * mb, seconds)
        for pid, peak, seconds in [
            (me, 58, 9.5),
            (-1, 100, 3.0),
            (-2, 30, 1.0),
            (-3, 300, 50.0),
            (-4, 200, 60.0),
            (-5, 9, 9.0),
        ]
    }
    watch._roles = {-1: "steward", -2: "listing", -3: "workers", -4: "workers"}
    watch._sums = [{-1: 100 * mb, -5: 9 * mb, -6: 4 * mb}, {-3: 300 * mb, -5: 5 * mb}]
    assert watch.peaks() == {"command": 8, "steward": 100, "listing": 30, "workers": 300, "rest of Ray": 13}
    assert watch.seconds() == {"command": 2.5, "steward": 3, "listing": 1}
    watch._watching = 2.0  # what the watching itself took
    assert watch.seconds()["command"] == 0.5


def test_a_process_is_seen_while_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = watching()
    monkeypatch.setattr(processes, "roles", dict)
    with processes.Watch() as watch:
        held = np.ones(20_000_000)
        end = time.thread_time() + 0.5
        while time.thread_time() < end:
            time.sleep(0)
        time.sleep(3 * processes.EVERY)
    assert held.nbytes * 0.9 < watch.peaks()["command"] * 1e6 < held.nbytes * 1.5
    assert watch.seconds()["command"] > 0.3
    assert watch._watching > 0


def run(images: int, workers: int = 1) -> dict[str, Any]:
    fit = {"start": 2.0, "embed": images * 0.036, "coreset": images * 0.018, "calibrate": images * 0.018, "write": 0.1}
    score = {"score": 5 + images * 0.036, "sum": 0.1}
    return {
        "workers": workers,
        "images": images,
        "fit": {
            "seconds": {**fit, "whole": sum(fit.values())},
            "rounds": {100: 5, 1000: 10, 10_000: 20}[images],
            "peak_mb": {
                "command": 1.0,
                "steward": 100.0,
                "listing": 70 + images * 0.0003,
                "workers": 500 + images * 0.5,
            },
            "processor_seconds": {"command": 9.0, "steward": 3.0},
            "model_bytes": {"calibration": images * 6000, "thumbnails": 5000, "rest": 1000 + images * 100},
            "bank": [2000, 384],
        },
        "predict": {
            "seconds": {**score, "whole": sum(score.values())},
            "peak_mb": {"steward": 50.0, "listing": 100.0, "workers": 800.0},
            "processor_seconds": {"steward": 4.0},
            "table_bytes": images * 80,
        },
    }


def test_rows_of_growth_and_extrapolation() -> None:
    benchmark, figures = script("benchmarks/scale/scale.py"), script("benchmarks/figures.py")
    runs = [run(images, workers) for workers in (1, 2) for images in (100, 1000, 10_000)]
    facts = {"patches": 784, "width": 384, "spill_bytes": 600_000, "projected_bytes": 400_000, "image_bytes": 30_000.0}
    images = {**facts, "side": 256, "different": 500, "bank": 2000}
    results = {"images": images, "runs": runs, "growth": benchmark.growth(runs)}
    content = {"results": results, "environment": {"cpus": 2, "cpu": "X", "torch": "2"}}
    told, grown, taken = part("growth", scale=content).split("\n\n")
    assert told.startswith("2 cores of X; torch 2; built-in backbone; made screws of 256×256, JPEG, 30 KB an image, ")
    assert grown.splitlines()[4] == (
        "| fit embed | 1 | 3.6 (100) · 36.0 (1,000) · 360.0 (10,000) | 36.00 | 0.00 s | 1.00 |"
    )
    for table in (grown, taken):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    head, _, *rows = taken.splitlines()
    assert head == "| process | workers | memory, 100 · 1,000 · 10,000 images | processor |"
    assert rows[0] == "| fit: command | 1 | 1 MB · 1 MB · 1 MB |  |"
    later = {"results": {"runs": [run(images, 1) for images in (100, 1000, 10_000)]}}
    _, _, *later_rows = part("growth", scale=content, scale_command=later).split("\n\n")[2].splitlines()
    assert [row.split(" | ")[-1] for row in later_rows[:2]] == ["9.0 s · 9.0 s · 9.0 s |", " |"]
    assert [row for row in rows if row.startswith("| predict") and " | 2 | " in row] == [
        "| predict: ledger | 2 | 50 MB · 50 MB · 50 MB | 4.0 s · 4.0 s · 4.0 s |",
        "| predict: listing | 2 | 100 MB · 100 MB · 100 MB |  |",
        "| predict: workers | 2 | 800 MB · 800 MB · 800 MB |  |",
    ]
    text = part("extrapolated", scale=content)
    rows_of = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    told = {what: values for what, *values in rows_of[2:]}
    assert told["time, if it grows evenly"] == ["2.0 hours", "1.0 hours"]
    assert told["time, if it grows by the exponents above 1"] == ["2.0 hours", "1.0 hours"]
    assert (
        figures.by_exponents(
            {"fit x": {"exponent": 1.5}}, {"images": 100, "fit": {"seconds": {"x": 3}}}, ("fit x",), 400
        )
        == 24
    )
    assert told["memory of a worker"] == ["50.5 GB", "800.0 MB"]
    assert told["of this, projections"][0] == "40.0 GB"
    assert told["disk of a worker for patches"][0] == "60.0 GB"
    assert told["memory of the listing"] == ["3.0 GB", "0.0 KB"]
    assert told["images read, by all workers"] == ["300.0 GB", "300.0 GB"]
    assert told["the same, a second"] == ["83.3 MB", "83.3 MB"]  # 100 workers · 30 KB / 36 ms
    assert told["rounds of the coreset"][0] == "160"  # twice for each tenfold
    assert told["candidates sent to the steward, in all rounds"][0] == "679.1 MB"
    assert told["the model file, every image looked back at"][0] == "61.0 GB"
    assert told["the model file, with 10,000 images of `--calibrate`"][0] == "1.1 GB"
    assert told["tables of names and scores"][1] == "800.0 MB"
    assert "`--coreset-ratio 2.6e-07`. 0.01, the usual ratio, would keep 78 million rows, 120.4 GB" in text


def test_growth_needs_three_sizes() -> None:
    assert script("benchmarks/scale/scale.py").growth([run(100), run(1000)]) == {}


def test_constants_of_the_extrapolation_are_the_packages() -> None:
    from sapatchcore.scale import fit
    from sapatchcore.settings import Settings

    figures = script("benchmarks/figures.py")
    assert (figures.CANDIDATES, figures.FEWEST_CANDIDATES) == (fit.CANDIDATES, fit.FEWEST_CANDIDATES)
    assert Settings().projection == figures.PROJECTED


def test_parts_without_results_are_empty() -> None:
    assert [part(name) for name in ("shares", "growth", "extrapolated")] == ["", "", ""]
    assert script("benchmarks/tables.py").part("docs/search.md", "search", {}) == ""
