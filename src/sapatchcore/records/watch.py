"""A folder is watched: each image that appears in it is inspected once, across restarts.

A record and the state of its file ("this content of this name is done") are one transaction: a kill between two images
neither loses one nor inspects one twice. The system's events (watchfiles) make it quick; scans of the whole folder, at the
start and every few seconds, make it complete: files may have come while nobody watched, and network shares and full event
queues give no events. Nothing in the folder is changed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import watchfiles

from sapatchcore.errors import DataError, RecordsError
from sapatchcore.records.arrivals import Arrivals, UnreadableFile
from sapatchcore.records.record import NewRecord, ReceivedImage, Record
from sapatchcore.records.records import Records

EVERY = 5.0  # seconds between scans; ten times as long as a scan takes where that is more
SETTLE, PATIENCE = 0.5, 10.0  # seconds; see arrivals.py
TICK = 0.1  # seconds between looks at what settles
AT_ONCE, PIXELS_AT_ONCE = 8, 64_000_000  # images that are inspected together at most, and their pixels
LEFT = 5.0  # seconds beyond settle and patience after which one pass leaves files that keep changing
NO_EVENTS = 60.0  # seconds after which events are asked for again where the system gave none

Inspect = Callable[[Sequence[ReceivedImage]], Sequence[NewRecord]]


def watch(
    folder: Path,
    inspect: Inspect,
    records: Records,
    *,
    stop: threading.Event,
    once: bool = False,
    recorded: Callable[[Record], None] = lambda _: None,
    failed: Callable[[str, str], None] = lambda *_: None,
    warn: Callable[[str], None] = lambda _: None,
    every: float = EVERY,
    settle: float = SETTLE,
    patience: float = PATIENCE,
) -> None:
    """Inspect images as they appear in ``folder`` and below it, until ``stop`` is set; those in hand are finished.

    Args:
        folder: Must exist at the start. Later it may go away and come back, as shares do.
        inspect: The records of some images, with their ``watched``; it raises DataError for an image that is unusable.
        stop: Set by a signal (``stop_on_signals``) or another thread.
        once: Inspect what is there, then return. What fails is then raised, not tried again.
        recorded: Called with each record after it is committed.
        failed: Called with name and reason of a file that cannot be inspected, after that is committed.
        warn: Called with a sentence where something fails that is tried again, once for each sentence.
        every, settle, patience: seconds between scans; that a file stays as it is before it counts as complete; that one which
            cannot be decoded is waited for.

    Raises:
        DataError: the folder does not exist, or is a file.
        SAPatchCoreError: what ``inspect`` raises beyond DataError; with ``once`` also RecordsError.
    """
    check_folder(folder)
    run = _Watch(Arrivals(folder, records, settle=settle, patience=patience), inspect, records, stop, recorded, failed)
    if once:
        run.once(settle + patience, warn)
    else:
        run.on(every, warn)


def check_folder(folder: Path) -> None:
    """Raises DataError where there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"The folder to watch, {folder}, does not exist or is no folder. Check the path.")


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT (Ctrl-C) and SIGTERM set; a second signal does what it did before. In the main thread only."""
    stop = threading.Event()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def handle(_: int, __: FrameType | None) -> None:
        stop.set()
        restore()

    for one in before:
        signal.signal(one, handle)
    try:
        yield stop
    finally:
        restore()


class _Watch:
    def __init__(
        self,
        arrivals: Arrivals,
        inspect: Inspect,
        records: Records,
        stop: threading.Event,
        recorded: Callable[[Record], None],
        failed: Callable[[str, str], None],
    ) -> None:
        self._arrivals, self._inspect, self._records, self._stop = arrivals, inspect, records, stop
        self._recorded, self._failed = recorded, failed

    def once(self, patience: float, warn: Callable[[str], None]) -> None:
        """What is there now."""
        try:
            self._arrivals.scan()
        except OSError as error:
            raise DataError(f"{self._arrivals.folder} cannot be read: {error.strerror or error}.") from None
        last, moved = self._arrivals.waiting, time.monotonic()
        while self._arrivals.waiting and not self._stop.is_set():
            self._work()
            if self._arrivals.waiting != last:
                last, moved = self._arrivals.waiting, time.monotonic()
            elif time.monotonic() - moved > patience + LEFT:
                warn(f"Files that are still being written are left for the next time: {last}.")
                return
            self._stop.wait(TICK)

    def on(self, every: float, warn: Callable[[str], None]) -> None:
        """What is there, and what comes."""
        next_scan, said = 0.0, ""
        for paths in self._events(every, warn):
            problem = ""
            try:
                start = time.monotonic()
                if paths is None or start >= next_scan or self._arrivals.notice(paths):
                    self._arrivals.scan()
                    next_scan = max(start + every, start + 11 * (time.monotonic() - start))
            except OSError as error:  # a share that is away
                problem = f"{self._arrivals.folder} cannot be read: {error.strerror or error}."
            except RecordsError as error:
                problem = str(error)
            try:
                self._work()
            except RecordsError as error:  # nothing was kept, so all of it is done again
                problem = str(error)
            if problem and problem != said:
                warn(f"{problem} It is tried again every {every:g} s.")
            said = problem
            if problem:
                self._stop.wait(every)

    def _events(self, every: float, warn: Callable[[str], None]) -> Iterator[set[str] | None]:
        """The paths that changed, every TICK seconds or sooner; None where some may be missing, so that a scan is due."""
        while not self._stop.is_set():
            folders = self._arrivals.folders
            try:
                first = True
                for changes in watchfiles.watch(
                    *folders,  # each by itself: watching a tree would follow links out of it
                    recursive=False,
                    watch_filter=None,
                    debounce=100,
                    step=20,
                    rust_timeout=round(TICK * 1000),
                    yield_on_timeout=True,
                    stop_event=self._stop,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    yield None if first else {path for _, path in changes}
                    first = False
                    if self._arrivals.folders != folders:
                        break
            except (OSError, RuntimeError) as error:
                if folders == self._arrivals.folders:
                    warn(f"No events of {self._arrivals.folder} ({error}): images are found every {every:g} s.")
                again = time.monotonic() + NO_EVENTS
                while time.monotonic() < again and not self._stop.wait(TICK):
                    yield set()

    def _work(self) -> None:
        """Inspect what has settled."""
        images: list[ReceivedImage] = []
        for name in self._arrivals.ready():
            if self._stop.is_set():
                break
            found = self._arrivals.read(name)
            if isinstance(found, UnreadableFile):
                self._fail(found)
            elif found is not None:
                images.append(found)
                if len(images) == AT_ONCE or sum(one.pixels.size for one in images) >= 3 * PIXELS_AT_ONCE:
                    self._record(images)
                    images = []
        if images:
            self._record(images)

    def _record(self, images: Sequence[ReceivedImage]) -> None:
        try:
            new = self._inspect(images)
        except DataError as error:
            if len(images) > 1:
                for one in images:
                    self._record([one])
            elif images[0].watched is not None:
                self._fail(UnreadableFile(images[0].watched, str(error)))
            return
        saved = self._records.add(new)
        for one in images:
            if one.watched is not None:
                self._arrivals.done(one.watched)
        for record in saved:
            self._recorded(record)

    def _fail(self, found: UnreadableFile) -> None:
        news = self._records.unreadable(found.watched, found.reason)
        self._arrivals.done(found.watched)
        if news:
            self._failed(found.watched.name, found.reason)
