"""Records over HTTP: found, judged by operators, exported; and questions that are refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving import INSPECT, PNG, encoded, inspect, refused, service_of, serving

from sapatchcore.errors import RecordsError


def test_an_answer_is_in_the_records(client: TestClient, bad: Any) -> None:
    answer = inspect(client, encoded(bad), false_reject=0.2)
    found = answer["results"][0]
    record = client.get(f"/v1/records/{found['record']}").json()
    for name in (
        "time",
        "file_name",
        "image_hash",
        "width",
        "height",
        "score",
        "p_value",
        "threshold",
        "verdict",
        "kind",
    ):
        assert record[name] == found[name], name
    assert (record["model"], record["model_hash"]) == ("part", answer["model_hash"])
    assert (record["false_reject"], record["source"], record["has_image"]) == (0.2, "api", True)
    assert record["feedback"] is None
    assert found["time"].endswith("Z")


def test_records_come_newest_first_in_pages(client: TestClient, good: Any) -> None:
    numbers = [one["record"] for one in inspect(client, *[encoded(image) for image in good[:5]])["results"]]
    first = client.get("/v1/records", params={"limit": 3}).json()
    second = client.get("/v1/records", params={"limit": 2, "before": first["next"]}).json()
    assert [one["record"] for one in [*first["records"], *second["records"]]] == numbers[::-1]
    oldest = client.get("/v1/records", params={"before": 2}).json()
    assert [one["record"] for one in oldest["records"]] == [1]
    assert oldest["next"] is None


def test_records_are_found_by_what_they_are(client: TestClient, good: Any, bad: Any) -> None:
    start = inspect(client, encoded(good[0]), encoded(bad), false_reject=0.2)["results"]
    rejected = client.get("/v1/records", params={"verdict": "reject", "since": start[0]["time"]}).json()["records"]
    assert [one["record"] for one in rejected] == [start[1]["record"]]
    assert (
        client.get("/v1/records", params={"file_name": "1.*", "limit": 1}).json()["records"][0]["record"]
        == start[1]["record"]
    )
    assert client.get("/v1/records", params={"model": "other"}).json() == {"records": [], "next": None}
    assert client.get("/v1/records", params={"until": "2020-01-01T00:00:00"}).json()["records"] == []


def test_feedback_is_kept_and_taken_back(client: TestClient, good: Any) -> None:
    number = inspect(client, encoded(good[0]))["results"][0]["record"]
    said = client.post("/v1/models/part/feedback", json={"record": number, "label": "good", "note": "a shadow"})
    assert said.status_code == 200
    assert (said.json()["feedback"], said.json()["feedback_note"], said.json()["feedback_by"]) == (
        "good",
        "a shadow",
        "local",
    )
    assert client.get(f"/v1/records/{number}").json() == said.json()
    assert number in [one["record"] for one in client.get("/v1/records?feedback=good").json()["records"]]
    back = client.post("/v1/models/part/feedback", json={"record": number, "label": None}).json()
    assert (back["feedback"], back["feedback_time"]) == (None, None)
    assert client.post("/v1/models/part/feedback", json={"record": 10**9, "label": "good"}).status_code == 404
    assert client.post("/v1/models/other/feedback", json={"record": number, "label": "good"}).status_code == 404
    assert client.post("/v1/models/part/feedback", json={"record": number, "label": "fine"}).status_code == 422


def test_records_are_exported(client: TestClient, good: Any) -> None:
    inspect(client, encoded(good[0]))
    count = len(client.get("/v1/records?limit=500").json()["records"])
    text = client.get("/v1/records/export?format=csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert len(rows) == count
    assert rows[-1]["record"] == str(client.get("/v1/records?limit=1").json()["records"][0]["record"])
    assert text.headers["content-disposition"] == 'attachment; filename="records.csv"'
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(io.BytesIO(client.get("/v1/records/export?format=parquet").content))
    assert table.num_rows == count
    few = client.get("/v1/records/export?format=csv&model=other").text
    assert len(few.strip().splitlines()) == 1


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


@pytest.mark.parametrize("path", [
    "/v1/records?limit=0", "/v1/records?limit=501", "/v1/records?before=0", "/v1/records?before=99999999999999999999",
    "/v1/records?verdict=maybe", "/v1/records?since=yesterday", "/v1/records?since=0.5", "/v1/records?until=1767225600",
    "/v1/records?since=0001-01-01T00:00:00%2B14:00",
    "/v1/records?until=9999-12-31T23:59:59-14:00", "/v1/records?file_name=%00", "/v1/records/0", "/v1/records/x",
    "/v1/records/99999999999999999999", "/v1/models/part/drift?last=0", "/v1/models/part/drift?last=2001",
])  # fmt: skip
def test_questions_outside_their_range(limited: TestClient, path: str) -> None:
    refused(limited.get(path), 422)


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'{"record": 1}', b'{"record": "1", "label": "good"}', b'{"record": 1.5, "label": null}',
    b'{"record": 0, "label": "good"}', b'{"record": 1, "label": "good", "more": 1}', b"\xff\xfe", b"[" * 60_000,
    b'{"record": 1e400, "label": "good"}', b'{"record": 1, "label": "good", "note": "\\u0000"}',
    b'{"record": true, "label": "good"}',
])  # fmt: skip
def test_malformed_feedback(limited: TestClient, body: bytes) -> None:
    answer = limited.post("/v1/models/part/feedback", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"error"}


def test_text_that_no_database_likes(limited: TestClient, part: bytes) -> None:
    number = limited.post(INSPECT, content=part, headers=PNG).json()["results"][0]["record"]
    note = json.dumps({"record": number, "label": "good", "note": "\ud800 '; DROP TABLE records; --"})
    answer = limited.post("/v1/models/part/feedback", content=note, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)
    assert limited.get(f"/v1/records/{number}").status_code == 200
    assert limited.get("/v1/records", params={"file_name": "%_'\"*"}).status_code == 200
