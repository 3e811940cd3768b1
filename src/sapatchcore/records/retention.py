"""Which records are deleted, by age and by size.

By age: everything older goes, whatever the feedback. By size: the oldest first, until the records take no more than that, and
none that was added after pruning began (else it would chase an inspection that writes faster, without an end):

1. images that no operator called good,
2. images that one did: they may wait to be learned from,
3. records.

Each step is a small transaction: inspections go on between them. SQLite gives freed pages back to the disk.
PostgreSQL keeps them for new records (VACUUM); its size is therefore measured as what the records hold.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, text, update

from sapatchcore.errors import SettingsError
from sapatchcore.records.database import Database
from sapatchcore.records.record import GOOD
from sapatchcore.records.tables import IMAGES, RECORDS, WATCH_ERRORS, WATCHED

ROWS, BYTES = 500, 32_000_000  # of one transaction, at most
_ROW_BYTES = 300  # of one record with its share of the indexes, roughly: how many to delete before measuring again
_PAUSE = 0.005  # seconds between transactions; else whoever waits for the lock would hardly get it
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_TIMES = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True)
class Pruned:
    """What went. records: with or without an image. images: all. good_images: of these, those that an operator called good.
    bytes: what all that is left takes, measured as ``stored_bytes`` does."""

    records: int
    images: int
    good_images: int
    bytes: int


def prune(database: Database, now: datetime, older_than: timedelta | None, max_bytes: int | None) -> Pruned:
    """Delete records by age, then by size; None leaves one of them out.

    Raises SettingsError for a negative age or size; RecordsError where the database fails: what is deleted by then stays so.
    """
    if older_than is not None and older_than < timedelta(0):
        raise SettingsError(f"older_than must not be negative. Got {older_than}.")
    if max_bytes is not None and max_bytes < 0:
        raise SettingsError(f"max_bytes must not be negative. Got {max_bytes}.")
    pruning = _Pruning(database)
    if older_than is not None:
        pruning.by_age(_before(now, older_than), older_than)
    if max_bytes is not None:
        pruning.by_size(max_bytes)
    pruning.finish()
    with database.reading() as connection:
        size = stored_bytes(connection)
    return Pruned(pruning.records, pruning.images, pruning.good, size)


def stored_bytes(connection: Connection) -> int:
    """Bytes that the records take, their images included.

    SQLite: the pages in use. PostgreSQL: the images' bytes and the rows' own, summed by the server; not the space on disk,
    which stays as large as it once was, and takes in what is new before it grows again.
    """
    if connection.dialect.name == "sqlite":
        pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size
    sums = (
        f"(SELECT coalesce(sum({size}), 0) FROM {table.name} t)"
        for table, size in ((IMAGES, "bytes"), (RECORDS, "pg_column_size(t.*)"), (WATCHED, "pg_column_size(t.*)"))
    )
    return int(connection.execute(text(f"SELECT {' + '.join(sums)}")).scalar_one())


def _pragma(connection: Connection, name: str) -> int:
    value: Any = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
    return int(value)


def as_age(text: str) -> timedelta:
    """ "30d", "12h", "90m" or "2w" as a time span. Raises SettingsError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhdw])\s*", text)
    try:
        return float(found[1]) * _TIMES[found[2]]  # type: ignore[index]
    except (TypeError, OverflowError):
        raise SettingsError(f"An age must be a number and m, h, d or w. Got {text!r}. Use 30d for 30 days.") from None


def as_bytes(text: str) -> int:
    """ "5GB", "500 MB" or "1000000" as bytes; 1 GB is 10⁹. Raises SettingsError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?\s*", text.upper())
    if found is None:
        raise SettingsError(f"A size must be a number and KB, MB, GB or TB. Got {text!r}. Use 5GB for 5 · 10⁹ bytes.")
    return int(float(found[1]) * _UNITS[found[2] or "B"])


class _Pruning:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.records = self.images = self.good = 0
        self._newest = 0  # number of the newest record when ``by_size`` began

    def by_age(self, before: datetime, age: timedelta) -> None:
        old = select(RECORDS.c.number, RECORDS.c.image_bytes, RECORDS.c.feedback).where(RECORDS.c.time < before)
        while self._delete_records(old.order_by(RECORDS.c.time).limit(ROWS)):
            pass
        with self._database.writing() as connection:
            connection.execute(delete(WATCH_ERRORS).where(WATCH_ERRORS.c.time < before))
            # A processed file is forgotten once it was out of the folder for that long while the folder was watched. Without
            # a watch nothing is known of the files, and one that is forgotten too soon is inspected twice.
            last = select(WATCHED.c.folder, func.max(WATCHED.c.checked).label("checked")).group_by(WATCHED.c.folder)
            for folder, checked in connection.execute(last).all():
                gone = WATCHED.c.checked < _before(checked, age)
                connection.execute(delete(WATCHED).where(WATCHED.c.folder == folder, gone))

    def by_size(self, most: int) -> None:
        with self._database.reading() as connection:
            self._newest = connection.execute(select(func.max(RECORDS.c.number))).scalar() or 0
        earlier = RECORDS.c.number <= self._newest
        oldest = (
            select(RECORDS.c.number, RECORDS.c.image_bytes, RECORDS.c.feedback)
            .order_by(RECORDS.c.number)
            .where(earlier)
        )
        while (over := self._size() - most) > 0:
            while over > 0:  # by what each step frees: measuring makes PostgreSQL read every record
                rows = min(ROWS, over // _ROW_BYTES + 1)
                freed = (
                    self._delete_images(over, good=False)
                    or self._delete_images(over, good=True)
                    or self._delete_records(oldest.limit(rows))
                )
                if not freed:
                    return
                over -= freed

    def _size(self) -> int:
        with self._database.reading() as connection:
            return stored_bytes(connection)

    def _delete_images(self, over: int, *, good: bool) -> int:
        """Of one transaction's size at most, and no more than frees ``over`` bytes; how many bytes, 0 where there are none."""
        feedback = RECORDS.c.feedback
        wanted = feedback.is_not_distinct_from(GOOD) if good else feedback.is_distinct_from(GOOD)
        statement = (
            select(IMAGES.c.record, IMAGES.c.bytes)
            .join(RECORDS, RECORDS.c.number == IMAGES.c.record)
            .where(wanted, IMAGES.c.record <= self._newest)
            .order_by(IMAGES.c.record)
            .limit(ROWS)
        )
        with self._database.writing() as connection:
            rows = connection.execute(statement).all()
            chosen = _first([(row.record, row.bytes) for row in rows], min(over, BYTES))
            if chosen:
                connection.execute(delete(IMAGES).where(IMAGES.c.record.in_(chosen)))
                connection.execute(update(RECORDS).where(RECORDS.c.number.in_(chosen)).values(image_bytes=0))
        self.images += len(chosen)
        self.good += len(chosen) if good else 0
        self._free_pages(bool(chosen))
        return sum(row.bytes for row in rows[: len(chosen)])

    def _delete_records(self, statement: Select[Any]) -> int:
        """Of one transaction's size at most; about how many bytes, 0 where there are none."""
        with self._database.writing() as connection:
            rows = connection.execute(statement).all()
            chosen = _first([(row.number, row.image_bytes) for row in rows], BYTES)
            if chosen:
                connection.execute(delete(RECORDS).where(RECORDS.c.number.in_(chosen)))  # and their images
        rows = rows[: len(chosen)]
        self.records += len(rows)
        self.images += sum(row.image_bytes > 0 for row in rows)
        self.good += sum(row.image_bytes > 0 and row.feedback == GOOD for row in rows)
        self._free_pages(bool(chosen))
        return sum(row.image_bytes + _ROW_BYTES for row in rows)

    def _free_pages(self, deleted: bool) -> None:
        """Give the pages of what a step deleted back to the disk, and let others write."""
        if deleted and self._database.is_sqlite:
            time.sleep(_PAUSE)
            self._database.run("PRAGMA incremental_vacuum")
        if deleted:
            time.sleep(_PAUSE)

    def finish(self) -> None:
        """Leave the disk as small as it can be without making anyone wait."""
        if self._database.is_sqlite:
            self._database.run("PRAGMA wal_checkpoint(PASSIVE)")  # the file becomes shorter only here
        elif self.records or self.images:
            self._database.run(
                f"VACUUM (SKIP_LOCKED) {RECORDS.name}, {IMAGES.name}, {WATCHED.name}, {WATCH_ERRORS.name}"
            )


def _first(sizes: list[tuple[int, int]], most: int) -> list[int]:
    """Of (number, bytes), the first numbers until ``most`` bytes are reached; at least one where there is any."""
    chosen: list[int] = []
    taken = 0
    for number, size in sizes:
        if chosen and taken >= most:
            break
        chosen.append(number)
        taken += size
    return chosen


def _before(moment: datetime, age: timedelta) -> datetime:
    try:
        return moment - age
    except OverflowError:  # older than the calendar: nothing is
        return datetime.min.replace(tzinfo=UTC)
