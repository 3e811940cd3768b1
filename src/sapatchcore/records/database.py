"""The database behind the records: SQLite in a file or a PostgreSQL server, its transactions, and what goes wrong in words.

SQLite writes ahead (WAL): readers see the state before a write and never wait for it. A commit waits for the disk
(synchronous=FULL), so what was committed outlives a kill and a power cut. One thread writes at a time, others wait for it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sapatchcore.errors import RecordsError, install

CONNECTIONS = 16  # at most; a thread that finds none free waits
_SQLITE = {  # by SQLite's primary result code
    3: "it may not be written. Check the rights to the file and its folder.",
    5: "another program kept it locked for more than {wait:g} s. Try again, or end that program.",
    6: "another program kept it locked for more than {wait:g} s. Try again, or end that program.",
    8: "it may not be written. Check the rights to the file and its folder.",
    10: "the disk cannot be read or written, or is full. Check it.",
    11: "the file is damaged. Restore a backup, or move it away: a new one is begun.",
    13: "the disk is full. Free some space, or prune the records.",
    14: "it cannot be opened. Check the path, and the rights to the file and its folder.",
    26: "this is no SQLite database, or its beginning is damaged. Name another file, or restore a backup.",
}
_POSTGRESQL = {  # by PostgreSQL's code, or its first two characters
    "53100": "the server's disk is full. Free some space, or prune the records.",
    "55P03": "another program kept the tables locked for more than {wait:g} s. Try again, or end that program.",
    "25006": "the server lets nobody write (it may be a standby). Name the primary server.",
    "42501": "this user may not read or write the tables. Grant it the rights.",
    "XX": "the database is damaged. Restore a backup.",
}


class FairLock:
    """One at a time, in the order of asking: Python's own locks let a busy thread take the lock again before any that waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; whether the lock is held now."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=timeout):
            return True
        with self._lock:
            if mine not in self._waiting:  # handed over at the last moment
                return True
            self._waiting.remove(mine)
            return False

    def release(self) -> None:
        """Hand the lock to the next that waits."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class Database:
    """A SQLite file or a PostgreSQL server.

    Args:
        where: a path, or a URL: postgresql://user@host/database, or sqlite:///path.
        wait: seconds to wait for a connection or for another program's lock.

    Raises:
        RecordsError: an unusable path or URL.
    """

    def __init__(self, where: str | os.PathLike[str], wait: float) -> None:
        url = _url(where)
        self.dialect = url.get_backend_name()
        self.is_sqlite = self.dialect == "sqlite"
        self.path = Path(url.database or "") if self.is_sqlite else None
        self.shown = str(self.path) if self.is_sqlite else _shown(url)
        self._wait = wait
        self._secrets = _secrets(url)
        self._write_lock = FairLock()
        given: dict[str, Any] = {"timeout": wait} if self.is_sqlite else {}
        if not self.is_sqlite and "connect_timeout" not in url.query:
            given["connect_timeout"] = max(2, round(wait))
        try:
            self._engine = create_engine(
                url,
                connect_args=given,
                pool_size=CONNECTIONS,
                max_overflow=0,
                pool_timeout=wait,
                pool_pre_ping=not self.is_sqlite,
            )
        except ImportError:
            raise RecordsError(f"PostgreSQL needs psycopg: {install('postgresql')}") from None
        except (ArgumentError, NoSuchModuleError, TypeError, ValueError):
            raise RecordsError(f"{self.shown}: {_URLS}") from None
        self._writer = self._engine.execution_options(writes=True)
        event.listen(self._engine, "connect", self._set_up)
        if self.is_sqlite:
            event.listen(self._engine, "begin", _begin)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that only reads. Raises RecordsError."""
        with self._saying(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end of ``with``, rolled back where that ends by an exception. Raises RecordsError."""
        with self._alone(), self._saying(), self._writer.begin() as connection:
            yield connection

    def run(self, statement: str) -> None:
        """A statement that takes no transaction around it, such as VACUUM or a checkpoint. Raises RecordsError."""
        with self._alone(), self._saying():
            if not self.is_sqlite:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(statement)
                return
            raw = self._engine.raw_connection()  # AUTOCOMMIT would undo what _set_up said of transactions
            try:
                raw.cursor().executescript(statement)  # to its end: execute would free one page of incremental_vacuum
            finally:
                raw.close()

    def close(self) -> None:
        """Close all connections; the last one of SQLite writes its log into the file."""
        self._engine.dispose()

    def _set_up(self, connection: Any, _: object) -> None:
        cursor = connection.cursor()
        if self.is_sqlite:
            connection.isolation_level = None  # Python's module begins no transaction of its own: _begin does
            cursor.execute(f"PRAGMA busy_timeout = {round(self._wait * 1000)}")
            if cursor.execute("PRAGMA page_count").fetchone() == (0,):  # of any other file this would be a write
                cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")  # freed pages can be given back
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA journal_size_limit = 67108864")
        else:
            cursor.execute(f"SET lock_timeout = {round(self._wait * 1000)}")
            connection.commit()
        cursor.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """With SQLite only one thread of this process writes: waiting here is fair and quick, SQLite's own waiting is neither."""
        if not self.is_sqlite:
            yield
            return
        if not self._write_lock.acquire(self._wait):
            raise RecordsError(f"{self.shown}: {_SQLITE[5].format(wait=self._wait)}")
        try:
            yield
        finally:
            self._write_lock.release()

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout:
            raise RecordsError(
                f"{self.shown}: all {CONNECTIONS} connections were busy for {self._wait:g} s. Try again."
            ) from None
        except DBAPIError as error:
            raise self._translated(error.orig or error) from None
        except (ValueError, TypeError) as error:  # what was a time or a number is none any more: damaged on the disk
            raise RecordsError(f"{self.shown}: {_SQLITE[11]}") from error
        except sqlite3.Error as error:  # while a connection is set up, before SQLAlchemy has it
            raise self._translated(error) from None

    def _translated(self, error: BaseException) -> RecordsError:
        """What the database's own error means."""
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(code, int) and code & 0xFF in _SQLITE:
            return RecordsError(f"{self.shown}: {_SQLITE[code & 0xFF].format(wait=self._wait)}")
        state = getattr(error, "sqlstate", None)
        for found in (state, str(state)[:2]):
            if found in _POSTGRESQL:
                return RecordsError(f"{self.shown}: {_POSTGRESQL[found].format(wait=self._wait)}")
        words = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            words = words.replace(secret, "***")
        advice = "" if self.is_sqlite else " Check that the server runs, and that it has this user and database."
        return RecordsError(f"{self.shown} cannot be used: {words[:240].rstrip('.? ')}.{advice}")


_URLS = "records are kept in a file, or where a URL says: postgresql://user@host/database. Check how it is written."


def _url(where: str | os.PathLike[str]) -> URL:
    text = os.fspath(where)
    if not isinstance(where, str) or "://" not in text:
        return URL.create("sqlite", database=_checked(Path(text)))
    scheme = text.partition("://")[0]
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number, for one; the text may hold a password
        raise RecordsError(f"The records' URL ({scheme}://…) cannot be read: {_URLS}") from None
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite" and driver in ("", "pysqlite"):
        return URL.create("sqlite", database=_checked(Path(url.database or "")))
    if backend in ("postgresql", "postgres") and driver in ("", "psycopg"):
        return url.set(drivername="postgresql+psycopg")
    raise RecordsError(f"The records' URL begins with {scheme}://, which is not known: {_URLS}")


def _checked(path: Path) -> str:
    if path.name in ("", ":memory:") or "\0" in str(path):
        raise RecordsError(f"Records need a file on a disk. Got {str(path)!r}. Name one, such as inspections.sqlite.")
    if path.is_dir():
        raise RecordsError(f"{path} is a folder, where the records' file is needed. Name a file inside it.")
    if not path.parent.is_dir():
        raise RecordsError(f"The folder {path.parent} for the records does not exist. Make it first.")
    return str(path.absolute())


def _shown(url: URL) -> str:
    """Without password and without parameters, which may hold one, too."""
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()


def _secrets(url: URL) -> list[str]:
    values = [url.password, *(value for name, value in url.query.items() if "pass" in name)]
    plain = [str(value) for value in values if value]
    return sorted(
        {form for one in plain for form in (one, quote(one, safe=""), quote_plus(one))}, key=len, reverse=True
    )


def _begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once and waits for it; a transaction that read first could not.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
