"""Who is let in, from which page, and how much at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving import HOME, INSPECT, PNG, encoded, hold, post, refused, service_of, serving, until

from sapatchcore.server.middleware import Refused, RequestQueue


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/v1/me", "inspect"),
        ("GET", "/v1/models", "inspect"),
        ("POST", INSPECT, "inspect"),
        ("GET", "/v1/models/part/drift", "inspect"),
        ("GET", "/v1/records", "inspect"),
        ("GET", "/v1/records/1", "inspect"),
        ("GET", "/v1/records/1/image", "inspect"),
        ("POST", "/v1/models/part/feedback", "feedback"),
        ("GET", "/v1/records/export", "admin"),
        ("POST", "/v1/models/part/update/preview", "admin"),
        ("POST", "/v1/models/part/update", "admin"),
    ],
)
def test_each_route_has_its_role(guarded: Any, method: str, path: str, role: str) -> None:
    client, tokens, _ = guarded
    roles = list(tokens)
    refused(client.request(method, path), 401, "Bearer")
    for own, token in tokens.items():
        answer = client.request(method, path, headers={"Authorization": f"Bearer {token}"})
        if roles.index(own) < roles.index(role):
            refused(answer, 403, role)
        else:
            assert answer.status_code not in (401, 403), answer.text


def test_every_route_below_v1_is_guarded(guarded: Any) -> None:
    client, _, _ = guarded
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            real = path.replace("{name}", "part").replace("{record}", "1")
            assert (client.request(method, real).status_code == 401) is path.startswith("/v1/"), (method, path)
    refused(client.get("/v1/nothing"), 401)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "8.8.8.8", ""]
)
def test_a_name_that_was_made_to_point_here(limited: TestClient, host: str) -> None:
    refused(limited.get("/v1/records", headers={"Host": host}), 403, "localhost")
    refused(limited.get("/", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8000", "[::1]:8000", "127.3.4.5"])
def test_this_machine_by_any_name(limited: TestClient, host: str) -> None:
    assert limited.get("/v1/me", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
def test_a_page_from_elsewhere_cannot_post(limited: TestClient, headers: dict[str, str], part: bytes) -> None:
    refused(limited.post(INSPECT, content=part, headers={**PNG, **headers}), 403, "page")
    refused(limited.get("/v1/records", headers=headers), 403)


def test_the_own_page_can(limited: TestClient, part: bytes) -> None:
    own = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}
    assert limited.post(INSPECT, content=part, headers={**PNG, **own}).status_code == 200
    assert limited.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page


def test_every_answer_says_how_it_may_be_used(limited: TestClient) -> None:
    for path in ("/", "/v1/me", "/nothing", "/v1/models/x/drift", "/metrics"):
        headers = limited.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    assert limited.get("/v1/me").headers["cache-control"] == "no-store"


def test_too_many_bytes(limited: TestClient) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(10_000)

    refused(limited.post(INSPECT, content=bytes(200_001), headers=PNG), 413, "200000 bytes")
    refused(limited.post(INSPECT, content=slowly(), headers=PNG), 413, "200000 bytes")  # no Content-Length
    refused(limited.post("/v1/models/part/feedback", content=b"[" * 70_000), 413)


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
