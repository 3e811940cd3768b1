"""Between records and rows of their table, and what a filter asks of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, select

from sapatchcore.records.database import Database
from sapatchcore.records.record import NONE, Filter, NewRecord, Record, clean, short_name
from sapatchcore.records.tables import RECORDS

AT_ONCE = 2_000  # records of one batch
LARGEST = 2**63 - 1  # number that a database can hold
COLUMNS: tuple[ColumnElement[Any], ...] = tuple(
    (RECORDS.c.image_bytes > 0).label("has_image") if field.name == "has_image" else RECORDS.c[field.name]
    for field in fields(Record)
)
_TEXTS = ("model", "model_hash", "image_hash")
_AS_THEY_ARE = ("width", "height", "verdict", "kind", "source")
_NUMBERS = ("score", "local", "context", "p_value", "threshold", "false_reject")


def as_row(record: NewRecord, now: datetime) -> dict[str, Any]:
    """The row of a new record, without its number."""
    numbers = {name: getattr(record, name) for name in _NUMBERS}
    return {
        "time": now,
        "file_name": short_name(record.file_name),
        "image_bytes": len(record.image or b""),
        **{name: clean(getattr(record, name)) for name in _TEXTS},
        **{name: getattr(record, name) for name in _AS_THEY_ARE},
        **{name: None if value is None else float(value) for name, value in numbers.items()},
    }


def as_record(row: RowMapping) -> Record:
    """The record of a row of COLUMNS."""
    # What SQLite says of a row that it just wrote has 2 for 2.0.
    numbers = {name: None if row[name] is None else float(row[name]) for name in _NUMBERS}
    return Record(**{**row, **numbers, "has_image": bool(row["has_image"])})


def matching(asked: Filter, dialect: str) -> Iterator[ColumnElement[bool]]:
    """The conditions of a filter, ``before`` and ``limit`` left out."""
    table = RECORDS.c
    for name in ("model", "verdict", "kind"):
        value = getattr(asked, name)
        if value is not None:
            yield table[name] == clean(value)
    if asked.feedback is not None:
        yield table.feedback.is_(None) if asked.feedback == NONE else table.feedback == asked.feedback
    if asked.since is not None:
        yield table.time >= asked.since
    if asked.until is not None:
        yield table.time < asked.until
    if asked.has_image is not None:
        yield table.image_bytes > 0 if asked.has_image else table.image_bytes == 0
    if asked.file_name is not None:
        name = clean(asked.file_name)
        if "*" not in name:
            yield table.file_name == short_name(name)
        elif dialect == "sqlite":  # its LIKE takes upper and lower case for the same
            yield table.file_name.op("GLOB")("".join(f"[{sign}]" if sign in "[?" else sign for sign in name))
        else:
            escaped = "".join(f"\\{sign}" if sign in "\\%_" else sign for sign in name)
            yield table.file_name.like(escaped.replace("*", "%"), escape="\\")


def batches(database: Database, asked: Filter) -> Iterator[list[Record]]:
    """All records that match and are there now, the oldest first, AT_ONCE at a time.

    Each batch is a transaction of its own: a slow reader keeps no transaction open, which would let SQLite's log grow.
    """
    conditions = list(matching(asked, database.dialect))
    with database.reading() as connection:
        last = connection.execute(select(RECORDS.c.number).order_by(RECORDS.c.number.desc()).limit(1)).scalar() or 0
    first = 0
    while first < last:
        statement = select(*COLUMNS).where(RECORDS.c.number > first, RECORDS.c.number <= last, *conditions)
        with database.reading() as connection:
            rows = connection.execute(statement.order_by(RECORDS.c.number).limit(AT_ONCE)).mappings().all()
        if not rows:
            return
        yield [as_record(row) for row in rows]
        first = rows[-1]["number"]
