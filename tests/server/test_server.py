"""Every route of the server gives what it promises."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from serving import encoded, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.data.pixels import rgb_from_bytes

INSPECT = "/v1/models/part/inspect"


@pytest.fixture(scope="module")
def folder(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("served") / "models"
    models.mkdir()
    fitted.save(models / "part.safetensors")
    return models


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serving(folder, keep_images="all") as client:
        yield client


@pytest.fixture(scope="module")
def bad(images: Any) -> Any:
    """An image that is rejected: good but for a square of noise."""
    image = images(1, seed=4)[0].copy()
    image[10:40, 20:50] = np.random.default_rng(0).integers(0, 256, (30, 30, 3))
    return image


def inspect(client: TestClient, *files: bytes, name: str = "part", **query: Any) -> Any:
    parts = [("images", (f"{at}.png", content, "image/png")) for at, content in enumerate(files)]
    answer = client.post(f"/v1/models/{name}/inspect", files=parts, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


# ------------------------------------------------------------------------------------- inspecting


def test_the_answer_is_what_predict_says(client: TestClient, folder: Path, images: Any, bad: Any) -> None:
    arrays = [*images(3, (70, 60), seed=9), bad]
    contents = [encoded(image) for image in arrays]
    answer = inspect(client, *contents, false_reject=0.2)
    detector = SAPatchCore.load(folder / "part.safetensors")
    result = detector.predict(arrays)
    verdicts = result.verdicts(0.2)
    assert answer["model"] == "part"
    assert answer["model_hash"] == hashlib.sha256((folder / "part.safetensors").read_bytes()).hexdigest()
    assert (answer["false_reject"], answer["note"]) == (0.2, None)
    assert answer["threshold"] == verdicts[0].threshold
    assert [verdict.rejected for verdict in verdicts][-1]
    for at, (got, verdict) in enumerate(zip(answer["results"], verdicts, strict=True)):
        assert got["score"] == float(result.scores[at])  # exactly
        assert got["p_value"] == verdict.p_value
        assert got["verdict"] == ("reject" if verdict.rejected else "accept")
        assert got["kind"] == (verdict.kind or None)
        assert got["reason"] == verdict.sentence
        assert (got["local"], got["context"]) == (verdict.local, verdict.context)
        assert (got["local_ratio"], got["context_ratio"]) == (verdict.local_ratio, verdict.context_ratio)
        assert got["threshold"] == verdict.threshold
        assert (got["width"], got["height"]) == (arrays[at].shape[1], arrays[at].shape[0])
        assert (got["file_name"], got["image_hash"]) == (f"{at}.png", hashlib.sha256(contents[at]).hexdigest())
        assert got["maps"] is None
        assert got["explanation"] is None
        regions = result.regions(at, 0.2)
        assert [region["box"] for region in got["regions"]] == [list(region.box) for region in regions]
        assert [region["area"] for region in got["regions"]] == [region.area for region in regions]
        np.testing.assert_allclose([region["peak"] for region in got["regions"]], [one.peak for one in regions])


def test_a_raw_body_is_one_image(client: TestClient, images: Any) -> None:
    content = encoded(images(1, seed=9)[0])
    by_form = inspect(client, content)["results"][0]
    for kind in ("image/png", "application/octet-stream", "image/jpeg"):  # what it is, its bytes say
        answer = client.post(INSPECT, content=content, headers={"Content-Type": kind})
        got = answer.json()["results"]
        assert answer.status_code == 200
        assert len(got) == 1
        assert got[0]["score"] == by_form["score"]
        assert got[0]["file_name"] == ""


def test_without_a_rate_the_smallest_possible_is_promised(client: TestClient, fitted: SAPatchCore, images: Any) -> None:
    answer = inspect(client, encoded(images(1)[0]))
    assert answer["false_reject"] == 1 / (len(fitted.calibration) + 1)


def test_the_servers_rate_counts_where_a_request_names_none(folder: Path, images: Any, tmp_path: Path) -> None:
    with serving(folder, records=tmp_path / "r.sqlite", false_reject=0.3) as client:
        assert inspect(client, encoded(images(1)[0]))["false_reject"] == 0.3
        assert inspect(client, encoded(images(1)[0]), false_reject=0.2)["false_reject"] == 0.2


def test_grey_maps_hold_the_map(client: TestClient, fitted: SAPatchCore, bad: Any) -> None:
    maps = inspect(client, encoded(bad), map="grey")["results"][0]["maps"]
    result = fitted.predict([bad])
    for name, expected in (("whole", result.maps), ("local", result.local_maps), ("context", result.context_maps)):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(maps[name]))))
        assert picture.dtype == np.uint16
        np.testing.assert_allclose(picture / 65535 * maps["scale"], expected[0], atol=maps["scale"] / 65535)
    assert maps["scale"] == pytest.approx(float(result.maps[0].max()))


def test_colour_maps_are_clear_where_the_map_is_low(client: TestClient, fitted: SAPatchCore, bad: Any) -> None:
    found = inspect(client, encoded(bad), map="colour", false_reject=0.2)
    picture = Image.open(io.BytesIO(base64.b64decode(found["results"][0]["maps"]["whole"])))
    assert (picture.mode, picture.size) == ("RGBA", (bad.shape[1], bad.shape[0]))
    result = fitted.predict([bad])
    limit, opacity = result.pixel_threshold(0.2), np.asarray(picture)[:, :, 3]
    clear = (min(float(np.median(fitted.calibration.grids)), 0.9 * limit) + limit) / 2
    assert (opacity[result.maps[0] < 0.99 * clear] == 0).all()
    assert (opacity[result.maps[0] > 1.02 * clear] > 0).all()
    assert (opacity[result.maps[0] > 1.01 * limit] > 180).all()


def test_a_map_of_a_large_image_is_smaller(client: TestClient, monkeypatch: pytest.MonkeyPatch, bad: Any) -> None:
    monkeypatch.setattr("sapatchcore.server.inspection.MOST_MAP_PIXELS", 1024)
    found = inspect(client, encoded(np.repeat(bad, 2, axis=1)), map="grey")["results"][0]
    picture = Image.open(io.BytesIO(base64.b64decode(found["maps"]["whole"])))
    assert (found["width"], found["height"]) == (128, 64)
    assert picture.size == (45, 22)


def test_an_explanation_is_the_detectors(client: TestClient, fitted: SAPatchCore, bad: Any) -> None:
    got = inspect(client, encoded(bad), explain=True, false_reject=0.2)["results"][0]["explanation"]["causes"]
    expected = fitted.explain([bad], false_reject=0.2)[0].causes
    assert len(got) == len(expected) > 0
    for cause, known in zip(got, expected, strict=True):
        assert cause["box"] == list(known.region.box)
        assert (cause["score"], cause["local"], cause["context"]) == (known.score, known.local, known.context)
        assert cause["good"]["image"] == known.good.image
        assert cause["good"]["box"] == list(known.good.box)
        assert cause["good"]["thumbnail_box"] == list(known.good.thumbnail_box)
        assert base64.b64decode(cause["good"]["thumbnail"]) == known.good.thumbnail
        np.testing.assert_array_equal(np.float32(cause["drawn_from"]), known.drawn_from)


def test_no_rejection_is_explained_by_the_worst_patch(client: TestClient, good: Any) -> None:
    found = inspect(client, encoded(good[0]), explain=True)["results"][0]
    assert found["verdict"] == "accept"
    assert [cause["box"] for cause in found["explanation"]["causes"]] == [None]


def test_a_model_without_calibration_scores_without_verdicts(small: dict[str, Any], good: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    detector = SAPatchCore(**small).fit(good[:1])
    detector.save(tmp_path / "models/lone.safetensors")
    with serving(tmp_path / "models") as client:
        answer = inspect(client, encoded(good[1]), name="lone", explain=True, false_reject=0.1)
        found = answer["results"][0]
        assert found["score"] == float(detector.predict([good[1]]).scores[0])
        assert "fitted on one image" in answer["note"]
        assert [answer["threshold"], answer["false_reject"], found["p_value"], found["verdict"], found["kind"]] == [
            None
        ] * 5
        assert (found["regions"], found["explanation"]) == ([], None)
        model = client.get("/v1/models").json()["models"][0]
        assert (model["calibration_images"], model["smallest_false_reject"], model["drift"]) == (0, None, None)
        assert client.get("/v1/models/lone/drift").status_code == 409


def test_every_format_is_read(client: TestClient, good: Any) -> None:
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        content = encoded(good[0], kind)
        found = inspect(client, content)["results"][0]
        kept = client.get(f"/v1/records/{found['record']}/image")
        assert kept.content == content
        assert kept.headers["content-type"] == f"image/{kind.lower()}"
        rgb_from_bytes(kept.content, "kept")


# ------------------------------------------------------------------------------------- records and feedback


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


@pytest.mark.parametrize(("keep", "asked", "kept"), [
    ("none", False, [False, False]),
    ("none", True, [False, False]),
    ("rejected", False, [False, True]),
    ("rejected", True, [True, True]),
    ("all", False, [True, True]),
])  # fmt: skip
def test_which_images_are_kept(
    folder: Path, tmp_path: Path, good: Any, bad: Any, keep: str, asked: bool, kept: list[bool]
) -> None:
    with serving(folder, records=tmp_path / "r.sqlite", keep_images=keep) as client:
        found = inspect(client, encoded(good[0]), encoded(bad), keep=asked, false_reject=0.2)["results"]
        for one, expected in zip(found, kept, strict=True):
            assert client.get(f"/v1/records/{one['record']}").json()["has_image"] is expected
            assert client.get(f"/v1/records/{one['record']}/image").status_code == (200 if expected else 404)


# ------------------------------------------------------------------------------------- models, health, figures, page


def test_the_list_of_models(client: TestClient, folder: Path, fitted: SAPatchCore) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    expected = {
        "name": "part",
        "file": "part.safetensors",
        "bytes": (folder / "part.safetensors").stat().st_size,
        "state": "ready",
        "error": None,
        "format": "model",
        "backbone": "resnet18",
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
