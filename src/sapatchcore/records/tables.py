"""The tables of the inspection records, the version of their layout, and what goes into and comes out of their rows.

The columns of the records are the fields of ``Record``. Images have a table of their own, so that a listing never reads them.
A number is never given to two records. The newest state of each file of a watched folder is kept, too: it tells which files
were processed already.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    and_,
    insert,
    inspect,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeDecorator

from sapatchcore.errors import RecordsError
from sapatchcore.records.record import FIELDS, FieldType, NewRecord, Record, WatchedFile

VERSION = 3
ADDED = {
    2: ("global_score", "notes"),
    3: ("product",),
}  # by version: the nullable columns of records that the version before lacks
NAME_CHARACTERS = 255  # of a file name that is kept
LARGEST = 2**63 - 1  # number that a database can hold
_NOT_KEPT = re.compile("[\0\ud800-\udfff]")
_CREATING = 0x5A9A7C40  # of PostgreSQL's advisory lock: two programs that start at once must not both make the tables


class Utc(TypeDecorator[datetime]):
    """An aware time, kept as UTC: SQLite as text that sorts as time does, PostgreSQL as timestamptz."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Any time zone in, UTC to the database; SQLite's adapter takes no zone."""
        if value is None:
            return None
        try:
            value = value.astimezone(UTC)
        except OverflowError:  # within a day of the years 1 and 9999: no record is near
            value = value.replace(tzinfo=UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, UTC; PostgreSQL answers in the session's own zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up an INTEGER alone
_tables = MetaData()
_SQL_TYPES: dict[type, Any] = {int: Integer, float: Double, str: Text, datetime: Utc}


def _column(name: str, field: FieldType) -> Column[Any]:
    if name == "number":
        return Column(name, _Number, primary_key=True, autoincrement=True)
    if name == "has_image":
        return Column("image_bytes", BigInteger, nullable=False)  # 0: not kept
    kind = _SQL_TYPES[field.type] if field.length is None else String(field.length)
    return Column(name, kind, nullable=field.nullable)


SCHEMA = Table("sapatchcore_schema", _tables, Column("version", Integer, nullable=False))

RECORDS = Table(
    "sapatchcore_records",
    _tables,
    *(_column(name, field) for name, field in FIELDS.items()),
    sqlite_autoincrement=True,
)
Index("ix_sapatchcore_records_time", RECORDS.c.time)
# Each with the number, in whose order records are listed. Most records have no kind and no feedback, and are left out there.
for _name, _some in (("model", False), ("verdict", False), ("file_name", False), ("kind", True), ("feedback", True)):
    _where = RECORDS.c[_name].is_not(None) if _some else None
    Index(
        f"ix_sapatchcore_records_{_name}",
        RECORDS.c[_name],
        RECORDS.c.number,
        sqlite_where=_where,
        postgresql_where=_where,
    )

IMAGES = Table(
    "sapatchcore_images",
    _tables,
    Column("record", _Number, ForeignKey(RECORDS.c.number, ondelete="CASCADE"), primary_key=True),
    Column("bytes", BigInteger, nullable=False),  # before the content: SQLite then need not read that for it
    Column("media_type", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
# One row a file of a watched folder, its newest state. The key is a digest of folder and name: of any length, any bytes.
WATCHED = Table(
    "sapatchcore_watched",
    _tables,
    Column("key", String(64), primary_key=True),
    Column("folder", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("image_hash", String(64), nullable=False),
    Column("checked", Utc, nullable=False),  # when it was last seen in the folder
)

WATCH_ERRORS = Table(
    "sapatchcore_watch_errors",
    _tables,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("folder", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time", Utc, nullable=False, index=True),
    sqlite_autoincrement=True,
)


def has_tables(connection: Connection, shown: str) -> bool:
    """Whether the tables exist; shown: what messages call the database.

    Raises RecordsError where they are of a newer version, or where a SQLite file is some other program's.
    """
    tables = inspect(connection).get_table_names()
    if SCHEMA.name not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise RecordsError(
                f"{shown} is another program's database: it holds the table {sorted(tables)[0]}. Name another file."
            )
        return False
    version = _version(connection)
    if version is None or not 1 <= version <= VERSION:
        raise RecordsError(
            f"{shown} has version {version} of the records' layout; this version of sapatchcore knows {VERSION}. "
            "Install the newer sapatchcore that wrote it."
        )
    return True


def is_current(connection: Connection) -> bool:
    """Whether the tables, which exist, are of ``VERSION``."""
    return _version(connection) == VERSION


def bring_up_to_date(connection: Connection) -> None:
    """Add the columns that versions since have, in the transaction of ``connection``, unless another program was faster.

    A program of the earlier version that has the database open goes on: a new column may stay empty.
    """
    _one_at_a_time(connection)
    for version in range((_version(connection) or VERSION) + 1, VERSION + 1):
        for name in ADDED[version]:
            column = CreateColumn(RECORDS.c[name]).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {RECORDS.name} ADD COLUMN {column}"))
        connection.execute(update(SCHEMA).values(version=version))


def _version(connection: Connection) -> int | None:
    return connection.execute(select(SCHEMA.c.version)).scalar()


def _one_at_a_time(connection: Connection) -> None:
    """Wait for another program that makes or changes the tables; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATING})


def make_tables(connection: Connection, shown: str) -> None:
    """Make them in the transaction of ``connection``, unless another program was faster. Raises as ``has_tables``."""
    _one_at_a_time(connection)
    if not has_tables(connection, shown):
        _tables.create_all(connection)
        if connection.dialect.name == "postgresql":  # images are compressed already: it need not try
            connection.execute(text(f"ALTER TABLE {IMAGES.name} ALTER COLUMN content SET STORAGE EXTERNAL"))
        connection.execute(insert(SCHEMA), {"version": VERSION})


SELECTED: tuple[ColumnElement[Any], ...] = tuple(
    (RECORDS.c.image_bytes > 0).label(name) if name == "has_image" else RECORDS.c[name] for name in FIELDS
)
_GIVEN = [field.name for field in fields(NewRecord) if field.name in FIELDS]
_FLOATS = [name for name, field in FIELDS.items() if field.type is float]


def as_row(record: NewRecord, now: datetime) -> dict[str, Any]:
    """The row of a new record, without its number."""
    row = {name: _stored(getattr(record, name)) for name in _GIVEN}
    row |= {name: float(row[name]) for name in _FLOATS if row[name] is not None}
    return {**row, "time": now, "file_name": short_name(record.file_name), "image_bytes": len(record.image or b"")}


def as_record(row: RowMapping) -> Record:
    """The record of a row of SELECTED."""
    # What SQLite says of a row that it just wrote has 2 for 2.0.
    numbers = {name: None if row[name] is None else float(row[name]) for name in _FLOATS}
    return Record(**{**row, **numbers, "has_image": bool(row["has_image"])})


def clean(text: str) -> str:
    """``text`` as every database can keep it: a file name's bytes that are no UTF-8 as \\xff, half characters as \\ud800."""
    return _NOT_KEPT.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(sign: int) -> str:
    return f"\\x{sign & 0xFF:02x}" if sign == 0 or 0xDC80 <= sign <= 0xDCFF else f"\\u{sign:04x}"


def _stored(value: Any) -> Any:
    return clean(value) if isinstance(value, str) else value


def short_name(name: str) -> str:
    """A file name, cleaned; of a long one its end, which tells more than its beginning."""
    name = clean(name)
    return name if len(name) <= NAME_CHARACTERS else "…" + name[1 - NAME_CHARACTERS :]


def keep_processed(connection: Connection, file: WatchedFile, now: datetime, *, same_content: bool = False) -> bool:
    """Keep a processed file's state; whether that is news: its content is another than the one that was kept.

    same_content: news also where the content is the same, or unknown, but size or time differ.
    """
    table = WATCHED.c
    row = {
        "key": _key(file.folder, file.name),
        "folder": clean(file.folder),
        "name": clean(file.name),
        "bytes": file.bytes,
        "mtime_ns": file.mtime_ns,
        "image_hash": file.image_hash,
        "checked": now,
    }
    make: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = make(WATCHED).values(row)
    differs = new.excluded.image_hash != table.image_hash
    if same_content:
        differs = or_(differs, new.excluded.bytes != table.bytes, new.excluded.mtime_ns != table.mtime_ns)
    changed = {name: new.excluded[name] for name in ("bytes", "mtime_ns", "image_hash", "checked")}
    # One statement: of two programs that watch one folder, only one has news.
    statement = new.on_conflict_do_update(index_elements=[table.key], set_=changed, where=differs)
    return connection.execute(statement.returning(table.key)).first() is not None


def keep_same_content(connection: Connection, file: WatchedFile, now: datetime) -> None:
    """The content that was processed has another size or time: keep these, unless the content kept is another."""
    found = and_(WATCHED.c.key == _key(file.folder, file.name), WATCHED.c.image_hash == file.image_hash)
    values = {"bytes": file.bytes, "mtime_ns": file.mtime_ns, "checked": now}
    connection.execute(update(WATCHED).where(found).values(values))


def processed_files(connection: Connection, folder: str, names: Sequence[str]) -> dict[str, WatchedFile]:
    """The states of those files that were processed, by name."""
    by_key, found = {_key(folder, name): name for name in names}, {}
    for row in connection.execute(select(WATCHED).where(WATCHED.c.key.in_(by_key))):
        name = by_key[row.key]
        found[name] = WatchedFile(folder, name, row.bytes, row.mtime_ns, row.image_hash)
    return found


def keep_still_there(connection: Connection, folder: str, names: Sequence[str], now: datetime) -> None:
    """These files were in the folder just now, so their states stay."""
    keys = [_key(folder, name) for name in names]
    connection.execute(update(WATCHED).where(WATCHED.c.key.in_(keys)).values(checked=now))


def _key(folder: str, name: str) -> str:
    """A digest: names may be of any length and hold any bytes."""
    return hashlib.sha256(os.fsencode(folder) + b"\0" + os.fsencode(name)).hexdigest()
