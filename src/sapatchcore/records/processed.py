"""Which files of watched folders were inspected already: one mark a file, of its newest state."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sapatchcore.records.record import Watched, clean
from sapatchcore.records.tables import WATCHED

_AT_ONCE = 500  # keys in one statement


def key(folder: str, name: str) -> str:
    """A file's mark goes by a digest: names may be of any length and hold any bytes."""
    return hashlib.sha256(os.fsencode(folder) + b"\0" + os.fsencode(name)).hexdigest()


def mark(connection: Connection, watched: Watched, now: datetime, *, same_content: bool = False) -> bool:
    """Keep a file's state; whether it is news: of another content than the mark that was there.

    same_content: news also where the content is the same, or unknown, but size or time differ.
    """
    table = WATCHED.c
    row = {
        "key": key(watched.folder, watched.name),
        "folder": clean(watched.folder),
        "name": clean(watched.name),
        "bytes": watched.bytes,
        "mtime_ns": watched.mtime_ns,
        "image_hash": watched.image_hash,
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


def moved_on(connection: Connection, watched: Watched, now: datetime) -> None:
    """Same content, another time: only the mark changes."""
    found = and_(WATCHED.c.key == key(watched.folder, watched.name), WATCHED.c.image_hash == watched.image_hash)
    values = {"bytes": watched.bytes, "mtime_ns": watched.mtime_ns, "checked": now}
    connection.execute(update(WATCHED).where(found).values(values))


def marks(connection: Connection, folder: str, names: Sequence[str]) -> dict[str, Watched]:
    """The marks of those files that have one, by name."""
    found = {}
    for part in _parts(names):
        by_key = {key(folder, name): name for name in part}
        for row in connection.execute(select(WATCHED).where(WATCHED.c.key.in_(by_key))):
            name = by_key[row.key]
            found[name] = Watched(folder, name, row.bytes, row.mtime_ns, row.image_hash)
    return found


def still_there(connection: Connection, folder: str, names: Sequence[str], now: datetime) -> None:
    """These files were in the folder just now: their marks stay. At most 500 of them."""
    keys = [key(folder, name) for name in names]
    connection.execute(update(WATCHED).where(WATCHED.c.key.in_(keys)).values(checked=now))


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _AT_ONCE):
        yield names[first : first + _AT_ONCE]
