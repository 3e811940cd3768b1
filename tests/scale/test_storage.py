"""Scores by parts, without a cluster: what is listed, what is finished, what belongs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: install the extra scale")
pytest.importorskip("fsspec", reason="fsspec is not installed: install the extra scale")

from sapatchcore.errors import DataError, SettingsError
from sapatchcore.scale.storage import (
    IMAGES,
    SCORE_COLUMNS,
    SCORES,
    Storage,
    claim,
    file_of,
    finished,
    list_images,
    number_of,
    read_table,
    write_table,
)

NAMES = [f"/images/{number:05d}.png" for number in range(25)]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "scores"))


def listed(storage: Storage, part: int) -> list[str]:
    table = read_table(storage, file_of(IMAGES, part))
    assert table is not None
    return list(table["path"].to_pylist())


def test_images_are_listed_in_parts_and_once(storage: Storage) -> None:
    assert list_images(storage, NAMES, 10) == [10, 10, 5]
    assert [name for part in range(3) for name in listed(storage, part)] == NAMES
    assert list_images(storage, NAMES, 10) == [10, 10, 5]
    # What came since becomes parts of its own, and what has gone stays listed where it was.
    later = ["/images/00003b.png", *NAMES[5:], "/images/z.png"]
    assert list_images(storage, sorted(later), 10) == [10, 10, 5, 2]
    assert listed(storage, 3) == ["/images/00003b.png", "/images/z.png"]


def test_a_listing_that_was_broken_off_goes_on(storage: Storage) -> None:
    def broken() -> object:
        yield from NAMES[:17]
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="the network is gone"):
        list_images(storage, broken(), 5)  # type: ignore[arg-type]
    assert list_images(storage, NAMES, 5) == [5, 5, 5, 5, 5]
    assert [name for part in range(5) for name in listed(storage, part)] == NAMES


def test_many_images_are_told_apart_by_their_names(storage: Storage) -> None:
    """More than one block of keys, in an order that is not theirs."""
    names = [f"s3://bucket/{number % 7}/{number}.png" for number in range(20_000)]
    assert sum(list_images(storage, names, 3000)) == 20_000
    assert sum(list_images(storage, reversed(names), 3000)) == 20_000
    assert sum(list_images(storage, [*names[::2], "s3://bucket/new.png", *names[1::2]], 3000)) == 20_001


@pytest.mark.parametrize("often", [1, 2, 5])
def test_an_image_that_is_named_twice_is_listed_once(storage: Storage, often: int) -> None:
    """At once, far apart, and in a later listing: against a set of all names."""
    random = np.random.default_rng(often)
    names = [f"/images/{number}.png" for number in random.integers(30_000, size=30_000 * often)]
    list_images(storage, names[:20_000], 3000)
    counts = list_images(storage, names, 3000)
    found = [name for part in range(len(counts)) for name in listed(storage, part)]
    assert found == list(dict.fromkeys(names))


def test_a_missing_part_is_noticed(storage: Storage) -> None:
    list_images(storage, NAMES, 10)
    (Path(storage.folder) / file_of(IMAGES, 1)).unlink()
    with pytest.raises(DataError, match="lacks parts"):
        list_images(storage, NAMES, 10)


def test_only_whole_tables_count_as_finished(storage: Storage) -> None:
    assert finished(storage) == set()
    nothing: dict[str, list[object]] = {name: [] for name in SCORE_COLUMNS.names}
    write_table(storage, file_of(SCORES, 12), nothing, SCORE_COLUMNS, {"model": "a"})
    for stray in (".part-000003.parquet.ab.part", "part-000004.parquet.tmp", "part-x.parquet", "notes.txt"):
        (Path(storage.folder) / SCORES / stray).write_text("cut off")
    assert finished(storage) == {12}
    table = read_table(storage, file_of(SCORES, 12))
    assert table.schema.metadata[b"model"] == b"a"


@pytest.mark.parametrize("name", ["part-000012.parquet", "part-1234567.parquet"])
def test_part_numbers(name: str) -> None:
    assert file_of("x", number_of(name)) == f"x/{name}"


def test_a_damaged_table_is_named(storage: Storage) -> None:
    list_images(storage, NAMES, 10)
    file = Path(storage.folder) / file_of(IMAGES, 0)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"part-000000\.parquet is damaged .* Remove it"):
        list_images(storage, NAMES, 10)


def test_a_folder_belongs_to_one_run(storage: Storage) -> None:
    run = {"model": "a.safetensors", "model_sha256": "12", "false_reject": 0.01, "images_of_a_part": 10}
    claim(storage, run)
    claim(storage, run)
    with pytest.raises(SettingsError, match=r"another run: model_sha256 12, now 13\. Name another folder"):
        claim(storage, {**run, "model_sha256": "13"})
    (Path(storage.folder) / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        claim(storage, run)


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be (written|read|listed)"):
        claim(Storage(str(tmp_path / "scores")), {"model": "a"})
