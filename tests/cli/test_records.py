"""Watching a folder and reading the records on the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from inspections import inspection
from PIL import Image

from sapatchcore import SAPatchCore

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: install the extra serve")

from sapatchcore.records.record import Filter
from sapatchcore.records.records import Records
from sapatchcore.records.watch import watch
from sapatchcore.server.served import file_hash


@pytest.fixture(scope="module")
def model(good: Any, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a global part."""
    path = tmp_path_factory.mktemp("model") / "texture.safetensors"
    SAPatchCore(**small, coreset_ratio=0.1, global_part="pooled").fit(good).save(path)
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "inspections.sqlite"


def test_a_pass_records_what_predict_says(
    model: Path, image_folder: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image_folder / "other.png")
    rate = ("--false-reject", "0.2")
    assert run("predict", model, image_folder, "--json", *rate) == 0
    expected = {one["path"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (
        run("watch", model, image_folder, "--records", database, "--once", "--keep-images", "rejected", "--json", *rate)
        == 0
    )
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["path"] for one in said} == set(expected)
    with Records(database) as records:
        kept = {one.number: one for one in records.find(Filter())}
        assert len(kept) == len(said) == 11
        for one in said:
            record, prediction = kept[one["record"]], expected[one["path"]]
            assert one == {"path": one["path"], **record.to_dict()}
            assert one["kind"] == prediction["kind"]
            for name in ("score", "local", "context", "p_value", "threshold", "false_reject"):
                assert one[name] == pytest.approx(prediction[name], rel=1e-4), name
            assert one["global_score"] == pytest.approx(prediction["global"], rel=1e-4)
            assert prediction["global_ratio"] > 0
            assert one["notes"] == prediction["notes"]
            assert one["verdict"] == ("reject" if prediction["rejected"] else "accept")
            assert (one["model"], one["model_hash"]) == ("texture", file_hash(model)[0])
            content = (records.image(record.number) or (b"",))[0]
            assert content == (Path(one["path"]).read_bytes() if prediction["rejected"] else b"")
        assert {one.verdict for one in kept.values()} == {"accept", "reject"}
    assert run("watch", model, image_folder, "--records", database, "--once", "--json", *rate) == 0
    assert capsys.readouterr().out == ""


def test_the_text_is_as_of_predict(
    model: Path,
    image_folder: Path,
    database: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(watch.__kwdefaults__, "patience", 0.2)
    (image_folder / "torn\n.png").write_bytes(b"no image")
    assert run("watch", model, image_folder, "--records", database, "--once") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "verdict\tp\tscore\tlocal\tcontext\tglobal\tkind\tpath"
    assert {len(line.split("\t")) for line in lines} == {8}
    assert run("predict", str(model), *sorted(line.split("\t")[-1] for line in lines[1:])) == 0
    of_predict = capsys.readouterr().out.splitlines()
    assert of_predict[0] == f"{lines[0]}\tnotes"
    assert [line.rpartition("\t")[0] for line in of_predict[1:]] == sorted(
        lines[1:], key=lambda line: line.split("\t")[-1]
    )
    assert sorted(line.split("\t")[-1] for line in lines[1:]) == sorted(map(str, image_folder.glob("0*.png")))
    assert {line.split("\t")[0] for line in lines[1:]} <= {"accept", "REJECT"}
    assert any("is not an image that can be read" in line for line in captured.err.splitlines())
    assert run("records", "errors", database, "--json") == 0
    (error,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert error["path"] == str(image_folder / "torn\n.png")
    assert run("records", "errors", database) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_exported_model_is_opened_as_predict_opens_it(
    image_folder: Path, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: install the extra edge")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    sentences = set()
    for call in (["predict", tmp_path / "m.onnx", image_folder], ["watch", tmp_path / "m.onnx", image_folder]):
        assert run(*call, *(["--records", database] if call[0] == "watch" else [])) == 1
        sentences.add(capsys.readouterr().err)
    assert len(sentences) == 1
    assert "m.onnx" in sentences.pop()


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        ({"folder": "nothing"}, "does not exist or is no folder", 1),
        ({"model": "nothing.safetensors"}, "nothing.safetensors", 1),
        ({"records": "no/where.sqlite"}, "does not exist. Make it first", 1),
        ({"--keep-images": "rejects"}, "Did you mean 'rejected'", 2),
        ({"--false-reject": "2"}, "false_reject must be in (0, 1)", 2),
    ],
)
def test_wrong_use_is_a_sentence(
    model: Path,
    image_folder: Path,
    tmp_path: Path,
    change: dict[str, str],
    words: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: dict[str, object] = {"model": model, "folder": image_folder, "records": "r.sqlite"}
    given |= {name: tmp_path / value for name, value in change.items() if not name.startswith("--")}
    options = [word for pair in change.items() if pair[0].startswith("--") for word in pair]
    where = tmp_path / str(given["records"])
    assert run("watch", given["model"], given["folder"], "--records", where, "--once", *options) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_without_packages_it_is_said_what_to_install(
    model: Path, image_folder: Path, database: Path, run_python: Callable[..., Any]
) -> None:
    code = "import sys; sys.modules[sys.argv.pop(1)] = None; from sapatchcore import cli; sys.exit(cli.main())"
    for missing, *arguments in (
        ("sqlalchemy", "records", "list", database),
        ("watchfiles", "watch", model, image_folder, "--records", database),
    ):
        done = run_python(code, missing, *map(str, arguments))
        assert done.returncode == 1
        assert 'pip install "sapatchcore[serve]"' in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_it_watches_until_it_is_told_to_stop(
    light_fitted: SAPatchCore, image_folder: Path, database: Path, tmp_path: Path
) -> None:
    model = tmp_path / "light.safetensors"
    light_fitted.save(model)
    code = "import sys; from sapatchcore import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", code, "watch", str(model), str(image_folder), "--json", "--quiet"]
    environment = {**os.environ, "SAPATCHCORE_RECORDS": str(database), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    try:
        first = [json.loads(child.stdout.readline())["file_name"] for _ in range(10)]
        Image.open(image_folder / "00.png").transpose(Image.Transpose.ROTATE_180).save(image_folder / "new.png")
        assert json.loads(child.stdout.readline())["file_name"] == "new.png"
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, out, err) == (0, "", "")
    assert sorted(first) == [f"{i:02}.png" for i in range(10)]
    with Records(database) as records:
        assert records.count(Filter()) == 11


@pytest.fixture
def filled(database: Path) -> Path:
    with Records(database) as records:
        for i in range(6):
            verdict, kind = ("reject", "local") if i % 2 else ("accept", None)
            records.add([inspection(file_name=f"{i}.png", verdict=verdict, kind=kind, image=bytes(20_000))])
        records.feedback(2, "good", "dust", "Mai")
        records.add([inspection(file_name="a\tb\x1b[31m.png", verdict=None, p_value=None)])
    return database


def test_list(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("records", "list", filled) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["record", "time", "model", "verdict", "p", "score", "kind", "feedback", "file"]
    assert [line[0] for line in lines[1:]] == ["7", "6", "5", "4", "3", "2", "1"]
    assert lines[1][2:] == ["screws", "–", "–", "1.25", "–", "–", "a�b�[31m.png"]
    assert lines[6][2:] == ["screws", "REJECT", "0.5000", "1.25", "local", "good", "1.png"]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--verdict", "reject"], [6, 4, 2]),
        (["--kind", "local", "--before", "6"], [4, 2]),
        (["--feedback", "good"], [2]),
        (["--feedback", "none", "--limit", "2"], [7, 6]),
        (["--file-name", "*1*.png"], [7, 2]),
        (["--model", "kits"], []),
        (["--since", "2999-01-01"], []),
        (["--since", "2026-01-01T06:00", "--until", "2999-01-01T00:00+00:00", "--limit", "1"], [7]),
    ],
)
def test_list_takes_filters(
    filled: Path, options: list[str], numbers: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("records", "list", filled, "--json", *options) == 0
    assert [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()] == numbers


@pytest.mark.parametrize("options", [["--since", "yesterday"], ["--verdict", "bad"], ["--kind", "x"], ["--limit", "0"]])
def test_a_filter_that_cannot_be_meant(filled: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("records", "list", filled, *options) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_export(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: install the extra serve")
    assert run("records", "export", filled, "-o", tmp_path / "r.csv", "--verdict", "reject") == 0
    assert f"{tmp_path / 'r.csv'}: 3 records, " in capsys.readouterr().out
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        assert [row["record"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert run("records", "export", filled, "-o", tmp_path / "r.parquet", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "file": str(tmp_path / "r.parquet"),
        "records": 7,
        "bytes": (tmp_path / "r.parquet").stat().st_size,
    }
    assert parquet.read_table(tmp_path / "r.parquet")["record"].to_pylist() == list(range(1, 8))
    assert run("records", "export", filled, "-o", tmp_path / "r.xlsx") == 2
    assert "must end in .csv or .parquet" in capsys.readouterr().err


def test_prune(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("records", "prune", filled) == 2
    assert "--older-than 30d" in capsys.readouterr().err
    assert run("records", "prune", filled, "--older-than", "1 month") == 2
    assert run("records", "prune", filled, "--older-than", "1d", "--max-size", "1GB", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["records"], printed["images"], printed["good_images"]) == (0, 0, 0)
    assert printed["bytes"] > 100_000
    assert run("records", "prune", filled, "--max-size", f"{(printed['bytes'] - 50_000) / 1000}kB") == 0
    out = capsys.readouterr().out
    assert out.startswith("Deleted 0 records and 3 images; 0.")
    time.sleep(0.01)
    assert run("records", "prune", filled, "--older-than", "0d") == 0
    assert "Deleted 7 records and 3 images (1 of them called good)" in capsys.readouterr().out


def test_records_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["list"], ["export", "-o", tmp_path / "r.csv"], ["prune", "--older-than", "1d"], ["errors"]):
        assert run("records", command[0], tmp_path / "no.sqlite", *command[1:]) == 1
        assert "no.sqlite do not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_the_environment_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAPATCHCORE_RECORDS", "postgresql://joe:s3cretword@127.0.0.1:1/line")
    assert run("records", "list") == 1
    error = capsys.readouterr().err
    assert "postgresql://joe@127.0.0.1:1/line" in error
    assert "s3cretword" not in error
    run("records", "list", "--help")
    run("watch", "--help")
    assert "s3cretword" not in "".join(capsys.readouterr())
