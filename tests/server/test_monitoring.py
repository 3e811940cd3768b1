"""The watch feeds the drift test what it asks for, and shows what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serving import encoded, inspect, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.records.record import Record
from sapatchcore.records.records import Records
from sapatchcore.score.drift import drift
from sapatchcore.score.threshold import possible_rate
from sapatchcore.server import monitoring
from sapatchcore.server.monitoring import DriftWatch

CALIBRATION = 99


def model(digest: str = "a", calibration: int = CALIBRATION) -> Any:
    detector = SimpleNamespace(drift=partial(drift, calibration=calibration, seed=3))
    return SimpleNamespace(name="part", hash=digest, calibration_images=calibration, detector=detector)


def records_of(p_values: Any, first: int = 1, digest: str = "a") -> list[Record]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Record(
            *(number, start + timedelta(seconds=number), "part", digest, "0" * 64, "", 8, 8, 1.0, float(p), 2.0, 0.01),
            *("accept", None, 0.6, 0.8, None, None, None, False, None, None, None, None, "api"),
        )
        for number, p in enumerate(p_values, first)
    ]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "r.sqlite") as found:
        yield found


def rate_for(model: Any) -> float | None:
    return possible_rate(model.calibration_images) if model.calibration_images else None


@contextmanager
def watching(records: Records, *models: Any) -> Iterator[DriftWatch]:
    watch = DriftWatch(records, rate_for)
    watch.start()
    watch.follow(models)
    try:
        yield watch
    finally:
        watch.stop()


def uniform(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(1, CALIBRATION + 2, count) / (CALIBRATION + 1)


def test_it_is_the_test_of_the_accepted_parts(records: Records) -> None:
    p_values = uniform(300)
    accepted = p_values[p_values > 0.01 + 1e-9]
    assert len(accepted) < 300
    with watching(records, model()) as watch:
        for first in range(0, 300, 50):
            watch.add(records_of(p_values[first : first + 50], first + 1))
        until(lambda: len(watch.finding(model()).parts) == len(accepted))  # type: ignore[union-attr]
        found = watch.finding(model())
        assert found is not None
        expected = drift(accepted, CALIBRATION, seed=3)
        np.testing.assert_array_equal(found.log_capital, expected.log_capital)
        assert (found.alarm, expected.alarm) == (None, None)


def test_it_names_the_records_of_alarm_and_beginning(records: Records) -> None:
    good = uniform(200)
    late = np.random.default_rng(1).integers(2, 25, 200) / (CALIBRATION + 1)
    stream = records_of([*good, *late])
    with watching(records, model()) as watch:
        watch.add(stream)
        until(lambda: watch.finding(model()).alarm is not None)  # type: ignore[union-attr]
        found = watch.finding(model())
        assert found is not None
        assert found.alarm is not None
        assert found.since is not None
        accepted = [one for one in stream if one.p_value and one.p_value > 0.01 + 1e-9]
        expected = drift([one.p_value for one in accepted], CALIBRATION, seed=3)  # type: ignore[misc]
        assert expected.alarm is not None
        assert expected.since is not None
        assert found.alarm == accepted[expected.alarm].number > 200
        assert found.since == accepted[expected.since].number


def test_an_alarm_goes_after_its_cause(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "WINDOW", 200)
    late = np.random.default_rng(1).integers(2, 25, 120) / (CALIBRATION + 1)
    with watching(records, model()) as watch:
        watch.add(records_of(late))
        until(lambda: watch.finding(model()).alarm is not None)  # type: ignore[union-attr]
        watch.add(records_of(uniform(400), 121))
        until(lambda: watch.finding(model()).alarm is None)  # type: ignore[union-attr]
        found = watch.finding(model())
        assert found is not None
        assert 100 <= len(found.parts) < 200


def test_versions_are_watched_apart(records: Records) -> None:
    with watching(records, model("a")) as watch:
        watch.add([*records_of(uniform(20), 1, "a"), *records_of(uniform(30), 21, "b")])
        until(lambda: watch.finding(model("a")).parts)  # type: ignore[union-attr]
        assert watch.finding(model("b")) is None
        watch.follow([model("b")])
        assert watch.finding(model("a")) is None
        assert watch.finding(model("b")) is not None


def test_a_model_without_calibration_has_no_watch(records: Records) -> None:
    with watching(records, model(calibration=0)) as watch:
        assert watch.finding(model(calibration=0)) is None


def test_drift_of_accepted_parts(folder: Path, tmp_path: Path, good: Any, bad: Any, fitted: SAPatchCore) -> None:
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        for _ in range(3):
            inspect(client, *[encoded(image) for image in good], encoded(bad), false_reject=0.2)
        until(lambda: len(client.get("/v1/models/part/drift").json()["points"]) == 30)
        found = client.get("/v1/models/part/drift").json()
        p_values = [point["p_value"] for point in found["points"]]
        np.testing.assert_array_equal(
            [point["log_capital"] for point in found["points"]], fitted.drift(p_values).log_capital
        )
        assert found["limit"] == pytest.approx(np.log(100))
        assert (found["alarm"], found["since"]) == (None, None)
        assert [point["record"] for point in client.get("/v1/models/part/drift?last=2").json()["points"]] == [31, 32]
        assert client.get("/v1/models").json()["models"][0]["drift"]["parts"] == 30
    with serving(folder, records=tmp_path / "r.sqlite") as client:  # seeded from the records
        until(lambda: client.get("/v1/models/part/drift").json() == found)


def test_drift_is_watched_at_the_rate_that_verdicts_have(folder: Path, tmp_path: Path) -> None:
    """A rate that the calibration cannot promise is raised to the smallest: a part at that p-value is rejected, not watched."""
    with serving(folder, records=tmp_path / "r.sqlite", false_reject=0.001) as client:
        service = service_of(client)
        model = service.model("part")
        assert model.smallest_false_reject > 0.001
        (stream,) = service.drift._streams.values()
        assert stream.least == pytest.approx(model.smallest_false_reject)
        assert stream.least > model.smallest_false_reject
