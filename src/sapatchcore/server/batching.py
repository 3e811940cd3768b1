"""Threads that take together what waits: the inference thread, up to a batch of one model, and the one that writes records.

The inference thread never waits for more. A client by itself is served at once, as a batch of one; while a batch is computed
others arrive, and go together in the next. Where a whole further batch waits, a second thread computes that meanwhile, each
with some of the processors: a network's steps are small, so two side by side take less time than one after the other on all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from sapatchcore.data.pixels import Appearance, Size, UInt8Array
from sapatchcore.records.record import NewRecord, Record
from sapatchcore.records.records import Records
from sapatchcore.result import Result
from sapatchcore.server.served import Explain, Processors, Served

log = logging.getLogger("sapatchcore.server")
MOST_TOGETHER = 512  # records in one transaction


@dataclass(frozen=True)
class ScoredImage:
    """One image of a scored batch: its index there. explain: None where nobody asked, or the model cannot."""

    batch: Result
    index: int
    explain: Explain | None

    @property
    def result(self) -> Result:
        """Of the one image."""
        return self.batch.only(self.index)


@dataclass(eq=False)
class WaitingImage:
    """One prepared image that waits for the network; cancelled before it is taken, it is left out. size, appearance: its own,
    before it was prepared."""

    model: Served
    name: str
    size: Size
    appearance: Appearance
    pixels: UInt8Array
    explain: bool = False
    since: float = field(default_factory=time.perf_counter)
    done: Future[ScoredImage] = field(default_factory=Future)


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


# called after each batch with: its images, seconds that each waited, seconds of the network
BatchReport = Callable[[int, Sequence[float], float], None]


class Inference(Worker):
    """The inference thread and its helper; stopped, they finish what was submitted."""

    def __init__(self, report: BatchReport | None = None) -> None:
        super().__init__("inference")
        self._report = report
        self._waiting: dict[Served, deque[WaitingImage]] = {}  # in the order in which each model's first image came
        self._helper = threading.Thread(target=self._help, name="inference, second", daemon=True)
        self._computing = self._helping = False

    def start(self) -> None:
        """Start both threads."""
        super().start()
        self._helper.start()

    def stop(self) -> None:
        """Finish what was submitted, and end both threads."""
        super().stop()
        self._helper.join()

    def submit(self, images: Sequence[WaitingImage]) -> None:
        """Let images of one model wait for the network. Raises RuntimeError after ``stop`` (a defect of the caller)."""
        with self._changed:
            if self._stopping:
                raise RuntimeError("The inference thread has been stopped.")
            self._waiting.setdefault(images[0].model, deque()).extend(images)
            self._changed.notify_all()

    def _run(self) -> None:
        while images := self._next():
            with self._changed:
                alone = not self._helping and self._whole_batch() is None
            self._score(images, Processors.ALL if alone else Processors.ALL_BUT_ONE)

    def _help(self) -> None:
        while images := self._next_beside():
            self._score(images, Processors.ONE)

    def _next(self) -> list[WaitingImage]:
        """The images that go together now; empty at the end."""
        with self._changed:
            self._computing = False
            while self._waited(self._waiting):
                if images := self._taken(next(iter(self._waiting))):
                    self._computing = True
                    self._changed.notify_all()
                    return images
            return []

    def _next_beside(self) -> list[WaitingImage]:
        """A whole batch that waits while another one is computed; empty at the end."""
        with self._changed:
            self._helping = False
            while True:
                model = self._whole_batch()
                if self._computing and model is not None:
                    if images := self._taken(model):
                        self._helping = True
                        return images
                elif self._stopping:
                    return []
                else:
                    self._changed.wait()

    def _whole_batch(self) -> Served | None:
        """A model of which a whole batch waits, and whose batches can be computed side by side."""
        return next(
            (model for model, images in self._waiting.items() if len(images) >= model.batch_size and model.on_cpu), None
        )

    def _taken(self, model: Served) -> list[WaitingImage]:
        """A batch of the model's images, less those that were cancelled."""
        waiting, images = self._waiting.pop(model), list[WaitingImage]()
        while waiting and len(images) < model.batch_size:
            image = waiting.popleft()
            if image.done.set_running_or_notify_cancel():
                images.append(image)
        if waiting:  # behind the others: a busy model must not starve them
            self._waiting[model] = waiting
        return images

    def _score(self, images: Sequence[WaitingImage], processors: Processors) -> None:
        model, start = images[0].model, time.perf_counter()
        try:
            columns = zip(*((image.name, image.size, image.appearance, image.pixels) for image in images), strict=True)
            result, explain = model.score(*columns, processors=processors)
        except Exception as error:  # whatever it is, it goes to those who asked, and the thread lives on
            if len(images) == 1:
                images[0].done.set_exception(error)
                return
            for image in images:  # one image must not spoil the others
                self._score([image], processors)
            return
        if self._report is not None:
            self._report(len(images), [start - image.since for image in images], time.perf_counter() - start)
        if not any(image.explain for image in images):
            explain = None  # the patches' memory is free again
        for index, image in enumerate(images):
            image.done.set_result(ScoredImage(result, index, explain))


Group = list[tuple[Sequence[NewRecord], Future[list[Record]]]]
# called after each commit with its records and the seconds that it took
CommitReport = Callable[[Sequence[Record], float], None]


class Recorder(Worker):
    """The recording thread: what waits goes into one transaction. Stopped, it writes what was handed in."""

    def __init__(self, records: Records, report: CommitReport | None = None) -> None:
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

    def _next(self) -> Group:
        with self._changed:
            while self._waited(self._waiting):
                group: Group = []
                count = 0
                while self._waiting and (not group or count + len(self._waiting[0][0]) <= MOST_TOGETHER):
                    records, done = self._waiting.popleft()
                    if done.set_running_or_notify_cancel():
                        group.append((records, done))
                        count += len(records)
                if group:
                    return group
            return []

    def _write(self, group: Group) -> None:
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
