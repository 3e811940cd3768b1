"""What fails is one sentence without a password, and what was recorded stays: damage, full disks, kills, absent servers."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import postgres
import pytest
from damage import cut, flipped, swapped, zeroed
from inspections import inspection

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: install the extra serve")

from sqlalchemy import event

from sapatchcore.errors import DataError, RecordsError
from sapatchcore.records.database import FairLock
from sapatchcore.records.record import Filter
from sapatchcore.records.records import Records
from sapatchcore.records.tables import IMAGES

SECRET = "pa55/w+rd"


def refused(where: Any, *words: str, **options: Any) -> str:
    """The sentence with which it cannot be opened."""
    with pytest.raises(RecordsError) as caught:
        Records(where, **options)
    sentence = str(caught.value)
    assert caught.value.__cause__ is None
    assert "\n" not in sentence
    assert len(sentence) < 500
    for word in words:
        assert word in sentence
    return sentence


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://joe:{}@127.0.0.1:1/line", "refused"),
        ("postgres://joe:{}@127.0.0.1:1/line", "refused"),
        ("postgresql+psycopg://joe@127.0.0.1:1/line?password={}", "refused"),
        ("postgresql://joe:{}@no-such-host.invalid/line", "resolve"),
        ("postgresql://joe:{}@127.0.0.1:port/line", "cannot be read"),
        ("postgresql://joe:{}@127.0.0.1:99999/line", "port"),
        ("postgresql://joe:{}@127.0.0.1:1/line?no_such_option=1", "no_such_option"),
        ("postgresql+asyncpg://joe:{}@127.0.0.1/line", "not known"),
        ("mysql://joe:{}@127.0.0.1/line", "not known"),
        ("://joe:{}@127.0.0.1/line", "cannot be read"),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, "simple"])
def test_a_url_that_leads_nowhere_is_a_sentence_without_its_password(url: str, word: str, secret: str) -> None:
    from urllib.parse import quote_plus

    sentence = refused(url.format(quote_plus(secret)), word, wait=2)
    assert secret not in sentence
    assert quote_plus(secret) not in sentence


def test_a_wrong_password_is_not_shown(postgresql: postgres.PostgreSQL) -> None:
    from urllib.parse import quote_plus

    place = f"127.0.0.1:{postgresql.port}/postgres"
    sentence = refused(f"postgresql://tester:{SECRET.replace('/', '%2F')}@{place}", f"postgresql://tester@{place}")
    assert SECRET not in sentence
    with Records(f"postgresql://tester:{quote_plus(postgres.PASSWORD)}@{place}") as records:
        assert records.shown == f"postgresql://tester@{place}"
        assert records.count(Filter()) == 0
    postgresql.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def test_a_database_that_does_not_exist(postgresql: postgres.PostgreSQL) -> None:
    refused(
        postgresql.url().replace("/postgres?", "/nothing?"),
        'database "nothing" does not exist',
        "Check that the server runs",
    )


def test_paths_that_cannot_be_a_file(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    refused(tmp_path / "no" / "records.sqlite", "does not exist", "Make it first")
    refused(":memory:", "need a file")
    refused("sqlite://", "need a file")
    refused("", "need a file")
    refused("a\0b", "need a file")
    refused(tmp_path / "new.sqlite", "do not exist", make=False)
    assert not (tmp_path / "new.sqlite").exists()


def test_a_path_may_be_a_url_too(tmp_path: Path) -> None:
    with Records(f"sqlite:///{tmp_path}/a b%.sqlite") as records:
        records.add([inspection()])
    with Records(tmp_path / "a b%.sqlite", make=False) as records:
        assert records.count(Filter()) == 1


def test_a_database_without_records_is_not_taken_for_one(postgresql: postgres.PostgreSQL) -> None:
    refused(postgresql.url("without_records"), "holds no records", make=False)


def test_without_psycopg_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    refused("postgresql://joe@127.0.0.1/line", 'pip install "sapatchcore[postgresql]"')


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    refused(path, "another program's database", "songs")
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_a_newer_version_is_refused_and_left_alone(where: str | Path) -> None:
    with Records(where) as records:
        records.add([inspection()])
        with records._database.writing() as connection:
            connection.exec_driver_sql("UPDATE sapatchcore_schema SET version = 7")
    refused(where, "version 7", "knows 3", "newer sapatchcore")


# What version 1 made: its columns in their order, with the types of either database.
_FIRST = """number {number}, time {time} NOT NULL, model TEXT NOT NULL, model_hash VARCHAR(64) NOT NULL,
    image_hash VARCHAR(64) NOT NULL, file_name TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    score {double} NOT NULL, p_value {double}, threshold {double}, false_reject {double}, verdict TEXT, kind TEXT,
    local {double} NOT NULL, context {double} NOT NULL, image_bytes BIGINT NOT NULL, feedback TEXT, feedback_note TEXT,
    feedback_time {time}, feedback_by TEXT, source TEXT NOT NULL"""
_TYPES = {
    "sqlite": {"number": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "time": "DATETIME", "double": "DOUBLE"},
    "postgresql": {
        "number": "BIGSERIAL NOT NULL PRIMARY KEY",
        "time": "TIMESTAMP WITH TIME ZONE",
        "double": "DOUBLE PRECISION",
    },
}
_OLD_ROW = """INSERT INTO sapatchcore_records (time, model, model_hash, image_hash, file_name, width, height, score, p_value,
    threshold, false_reject, verdict, kind, local, context, image_bytes, source) VALUES ('2026-03-01 12:00:00.000000', 'screws',
    'a', 'b', 'old.png', 64, 48, 5, 0.01, 4, 0.01, 'reject', 'both', 3, 4, 0, 'api')"""


def made_by_version_1(where: str | Path) -> None:
    """A database as the first version left it, with one record."""
    with Records(where) as records, records._database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE sapatchcore_images")
        connection.exec_driver_sql("DROP TABLE sapatchcore_records")
        columns = _FIRST.format(**_TYPES[connection.dialect.name])
        connection.exec_driver_sql(f"CREATE TABLE sapatchcore_records ({columns})")
        IMAGES.create(connection)
        connection.exec_driver_sql("UPDATE sapatchcore_schema SET version = 1")
        connection.exec_driver_sql(_OLD_ROW)


@pytest.mark.parametrize("make", [True, False])
def test_a_database_of_the_first_version_goes_on(where: str | Path, make: bool) -> None:
    made_by_version_1(where)
    with Records(where, make=make) as records:
        (old,) = records.find(Filter())
        assert (old.file_name, old.score, old.kind, old.global_score, old.notes) == ("old.png", 5.0, "both", None, None)
        added = {"global_score": 69.7, "notes": "It is smaller.", "product": "screw"}
        (new,) = records.add([inspection(image=b"png", media_type="image/png", **added)])
        assert (new.number, new.global_score, new.notes, new.product) == (2, 69.7, "It is smaller.", "screw")
    with Records(where, make=False) as again:
        assert again.find(Filter()) == [new, old]
        # A program of the first version that still runs writes on.
        with again._database.writing() as connection:
            connection.exec_driver_sql(_OLD_ROW)
        assert again.count(Filter()) == 3


def test_two_programs_bring_one_database_up_to_date(where: str | Path) -> None:
    made_by_version_1(where)
    with ThreadPoolExecutor(4) as pool:
        for records in pool.map(lambda _: Records(where), range(4)):
            assert records.count(Filter()) == 1
            records.close()


def test_a_column_that_cannot_be_added_leaves_the_version_before(tmp_path: Path) -> None:
    made_by_version_1(path := tmp_path / "old.sqlite")
    with sqlite3.connect(path) as other:  # the second of both columns is there: the first one must go again
        other.execute("ALTER TABLE sapatchcore_records ADD COLUMN notes TEXT")
    refused(path, "duplicate column name: notes")
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT version FROM sapatchcore_schema").fetchone() == (1,)
        names = [row[1] for row in other.execute("PRAGMA table_info(sapatchcore_records)")]
    assert "notes" in names
    assert "global_score" not in names


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG" * 1000)
    refused(path, "no SQLite database")
    assert path.read_bytes() == b"\x89PNG" * 1000


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "new.sqlite").touch()
    with Records(tmp_path / "new.sqlite") as records:
        records.add([inspection()])


@pytest.mark.parametrize("damaged", [cut, flipped, swapped, zeroed], ids=lambda function: function.__name__)
def test_a_damaged_file_is_never_a_traceback(tmp_path: Path, damaged: Callable[..., bytes]) -> None:
    """Each is refused with a sentence, or answers; nothing else."""
    path = tmp_path / "whole.sqlite"
    with Records(path) as records:
        for i in range(60):
            records.add([inspection(file_name=f"{i}.png", image=b"%d" % i * 2000)])
    content, sentences = path.read_bytes(), list[str]()
    chance = np.random.default_rng(0)
    for number in range(15):
        copy = tmp_path / f"{number}.sqlite"
        copy.write_bytes(damaged(content, chance))
        try:
            with Records(copy, wait=1) as records:
                for one in records.find(Filter(limit=200)):
                    records.image(one.number)
                records.feedback(1, "good")
                records.add([inspection(image=b"x" * 9000)])
                records.prune(max_bytes=50_000)
        except RecordsError as error:
            sentences.append(str(error))
        except DataError as error:  # what was record 1 has another number
            assert "no record 1" in str(error)  # noqa: PT017
    assert all(str(tmp_path) in one and "\n" not in one for one in sentences)
    assert sentences  # how many of the copies are refused depends on the bits


def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path) -> None:
    with Records(tmp_path / "r.sqlite") as records:
        kept = records.add([inspection(image=b"x" * 5000)])
        pages = 60
        event.listen(
            records._database._engine,
            "checkout",
            lambda connection, *_: connection.execute(f"PRAGMA max_page_count = {pages}") and None,
        )

        def fill() -> None:
            for _ in range(100):
                kept.extend(records.add([inspection(image=b"x" * 5000) for _ in range(3)]))

        with pytest.raises(RecordsError, match=r"the disk is full\. Free some space, or prune"):
            fill()
        assert len(kept) > 3
        assert records.find(Filter(limit=1000)) == kept[::-1]
        assert all(records.image(one.number) for one in kept)
        pages = 1000
        records.add([inspection(image=b"x" * 5000)])
    with sqlite3.connect(tmp_path / "r.sqlite") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


LIMITED = """
import resource, signal, sys
from inspections import inspection
from sapatchcore.records.records import Records
from sapatchcore.errors import RecordsError
records = Records(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    while True:
        print(records.add([inspection(image=b"x" * 5000)])[0].number, flush=True)
except RecordsError as error:
    print(error, file=sys.stderr)
"""


def test_a_disk_that_fails_keeps_what_was_recorded(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    done = run_python(LIMITED, str(tmp_path / "r.sqlite"), env=ENVIRONMENT)
    assert "the disk cannot be read or written, or is full" in done.stderr
    assert "Traceback" not in done.stderr
    numbers = [int(line) for line in done.stdout.split()]
    assert len(numbers) > 10
    with Records(tmp_path / "r.sqlite") as records:
        assert [one.number for one in records.find(Filter(limit=1000))] == numbers[::-1]


READ_ONLY = """
import os, sys
from inspections import inspection
from sapatchcore.records.records import Records
from sapatchcore.errors import RecordsError
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    with Records(sys.argv[1]) as records:
        records.add([inspection()])
except RecordsError as error:
    print(error)
"""


def test_a_folder_that_may_not_be_written(run_python: Callable[..., Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:  # not tmp_path: nobody else may enter that
        folder = Path(name)
        with Records(folder / "old.sqlite") as records:
            records.add([inspection()])
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        for file in ("new.sqlite", "old.sqlite"):
            done = run_python(READ_ONLY, str(folder / file), env=ENVIRONMENT)
            assert "Check the " in done.stdout, done.stderr
            assert done.stderr == ""
            assert str(folder / file) in done.stdout
        folder.chmod(0o755)


def test_a_lock_of_another_program_is_waited_for_and_then_said(where: str | Path) -> None:
    with Records(where) as one, Records(where, wait=0.3) as other:
        with one._database.writing() as connection:
            connection.exec_driver_sql(
                "SELECT 1" if one._database.is_sqlite else "LOCK TABLE sapatchcore_records IN ACCESS EXCLUSIVE MODE"
            )
            with pytest.raises(RecordsError, match=r"another program kept .* locked for more than 0\.3 s"):
                other.add([inspection()])
        other.add([inspection()])
        assert one.count(Filter()) == 1


def test_readers_do_not_wait_for_a_writer(where: str | Path) -> None:
    with Records(where, wait=0.3) as records:
        records.add([inspection()])
        with records._database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM sapatchcore_records")
            assert records.count(Filter()) == 1
        assert records.count(Filter()) == 0


def test_connections_that_the_server_ended_are_made_anew(postgresql: postgres.PostgreSQL) -> None:
    with Records(postgresql.url("ended")) as records:
        records.add([inspection()])
        postgresql.end_connections()
        assert records.add([inspection()])[0].number == 2


def test_a_server_that_goes_away_is_a_sentence(postgresql: postgres.PostgreSQL, tmp_path: Path) -> None:
    """Its socket, which is another name of the server's here, is gone, and it ended the connections that it had."""
    socket = f".s.PGSQL.{postgresql.port}"
    (tmp_path / socket).symlink_to(postgresql.folder / socket)
    with Records(postgresql.url("away").replace(str(postgresql.folder), str(tmp_path)), wait=2) as records:
        records.add([inspection()])
        (tmp_path / socket).unlink()
        postgresql.end_connections()
        start = time.monotonic()
        for call in (
            lambda: records.add([inspection()]),
            lambda: records.find(Filter()),
            lambda: records.prune(max_bytes=0),
        ):
            with pytest.raises(RecordsError, match="Check that the server runs"):
                call()
        assert time.monotonic() - start < 30


ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(sys.path),
    "PATH": "/usr/bin:/bin",
    "OMP_NUM_THREADS": "1",
}

RECORDING = """
import sys
from inspections import inspection
from sapatchcore.records.records import Records
with Records(sys.argv[1]) as records:
    print("ready", flush=True)
    for call in range(int(sys.argv[2])):
        content = bytes([call % 251]) * (50_000 if call % 5 else 300_000)
        found = records.add([inspection(file_name=f"{sys.argv[3]} {call}", image=content) for _ in range(3)])
        print(*(one.number for one in found), flush=True)
"""


def start(where: str | Path, calls: int, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RECORDING, str(where), str(calls), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


def check_whole(records: Records, answered: dict[int, int]) -> None:
    """answered: the call of each record whose number was printed."""
    found = {one.number: one for one in records.find(Filter(limit=10**6))}
    assert set(answered) <= set(found)
    groups: dict[str, int] = {}
    for one in found.values():
        groups[one.file_name] = groups.get(one.file_name, 0) + 1
        call = int(one.file_name.split()[-1])
        assert answered.get(one.number, call) == call
        image = records.image(one.number)
        assert image is not None
        assert image[0] == bytes([call % 251]) * (50_000 if call % 5 else 300_000)
    assert set(groups.values()) <= {3}


def test_what_was_answered_outlives_a_kill(where: str | Path) -> None:
    Records(where).close()
    chance = np.random.default_rng(1)
    answered: dict[int, int] = {}
    for run in range(4):
        child = start(where, 100_000, str(run))
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(float(chance.uniform(0.02, 0.4)))
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().splitlines(keepends=True)
        child.wait()
        for call, line in enumerate(line for line in lines if line.endswith("\n")):
            answered |= dict.fromkeys(map(int, line.split()), call)
        with Records(where) as records:
            check_whole(records, answered)
            if records._database.is_sqlite:
                with records._database.reading() as connection:
                    assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
                    assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    assert len(answered) > 20


def test_programs_that_begin_at_once_share_one_database(where: str | Path) -> None:
    children = [start(where, 10, str(number)) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda child: child.communicate(timeout=120)[0].split(), children))
    numbers = [int(word) for words in outputs for word in words[1:]]
    assert len(numbers) == len(set(numbers)) == 4 * 10 * 3
    with Records(where) as records:
        check_whole(records, {})
        assert records.count(Filter()) == len(numbers)


def test_sqlite_is_set_up_as_promised(tmp_path: Path) -> None:
    with Records(tmp_path / "r.sqlite") as records:
        for read in (records._database.reading, records._database.writing):
            with read() as connection:
                found = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "busy_timeout")
                }
            assert found == {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "auto_vacuum": 2,
                "busy_timeout": 30_000,
            }
    assert [path.name for path in tmp_path.iterdir()] == ["r.sqlite"]  # the log went into the file


def test_a_thread_that_asks_again_and_again_lets_others_through() -> None:
    lock, stop, came = FairLock(), threading.Event(), []

    def busy() -> None:
        while not stop.is_set():
            assert lock.acquire(60)
            time.sleep(0.001)
            lock.release()

    thread = threading.Thread(target=busy)
    thread.start()
    for _ in range(50):
        came.append(lock.acquire(30))
        lock.release()
    stop.set()
    thread.join()
    assert came == [True] * 50


def test_those_who_wait_come_in_the_order_of_asking() -> None:
    lock, order, threads = FairLock(), list[int](), []
    assert lock.acquire(1)
    for number in range(8):

        def wait(number: int = number) -> None:
            assert lock.acquire(60)
            order.append(number)
            lock.release()

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        while len(lock._waiting) != number + 1:
            time.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_who_gives_up_is_passed_over() -> None:
    lock = FairLock()
    assert lock.acquire(1)
    assert not lock.acquire(0.01)
    assert not lock.acquire(0)
    lock.release()
    assert lock.acquire(0)
    lock.release()


def test_never_two_at_once_and_never_none() -> None:
    """Threads that wait for times as short as the lock is held: it is handed over at the last moment, or just after."""
    lock, inside, most, came = FairLock(), 0, 0, 0

    def work(seed: int) -> None:
        nonlocal inside, most, came
        chance = random.Random(seed)
        for _ in range(150):
            if lock.acquire(chance.random() * 0.002):
                inside += 1
                most = max(most, inside)
                time.sleep(chance.random() * 0.0005)
                came += 1
                inside -= 1
                lock.release()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert came > 50
    assert lock.acquire(0)
