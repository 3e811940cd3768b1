"""Made screws, and a model of them, for the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import run
from made_screws import SMALL, make_screws


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two categories, bottle and bench, in MVTec AD's layout."""
    folder = tmp_path_factory.mktemp("root")
    make_screws(folder / "bottle", seed=1)
    make_screws(folder / "bench", seed=2)
    return folder


@pytest.fixture(scope="session")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted on bench; not to be changed."""
    path = tmp_path_factory.mktemp("model") / "bench.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), *SMALL) == 0
    return path
