"""The server's threads: one that works on what others hand to it until it is told to end, and one that ends with its work.

Of the lasting threads the inference thread alone computes with several processors; whatever else needs PyTorch goes ``apart``.
OpenMP, which PyTorch computes with, counts the threads of every thread that ever computed so, until that one ends. Where they
are more than the processors, it lets all of them sleep between two steps, and the same network takes twice as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def apart(name: str, work: Callable[[], Any]) -> Future[Any]:
    """Start ``work`` in a thread of its own, which ends with it."""
    done: Future[Any] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work())
        except BaseException as error:  # goes to who waits for it
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class Worker:
    """Its work is ``_run``, in a thread of its own; ``_changed`` guards what is handed over, and ``_stopping``."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread come to its end, and wait for that."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError

    def _waited(self, handed: object) -> bool:
        """Wait, with ``_changed`` held, until ``handed`` holds something; False where it is empty and will stay so."""
        while not handed:
            if self._stopping:
                return False
            self._changed.wait()
        return True
