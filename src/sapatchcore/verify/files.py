"""Bytes, texts and JSON to files, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sapatchcore.atomic import atomic_write
from sapatchcore.errors import DataError

_ADVICE = "Name another file with `output`."


def write_bytes(path: Path, content: bytes, advice: str = _ADVICE) -> None:
    """Write ``content``, in a folder that is made where it is missing.

    Raises DataError where that cannot be done; advice: its last sentence, what to do then.
    """

    def sentence(error: OSError) -> str:
        return f"{path} cannot be written: {error.strerror}. {advice}"

    with atomic_write(path, DataError, sentence, make_folder=True) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str, advice: str = _ADVICE) -> None:
    """``text`` in UTF-8; as ``write_bytes``."""
    write_bytes(path, text.encode(), advice)


def write_json(path: Path, value: Any, advice: str = _ADVICE) -> None:
    """``value`` as indented JSON, by its standard: without NaN; as ``write_bytes``."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", advice)
