"""Watched folders: every image once, across kills and restarts; nothing that is not there yet, nothing from elsewhere.

In SQLite, which is quicker; in PostgreSQL what depends on the database: two watches at once, and kills. That processed files are
kept alike in both is tested with the records.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from inspections import inspection
from PIL import Image

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: install the extra serve")
pytest.importorskip("watchfiles", reason="watchfiles is not installed: install the extra serve")

from sapatchcore.errors import DataError, RecordsError, SAPatchCoreError
from sapatchcore.records import arrivals
from sapatchcore.records import watch as watch_module
from sapatchcore.records.record import Filter, NewRecord, ReceivedImage
from sapatchcore.records.records import Records
from sapatchcore.records.watch import watch

QUICK = {"every": 0.3, "settle": 0.05, "patience": 0.3}


def draw(path: Path, grey: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    """A small image file, written beside its place and moved there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.new")
    Image.new("L", size, grey).save(part, format="PNG")
    part.rename(path)
    return path


def inspect(images: Sequence[ReceivedImage]) -> list[NewRecord]:
    """The mean grey value as the score; no network."""
    return [
        inspection(
            file_name=image.file_name,
            image_hash=image.image_hash,
            width=image.pixels.shape[1],
            height=image.pixels.shape[0],
            score=float(image.pixels.mean()),
            source="watch",
            watched=image.watched,
        )
        for image in images
    ]


def once(folder: Path, records: Records, **options: object) -> list[tuple[str, str]]:
    """One pass; what failed."""
    failed: list[tuple[str, str]] = []
    settings = {**QUICK, "failed": lambda *one: failed.append(one), **options}
    watch(folder, settings.pop("inspect", inspect), records, stop=threading.Event(), once=True, **settings)  # type: ignore[arg-type]
    return failed


def names(records: Records) -> list[str]:
    return [one.file_name for one in records.find(Filter(limit=10**6))[::-1]]


@contextmanager
def watching(folder: Path, records: Records, **options: object) -> Iterator[list[str]]:
    """A watch in a thread; what it warned of."""
    stop, warned, errors = threading.Event(), list[str](), list[BaseException]()

    def run() -> None:
        try:
            settings = {**QUICK, "warn": warned.append, **options}
            watch(folder, settings.pop("inspect", inspect), records, stop=stop, **settings)  # type: ignore[arg-type]
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield warned
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []


def wait_for(true: Callable[[], bool]) -> None:
    """Until it is so; two minutes are far more than it takes."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "It did not happen."
        time.sleep(0.02)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "inspections.sqlite") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def test_a_pass_takes_every_image_once(records: Records, folder: Path) -> None:
    for i in range(20):
        draw(folder / f"{i:02}.png", i)
    draw(folder / "line 1/ä/x.PNG", 100)
    inspected: list[str] = []

    def noting(images: Sequence[ReceivedImage]) -> list[NewRecord]:
        inspected.extend(image.file_name for image in images)
        return inspect(images)

    assert once(folder, records, inspect=noting) == []
    assert sorted(names(records)) == sorted([f"{i:02}.png" for i in range(20)] + ["line 1/ä/x.PNG"])
    found = {one.file_name: one for one in records.find(Filter())}
    assert found["07.png"].score == 7
    assert (found["07.png"].width, found["07.png"].height) == (8, 6)
    assert found["07.png"].source == "watch"
    once(folder, records, inspect=noting)
    assert records.count(Filter()) == len(inspected) == 21


def test_in_the_order_in_which_they_were_written(records: Records, folder: Path) -> None:
    for i, name in enumerate(["c.png", "a.png", "b.png"]):
        os.utime(draw(folder / name), ns=(0, 1_000_000_007 * (i + 1)))
    once(folder, records)
    assert names(records) == ["c.png", "a.png", "b.png"]


def test_what_is_left_out(records: Records, folder: Path, tmp_path: Path) -> None:
    draw(folder / ".hidden.png")
    draw(folder / ".hidden/x.png")
    for name in ("a.png.part", "b.tmp", "notes.txt", "no suffix"):
        shutil.copy(draw(tmp_path / "x.png"), folder / name)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    outside = draw(tmp_path / "outside" / "secret.png")
    (folder / "link.png").symlink_to(outside)
    (folder / "tree").symlink_to(outside.parent)
    (folder / "circle").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "self.png").symlink_to(folder / "self.png")
    draw(folder / "good.png", 9)
    (folder / "inside.png").symlink_to(folder / "good.png")
    assert once(folder, records) == []
    assert sorted(names(records)) == ["good.png", "inside.png"]


def test_the_same_name_with_new_content_is_a_new_image(records: Records, folder: Path) -> None:
    draw(folder / "camera.png", 1)
    once(folder, records)
    draw(folder / "camera.png", 2)
    once(folder, records)
    assert [one.score for one in records.find(Filter())] == [2, 1]
    os.utime(folder / "camera.png")  # another time, the same content
    once(folder, records)
    draw(folder / "camera.png", 2)
    once(folder, records)
    assert records.count(Filter()) == 2
    draw(folder / "camera.png", 1)  # the content that was there at first
    once(folder, records)
    assert [one.score for one in records.find(Filter())] == [1, 2, 1]


def test_an_unreadable_file_is_told_once_until_it_changes(records: Records, folder: Path) -> None:
    (folder / "torn.png").write_bytes(draw(folder / "whole.png").read_bytes()[:40])
    (folder / "empty.png").touch()
    failed = dict(once(folder, records))
    assert set(failed) == {"torn.png", "empty.png"}
    assert "torn.png (40 bytes" in failed["torn.png"]
    assert "empty.png is empty" in failed["empty.png"]
    assert once(folder, records) == []
    os.utime(folder / "torn.png")
    assert once(folder, records) == []
    assert {(one.name, one.reason) for one in records.watch_errors()} == set(failed.items())
    assert names(records) == ["whole.png"]
    draw(folder / "torn.png", 5)
    assert once(folder, records) == []
    assert names(records) == ["whole.png", "torn.png"]


def test_a_file_that_may_not_be_read_is_tried_again_by_the_next_watch(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(folder / "locked.png")
    content = arrivals.Arrivals._content

    def locked(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(arrivals.Arrivals, "_content", locked)
    assert once(folder, records) == [("locked.png", "locked.png cannot be read: Permission denied.")]
    assert once(folder, records) == []
    assert len(records.watch_errors()) == 1
    monkeypatch.setattr(arrivals.Arrivals, "_content", content)
    once(folder, records)
    assert names(records) == ["locked.png"]


def test_a_file_that_is_far_too_large_is_not_read(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MOST_BYTES", 1000)
    with (folder / "huge.tif").open("wb") as file:
        file.truncate(10**9)
    ((name, reason),) = once(folder, records)
    assert (name, "1000000000 bytes" in reason) == ("huge.tif", True)


def test_an_image_that_the_model_refuses_does_not_hold_up_the_others(records: Records, folder: Path) -> None:
    for i in range(12):
        draw(folder / f"{i}.png", i)

    def picky(images: Sequence[ReceivedImage]) -> list[NewRecord]:
        if any(image.file_name in ("3.png", "7.png") for image in images):
            raise DataError("This image is not for me.")
        return inspect(images)

    assert sorted(once(folder, records, inspect=picky)) == [
        ("3.png", "This image is not for me."),
        ("7.png", "This image is not for me."),
    ]
    assert records.count(Filter()) == 10
    assert once(folder, records, inspect=picky) == []


def test_what_is_no_fault_of_an_image_ends_the_watch(records: Records, folder: Path) -> None:
    draw(folder / "a.png")

    def broken(_: Sequence[ReceivedImage]) -> list[NewRecord]:
        raise SAPatchCoreError("The model is broken.")

    with pytest.raises(SAPatchCoreError, match=r"The model is broken\."):
        once(folder, records, inspect=broken)
    assert records.watch_errors() == []
    once(folder, records)
    assert names(records) == ["a.png"]


def test_images_go_to_the_model_a_few_at_a_time(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(images: Sequence[ReceivedImage]) -> list[NewRecord]:
        sizes.append(len(images))
        return inspect(images)

    for i in range(20):
        draw(folder / f"{i}.png", i)
    once(folder, records, inspect=counted)
    assert sizes == [8, 8, 4]
    monkeypatch.setattr(watch_module, "PIXELS_AT_ONCE", 100)
    for i in range(5):
        draw(folder / f"large {i}.png", i, (10, 6))
    once(folder, records, inspect=counted)
    assert sizes[3:] == [2, 2, 1]


def test_names_that_are_no_utf8(records: Records, folder: Path) -> None:
    draw(folder / "ok.png").rename(folder / os.fsdecode(b"\xff\xfe.png"))
    once(folder, records)
    once(folder, records)
    assert names(records) == ["\\xff\\xfe.png"]


def test_folders_are_told_apart(records: Records, folder: Path, tmp_path: Path) -> None:
    draw(folder / "a.png")
    draw(tmp_path / "other/a.png")
    once(folder, records)
    once(tmp_path / "other", records)
    assert names(records) == ["a.png", "a.png"]
    (tmp_path / "link").symlink_to(folder)
    once(tmp_path / "link", records)  # the same folder by another name
    assert records.count(Filter()) == 2


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_a_folder_that_does_not_exist(records: Records, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="does not exist or is no folder"):
        once(tmp_path / name, records)


def test_files_that_keep_growing_are_left_for_the_next_time(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp, warned = arrivals.Arrivals._stamp, list[str]()

    def growing(self: arrivals.Arrivals, path: Path) -> arrivals.Stamp | None:
        return (time.monotonic_ns(), 1) if path.name == "grows.png" else stamp(self, path)

    monkeypatch.setattr(arrivals.Arrivals, "_stamp", growing)
    monkeypatch.setattr(watch_module, "LEFT", 0.3)
    draw(folder / "a.png")
    draw(folder / "grows.png")
    once(folder, records, warn=warned.append)
    assert warned == ["Files that are still being written are left for the next time: 1."]
    assert names(records) == ["a.png"]
    assert records.watch_errors() == []


def test_a_file_system_of_whole_seconds_hides_no_image(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images of one size within one second of the file's time."""
    monkeypatch.setattr(arrivals, "WHOLE_SECONDS", 0.2)
    path = draw(folder / "a.png", 1)
    first = path.read_bytes()
    os.utime(path, ns=(0, 7_000_000_000))

    def overwriting(images: Sequence[ReceivedImage]) -> list[NewRecord]:
        if images[0].content == first:
            draw(path, 2)
            os.utime(path, ns=(0, 7_000_000_000))
        return inspect(images)

    once(folder, records, inspect=overwriting)
    assert [one.score for one in records.find(Filter())] == [2, 1]


def test_images_are_inspected_as_they_appear(records: Records, folder: Path) -> None:
    draw(folder / "before.png")
    with watching(folder, records) as warned:
        wait_for(lambda: records.count(Filter()) == 1)
        for i in range(5):
            draw(folder / f"{i}.png", i)
        draw(folder / "new/deep/er.png")
        wait_for(lambda: records.count(Filter()) == 7)
        draw(folder / "new/deep/too.png")
        draw(folder / "0.png", 77)
        wait_for(lambda: records.count(Filter()) == 9)
        (folder / "1.png").unlink()
        time.sleep(0.5)
    assert records.count(Filter()) == 9
    assert warned == []


def test_events_are_enough(records: Records, folder: Path) -> None:
    with watching(folder, records, every=1000):
        draw(folder / "a.png")
        wait_for(lambda: names(records) == ["a.png"])
        draw(folder / "sub/b.png")
        wait_for(lambda: "sub/b.png" in names(records))
        draw(folder / "sub/c.png")
        wait_for(lambda: "sub/c.png" in names(records))


def test_scans_are_enough(records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(watch_module.watchfiles, "watch", none)
    with watching(folder, records) as warned:
        draw(folder / "a.png")
        draw(folder / "sub/b.png")
        wait_for(lambda: sorted(names(records)) == ["a.png", "sub/b.png"])
    assert len(warned) == 1
    assert "inotify watch limit reached" in warned[0]


def test_a_file_in_writing_is_waited_for(records: Records, folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = tmp_path / "whole.png"
    Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    with watching(folder, records, patience=20.0):
        with (folder / "slow.png").open("wb", buffering=0) as file:
            for part in range(0, len(content), len(content) // 4):
                file.write(content[part : part + len(content) // 4])
                time.sleep(0.3)  # six times as long as a file must rest
        wait_for(lambda: records.count(Filter()) == 1)
    (record,) = records.find(Filter())
    assert record.score == pytest.approx(np.asarray(Image.open(whole)).mean())
    assert records.watch_errors() == []


def test_files_that_vanish_are_no_error(records: Records, folder: Path) -> None:
    stop = threading.Event()

    def flicker() -> None:
        while not stop.is_set():
            draw(folder / "sub/flicker.png")
            shutil.rmtree(folder / "sub")

    thread = threading.Thread(target=flicker)
    with watching(folder, records, settle=0.0) as warned:
        thread.start()
        time.sleep(1)
        stop.set()
        thread.join()
        draw(folder / "last.png")
        wait_for(lambda: "last.png" in names(records))
    assert warned == []
    assert records.watch_errors() == []


def test_a_folder_that_goes_away_and_comes_back(records: Records, folder: Path) -> None:
    draw(folder / "a.png")
    with watching(folder, records) as warned:
        wait_for(lambda: records.count(Filter()) == 1)
        folder.rename(folder.with_name("away"))
        wait_for(lambda: any("cannot be read" in one for one in warned))
        folder.with_name("away").rename(folder)
        draw(folder / "b.png")
        wait_for(lambda: records.count(Filter()) == 2)
    assert names(records) == ["a.png", "b.png"]
    assert len([one for one in warned if "cannot be read" in one]) == 1  # said once, not every time


def test_records_that_fail_for_a_while_lose_nothing(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, failing = records.add, threading.Event()

    def fails(new: Sequence[NewRecord]) -> object:
        if failing.is_set():
            raise RecordsError("The disk is full.")
        return add(new)

    monkeypatch.setattr(records, "add", fails)
    failing.set()
    with watching(folder, records) as warned:
        for i in range(10):
            draw(folder / f"{i}.png", i)
        wait_for(lambda: warned != [])
        failing.clear()
        wait_for(lambda: records.count(Filter()) == 10)
    assert warned[0] == "The disk is full. It is tried again every 0.3 s."
    failing.set()
    draw(folder / "late.png")
    with pytest.raises(RecordsError):
        once(folder, records)


def test_two_watches_of_one_folder_record_each_image_once(where: str | Path, folder: Path) -> None:
    with Records(where) as one, Records(where) as other, watching(folder, one), watching(folder, other):
        for i in range(40):
            draw(folder / f"{i}.png", i)
            time.sleep(0.01)
        wait_for(lambda: one.count(Filter()) >= 40)
        time.sleep(0.5)
        assert sorted(names(one)) == sorted(f"{i}.png" for i in range(40))


def test_marks_of_files_that_stay_are_refreshed(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr(records, "still_there", lambda _, files: told.append(sorted(files)))
    draw(folder / "a.png")
    once(folder, records)
    assert told == []  # nothing was marked when it began
    draw(folder / "b.png")
    once(folder, records)
    assert told == [["a.png"]]


WATCHING = """
import sys, threading
from pathlib import Path
from test_watch import inspect, QUICK
from sapatchcore.records.records import Records
from sapatchcore.records.watch import stop_on_signals, watch
with Records(sys.argv[1]) as records, stop_on_signals() as stop:
    print("ready", flush=True)
    watch(Path(sys.argv[2]), inspect, records, stop=stop, **QUICK)
print("stopped", flush=True)
"""


def start(where: str | Path, folder: Path) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(here), str(here.parent), *sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", WATCHING, str(where), str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_every_file_once_across_kills_and_restarts(where: str | Path, folder: Path) -> None:
    random = np.random.default_rng(3)
    count, stop = 0, threading.Event()

    def camera() -> None:
        nonlocal count
        while not stop.wait(0.02):
            draw(folder / f"{count % 3}/{count}.png", count % 256)
            count += 1

    thread = threading.Thread(target=camera)
    with Records(where) as records:
        thread.start()
        try:
            for _ in range(3):
                child, before = start(where, folder), records.count(Filter())
                wait_for(lambda before=before: records.count(Filter()) > before)  # type: ignore[misc]
                time.sleep(float(random.uniform(0, 0.3)))
                child.kill()
                child.wait()
        finally:
            stop.set()
            thread.join()
        early = records.count(Filter())
        once(folder, records)
        assert sorted(names(records)) == sorted(f"{i % 3}/{i}.png" for i in range(count))
        assert all(one.score == int(Path(one.file_name).stem) % 256 for one in records.find(Filter(limit=10**6)))
    assert 3 <= early < count  # it was killed while there was something to do


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_after_what_is_in_hand(tmp_path: Path, folder: Path, sent: signal.Signals) -> None:
    for i in range(30):
        draw(folder / f"{i}.png", i)
    with Records(tmp_path / "r.sqlite") as records:
        child = start(tmp_path / "r.sqlite", folder)
        wait_for(lambda: records.count(Filter()) > 0)
        child.send_signal(sent)
    out, _ = child.communicate(timeout=60)
    assert out == "stopped\n"
    assert child.returncode == 0


SIGNALLED = """
import os, signal
from sapatchcore.records.watch import stop_on_signals

def handlers():
    return [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

before = handlers()
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(60)
    assert handlers() == before  # a second one ends it
with stop_on_signals() as stop:
    assert not stop.is_set()
    assert handlers() != before
assert handlers() == before
print("as before")
"""


def test_signals_are_as_before_afterwards(run_python: Callable) -> None:
    """In a process of its own: what goes wrong with a signal would end the tests' process."""
    assert run_python(SIGNALLED).stdout == "as before\n"


def test_a_stop_in_the_middle_finishes_what_is_in_hand(records: Records, folder: Path) -> None:
    for i in range(30):
        draw(folder / f"{i}.png", i)
    stop = threading.Event()

    def stopping(images: Sequence[ReceivedImage]) -> list[NewRecord]:
        stop.set()
        return inspect(images)

    watch(folder, stopping, records, stop=stop, once=True, settle=0.05)
    assert records.count(Filter()) == 8
    once(folder, records)
    assert sorted(names(records)) == sorted(f"{i}.png" for i in range(30))
