"""Exported records: what a reader of CSV and Parquet gets, whole files or none, and memory that does not grow."""

from __future__ import annotations

import csv
import errno
import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from inspections import inspection

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: install the extra serve")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: install the extra serve")

from pyarrow import parquet

from sapatchcore.errors import RecordsError
from sapatchcore.records import files
from sapatchcore.records.record import Filter
from sapatchcore.records.records import Records

NAMES = ["a.png", 'b "quoted", and, commas.png', "line\nbreak.png", "ü 😀.png", "", "12", "true"]
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]


@pytest.fixture
def filled(records: Records) -> Records:
    found = records.add(
        [inspection(file_name=name, image=b"x" if i % 2 else None) for i, name in enumerate([*NAMES, *FORMULAS])]
    )
    records.add([inspection(p_value=None, threshold=None, false_reject=None, verdict=None, score=0.1 + 0.2)])
    records.add([inspection(verdict="reject", kind="both", p_value=5e-324, score=1e300, notes="Darker.\nNarrower.")])
    records.feedback(found[0].number, "defect", "=note", "-by")
    return records


def rows_of(records: Records, asked: Filter = Filter(limit=10**6)) -> list[dict[str, Any]]:  # noqa: B008
    return [{**record.to_dict(), "notes": record.notes} for record in records.find(asked)[::-1]]


def test_csv_holds_every_value(filled: Records, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    expected = rows_of(filled)
    assert filled.write_csv(path) == len(expected)
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == list(expected[0])
    for row, record in zip(found, expected, strict=True):
        for name, value in record.items():
            text = row[name]
            if value is None:
                assert text == ""
            elif isinstance(value, bool):
                assert text == str(value).lower()
            elif isinstance(value, int | float):
                assert type(value)(text) == value
            elif value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
                assert text == "'" + value
            else:
                assert text == value
    escaped = {row["file_name"] for row in found if row["file_name"].startswith("'")}
    assert escaped == {"'" + name for name in FORMULAS}
    assert (found[0]["feedback_note"], found[0]["feedback_by"]) == ("'=note", "'-by")
    assert (found[0]["notes"], found[-1]["notes"]) == ("", "Darker.\nNarrower.")


def test_parquet_holds_every_value_with_its_type(filled: Records, tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    expected = filled.find(Filter(limit=10**6))[::-1]
    assert filled.write_parquet(path) == len(expected)
    table = parquet.read_table(path)
    types = {field.name: (str(field.type), field.nullable) for field in table.schema}
    assert types["record"] == ("int64", False)
    assert types["time"] == ("timestamp[us, tz=UTC]", False)
    assert types["feedback_time"] == ("timestamp[us, tz=UTC]", True)
    assert types["score"] == ("double", False)
    assert types["p_value"] == ("double", True)
    assert types["has_image"] == ("bool", False)
    assert types["kind"] == ("string", True)
    for row, record in zip(table.to_pylist(), expected, strict=True):
        assert row.pop("record") == record.number
        for name, value in row.items():
            assert value == getattr(record, name), name


def test_an_export_takes_the_filter_but_not_its_page(filled: Records, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    asked = Filter(has_image=True, limit=1, before=3)
    assert filled.write_csv(path, asked) == filled.count(asked) == len(NAMES + FORMULAS) // 2
    with path.open(encoding="utf-8", newline="") as file:
        assert [row["has_image"] for row in csv.DictReader(file)] == ["true"] * filled.count(asked)


@pytest.mark.parametrize("write", ["write_csv", "write_parquet"])
def test_no_records_are_a_file_with_the_names(records: Records, write: str) -> None:
    file = io.BytesIO()
    assert getattr(records, write)(file) == 0
    if write == "write_csv":
        assert file.getvalue().decode().splitlines() == [",".join(files.NAMES)]
    else:
        assert parquet.read_table(io.BytesIO(file.getvalue())).column_names == files.NAMES


@pytest.mark.parametrize("write", ["write_csv", "write_parquet"])
@pytest.mark.parametrize("size", [1, 3, 16, 1000])
def test_batches_of_any_size_give_the_same(
    filled: Records, write: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnlyWrites(io.RawIOBase):
        """What a web server offers: no seeking, no file name."""

        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, part: Any) -> int:
            self.parts.append(bytes(part))
            return len(part)

    monkeypatch.setattr(files, "AT_ONCE", size)
    file = OnlyWrites()
    assert getattr(filled, write)(file) == filled.count(Filter())
    content = b"".join(file.parts)
    if write == "write_csv":
        found = [int(row["record"]) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    else:
        found = parquet.read_table(io.BytesIO(content))["record"].to_pylist()
    assert found == [row["record"] for row in rows_of(filled)]


@pytest.mark.parametrize("write", ["write_csv", "write_parquet"])
def test_a_file_that_cannot_be_written_stays_as_it_was(
    filled: Records, write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.out"
    path.write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.csv, "writer", full)
    monkeypatch.setattr(parquet, "ParquetWriter", full)
    with pytest.raises(RecordsError, match=r"r\.out cannot be written: No space left on device\. Name another file\."):
        getattr(filled, write)(path)
    assert [file.name for file in tmp_path.iterdir() if "sqlite" not in file.name] == ["r.out"]
    assert path.read_text() == "before"
    with pytest.raises(RecordsError, match="Choose a folder that exists"):
        getattr(filled, write)(tmp_path / "no" / "r.out")


def test_without_pyarrow_it_is_said_what_to_install(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(RecordsError, match=r'pip install "sapatchcore\[serve\]"'):
        records.write_parquet(io.BytesIO())


@pytest.mark.parametrize("write", ["write_csv", "write_parquet"])
def test_memory_does_not_grow_with_the_records(tmp_path: Path, write: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "AT_ONCE", 30)

    class Nowhere(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, part: Any) -> int:
            return len(part)

    def peak(records: Records) -> int:
        tracemalloc.start()
        try:
            getattr(records, write)(Nowhere())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with Records(tmp_path / "r.sqlite") as records:
        new = [inspection() for _ in range(150)]
        records.add(new)
        peak(records)  # what is made once
        few = peak(records)
        for _ in range(9):
            records.add(new)
        assert peak(records) < 3 * few  # of ten times as many
