"""What happens to many requests at once: batches, a full queue, clients that leave, records that cannot be written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import encoded, hold, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.errors import DataError, RecordsError
from sapatchcore.records.record import Filter
from sapatchcore.server.middleware import Refused, RequestQueue
from sapatchcore.server.uploads import MemoryBudget

INSPECT = "/v1/models/part/inspect"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def folder(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("flow") / "models"
    models.mkdir()
    fitted.save(models / "part.safetensors")
    return models


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def post(client: TestClient, content: bytes, **query: Any) -> Any:
    return client.post(INSPECT, content=content, headers=PNG, params=query)


def test_what_waits_goes_together(
    folder: Path, tmp_path: Path, images: Any, fitted: SAPatchCore, threads: ThreadPoolExecutor
) -> None:
    arrays, go = images(9, seed=11), threading.Event()
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        held = hold(client, "part", go)
        first = threads.submit(post, client, encoded(arrays[0]))
        until(lambda: held.reached)  # a batch of one is being computed
        others = [threads.submit(post, client, encoded(image)) for image in arrays[1:]]
        until(lambda: held.reached == 2)  # and beside it a whole batch: the model's batch_size is 4
        until(lambda: sum(len(jobs) for jobs in service_of(client).inference._waiting.values()) == 4)
        go.set()
        answers = [waiting.result().json()["results"][0] for waiting in [first, *others]]
        assert sorted(held.batches) == [1, 4, 4]
        np.testing.assert_array_equal(np.float32([one["score"] for one in answers]), fitted.predict(arrays).scores)
        np.testing.assert_array_equal([one["p_value"] for one in answers], fitted.predict(arrays).p_values)
        assert len({one["record"] for one in answers}) == 9


def test_a_full_queue_says_when_to_come_back(
    folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor
) -> None:
    content, go = encoded(good[0]), threading.Event()
    with serving(folder, records=tmp_path / "r.sqlite", queue=6, max_images=6) as client:
        hold(client, "part", go)
        accepted = [threads.submit(post, client, content) for _ in range(4)]
        until(lambda: service_of(client).queue.images == 4)
        three = [("images", (f"{at}.png", content)) for at in range(3)]
        refused = client.post(INSPECT, files=three)  # there is room for two
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "full" in refused.json()["error"]
        accepted.append(threads.submit(client.post, INSPECT, files=three[:2]))
        until(lambda: service_of(client).queue.images == 6)
        assert post(client, content).status_code == 503
        assert client.get("/v1/records").json()["records"] == []
        go.set()
        assert [waiting.result().status_code for waiting in accepted] == [200] * 5
        assert post(client, content).status_code == 200  # it recovers at once
        assert service_of(client).queue.images == service_of(client).queue.bytes == 0
        assert len(client.get("/v1/records").json()["records"]) == 7


def test_the_queue_counts_bytes_too(folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor) -> None:
    content, go = encoded(good[0]), threading.Event()
    with serving(folder, records=tmp_path / "r.sqlite", max_bytes=len(content)) as client:
        hold(client, "part", go)
        accepted = [threads.submit(post, client, content) for _ in range(4)]
        until(lambda: service_of(client).queue.images == 4)
        assert post(client, content).status_code == 503
        go.set()
        assert [waiting.result().status_code for waiting in accepted] == [200] * 4


def test_an_image_too_late_is_given_up(folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor) -> None:
    content, go = encoded(good[0]), threading.Event()
    with serving(folder, records=tmp_path / "r.sqlite", timeout=0.5) as client:
        held = hold(client, "part", go)
        first = threads.submit(post, client, content)
        until(lambda: held.reached)
        waiting = [first, *(threads.submit(post, client, content) for _ in range(2))]
        for one in waiting:
            assert one.result().status_code == 504
        assert service_of(client).queue.images == 0
        go.set()
        until(lambda: post(client, content).status_code == 200)
        assert sum(held.batches[:2]) == 2  # the two that waited were left out
        assert len(client.get("/v1/records").json()["records"]) == 1


def test_one_image_does_not_spoil_the_batch(
    folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, real = threading.Event(), SAPatchCore.score
    bright = np.full_like(good[0], 255)

    def picky(self: SAPatchCore, batch: Any) -> Any:
        if (batch.pixels == 255).all((1, 2, 3)).any():
            raise DataError("The network gave numbers that are not finite.")
        return real(self, batch)

    with serving(folder, records=tmp_path / "r.sqlite") as client:
        held = hold(client, "part", go)
        first = threads.submit(post, client, encoded(good[0]))
        until(lambda: held.reached)
        monkeypatch.setattr(SAPatchCore, "score", picky)
        others = [threads.submit(post, client, encoded(image)) for image in (good[1], bright, good[2])]
        until(lambda: sum(len(jobs) for jobs in service_of(client).inference._waiting.values()) == 3)
        go.set()
        assert [one.result().status_code for one in [first, *others]] == [200, 200, 422, 200]
        assert "not finite" in others[1].result().json()["error"]


def test_a_model_that_breaks_is_no_end(
    folder: Path, tmp_path: Path, good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    with serving(folder, records=tmp_path / "r.sqlite") as client:
        monkeypatch.setattr(SAPatchCore, "score", broken)
        answer = post(client, encoded(good[0]))
        assert answer.status_code == 503
        assert "RuntimeError" in answer.json()["error"]
        monkeypatch.undo()
        assert post(client, encoded(good[0])).status_code == 200


def test_no_answer_without_its_record(folder: Path, tmp_path: Path, good: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        records = service_of(client).records

        def full(_: object) -> None:
            raise RecordsError("r.sqlite: the disk is full.")

        monkeypatch.setattr(records, "add", full)
        answer = post(client, encoded(good[0]))
        assert answer.status_code == 503
        assert "disk is full" in answer.json()["error"]
        assert "retry-after" in answer.headers
        monkeypatch.undo()
        assert post(client, encoded(good[0])).status_code == 200
        assert len(client.get("/v1/records").json()["records"]) == 1


def test_records_that_are_away(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(folder, records=tmp_path / "r.sqlite") as client:

        def away(*_: object) -> None:
            raise RecordsError("The server is away.")

        for name in ("get", "find", "image"):
            monkeypatch.setattr(service_of(client).records, name, away)
        for path in ("/readyz", "/v1/records", "/v1/records/1", "/v1/records/1/image"):
            assert client.get(path).status_code == 503
        assert client.get("/healthz").status_code == 200
        assert client.get("/metrics").status_code == 200


def test_waiting_records_are_committed_together(
    folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        service, go, groups = service_of(client), threading.Event(), []
        real = service.records.add

        def slowly(records: Any) -> Any:
            groups.append(len(records))
            assert go.wait(60)
            return real(records)

        monkeypatch.setattr(service.records, "add", slowly)
        first = threads.submit(post, client, encoded(good[0]))
        until(lambda: groups == [1])
        others = [threads.submit(post, client, encoded(image)) for image in good[1:6]]
        until(lambda: len(service.recorder._waiting) == 5)
        assert not any(one.done() for one in [first, *others])  # not before they are committed
        go.set()
        assert [one.result().status_code for one in [first, *others]] == [200] * 6
        assert groups == [1, 5]


def test_a_stop_finishes_what_was_accepted(
    folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor
) -> None:
    go = threading.Event()
    waiting: list[Future[Any]] = []
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        service = service_of(client)
        hold(client, "part", go)
        waiting += [threads.submit(post, client, encoded(image)) for image in good[:6]]
        until(lambda: service.queue.images == 6)
        threading.Timer(0.3, go.set).start()
    assert [one.result().status_code for one in waiting] == [200] * 6
    from sapatchcore.records.records import Records

    with Records(tmp_path / "r.sqlite") as records:
        assert records.count(Filter()) == 6


def test_a_client_gone_before_its_answer_is_recorded_once(folder: Path, tmp_path: Path, good: Any) -> None:
    go, content, sent = threading.Event(), encoded(good[0]), []
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        hold(client, "part", go)
        headers = [(b"host", b"localhost"), (b"content-type", b"image/png"), (b"content-length", b"%d" % len(content))]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
        scope |= {
            "path": INSPECT,
            "raw_path": INSPECT.encode(),
            "query_string": b"",
            "headers": headers,
            "root_path": "",
        }
        messages = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            threading.Timer(0.2, go.set).start()
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        assert client.portal is not None
        client.portal.call(client.app, scope, receive, send)
        assert sent[0]["status"] == 200  # to nobody: a server drops it
        assert len(client.get("/v1/records").json()["records"]) == 1
        assert service_of(client).queue.images == 0


# ------------------------------------------------------------------------------------- admission by itself


def test_retry_after_follows_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("sapatchcore.server.middleware.time.monotonic", lambda: now[0])
    queue = RequestQueue(100, 10**9)
    for _ in range(10):  # two images a second
        with queue.ticket(1):
            now[0] += 0.5
    held = queue.ticket(1)
    held.grow(29, 1)
    assert 10 <= queue.retry_after() <= 16  # 30 images at about 2 a second
    now[0] += 1000
    assert queue.retry_after() == 1  # nothing is known of the rate any more
    with pytest.raises(Refused), queue.ticket(10**9):
        pass
    assert queue.images == 30


def test_a_budget_grants_in_order() -> None:
    async def run() -> list[str]:
        budget, order = MemoryBudget(10), []
        release = {name: asyncio.Event() for name in "abcd"}

        async def take(name: str, amount: int) -> None:
            async with budget.room(amount):
                order.append(name)
                await release[name].wait()
            order.append(name.upper())

        tasks = {
            name: asyncio.create_task(take(name, amount)) for name, amount in zip("abcd", (6, 30, 5, 4), strict=True)
        }
        await asyncio.sleep(0.01)
        assert order == ["a"]  # b is larger than all, so it waits for an empty budget; c and d stand behind it
        release["a"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "A", "b"]
        tasks["b"].cancel()
        await asyncio.sleep(0.01)
        assert order == ["a", "A", "b", "c", "d"]
        release["c"].set(), release["d"].set()
        await asyncio.gather(tasks["c"], tasks["d"])
        assert budget._taken == 0
        return order

    assert asyncio.run(run())[-2:] == ["C", "D"]


def test_a_budget_survives_those_who_give_up() -> None:
    async def run() -> None:
        budget = MemoryBudget(10)
        rng = np.random.default_rng(0)

        async def take(amount: int, patience: float) -> None:
            async with asyncio.timeout(patience), budget.room(amount):
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(take(int(rng.integers(1, 15)), float(rng.uniform(0, 0.1)))) for _ in range(300)]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert budget._taken == 0
        assert not budget._waiting
        async with asyncio.timeout(1), budget.room(10):
            pass

    asyncio.run(run())


def test_drift_is_watched_at_the_rate_that_verdicts_have(folder: Path, tmp_path: Path) -> None:
    """A rate that the calibration cannot promise is raised to the smallest: a part at that p-value is rejected, not watched."""
    with serving(folder, records=tmp_path / "r.sqlite", false_reject=0.001) as client:
        service = service_of(client)
        model = service.model("part")
        assert model.smallest_false_reject > 0.001
        (stream,) = service.drift._streams.values()
        assert stream.least == pytest.approx(model.smallest_false_reject)
        assert stream.least > model.smallest_false_reject
