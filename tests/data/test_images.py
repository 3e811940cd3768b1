"""Listing, masks and reading ahead: order, bounded memory, errors at their position, threads that end."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sapatchcore.data.images import list_images, read_mask
from sapatchcore.data.sources import load_ahead, source_name
from sapatchcore.errors import DataError, SettingsError


def test_listing_is_sorted_and_leaves_hidden_and_other_files_out(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "C.tiff", "._a.png", ".DS_Store", "notes.txt", "d.webp"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["C.tiff", "a.jpeg", "b.PNG", "d.webp"]


def test_listing_descends_only_when_asked(tmp_path: Path) -> None:
    for name in ("z.png", "a/1.png", "a/b/2.png", ".cache/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["z.png"]
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert found == ["a/1.png", "a/b/2.png", "z.png"]


def test_listing_refuses_missing_file_and_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "no")
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match="is a file, where a folder"):
        list_images(tmp_path / "x.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no image\. It is empty"):
        list_images(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"1 other entries: notes\.txt\. Allowed: \.png"):
        list_images(tmp_path / "empty")


def _palette(values: list[int]) -> Image.Image:
    image = Image.fromarray(np.array([values], np.uint8)).convert("P")
    image.putdata(values)
    image.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white and still means "good"
    return image


def test_source_names() -> None:
    assert source_name("a/b.png", 3) == "a/b.png"
    assert source_name(Path("a") / "b.png", 3) == os.path.join("a", "b.png")  # noqa: PTH118
    assert source_name(np.zeros((2, 2), np.uint8), 3) == "image 3"
    assert source_name(Image.new("L", (2, 2)), 3) == "image 3"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.array([[0, 255]], np.uint8)), [False, True]),
        (Image.fromarray(np.array([[0, 1]], np.uint8)), [False, True]),
        (Image.fromarray(np.array([[False, True]])), [False, True]),
        (_palette([0, 1]), [False, True]),
        (Image.fromarray(np.array([[0, 1]], np.uint16)), [False, True]),
        (Image.fromarray(np.array([[[0, 0, 0], [0, 0, 3]]], np.uint8)), [False, True]),
        (Image.fromarray(np.array([[[0, 0, 0, 255], [0, 9, 0, 0]]], np.uint8)), [False, True]),
        (Image.fromarray(np.array([[[0, 255], [7, 0]]], np.uint8), "LA"), [False, True]),
    ],
    ids=["8-bit", "class-number", "1-bit", "palette", "16-bit", "rgb", "rgba", "la"],
)
def test_masks_of_every_mode(tmp_path: Path, image: Image.Image, expected: list[bool]) -> None:
    image.save(tmp_path / "m.png")
    mask = read_mask([tmp_path / "m.png"], (1, 2))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [expected]


def test_black_ink_is_no_defect(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2), (0, 0, 0, 255)).save(tmp_path / "m.tif")
    assert not read_mask([tmp_path / "m.tif"], (2, 3)).any()


def test_masks_are_united_and_none_is_all_false(tmp_path: Path) -> None:
    for place in (0, 2):
        values = np.zeros((1, 3), np.uint8)
        values[0, place] = 255
        Image.fromarray(values).save(tmp_path / f"{place}.png")
    assert read_mask([tmp_path / "0.png", tmp_path / "2.png"], (1, 3)).tolist() == [[True, False, True]]
    assert read_mask([], (2, 5)).tolist() == [[False] * 5] * 2


def test_jpeg_noise_is_no_defect(tmp_path: Path) -> None:
    values = np.zeros((32, 32), np.uint8)
    values[10:21, 10:21] = 255
    Image.fromarray(values).save(tmp_path / "m.jpg", quality=60)
    with Image.open(tmp_path / "m.jpg") as stored:
        assert (np.asarray(stored) > 0).sum() > 121
    mask = read_mask([tmp_path / "m.jpg"], (32, 32))
    assert np.array_equal(mask, values > 0)


def test_a_mask_of_another_size_is_refused(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    path = write_image(tmp_path / "m.png", size=(4, 6))
    with pytest.raises(DataError, match=r"m\.png is 4×6 \(h×w\), its image 6×4"):
        read_mask([path], (6, 4))


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("load-ahead")]


def _slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # later ones often finish first
    return number * number


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_results_keep_their_order(workers: int, ahead: int) -> None:
    found = list(load_ahead(range(20), _slow_square, workers=workers, ahead=ahead))
    assert found == [number * number for number in range(20)]
    assert not _threads()


def test_nothing_gives_nothing() -> None:
    assert list(load_ahead([], _slow_square, workers=2, ahead=2)) == []


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_endless_source_is_advanced_only_so_far(ahead: int) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = load_ahead(endless(), _slow_square, workers=2, ahead=ahead)
    for count in range(1, 6):
        next(results)
        assert len(taken) == count + ahead
    results.close()
    assert not _threads()


def test_work_goes_on_while_the_caller_is_busy() -> None:
    second_started = threading.Event()

    def prepare(number: int) -> int:
        if number == 1:
            second_started.set()
        return number

    results = load_ahead(range(3), prepare, workers=1, ahead=1)
    assert next(results) == 0
    assert second_started.wait(120)
    results.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_prepare_is_raised_at_its_place(workers: int) -> None:
    def prepare(number: int) -> int:
        if number == 3:
            raise KeyError("three")
        return _slow_square(number)

    results = load_ahead(range(10), prepare, workers=workers, ahead=5)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert not _threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_source_is_raised_at_its_place(workers: int) -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("unplugged")

    results = load_ahead(failing(), _slow_square, workers=workers, ahead=9)
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(OSError, match="unplugged"):
        next(results)
    assert not _threads()


def test_an_interrupt_ends_the_threads_and_starts_nothing_more() -> None:
    prepared: list[int] = []

    def prepare(number: int) -> int:
        prepared.append(number)
        time.sleep(0.01)
        return number

    def interrupted() -> Iterator[int]:
        yield from range(50)
        raise KeyboardInterrupt

    results = load_ahead(interrupted(), prepare, workers=1, ahead=100)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert not _threads()
    assert len(prepared) < 50


@pytest.mark.parametrize(("workers", "ahead", "message"), [(-1, 1, "workers must be"), (1, 0, "ahead must be")])
def test_wrong_numbers_are_refused_at_the_call(workers: int, ahead: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_ahead([], _slow_square, workers=workers, ahead=ahead)
