"""Does the server hold under load, faults and bad input? Stages latency, throughput, overload, sigkill and fuzz, or some of them.

Each stage is bounded in time, stays on the loopback address and below a temporary folder, and replaces its own part of
results/load.json alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.measure import RESULTS, Record, table
from benchmarks.server.fuzz import fuzz
from benchmarks.server.kill import sigkill
from benchmarks.server.process import MODEL, Server
from benchmarks.server.stages import QUEUE, latency, overload, throughput
from sapatchcore import SAPatchCore
from sapatchcore.synth.write import write_dataset

QUESTION = "the server: latency over predict, throughput against predict, overload, SIGKILL under load, malformed input"
STAGES = ("latency", "throughput", "overload", "sigkill", "fuzz")
SMALL, LARGE = "jpeg 700", "png 1024"
KINDS = {"png 1024": ("PNG", 1024), "jpeg 700": ("JPEG", 700)}  # what cameras write: whole, and packed
TEST = {"good": 12, "paint": 2, "scratch": 2}  # a line sees mostly good parts


@dataclass(frozen=True)
class Material:
    """model: the file. images: of each of KINDS, the files."""

    model: Path
    images: dict[str, list[Path]]


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=QUESTION)
    options.add_argument("stages", nargs="*", help=f"some of {', '.join(STAGES)}; without one: all")
    options.add_argument("--quick", action="store_true", help="a tiny size: shows that it runs, measures nothing")
    options.add_argument("--output", type=Path, default=RESULTS / "load.json", help="(default: %(default)s)")
    given = options.parse_args(arguments)
    stages = given.stages or STAGES
    if unknown := sorted(set(stages) - set(STAGES)):
        options.error(f"there is no stage {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as name:
        material = make(Path(name), short=given.quick)
        for stage in stages:
            record = Record("load", QUESTION, given)
            begin = time.perf_counter()
            found = run(stage, Path(name), material, short=given.quick)
            table(("stage", "what", "figure"), [(stage, *row) for row in flat(found)])
            record.content["results"] = _others(given.output, stage)
            record[stage] = {
                **found,
                "environment": record.content["environment"],
                "took_seconds": time.perf_counter() - begin,
            }
            record.write(given.output)


def make(folder: Path, *, short: bool) -> Material:
    """Learn from 100 made images (short: 6 small ones), default settings, and write the images to inspect."""
    side, train = (160, 6) if short else (1024, 100)
    test = dict.fromkeys(TEST, 1) if short else TEST
    write_dataset(folder / "set", "screws", side=side, train=train, test=test)
    detector = SAPatchCore(backbone="builtin", device="cpu").fit(folder / "set")
    model = folder / "model.safetensors"
    detector.save(model)
    made = sorted((folder / "set" / "test").rglob("*.png"))
    images: dict[str, list[Path]] = {}
    for kind, (file_format, wanted) in KINDS.items():
        images[kind] = []
        for path in made:
            target = folder / kind.replace(" ", "_") / f"{path.parent.name}_{path.stem}.{file_format.lower()}"
            target.parent.mkdir(exist_ok=True)
            if file_format == "PNG":
                target.write_bytes(path.read_bytes())
            else:
                with Image.open(path) as picture:
                    small = picture.resize((min(wanted, side),) * 2, Image.Resampling.LANCZOS)
                small.save(target, file_format, quality=90)
            images[kind].append(target)
    return Material(model, images)


def run(stage: str, folder: Path, material: Material, *, short: bool) -> dict[str, Any]:
    """One stage on a server of its own."""
    work = folder / stage
    shutil.rmtree(work, ignore_errors=True)
    (work / "server" / "models").mkdir(parents=True)
    shutil.copy(material.model, work / "server" / "models" / f"{MODEL}.safetensors")
    server = Server(work / "server", "--queue", str(QUEUE))
    detector = SAPatchCore.load(material.model, device="cpu")
    found: dict[str, Any] = {"ready_after_seconds": server.start()}
    try:
        for kind in (LARGE, SMALL) if stage in ("latency", "throughput") else (SMALL,):
            images = material.images[kind]
            about = {
                "images": {
                    "kind": kind,
                    "files": len(images),
                    "bytes": sum(p.stat().st_size for p in images) // len(images),
                }
            }
            if stage == "latency":
                found[kind] = {**about, **latency(server, detector, images, short=short)}
            elif stage == "throughput":
                found[kind] = {**about, **throughput(work, server, detector, images, short=short)}
            elif stage == "overload":
                found |= {**about, **overload(work, server, images, short=short)}
            elif stage == "sigkill":
                found |= {**about, **sigkill(work, server, images, rounds=1 if short else 20)}
            else:
                found |= fuzz(work, server, short=short)
        found["tracebacks_in_the_log"] = len(server.tracebacks())
        found["stopped_with"] = server.stop()
    finally:
        server.kill()
    return found


def flat(found: dict[str, Any], front: str = "") -> list[tuple[str, object]]:
    """The figures with their whole names, for the table; long lists as their length."""
    rows: list[tuple[str, object]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += flat(value, f"{front}{name}: ")
        else:
            rows.append(
                (front + name, f"{len(value)} entries" if isinstance(value, list) and len(value) > 3 else value)
            )
    return rows


def _others(path: Path, stage: str) -> dict[str, Any]:
    """What the file says of the other stages; nothing where there is none."""
    if not path.is_file():
        return {}
    parts = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {name: part for name, part in parts.items() if name != stage}


if __name__ == "__main__":
    sys.exit(main())
