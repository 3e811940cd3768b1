"""Inspection records: what was inspected, kept in SQLite or PostgreSQL. ``Records`` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sapatchcore.records.records import Records

__all__ = ["Records"]


def __getattr__(name: str) -> object:
    """``Records`` on first use: SQLAlchemy is an extra, and takes a moment to import."""
    if name != "Records":
        raise AttributeError(f"module 'sapatchcore.records' has no attribute {name!r}")
    from sapatchcore.records.records import Records

    return Records
