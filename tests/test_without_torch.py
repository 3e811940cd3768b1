"""Where PyTorch is not installed: exported models score, and all else says in a sentence what to install.

Every test runs in a Python of its own, in which the packages of the extra "learn" are not to be found.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import made_result
import numpy as np
import pytest
from PIL import Image

import sapatchcore
from sapatchcore.errors import LEARN, MissingPackageError, SAPatchCoreError, learn_needed

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/sapatchcore"
RunPython = Callable[..., subprocess.CompletedProcess[str]]

# What scoring with an exported model imports.
MODULES = (
    *("settings", "errors", "atomic", "result", "cli", "export.runtime", "show.maps", "show.drawing"),
    *(f"data.{file.stem}" for file in (PACKAGE / "data").glob("[a-z]*.py")),
    *(f"cli.{file.stem}" for file in (PACKAGE / "cli").glob("[a-z]*.py")),
    *(f"score.{name}" for name in ("anomaly_score", "calibration", "threshold", "verdict", "regions", "drift")),
)

WITHOUT = f"""
import importlib.abc
import json
import sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(LEARN)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
"""

# Each of the given command lines, as ``sapatchcore`` runs it: how it ended and what it printed.
COMMANDS = """
import contextlib, io
from sapatchcore import cli

ended = []
for line in json.loads(sys.argv[1]):
    sys.argv = ["sapatchcore", *line]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = cli.main()
        except SystemExit as stop:
            code = stop.code or 0
    ended.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ended))
"""


@pytest.fixture
def without(run_python: RunPython) -> Callable[..., str]:
    """``without(code, *arguments)``: what the code prints in a Python without the packages of "learn"."""

    def run(code: str, *arguments: str) -> str:
        done = run_python(WITHOUT + code, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_packages_are_the_extra_learn() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {re.split(r"[<>=~! ]", package)[0].replace("-", "_") for package in extras["learn"]}
    assert named == LEARN


def test_what_scores_imports_none_of_them(without: Callable[..., str]) -> None:
    """One by one, so that none is there for another's sake."""
    code = """
import importlib
failed = {}
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.partition(".")[0] == "sapatchcore"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(f"sapatchcore.{name}")
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""
    assert json.loads(without(code, *MODULES)) == {}
    assert json.loads(without(code, "embed.backbone")) == {"embed.backbone": "No module named 'torch'"}, "can fail"


def test_results_are_the_same_to_the_bit(without: Callable[..., str], tmp_path: Path) -> None:
    code = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pathlib, numpy, made_result
numpy.savez(sys.argv[1], **made_result.answers(pathlib.Path(sys.argv[2])))
"""
    without(code, str(tmp_path / "answers.npz"), str(tmp_path / "there"))
    expected = made_result.answers(tmp_path / "here")
    with np.load(tmp_path / "answers.npz") as found:
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert len(set(expected["verdicts"].tolist())) == 9
    assert sum(len(values) for name, values in expected.items() if name.startswith("regions")) > 9


def test_help_version_and_made_images(without: Callable[..., str], tmp_path: Path) -> None:
    made = ["synth", "kits", str(tmp_path / "made"), "--side", "96", "--train", "2", "--test", "1", "--json"]
    lines = [["--version"], ["--help"], ["predict", "--help"], ["fit", "--help"], made]
    ended = json.loads(without(COMMANDS, json.dumps(lines)))
    assert [code for code, _, _ in ended] == [0] * 5, ended
    assert ended[0][1] == f"{sapatchcore.__version__}\n"
    assert "predict" in ended[1][1]
    assert "--coreset-ratio" in ended[3][1]
    assert json.loads(ended[4][1])["train"] == 2


def test_what_learns_says_what_to_install(without: Callable[..., str], tmp_path: Path) -> None:
    """Exit code 1, one sentence with the remedy, nothing written; wrong use is told first."""
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 40)).save(images / "a.png")
    model, here, out = str(tmp_path / "m.safetensors"), str(images), str(tmp_path / "out")
    lines = [
        ["fit", here, "-o", out],
        ["update", model, here],
        ["forget", model, "a.png"],
        ["predict", model, here],
        ["report", model, here, "-o", out],
        ["gif", model, here, "-o", out],
        ["evaluate", here, "-o", out],
        ["benchmark", here, "-o", out],
        ["info", model],
        ["export", model, "-o", f"{out}.onnx"],
        ["demo", "-o", out],
        ["synth", "defects", here, out],
    ]
    ended = json.loads(without(COMMANDS, json.dumps([*lines, ["fit", here, "-o", out, "--coreset-ratio", "3"]])))
    sentence = (
        r"sapatchcore: Learning and model files need PyTorch and its companions, and \w+ is not installed: "
        r'pip install "sapatchcore\[learn\]"\. Exported models \(\.onnx, \.xml\) need none of them\.\n'
    )
    for line, (code, printed, error) in zip(lines, ended, strict=False):
        assert (code, printed) == (1, ""), (line, error)
        assert re.fullmatch(sentence, error), (line, error)
    assert ended[-1][0] == 2
    assert "coreset_ratio must be in (0, 1]" in ended[-1][2]
    assert [file.name for file in tmp_path.iterdir()] == ["images"]


def test_public_names(without: Callable[..., str]) -> None:
    """``from sapatchcore import SAPatchCore`` is an import that failed, and a sentence of this package's."""
    code = """
import sapatchcore
ended = {}
for name in sapatchcore.__all__:
    try:
        exec(f"from sapatchcore import {name}")
        ended[name] = ""
    except ImportError as error:
        ended[name] = [type(error).__name__, isinstance(error, sapatchcore.SAPatchCoreError), error.name, str(error)]
print(json.dumps(ended))
"""
    ended = json.loads(without(code))
    failed = {name: error for name, error in ended.items() if error}
    assert set(failed) == {"SAPatchCore", "Explanation"}
    for kind, own, missing, sentence in failed.values():
        assert (kind, own) == ("MissingPackageError", True)
        assert missing in LEARN
        assert f'{missing} is not installed: pip install "sapatchcore[learn]"' in sentence


def test_only_these_packages_have_the_sentence() -> None:
    """A module that is not found for another reason is a defect: its traceback is not hidden."""
    with pytest.raises(ModuleNotFoundError) as caught, learn_needed():
        raise ModuleNotFoundError("No module named 'torch._C'", name="torch._C")
    assert not isinstance(caught.value, SAPatchCoreError)
    with pytest.raises(MissingPackageError, match="and einops is not installed") as missing, learn_needed():
        raise ModuleNotFoundError("No module named 'einops'", name="einops")
    assert missing.value.name == "einops"
    assert missing.value.exit_code == 1
    with pytest.raises(ImportError, match="cannot import name"), learn_needed():
        raise ImportError("cannot import name 'x' from 'torch'", name="torch")
