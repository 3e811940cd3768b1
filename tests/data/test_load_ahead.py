"""Reading ahead: order, bounded memory, errors at their place, threads that end."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from sapatchcore.data.images import load_ahead
from sapatchcore.errors import SettingsError


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
    assert second_started.wait(5)
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
