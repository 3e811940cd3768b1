"""What an inspection answers is what the detector says, and what is recorded."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL
from fastapi.testclient import TestClient
from PIL import Image
from serving import INSPECT, encoded, hold, inspect, post, service_of, serving

from sapatchcore import SAPatchCore
from sapatchcore.data.pixels import rgb_from_bytes
from sapatchcore.errors import RecordsError


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


def test_the_global_part_is_in_the_answer_and_in_the_record(
    whole_fitted: SAPatchCore, bad: Any, good: Any, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    whole_fitted.save(tmp_path / "models/part.safetensors")
    dark = (good[0] * 0.2).astype(np.uint8)
    result = whole_fitted.predict([bad, good[0], dark])
    with serving(tmp_path / "models") as client:
        found = inspect(client, *(encoded(image) for image in (bad, good[0], dark)), map="grey", false_reject=0.2)
        records = client.get("/v1/records").json()["records"][::-1]
        colour = inspect(client, encoded(bad), map="colour")["results"][0]["maps"]["global_part"]
    usual = float(np.quantile(whole_fitted.calibration.global_scores, 0.9))
    for i, (one, record) in enumerate(zip(found["results"], records, strict=True)):
        assert one["global_score"] == record["global_score"] == pytest.approx(float(result.global_scores[i]), rel=1e-5)
        assert one["global_ratio"] == pytest.approx(result.verdicts(0.2)[i].global_ratio, rel=1e-5)
        assert record["notes"] == one["notes"] == list(result.notes[i])
        shares = np.maximum(result.global_maps[i], 0)
        scale = one["maps"]["global_scale"]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["maps"]["global_part"]))))
        np.testing.assert_allclose(picture / 65535 * scale, shares, atol=scale / 65535)
        assert scale == pytest.approx(shares.max() * max(1, usual / result.global_scores[i]) ** 2, rel=1e-4)
    assert found["results"][2]["notes"], "far darker than the training images"
    opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(colour))))[:, :, 3]
    shares = np.maximum(result.global_maps[0], 0)
    assert (opacity[shares == 0] == 0).all()
    assert (opacity[shares > 0.34 * shares.max()] > 180).all()


def test_without_a_global_part_nothing_is_said_of_it(client: TestClient, good: Any) -> None:
    (found,) = inspect(client, encoded(good[0]), map="colour")["results"]
    assert (found["global_score"], found["global_ratio"]) == (None, None)
    assert (found["maps"]["global_part"], found["maps"]["global_scale"]) == (None, None)


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


def test_notes_are_the_detectors(client: TestClient, folder: Path, good: Any) -> None:
    narrow = np.ascontiguousarray(good[0][:, ::3])
    answer = inspect(client, encoded(narrow), encoded(good[0]))["results"]
    expected = SAPatchCore.load(folder / "part.safetensors").predict([narrow, good[0]]).notes
    assert [one["notes"] for one in answer] == [list(notes) for notes in expected]
    assert answer[0]["notes"][0].startswith("Narrower than the training images")
    assert [one["inspected"] for one in answer] == [None, None]  # no crop


def test_what_a_crop_leaves_out_is_said_and_shaded(good: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    SAPatchCore(**{**SMALL, "crop": 32}).fit(good).save(tmp_path / "models/cropped.safetensors")
    with serving(tmp_path / "models") as client:
        body = {"files": [("images", ("a.png", encoded(good[0]), "image/png"))]}
        for kind in ("colour", "grey"):
            answer = client.post(f"/v1/models/cropped/inspect?map={kind}", **body).json()["results"][0]
            assert answer["inspected"] == [16, 16, 32, 32]
            map_ = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["maps"]["whole"]))))
            outside = np.ones((64, 64), np.bool_)
            outside[16:48, 16:48] = False
            if kind == "colour":
                assert (map_[outside] == (0, 0, 0, 140)).all()  # 255 · 0.55
                assert not (map_[~outside] == (0, 0, 0, 140)).all(1).any()
            else:
                assert (map_[outside] == 0).all()
                assert (map_[~outside] > 0).all()
