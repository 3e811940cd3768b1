"""What an attacker or a broken camera sends: malformed images, hostile names and requests, and the API's own schema, fuzzed."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.server.answers import percentiles
from benchmarks.server.process import INSPECT, Memory, Server
from benchmarks.server.wire import exchange

sys.path.append(str(Path(__file__).parents[2] / "tests"))
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
            "alive": server.alive() and _is_alive(server),
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
    with Memory(server.pid, 0.1) as memory, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(partial(_judged, server.port), requests))
    return {
        "sent": len(answers),
        "statuses": dict(sorted(Counter(status for status, _, _ in answers).items())),
        "wrong": [wrong for _, wrong, _ in answers if wrong is not None],
        "ms": percentiles(seconds for _, _, seconds in answers if seconds is not None),
        "largest_mb": max(memory.bytes, default=0) / 1e6,
    }


def _judged(port: int, request: RawRequest) -> tuple[str, str | None, float | None]:
    """The status, "closed", "waits" or "hangs" for want of one; what is wrong with the answer; its seconds."""
    begin = time.perf_counter()
    limit, end = UNFINISHED if request.unfinished else HANG, request.protocol and not request.unfinished
    seconds = None
    try:
        answer = exchange(port, request.content, limit, end=end)
    except TimeoutError:
        status, wrong = ("waits", None) if request.unfinished else ("hangs", "hangs")
    else:
        if answer is None:
            status, wrong = "closed", wrong_answer(request, None, {}, b"")
        else:
            seconds, status = time.perf_counter() - begin, str(answer.status)
            wrong = wrong_answer(request, answer.status, answer.headers, answer.body)
    return status, None if wrong is None else f"{request.what}: {wrong}", seconds


def _is_alive(server: Server) -> bool:
    try:
        return bool(server.get("/v1/me")["role"] == "admin")
    except httpx.HTTPError:
        return False


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
