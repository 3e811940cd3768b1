"""The command line as a user meets it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image
from typer.main import get_command

from sapatchcore.cli import app, with_flags
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


def test_fit_says_what_it_kept(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), "--json", *SMALL) == 0
    facts = json.loads(capsys.readouterr().out)
    # 24 images of 8×8 patches, of which 5 % are kept.
    assert facts == {
        "model": str(path),
        "training_images": 24,
        "bank": [76, 384],
        "calibration_images": 24,
        "bytes": path.stat().st_size,
    }
    assert run("fit", str(root / "bench"), "-o", str(path), *SMALL) == 0
    text = capsys.readouterr().out
    assert "learned from 24 images, kept 76 patches of 384 numbers" in text
    assert "24 calibration scores: a false-reject rate down to 4.00% can be promised." in text


def test_fit_without_weights_is_smaller_and_loads(root: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), "--no-weights", *SMALL) == 0
    assert path.stat().st_size < model.stat().st_size / 10
    assert run("predict", str(path), str(root / "bench/test/good")) == 0


def test_predict_prints_one_line_an_image(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(root / "bench/test" / name) for name in ("good", "over-coupling/000.png")]
    assert run("predict", str(model), *images, "--false-reject", "0.5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "verdict\tp\tscore\tlocal\tcontext\tkind\tpath"
    assert len(lines) == 1 + 8 + 1
    for line in lines[1:]:
        word, *numbers, kind, _ = line.split("\t")
        p, score, local, context = map(float, numbers)
        assert score**2 == pytest.approx(local**2 + context**2, rel=1e-4)
        assert word == ("REJECT" if p <= 0.5 else "accept")
        assert kind in (("local", "co-occurrence", "both") if word == "REJECT" else ("–",))
    assert {line.split("\t")[0] for line in lines[1:]} == {"REJECT", "accept"}
    assert lines[-1].endswith("over-coupling/000.png")


def test_predict_with_another_search(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for search in ("exact", "int8"):
        assert run("predict", str(model), str(root / "bench/test"), "--json", "--search", search) == 0
        found.append([json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert run("predict", str(model), str(root / "bench/test"), "--search", "fais") == 2
    assert "search must be 'exact', 'float16', 'int8' or 'faiss'. Got 'fais'. Did you mean 'faiss'?" in " ".join(
        capsys.readouterr().err.split()
    )


def test_predict_json_lines(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sapatchcore import SAPatchCore

    assert run("predict", str(model), str(root / "bench/test"), "--json") == 0
    captured = capsys.readouterr()
    assert "24 calibration images can promise no smaller false-reject rate than 4.00%: that is used." in captured.err
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert len(lines) == 24
    result = SAPatchCore.load(model).predict([line["path"] for line in lines])
    for i, (line, verdict) in enumerate(zip(lines, result.verdicts(0.04), strict=True)):
        assert line["rejected"] is verdict.rejected
        assert line["p_value"] == result.p_values[i]
        assert line["threshold"] == pytest.approx(result.calibration.scores.max())  # type: ignore[union-attr]
        assert line["kind"] == (verdict.kind or None)
        assert [tuple(one["box"]) for one in line["regions"]] == [one.box for one in result.regions(i, 0.04)]


def test_predict_without_calibration_says_so(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = root / "bench/train/good/000.png"
    assert run("fit", str(image.parent), "-o", str(tmp_path / "many"), *SMALL) == 0
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.png").write_bytes(image.read_bytes())
    assert run("fit", str(tmp_path / "one"), "-o", str(tmp_path / "m"), *SMALL) == 0
    assert "No calibration: one image alone cannot be left out." in capsys.readouterr().out
    assert run("predict", str(tmp_path / "m"), str(image)) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].startswith("–\t–\t")
    assert captured.err.startswith("No verdicts. There are no scores of good images")
    assert run("predict", str(tmp_path / "m"), str(image), "--false-reject", "0.1") == 1


def test_calibration_with_separate_images(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    separate = root / "bottle/train/good"
    path = tmp_path / "m"
    assert run("fit", str(root / "bench"), "-o", str(path), "--calibrate", str(separate), *SMALL) == 0
    assert run("info", str(path), "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["calibration"]["source"], facts["calibration"]["images"]) == ("separate", 24)


def test_validation_images_are_for_the_thresholds_alone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MVTec LOCO AD's layout: what is kept apart there is not learned from, and calibrates; elsewhere nothing is."""
    source, category, path = root / "bench", tmp_path / "loco", tmp_path / "m"
    parts = {
        "train/good": "train/good",
        "validation/good": "test/good",
        "test/good": "test/good",
        "test/logical_anomalies": "test/over-coupling",
        "test/structural_anomalies": "test/scratch",
    }
    for target, origin in parts.items():
        shutil.copytree(source / origin, category / target)
    for data, expected in ((category, ("separate", 8)), (source, ("left out", 24))):
        assert run("fit", str(data), "-o", str(path), *SMALL) == 0
        assert run("info", str(path), "--json") == 0
        facts = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (facts["calibration"]["source"], facts["calibration"]["images"]) == expected
        assert facts["training_images"] == 24


def test_update_and_forget_change_a_model_file(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, more = tmp_path / "m", root / "bottle/train/good"
    path.write_bytes(model.read_bytes())
    assert run("update", str(path), str(more), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["training_images"], facts["calibration_images"]) == (48, 48)
    assert facts["bank"][0] == 76 + facts["added"]
    assert run("update", str(path), str(more)) == 1
    assert "was learned from already" in capsys.readouterr().err
    first = str(more / "000.png")
    assert run("forget", str(path), first, "-o", str(tmp_path / "other"), "--json") == 0
    less = json.loads(capsys.readouterr().out)
    assert (less["training_images"], less["calibration_images"]) == (47, 47)
    assert less["bank"][0] == facts["bank"][0] - less["removed"]
    assert run("info", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["training_images"] == 48, "-o leaves the model itself as it is"
    assert run("forget", str(tmp_path / "other"), first) == 1
    assert "is not among the 47 images that were learned from" in capsys.readouterr().err
    assert run("predict", str(tmp_path / "other"), first) == 0


def test_gif_of_a_model(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.gif"
    assert run("gif", str(model), str(root / "bench"), "-o", str(path), "--most", "5", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == path.stat().st_size
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("GIF", 5)  # type: ignore[attr-defined]


def test_report_of_a_model(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, table = tmp_path / "r.html", tmp_path / "r.csv"
    command = ["report", str(model), str(root / "bench"), "-o", str(page), "--false-reject", "0.5"]
    assert run(*command) == 0
    assert capsys.readouterr().out == f"{page}: 24 images, {page.stat().st_size / 1e6:.1f} MB.\n"
    assert page.read_text().count("nearest good patch") >= 24
    assert run(*command, "--csv", str(table), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["image_auroc"] is not None
    verdicts = figures["verdicts"]
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [row["path"] for row in rows] == [verdict["path"] for verdict in verdicts]
    assert run("predict", str(model), *[row["path"] for row in rows], "--false-reject", "0.5", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, verdict in zip(lines, verdicts, strict=True):
        assert (verdict["verdict"] == "reject") is line["rejected"]
        assert verdict["p_value"] == line["p_value"]
        assert [one["box"] for one in verdict["regions"]] == [one["box"] for one in line["regions"]][:3]


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


def test_benchmark_makes_a_gif_a_category(root: Path, tmp_path: Path) -> None:
    arguments = ["--compare", "none", "--seeds", "0,1", "-o", str(tmp_path), "--gifs", *SMALL]
    assert run("benchmark", str(root), *arguments) == 0
    assert {file.name for file in (tmp_path / "gifs").iterdir()} == {"bottle.gif", "bench.gif"}


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
        (["predict", "{model}", "{root}/bench/test/good", "--false-reject", "0.001"], 2, "at least 0.04, the smallest"),
        (["predict", "{model}", "{root}/bench/test/good", "--false-reject", "2"], 2, "must be in (0, 1). Got 2"),
        (["fit", "{root}/bench", "-o", "{tmp}/m", "--calibrate", "{root}/no", *SMALL], 1, "does not exist"),
        (["update", "{model}", "{root}/no", "-o", "{tmp}/m"], 1, "does not exist"),
        (["update", "{tmp}/text.png", "{root}"], 1, "cut off or no model file"),
        (["forget", "{model}", "no.png", "-o", "{tmp}/m"], 1, "no.png is not among the 24 images"),
        (["gif", "{model}", "{root}/bench/test/good", "-o", "{tmp}/a.gif"], 1, "has no test images to show"),
        (["gif", "{model}", "{root}/bench", "-o", "{tmp}/a.gif", "--most-bytes", "1000"], 1, "at least one frame"),
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
    assert run("predict", str(model), str(root / "bench/test/good"), "--false-reject", "0.1") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    assert run("predict", str(model), str(root / "bench/test/good")) == 0
    drawn = capsys.readouterr()
    assert "Scoring" in drawn.err
    assert "8/8" in drawn.err
    assert "Scoring" not in drawn.out
    assert run("predict", str(model), str(root / "bench/test/good"), "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_options_of_the_library_are_said_as_flags() -> None:
    sentence = "`batch_size` 3 and `csv_file`: see `ray status`, or `address` local, or /tmp/a_b."
    assert with_flags(sentence) == "--batch-size 3 and --csv: see `ray status`, or --ray local, or /tmp/a_b."


def test_json_is_a_flag_everywhere() -> None:
    commands, found = [get_command(app)], 0
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            if "--json" in parameter.opts:
                assert getattr(parameter, "is_flag", False), command.name
                found += 1
    assert found > 10


def test_help_does_not_wait_for_pytorch() -> None:
    code = "import sys, sapatchcore.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
