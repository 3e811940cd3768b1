"""predict, report and gif as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from made_screws import SMALL, make_screws
from PIL import Image


def test_predict_prints_one_line_an_image(root: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(root / "bench/test" / name) for name in ("good", "over-coupling/000.png")]
    assert run("predict", str(model), *images, "--false-reject", "0.5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "verdict\tp\tscore\tlocal\tcontext\tkind\tpath\tnotes"
    assert len(lines) == 1 + 8 + 1
    for line in lines[1:]:
        word, *numbers, kind, _, notes = line.split("\t")
        p, score, local, context = map(float, numbers)
        assert score**2 == pytest.approx(local**2 + context**2, rel=1e-4)
        assert word == ("REJECT" if p <= 0.5 else "accept")
        assert kind in (("local", "co-occurrence", "unclear") if word == "REJECT" else ("–",))
        assert notes == "–"
    assert {line.split("\t")[0] for line in lines[1:]} == {"REJECT", "accept"}
    assert lines[-1].split("\t")[6].endswith("over-coupling/000.png")


def test_predict_notes_what_is_unlike_the_training_images(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Image.open(root / "bench/test/good/000.png")
    narrow = tmp_path / "narrow.png"
    whole.resize((whole.width // 3, whole.height)).save(narrow)
    assert run("predict", str(model), str(narrow)) == 0
    said = capsys.readouterr().out.splitlines()[1].split("\t")[7]
    assert said.startswith("Narrower than the training images: width / height is 0.3")
    assert run("predict", str(model), str(narrow), "--json") == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [said]


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
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.png").write_bytes(image.read_bytes())
    assert run("fit", str(tmp_path / "one"), "-o", str(tmp_path / "m"), *SMALL) == 0
    assert "No calibration: one image alone cannot be scored by others." in capsys.readouterr().out
    assert run("predict", str(tmp_path / "m"), str(image)) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].startswith("–\t–\t")
    assert captured.err.startswith("No verdicts. There are no scores of good images")
    assert run("predict", str(tmp_path / "m"), str(image), "--false-reject", "0.1") == 1


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


def test_gif_of_a_model(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.gif"
    assert run("gif", str(model), str(root / "bench"), "-o", str(path), "--most", "5", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["bytes"] == path.stat().st_size
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("GIF", 5)  # type: ignore[attr-defined]


def test_report_of_a_model(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, table = tmp_path / "r.html", tmp_path / "r.csv"
    make_screws(tmp_path / "few", seed=3, train=1, test=1)
    given = ["-o", str(page), "--false-reject", "0.5"]
    assert run("report", str(model), str(tmp_path / "few"), *given) == 0
    assert capsys.readouterr().out == f"{page}: 3 images, {page.stat().st_size / 1e6:.1f} MB.\n"
    assert run("report", str(model), str(root / "bench"), *given, "--csv", str(table), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert page.read_text().count("nearest good patch") >= 24
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
