"""Images behind an address: listed in order, read, and what is said where that fails. fsspec's memory stands for the storage."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fsspec", reason="fsspec is not installed: install the extra scale")

import fsspec

from sapatchcore import SAPatchCore
from sapatchcore.data.images import images_below, list_images
from sapatchcore.data.remote import below, is_address, read_bytes
from sapatchcore.data.sources import read_image
from sapatchcore.errors import DataError, MissingPackageError, SettingsError


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs.clear()


def png(pixels: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("text", ["s3://b/x.png", "gs://b", "memory://a", "s3a://x/y"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("path", ["a.png", "/a/b.png", "C:\\a.png", "./s3:/x", Path("s3://b"), 3])
def test_what_is_none(path: object) -> None:
    assert not is_address(path)


def test_the_order_is_that_of_the_whole_texts(tmp_path: Path, memory: Any) -> None:
    names = ["a/b.png", "a.png", "a-b/c.png", "a/a/z.JPG", "b.png", "Z.png", "a/.hidden.png", ".x/y.png", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        memory.pipe_file(f"/root/{name}", b"x")
    shown = sorted(["a/b.png", "a.png", "a-b/c.png", "a/a/z.JPG", "b.png", "Z.png"])
    assert list(images_below(str(tmp_path))) == [f"{tmp_path}/{name}" for name in shown]
    assert list(images_below("memory://root/")) == [f"memory://root/{name}" for name in shown]
    # As the listing of one machine, which takes whole paths.
    assert [str(path) for path in list_images(tmp_path, recursive=True)] == list(images_below(str(tmp_path)))
    assert "memory://root/notes.txt" in list(below("memory://root"))


def test_an_image_is_read_as_from_a_file(memory: Any, images: Callable[..., Any]) -> None:
    pixels = images(1)[0]
    memory.pipe_file("/root/a.png", png(pixels))
    np.testing.assert_array_equal(read_image("memory://root/a.png"), pixels)
    memory.pipe_file("/root/cut.png", png(pixels)[:200])
    with pytest.raises(DataError, match=r"memory://root/cut\.png"):
        read_image("memory://root/cut.png")


def test_a_folder_of_images_is_learned_from_and_scored(memory: Any, images: Callable[..., Any], small: Any) -> None:
    pixels = images(4)
    for number, image in enumerate(pixels):
        memory.pipe_file(f"/root/good/{number}.png", png(image))
    near, far = SAPatchCore(**small).fit(pixels), SAPatchCore(**small).fit("memory://root/good")
    assert far.provenance[0] == tuple(f"memory://root/good/{number}.png" for number in range(4))
    np.testing.assert_array_equal(near.memory_bank, far.memory_bank)
    result = far.predict("memory://root/good/2.png")
    assert result.paths == ("memory://root/good/2.png",)
    assert result.scores == near.predict(pixels[2]).scores


def test_what_is_not_there(memory: Any, small: Any) -> None:
    with pytest.raises(DataError, match=r"memory://root/none\.png does not exist"):
        read_bytes("memory://root/none.png")
    with pytest.raises(DataError, match="memory://nowhere is no folder that can be listed"):
        list(below("memory://nowhere"))
    memory.pipe_file("/root/notes.txt", b"x")
    with pytest.raises(DataError, match="memory://root holds no image"):
        SAPatchCore(**small).fit("memory://root")
    with pytest.raises(SettingsError, match="is no address that is known"):
        read_bytes("nothing-like-this://x/a.png")


@pytest.mark.parametrize(
    ("address", "package", "extra"), [("s3://b/a.png", "s3fs", "s3"), ("gs://b/a.png", "gcsfs", "gs")]
)
def test_what_an_address_needs_is_said(address: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, address.split(":")[0], raising=False)
    with pytest.raises(MissingPackageError, match=rf'pip install "sapatchcore\[{extra}\]"'):
        read_bytes(address)


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingPackageError, match=r'pip install "sapatchcore\[(s3|scale)\]"'):
        read_bytes("s3://b/a.png")
