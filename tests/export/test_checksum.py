"""What was cut, flipped or mixed up is refused before a runtime sees it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sapatchcore.errors import ModelFileError
from sapatchcore.export.checksum import NAME, ZEROS, check_seal, sealed

ONNX = b"graph" * 40 + NAME.encode() + b"\x12\x40" + ZEROS.encode() + b"more" * 10
XML = b"<net>" + f'<{NAME} value="{ZEROS}" />'.encode() + b"</net>"
WEIGHTS = b"weights" * 9


def test_the_digest_by_hand() -> None:
    content = sealed(ONNX, ".onnx")
    assert hashlib.sha256(len(ONNX).to_bytes(8, "little") + ONNX).hexdigest().encode() in content
    assert len(content) == len(ONNX)
    both = len(XML).to_bytes(8, "little") + XML + WEIGHTS
    assert hashlib.sha256(both).hexdigest().encode() in sealed(XML, ".xml", WEIGHTS)
    check_seal(Path("m.onnx"), content)
    check_seal(Path("m.xml"), sealed(XML, ".xml", WEIGHTS), WEIGHTS)


def test_bytes_that_moved_from_one_file_to_the_other_are_found() -> None:
    content = sealed(XML, ".xml", WEIGHTS)
    with pytest.raises(ModelFileError):
        check_seal(Path("m.xml"), content[:-3], content[-3:] + WEIGHTS)


def test_every_flipped_byte_is_found() -> None:
    content = sealed(ONNX, ".onnx")
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        with pytest.raises(ModelFileError, match=r"was altered after it was written|has no seal"):
            check_seal(Path("m.onnx"), bytes(flipped))


def test_every_cut_is_found() -> None:
    content = sealed(ONNX, ".onnx")
    for length in range(len(content)):
        with pytest.raises(ModelFileError, match=r"was altered|has no seal"):
            check_seal(Path("m.onnx"), content[:length])


def test_two_files_belong_together() -> None:
    content = sealed(XML, ".xml", WEIGHTS)
    for other in (b"", WEIGHTS[:-1], WEIGHTS + b"x", b"another"):
        with pytest.raises(ModelFileError, match=r"m\.xml"):
            check_seal(Path("m.xml"), content, other)


def test_a_file_without_a_place_cannot_be_sealed() -> None:
    with pytest.raises(ValueError, match="no place"):
        sealed(b"graph", ".onnx")
    with pytest.raises(ValueError, match="no place"):
        sealed(sealed(ONNX, ".onnx"), ".onnx")  # sealed already
