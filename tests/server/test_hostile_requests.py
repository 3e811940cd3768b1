"""A real server on the loopback address, and what no client should send: some 200 images that are none, and as many
requests with hostile names, values, lengths and heads. Every answer is right, nothing lands outside, and it works on.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import hostile_images, real
from hostile_requests import RawRequest, all_requests, form, with_body
from right_answers import wrong_answer, wrong_refusal
from scripts import script

from sapatchcore import SAPatchCore

harness, fuzzing, wire = (script(f"benchmarks/server/{name}.py") for name in ("process", "fuzz", "wire"))
INSPECT = fuzzing.INSPECT
GOOD = frozenset({200})


@pytest.fixture(scope="module")
def server(light_fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "models").mkdir()
    light_fitted.save(folder / "models" / f"{harness.MODEL}.safetensors")
    found = harness.Server(folder, "--timeout", "3", "--keep-images", "none")
    found.start()
    yield found
    found.kill()


def assert_unharmed(server: Any, before: set[str]) -> None:
    """It lives, judges a good image, has written nothing but its records, and no error went past it."""
    assert server.alive()
    good = RawRequest("a good image", with_body(server.token, INSPECT, "image/png", real("PNG")), GOOD)
    assert fuzzing.sent(server, [good])["statuses"] == {"200": 1}
    assert server.tracebacks() == []
    assert {name for name in server.files() - before if not name.startswith("records/records.sqlite")} == set()


def test_malformed_images(server: Any) -> None:
    before = server.files()
    found = fuzzing.sent(server, fuzzing.of_images(server.token, 200))
    assert found["wrong"] == []
    assert found["sent"] == 200
    assert set(found["statuses"]) <= {"200", "413", "415", "422"}
    assert_unharmed(server, before)


def test_hostile_requests(server: Any) -> None:
    before, mark = server.files(), f"touched{time.time_ns()}"
    found = fuzzing.sent(server, all_requests(server.token, INSPECT, real("PNG"), mark))
    assert found["wrong"] == []
    assert found["sent"] > 200
    assert fuzzing.files_with(mark, [server.folder, Path.cwd(), Path("/tmp"), Path("/")]) == []
    assert_unharmed(server, before)


def test_names_come_back_as_text(server: Any) -> None:
    """Without folders and control signs, at most 255 letters, in the answer and in the records."""
    names = [
        b"../../etc/passwd",
        b"C:\\a\\b.png",
        b"n\x1b[31m\x00.png",
        "\u202egnp.exe".encode(),
        b"x" * 3000,
        b"",
        b"..",
    ]
    for name in names:
        status, content = answered(server, form(server.token, INSPECT, real("PNG"), name))
        assert status == 200, (name, content)
        shown = content["results"][0]["file_name"]
        assert len(shown) <= 255
        assert shown.isprintable()
        assert "/" not in shown
        assert "\\" not in shown
        assert server.get(f"/v1/records/{content['results'][0]['record']}")["file_name"] == shown


def test_a_good_image_among_bad_ones(server: Any) -> None:
    """A request is answered as a whole: one bad image refuses it, and nothing of it is recorded."""
    before = len(server.records())
    boundary = "b"
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="images"; filename="%d"\r\n\r\n%s\r\n' % (number, content)
        for number, content in enumerate((real("PNG"), b"no image", real("JPEG")))
    )
    media_type = f"multipart/form-data; boundary={boundary}"
    status, content = answered(server, with_body(server.token, INSPECT, media_type, parts + b"--b--\r\n"))
    assert status == 422
    assert content["error"].startswith("Image 2 (1) ")
    assert len(server.records()) == before


def test_others_are_served_while_some_dawdle(server: Any) -> None:
    """Fifty connections that send half a request and wait."""
    halves = [with_body(server.token, INSPECT, "image/png", real("PNG"))[:-100], b"POST / HTTP/1.1\r\nHost: a\r\nX: "]
    dawdling = []
    for number in range(50):
        dawdling.append(socket.create_connection(("127.0.0.1", server.port)))
        dawdling[-1].sendall(halves[number % 2])
    try:
        assert answered(server, with_body(server.token, INSPECT, "image/png", real("PNG")))[0] == 200
        dawdling[0].settimeout(120)
        first = dawdling[0].recv(65536)
        assert b" 400 " in first.split(b"\r\n")[0], "a body that does not come is not waited for"
    finally:
        for one in dawdling:
            one.close()
    assert answered(server, with_body(server.token, INSPECT, "image/png", real("PNG")))[0] == 200


def test_what_the_judge_of_answers_refuses() -> None:
    """It must be able to fail."""
    plain = RawRequest("x", b"")
    json_type = {"content-type": "application/json"}
    fine = b'{"error": "No."}'
    assert wrong_answer(plain, 422, json_type, fine) is None
    assert "status 500" in (wrong_answer(plain, 500, json_type, fine) or "")
    assert "status 200" in (wrong_answer(plain, 200, json_type, fine) or "")
    assert wrong_answer(plain, None, {}, b"") == "no answer"
    assert wrong_answer(plain, 422, {**json_type, "x-injected": "yes"}, fine) is not None
    assert wrong_refusal({"content-type": "text/plain"}, fine) is not None
    for body in (
        b"",
        b"[]",
        b'{"detail": "No."}',
        b'{"error": ["No."]}',
        b'{"error": "no end"}',
        b'{"error": "a\\nb."}',
    ):
        assert wrong_refusal(json_type, body) is not None, body
    assert len([one for one in hostile_images(200, seed=0) if one.no_image]) > 60


def answered(server: Any, content: bytes) -> tuple[int, Any]:
    """Status and JSON of a raw request."""
    answer = wire.exchange(server.port, content)
    assert answer is not None
    return answer.status, json.loads(answer.body)
