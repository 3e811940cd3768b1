"""The server on sockets: clients that misbehave, connections that stand still, signals and kills; and what it imports."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from command import run
from serving import INSPECT, PNG, encoded, until

from sapatchcore import SAPatchCore
from sapatchcore import server as wing
from sapatchcore.records.record import Filter
from sapatchcore.records.records import Records
from sapatchcore.server import app
from sapatchcore.server.app import Connections, create_app, server_of
from sapatchcore.server.options import ServerOptions

CLI = [sys.executable, "-c", "import sys; from sapatchcore.cli import main; sys.exit(main())"]
SECONDS = 120  # that anything may take on a busy machine


class Listening:
    """A server that listens on ``port``, and its records."""

    def __init__(self, port: int, records: Path, token: str = "") -> None:
        self.port, self.records = port, records
        headers = {**PNG, **({"Authorization": f"Bearer {token}"} if token else {})}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=SECONDS)

    def inspect(self, content: bytes) -> int:
        """The answer's status; 0 where the connection broke."""
        try:
            return self.http.post(INSPECT, content=content).status_code
        except httpx.HTTPError:
            return 0

    def kept(self) -> int:
        with Records(self.records, make=False) as records:
            return records.count(Filter())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def waiting(self) -> float:
        """Images that are accepted and not answered yet."""
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("sapatchcore_queue_images ")).split()[1])


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """As ``sapatchcore serve`` runs it, in a thread, with a patience of three seconds."""
    records = tmp_path_factory.mktemp("records") / "r.sqlite"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app, "_IDLE", 3.0)
        found = server_of(ServerOptions(models=folder, records=records, port=0, timeout=3))
        thread = threading.Thread(target=found.run)
        thread.start()
        until(lambda: found.started and found.service.folder.looked)
        listening = Listening(found.servers[0].sockets[0].getsockname()[1], records)
        yield listening
        listening.http.close()
        found.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def request(content: bytes, length: int | None = None) -> bytes:
    head = "POST /v1/models/part/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    return f"{head}Content-Length: {len(content) if length is None else length}\r\n\r\n".encode() + content


def test_clients_that_leave_are_recorded_at_most_once(server: Listening, part: bytes) -> None:
    before = server.kept()
    for _ in range(5):
        with server.connect() as connection:
            connection.sendall(request(part))
    assert server.inspect(part) == 200
    until(lambda: server.waiting() == 0)
    assert before + 1 <= server.kept() <= before + 6


def test_a_client_that_leaves_in_the_middle_is_forgotten(server: Listening, part: bytes) -> None:
    before = server.kept()
    with server.connect() as connection:
        connection.sendall(request(part[:100], len(part)))
    assert server.inspect(part) == 200
    assert server.kept() == before + 1
    until(lambda: server.waiting() == 0)


def test_a_body_that_does_not_come(server: Listening, part: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(request(part[:100], len(part)))
        answer = b""
        while not answer.endswith(b"}"):
            more = connection.recv(4096)
            assert more
            answer += more
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive within 3 s" in answer


def test_a_head_that_does_not_come(server: Listening, part: bytes) -> None:
    with server.connect() as connection, server.connect() as silent:
        connection.sendall(b"POST /v1/models/part/inspect HTTP/1.1\r\nHost: local")
        assert (connection.recv(1), silent.recv(1)) == (b"", b"")  # closed by the server
    assert server.inspect(part) == 200


def test_a_client_that_does_not_read_its_answer(server: Listening, part: bytes) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(200):
            connection.sendall(
                b"GET /page/vendor/swagger-ui-dist/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
        with contextlib.suppress(ConnectionError):
            until(lambda: not connection.send(b"\r\n"))
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
def test_what_is_no_request(server: Listening, sent: bytes, part: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(4096)
            assert not answer or not answer.startswith(b"HTTP/1.1 5"), answer
    assert server.inspect(part) == 200


class Transport:
    """Of a connection whose client has not taken ``waiting`` bytes."""

    def __init__(self, waiting: int = 0) -> None:
        self.waiting, self.aborted = waiting, False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


def test_only_connections_that_stand_still_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(app, "time", SimpleNamespace(monotonic=lambda: now[0]))
    transports = {
        "silent": Transport(),
        "in a request": Transport(),
        "slow reader": Transport(10_000_000),
        "does not read": Transport(10_000_000),
        "reads nothing of an answer in parts": Transport(70_000),
    }
    connections = Connections(None)  # type: ignore[arg-type]
    for port, (name, transport) in enumerate(transports.items()):
        connections._open["127.0.0.1", port] = app._Connection(
            transport,  # type: ignore[arg-type]
            now[0],
            in_request="request" in name or "parts" in name,
        )
    for _ in range(60):
        connections.cut()
        now[0] += 1
        transports["slow reader"].waiting -= 1000
    assert {name for name, transport in transports.items() if transport.aborted} == {
        *("silent", "does not read", "reads nothing of an answer in parts"),
    }


@pytest.fixture(scope="module")
def light_folder(light_fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one model, "part", for servers in processes of their own."""
    models = tmp_path_factory.mktemp("light")
    light_fitted.save(models / "part.safetensors")
    return models


@contextlib.contextmanager
def running(folder: Path, records: Path, *options: str, token: str = "") -> Iterator[tuple[Listening, Any]]:
    """``sapatchcore serve`` on a free port, as a process of its own; its log stands beside the records."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found, log = Listening(port, records, token), records.with_suffix(".log")
    command = [*CLI, "serve", str(folder), "--records", str(records), "--port", str(port), *options]
    with log.open("wb") as file:
        one = {**os.environ, "OMP_NUM_THREADS": "1"}  # small tensors gain nothing from threads
        process = subprocess.Popen(command, stdout=file, stderr=file, env=one)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return found.http.get("/readyz").status_code == 200
        return False

    try:
        until(ready, SECONDS, every=0.1)
        yield found, process
    finally:
        process.kill()
        process.wait()
        found.http.close()


def finishes(found: Listening, process: Any, number: signal.Signals, contents: list[bytes]) -> None:
    """After the signal, what was accepted is answered and recorded, all else is refused, and the exit code is 0."""
    before = found.kept()
    with ThreadPoolExecutor(24) as threads:
        waiting = [threads.submit(found.inspect, contents[at % len(contents)]) for at in range(48)]
        until(lambda: any(one.done() for one in waiting))
        process.send_signal(number)
        log = found.records.with_suffix(".log")
        assert process.wait(SECONDS) == 0, log.read_text()
        statuses = [one.result() for one in waiting]
    assert set(statuses) <= {200, 503, 0}  # 0: connected after it had closed its door
    assert statuses.count(200) >= 1
    assert found.kept() - before == statuses.count(200)
    assert "Traceback" not in log.read_text()


def test_a_token_from_the_command_line_opens_the_door_until_a_signal(
    light_folder: Path, tmp_path: Path, good: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file, contents = tmp_path / "tokens.yaml", [encoded(image) for image in good]
    assert run("token", "line1", "--role", "inspect", "--file", file) == 0
    token = capsys.readouterr().out.strip()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert [entry["name"] for entry in yaml.safe_load(file.read_text())] == ["line1"]
    with running(light_folder, tmp_path / "r.sqlite", "--tokens", str(file), token=token) as (found, process):
        assert found.http.post(INSPECT, content=contents[0], headers={"Authorization": "Bearer x"}).status_code == 401
        assert found.inspect(contents[0]) == 200
        finishes(found, process, signal.SIGTERM, contents)


def test_a_kill_loses_no_answered_inspection(light_folder: Path, tmp_path: Path, good: Any) -> None:
    contents = [encoded(image) for image in good]
    with running(light_folder, tmp_path / "r.sqlite") as (found, process), ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(found.inspect, contents[at % 10]) for at in range(24)]
        until(lambda: sum(one.done() for one in waiting) > 5)
        process.kill()
        process.wait()
        answered = [one.result() for one in waiting].count(200)
        assert answered > 5
        assert found.kept() >= answered
    with running(light_folder, tmp_path / "r.sqlite") as (again, process):
        assert again.inspect(contents[0]) == 200
        finishes(again, process, signal.SIGINT, contents)


def test_the_wing_has_one_face(run_python: Any) -> None:
    assert wing.create_app is create_app
    with pytest.raises(AttributeError):
        _ = wing.serve  # type: ignore[attr-defined]
    code = "import sys; import sapatchcore.server; print('fastapi' in sys.modules, 'pydantic' in sys.modules)"
    assert run_python(code).stdout.split() == ["False", "False"]


def test_the_server_itself_needs_no_pytorch(run_python: Any) -> None:
    code = "import sys; import sapatchcore.server.app; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = run_python(code)
    assert done.stdout.split() == ["False", "False"], done.stderr
