"""An admin lets a model learn what operators called good: first a preview, then the file as a whole."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import encoded, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.server import updates

PREVIEW, UPDATE = "/v1/models/part/update/preview", "/v1/models/part/update"


@pytest.fixture
def client(fresh: TestClient) -> TestClient:
    return fresh


@pytest.fixture
def shifted(images: Any) -> Any:
    """Good parts that the model rejects: it has not seen them in this light."""
    return np.clip(images(2, seed=31).astype(int) + 60, 0, 255).astype(np.uint8)


def inspected(client: TestClient, arrays: Any, label: str | None = "good") -> list[int]:
    numbers = []
    for image in arrays:
        answer = client.post("/v1/models/part/inspect", content=encoded(image), headers={"Content-Type": "image/png"})
        numbers.append(answer.json()["results"][0]["record"])
        if label is not None:
            client.post("/v1/models/part/feedback", json={"record": numbers[-1], "label": label})
    return numbers


def files(client: TestClient) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in service_of(client).folder.folder.iterdir()}


def test_preview_and_update(client: TestClient, fitted: SAPatchCore, good: Any, shifted: Any, tmp_path: Path) -> None:
    others = inspected(client, good[:3], None)
    numbers = inspected(client, shifted)
    before = files(client)["part.safetensors"]
    answer = client.post(PREVIEW, json={"records": numbers})
    assert answer.status_code == 200, answer.text
    seen = answer.json()
    grown = SAPatchCore.load(tmp_path / "models/part.safetensors").update(list(shifted))
    rate = 1 / (len(fitted.calibration) + 1)
    assert (seen["images_added"], seen["checked"], seen["false_reject"]) == (2, 5, rate)
    assert (seen["rows_before"], seen["rows_after"]) == (len(fitted.memory_bank), len(grown.memory_bank))
    assert seen["threshold_before"] == fitted.threshold(rate)
    assert seen["threshold_after"] == grown.threshold(rate)
    changed = {change["record"]: change for change in seen["changes"]}
    assert set(numbers) <= set(changed) <= {*numbers, *others}
    old, new = fitted.predict(shifted), grown.predict(shifted)
    for at, number in enumerate(numbers):
        for name, result in (("before", old), ("after", new)):
            got = changed[number][name]
            assert got["score"] == pytest.approx(float(result.scores[at]), rel=1e-6, abs=1e-6)
            assert got["p_value"] == result.p_values[at]
            assert got["verdict"] == ("reject" if result.verdicts(rate)[at].rejected else "accept")
    assert changed[numbers[0]]["before"]["verdict"] == "reject"
    assert changed[numbers[0]]["after"]["verdict"] == "accept"
    assert files(client)["part.safetensors"] == before  # nothing has changed yet

    done = client.post(UPDATE, json={"preview": seen["preview"]})
    assert done.status_code == 200, done.text
    written = files(client)
    assert set(written) == {"part.safetensors"}
    digest = hashlib.sha256(written["part.safetensors"]).hexdigest()
    assert done.json() == {"model": "part", "model_hash": digest, "images_added": 2}
    again = client.post(
        "/v1/models/part/inspect", content=encoded(shifted[0]), headers={"Content-Type": "image/png"}
    ).json()
    assert again["model_hash"] == digest
    assert again["results"][0]["verdict"] == "accept"
    np.testing.assert_array_equal(SAPatchCore.load(tmp_path / "models/part.safetensors").memory_bank, grown.memory_bank)


def test_a_preview_counts_once(client: TestClient, shifted: Any) -> None:
    seen = client.post(PREVIEW, json={"records": inspected(client, shifted[:1])}).json()
    assert client.post(UPDATE, json={"preview": seen["preview"]}).status_code == 200
    assert client.post(UPDATE, json={"preview": seen["preview"]}).status_code == 404


def test_a_preview_of_a_model_that_changed_since(client: TestClient, shifted: Any) -> None:
    numbers = inspected(client, shifted)
    first = client.post(PREVIEW, json={"records": numbers[:1]}).json()["preview"]
    second = client.post(PREVIEW, json={"records": numbers[1:]}).json()["preview"]
    assert client.post(UPDATE, json={"preview": first}).status_code == 200
    answer = client.post(UPDATE, json={"preview": second})
    assert answer.status_code == 409
    assert "changed since" in answer.json()["error"]
    assert set(files(client)) == {"part.safetensors"}


def test_a_file_that_changed_on_the_disk(client: TestClient, shifted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = client.post(PREVIEW, json={"records": inspected(client, shifted[:1])}).json()
    monkeypatch.setattr(service_of(client).folder, "look", lambda **_: None)  # the watch has not seen it yet
    path = service_of(client).folder.folder / "part.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    assert client.post(UPDATE, json={"preview": seen["preview"]}).status_code == 409
    assert path.read_bytes().endswith(b"x")


def test_what_cannot_be_learned(client: TestClient, good: Any) -> None:
    (plain,) = inspected(client, good[:1], None)
    (defect,) = inspected(client, good[1:2], "defect")
    for records, status, words in (
        ([plain], 409, "not called good"),
        ([defect], 409, "not called good"),
        ([10**6], 404, "no record"),
    ):
        answer = client.post(PREVIEW, json={"records": records})
        assert answer.status_code == status
        assert words in answer.json()["error"]
    for body in ({"records": []}, {"records": ["1"]}, {"records": [0]}, {"records": [1] * 501}, {}):
        assert client.post(PREVIEW, json=body).status_code == 422
    assert client.post(UPDATE, json={"preview": "nothing"}).status_code == 404
    assert client.post(UPDATE, json={"preview": "../../etc/passwd"}).status_code == 422
    assert client.post("/v1/models/none/update", json={"preview": "x"}).status_code == 404


def test_an_image_that_was_not_kept(fitted: SAPatchCore, tmp_path: Path, good: Any) -> None:
    (tmp_path / "models").mkdir()
    fitted.save(tmp_path / "models/part.safetensors")
    with serving(tmp_path / "models", keep_images="none") as client:
        answer = client.post(PREVIEW, json={"records": inspected(client, good[:1])})
        assert answer.status_code == 409
        assert "not kept" in answer.json()["error"]


def test_one_job_at_a_time(client: TestClient, shifted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, go, begun = inspected(client, shifted[:1]), threading.Event(), threading.Event()
    real = SAPatchCore.update

    def slow(self: SAPatchCore, *args: Any) -> Any:
        begun.set()
        assert go.wait(120)
        return real(self, *args)

    monkeypatch.setattr(SAPatchCore, "update", slow)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.post, PREVIEW, json={"records": numbers})
        assert begun.wait(120)
        answer = client.post(PREVIEW, json={"records": numbers})
        assert answer.status_code == 409
        assert "Another update" in answer.json()["error"]
        assert client.post(
            "/v1/models/part/inspect", content=encoded(shifted[0]), headers={"Content-Type": "image/png"}
        ).is_success
        go.set()
        assert waiting.result().status_code == 200
    assert client.post(PREVIEW, json={"records": numbers}).status_code == 200


def test_previews_are_few_and_go_with_the_server(
    fitted: SAPatchCore, tmp_path: Path, shifted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    fitted.save(tmp_path / "models/part.safetensors")
    left = [tmp_path / "models/.part.old.preview", tmp_path / "models/..part.old.preview.12ab34cd.part"]
    for file in left:
        file.write_bytes(b"of a server that was killed")
    with serving(tmp_path / "models", keep_images="all") as client:
        assert not any(file.exists() for file in left)
        numbers = inspected(client, shifted[:1])
        made = [
            client.post(PREVIEW, json={"records": numbers}).json()["preview"] for _ in range(updates.MOST_PREVIEWS + 1)
        ]
        assert len(files(client)) == 1 + updates.MOST_PREVIEWS
        assert client.post(UPDATE, json={"preview": made[0]}).status_code == 404
        monkeypatch.setattr(updates, "LIFETIME", 0.0)
        assert client.post(UPDATE, json={"preview": made[-1]}).status_code == 404
        assert len(client.get("/v1/models").json()["models"]) == 1  # previews are no models
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"part.safetensors"}


def test_a_model_without_weights_stays_without(small: dict[str, Any], good: Any, shifted: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models/part.safetensors"
    SAPatchCore(**small, coreset_ratio=0.1).fit(good).save(path, include_weights=False)
    size = path.stat().st_size
    with serving(tmp_path / "models", keep_images="all") as client:
        seen = client.post(PREVIEW, json={"records": inspected(client, shifted[:1])}).json()
        assert client.post(UPDATE, json={"preview": seen["preview"]}).status_code == 200
    assert path.stat().st_size < 2 * size


def test_inspections_go_on_while_a_model_learns(client: TestClient, shifted: Any, good: Any) -> None:
    numbers = inspected(client, shifted)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.post, PREVIEW, json={"records": numbers})
        while not waiting.done():
            answer = client.post(
                "/v1/models/part/inspect", content=encoded(good[0]), headers={"Content-Type": "image/png"}
            )
            assert answer.status_code == 200, answer.text
        assert waiting.result().status_code == 200
    until(lambda: not service_of(client).updates._busy.locked())
