"""Figures to files, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sapatchcore.errors import DataError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to a temporary name beside ``path`` and rename it. Raises DataError where that cannot be done."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}. Name another file with --output.") from None
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON; as ``write_text``."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
