"""The inference thread: it takes what waits, up to a batch of one model, and never waits for more.

A client by itself is served at once, as a batch of one; while a batch is computed others arrive, and go together in the next.
Where a whole further batch waits, a second thread computes that meanwhile, each with some of the processors: a network's steps
are small, so that two networks side by side take less time than one after the other on all processors.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sapatchcore.data.pixels import Size, UInt8Array
from sapatchcore.result import Result
from sapatchcore.server.served import Plain, Served, Share
from sapatchcore.server.worker import Worker


@dataclass(frozen=True)
class Place:
    """Where an image's numbers are: the scored batch, and its place in it."""

    scored: Any
    at: int

    @property
    def result(self) -> Result:
        """Of the one image."""
        alone: Result = self.scored.result.only(self.at)
        return alone


@dataclass(eq=False)
class Job:
    """One prepared image that waits. done: its place in a scored batch; cancelled before its turn, it is left out."""

    model: Served
    name: str
    size: Size
    pixels: UInt8Array
    explain: bool = False
    since: float = field(default_factory=time.perf_counter)
    done: Future[Place] = field(default_factory=Future)


# called after each batch with: its model, images, seconds that each waited, seconds of the network
Report = Callable[[Served, int, Sequence[float], float], None]


class Scorer(Worker):
    """The inference thread and its helper; stopped, they finish what was submitted."""

    def __init__(self, report: Report | None = None) -> None:
        super().__init__("inference")
        self._report = report
        self._waiting: dict[Served, deque[Job]] = {}  # in the order in which each model's first job came
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

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let the jobs, of one model, wait for their turn. Raises RuntimeError after ``stop`` (a defect of the caller)."""
        with self._changed:
            if self._stopping:
                raise RuntimeError("The scorer has been stopped.")
            self._waiting.setdefault(jobs[0].model, deque()).extend(jobs)
            self._changed.notify_all()

    def _run(self) -> None:
        while jobs := self._next():
            with self._changed:
                alone = not self._helping and self._whole_batch() is None
            self._score(jobs, Share.ALL if alone else Share.MOST)

    def _help(self) -> None:
        while jobs := self._next_beside():
            self._score(jobs, Share.ONE)

    def _next(self) -> list[Job]:
        """The jobs that go together now; empty at the end."""
        with self._changed:
            self._computing = False
            while self._waited(self._waiting):
                if jobs := self._taken(next(iter(self._waiting))):
                    self._computing = True
                    self._changed.notify_all()
                    return jobs
            return []

    def _next_beside(self) -> list[Job]:
        """A whole batch that waits while another one is computed; empty at the end."""
        with self._changed:
            self._helping = False
            while True:
                model = self._whole_batch()
                if self._computing and model is not None:
                    if jobs := self._taken(model):
                        self._helping = True
                        return jobs
                elif self._stopping:
                    return []
                else:
                    self._changed.wait()

    def _whole_batch(self) -> Served | None:
        """A model of which a whole batch waits, and whose batches can go side by side."""
        return next(
            (model for model, jobs in self._waiting.items() if len(jobs) >= model.batch_size and model.shares), None
        )

    def _taken(self, model: Served) -> list[Job]:
        """A batch of the model's jobs, less those that were cancelled."""
        waiting, jobs = self._waiting.pop(model), list[Job]()
        while waiting and len(jobs) < model.batch_size:
            job = waiting.popleft()
            if job.done.set_running_or_notify_cancel():
                jobs.append(job)
        if waiting:  # behind the others: a busy model must not starve them
            self._waiting[model] = waiting
        return jobs

    def _score(self, jobs: Sequence[Job], share: Share) -> None:
        model, start = jobs[0].model, time.perf_counter()
        try:
            columns = zip(*((job.name, job.size, job.pixels) for job in jobs), strict=True)
            scored = model.score(*columns, share=share)
        except Exception as error:  # whatever it is, it goes to those who asked, and the thread lives on
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
                return
            for job in jobs:  # one image must not spoil the others
                self._score([job], share)
            return
        if self._report is not None:
            self._report(model, len(jobs), [start - job.since for job in jobs], time.perf_counter() - start)
        if not any(job.explain for job in jobs):
            scored = Plain(scored.result)  # the patches' memory is free again
        for at, job in enumerate(jobs):
            job.done.set_result(Place(scored, at))
