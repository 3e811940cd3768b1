"""Many requests at once: batches, processors, images that come too late or break the network, records in groups."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from serving import INSPECT, PNG, encoded, hold, post, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.data.pixels import appearance
from sapatchcore.detector import Scored
from sapatchcore.errors import DataError
from sapatchcore.records.record import Filter
from sapatchcore.records.records import Records
from sapatchcore.server import served
from sapatchcore.server.batching import WaitingImage
from sapatchcore.server.served import Processors, in_own_thread


def waiting(model: Any, picture: Any) -> WaitingImage:
    return WaitingImage(model, "made", picture.shape[:2], appearance(picture), model.prepare(picture))


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


def test_an_image_too_late_is_given_up(folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor) -> None:
    content, go = encoded(good[0]), threading.Event()
    with serving(folder, records=tmp_path / "r.sqlite", timeout=1.5) as client:
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


def test_waiting_records_are_committed_together(
    folder: Path, tmp_path: Path, good: Any, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder, records=tmp_path / "r.sqlite") as client:
        service, go, groups = service_of(client), threading.Event(), []
        real = service.records.add

        def slowly(records: Any) -> Any:
            groups.append(len(records))
            assert go.wait(120)
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
    with Records(tmp_path / "r.sqlite") as records:
        assert records.count(Filter()) == 6


def test_two_whole_batches_go_side_by_side(fresh: TestClient, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, list[Processors]] = {}
    monkeypatch.setattr(
        served, "_compute_with", lambda share: used.setdefault(threading.current_thread().name, []).append(share)
    )
    go = threading.Event()
    held = hold(fresh, "part", go)
    with ThreadPoolExecutor(16) as threads:

        def ask(pictures: Any) -> list[Any]:
            return [threads.submit(fresh.post, INSPECT, content=encoded(one), headers=PNG) for one in pictures]

        asked = ask(images(1, seed=1))
        until(lambda: held.reached == 1)
        asked += ask(images(3, seed=2))  # less than a batch: it waits
        until(lambda: sum(len(jobs) for jobs in service_of(fresh).inference._waiting.values()) == 3)
        assert held.reached == 1
        asked += ask(images(1, seed=3))  # and now it does not
        until(lambda: held.reached == 2)
        asked += ask(images(1, seed=4))
        until(lambda: len(service_of(fresh).inference._waiting) == 1)
        go.set()
        assert [one.result().status_code for one in asked] == [200] * 6
    assert sorted(held.batches) == [1, 1, 4]
    assert used["inference, second"] == [Processors.ONE]
    assert used["inference"][0] == Processors.ALL


def test_stopped_both_finish_what_they_took(fresh: TestClient, images: Any) -> None:
    service, model = service_of(fresh), service_of(fresh).model("part")
    pictures = images(23, seed=5)
    jobs = [waiting(model, one) for one in pictures]
    service.inference.submit(jobs)
    service.inference.stop()
    assert all(job.done.done() and job.done.exception() is None for job in jobs)
    service.inference = type(service.inference)()  # the server's own end stops one, too
    service.inference.start()


def test_an_exported_model_has_all_processors(fresh: TestClient) -> None:
    model = service_of(fresh).model("part")
    assert model.on_cpu
    assert not replace(model, detector=SimpleNamespace(can_learn=False)).on_cpu  # type: ignore[arg-type]


def test_the_count_of_processors_is_the_calling_threads_own() -> None:
    everything = torch.get_num_threads()
    found = []

    def work() -> None:
        for share in Processors:
            served._compute_with(share)
            found.append(torch.get_num_threads())

    served._processors()
    try:
        in_own_thread("test", work).result()
        assert found == [everything, max(1, everything - 1), 1]
        assert torch.get_num_threads() == everything
    finally:
        torch.set_num_threads(everything)


def test_no_lasting_thread_but_inference_computes_with_more_than_one_processor(
    fresh: TestClient, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else OpenMP would hold more threads than there are processors, for good, and every step would be slower."""
    computed: list[threading.Thread] = []
    for owner, name in ((SAPatchCore, "score"), (SAPatchCore, "predict"), (SAPatchCore, "update"), (Scored, "explain")):
        own = getattr(owner, name)

        def seen(*arguments: Any, own: Any = own, **options: Any) -> Any:
            computed.append(threading.current_thread())
            return own(*arguments, **options)

        monkeypatch.setattr(owner, name, seen)
    service = service_of(fresh)
    number = fresh.post(f"{INSPECT}?explain=true", content=encoded(images(1, seed=3)[0]), headers=PNG).json()[
        "results"
    ][0]
    fresh.post("/v1/models/part/feedback", json={"record": number["record"], "label": "good"})
    preview = fresh.post("/v1/models/part/update/preview", json={"records": [number["record"]]})
    assert fresh.post("/v1/models/part/update", json={"preview": preview.json()["preview"]}).status_code == 200
    assert len({thread.name for thread in computed}) == 4  # inference, load, explain, update
    lasting = {thread for thread in computed if thread is service.inference._thread}
    for thread in set(computed) - lasting:
        thread.join(120)
        assert not thread.is_alive(), thread.name
    assert lasting
