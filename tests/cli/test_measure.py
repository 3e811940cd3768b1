"""evaluate and benchmark as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from made_screws import SMALL, make_screws

from sapatchcore.verify.tables import MVTEC_AD


def test_evaluate_prints_and_saves(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "figures.json"
    assert run("evaluate", str(root / "bench"), "-o", str(path), *SMALL) == 0
    text = capsys.readouterr().out
    figures = json.loads(path.read_text())
    for name in ("Image AUROC", "scratch", "over-coupling", "Pixel AUROC", "Pixel F1", "AUPRO"):
        assert name in text
    promised, labelled = (figures["decisions"][name] for name in ("promised", "best_of_labels"))
    assert "(promised false rejects 4.00%)" in text
    assert "(best F-beta, from the test's own labels: optimistic)" in text
    assert (promised["from"], promised["false_reject"]) == ("good images alone", 0.04)
    assert labelled["image"] == figures["image_threshold"]
    for one, at_least in ((promised, False), (labelled, True)):
        for label, counts in one["rejected"].items():
            scores = [row["score"] for row in figures["scores"] if row["label"] == label]
            found = sum(score > one["image"] or (at_least and score == one["image"]) for score in scores)
            assert counts == {"rejected": found, "of": 8}
    assert f"{figures['image_auroc']:.4f}" in text
    assert set(figures["per_defect_auroc"]) == {"scratch", "over-coupling"}
    assert len(figures["scores"]) == 24
    assert figures["settings"]["resize"] == [64, 64]


def test_evaluate_with_a_model_gives_the_same(root: Path, model: Path, tmp_path: Path) -> None:
    for name, extra in (("a", SMALL), ("b", ["--model", str(model)])):
        assert run("evaluate", str(root / "bench"), "-o", str(tmp_path / f"{name}.json"), *extra) == 0
    fitted, loaded = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    assert fitted["scores"] == loaded["scores"]


def test_evaluate_without_masks_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    make_screws(bare, seed=0)
    for file in (bare / "ground_truth").rglob("*.png"):
        file.unlink()
    for folder in ("scratch", "over-coupling", ""):
        (bare / "ground_truth" / folder).rmdir()
    assert run("evaluate", str(bare), "-o", str(tmp_path / "f.json"), *SMALL) == 0
    assert "–  (no ground-truth masks)" in capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["pixel_auroc"] is None
    assert figures["reasons"]["pixel_auroc"] == "no ground-truth masks"


def test_benchmark_makes_three_tables_in_order_and_a_gif_a_category(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--compare", "none", "--seeds", "0,1", "-o", str(tmp_path), "--format", "markdown", "--gifs", *SMALL]
    assert run("benchmark", str(root), *arguments) == 0
    text = capsys.readouterr().out
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**Image-Level AUC**", "**Pixel-Level AUC**", "**Pixel F1 Score**"]
    header = [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]
    names = [name.replace("_", " ").title() for name in MVTEC_AD]
    assert header == ["", "Avg", *names, "bench"]
    row = [cell.strip() for cell in text.splitlines()[4].strip("|").split("|")]
    assert row[0] == "SA-PatchCore"
    assert row[header.index("Carpet")] == "–"  # did not run
    runs = json.loads((tmp_path / "benchmark.json").read_text())["runs"]
    assert [(run["category"], run["model"], run["seed"]) for run in runs] == [
        (category, name, seed)
        for category in ("bench", "bottle")
        for name in ("SA-PatchCore", "PatchCore")
        for seed in (0, 1)
    ]
    mean = np.mean([run["image_auroc"] for run in runs if run["model"] == "SA-PatchCore"])
    assert row[1].startswith(f"{mean:.4f}")
    tables = {f"benchmark.{kind}" for kind in ("json", "md", "csv", "txt")}
    assert {file.name for file in tmp_path.iterdir()} == {*tables, "gifs"}
    assert {file.name for file in (tmp_path / "gifs").iterdir()} == {"bottle.gif", "bench.gif"}


def test_benchmark_of_chosen_categories(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--categories", "bottle", "-o", str(tmp_path), "--format", "csv", *SMALL]
    assert run("benchmark", str(root), *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "table,model,column,mean,spread"
    assert sum(line.split(",")[3] != "" for line in lines[1:]) == 3 * 2  # Avg and Bottle in three tables


def test_log_to_a_tracker(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = ["--log", "tensorboard", "-o"]
    assert run("fit", str(root / "bench"), *given, str(tmp_path / "m"), "--json", *SMALL) == 0
    figures = tmp_path / "f.json"
    assert run("evaluate", str(root / "bench"), *given, str(figures), "--json", "--model", str(model)) == 0
    assert run("benchmark", str(root), *given, str(tmp_path / "b"), "--format", "json", *SMALL) == 0
    for text in capsys.readouterr().out.splitlines()[:2]:
        json.loads(text)  # nothing else is on standard output
    folders = [tmp_path / "tensorboard/m", tmp_path / "tensorboard/bench", tmp_path / "b/tensorboard/b"]
    fitted, evaluated, compared = (EventAccumulator(str(folder)).Reload() for folder in folders)
    assert fitted.Scalars("fit/training_images")[0].value == 24
    expected = json.loads(figures.read_text())["image_auroc"]
    assert evaluated.Scalars("image_auroc")[0].value == pytest.approx(expected)
    assert set(evaluated.Tags()["images"]) == {"good", "scratch", "over-coupling"}
    assert "SA-PatchCore/bottle/image_auroc" in compared.Tags()["scalars"]
    assert "SA-PatchCore/bottle/scratch" in compared.Tags()["images"]
    assert run("fit", str(root / "bench"), "-o", str(tmp_path / "m"), "--log", "tensorbord", *SMALL) == 2
    assert "Did you mean 'tensorboard'?" in capsys.readouterr().err
