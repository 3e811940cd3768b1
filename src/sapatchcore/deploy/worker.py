"""A thread of the server that works on what others hand to it, and ends when it is told to."""

from __future__ import annotations

import threading


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
            self._changed.notify()
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
