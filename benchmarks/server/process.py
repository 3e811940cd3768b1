"""A real ``sapatchcore serve`` to be put under load: started, watched, killed and looked into, all below one folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.server.wire import HOST
from sapatchcore.server.tokens import make_token

ROOT = Path(__file__).parents[2]
MODEL = "screws"
INSPECT = f"/v1/models/{MODEL}/inspect"
COMMAND = "import sys; from sapatchcore.cli import main; sys.exit(main())"
START = 200.0  # seconds that a server may take to be ready


class Server:
    """The server of the models in ``folder/models``, with its records, tokens, home and temporary folder beside them."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        for name in ("models", "records", "home", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        self.database = folder / "records" / "records.sqlite"
        self.log = folder / "server.log"
        self.token = make_token("load", "admin", folder / "tokens.yaml")
        self.port = free_port()
        headers = {"Authorization": f"Bearer {self.token}"}
        # A connection for each request: one that is kept open would not outlive a kill.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(
            base_url=f"http://{HOST}:{self.port}", headers=headers, timeout=120.0, limits=limits, trust_env=False
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it is ready; the seconds that took. Raises RuntimeError, with its last words."""
        command = [
            *(sys.executable, "-c", COMMAND, "serve", str(self.folder / "models")),
            *("--host", HOST, "--port", str(self.port), "--tokens", str(self.folder / "tokens.yaml")),
            *("--records", str(self.database), *self.options),
        ]
        environment = {**os.environ, "HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        begin = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder / "home", env=environment, process_group=0
            )
        while time.perf_counter() - begin < START:
            if self._process.poll() is not None:
                break
            if self.ready():
                return time.perf_counter() - begin
            time.sleep(0.05)
        words = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"The server did not become ready. Its last words:\n{words}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ready(self) -> bool:
        """Whether it answers, and takes inspections."""
        try:
            return self._client.get("/readyz", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, target: str) -> Any:
        """The JSON of a GET. Raises httpx.HTTPError where it is answered otherwise, or not at all."""
        return self._client.get(target).raise_for_status().json()

    def post(self, target: str, content: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of a POST of JSON; status 0 where the connection ended without an answer."""
        try:
            answer = self._client.post(target, json=content)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            return 0, None
        return answer.status_code, answer.json()

    def kill(self) -> None:
        """SIGKILL to it and whatever it started."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> int:
        """End it as an operator does (SIGTERM); its exit status."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def tracebacks(self) -> list[str]:
        """What its log says after each "Traceback"; there should be none."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return [piece[-600:] for piece in text.split("Traceback (most recent call last)")[1:]]

    def records(self) -> list[tuple[int, str]]:
        """(number, image hash) of every record, from the database itself."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT number, image_hash FROM sapatchcore_records ORDER BY number").fetchall()

    def integrity(self) -> str:
        """SQLite's own check of the whole database: "ok"."""
        with sqlite3.connect(self.database) as connection:
            return "; ".join(row[0] for row in connection.execute("PRAGMA integrity_check"))

    def files(self) -> set[str]:
        """All files below the folder, but the log."""
        return {
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file() and path != self.log
        }


class Memory:
    """Resident memory of a process and those below it, each second, for the length of a ``with``."""

    def __init__(self, pid: int, every: float = 1.0) -> None:
        self.seconds: list[float] = []
        self.bytes: list[int] = []
        self._pid, self._every = pid, every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        begin = time.perf_counter()
        while not self._end.wait(self._every):
            self.seconds.append(time.perf_counter() - begin)
            self.bytes.append(resident(self._pid))


def resident(pid: int) -> int:
    """Bytes that the process and its children keep in memory; 0 where it is gone."""
    found = 0
    for one in [pid, *_children(pid)]:
        try:
            for line in Path(f"/proc/{one}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmRSS:"):
                    found += int(line.split()[1]) * 1024
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """What the process has used of all cores so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in below:
            found += [child, *_children(child)]
    return found


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


class Generator:
    """A load generator, generator.py, as a process of its own: locust changes the one that it is in."""

    def __init__(self, folder: Path, server: Server, images: Sequence[Path], **task: Any) -> None:
        """Start it and wait until it sends. task: of ``generator.Task``, where it differs from the usual."""
        given = {
            "port": server.port,
            "token": server.token,
            "target": INSPECT,
            "images": [str(path) for path in images],
            **task,
        }
        self._answers = folder / "answers.json"
        self._answers.unlink(missing_ok=True)
        (folder / "task.json").write_text(json.dumps(given), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.server.generator", str(folder / "task.json"), str(self._answers)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # "sending"

    def wait(self, seconds: float) -> dict[str, Any]:
        """What was answered (``generator.Answers``)."""
        try:
            self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        if self._process.returncode:
            raise RuntimeError(f"The load generator ended with {self._process.returncode}.")
        return dict(json.loads(self._answers.read_text(encoding="utf-8")))
