"""The server as a process of its own: signals, sockets that misbehave, and the command line."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from serving import encoded, until

from sapatchcore import SAPatchCore
from sapatchcore.cli import main
from sapatchcore.records.record import Filter
from sapatchcore.records.records import Records

PNG = {"Content-Type": "image/png"}
CLI = [sys.executable, "-c", "import sys; from sapatchcore.cli import main; sys.exit(main())"]


class Process:
    """``sapatchcore serve`` on a free port."""

    def __init__(self, folder: Path, records: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url, self.records = f"http://127.0.0.1:{self.port}", records
        self.log = records.with_suffix(".log")
        command = [*CLI, "serve", str(folder), "--records", str(records), "--port", str(self.port), *options]
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: self.answers("/readyz"), 120)

    def answers(self, path: str) -> bool:
        assert self.popen.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self.url + path).status_code == 200
        return False

    def inspect(self, content: bytes) -> int:
        """The answer's status, and its record where there is one; 0 where the connection broke."""
        try:
            answer = httpx.post(f"{self.url}/v1/models/part/inspect", content=content, headers=PNG, timeout=60)
        except httpx.HTTPError:
            return 0
        return answer.status_code

    def kept(self) -> int:
        with Records(self.records, make=False) as records:
            return records.count(Filter())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@pytest.fixture(scope="module")
def folder(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("process") / "models"
    models.mkdir()
    fitted.save(models / "part.safetensors")
    return models


@contextlib.contextmanager
def running(folder: Path, records: Path, *options: str) -> Iterator[Process]:
    process = Process(folder, records, *options)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with running(folder, tmp_path_factory.mktemp("records") / "r.sqlite", "--timeout", "2") as process:
        yield process


@pytest.fixture
def part(good: Any) -> bytes:
    return encoded(good[0])


def request(content: bytes, length: int | None = None) -> bytes:
    head = "POST /v1/models/part/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    return f"{head}Content-Length: {len(content) if length is None else length}\r\n\r\n".encode() + content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_was_accepted(folder: Path, tmp_path: Path, good: Any, number: signal.Signals) -> None:
    contents = [encoded(image) for image in good]
    with running(folder, tmp_path / "r.sqlite") as process, ThreadPoolExecutor(24) as threads:
        waiting = [threads.submit(process.inspect, contents[at % 10]) for at in range(48)]
        until(lambda: any(one.done() for one in waiting))
        process.popen.send_signal(number)
        assert process.popen.wait(60) == 0, process.log.read_text()
        statuses = [one.result() for one in waiting]
        assert set(statuses) <= {200, 503, 0}  # 0: connected after it had closed its door
        assert statuses.count(200) >= 1
        assert process.kept() == statuses.count(200)
        assert "Traceback" not in process.log.read_text()


def test_a_kill_loses_no_answered_inspection(folder: Path, tmp_path: Path, good: Any) -> None:
    contents = [encoded(image) for image in good]
    with running(folder, tmp_path / "r.sqlite") as process, ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(process.inspect, contents[at % 10]) for at in range(24)]
        until(lambda: sum(one.done() for one in waiting) > 5)
        process.popen.kill()
        process.popen.wait()
        answered = [one.result() for one in waiting].count(200)
        assert answered > 5
        assert process.kept() >= answered
    with running(folder, tmp_path / "r.sqlite") as again:
        assert again.inspect(contents[0]) == 200


def test_clients_that_leave_are_recorded_at_most_once(server: Process, part: bytes) -> None:
    before = server.kept()
    for _ in range(5):
        with server.connect() as connection:
            connection.sendall(request(part))
    assert server.inspect(part) == 200
    until(lambda: "sapatchcore_queue_images 0.0" in httpx.get(server.url + "/metrics").text)
    assert before + 1 <= server.kept() <= before + 6


def test_a_client_that_leaves_in_the_middle_is_forgotten(server: Process, part: bytes) -> None:
    before = server.kept()
    with server.connect() as connection:
        connection.sendall(request(part[:100], len(part)))
    assert server.inspect(part) == 200
    assert server.kept() == before + 1
    figure = next(
        line
        for line in httpx.get(server.url + "/metrics").text.splitlines()
        if line.startswith("sapatchcore_queue_images ")
    )
    assert figure.endswith(" 0.0")


def test_a_body_that_does_not_come(server: Process, part: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(request(part[:100], len(part)))
        answer = b""
        while not answer.endswith(b"}"):
            more = connection.recv(4096)
            assert more
            answer += more
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive within 2 s" in answer


def test_a_head_that_does_not_come(server: Process, part: bytes) -> None:
    with server.connect() as connection, server.connect() as silent:
        connection.sendall(b"POST /v1/models/part/inspect HTTP/1.1\r\nHost: local")
        start = time.monotonic()
        assert (connection.recv(1), silent.recv(1)) == (b"", b"")  # closed by the server
        assert time.monotonic() - start < 50
    assert server.inspect(part) == 200


def test_a_client_that_does_not_read_its_answer(server: Process, part: bytes) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(200):
            connection.sendall(
                b"GET /page/vendor/swagger-ui-dist/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
        with contextlib.suppress(ConnectionError):
            until(lambda: not connection.send(b"\r\n"), 60)
    assert server.inspect(part) == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"POST /v1/models/part/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/part/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/models/part/inspect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_request(server: Process, sent: bytes, part: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(4096)
            assert not answer or not answer.startswith(b"HTTP/1.1 5"), answer
    assert server.inspect(part) == 200


# ------------------------------------------------------------------------------------- the command line


def test_wrong_use_is_said_in_a_sentence(
    folder: Path, server: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = ["--records", str(tmp_path / "r.sqlite")]
    cases = [
        ([str(folder), *records, "--host", "0.0.0.0"], 2, "tokens"),
        ([str(folder), *records, "--port", str(server.port)], 2, "cannot listen"),
        ([str(tmp_path / "none"), *records], 1, "does not exist"),
        ([str(folder), "--records", str(tmp_path / "none/r.sqlite")], 1, "does not exist"),
        ([str(folder), *records, "--tokens", str(tmp_path / "none.yaml")], 2, "cannot be read"),
        ([str(folder), *records, "--keep-images", "some"], 2, "none, rejected, all"),
        ([str(folder), *records, "--max-bytes", "much"], 2, "size"),
        ([str(folder), *records, "--queue", "2"], 2, "max_images"),
        ([str(folder), *records, "--false-reject", "2"], 2, "false_reject"),
    ]
    for arguments, code, words in cases:
        monkeypatch.setattr(sys, "argv", ["sapatchcore", "serve", *arguments])
        assert main() == code, arguments
        said = capsys.readouterr().err
        assert words in said
        assert said.count("sapatchcore: ") == 1


def test_a_token_from_the_command_line_opens_the_door(
    folder: Path, tmp_path: Path, part: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens.yaml"
    monkeypatch.setattr(sys, "argv", ["sapatchcore", "token", "line1", "--role", "inspect", "--file", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    token = capsys.readouterr().out.strip()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert [entry["name"] for entry in yaml.safe_load(file.read_text())] == ["line1"]
    with running(folder, tmp_path / "r.sqlite", "--tokens", str(file)) as process:
        assert process.inspect(part) == 401
        headers = {**PNG, "Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{process.url}/v1/models/part/inspect", content=part, headers=headers, timeout=60)
        assert answer.status_code == 200
