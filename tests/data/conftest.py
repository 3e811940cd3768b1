"""Builders of tiny image files and trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]


def _write_image(path: Path, value: int = 0, size: tuple[int, int] = (4, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


@pytest.fixture
def write_image() -> WriteImage:
    """Writes a grey image of one value, (h, w) = (4, 6), and the folders above it."""
    return _write_image


@pytest.fixture
def write_tree() -> Callable[[Path, str], Path]:
    """Writes an image at each of the given relative paths (separated by spaces); returns the root."""

    def write(root: Path, paths: str) -> Path:
        for path in paths.split():
            _write_image(root / path)
        return root

    return write
