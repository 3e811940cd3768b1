"""The inspection records: every inspection, committed before it is answered, in SQLite or PostgreSQL.

``record.py`` declares a record, ``tables.py`` has its table, ``database.py`` the connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, func, insert, select, update

from sapatchcore.atomic import atomic_write
from sapatchcore.errors import DataError, RecordsError, SettingsError, did_you_mean
from sapatchcore.records import files, retention, tables
from sapatchcore.records.database import Database
from sapatchcore.records.record import LABELS, NONE, Filter, NewRecord, Record, WatchedFile, WatchError
from sapatchcore.records.tables import IMAGES, LARGEST, RECORDS, SELECTED, WATCH_ERRORS, as_record, as_row, clean

FILES_AT_ONCE = 500  # watched files of one statement
ALL = Filter()


class Records:
    """The records in a SQLite file or a PostgreSQL database; for any number of threads.

    Args:
        where: a file's path, or a URL: postgresql://user@host/database. Missing tables are made, and those of an earlier version
            get the columns that they lack.
        wait: seconds to wait where another program holds a lock, or for a server's answer to a new connection.
        make: False: a missing file or missing tables are an error.

    Raises:
        RecordsError: it cannot be opened; it is damaged, another program's, or from a newer version. Every method raises it
            where the database fails; nothing is half-written then.
    """

    def __init__(self, where: str | os.PathLike[str], *, wait: float = 30.0, make: bool = True) -> None:
        self._database = database = Database(where, wait)
        try:
            missing = database.path is not None and not database.path.exists()
            if missing and not make:
                raise RecordsError(f"The records {database.shown} do not exist. Check the path.")
            with database.reading() as connection:
                made = tables.has_tables(connection, database.shown)
                current = made and tables.is_current(connection)
            if not made and not make:
                raise RecordsError(f"{database.shown} holds no records. Check which database is meant.")
            if not current:
                with database.writing() as connection:
                    tables.make_tables(connection, database.shown)
                    tables.bring_up_to_date(connection)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shown(self) -> str:
        """The file or the server, for messages: without a password."""
        return self._database.shown

    def add(self, records: Sequence[NewRecord]) -> list[Record]:
        """Keep inspections in one transaction, which the disk has when this returns.

        They come back in their order, numbered. A watched file's record is left out where the same content of it is recorded
        already, by another program that watches the folder.
        """
        if not records:
            return []
        now = _now()
        with self._database.writing() as connection:
            # By key, so that two programs' transactions never wait for each other in a circle.
            in_order = sorted((one.watched for one in records if one.watched), key=lambda one: (one.folder, one.name))
            news = {id(one) for one in in_order if tables.keep_processed(connection, one, now)}
            kept = [one for one in records if one.watched is None or id(one.watched) in news]
            if not kept:
                return []
            statement = insert(RECORDS).returning(*SELECTED, sort_by_parameter_order=True)
            rows = connection.execute(statement, [as_row(one, now) for one in kept]).mappings().all()
            images = [
                {
                    "record": row["number"],
                    "bytes": len(one.image),
                    "media_type": one.media_type or "",
                    "content": one.image,
                }
                for row, one in zip(rows, kept, strict=True)
                if one.image
            ]
            if images:
                connection.execute(insert(IMAGES), images)
            return [as_record(row) for row in rows]

    def find(self, filter: Filter) -> list[Record]:
        """The newest ``filter.limit`` records that it matches, the newest first."""
        statement = select(*SELECTED).where(*_conditions(filter, self._database.dialect))
        if filter.before is not None:
            statement = statement.where(RECORDS.c.number < min(max(filter.before, 0), LARGEST))
        statement = statement.order_by(RECORDS.c.number.desc()).limit(min(filter.limit, LARGEST))
        with self._database.reading() as connection:
            return [as_record(row) for row in connection.execute(statement).mappings()]

    def count(self, filter: Filter) -> int:
        """How many records match, whatever its limit."""
        statement = select(func.count()).select_from(RECORDS).where(*_conditions(filter, self._database.dialect))
        with self._database.reading() as connection:
            return int(connection.execute(statement).scalar_one())

    def get(self, number: int) -> Record | None:
        """One record, or None where there is none of this number."""
        if not 0 < number <= LARGEST:
            return None
        with self._database.reading() as connection:
            row = connection.execute(select(*SELECTED).where(RECORDS.c.number == number)).mappings().first()
        return None if row is None else as_record(row)

    def image(self, number: int) -> tuple[bytes, str] | None:
        """A record's kept image and its media type, or None."""
        if not 0 < number <= LARGEST:
            return None
        with self._database.reading() as connection:
            row = connection.execute(
                select(IMAGES.c.content, IMAGES.c.media_type).where(IMAGES.c.record == number)
            ).first()
        return None if row is None else (bytes(row.content), str(row.media_type))

    def feedback(self, number: int, label: str | None, note: str = "", by: str = "") -> Record:
        """Keep an operator's feedback on an inspection: "good" or "defect"; None takes it back.

        Raises DataError where there is no such record; SettingsError for another label.
        """
        if label is not None and label not in LABELS:
            hint = did_you_mean(label, LABELS)
            raise SettingsError(
                f"label must be one of {', '.join(LABELS)}, or null to take it back. Got {label!r}.{hint}"
            )
        values: dict[str, Any] = dict.fromkeys(("feedback", "feedback_note", "feedback_time", "feedback_by"))
        if label is not None:
            said = label, clean(note), _now(), clean(by)
            values = dict(zip(values, said, strict=True))
        row = None
        if 0 < number <= LARGEST:
            statement = update(RECORDS).where(RECORDS.c.number == number).values(values).returning(*SELECTED)
            with self._database.writing() as connection:
                row = connection.execute(statement).mappings().first()
        if row is None:
            raise DataError(f"There is no record {number}. It may have been pruned.")
        return as_record(row)

    def p_values(self, model: str, model_hash: str, last: int) -> list[tuple[int, datetime, float]]:
        """(number, time, p-value) of the ``last`` inspections by one version of a model, the oldest first."""
        table = RECORDS.c
        statement = (
            select(table.number, table.time, table.p_value)
            .where(table.model == clean(model), table.model_hash == clean(model_hash), table.p_value.is_not(None))
            .order_by(table.number.desc())
            .limit(max(0, min(last, LARGEST)))
        )
        with self._database.reading() as connection:
            return [(row.number, row.time, row.p_value) for row in connection.execute(statement)][::-1]

    def size(self) -> int:
        """Bytes that the records take, images included: what ``prune`` measures (``retention.stored_bytes``)."""
        with self._database.reading() as connection:
            return retention.stored_bytes(connection)

    def prune(self, *, older_than: timedelta | None = None, max_bytes: int | None = None) -> retention.Pruned:
        """Delete by age, then by size, in small transactions: inspections go on meanwhile. See ``retention``."""
        return retention.prune(self._database, _now(), older_than, max_bytes)

    def write_csv(self, to: str | os.PathLike[str] | BinaryIO, filter: Filter = ALL) -> int:
        """All records that match as CSV, the oldest first; how many. See ``files``."""
        return self._write(files.write_csv, to, filter)

    def write_parquet(self, to: str | os.PathLike[str] | BinaryIO, filter: Filter = ALL) -> int:
        """All records that match as Parquet, the oldest first; how many. See ``files``."""
        return self._write(files.write_parquet, to, filter)

    def processed_files(self, folder: str, names: Sequence[str]) -> dict[str, WatchedFile]:
        """The states in which those files of a watched folder were processed that were, by name."""
        found: dict[str, WatchedFile] = {}
        with self._database.reading() as connection:
            for part in _parts(names):
                found |= tables.processed_files(connection, folder, part)
        return found

    def same_content(self, file: WatchedFile) -> None:
        """A processed file has another size or time, but the content that was inspected: only its state changes."""
        with self._database.writing() as connection:
            tables.keep_same_content(connection, file, _now())

    def still_there(self, folder: str, names: Sequence[str]) -> None:
        """These files are in the folder now, so that they stay known as processed, however old they are."""
        for part in _parts(names):
            with self._database.writing() as connection:
                tables.keep_still_there(connection, folder, part, _now())

    def unreadable(self, file: WatchedFile, reason: str) -> bool:
        """A file could not be inspected: keep that, with its state. False where this state of it is kept already."""
        now = _now()
        row = {"folder": clean(file.folder), "name": clean(file.name), "reason": clean(reason), "time": now}
        with self._database.writing() as connection:
            if not tables.keep_processed(connection, file, now, same_content=True):
                return False
            connection.execute(insert(WATCH_ERRORS), row)
        return True

    def watch_errors(self, limit: int = 100) -> list[WatchError]:
        """Files of watched folders that could not be inspected, the newest first."""
        statement = select(WATCH_ERRORS).order_by(WATCH_ERRORS.c.number.desc()).limit(max(0, min(limit, LARGEST)))
        with self._database.reading() as connection:
            return [WatchError(row.folder, row.name, row.reason, row.time) for row in connection.execute(statement)]

    def close(self) -> None:
        """Close all connections. A record that ``add`` returned stays, closed or not."""
        self._database.close()

    def _write(
        self,
        write: Callable[[BinaryIO, Iterable[list[Record]]], int],
        to: str | os.PathLike[str] | BinaryIO,
        filter: Filter,
    ) -> int:
        found = files.batches(self._database, list(_conditions(filter, self._database.dialect)))
        if not isinstance(to, str | os.PathLike):
            return write(to, found)
        path = Path(to)

        def sentence(error: OSError) -> str:
            return f"{path} cannot be written: {error.strerror or error}. Name another file."

        with atomic_write(path, RecordsError, sentence) as part, part.open("wb") as file:
            return write(file, found)


def _now() -> datetime:
    return datetime.now(UTC)


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[first : first + FILES_AT_ONCE] for first in range(0, len(names), FILES_AT_ONCE))


def _conditions(asked: Filter, dialect: str) -> Iterator[ColumnElement[bool]]:
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
            yield table.file_name == tables.short_name(name)
        elif dialect == "sqlite":  # its LIKE takes upper and lower case for the same
            yield table.file_name.op("GLOB")("".join(f"[{sign}]" if sign in "[?" else sign for sign in name))
        else:
            escaped = "".join(f"\\{sign}" if sign in "\\%_" else sign for sign in name)
            yield table.file_name.like(escaped.replace("*", "%"), escape="\\")
