"""A file is written whole or not at all, whatever fails."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.atomic import atomic_write, write_bytes, write_json, write_text
from sapatchcore.errors import DataError, ModelFileError
from sapatchcore.show.maps import FORMATS, write_maps

FULL = OSError(errno.ENOSPC, "No space left on device")


def sentence(error: OSError) -> str:
    return f"It is not written: {error.strerror or error}."


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[False, True], ids=["new", "existing"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file's path; in one of two runs there is a file already."""
    path = tmp_path / "figures.json"
    if request.param:
        path.write_text("before")
    return path


@pytest.fixture
def unchanged(target: Path) -> Iterator[None]:
    """The folder is afterwards as it was."""
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    yield
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before


@pytest.mark.parametrize("durable", [False, True])
def test_the_target_changes_at_the_end(target: Path, durable: bool) -> None:
    there = target.exists()
    with atomic_write(target, DataError, sentence, durable=durable) as part:
        assert part.parent == target.parent
        assert part.stat().st_size == 0
        part.write_text("after")
        assert target.exists() == there
        assert not there or target.read_text() == "before"
    assert target.read_text() == "after"
    assert names(target.parent) == ["figures.json"]


def test_durable_waits_for_the_disk(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def seen(number: int) -> None:
        found = os.fstat(number)
        synced.append("the folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")

    monkeypatch.setattr(os, "fsync", seen)
    for durable in (False, True):
        with atomic_write(target, DataError, sentence, durable=durable) as part:
            part.write_text("after")
    assert synced == ["5 bytes", "the folder"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), DataError("a sentence of its own")])
def test_an_error_of_the_block_goes_on(target: Path, error: BaseException) -> None:

    def write() -> None:
        with atomic_write(target, ModelFileError, sentence) as part:
            part.write_text("half of")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("step", ["block", "fsync", "replace"])
def test_a_full_disk(target: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FULL

    if step != "block":
        monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], fail)

    def write() -> None:
        with atomic_write(target, ModelFileError, sentence, durable=True) as part:
            part.write_text("half of")
            if step == "block":
                fail()

    with pytest.raises(ModelFileError, match=r"^It is not written: No space left on device\.$"):
        write()


def test_a_failure_to_tidy_up_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(DataError, match="No space left"), atomic_write(tmp_path / "x", DataError, sentence):
        raise FULL


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have file modes")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("private", [False, True], ids=["written to", "put there"])
def test_mode_of_any_new_file(target: Path, umask: int, private: bool) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(target, DataError, sentence) as part:
            if private:  # as safetensors writes
                other = part.with_suffix(".other")
                other.touch(mode=0o600)
                other.replace(part)
            part.write_text("after")
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_two_writers_do_not_meet(target: Path) -> None:
    with atomic_write(target, DataError, sentence) as one, atomic_write(target, DataError, sentence) as other:
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"  # it ended last
    assert names(target.parent) == ["figures.json"]


def test_a_missing_folder_is_said_or_made(tmp_path: Path) -> None:
    path = tmp_path / "no" / "deeper" / "x"
    text = f"{path} cannot be written: No such file or directory. Choose a folder that exists and is yours."
    with pytest.raises(ModelFileError) as caught, atomic_write(path, ModelFileError, sentence):
        pytest.fail("the block must not run")
    assert str(caught.value) == text
    with atomic_write(path, ModelFileError, sentence, make_folder=True) as part:
        part.write_text("after")
    assert path.read_text() == "after"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(DataError, match=r"^It is not written: Not a directory\.$"),
        atomic_write(tmp_path / "file" / "folder" / "x", DataError, sentence, make_folder=True),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("name", ["folder", "."])
def test_a_target_that_is_a_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="It is not written"), atomic_write(Path(name), DataError, sentence) as part:
        part.write_text("after")
    assert names(tmp_path) == ["folder"]


@pytest.mark.usefixtures("unchanged")
def test_figures(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(Path, "write_bytes", fail)
    for write, content in ((write_bytes, b"x"), (write_text, "x"), (write_json, {"x": 1})):
        with pytest.raises(DataError) as caught:
            write(target, content)
        text = f"{target} cannot be written: No space left on device. "
        assert str(caught.value) == text + "Name another file with `output`."
        with pytest.raises(DataError) as caught:
            write(target, content, "Do this.")
        assert str(caught.value) == text + "Do this."


def test_figures_are_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b", b"\r\n\xff")
    write_text(tmp_path / "t", "ä\n")
    write_json(tmp_path / "j", {"x": [1, None]})
    assert (tmp_path / "a" / "b").read_bytes() == b"\r\n\xff"
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa4\n"
    assert json.loads((tmp_path / "j").read_text()) == {"x": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "j", {"x": float("nan")})
    assert json.loads((tmp_path / "j").read_text()) == {"x": [1, None]}


@pytest.mark.parametrize("kind", FORMATS)
def test_maps(kind: str, fitted: SAPatchCore, good: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old map stays where the new one cannot be written."""
    result = fitted.predict(good[:1])
    before = write_maps(result, tmp_path, kind)[0].read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise FULL

    monkeypatch.setattr(Image.Image, "save", fail)
    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(DataError, match=rf"\.{kind} cannot be written: No space left on device\. Free space, or name"):
        write_maps(result, tmp_path, kind)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert files[0].read_bytes() == before
