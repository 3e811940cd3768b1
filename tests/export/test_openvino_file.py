"""OpenVINO's two files are written both or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sapatchcore.errors import ModelFileError
from sapatchcore.export import openvino_file


@pytest.mark.parametrize("failing", ["m.xml", "m.bin"])
@pytest.mark.parametrize("before", [True, False])
def test_both_of_openvinos_files_or_none(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, before: bool
) -> None:
    if before:
        shutil.copy(exported / "model.xml", tmp_path / "m.xml")
        shutil.copy(exported / "model.bin", tmp_path / "m.bin")
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == failing and self.suffix == ".part":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ModelFileError, match=r"m\.xml cannot be written: No space left on device"):
        openvino_file.write_both(tmp_path / "m.xml", b"new", b"newer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there
    monkeypatch.undo()
    openvino_file.write_both(tmp_path / "m.xml", b"new", b"newer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"m.xml": b"new", "m.bin": b"newer"}
