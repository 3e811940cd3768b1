"""The list of models, health, figures, the API's description and the page's files; and what no route answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving import INSPECT, PNG, encoded, inspect, refused, service_of

from sapatchcore import SAPatchCore


def test_the_list_of_models(client: TestClient, folder: Path, fitted: SAPatchCore) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    expected = {
        "name": "part",
        "file": "part.safetensors",
        "bytes": (folder / "part.safetensors").stat().st_size,
        "state": "ready",
        "error": None,
        "format": "model",
        "backbone": "test_resnet",
        "attention": "self",
        "calibration_images": len(fitted.calibration),
        "can_explain": True,
        "can_update": True,
    }
    assert {name: model[name] for name in expected} == expected


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "models": {"part": "ready"}}
    service_of(client).stopping = True
    try:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        refused = client.post(INSPECT, content=b"x", headers={"Content-Type": "image/png"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
    finally:
        service_of(client).stopping = False


def test_figures(client: TestClient, good: Any, bad: Any) -> None:
    def figure(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = {
        name: figure(name)
        for name in ("sapatchcore_images_total{", "sapatchcore_rejects_total{", "sapatchcore_queue_seconds_count")
    }
    inspect(client, encoded(good[0]), encoded(bad), false_reject=0.2)
    after = {name: figure(name) for name in before}
    assert [after[name] - before[name] for name in before] == [2, 1, 2]
    assert figure('sapatchcore_requests_total{route="/v1/models/{name}/inspect",status="200"}') > 0
    assert figure("sapatchcore_models_loaded ") == 1
    assert figure("sapatchcore_queue_images ") == 0
    assert figure("sapatchcore_records_bytes ") > 0
    assert figure("sapatchcore_drift_alarm") == 0


def test_figures_have_no_text_of_requests(client: TestClient) -> None:
    client.get("/v1/models/some-made-up-name/drift")
    client.get("/another-made-up-name")
    assert "made-up" not in client.get("/metrics").text


def test_the_description_is_whole(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert json.dumps(described).count("HTTPValidationError") == 0  # errors are the server's own
    paths = described["paths"]
    assert set(paths) == {
        *("/healthz", "/readyz", "/metrics", "/v1/me", "/v1/models", "/v1/records", "/v1/records/export"),
        *(
            "/v1/records/{record}",
            "/v1/records/{record}/image",
            "/v1/models/{name}/drift",
            "/v1/models/{name}/feedback",
        ),
        *("/v1/models/{name}/inspect", "/v1/models/{name}/update", "/v1/models/{name}/update/preview"),
    }
    inspect_route = paths["/v1/models/{name}/inspect"]["post"]
    assert set(inspect_route["responses"]) == {
        "200",
        "400",
        "401",
        "403",
        "404",
        "409",
        "413",
        "415",
        "422",
        "503",
        "504",
    }
    assert set(inspect_route["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/*",
        "application/octet-stream",
    }


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/docs").status_code == 200
    icon = client.get("/page/icon.svg")
    assert icon.headers["content-type"] == "image/svg+xml"
    again = client.get("/page/icon.svg", headers={"If-None-Match": icon.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("", "nothing.js", "../server.py", "..%2fserver.py", "%2e%2e/server.py", "/etc/passwd", "js"):
        assert client.get(f"/page/{name}").status_code == 404, name


@pytest.mark.parametrize("name", [
    "..", "../part", "..%2f..%2fetc%2fpasswd", "%2e%2e", "part.safetensors", "part%00", "PART", "part/",
    "%F0%9F%98%80", "x" * 200,
])  # fmt: skip
def test_only_names_of_the_folder_are_models(limited: TestClient, part: bytes, name: str) -> None:
    answer = limited.post(f"/v1/models/{name}/inspect", content=part, headers=PNG)
    assert answer.status_code in (404, 422), answer.text
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("query", [
    "false_reject=0", "false_reject=1", "false_reject=-1", "false_reject=nan", "false_reject=x", "false_reject=1e-9",
    "map=rainbow", "explain=perhaps", "keep=2",
])  # fmt: skip
def test_values_outside_their_range(limited: TestClient, part: bytes, query: str) -> None:
    refused(limited.post(f"{INSPECT}?{query}", content=part, headers=PNG), 422, query.partition("=")[0])


def test_what_is_not_there(limited: TestClient) -> None:
    for path in ("/v1/records/999999", "/v1/records/999999/image", "/v1/models/none/drift", "/v1/none", "/none"):
        refused(limited.get(path), 404)
    assert limited.get(INSPECT).status_code == 405
    assert limited.delete("/v1/records/1").status_code == 405
