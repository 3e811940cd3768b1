"""The tables of the inspection records, and the version of their layout.

Images lie in a table of their own, so that a listing never reads them. Numbers of records are never given twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.types import TypeDecorator

from sapatchcore.errors import RecordsError

VERSION = 1
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

SCHEMA = Table("sapatchcore_schema", _tables, Column("version", Integer, nullable=False))

RECORDS = Table(
    "sapatchcore_records",
    _tables,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("time", Utc, nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("model_hash", String(64), nullable=False),
    Column("image_hash", String(64), nullable=False),
    Column("file_name", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("score", Double, nullable=False),
    Column("p_value", Double),
    Column("threshold", Double),
    Column("false_reject", Double),
    Column("verdict", Text),
    Column("kind", Text),
    Column("local", Double, nullable=False),
    Column("context", Double, nullable=False),
    Column("image_bytes", BigInteger, nullable=False),  # 0: not kept
    Column("feedback", Text),
    Column("feedback_note", Text),
    Column("feedback_time", Utc),
    Column("feedback_by", Text),
    Column("source", Text, nullable=False),
    sqlite_autoincrement=True,
)
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


def known_version(connection: Connection, shown: str) -> bool:
    """Whether the tables are there; shown: what messages call the database.

    Raises RecordsError where they are of another version, or where a SQLite file is some other program's.
    """
    tables = inspect(connection).get_table_names()
    if SCHEMA.name not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise RecordsError(
                f"{shown} is another program's database: it holds the table {sorted(tables)[0]}. Name another file."
            )
        return False
    version = connection.execute(select(SCHEMA.c.version)).scalar()
    if version != VERSION:
        raise RecordsError(
            f"{shown} has version {version} of the records' layout; this version of sapatchcore knows {VERSION}. "
            "Install the newer sapatchcore that wrote it."
        )
    return True


def make_tables(connection: Connection, shown: str) -> None:
    """Make them in the transaction of ``connection``, unless another program was faster. Raises as ``known_version``."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATING})
    if not known_version(connection, shown):
        _tables.create_all(connection)
        if connection.dialect.name == "postgresql":  # images are compressed already: it need not try
            connection.execute(text(f"ALTER TABLE {IMAGES.name} ALTER COLUMN content SET STORAGE EXTERNAL"))
        connection.execute(insert(SCHEMA), {"version": VERSION})


def sized(connection: Connection) -> int:
    """Bytes that the records take, their images included.

    SQLite: the pages in use. PostgreSQL: the images' bytes and the rows' own; not the space on disk, which stays as large
    as it once was, and takes in what is new before it grows again.
    """
    if connection.dialect.name == "sqlite":
        pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size
    whole = 0
    for table, columns in (
        (IMAGES, "sum(bytes)"),
        (RECORDS, "sum(pg_column_size(t.*))"),
        (WATCHED, "sum(pg_column_size(t.*))"),
    ):
        whole += int(connection.execute(text(f"SELECT coalesce({columns}, 0) FROM {table.name} t")).scalar_one())
    return whole


def _pragma(connection: Connection, name: str) -> int:
    value: Any = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
    return int(value)
