"""Drift of p-values, watched for each model in service (score/drift.py says what is computed and promised).

A watch looks at a window of accepted parts, from its first one on: parts at or below the promised rate are left out, as the
test asks. When the window holds 2,000 parts its older half goes, and the test begins anew with the other half. So the promise
(a false alarm with at most the stated chance) holds for each window, and an alarm goes by itself after its cause is gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from sapatchcore.records.record import Record
from sapatchcore.records.records import Records
from sapatchcore.score.drift import drift
from sapatchcore.server.served import Served
from sapatchcore.server.worker import Worker

WINDOW = 2000
FALSE_ALARM = 0.01
_SHARE = 0.02  # of one processor that the watch may take


@dataclass(frozen=True)
class Part:
    """An accepted part: its record's number and time, and its p-value."""

    record: int
    time: datetime
    p_value: float


@dataclass(frozen=True)
class Finding:
    """The window's parts with the log capital after each; the records of alarm and beginning, None where there is no alarm."""

    parts: tuple[Part, ...] = ()
    log_capital: tuple[float, ...] = ()
    alarm: int | None = None
    since: int | None = None

    limit = -math.log(FALSE_ALARM)
    false_alarm = FALSE_ALARM


class _Stream:
    """The accepted parts of one version of a model."""

    def __init__(self, model: Served, least: float) -> None:
        self.calibration, self.seed = model.calibration_images, int(model.engine.settings.seed)
        self.least = least
        self.parts: list[Part] = []
        self.fresh = False  # whether the finding lacks parts
        self.finding = Finding()

    def add(self, parts: Sequence[Part]) -> None:
        accepted = [part for part in parts if part.p_value > self.least]
        self.parts += accepted
        self.fresh = self.fresh or bool(accepted)
        while len(self.parts) >= WINDOW:
            del self.parts[: WINDOW // 2]


class DriftWatch(Worker):
    """All streams, brought up to date by a thread of its own."""

    def __init__(self, records: Records, rate_for: Callable[[Served], float | None]) -> None:
        """rate_for: the promised rate of a model's verdicts."""
        super().__init__("drift")
        self._records, self._rate_for = records, rate_for
        self._streams: dict[tuple[str, str], _Stream] = {}

    def follow(self, models: Sequence[Served]) -> None:
        """Watch these models and no others; a new one begins with what the records have of it."""
        rates = {(model.name, model.hash): (model, self._rate_for(model)) for model in models}
        wanted = {key: (model, rate) for key, (model, rate) in rates.items() if rate is not None}
        for key, (model, rate) in wanted.items():
            if key in self._streams:
                continue
            stream = _Stream(model, rate * (1 + 1e-9))
            with self._changed:
                self._streams[key] = stream
            earlier = [Part(*row) for row in self._records.p_values(*key, last=WINDOW // 2)]
            with self._changed:  # what came meanwhile is in the list already, or is newer
                known = {part.record for part in earlier}
                later = [part for part in stream.parts if part.record not in known]
                stream.parts = []
                stream.add(earlier + later)
                self._changed.notify()
        with self._changed:
            for key in [key for key in self._streams if key not in wanted]:
                del self._streams[key]

    def add(self, records: Sequence[Record]) -> None:
        """Take in what was just recorded."""
        with self._changed:
            for record in records:
                stream = self._streams.get((record.model, record.model_hash))
                if stream is not None and record.p_value is not None:
                    stream.add([Part(record.number, record.time, record.p_value)])
            self._changed.notify()

    def finding(self, model: Served) -> Finding | None:
        """The latest finding, at most some seconds behind the records; None for a model without calibration."""
        stream = self._streams.get((model.name, model.hash))
        return stream.finding if stream is not None else None

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not any(stream.fresh for stream in self._streams.values()):
                    self._changed.wait()
                if self._stopping:
                    return
                streams = [stream for stream in self._streams.values() if stream.fresh]
                windows = [tuple(stream.parts) for stream in streams]
                for stream in streams:
                    stream.fresh = False
            start = time.perf_counter()
            for stream, parts in zip(streams, windows, strict=True):
                stream.finding = _find(stream, parts)
            pause = (time.perf_counter() - start) / _SHARE
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=max(0.2, pause))


def _find(stream: _Stream, parts: tuple[Part, ...]) -> Finding:
    if not parts:
        return Finding()
    p_values = np.array([part.p_value for part in parts])
    found = drift(p_values, stream.calibration, false_alarm=FALSE_ALARM, seed=stream.seed)
    alarm, since = (None if at is None else parts[at].record for at in (found.alarm, found.since))
    return Finding(parts, tuple(found.log_capital.tolist()), alarm, since)
