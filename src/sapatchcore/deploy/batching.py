"""One thread that runs the networks: it takes what waits, up to a batch of one model, and never waits for more.

A client by itself is served at once, as a batch of one; while a batch is computed others arrive, and go together in the next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sapatchcore.data.pixels import UInt8Array
from sapatchcore.data.transform import Size
from sapatchcore.deploy.served import Plain, Served
from sapatchcore.deploy.worker import Worker
from sapatchcore.result import Result


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
    """The inference thread; stopped, it finishes what was submitted."""

    def __init__(self, report: Report | None = None) -> None:
        super().__init__("inference")
        self._report = report
        self._waiting: dict[Served, deque[Job]] = {}  # in the order in which each model's first job came

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let the jobs, of one model, wait for their turn. Raises RuntimeError after ``stop`` (a defect of the caller)."""
        with self._changed:
            if self._stopping:
                raise RuntimeError("The scorer has been stopped.")
            self._waiting.setdefault(jobs[0].model, deque()).extend(jobs)
            self._changed.notify()

    def _run(self) -> None:
        while jobs := self._next():
            self._score(jobs)

    def _next(self) -> list[Job]:
        """The jobs that go together now; empty at the end."""
        with self._changed:
            while self._waited(self._waiting):
                model, waiting = next(iter(self._waiting.items()))
                jobs: list[Job] = []
                while waiting and len(jobs) < model.batch_size:
                    job = waiting.popleft()
                    if job.done.set_running_or_notify_cancel():
                        jobs.append(job)
                del self._waiting[model]
                if waiting:  # behind the others: a busy model must not starve them
                    self._waiting[model] = waiting
                if jobs:
                    return jobs
            return []

    def _score(self, jobs: Sequence[Job]) -> None:
        model, start = jobs[0].model, time.perf_counter()
        try:
            scored = model.score([job.name for job in jobs], [job.size for job in jobs], [job.pixels for job in jobs])
        except Exception as error:  # whatever it is, it goes to those who asked, and the thread lives on
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
                return
            for job in jobs:  # one image must not spoil the others
                self._score([job])
            return
        if self._report is not None:
            self._report(model, len(jobs), [start - job.since for job in jobs], time.perf_counter() - start)
        if not any(job.explain for job in jobs):
            scored = Plain(scored.result)  # the patches' memory is free again
        for at, job in enumerate(jobs):
            job.done.set_result(Place(scored, at))
