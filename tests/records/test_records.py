"""The records answer as a plain list does, in SQLite and in PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspections import PlainRecords, inspection

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: install the extra serve")

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

import sapatchcore.records
from sapatchcore.errors import DataError, RecordsError, SettingsError
from sapatchcore.records import records as records_module
from sapatchcore.records.record import ACCEPT, KINDS, REJECT, VERDICTS, Filter, WatchedFile
from sapatchcore.records.records import Records
from sapatchcore.records.tables import RECORDS, VERSION
from sapatchcore.score.verdict import CO_OCCURRENCE, LOCAL, UNCLEAR

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n and so on"


class Clock:
    """Stands, and is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = DAY
        monkeypatch.setattr(records_module, "_now", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_package_has_records_on_first_use() -> None:
    assert sapatchcore.records.Records is Records
    with pytest.raises(AttributeError, match="Recrods"):
        sapatchcore.records.Recrods  # noqa: B018


def test_the_declaration_names_what_the_verdicts_say() -> None:
    assert KINDS == (LOCAL, CO_OCCURRENCE, UNCLEAR, "both"), "the last of earlier versions"
    assert VERDICTS == (ACCEPT, REJECT)


def test_the_table_is_the_one_of_its_version() -> None:
    """What a change of Record would break, but for ``ADDED``: databases of this version that are there already."""
    ddl = str(CreateTable(RECORDS).compile(dialect=sqlite.dialect()))  # type: ignore[no-untyped-call]
    columns = [line.strip().rstrip(",") for line in ddl.splitlines()[2:] if line.strip() not in ("", ")")]
    assert (VERSION, columns) == (
        3,
        [
            "number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
            "time DATETIME NOT NULL",
            "model TEXT NOT NULL",
            "model_hash VARCHAR(64) NOT NULL",
            "image_hash VARCHAR(64) NOT NULL",
            "file_name TEXT NOT NULL",
            "width INTEGER NOT NULL",
            "height INTEGER NOT NULL",
            "score DOUBLE NOT NULL",
            "p_value DOUBLE",
            "threshold DOUBLE",
            "false_reject DOUBLE",
            "verdict TEXT",
            "kind TEXT",
            "local DOUBLE NOT NULL",
            "context DOUBLE NOT NULL",
            "global_score DOUBLE",
            "notes TEXT",
            "product TEXT",
            "image_bytes BIGINT NOT NULL",
            "feedback TEXT",
            "feedback_note TEXT",
            "feedback_time DATETIME",
            "feedback_by TEXT",
            "source TEXT NOT NULL",
        ],
    )


@pytest.mark.usefixtures("clock")
def test_a_record_comes_back_as_it_was_given(records: Records) -> None:
    new = inspection(
        file_name="tray/ü 1.png",
        score=0.1 + 0.2,  # double, not float32
        p_value=1e-300,
        verdict="reject",
        kind="co-occurrence",
        image=PNG,
        media_type="image/png",
        source="watch",
        global_score=69.7,
        notes="It is smaller.\nIt is darker.",
        product="screw",
    )
    (record,) = records.add([new])
    assert record.number == 1
    assert record.time == DAY
    assert record.time.tzinfo is UTC
    assert record.has_image
    assert (record.feedback, record.feedback_note, record.feedback_time, record.feedback_by) == (None,) * 4
    for name in set(new.__dataclass_fields__) & set(record.__dataclass_fields__):
        assert getattr(record, name) == getattr(new, name), name
        assert type(getattr(record, name)) is type(getattr(new, name)), name
    assert records.get(1) == record == records.find(Filter())[0]
    assert records.image(1) == (PNG, "image/png")
    assert record.to_dict()["time"] == "2026-03-01T12:00:00.000000Z"
    assert {"record": 1, "has_image": True, "feedback_time": None}.items() <= record.to_dict().items()
    assert record.to_dict()["notes"] == ["It is smaller.", "It is darker."]


def test_whole_numbers_stay_floats(records: Records) -> None:
    (record,) = records.add([inspection(score=2, threshold=3, local=0, context=2)])
    assert [type(value) for value in (record.score, record.threshold, record.local, record.context)] == [float] * 4
    assert repr(records.get(record.number)) == repr(record)


def test_without_calibration_there_is_no_verdict(records: Records) -> None:
    (record,) = records.add([inspection(p_value=None, threshold=None, false_reject=None, verdict=None)])
    assert (record.p_value, record.threshold, record.false_reject, record.verdict) == (None,) * 4
    assert records.p_values("screws", "a" * 64, 10) == []


def test_nothing_is_added_for_nothing(records: Records) -> None:
    assert records.add([]) == []
    assert records.count(Filter()) == 0


@pytest.mark.parametrize("number", [0, -1, 2, 2**63 - 1, 2**63, 2**200, -(2**200)])
def test_unknown_numbers(records: Records, number: int) -> None:
    records.add([inspection()])
    assert records.get(number) is None
    assert records.image(number) is None
    with pytest.raises(DataError, match=f"There is no record {number}"):
        records.feedback(number, "good")
    assert records.find(Filter(before=number)) == ([] if number < 2 else records.find(Filter()))


def test_a_record_without_image(records: Records) -> None:
    (record,) = records.add([inspection()])
    assert not record.has_image
    assert records.image(record.number) is None


@pytest.mark.parametrize(
    "name", ["a\0b.png", "\udcff\udc80.png", "a\ud800", "\u202egnp.exe", "'; DROP TABLE x; --", "", "😀.png"]
)
def test_names_of_any_kind_are_kept(records: Records, name: str) -> None:
    (record,) = records.add([inspection(file_name=name)])
    assert "\0" not in record.file_name
    record.file_name.encode()
    assert records.get(record.number) == record
    assert records.find(Filter(file_name=name)) == [record]
    if name.isprintable():
        assert record.file_name == name


def test_of_a_long_name_the_end_is_kept(records: Records) -> None:
    name = "folder/" * 600 + "last.png"
    (record,) = records.add([inspection(file_name=name)])
    assert len(record.file_name) == 255
    assert record.file_name == "…" + name[-254:]
    assert records.find(Filter(file_name=name)) == [record]


def test_feedback_is_kept_and_taken_back(records: Records, clock: Clock) -> None:
    first, second = records.add([inspection(), inspection()])
    clock.now += timedelta(hours=1)
    said = records.feedback(first.number, "defect", "scratch\0ed", "Mai")
    assert said == replace(
        first, feedback="defect", feedback_note="scratch\\x00ed", feedback_time=clock.now, feedback_by="Mai"
    )
    assert records.get(first.number) == said
    assert records.get(second.number) == second
    assert records.feedback(first.number, None) == first
    with pytest.raises(SettingsError, match="Did you mean 'good'"):
        records.feedback(first.number, "goood")


def test_p_values_are_the_last_ones_of_one_version_oldest_first(records: Records, clock: Clock) -> None:
    for i in range(6):
        clock.now += timedelta(seconds=1)
        records.add([inspection(p_value=(i + 1) / 10), inspection(model_hash="c" * 64), inspection(model="other")])
    found = records.p_values("screws", "a" * 64, 4)
    assert [p for _, _, p in found] == [0.3, 0.4, 0.5, 0.6]
    assert [number for number, _, _ in found] == [7, 10, 13, 16]
    assert [when for _, when, _ in found] == [DAY + timedelta(seconds=i) for i in (3, 4, 5, 6)]
    assert records.p_values("screws", "a" * 64, 0) == []


def test_a_thousand_records_with_images_are_one_transaction(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    database = records._database
    count, writing = 0, database.writing

    def counted() -> Any:
        nonlocal count
        count += 1
        return writing()

    monkeypatch.setattr(database, "writing", counted)
    new = [inspection(file_name=f"{i}.png", image=b"%d" % i, media_type="image/png") for i in range(1000)]
    found = records.add(new)
    assert count == 1
    assert [one.file_name for one in found] == [one.file_name for one in new]
    assert [one.number for one in found] == list(range(1, 1001))
    assert all(records.image(one.number) == (b"%d" % i, "image/png") for i, one in enumerate(found))


def test_all_of_a_call_or_nothing(records: Records) -> None:
    bad = replace(inspection(image=PNG))
    object.__setattr__(bad, "width", None)  # what no column takes
    with pytest.raises(RecordsError, match=r"(?i)null"):
        records.add([inspection(image=PNG), bad])
    assert records.count(Filter()) == 0
    assert records.image(1) is None


def test_pages_follow_each_other(records: Records) -> None:
    records.add([inspection(verdict="reject" if i % 3 else "accept") for i in range(25)])
    for asked in (Filter(limit=4), Filter(limit=4, verdict="reject")):
        whole, page, pages = [], asked, 0
        while found := records.find(page):
            whole += found
            page, pages = replace(page, before=found[-1].number), pages + 1
        assert whole == records.find(replace(asked, limit=10**30))
        assert [one.number for one in whole] == sorted((one.number for one in whole), reverse=True)
        assert pages == -(-len(whole) // 4)
        assert records.count(asked) == len(whole)


def test_threads_add_read_and_judge_at_once(records: Records) -> None:
    """Every answered record is there, no number twice, and no reader sees a call's records in part."""
    done, odd = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            newest = records.find(Filter(limit=1000))
            groups: dict[str, int] = {}
            for one in newest:
                groups[one.file_name] = groups.get(one.file_name, 0) + 1
            odd.extend(count for count in groups.values() if count != 5)

    def write(thread: int) -> list[int]:
        numbers = []
        for i in range(20):
            found = records.add([inspection(file_name=f"{thread} {i}", image=PNG) for _ in range(5)])
            records.feedback(found[0].number, "good", by=str(thread))
            numbers += [one.number for one in found]
        return numbers

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        numbers = [number for found in pool.map(write, range(6)) for number in found]
        done.set()
        for reader in readers:
            reader.result()
    assert len(set(numbers)) == len(numbers) == 600 == records.count(Filter())
    assert records.count(Filter(feedback="good")) == 120
    assert odd == []


def test_records_stay_after_reopening(where: str | Path) -> None:
    with Records(where) as first:
        (record,) = first.add([inspection(image=PNG, media_type="image/png")])
        record = first.feedback(record.number, "good", "fine", "Lan")
    with Records(where) as second:
        assert second.get(record.number) == record
        assert second.image(record.number) == (PNG, "image/png")
        assert second.add([inspection()])[0].number == record.number + 1


def test_a_number_is_never_given_twice(records: Records) -> None:
    (record,) = records.add([inspection()])
    assert records.prune(older_than=timedelta(0)).records == 1
    assert records.add([inspection()])[0].number == record.number + 1


NAMES = ["a.png", "A.png", "b_1.png", "b%1.png", "b*.png", "[b].png", "b?.png", "b\\.png", "\n.png"]
PATTERNS = [*NAMES, "*", "b*", "*.png", "*1*", "[*", "?*", "b_*", "*%*", "*\\*", "a*b", ""]
news = st.builds(
    inspection,
    model=st.sampled_from(["screws", "kits"]),
    file_name=st.sampled_from(NAMES),
    verdict=st.sampled_from(["accept", "reject", None]),
    kind=st.sampled_from(["local", "both", None]),
    image=st.none() | st.binary(max_size=40),
    score=st.floats(0, 1e300),
)
times = st.none() | st.builds(
    lambda minutes, zone: (DAY + timedelta(minutes=minutes)).astimezone(timezone(timedelta(hours=zone))),
    st.integers(-5, 60),
    st.integers(-12, 14),
)
filters = st.builds(
    Filter,
    model=st.sampled_from([None, "screws", "nothing"]),
    verdict=st.sampled_from([None, "accept", "reject"]),
    kind=st.sampled_from([None, None, "local", "both"]),
    feedback=st.sampled_from([None, None, "good", "defect", "none"]),
    since=times,
    until=times,
    file_name=st.none() | st.sampled_from(PATTERNS),
    has_image=st.sampled_from([None, None, True, False]),
    before=st.none() | st.integers(-1, 40),
    limit=st.integers(1, 20),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(news, max_size=6)),
        st.tuples(st.just("feedback"), st.integers(0, 30), st.sampled_from(["good", "defect", None])),
        st.tuples(st.just("prune"), st.integers(0, 30)),
        st.tuples(st.just("find"), filters),
        st.tuples(st.just("wait"), st.integers(1, 20)),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_sequence_answers_as_a_plain_list(records: Records, clock: Clock, steps: list[Any]) -> None:
    # One database for all examples: what is there at first is what the list begins with.
    records.prune(older_than=timedelta(0))
    clock.now += timedelta(days=1)
    records.prune(older_than=timedelta(0))
    (start,) = records.add([inspection()])
    plain = PlainRecords(lambda: clock.now, [start])
    day = clock.now
    for kind, *values in steps:
        if kind == "add":
            found = records.add(values[0])
            assert found == plain.add([one.number for one in found], values[0])
        elif kind == "feedback":
            number = start.number + values[0]
            expected = plain.feedback(number, values[1], "note", "Mai")
            if expected is None:
                with pytest.raises(DataError):
                    records.feedback(number, values[1], "note", "Mai")
            else:
                assert records.feedback(number, values[1], "note", "Mai") == expected
        elif kind == "prune":
            age = timedelta(minutes=values[0])
            images = len(plain.images)
            gone = records.prune(older_than=age)
            assert gone.records == plain.prune_by_age(age)
            assert gone.images == images - len(plain.images)
        elif kind == "wait":
            clock.now += timedelta(minutes=values[0])
        else:
            moved = replace(
                values[0],
                since=values[0].since and values[0].since + (day - DAY),
                until=values[0].until and values[0].until + (day - DAY),
                before=None if values[0].before is None else values[0].before + start.number,
            )
            assert records.find(moved) == plain.find(moved)
            assert records.count(moved) == len(plain.find(replace(moved, before=None, limit=10**9)))
    assert records.find(Filter(limit=1000)) == plain.find(Filter(limit=1000))
    for one in plain.kept:
        assert records.image(one.number) == plain.images.get(one.number)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verdict": "Reject"}, "Did you mean 'reject'"),
        ({"kind": "global"}, "kind must be one of local, co-occurrence, unclear, both"),
        ({"feedback": "bad"}, "good, defect, none"),
        ({"since": datetime(2026, 1, 1)}, "since must say its time zone"),
        ({"limit": 0}, "limit must be 1 or more"),
    ],
)
def test_a_filter_that_cannot_be_meant(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Filter(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"score": float("nan")},
        {"p_value": float("inf")},
        {"verdict": "REJECT"},
        {"kind": ""},
        {"source": None},
        {"local": None},
    ],
)
def test_a_record_that_no_inspection_gives(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        inspection(**values)


def test_since_is_included_and_until_is_not(records: Records, clock: Clock) -> None:
    for _ in range(3):
        records.add([inspection()])
        clock.now += timedelta(microseconds=1)
    second = DAY + timedelta(microseconds=1)
    assert [one.number for one in records.find(Filter(since=second))] == [3, 2]
    assert [one.number for one in records.find(Filter(until=second))] == [1]


@pytest.mark.parametrize("time", [datetime.min, datetime.max])
@pytest.mark.parametrize("zone", [-12, 0, 14])
def test_the_calendars_ends(records: Records, time: datetime, zone: int) -> None:
    records.add([inspection()])
    moment = time.replace(tzinfo=timezone(timedelta(hours=zone)))
    assert len(records.find(Filter(since=moment))) == (time == datetime.min)
    assert len(records.find(Filter(until=moment))) == (time == datetime.max)


def test_a_watched_file_is_recorded_with_its_state_once(records: Records) -> None:
    file = WatchedFile("/in", "a/1.png", 10, 123, "b" * 64)
    assert len(records.add([inspection(watched=file)])) == 1
    assert records.processed_files("/in", ["a/1.png", "a/2.png"]) == {"a/1.png": file}
    assert records.processed_files("/other", ["a/1.png"]) == {}
    # The same content again, as another program would have it: nothing is recorded.
    assert records.add([inspection(watched=file), inspection(watched=replace(file, mtime_ns=5))]) == []
    fresh = replace(file, image_hash="c" * 64)
    both = records.add([inspection(file_name="kept", watched=fresh), inspection(file_name="api")])
    assert [one.file_name for one in both] == ["kept", "api"]
    assert records.processed_files("/in", ["a/1.png"]) == {"a/1.png": fresh}
    assert records.count(Filter()) == 3
    touched = replace(fresh, mtime_ns=999)
    records.same_content(touched)
    assert records.processed_files("/in", ["a/1.png"]) == {"a/1.png": touched}


@pytest.mark.usefixtures("clock")
def test_an_unreadable_file_is_kept_once_for_each_state(records: Records) -> None:
    file = WatchedFile("/in", "\udcff.png", 10, 123, "")
    assert records.unreadable(file, "It is no image.")
    assert not records.unreadable(file, "It is no image.")
    assert records.unreadable(replace(file, mtime_ns=124), "Still no image.")
    assert [(one.name, one.reason, one.time) for one in records.watch_errors()] == [
        ("\\xff.png", "Still no image.", DAY),
        ("\\xff.png", "It is no image.", DAY),
    ]
    assert len(records.watch_errors(1)) == 1
    assert set(records.processed_files("/in", ["\udcff.png", "\\xff.png"])) == {"\udcff.png"}


def test_many_processed_files(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "FILES_AT_ONCE", 50)
    names = [f"{i}.png" for i in range(123)]
    records.add([inspection(watched=WatchedFile("/in", name, 1, 2, name)) for name in names])
    assert set(records.processed_files("/in", [*names, "x"])) == set(names)


def test_a_file_is_forgotten_once_it_was_away_for_long_while_the_folder_was_watched(
    records: Records, clock: Clock
) -> None:
    names = ["stays.png", "goes.png"]
    records.add([inspection(watched=WatchedFile("/in", name, 1, 2, name)) for name in names])
    records.add([inspection(watched=WatchedFile("/off", "x.png", 1, 2, "x"))])
    clock.now += timedelta(days=100)
    records.prune(older_than=timedelta(days=30))  # nobody watched: nobody knows what is there
    assert records.count(Filter()) == 0
    assert set(records.processed_files("/in", names)) == set(names)
    records.still_there("/in", ["stays.png"])
    records.prune(older_than=timedelta(days=30))
    assert set(records.processed_files("/in", names)) == {"stays.png"}
    assert set(records.processed_files("/off", ["x.png"])) == {"x.png"}
