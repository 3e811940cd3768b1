"""Which of the server's threads compute, and with how many processors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from serving import encoded, hold, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.pipeline import Scored
from sapatchcore.server import served
from sapatchcore.server.served import Processors, in_own_thread

INSPECT = "/v1/models/part/inspect"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def client(fitted: SAPatchCore, tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "models").mkdir()
    fitted.save(tmp_path / "models/part.safetensors")
    with serving(tmp_path / "models", keep_images="all") as client:
        yield client


def test_two_whole_batches_go_side_by_side(client: TestClient, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, list[Processors]] = {}
    monkeypatch.setattr(
        served, "_compute_with", lambda share: used.setdefault(threading.current_thread().name, []).append(share)
    )
    go = threading.Event()
    held = hold(client, "part", go)
    with ThreadPoolExecutor(16) as threads:

        def ask(pictures: Any) -> list[Any]:
            return [threads.submit(client.post, INSPECT, content=encoded(one), headers=PNG) for one in pictures]

        asked = ask(images(1, seed=1))
        until(lambda: held.reached == 1)
        asked += ask(images(3, seed=2))  # less than a batch: it waits
        until(lambda: sum(len(jobs) for jobs in service_of(client).inference._waiting.values()) == 3)
        assert held.reached == 1
        asked += ask(images(1, seed=3))  # and now it does not
        until(lambda: held.reached == 2)
        asked += ask(images(1, seed=4))
        until(lambda: len(service_of(client).inference._waiting) == 1)
        go.set()
        assert [one.result().status_code for one in asked] == [200] * 6
    assert sorted(held.batches) == [1, 1, 4]
    assert used["inference, second"] == [Processors.ONE]
    assert used["inference"][0] == Processors.ALL


def test_stopped_both_finish_what_they_took(client: TestClient, images: Any) -> None:
    service, model = service_of(client), service_of(client).model("part")
    pictures = images(23, seed=5)
    jobs = [served_job(model, one) for one in pictures]
    service.inference.submit(jobs)
    service.inference.stop()
    assert all(job.done.done() and job.done.exception() is None for job in jobs)
    service.inference = type(service.inference)()  # the server's own end stops one, too
    service.inference.start()


def served_job(model: Any, picture: Any) -> Any:
    from sapatchcore.server.batching import WaitingImage

    return WaitingImage(model, "made", picture.shape[:2], model.prepare(picture))


def test_an_exported_model_shares_nothing(client: TestClient) -> None:
    model = service_of(client).model("part")
    assert model.on_cpu
    assert not replace(model, detector=SimpleNamespace(can_learn=False)).on_cpu  # type: ignore[arg-type]


def test_a_share_is_the_calling_threads_own() -> None:
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
    client: TestClient, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else OpenMP would hold more threads than there are processors, for good, and every step would be slower."""
    computed: list[threading.Thread] = []
    for owner, name in ((SAPatchCore, "score"), (SAPatchCore, "predict"), (SAPatchCore, "update"), (Scored, "explain")):
        own = getattr(owner, name)

        def seen(*arguments: Any, own: Any = own, **options: Any) -> Any:
            computed.append(threading.current_thread())
            return own(*arguments, **options)

        monkeypatch.setattr(owner, name, seen)
    service = service_of(client)
    number = client.post(f"{INSPECT}?explain=true", content=encoded(images(1, seed=3)[0]), headers=PNG).json()[
        "results"
    ][0]
    client.post("/v1/models/part/feedback", json={"record": number["record"], "label": "good"})
    preview = client.post("/v1/models/part/update/preview", json={"records": [number["record"]]})
    assert client.post("/v1/models/part/update", json={"preview": preview.json()["preview"]}).status_code == 200
    assert len({thread.name for thread in computed}) == 4  # inference, load, explain, update
    lasting = {thread for thread in computed if thread is service.inference._thread}
    for thread in set(computed) - lasting:
        thread.join(30)
        assert not thread.is_alive(), thread.name
    assert lasting
