"""The demo, shrunk to seconds: its table, its picture, and what it leaves alone."""

from __future__ import annotations

import errno
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore import SAPatchCore, cli, demo
from sapatchcore.demo import HEADS, run_demo
from sapatchcore.errors import DataError
from sapatchcore.show import maps
from sapatchcore.synth.screws import KINDS

SMALL: dict[str, Any] = {"train": 6, "test": 2, "side": 128}
FILES = {
    "screws",
    "PatchCore.safetensors",
    "SA-PatchCore.safetensors",
    "recommended.safetensors",
    "demo.md",
    "demo.png",
}
FOUND = ["Found at 14%", "False rejects"]  # 6 images can promise 1 in 7
ROWS = [
    "Image AUROC",
    *(f"- {kind}" for kind in KINDS[1:]),
    *FOUND,
    "Pixel AUROC",
    "Pixel F1",
    "Milliseconds an image",
]


@pytest.fixture(scope="module", autouse=True)
def _small_network_input() -> Iterator[None]:
    """A sixteenth of the pixels that the demo's networks see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "RESIZE", 64)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of one demo, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "out"
    return folder, run_demo(folder, **SMALL)


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a Markdown table."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {name: values for name, *values in lines}


def test_all_files_are_there_and_named(made: tuple[Path, str]) -> None:
    folder, text = made
    assert {path.name for path in folder.iterdir()} == FILES
    for name in FILES:
        assert str(folder / name) in text
    assert "sapatchcore fit FOLDER_OF_GOOD_IMAGES -o model.safetensors --backbone builtin" in text
    assert len(list((folder / "screws/train/good").iterdir())) == 6
    assert all(len(list((folder / "screws/test" / kind).iterdir())) == 2 for kind in KINDS)


def test_table(made: tuple[Path, str]) -> None:
    folder, text = made
    table = cells((folder / "demo.md").read_text(encoding="utf-8"))
    assert list(table) == ["", "---", *ROWS]
    assert table[""] == ["PatchCore", "SA-PatchCore", "recommended"]
    printed = text.splitlines()
    assert printed[0].split() == table[""]
    for line, name in zip(printed[1:], ROWS, strict=False):  # what is printed and what is written are one table
        assert line.startswith(name)
        assert line[len(name) :].split() == table[name]
        assert all(float(value) > 0 if name in ROWS[-1] else 0 <= float(value) <= 1 for value in table[name])
    assert (folder / "demo.md").read_text(encoding="utf-8").count("128×128") == 1


def test_models_are_the_papers_and_the_recommended(made: tuple[Path, str]) -> None:
    for name, attention in (("PatchCore", "none"), ("SA-PatchCore", "self"), ("recommended", "none")):
        detector = SAPatchCore.load(made[0] / f"{name}.safetensors")
        assert detector.settings.attention == attention
        assert (detector.bank.global_part is not None) == (name == "recommended")
        assert detector.settings.backbone == "builtin"
        assert detector.settings.crop is None  # a screw may lie at the edge


def test_picture(made: tuple[Path, str]) -> None:
    with Image.open(made[0] / "demo.png") as image:
        page = np.asarray(image)
    step = maps.PANEL + maps.GAP
    assert page.shape == (
        maps.HEAD + len(KINDS) * step + maps.FOOT,
        maps.LEFT + len(HEADS) * step,
        3,
    )
    panels = {
        page[top : top + maps.PANEL, left : left + maps.PANEL].tobytes(): (top, left)
        for top in range(maps.HEAD, maps.HEAD + len(KINDS) * step, step)
        for left in range(maps.LEFT, page.shape[1], step)
    }
    assert len(panels) == len(KINDS) * len(HEADS) - 1  # all differ, but for good: nothing to outline


def test_second_run_uses_the_images_again(made: tuple[Path, str]) -> None:
    folder, text = made
    before = {path: path.stat().st_mtime_ns for path in (folder / "screws").rglob("*")}
    (folder / "notes.txt").write_text("mine")
    again = run_demo(folder, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in (folder / "screws").rglob("*")} == before
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()

    def without_times(said: str) -> str:
        return re.sub(r"Milliseconds.*", "", said)

    assert without_times(again) == without_times(text)


def refused(folder: Path, said: str, **counts: int) -> None:
    """run_demo refuses, and leaves every file as it was."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=said):
        run_demo(folder, **{**SMALL, **counts})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_other_images_are_refused(made: tuple[Path, str]) -> None:
    folder, _ = made
    for counts in ({"train": 7}, {"test": 3}, {"side": 130}):
        refused(folder, "holds other images", **counts)
    mine = folder / "screws/train/good/mine.png"
    Image.new("RGB", (128, 128)).save(mine)
    refused(folder, "holds other images")
    mine.unlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [("demo.md", "may be yours"), ("SA-PatchCore.safetensors", "may be yours"), ("screws/a.txt", "is not empty")],
)
def test_foreign_files_are_left_alone(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    refused(tmp_path, said)


def test_a_folder_that_cannot_be_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["sapatchcore", "demo", "-o", str(tmp_path / "file"), "--quiet"])
    assert cli.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("sapatchcore: ")
    assert error.count("\n") == 1
    assert "cannot be written" in error
    assert "--output" in error or "Name another folder" in error
    assert (tmp_path / "file").read_text() == "mine"


def test_full_disk_while_images_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="screws cannot be written: No space left"):
        run_demo(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_at_the_picture(made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made[0] / "screws", tmp_path / "screws")
    rename = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "demo.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"demo\.png cannot be written: No space left.*`output`"):
        run_demo(tmp_path, **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"demo.png", "demo.md"}  # and no part of a file
