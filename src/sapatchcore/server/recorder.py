"""One thread that writes the records: whatever waits goes into one transaction, and answers go out after it is committed."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sapatchcore.records.record import NewRecord, Record
from sapatchcore.records.records import Records
from sapatchcore.server.worker import Worker

log = logging.getLogger("sapatchcore.server")
MOST_TOGETHER = 512  # records in one transaction

# called after each commit with its records and the seconds that it took
Report = Callable[[Sequence[Record], float], None]


class Recorder(Worker):
    """The recording thread; stopped, it writes what was handed in."""

    def __init__(self, records: Records, report: Report | None = None) -> None:
        super().__init__("recording")
        self._records, self._report = records, report
        self._waiting: deque[tuple[Sequence[NewRecord], Future[list[Record]]]] = deque()

    def add(self, records: Sequence[NewRecord]) -> Future[list[Record]]:
        """The records as they were committed, together or not at all; or the error that kept them from it."""
        done: Future[list[Record]] = Future()
        with self._changed:
            if self._stopping:
                raise RuntimeError("The recorder has been stopped.")
            self._waiting.append((records, done))
            self._changed.notify()
        return done

    def _run(self) -> None:
        while group := self._next():
            self._write(group)

    def _next(self) -> list[tuple[Sequence[NewRecord], Future[list[Record]]]]:
        with self._changed:
            while self._waited(self._waiting):
                group: list[tuple[Sequence[NewRecord], Future[list[Record]]]] = []
                count = 0
                while self._waiting and (not group or count + len(self._waiting[0][0]) <= MOST_TOGETHER):
                    records, done = self._waiting.popleft()
                    if done.set_running_or_notify_cancel():
                        group.append((records, done))
                        count += len(records)
                if group:
                    return group
            return []

    def _write(self, group: Sequence[tuple[Sequence[NewRecord], Future[list[Record]]]]) -> None:
        start = time.perf_counter()
        try:
            written = self._records.add([record for records, _ in group for record in records])
        except Exception as error:  # a full disk, a database that is away: those who asked hear it; the thread lives on
            log.error("%d inspections could not be recorded: %s", sum(len(records) for records, _ in group), error)
            for _, done in group:
                done.set_exception(error)
            return
        seconds, first = time.perf_counter() - start, 0
        for records, done in group:
            done.set_result(written[first : first + len(records)])
            first += len(records)
        if self._report is not None:
            self._report(written, seconds)
