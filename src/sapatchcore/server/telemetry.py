"""The server's figures for Prometheus. Labels come from the server's own lists, never from a request's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sapatchcore.records.record import REJECT, Record
from sapatchcore.server.served import Served

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


class Telemetry:
    """All figures of one server, in a registry of its own."""

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

    def scored(self, _: Served, images: int, waits: Sequence[float], seconds: float) -> None:
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
