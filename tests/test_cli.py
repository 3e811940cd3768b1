"""The command line as a user meets it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sapatchcore import cli
from sapatchcore.synth.write import write_dataset
from sapatchcore.verify.tables import MVTEC_AD

SMALL = ["--backbone", "resnet18", "--weights", "random", "--resize", "64", "--crop", "none", "--coreset-ratio", "0.05"]


def make_screws(folder: Path, *, seed: int) -> None:
    """24 good images to learn from; to test 8 good ones, 8 of a local defect, 8 of a wrong combination."""
    test = dict.fromkeys(("good", "scratch", "over-coupling"), 8)
    write_dataset(folder, "screws", side=96, train=24, test=test, seed=seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two categories, bottle and bench, in MVTec AD's layout."""
    folder = tmp_path_factory.mktemp("root")
    make_screws(folder / "bottle", seed=1)
    make_screws(folder / "bench", seed=2)
    return folder


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "bench.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), *SMALL) == 0
    return path


def run(*arguments: str) -> int:
    """The exit code of ``sapatchcore arguments`` in this process."""
    before, sys.argv = sys.argv, ["sapatchcore", *arguments]
    try:
        return cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before


def test_fit_says_what_it_kept(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), "--json", *SMALL) == 0
    facts = json.loads(capsys.readouterr().out)
    # 24 images of 8×8 patches, of which 5 % are kept.
    assert facts == {"model": str(path), "training_images": 24, "bank": [76, 384], "bytes": path.stat().st_size}


def test_fit_without_weights_is_smaller_and_loads(root: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), "--no-weights", *SMALL) == 0
    assert path.stat().st_size < model.stat().st_size / 10
    assert run("predict", str(path), str(root / "bench/test/good")) == 0


def test_predict_prints_one_line_an_image(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(root / "bench/test" / name) for name in ("good", "over-coupling/000.png")]
    assert run("predict", str(model), *images) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "score\tlocal\tcontext\tpath"
    assert len(lines) == 1 + 8 + 1
    score, local, context = (float(value) for value in lines[-1].split("\t")[:3])
    assert score**2 == pytest.approx(local**2 + context**2, rel=1e-4)
    assert lines[-1].endswith("over-coupling/000.png")


def test_predict_json_lines(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", str(model), str(root / "bench/test"), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 24
    assert set(lines[0]) == {"path", "score", "local", "context"}


@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
def test_maps_are_the_results_maps(root: Path, model: Path, tmp_path: Path, kind: str) -> None:
    from sapatchcore import SAPatchCore

    images = root / "bench/test/scratch"
    assert run("predict", str(model), str(images), "--maps", str(tmp_path), "--map-format", kind) == 0
    result = SAPatchCore.load(model).predict(images)
    file = tmp_path / f"000.png.{kind}"
    if kind == "npy":
        values = np.load(file)
    else:
        with Image.open(file) as image:
            values = np.asarray(image, dtype=np.float32)
            if kind == "png":
                assert image.mode.startswith("I;16")
                values = values * float(image.text["scale"])
    np.testing.assert_allclose(values, result.maps[0], atol=float(result.patch_scores.max()) / 65535)
    assert len(list(tmp_path.iterdir())) == 8


def test_evaluate_prints_and_saves(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "figures.json"
    assert run("evaluate", str(root / "bench"), "-o", str(path), *SMALL) == 0
    text = capsys.readouterr().out
    figures = json.loads(path.read_text())
    for name in ("Image AUROC", "scratch", "over-coupling", "Pixel AUROC", "Pixel F1", "AUPRO"):
        assert name in text
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


def test_benchmark_makes_three_tables_in_order(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--compare", "none", "--seeds", "0,1", "-o", str(tmp_path), "--format", "markdown", *SMALL]
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
    assert {file.name for file in tmp_path.iterdir()} == {f"benchmark.{kind}" for kind in ("json", "md", "csv", "txt")}


def test_benchmark_of_chosen_categories(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--categories", "bottle", "-o", str(tmp_path), "--format", "csv", *SMALL]
    assert run("benchmark", str(root), *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "table,model,column,mean,spread"
    assert sum(line.split(",")[3] != "" for line in lines[1:]) == 3 * 2  # Avg and Bottle in three tables


def test_info_tells_what_a_model_holds(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", str(model), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bank"] == "76 patches of 384 numbers"
    assert facts["training_images"] == 24
    assert facts["settings"]["coreset_ratio"] == 0.05
    assert run("info", str(model)) == 0
    assert "coreset_ratio      0.05" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["fit", "{root}/bench", "-o", "{tmp}/m", "--coreset-ratio", "3"],
            2,
            "coreset_ratio must be in (0, 1]. Got 3.",
        ),
        (["fit", "{root}/bench", "-o", "{tmp}/m", "--attention", "selff"], 2, "Did you mean 'self'?"),
        (["fit", "{root}/bench", "-o", "{tmp}/m", "--corset-ratio", "0.1"], 2, "No such option"),
        (["fit", "{root}/bench", "-o", "{tmp}/nowhere/m", *SMALL], 2, "does not exist. Make it first."),
        (["fit", "{root}/nothing", "-o", "{tmp}/m", *SMALL], 1, "does not exist"),
        (["fit", "{root}/bench/ground_truth", "-o", "{tmp}/m", *SMALL], 1, "none of the known layouts"),
        (["fit", "{root}/bench", "-o", "{tmp}/m", "--layout", "mvtek", *SMALL], 2, "Did you mean 'mvtec'?"),
        (["predict", "{root}/none.safetensors", "{root}"], 1, "does not exist"),
        (["predict", "{model}", "{root}/no.png"], 1, "no.png"),
        (
            ["predict", "{model}", "{root}/bench/test/good", "--maps", "{tmp}/x", "--map-format", "gif"],
            2,
            "png, tiff, npy",
        ),
        (["predict", "{tmp}/text.png", "{root}"], 1, "cut off or no model file"),
        (["predict", "{model}", "{tmp}/text.png"], 1, "text.png"),
        (["evaluate", "{root}/bench/test/good", "-o", "{tmp}/f.json", *SMALL], 1, "has no test images"),
        (["evaluate", "{root}", "-o", "{tmp}/f.json", *SMALL], 1, "Open one of them"),
        (["benchmark", "{root}", "--categories", "botle", *SMALL], 1, "Did you mean 'bottle'?"),
        (["benchmark", "{root}", "--seeds", "a", *SMALL], 2, "seeds must be whole numbers"),
        (["benchmark", "{root}", "--compare", "nothing", *SMALL], 2, "compare must be one of self, none"),
        (["benchmark", "{root}", "--format", "html", *SMALL], 2, "format must be"),
        (["info", "{root}"], 1, "does not exist"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    arguments: list[str],
    code: int,
    text: str,
    root: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.png").write_text("not an image")
    filled = [part.format(root=root, tmp=tmp_path, model=model) for part in arguments]
    assert run(*filled) == code
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error
    assert [file.name for file in tmp_path.iterdir()] == ["text.png"]  # nothing half-written


def test_progress_is_drawn_on_a_terminal_only(
    root: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", str(model), str(root / "bench/test/good")) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    assert run("predict", str(model), str(root / "bench/test/good")) == 0
    drawn = capsys.readouterr()
    assert "Scoring" in drawn.err
    assert "8/8" in drawn.err
    assert "Scoring" not in drawn.out
    assert run("predict", str(model), str(root / "bench/test/good"), "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_help_does_not_wait_for_pytorch() -> None:
    code = "import sys, sapatchcore.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
