"""How fast, how much, how it refuses: latency, throughput and overload of a running server."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.server.answers import accounted, faults, flatness, percentiles, rate, statuses
from benchmarks.server.process import INSPECT, Generator, Memory, Server, cpu_seconds
from benchmarks.server.wire import HOST, NumberedImage
from sapatchcore import SAPatchCore

QUEUE = 64  # images that the server may have accepted and not answered yet: its default
REST = 0.03  # seconds between two measurements: threads of the one before must have gone to sleep
RAMP = 10.0  # seconds of load that do not count


def latency(server: Server, detector: SAPatchCore, images: list[Path], *, short: bool) -> dict[str, Any]:
    """One client: each image by ``predict`` from its file and by the server, in turns; and the server's difference.

    The connection stays open, as a line's does. Generator: this process, which does nothing else meanwhile.
    """
    pictures = [NumberedImage(path) for path in images]
    rounds = 3 if short else 200
    alone: list[float] = []
    served: list[float] = []
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    for turn in range(-5, rounds):
        path, picture = images[turn % len(images)], pictures[turn % len(images)]
        content, _ = picture.numbered(turn + 5)
        pair = [
            lambda path=path: detector.predict(path),
            lambda content=content, picture=picture: _ask(connection, server.token, picture.media_type, content),
        ]
        order = (0, 1) if turn % 2 else (1, 0)
        found = {}
        for which in order:
            found[which] = _timed(pair[which])
            time.sleep(REST)
        if turn >= 0:
            alone.append(found[0])
            served.append(found[1])
    connection.close()
    over = np.asarray(served) - np.asarray(alone)
    return {
        "rounds": rounds,
        "predict_ms": percentiles(alone),
        "server_ms": percentiles(served),
        "over_predict_ms": percentiles(over),
        "difference_of_p50_ms": (float(np.median(served)) - float(np.median(alone))) * 1e3,
    }


def _ask(connection: http.client.HTTPConnection, token: str, media_type: str, content: bytes) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": media_type}
    connection.request("POST", INSPECT, content, headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"The server answered {answer.status}: {body[:300]!r}")


def throughput(
    folder: Path, server: Server, detector: SAPatchCore, images: list[Path], *, short: bool
) -> dict[str, Any]:
    """32 clients that ask again and again for two minutes, between two runs of ``predict`` over as many files at once."""
    clients, seconds, ramp = (8, 3.0, 0.5) if short else (32, 120.0, RAMP)
    many = (images * (1 + 256 // len(images)))[: 16 if short else 256]
    detector.predict(many[:16])  # warm
    before = len(many) / _timed(lambda: detector.predict(many))
    seen = len(server.records())
    with Memory(server.pid, 0.2 if short else 1.0) as memory:
        used = cpu_seconds(server.pid)
        found = Generator(folder, server, images, clients=clients, seconds=seconds, first=1_000_000).wait(seconds + 90)
        used = cpu_seconds(server.pid) - used
    after = len(many) / _timed(lambda: detector.predict(many))
    served = rate(found["answered"], ramp, seconds)
    counts = accounted(found["answered"], server.records()[seen:])
    return {
        "clients": clients,
        "seconds": seconds,
        "predict_images_a_second": {"before": before, "after": after},
        "server_images_a_second": served,
        "share_of_predict": {
            "of_both": 2 * served / (before + after),
            "of_before": served / before,
            "of_after": served / after,
        },
        "latency_ms": percentiles(row[1] for row in found["answered"] if row[2] == 200),
        "statuses": statuses(found["answered"]),
        "failures": found["failures"],
        "records": counts,
        "faults": faults(counts),
        "memory": flatness(memory.seconds, memory.bytes),
        "memory_mb": [round(size / 1e6, 1) for size in memory.bytes],
        "generator_cores": found["cpu_seconds"] / found["wall_seconds"],
        "server_cores": used / found["wall_seconds"],
    }


def overload(folder: Path, server: Server, images: list[Path], *, short: bool) -> dict[str, Any]:
    """Ten times as many requests as it can answer, sent when their time has come; then single ones.

    What was accepted before the end has to be answered first: ``queue_over_capacity_ms`` is the time of a full queue, the
    bound of an accepted request's latency. Recovered is the server with the first single request that is accepted, and back
    to normal with the first that is answered within twice what a single one took before.
    """
    clients, seconds = (8, 2.0) if short else (32, 30.0)
    quiet = Generator(folder, server, images, clients=1, seconds=1.0 if short else 5.0, first=2_000_000).wait(60)
    full = Generator(folder, server, images, clients=clients, seconds=2.0 if short else 15.0, first=3_000_000).wait(120)
    normal = percentiles(row[1] for row in quiet["answered"] if row[2] == 200)
    capacity = rate(full["answered"], 0.5 if short else 5.0, 2.0 if short else 15.0)
    seen = len(server.records())
    with Memory(server.pid, 0.2) as memory:
        used = cpu_seconds(server.pid)
        task = {"rate": 10 * capacity, "seconds": seconds, "probe": 2.0 if short else 15.0, "first": 4_000_000}
        found = Generator(folder, server, images, timeout=120.0, **task).wait(300)
        used = cpu_seconds(server.pid) - used
    accepted = [row for row in found["answered"] if row[2] == 200]
    refused = [row for row in found["answered"] if row[2] != 200]
    counts = accounted([*found["answered"], *found["probed"]], server.records()[seen:])
    within = 2 * normal["p50"] / 1e3
    probed = [row for row in found["probed"] if row[2] == 200]
    ends = [row[0] + row[1] for row in probed if row[1] <= within]
    begins = [row[0] for row in found["answered"]]
    return {
        "capacity_images_a_second": capacity,
        "single_ms": normal,
        "sent_a_second": len(begins) / (max(begins) - min(begins)),
        "times_capacity": len(begins) / (max(begins) - min(begins)) / capacity,
        "seconds": seconds,
        "most_at_once": found["most_at_once"],
        "statuses": statuses(found["answered"]),
        "failures": found["failures"],
        "accepted_ms": percentiles(row[1] for row in accepted),
        "refused_ms": percentiles(row[1] for row in refused),
        "accepted_a_second": rate(found["answered"], 0.0, seconds),
        "share_of_capacity": rate(found["answered"], 0.0, seconds) / capacity,
        "queue_over_capacity_ms": QUEUE / capacity * 1e3,
        "seconds_to_first_accepted": min(row[0] for row in probed) - found["overload_end"] if probed else None,
        "seconds_to_normal": min(ends) - found["overload_end"] if ends else None,
        "records": counts,
        "faults": faults(counts),
        "largest_mb": max(memory.bytes) / 1e6,
        "generator_cores": found["cpu_seconds"] / found["wall_seconds"],
        "server_cores": used / found["wall_seconds"],
    }


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
