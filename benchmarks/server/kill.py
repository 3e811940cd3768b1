"""SIGKILL while the server works: what it answered must be in the records, and everything on disk whole."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.server.answers import accounted, faults
from benchmarks.server.process import INSPECT, MODEL, Generator, Server
from sapatchcore import SAPatchCore

UPDATED = "update: 200"
LOOKED_AT = 5  # records of each round that are asked from the server again
RECORDS_OWN = {"records.sqlite", "records.sqlite-wal", "records.sqlite-shm"}


def sigkill(folder: Path, server: Server, images: list[Path], *, rounds: int) -> dict[str, Any]:
    """``rounds`` times: eight clients ask, in every second round all images are kept, in every fourth the model is being
    updated, and at a random moment the process is killed. Then the database and the model are looked at as they lie, and the
    server starts again.
    """
    random = np.random.default_rng(0)
    answered: list[list[Any]] = []
    found: dict[str, Any] = {"rounds": rounds, "integrity": [], "left_behind": [], "models": [], "starts": []}
    updates: list[str] = []
    wrong_again = 0
    before = server.files()
    for number in range(rounds):
        target, updated = INSPECT + ("?keep=true" if number % 2 else ""), number % 4 == 3
        task = {"clients": 8, "seconds": 240.0, "until_gone": True, "target": target, "first": (5 + number) * 1_000_000}
        generator = Generator(folder, server, images, **task)
        ending = threading.Event()
        updating = threading.Thread(target=_updates, args=(server, ending, updates), daemon=True)
        if updated:
            updating.start()
            _wait_for_an_update(updates, updates.count(UPDATED) + 1)
        time.sleep(1.2 + float(random.uniform(0, 3)))
        server.kill()
        ending.set()
        answered += generator.wait(90)["answered"]
        if updated:
            updating.join(150)
        found["integrity"].append(server.integrity())  # the database as it lies: opening it takes in its log
        found["models"].append(_model(server))
        found["starts"].append(server.start())
        found["left_behind"] += sorted(server.files() - before - {f"records/{name}" for name in RECORDS_OWN})
        for row in [row for row in answered if row[2] == 200][-LOOKED_AT:]:
            wrong_again += server.get(f"/v1/records/{row[3]}")["image_hash"] != row[4]
    counts = accounted(answered, server.records())
    found |= {"updates": dict(Counter(updates)), "records": counts, "faults": faults(counts)}
    return {**found, "other_hash_from_the_server": wrong_again}


def _model(server: Server) -> str:
    """ "whole", or what is wrong with the model file that the killed server left."""
    try:
        SAPatchCore.load(server.folder / "models" / f"{MODEL}.safetensors", device="cpu")
    except Exception as error:  # whatever a half-written file raises is the finding
        return f"{type(error).__name__}: {error}"
    return "whole"


def _wait_for_an_update(updates: list[str], count: int) -> None:
    """Until that many updates are done, or two minutes at most: then the next one is under way."""
    end = time.perf_counter() + 120
    while updates.count(UPDATED) < count and time.perf_counter() < end:
        time.sleep(0.05)


def _updates(server: Server, ending: threading.Event, done: list[str]) -> None:
    """Learn from what was kept, again and again, until the server is gone; what came of each step goes to ``done``."""
    while not ending.is_set():
        try:
            kept = server.get("/v1/records?limit=400&verdict=accept")["records"]
            numbers = [record["record"] for record in kept if record["has_image"]][:4]
            for number in numbers:
                server.post(f"/v1/models/{MODEL}/feedback", {"record": number, "label": "good"})
            status, preview = server.post(f"/v1/models/{MODEL}/update/preview", {"records": numbers})
            done.append(f"preview: {status}")
            if status == 200:
                status, _ = server.post(f"/v1/models/{MODEL}/update", {"preview": preview["preview"]})
                done.append(f"update: {status}")
        except (httpx.HTTPError, ValueError):
            done.append("cut off")
            time.sleep(0.05)
