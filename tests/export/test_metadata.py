"""The checksum: what was cut, flipped or mixed up is refused before a runtime sees it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sapatchcore.errors import ModelFileError
from sapatchcore.export.metadata import CHECKSUM, ZEROS, verify_checksum, with_checksum

ONNX = b"graph" * 40 + CHECKSUM.encode() + b"\x12\x40" + ZEROS.encode() + b"more" * 10
XML = b"<net>" + f'<{CHECKSUM} value="{ZEROS}" />'.encode() + b"</net>"
WEIGHTS = b"weights" * 9


def test_the_digest_by_hand() -> None:
    content = with_checksum(ONNX, ".onnx")
    assert hashlib.sha256(len(ONNX).to_bytes(8, "little") + ONNX).hexdigest().encode() in content
    assert len(content) == len(ONNX)
    both = len(XML).to_bytes(8, "little") + XML + WEIGHTS
    assert hashlib.sha256(both).hexdigest().encode() in with_checksum(XML, ".xml", WEIGHTS)
    verify_checksum(Path("m.onnx"), content)
    verify_checksum(Path("m.xml"), with_checksum(XML, ".xml", WEIGHTS), WEIGHTS)


def test_bytes_that_moved_from_one_file_to_the_other_are_found() -> None:
    content = with_checksum(XML, ".xml", WEIGHTS)
    with pytest.raises(ModelFileError):
        verify_checksum(Path("m.xml"), content[:-3], content[-3:] + WEIGHTS)


def test_every_flipped_byte_is_found() -> None:
    content = with_checksum(ONNX, ".onnx")
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1
        with pytest.raises(ModelFileError, match=r"was altered after it was written|has no checksum"):
            verify_checksum(Path("m.onnx"), bytes(flipped))


def test_every_cut_is_found() -> None:
    content = with_checksum(ONNX, ".onnx")
    for length in range(len(content)):
        with pytest.raises(ModelFileError, match=r"was altered|has no checksum"):
            verify_checksum(Path("m.onnx"), content[:length])


def test_two_files_belong_together() -> None:
    content = with_checksum(XML, ".xml", WEIGHTS)
    for other in (b"", WEIGHTS[:-1], WEIGHTS + b"x", b"another"):
        with pytest.raises(ModelFileError, match=r"m\.xml"):
            verify_checksum(Path("m.xml"), content, other)


def test_a_file_without_room_gets_no_checksum() -> None:
    with pytest.raises(ValueError, match="no room"):
        with_checksum(b"graph", ".onnx")
    with pytest.raises(ValueError, match="no room"):
        with_checksum(with_checksum(ONNX, ".onnx"), ".onnx")  # has one already
