"""What is given up by age and by size, in which order, and that inspections go on meanwhile."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import postgres
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspections import inspection

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: install the extra serve")

from sapatchcore.errors import SettingsError
from sapatchcore.records import records as records_module
from sapatchcore.records import retention
from sapatchcore.records.record import Filter, WatchedFile
from sapatchcore.records.records import Records
from sapatchcore.records.retention import as_age, as_bytes

EVERYTHING = Filter(limit=10**6)


def images(records: Records) -> list[int]:
    return sorted(one.number for one in records.find(Filter(has_image=True, limit=10**6)))


def fill(records: Records, sizes: list[int], good: set[int]) -> list[int]:
    """One record each, with an image of that many bytes where that is not 0; those in ``good``, by index, are called good."""
    found = records.add([inspection(image=bytes(size), media_type="image/png") for size in sizes])
    for index in good:
        records.feedback(found[index].number, "good")
    return [one.number for one in found]


def test_by_age_everything_older_goes(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    monkeypatch.setattr(records_module, "_now", lambda: now)
    monkeypatch.setattr(retention, "ROWS", 3)
    old = fill(records, [100] * 10, {0, 5})
    records.unreadable(unreadable_file(), "It is no image.")
    now += timedelta(days=30)
    young = fill(records, [100, 0], {0})
    gone = records.prune(older_than=timedelta(days=30))  # 30 days old is not older than 30 days
    assert (gone.records, gone.images, gone.good_images) == (0, 0, 0)
    now += timedelta(microseconds=1)
    gone = records.prune(older_than=timedelta(days=30))
    assert (gone.records, gone.images, gone.good_images) == (10, 10, 2)
    assert [one.number for one in records.find(EVERYTHING)] == young[::-1]
    assert images(records) == young[:1]
    assert records.image(old[0]) is None
    assert records.watch_errors() == []
    assert gone.bytes == records.size()


def unreadable_file() -> WatchedFile:
    return WatchedFile("/in", "a.png", 1, 2, "")


def test_by_size_other_images_go_first_then_good_ones_then_records(records: Records) -> None:
    numbers = fill(records, [50_000] * 12, {0, 1, 7})
    whole = records.size()
    gone = records.prune(max_bytes=whole - 60_000)
    assert (gone.records, gone.images, gone.good_images) == (0, 2, 0)
    assert images(records) == [numbers[place] for place in (0, 1, 4, 5, 6, 7, 8, 9, 10, 11)]
    assert records.get(numbers[2]) is not None
    gone = records.prune(max_bytes=whole - 50_000 * 9 - 20_000)
    assert (gone.records, gone.images, gone.good_images) == (0, 8, 1)
    assert images(records) == [numbers[1], numbers[7]]
    gone = records.prune(max_bytes=0)
    assert (gone.records, gone.images, gone.good_images) == (12, 2, 2)
    assert records.find(EVERYTHING) == []
    assert records.prune(max_bytes=0).records == 0


def test_nothing_goes_where_there_is_room(records: Records) -> None:
    fill(records, [1000] * 3, set())
    for age, size in ((None, None), (timedelta(days=1), None), (None, 10**12), (timedelta.max, 2**70)):
        gone = records.prune(older_than=age, max_bytes=size)
        assert (gone.records, gone.images, gone.good_images) == (0, 0, 0)
    assert len(images(records)) == 3


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.one_of(st.just(0), st.integers(1, 60_000)), max_size=30),
    good=st.sets(st.integers(0, 29)),
    share=st.floats(0, 1.1),
)
def test_the_order_holds_for_any_records(records: Records, sizes: list[int], good: set[int], share: float) -> None:
    records.prune(max_bytes=0)
    empty = records.size()
    good &= set(range(len(sizes)))
    numbers = fill(records, sizes, good)
    most = empty + int((records.size() - empty) * share)
    gone = records.prune(max_bytes=most)
    assert gone.bytes == records.size() <= most
    left = {one.number for one in records.find(EVERYTHING)}
    kept = set(images(records))
    had = [place for place, size in enumerate(sizes) if size]
    usual = [numbers[place] for place in had if place not in good]
    called_good = [numbers[place] for place in had if place in good]
    stages = [[number in kept for number in usual], [number in kept for number in called_good]]
    stages.append([number in left for number in numbers])
    for stage in stages:
        assert stage == sorted(stage)  # gone are the oldest
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        assert not any(stages[earlier]) or all(stages[later])
    assert gone.records == stages[2].count(False)
    assert gone.images == stages[0].count(False) + stages[1].count(False)
    assert gone.good_images == stages[1].count(False)
    if not records._database.is_sqlite and gone.images and not gone.records:
        # PostgreSQL measures bytes: without the last image that went it would have been too much.
        last = [number for number in called_good if number not in kept] or [
            number for number in usual if number not in kept
        ]
        assert records.size() + sizes[numbers.index(last[-1])] > most


def test_sqlite_gives_the_space_back(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with Records(path) as records:
        for _ in range(20):
            fill(records, [200_000] * 5, set())
        assert records.prune(max_bytes=2_000_000).bytes <= 2_000_000
        assert path.stat().st_size <= 2_000_000
        assert len(images(records)) in (8, 9)
        records.prune(older_than=timedelta(0))
        assert path.stat().st_size < 200_000


def test_postgresql_takes_new_records_into_the_space(postgresql: postgres.PostgreSQL) -> None:
    with Records(postgresql.url("space")) as records:

        def on_disk() -> int:
            with records._database.reading() as connection:
                query = "SELECT pg_total_relation_size('sapatchcore_images')"
                return int(connection.exec_driver_sql(query).scalar_one())

        for _ in range(6):
            fill(records, [100_000] * 20, set())
            records.prune(max_bytes=500_000)
            assert records.size() <= 500_000
        # 12 MB came in all; without VACUUM all of it would lie there.
        assert on_disk() < 6_000_000


def test_inspections_go_on_meanwhile(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small transactions: between two of them others write."""
    monkeypatch.setattr(retention, "ROWS", 2)
    fill(records, [3000] * 200, set())
    stop, added = threading.Event(), []

    def add() -> None:
        while not stop.wait(0.005):
            added.extend(records.add([inspection(image=b"new")]))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        gone = records.prune(max_bytes=records.size() - 300_000)
    finally:
        stop.set()
        thread.join()
    assert gone.images > 50
    assert len(added) > 10
    assert {one.number for one in added} <= {one.number for one in records.find(EVERYTHING)}


def test_it_ends_though_inspections_write_faster(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came after it began is left to the next time."""
    monkeypatch.setattr(retention, "ROWS", 2)
    fill(records, [3000] * 10, set())
    added: list[Any] = []

    def add_more(_: float) -> None:
        if len(added) < 200:  # else it is without an end
            added.extend(records.add([inspection(image=bytes(9000))]))

    monkeypatch.setattr(retention.time, "sleep", add_more)
    gone = records.prune(max_bytes=0)
    assert 5 <= len(added) < 200
    assert (gone.records, gone.images) == (10, 10)
    assert {one.number for one in records.find(EVERYTHING)} == {one.number for one in added}


@pytest.mark.parametrize(("age", "size"), [(timedelta(-1), None), (None, -1)])
def test_negative_limits(records: Records, age: timedelta | None, size: int | None) -> None:
    fill(records, [0], set())
    with pytest.raises(SettingsError, match="must not be negative"):
        records.prune(older_than=age, max_bytes=size)
    assert records.count(Filter()) == 1


def test_ages_and_sizes_in_words() -> None:
    assert as_age("30d") == timedelta(days=30)
    assert as_age(" 1.5 h ") == timedelta(minutes=90)
    assert as_age("90m") == timedelta(minutes=90)
    assert as_age("2w") == timedelta(days=14)
    assert as_bytes("5GB") == 5_000_000_000
    assert as_bytes("500 mb") == 500_000_000
    assert as_bytes("1.5kB") == 1500
    assert as_bytes("12") == as_bytes("12B") == 12
    for text in ("", "d", "30", "30 days", "-1d", "1e3d", "9" * 400 + "d", "nan d", "1y"):
        with pytest.raises(SettingsError, match="Use 30d for 30 days"):
            as_age(text)
    for text in ("", "GB", "-5GB", "5 GiB", "5G", "1e9"):
        with pytest.raises(SettingsError, match="Use 5GB"):
            as_bytes(text)
