"""Records as CSV and Parquet, written batch by batch: memory does not grow with their number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, select

from sapatchcore.errors import RecordsError, install
from sapatchcore.records.database import Database
from sapatchcore.records.record import EXPORTED_NAMES, FIELDS, Record
from sapatchcore.records.tables import RECORDS, SELECTED, as_record

AT_ONCE = 2_000  # records of one batch
NAMES = [EXPORTED_NAMES.get(name, name) for name in FIELDS]
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def batches(database: Database, conditions: Sequence[ColumnElement[bool]]) -> Iterator[list[Record]]:
    """All records that match and are there now, the oldest first, AT_ONCE at a time.

    Each batch is a transaction of its own: a slow reader keeps no transaction open, which would let SQLite's log grow.
    """
    with database.reading() as connection:
        last = connection.execute(select(RECORDS.c.number).order_by(RECORDS.c.number.desc()).limit(1)).scalar() or 0
    first = 0
    while first < last:
        statement = select(*SELECTED).where(RECORDS.c.number > first, RECORDS.c.number <= last, *conditions)
        with database.reading() as connection:
            rows = connection.execute(statement.order_by(RECORDS.c.number).limit(AT_ONCE)).mappings().all()
        if not rows:
            return
        yield [as_record(row) for row in rows]
        first = rows[-1]["number"]


def write_csv(file: BinaryIO, records: Iterable[list[Record]]) -> int:
    """UTF-8, one header line, a line a record (RFC 4180), nothing for None; how many records.

    A text that a spreadsheet would take for a formula (it begins with = + - @ or a tab) gets an apostrophe before it.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # with "\n" it would leave a "\r" in a name unquoted
    writer.writerow(NAMES)
    count = 0
    for batch in records:
        for record in batch:
            values = {**record.to_dict(), "notes": record.notes}  # a text here, a sentence a line
            writer.writerow([_cell(values[name]) for name in NAMES])
        count += len(batch)
        _move(text, file)
    _move(text, file)
    return count


def _move(text: io.StringIO, file: BinaryIO) -> None:
    file.write(text.getvalue().encode())
    text.seek(0)
    text.truncate()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_parquet(file: BinaryIO, records: Iterable[list[Record]]) -> int:
    """Times as timestamps in UTC, numbers as double, a row group a batch; how many records.

    Raises RecordsError without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise RecordsError(f"Parquet needs pyarrow: {install('serve')}. CSV needs nothing.") from None
    types = {
        int: pyarrow.int64(),
        str: pyarrow.string(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
        datetime: pyarrow.timestamp("us", tz="UTC"),
    }
    columns = zip(NAMES, FIELDS.values(), strict=True)
    schema = pyarrow.schema([pyarrow.field(name, types[one.type], nullable=one.nullable) for name, one in columns])
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in records:
            values = [[getattr(record, name) for record in batch] for name in FIELDS]
            writer.write_batch(pyarrow.record_batch(values, schema=schema))
            count += len(batch)
    return count
