"""What an attacker or a broken camera sends: malformed images, hostile names and requests, and the API's own schema, fuzzed."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from load_figures import percentiles
from load_http import Connection, NoAnswer
from load_server import Memory, Server
from load_stages import INSPECT, is_alive

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from hostile import hostile_images, real
from hostile_requests import RawRequest, all_requests, form, with_body
from right_answers import wrong_answer

HANG = 30.0  # seconds after which an answer counts as none
UNFINISHED = 3.0  # seconds to wait for an answer to a request that does not end
AT_ONCE = 4
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzz(folder: Path, server: Server, *, short: bool) -> dict[str, Any]:
    """2,000 images, every hostile request, and schemathesis; then, whether the server still does its work."""
    before, mark = server.files(), f"touched{time.time_ns()}"
    images = sent(server, of_images(server.token, 200 if short else 2000))
    requests = sent(server, all_requests(server.token, INSPECT, real("PNG"), mark))
    schema = of_schema(folder, server, examples=5 if short else 100, seconds=60 if short else 300)
    good = sent(
        server, [RawRequest("a good image", form(server.token, INSPECT, real("PNG"), b"a.png"), frozenset({200}))]
    )
    return {
        "images": images,
        "requests": requests,
        "schema": schema,
        "afterwards": {
            "alive": server.alive() and is_alive(server),
            "a_good_image": good["statuses"],
            "model": server.get("/v1/models")["models"][0]["state"],
            "tracebacks_in_the_log": server.tracebacks(),
            "new_files": sorted(server.files() - before),
            "files_with_the_mark": files_with(
                mark, [server.folder, Path.cwd(), Path(tempfile.gettempdir()), Path("/")]
            ),
        },
    }


def of_images(token: str, count: int) -> Iterator[RawRequest]:
    """Malformed images as requests, as a body and in a form in turn, with maps and explanations now and then."""
    queries = ("", "?map=colour&explain=true", "?keep=true", "?map=grey")
    for number, image in enumerate(hostile_images(count, seed=0)):
        target = INSPECT + queries[number % len(queries)]
        if number % 2:
            content = form(token, target, image.content, b"a.png")
        else:
            content = with_body(token, target, image.media_type, image.content)
        allowed = RawRequest.allowed if image.no_image else RawRequest.allowed | {200}
        yield RawRequest(image.what, content, allowed)


def sent(server: Server, requests: Iterable[RawRequest]) -> dict[str, Any]:
    """Send them, several at once, and judge what comes back."""
    with Memory(server.pid, 0.1) as memory:
        found = asyncio.run(_Sender(server.port).run(requests))
    found["largest_mb"] = max(memory.bytes, default=0) / 1e6
    return found


class _Sender:
    def __init__(self, port: int) -> None:
        self._port = port
        self._statuses: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._seconds: list[float] = []

    async def run(self, requests: Iterable[RawRequest]) -> dict[str, Any]:
        source = iter(requests)
        await asyncio.gather(*(self._one_after_the_other(source) for _ in range(AT_ONCE)))
        return {
            "sent": sum(self._statuses.values()),
            "statuses": dict(sorted(self._statuses.items())),
            "wrong": self._wrong,
            "ms": percentiles(self._seconds),
        }

    async def _one_after_the_other(self, source: Iterator[RawRequest]) -> None:
        for request in source:
            begin = time.perf_counter()
            try:
                connection = await Connection.open(self._port)
                try:
                    limit = UNFINISHED if request.unfinished else HANG
                    end = request.protocol and not request.unfinished
                    answer = await connection.send((request.content,), limit, end=end)
                finally:
                    connection.close()
            except TimeoutError:
                self._note("waits" if request.unfinished else "hangs", None if request.unfinished else request, "hangs")
                continue
            except (NoAnswer, OSError):
                self._note("closed", request, wrong_answer(request, None, {}, b""))
                continue
            self._seconds.append(time.perf_counter() - begin)
            self._note(str(answer.status), request, wrong_answer(request, answer.status, answer.headers, answer.body))

    def _note(self, status: str, request: RawRequest | None, wrong: str | None) -> None:
        self._statuses[status] += 1
        if request is not None and wrong is not None:
            self._wrong.append(f"{request.what}: {wrong}")


def of_schema(folder: Path, server: Server, *, examples: int, seconds: int) -> dict[str, Any]:
    """Schemathesis, its own process, on the description that the server gives of itself."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"),
        *("--header", f"Authorization: Bearer {server.token}", "--checks", CHECKS, "--seed", "1", "--no-color"),
        *("--max-examples", str(examples), "--max-time", str(seconds), "--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", str(HANG), "--suppress-health-check", "all", "--continue-on-failure"),
        *("--generation-database", "none"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds + 300, check=False)
    text = done.stdout + done.stderr
    count = re.search(r"(\d+) generated", text)
    return {
        "exit_status": done.returncode,
        "cases": int(count[1]) if count else None,
        "last_words": [] if done.returncode == 0 else text.splitlines()[-60:],
    }


def files_with(mark: str, folders: Iterable[Path]) -> list[str]:
    """Files whose name holds ``mark``, up to three folders below these."""
    found = set()
    for folder, depth in itertools.product(folders, range(4)):
        try:
            found |= {str(path) for path in folder.glob("*/" * depth + f"*{mark}*") if not path.is_relative_to("/proc")}
        except OSError:
            continue
    return sorted(found)
