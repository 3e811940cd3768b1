"""Where records lie in the tests: a SQLite file, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import postgres
import pytest

if TYPE_CHECKING:
    from sapatchcore.records.records import Records

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.PostgreSQL]:
    """The server; skips where it is not installed."""
    yield from postgres.start()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where there are no records yet: a path, then a URL."""
    if request.param == "sqlite":
        return tmp_path / "inspections.sqlite"
    server: postgres.PostgreSQL = request.getfixturevalue("postgresql")
    return server.url(f"test_{next(_numbers)}")


@pytest.fixture
def records(where: str | Path) -> Iterator[Records]:
    """Opened, empty."""
    from sapatchcore.records.records import Records

    with Records(where) as opened:
        yield opened
