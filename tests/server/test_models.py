"""Models come, change and go while the server runs; a request always meets a whole one."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from exporting import exported, exporter_done, program, tiny
from serving import encoded, hold, service_of, serving, until

from sapatchcore import SAPatchCore
from sapatchcore.errors import DataError
from sapatchcore.export.export import export_model
from sapatchcore.export.runtime import open_exported
from sapatchcore.server import served
from sapatchcore.server.models import ModelFolder
from sapatchcore.server.served import files_of

__all__ = ["exported", "exporter_done", "program", "tiny"]  # fixtures

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def two(small: dict[str, Any], good: Any, images: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Two model files that score otherwise."""
    folder = tmp_path_factory.mktemp("two")
    contents = []
    for at, learned in enumerate((good, images(6, seed=7))):
        SAPatchCore(**small, coreset_ratio=0.1).fit(learned).save(folder / f"{at}.safetensors")
        contents.append((folder / f"{at}.safetensors").read_bytes())
    return contents[0], contents[1]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def put(path: Path, content: bytes) -> None:
    """A whole new file, as ``save`` writes it."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def score(client: Any, content: bytes, name: str = "part") -> tuple[str, float]:
    answer = client.post(f"/v1/models/{name}/inspect", content=content, headers=PNG)
    assert answer.status_code == 200, answer.text
    return answer.json()["model_hash"], answer.json()["results"][0]["score"]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listed(client: Any) -> dict[str, Any]:
    return {model["file"]: model for model in client.get("/v1/models").json()["models"]}


def test_a_file_that_changes_is_loaded_anew(models: Path, two: tuple[bytes, bytes], good: Any) -> None:
    put(models / "part.safetensors", two[0])
    part = encoded(good[0])
    with serving(models) as client:
        assert client.post("/v1/models/new/inspect", content=part, headers=PNG).status_code == 404
        first = score(client, part)
        assert first[0] == digest(two[0])
        put(models / "new.safetensors", two[1])
        until(lambda: client.get("/v1/models/new/drift").status_code == 200)
        put(models / "part.safetensors", two[1])
        until(lambda: listed(client)["part.safetensors"]["hash"] == digest(two[1]))
        second = score(client, part)
        assert second == score(client, part, "new")
        assert second != first
        (models / "new.safetensors").unlink()
        until(lambda: client.post("/v1/models/new/inspect", content=part, headers=PNG).status_code == 404)
        assert set(listed(client)) == {"part.safetensors"}
        assert client.get("/v1/records?limit=1").json()["records"][0]["model"] == "new"  # what was recorded stays


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_leaves_the_old_model_in_service(
    models: Path, two: tuple[bytes, bytes], good: Any, damage: str
) -> None:
    path, part = models / "part.safetensors", encoded(good[0])
    put(path, two[0])
    broken = bytearray(two[1])
    broken[-100] ^= 1
    content = {"cut": two[1][:-1000], "flipped": bytes(broken), "empty": b"", "other": b"no model"}[damage]
    with serving(models) as client:
        first = score(client, part)
        put(path, content)
        until(lambda: listed(client)["part.safetensors"]["error"])
        seen = listed(client)["part.safetensors"]
        assert (seen["state"], seen["hash"]) == ("ready", digest(two[0]))
        assert "part.safetensors" in seen["error"]
        assert str(models) not in seen["error"]
        assert score(client, part) == first
        assert "sapatchcore_models_failed 1" in client.get("/metrics").text
        put(path, two[1])
        until(lambda: listed(client)["part.safetensors"]["hash"] == digest(two[1]))
        assert listed(client)["part.safetensors"]["error"] is None


def test_a_file_that_is_still_being_written(models: Path, two: tuple[bytes, bytes], good: Any) -> None:
    path, part = models / "part.safetensors", encoded(good[0])
    put(path, two[0])
    digests = {digest(two[0]), digest(two[1])}
    with serving(models) as client:
        with path.open("wb") as file:  # in place, the worst way to do it
            for first in range(0, len(two[1]), len(two[1]) // 8):
                file.write(two[1][first : first + len(two[1]) // 8])
                file.flush()
                service_of(client).folder.look(wait=True)
                assert score(client, part)[0] in digests
        until(lambda: listed(client)["part.safetensors"]["hash"] == digest(two[1]))
        assert listed(client)["part.safetensors"]["error"] is None


def test_a_batch_that_runs_keeps_its_model(models: Path, two: tuple[bytes, bytes], good: Any) -> None:
    path, part, go = models / "part.safetensors", encoded(good[0]), threading.Event()
    put(path, two[0])
    with serving(models) as client, ThreadPoolExecutor(2) as threads:
        held = hold(client, "part", go)
        waiting = threads.submit(score, client, part)
        until(lambda: held.reached)
        put(path, two[1])
        until(lambda: listed(client)["part.safetensors"]["hash"] == digest(two[1]))
        go.set()
        assert waiting.result()[0] == digest(two[0])
        assert score(client, part)[0] == digest(two[1])


def test_requests_meet_whole_models_while_files_change(models: Path, two: tuple[bytes, bytes], good: Any) -> None:
    path, part = models / "part.safetensors", encoded(good[0])
    put(path, two[0])
    with serving(models) as client:
        found: set[tuple[str, float]] = set()
        for at in range(1, 5):
            put(path, two[at % 2])
            while listed(client)["part.safetensors"]["hash"] != digest(two[at % 2]):
                found.add(score(client, part))
        found.add(score(client, part))
    assert len(found) == 2  # two versions, each with one score
    assert {version for version, _ in found} == {digest(content) for content in two}


def test_files_that_are_not_served(models: Path, two: tuple[bytes, bytes], good: Any) -> None:
    put(models / "part.safetensors", two[0])
    put(models / "my part.safetensors", two[0])
    (models / "part.onnx").write_bytes(b"x")
    (models / "lost.xml").write_text("<net/>")  # without its .bin
    (models / "notes.txt").write_text("x")
    (models / ".hidden.safetensors").write_bytes(two[0])
    (models / "folder.safetensors").mkdir()
    with serving(models) as client:
        seen = listed(client)
        assert set(seen) == {"part.safetensors", "my part.safetensors", "part.onnx"}
        assert seen["my part.safetensors"]["state"] == seen["part.onnx"]["state"] == "failed"
        assert "letters" in seen["my part.safetensors"]["error"]
        assert "part.safetensors is served" in seen["part.onnx"]["error"]
        assert score(client, encoded(good[0]))[0] == digest(two[0])
        answer = client.post("/v1/models/my part/inspect", content=encoded(good[0]), headers=PNG)
        assert answer.status_code == 422
        (models / "part.safetensors").unlink()
        until(lambda: "no checksum" in (listed(client)["part.onnx"]["error"] or ""))  # its name is free: it is tried


def test_a_model_that_never_loaded(models: Path, two: tuple[bytes, bytes], good: Any) -> None:
    put(models / "part.safetensors", two[0][:5000])
    with serving(models) as client:
        answer = client.post("/v1/models/part/inspect", content=encoded(good[0]), headers=PNG)
        assert answer.status_code == 409
        assert "could not be loaded" in answer.json()["error"]
        assert listed(client)["part.safetensors"]["state"] == "failed"
        assert client.get("/readyz").json()["models"] == {"part": "failed"}


def test_a_model_that_cannot_score_is_not_served(
    models: Path, two: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(models / "part.safetensors", two[0])

    def fails(*_: object) -> None:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(SAPatchCore, "score", fails)
    with serving(models) as client:
        seen = listed(client)["part.safetensors"]
        assert seen["state"] == "failed"
        assert "no kernel" in seen["error"]


def test_a_folder_that_is_away_for_a_moment(models: Path, two: tuple[bytes, bytes], tmp_path: Path) -> None:
    put(models / "part.safetensors", two[0])
    folder = ModelFolder(models)
    folder.look()
    models.rename(tmp_path / "elsewhere")
    folder.look()
    assert folder.find("part") is not None
    (tmp_path / "elsewhere").rename(models)
    folder.look()
    assert folder.find("part").served is not None  # type: ignore[union-attr]


def test_an_unchanged_file_is_not_read_again(
    models: Path, two: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(models / "part.safetensors", two[0])
    folder = ModelFolder(models)
    folder.look()
    monkeypatch.setattr("sapatchcore.server.models.load", lambda *_: pytest.fail("It was read again."))
    folder.look()
    monkeypatch.undo()
    os.utime(models / "part.safetensors", ns=(1, 1))
    before = folder.find("part")
    folder.look(wait=True)  # it has just changed: not yet
    assert folder.find("part") is before
    folder.look(wait=True)
    assert folder.find("part") is not before


def test_a_file_that_changes_while_it_is_read_is_read_again(
    models: Path, two: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = models / "part.safetensors", served.load
    put(path, two[0])

    def changing(*arguments: Any) -> Any:
        found = real(*arguments)
        put(path, two[1])
        return found

    monkeypatch.setattr("sapatchcore.server.models.load", changing)
    folder = ModelFolder(models)
    folder.look()
    entry = folder.find("part")
    assert entry is not None
    assert entry.served is None  # which of the two it was cannot be told
    assert "read again" in str(entry.error)
    monkeypatch.undo()
    folder.look()
    assert folder.find("part").served.hash == digest(two[1])  # type: ignore[union-attr]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ModelFolder(tmp_path / "none")


@pytest.mark.usefixtures("exporter_done")
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_exported_models_are_served(
    models: Path, tiny: SAPatchCore, exported: Path, images: Any, suffix: str, tmp_path: Path
) -> None:
    for file in files_of(exported / f"model{suffix}"):
        shutil.copy(file, models / file.name.replace("model", "part"))
    opened = open_exported(models / f"part{suffix}")
    arrays = [*images(2, seed=5), *images(1, (50, 70), seed=6)]
    with serving(models, keep_images="all") as client:
        files = [("images", ("a.png", encoded(image))) for image in arrays]
        answer = client.post("/v1/models/part/inspect?map=grey&explain=true", files=files)
        assert answer.status_code == 200, answer.text
        result = opened.predict(arrays)
        for at, got in enumerate(answer.json()["results"]):
            assert got["score"] == pytest.approx(float(result.scores[at]), rel=1e-5)
            assert got["p_value"] == result.p_values[at]
            assert got["explanation"] is None
            assert (got["width"], got["height"]) == arrays[at].shape[1::-1]
        model = listed(client)[f"part{suffix}"]
        assert model["format"] == {".onnx": "onnx", ".xml": "openvino"}[suffix]
        assert (model["can_explain"], model["can_update"]) == (False, False)
        assert model["hash"] == digest(b"".join(path.read_bytes() for path in files_of(models / f"part{suffix}")))
        record = answer.json()["results"][0]["record"]
        client.post("/v1/models/part/feedback", json={"record": record, "label": "good"})
        refused = client.post("/v1/models/part/update/preview", json={"records": [record]})
        assert refused.status_code == 409
        assert "exported" in refused.json()["error"]
        export_model(tiny, tmp_path / f"new{suffix}", source_sha256="cd" * 32)
        for file in reversed(files_of(tmp_path / f"new{suffix}")):
            file.replace(models / file.name.replace("new", "part"))
        until(lambda: listed(client)[f"part{suffix}"]["hash"] not in (None, model["hash"]))
        assert listed(client)[f"part{suffix}"]["error"] is None


def test_without_pytorch_a_model_file_is_refused_in_words(models: Path, two: tuple[bytes, bytes]) -> None:
    put(models / "part.safetensors", two[0])
    folder = ModelFolder(models)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "sapatchcore.detector", None)
        patched.setattr("sapatchcore.errors.LEARN", {"sapatchcore.detector"})
        folder.look()
    entry = folder.find("part")
    assert entry is not None
    assert "sapatchcore[learn]" in str(entry.error)
