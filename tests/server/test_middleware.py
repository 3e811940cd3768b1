"""Who is let in, what is refused, and that nothing a client sends breaks the server."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image
from serving import HOME, encoded, service_of, serving

from sapatchcore import SAPatchCore
from sapatchcore.errors import SettingsError
from sapatchcore.server.options import ServerOptions
from sapatchcore.server.tokens import make_token

INSPECT = "/v1/models/part/inspect"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def folder(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("doors") / "models"
    models.mkdir()
    fitted.save(models / "part.safetensors")
    return models


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serving(folder, max_bytes=200_000, max_pixels=10_000, max_images=4) as client:
        yield client


@pytest.fixture
def part(good: Any) -> bytes:
    return encoded(good[0])


def refused(answer: Any, status: int, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


# ------------------------------------------------------------------------------------- tokens and roles


@pytest.fixture(scope="module")
def guarded(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, dict[str, str], Path]]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    tokens = {role: make_token(f"the-{role}", role, file) for role in ("inspect", "feedback", "admin")}
    with serving(folder, records=file.parent / "r.sqlite", tokens=file, host="0.0.0.0") as client:
        yield client, tokens, file


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
    "header", ["", "Bearer", "Bearer ", "Bearer x", "Basic eDp4", "bearer  ", "Bearer \xff\xfe", "Bearer " + "x" * 5000]
)
def test_wrong_tokens(guarded: Any, header: str) -> None:
    client, _, _ = guarded
    answer = client.get("/v1/me", headers={"Authorization": header.encode("latin-1")})
    refused(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_who_one_is(guarded: Any, client: TestClient) -> None:
    guarded_client, tokens, _ = guarded
    known = guarded_client.get("/v1/me", headers={"Authorization": f"Bearer {tokens['feedback']}"})
    assert known.json() == {"name": "the-feedback", "role": "feedback", "token_needed": True}
    assert client.get("/v1/me").json() == {"name": "local", "role": "admin", "token_needed": False}


def test_tokens_come_and_go_while_it_runs(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, tokens, file = guarded
    monkeypatch.setattr("sapatchcore.server.tokens._LOOK_EVERY", 0.0)
    service_of(client).tokens._next_look = 0.0  # type: ignore[union-attr]
    extra = make_token("visitor", "inspect", file)
    asking = {"headers": {"Authorization": f"Bearer {extra}"}}
    assert client.get("/v1/me", **asking).json()["name"] == "visitor"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2] + "\n - {")
    assert client.get("/v1/me", **asking).status_code == 200  # what cannot be read changes nothing
    file.write_text(yaml.safe_dump([entry for entry in yaml.safe_load(whole) if entry["name"] != "visitor"]))
    assert client.get("/v1/me", **asking).status_code == 401
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {tokens['admin']}"}).status_code == 200


def test_the_token_file_holds_no_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    token = make_token("line1", "inspect", file)
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    for name, role, words in (("line1", "admin", "already"), ("a b", "admin", "name"), ("x", "root", "role")):
        with pytest.raises(SettingsError, match=words):
            make_token(name, role, file)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "- {name: a, role: root, sha256: x}", "- {name: a", "\x00"])
def test_a_file_that_holds_no_tokens(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"t\.yaml"), serving(folder, tokens=tmp_path / "t.yaml"):
        pass


@pytest.mark.parametrize(("host", "allowed"), [
    ("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.0.1", True),
    ("0.0.0.0", False), ("192.168.1.5", False), ("::", False), ("factory.local", False), ("", False),
])  # fmt: skip
def test_only_loopback_goes_without_tokens(folder: Path, host: str, allowed: bool) -> None:
    if allowed:
        ServerOptions(models=folder, records="r.sqlite", host=host)
        return
    with pytest.raises(SettingsError, match="tokens"):
        ServerOptions(models=folder, records="r.sqlite", host=host)


# ------------------------------------------------------------------------------------- foreign pages


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "8.8.8.8", ""]
)
def test_a_name_that_was_made_to_point_here(client: TestClient, host: str) -> None:
    refused(client.get("/v1/records", headers={"Host": host}), 403, "localhost")
    refused(client.get("/", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8000", "[::1]:8000", "127.3.4.5"])
def test_this_machine_by_any_name(client: TestClient, host: str) -> None:
    assert client.get("/v1/me", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
def test_a_page_from_elsewhere_cannot_post(client: TestClient, headers: dict[str, str], part: bytes) -> None:
    refused(client.post(INSPECT, content=part, headers={**PNG, **headers}), 403, "page")
    refused(client.get("/v1/records", headers=headers), 403)


def test_the_own_page_can(client: TestClient, part: bytes) -> None:
    own = {"Origin": HOME, "Sec-Fetch-Site": "same-origin"}
    assert client.post(INSPECT, content=part, headers={**PNG, **own}).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page


def test_every_answer_says_how_it_may_be_used(client: TestClient) -> None:
    for path in ("/", "/v1/me", "/nothing", "/v1/models/x/drift", "/metrics"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    assert client.get("/v1/me").headers["cache-control"] == "no-store"


# ------------------------------------------------------------------------------------- limits


def png_head(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(101, 100), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_not_decoded(
    client: TestClient, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("It was decoded.")

    monkeypatch.setattr("sapatchcore.server.inspection.rgb_from_bytes", decoded)
    refused(client.post(INSPECT, content=png_head(*size), headers=PNG), 413, "pixels")
    files = [("images", ("a.png", part)), ("images", ("b.png", png_head(*size)))]
    refused(client.post(INSPECT, files=files), 413, "Image 2 (b.png)")


def test_a_jpeg_of_thousands_of_scans(client: TestClient, good: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(good[0]).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    assert client.post(INSPECT, content=content, headers=PNG).status_code == 200
    last = content.rfind(b"\xff\xda")
    refused(client.post(INSPECT, content=content + content[last:-2] * 200, headers=PNG), 422, "scans")


def test_too_many_bytes(client: TestClient) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(10_000)

    refused(client.post(INSPECT, content=bytes(200_001), headers=PNG), 413, "200000 bytes")
    refused(client.post(INSPECT, content=slowly(), headers=PNG), 413, "200000 bytes")  # no Content-Length
    refused(client.post("/v1/models/part/feedback", content=b"[" * 70_000), 413)


def test_too_many_images(client: TestClient, part: bytes) -> None:
    files = [("images", (f"{at}.png", part)) for at in range(5)]
    assert client.post(INSPECT, files=files[:4]).status_code == 200
    refused(client.post(INSPECT, files=files), 413, "4 images")
    refused(client.post(INSPECT, files=files * 3), 413, "4 images")


def test_bodies_that_are_no_images(client: TestClient, part: bytes) -> None:
    refused(client.post(INSPECT, content=b"", headers=PNG), 422, "empty")
    refused(client.post(INSPECT, content=b"hello", headers=PNG), 422, "not an image")
    refused(client.post(INSPECT, content=part[:-200], headers=PNG), 422, "cannot be decoded")
    refused(client.post(INSPECT, content=part), 415)
    refused(client.post(INSPECT, content=part, headers={"Content-Type": "text/plain"}), 415)
    refused(client.post(INSPECT, content=part, headers={**PNG, "Content-Encoding": "gzip"}), 415)
    refused(client.post(INSPECT, files=[("pictures", ("a.png", part))]), 422, "images")
    refused(client.post(INSPECT, data={"images": "text"}, files=[("images", ("a.png", part))]), 422)
    refused(
        client.post(INSPECT, content=b"--x--\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}), 422
    )
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    refused(client.post(INSPECT, content=gif.getvalue(), headers=PNG), 422, "not an image")


def test_one_bad_image_and_none_is_recorded(client: TestClient, part: bytes) -> None:
    before = client.get("/v1/records?limit=1").json()
    files = [("images", ("a.png", part)), ("images", ("b.png", b"hello"))]
    refused(client.post(INSPECT, files=files), 422, "Image 2 (b.png)")
    assert client.get("/v1/records?limit=1").json() == before


@pytest.mark.parametrize("kind", [
    "", "; boundary=", '; boundary="', "; charset=idna; boundary=x", "; charset=undefined; boundary=x",
    "; boundary=" + "x" * 3000, "; boundary=é", "; boundary*0=x; boundary*1=y",
])  # fmt: skip
def test_malformed_forms(client: TestClient, part: bytes, kind: str) -> None:
    bodies = [b"", b"--x", b"--x\r\n\r\n\r\n--x--", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", part]
    bodies.append(b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"; filename="\xff"\r\n\r\n1\r\n--x--\r\n')
    for body in bodies:
        answer = client.post(
            INSPECT, content=body, headers={"Content-Type": f"multipart/form-data{kind}".encode("latin-1")}
        )
        assert answer.status_code in (400, 422), (body, answer.text)
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(("given", "kept"), [
    ("../../etc/passwd", "passwd"), ("C:\\parts\\a.png", "a.png"), ("a\r\nb.png", None), ("\u202egnp.exe", "\ufffdgnp.exe"),
    ("x" * 400 + ".png", "x" * 255), ("ảnh lỗi.png", "ảnh lỗi.png"), ("a\x1b[2Jb.png", None),
])  # fmt: skip
def test_file_names_are_text(client: TestClient, part: bytes, given: str, kept: str | None) -> None:
    answer = client.post(INSPECT, files=[("images", (given, part))])
    assert answer.status_code == 200, answer.text
    name = answer.json()["results"][0]["file_name"]
    assert all(sign.isprintable() for sign in name)
    assert kept is None or name == kept


@pytest.mark.parametrize("name", [
    "..", "../part", "..%2f..%2fetc%2fpasswd", "%2e%2e", "part.safetensors", "part%00", "PART", "part/",
    "%F0%9F%98%80", "x" * 200,
])  # fmt: skip
def test_only_names_of_the_folder_are_models(client: TestClient, part: bytes, name: str) -> None:
    answer = client.post(f"/v1/models/{name}/inspect", content=part, headers=PNG)
    assert answer.status_code in (404, 422), answer.text
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("query", [
    "false_reject=0", "false_reject=1", "false_reject=-1", "false_reject=nan", "false_reject=x", "false_reject=1e-9",
    "map=rainbow", "explain=perhaps", "keep=2",
])  # fmt: skip
def test_values_outside_their_range(client: TestClient, part: bytes, query: str) -> None:
    refused(client.post(f"{INSPECT}?{query}", content=part, headers=PNG), 422, query.partition("=")[0])


@pytest.mark.parametrize("path", [
    "/v1/records?limit=0", "/v1/records?limit=501", "/v1/records?before=0", "/v1/records?before=99999999999999999999",
    "/v1/records?verdict=maybe", "/v1/records?since=yesterday", "/v1/records?since=0.5", "/v1/records?until=1767225600",
    "/v1/records?since=0001-01-01T00:00:00%2B14:00",
    "/v1/records?until=9999-12-31T23:59:59-14:00", "/v1/records?file_name=%00", "/v1/records/0", "/v1/records/x",
    "/v1/records/99999999999999999999", "/v1/models/part/drift?last=0", "/v1/models/part/drift?last=2001",
])  # fmt: skip
def test_questions_outside_their_range(client: TestClient, path: str) -> None:
    refused(client.get(path), 422)


def test_what_is_not_there(client: TestClient) -> None:
    for path in ("/v1/records/999999", "/v1/records/999999/image", "/v1/models/none/drift", "/v1/none", "/none"):
        refused(client.get(path), 404)
    assert client.get(INSPECT).status_code == 405
    assert client.delete("/v1/records/1").status_code == 405


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'{"record": 1}', b'{"record": "1", "label": "good"}', b'{"record": 1.5, "label": null}',
    b'{"record": 0, "label": "good"}', b'{"record": 1, "label": "good", "more": 1}', b"\xff\xfe", b"[" * 60_000,
    b'{"record": 1e400, "label": "good"}', b'{"record": 1, "label": "good", "note": "\\u0000"}',
    b'{"record": true, "label": "good"}',
])  # fmt: skip
def test_malformed_feedback(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/models/part/feedback", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"error"}


def test_text_that_no_database_likes(client: TestClient, part: bytes) -> None:
    number = client.post(INSPECT, content=part, headers=PNG).json()["results"][0]["record"]
    note = json.dumps({"record": number, "label": "good", "note": "\ud800 '; DROP TABLE records; --"})
    answer = client.post("/v1/models/part/feedback", content=note, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)
    assert client.get(f"/v1/records/{number}").status_code == 200
    assert client.get("/v1/records", params={"file_name": "%_'\"*"}).status_code == 200


def test_damaged_images_are_refused_in_words(client: TestClient, good: Any) -> None:
    rng = random.Random(0)
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        whole = encoded(good[0], kind)
        for _ in range(25):
            content = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
            for _ in range(rng.randrange(4)):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            answer = client.post(INSPECT, content=bytes(content), headers=PNG)
            assert answer.status_code in (200, 413, 422), (kind, answer.text)
    assert client.post(INSPECT, content=encoded(good[0]), headers=PNG).status_code == 200
