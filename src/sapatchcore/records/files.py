"""Records as CSV and Parquet, written batch by batch: memory does not grow with their number."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any, BinaryIO

from sapatchcore.errors import RecordsError, install
from sapatchcore.records.record import Record

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_FIELDS = fields(Record)
NAMES = ["record" if field.name == "number" else field.name for field in _FIELDS]


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
            values = record.to_dict()
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
    kinds: dict[str, Callable[[], Any]] = {
        "int": pyarrow.int64,
        "str": pyarrow.string,
        "float": pyarrow.float64,
        "bool": pyarrow.bool_,
        "datetime": lambda: pyarrow.timestamp("us", tz="UTC"),
    }
    # From Record itself: "float | None" is a double that may be missing.
    types = [str(field.type).split(" | ") for field in _FIELDS]
    schema = pyarrow.schema(
        [
            pyarrow.field(name, kinds[kind](), nullable=bool(missing))
            for name, (kind, *missing) in zip(NAMES, types, strict=True)
        ]
    )
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in records:
            columns: list[list[str | float | datetime | None]] = [
                [getattr(record, field.name) for record in batch] for field in _FIELDS
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            count += len(batch)
    return count
