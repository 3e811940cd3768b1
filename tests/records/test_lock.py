"""The fair lock: one at a time, everyone in turn, and who gives up leaves no gap."""

from __future__ import annotations

import random
import threading
import time

from sapatchcore.records.lock import Turns


def test_a_thread_that_asks_again_and_again_lets_others_through() -> None:
    turns, stop, came = Turns(), threading.Event(), []

    def busy() -> None:
        while not stop.is_set():
            assert turns.acquire(60)
            time.sleep(0.001)
            turns.release()

    thread = threading.Thread(target=busy)
    thread.start()
    for _ in range(50):
        came.append(turns.acquire(30))
        turns.release()
    stop.set()
    thread.join()
    assert came == [True] * 50


def test_those_who_wait_come_in_the_order_of_asking() -> None:
    turns, order, threads = Turns(), list[int](), []
    assert turns.acquire(1)
    for number in range(8):

        def wait(number: int = number) -> None:
            assert turns.acquire(60)
            order.append(number)
            turns.release()

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        while len(turns._waiting) != number + 1:
            time.sleep(0.001)
    turns.release()
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_who_gives_up_is_passed_over() -> None:
    turns = Turns()
    assert turns.acquire(1)
    assert not turns.acquire(0.01)
    assert not turns.acquire(0)
    turns.release()
    assert turns.acquire(0)
    turns.release()


def test_never_two_at_once_and_never_none() -> None:
    """Threads that wait for times as short as the lock is held: turns come at the last moment, or just after."""
    turns, inside, most, came = Turns(), 0, 0, 0

    def work(seed: int) -> None:
        nonlocal inside, most, came
        chance = random.Random(seed)
        for _ in range(150):
            if turns.acquire(chance.random() * 0.002):
                inside += 1
                most = max(most, inside)
                time.sleep(chance.random() * 0.0005)
                came += 1
                inside -= 1
                turns.release()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert came > 50
    assert turns.acquire(0)
