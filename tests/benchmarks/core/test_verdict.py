"""kinds.py and update.py run, and what docs/verdicts.md says of their results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import ROOT, script

from sapatchcore.synth.write import write_dataset

STAGES = ("half", "updated", "all")


def committed(name: str) -> Path:
    path = ROOT / "benchmarks/results" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{name}.json has not been measured")
    return path


def told(name: str, **contents: dict[str, Any]) -> str:
    """A generated part of docs/verdicts.md, of these results."""
    return str(script("benchmarks/tables.py").part("docs/verdicts.md", name, contents))


def test_kinds_runs_and_makes_its_table(tmp_path: Path) -> None:
    write_dataset(tmp_path / "given", "kits", side=96, train=3, test={"good": 3, "missing": 3})
    output = tmp_path / "kinds.json"
    arguments = ["--quick", "--synth", "screws", "--data", str(tmp_path / "given"), "--output", str(output)]
    script("benchmarks/core/kinds.py").main(arguments)
    content = json.loads(output.read_text(encoding="utf-8"))
    runs = content["results"]["runs"]
    assert [(run["dataset"], run["image_seed"], run["crop"]) for run in runs] == [
        ("screws", 0, None),
        ("given", None, 224),
    ]
    assert {kind: figures["true"] for kind, figures in runs[0]["kinds"].items()} == {
        "good": "",
        "lacking": "co-occurrence",
        "over-coupling": "co-occurrence",
        "paint": "local",
        "scratch": "local",
    }
    assert runs[1]["kinds"]["missing"]["true"] == "local"  # of a given set nothing else is known
    for run in runs:
        assert all(figures["images"] == 2 for figures in run["kinds"].values())
        assert all(figures["local_ratio"] > 0 and figures["context_ratio"] > 0 for figures in run["kinds"].values())
        for rate in run["rates"]:  # too few images for the rate that was asked for
            assert rate["rate"] == pytest.approx(1 / (run["calibration_images"] + 1), rel=1e-4)
            assert rate["rejected"] == {kind: sum(calls.values()) for kind, calls in rate["called"].items()}
    text = told("kinds", kinds=content)
    assert "| screws, made | scratch | local | " in text
    assert "*given* (3 images: 25 % instead of 1 %)" in text


def test_update_runs_and_makes_its_table(tmp_path: Path) -> None:
    output = tmp_path / "update.json"
    script("benchmarks/core/update.py").main(["--quick", "--output", str(output)])
    content = json.loads(output.read_text(encoding="utf-8"))
    results = content["results"]
    assert [(run["seed"], run["split"]) for run in results["runs"]] == [(0, "random"), (0, "first")]
    for run in results["runs"]:
        assert [run[stage]["images"] for stage in STAGES] == [4, 8, 8]
        assert run["rows_added"] == run["updated"]["rows"] - run["half"]["rows"] >= 0
        assert all(0 <= run[stage][name] <= 1 for stage in STAGES for name in ("image_auroc", "pixel_auroc"))
        assert all(run[stage]["radius"] > 0 for stage in STAGES)
        assert list(run["half"]["false_rejects"]) == ["0.05", "0.1"]
        assert set(run["seconds"]) == {"fit_half", "update", "fit_all"}
    assert results["time 0.01"]["update_to_fit_all"]["rounds"] == 2
    assert [(one["preset"], one["learned"]) for one in results["five"]] == [
        (preset, learned) for preset in ("paper", "recommended") for learned in ("random", "highest")
    ]
    for one in results["five"]:
        assert one["judged"] == 1, "4 of 8 images are learned, and five of the others and 2 test images"
        for counts in one["rates"].values():
            assert counts["accepted"] + counts["rejected"] == one["judged"]
            assert counts["then_rejected"] <= counts["accepted"]
            assert counts["then_accepted"] <= counts["rejected"]
    (one,) = results["forget"]
    assert (one["kind"], one["train_images"]) == ("lacking", 8)
    assert one["rows_of_image"] > 0
    assert one["with"]["rows"] - one["forgotten"]["rows"] == one["rows_of_image"]
    p_values = [one[stage]["p_of_image"] for stage in ("with", "forgotten", "never")]
    assert p_values[0] > max(p_values[1:])  # as long as some of its own patches are in the bank it looks usual
    text = told("update", update=content)
    assert "| 0.01 | at random | " in text
    assert "| recommended | the five highest | 1 | 10 % | " in text
    assert "| lacking | 0 | " in text


def counted(local: int, co_occurrence: int, unclear: int = 0) -> dict[str, int]:
    return {"local": local, "co-occurrence": co_occurrence, "unclear": unclear}


def made_up(kinds: dict[str, tuple[str, dict[str, int], float, float]], rate: float = 0.05) -> dict[str, Any]:
    """A run of screws: of each kind what it is, what its rejected ones are called, and its ratios; 10 images each."""
    called = {"good": counted(0, 0), **{kind: calls for kind, (_, calls, _, _) in kinds.items()}}
    return {
        "dataset": "screws",
        "image_seed": 0,
        "train_images": 20,
        "calibration_images": 20,
        "kinds": {
            "good": {"images": 10, "true": "", "local_ratio": 0.5, "context_ratio": 0.8},
            **{
                kind: {"images": 10, "true": true, "local_ratio": local, "context_ratio": context}
                for kind, (true, _, local, context) in kinds.items()
            },
        },
        "rates": [
            {
                "asked": 0.05,
                "rate": rate,
                "called": called,
                "rejected": {kind: sum(calls.values()) for kind, calls in called.items()},
            }
        ],
    }


def test_kinds_sentences_follow_from_the_numbers() -> None:
    run = made_up(
        {
            "lacking": ("co-occurrence", counted(1, 7, 1), 0.6, 1.6),
            "over-coupling": ("co-occurrence", counted(4, 1), 0.55, 0.8),  # told wrongly
            "paint": ("local", counted(0, 0), 0.5, 0.8),  # moves nothing
            "scratch": ("local", counted(1, 0), 0.75, 0.8),  # moves, but not enough
        }
    )
    text = told("kinds", kinds={"results": {"runs": [run, run]}})
    assert "*screws, made* 18 of 30 (60 %) at 5 %. No image" in text
    assert "good one: *screws, made* paint (0 of 20; local ×1.00, context ×1.00)." in text
    assert "good images show: *screws, made* scratch (2 of 20; local ×1.50, context ×1.00)." in text
    assert "are chance: *screws, made* paint." in text
    assert "most cases: *screws, made* over-coupling, which is co-occurrence: 8 of 10 are called local." in text
    assert "smallest possible" not in text
    coarse = made_up({}, rate=1 / 11)
    assert told("kinds", kinds={"results": {"runs": [coarse]}}).endswith("(20 images: 9.1 % instead of 5 %).")


def test_update_sentences_follow_from_the_numbers() -> None:
    def stage(auroc: float, rows: int, rejected: int) -> dict[str, Any]:
        rates = {"0.05": {"rate": 0.05, "rejected": rejected}}
        return {
            "image_auroc": auroc,
            "pixel_auroc": 0.9,
            "rows": rows,
            "good_images": 41,
            "false_rejects": rates,
        }

    runs = [
        {
            "coreset_ratio": 0.1,
            "split": "random",
            "seed": seed,
            "rows_added": 40,
            "seconds": {"update": 1.0, "fit_all": 2.0},
            "half": stage(0.80, 50, 3),
            "updated": stage(updated, 90, 2),
            "all": stage(whole, 100, 1),
        }
        for seed, (updated, whole) in enumerate(((0.845, 0.84), (0.79, 0.86)))
    ]
    text = told("update", update={"results": {"runs": runs, "forget": []}})
    assert "half the images are −0.050 of image AUROC from all" in text
    assert "after the update it is −0.032 (−0.070 to +0.005 in single runs, 1 of 2 within 0.01; between seeds" in text
    assert "by ± 0.014): on average not within 0.01 of fit on all. The bank then has 90 % of its rows." in text
    assert "rejected is 3.0 with half, 2.0 after the update, 1.0 with all at 5 %." in text


def test_verdicts_that_flip_are_counted_over_seeds() -> None:
    before, after = np.array([True, True, False, False, False]), np.array([True, False, False, True, True])
    counts = script("benchmarks/core/update.py").flips(before, after)
    assert counts == {"accepted": 3, "then_rejected": 2, "rejected": 2, "then_accepted": 1}
    one = {"preset": "paper", "coreset_ratio": 0.01, "learned": "random", "learned_first": 100, "judged": 5}
    five = [{**one, "seed": seed, "rates": {"0.05": {"rate": 0.05, **counts}}} for seed in range(2)]
    text = told("update", update={"results": {"dataset": "made", "runs": [], "five": five, "forget": []}})
    assert "*made*: a model of 100 images at coreset ratio 0.01 learns five more good ones, any" in text
    table = [line for line in text.splitlines() if line.startswith("|") and "coreset" not in line]
    assert table[-1] == "| paper | any five | 2 | 5 % | 6 | 4 | 4 | 2 |"
    assert {line.count("|") for line in table[-3:]} == {9}


@pytest.mark.parametrize("name", ["kinds", "update"])
def test_tables_of_the_committed_results(name: str) -> None:
    text = told(name, **script("benchmarks/tables.py").measured(committed(name).parent))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    assert not re.search(r'"/\w', committed(name).read_text(encoding="utf-8"))  # no path of the machine's
