"""500 damaged model files: each is refused with one sentence, and nothing in any file is executed.

The checksum in a model file covers its content: settings, names and every tensor. Another blank between two words of the header
changes none of it, and would be read as the very same model; none of these 500 is such a case.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from damage import KINDS, damaged

from sapatchcore import ModelFileError, SAPatchCore
from sapatchcore.export.runtime import open_exported
from sapatchcore.model_file import Stored, read_model

COUNT = 500


@pytest.fixture(scope="module")
def model(good: np.ndarray, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole detector's file without its network: settings, bank, calibration and thumbnails."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    SAPatchCore(**small, coreset_ratio=0.02).fit(good[:4]).save(path, include_weights=False)
    assert path.stat().st_size < 100_000
    return path


def refused(read: Callable[[Path], object], path: Path) -> bool:
    """Whether ``read`` refuses ``path`` with one sentence; any other error than that is raised."""
    try:
        read(path)
    except ModelFileError as error:
        sentence = str(error)
        assert sentence.endswith("."), sentence
        assert path.name in sentence
        assert sentence.isprintable(), f"{sentence!r} is not one line of text"
        assert len(sentence) < 1000, f"a sentence of {len(sentence)} characters"
        return True
    return False


def content_of(stored: Stored) -> dict[str, Any]:
    """All that a model file says, comparable: tensors as their bytes with shape and type."""
    named = {"bank": stored.bank, "images": stored.images, "cells": stored.cells, **stored.more}
    named |= {f"weights.{name}": value for name, value in (stored.weights or {}).items()}
    tensors = {name: (str(value.dtype), tuple(value.shape), value.numpy().tobytes()) for name, value in named.items()}
    return {"header": stored.header, **tensors}


def test_every_damaged_model_file_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    for what, content in damaged(model.read_bytes(), COUNT, seed=1):
        path.write_bytes(content)
        assert refused(read_model, path), what
        assert refused(SAPatchCore.load, path), what
    assert [one.name for one in tmp_path.iterdir()] == [path.name], "something was written"


def test_another_way_to_write_the_same_is_the_same_model(model: Path, tmp_path: Path) -> None:
    """What the checksum does not cover changes no number and no word."""
    content = model.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    padded = content[8:end] + b"  \n     "
    path = tmp_path / "padded.safetensors"
    path.write_bytes(len(padded).to_bytes(8, "little") + padded + content[end:])
    assert content_of(read_model(path)) == content_of(read_model(model))


def test_every_kind_of_damage_is_among_them(model: Path) -> None:
    content = model.read_bytes()
    made = list(damaged(content, 2 * len(KINDS), seed=2))
    assert {what.split(",")[0] for what, _ in made} == {kind.__name__ for kind in KINDS}
    assert all(one != content for _, one in made)
    assert made == list(damaged(content, 2 * len(KINDS), seed=2))


def test_damaged_model_files_with_their_network(fitted: SAPatchCore, tmp_path: Path) -> None:
    """Most of the bytes are weights then."""
    fitted.save(tmp_path / "whole.safetensors")
    path = tmp_path / "damaged.safetensors"
    for what, content in damaged((tmp_path / "whole.safetensors").read_bytes(), 4 * len(KINDS), seed=3):
        path.write_bytes(content)
        assert refused(read_model, path), what


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".xml"])
def test_code_in_a_model_file_is_not_executed(suffix: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / f"model{suffix}"
    read = SAPatchCore.load if suffix == ".safetensors" else open_exported
    for number in range(2):
        if number:
            torch.save({"bank": torch.zeros(2, 2), "more": Payload(mark)}, path)
        else:
            path.write_bytes(pickle.dumps(Payload(mark)))
        shutil.copy(path, path.with_suffix(".bin"))
        assert refused(read, path)
        assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists(), "the payload would not have done anything"


def written_header(entries: dict[str, Any], tail: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + tail


LIES = {
    "more numbers than the file": {"bank": {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 1 << 44]}},
    "an offset beyond 64 bits": {"bank": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 70]}},
    "a shape that overflows": {"bank": {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}},
    "offsets turned round": {"bank": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
    "one tensor over another": {
        "bank": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "bank.cell": {"dtype": "I32", "shape": [4], "data_offsets": [0, 16]},
    },
    "a type that is none": {"bank": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]}},
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie_are_refused(lie: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(written_header({"__metadata__": {"sapatchcore": '{"format": 2}'}, **LIES[lie]}, bytes(16)))
    assert refused(read_model, path)


DEEP = 100_000


@pytest.mark.parametrize(
    "text",
    ["[" * DEEP, '{"format": ' + "[" * DEEP, "9" * DEEP, '{"format": ' + "9" * DEEP + "}", '{"format": -Infinity}'],
    ids=["nested", "nested format", "a long number", "a long format", "infinite format"],
)
def test_headers_that_exhaust_a_parser_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"bank": torch.zeros(2, 2)}, path, metadata={"sapatchcore": text})
    assert refused(read_model, path)


def test_a_header_nested_outside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    text = b'{"a":' + b"[" * DEEP
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert refused(read_model, path)
