"""The command line as a whole: what goes wrong, progress, flags, help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import run
from made_screws import SMALL
from typer.main import get_command

from sapatchcore.cli import app, with_flags


def test_info_tells_what_a_model_holds(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", str(model), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["bank"] == "76 patches of 384 numbers"
    assert printed["training_images"] == 24
    assert printed["settings"]["coreset_ratio"] == 0.05
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
        (
            ["gif", "{model}", "{root}/bench", "-o", "{tmp}/a.gif", "--most", "2", "--most-bytes", "1000"],
            1,
            "at least one frame",
        ),
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
