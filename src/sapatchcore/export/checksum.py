"""A SHA-256 over an exported file, kept in the file itself: what was cut, flipped or mixed up is refused, never scored.

The digest is taken with its own 64 characters as zeros; of OpenVINO's two files, over the .xml and then the .bin. It guards
against damage and mistakes. Whoever changes a file on purpose can seal it again: it is no signature.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sapatchcore.errors import ModelFileError

NAME = "sapatchcore.seal"  # of the metadata entry
ZEROS = "0" * 64
# What stands before the digest: protobuf's key (16 bytes), then field 2 of 64 bytes; an attribute in XML.
_BEFORE = {".onnx": NAME.encode() + b"\x12\x40", ".xml": f'<{NAME} value="'.encode()}


def sealed(content: bytes, suffix: str, beside: bytes = b"") -> bytes:
    """``content``, whose digest is ``ZEROS``, with its own. beside: of OpenVINO the .bin's bytes."""
    at = _place(content, suffix)
    if at is None or content[at : at + 64] != ZEROS.encode():
        raise ValueError("The file has no place for its seal.")
    return content[:at] + _digest(content, at, beside).encode() + content[at + 64 :]


def check_seal(path: Path, content: bytes, beside: bytes = b"") -> None:
    """Raises ModelFileError unless the bytes of the file ``path`` are as they were written."""
    at = _place(content, path.suffix.lower())
    if at is None:
        raise ModelFileError(
            f"{path} ({len(content)} bytes) is cut off, or was not exported by this version of sapatchcore: it has no seal. Copy "
            "it again, or export the model file with `sapatchcore export`."
        )
    if content[at : at + 64] != _digest(content, at, beside).encode():
        both = f"{path} and {path.with_suffix('.bin').name} do not belong together, or one" if beside else f"{path}"
        raise ModelFileError(
            f"{both} was altered after it was written: its checksum does not fit. Copy it again, or export it anew."
        )


def _place(content: bytes, suffix: str) -> int | None:
    before = _BEFORE[suffix]
    found = content.find(before)
    return None if found < 0 or found + len(before) + 64 > len(content) else found + len(before)


def _digest(content: bytes, at: int, beside: bytes) -> str:
    total = hashlib.sha256(len(content).to_bytes(8, "little"))  # else bytes could move from one file to the other
    total.update(memoryview(content)[:at])
    total.update(ZEROS.encode())
    total.update(memoryview(content)[at + 64 :])
    total.update(beside)
    return total.hexdigest()
