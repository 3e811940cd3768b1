"""What the server says of itself: drift of each model's p-values, and figures for Prometheus.

score/drift.py says what is computed and promised. A watch looks at a window of accepted parts, from its first one on: parts at
or below the promised rate are left out, as the test asks. When the window holds 2,000 parts its older half goes, and the test
begins anew with the other half. So the promise (a false alarm with at most the stated chance) holds for each window, and an
alarm goes by itself after its cause is gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sapatchcore.records.record import REJECT, Record
from sapatchcore.records.records import Records
from sapatchcore.server.batching import Worker
from sapatchcore.server.served import Served

WINDOW = 2000
FALSE_ALARM = 0.01
_SHARE = 0.02  # of one processor that the watch may take

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


@dataclass(frozen=True)
class AcceptedImage:
    """An accepted part: its record's number and time, and its p-value."""

    record: int
    time: datetime
    p_value: float


@dataclass(frozen=True)
class DriftFinding:
    """The window's parts with the log capital after each; the records of alarm and beginning, None where there is no alarm."""

    parts: tuple[AcceptedImage, ...] = ()
    log_capital: tuple[float, ...] = ()
    alarm: int | None = None
    since: int | None = None

    limit = -math.log(FALSE_ALARM)
    false_alarm = FALSE_ALARM


class _Stream:
    """The accepted parts of one version of a model."""

    def __init__(self, model: Served, least: float) -> None:
        self.drift = model.detector.drift
        self.least = least
        self.parts: list[AcceptedImage] = []
        self.fresh = False  # whether the finding lacks parts
        self.finding = DriftFinding()

    def add(self, parts: Sequence[AcceptedImage]) -> None:
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
            earlier = [AcceptedImage(*row) for row in self._records.p_values(*key, last=WINDOW // 2)]
            with self._changed:  # what came meanwhile is in the list already, or is newer
                recorded = {part.record for part in earlier}
                later = [part for part in stream.parts if part.record not in recorded]
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
                    stream.add([AcceptedImage(record.number, record.time, record.p_value)])
            self._changed.notify()

    def finding(self, model: Served) -> DriftFinding | None:
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


def _find(stream: _Stream, parts: tuple[AcceptedImage, ...]) -> DriftFinding:
    if not parts:
        return DriftFinding()
    p_values = np.array([part.p_value for part in parts])
    found = stream.drift(p_values, false_alarm=FALSE_ALARM)
    alarm, since = (None if at is None else parts[at].record for at in (found.alarm, found.since))
    return DriftFinding(parts, tuple(found.log_capital.tolist()), alarm, since)


class Telemetry:
    """All figures of one server, in its own registry. Labels come from the server's own lists, never from a request's text."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def seconds(name: str, meaning: str, *labels: str) -> Histogram:
            return Histogram(f"sapatchcore_{name}_seconds", meaning, labels, buckets=_SECONDS, registry=registry)

        self._requests = Counter("sapatchcore_requests", "Answered requests.", ("route", "status"), registry=registry)
        self._answer = seconds("request", "From a request's head to its answer.", "route")
        self.decode = seconds("decode", "Decoding and resizing of an image.")
        self._wait = seconds("queue", "An image's wait for the inference thread.")
        self._network = seconds("inference", "A batch in the inference thread.")
        self._commit = seconds("record", "Committing a group of records.")
        self._batch = Histogram(
            "sapatchcore_batch_images", "Images that went together.", buckets=_IMAGES, registry=registry
        )
        self._images = Counter("sapatchcore_images", "Recorded inspections.", ("model",), registry=registry)
        self._rejects = Counter("sapatchcore_rejects", "Rejected of these.", ("model",), registry=registry)
        self._alarm = Gauge("sapatchcore_drift_alarm", "1 where p-values have drifted.", ("model",), registry=registry)
        self._capital = Gauge(
            "sapatchcore_drift_log_capital", "Evidence of drift; the alarm is at 4.6.", ("model",), registry=registry
        )

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A gauge that asks ``value`` whenever somebody reads the figures."""
        Gauge(f"sapatchcore_{name}", meaning, registry=self.registry).set_function(value)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered. route: its template, as the program has it."""
        self._requests.labels(route, str(status)).inc()
        self._answer.labels(route).observe(seconds)

    def scored(self, images: int, waits: Sequence[float], seconds: float) -> None:
        """A batch went through the network."""
        self._batch.observe(images)
        self._network.observe(seconds)
        for wait in waits:
            self._wait.observe(wait)

    def recorded(self, records: Sequence[Record], seconds: float) -> None:
        """A group of records was committed."""
        self._commit.observe(seconds)
        for record in records:
            self._images.labels(record.model).inc()
            if record.verdict == REJECT:
                self._rejects.labels(record.model).inc()

    def drifted(self, states: dict[str, tuple[bool, float]]) -> None:
        """For each model in service: whether its p-values have drifted, and the log capital."""
        self._alarm.clear()
        self._capital.clear()
        for model, (alarm, log_capital) in states.items():
            self._alarm.labels(model).set(float(alarm))
            self._capital.labels(model).set(log_capital)

    def text(self) -> bytes:
        """All figures, in Prometheus's text format."""
        return generate_latest(self.registry)
