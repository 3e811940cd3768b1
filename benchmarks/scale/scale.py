"""How do time and memory of fit and predict on Ray grow with the images?

Each number of workers starts a Ray of its own on this machine; one that runs here already is left alone.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from benchmarks.measure import Record, made_images, parser, table
from benchmarks.scale.processes import Watch
from sapatchcore import SAPatchCore
from sapatchcore.memory.coreset import projection_of
from sapatchcore.scale.fit import fit
from sapatchcore.scale.predict import PART, predict
from sapatchcore.synth import screws

QUESTION = (
    "Seconds of each stage and peak memory of fit and predict on Ray, for 100 to 10,000 images and 1 and 2 workers"
)
SIDE = 256  # pixels of an image
DIFFERENT = 500  # images that are drawn; the others are these with noise of their own
NOISE = 2.0  # grey levels, standard deviation
BANK = 2000  # rows of the memory bank at every size
PARTS = 4  # of a predict at least, so that two workers have work
STAGES = ("embed", "coreset", "calibrate")


def main(arguments: list[str] | None = None) -> None:
    options = parser("scale", QUESTION)
    options.add_argument("--sizes", type=int, nargs="+", help="images (default: 100 1000 10000)")
    options.add_argument("--workers-list", type=int, nargs="+", default=[1, 2], help="(default: %(default)s)")
    given = options.parse_args(arguments)
    settings: dict[str, Any] = {"backbone": "builtin", "device": "cpu"}
    bank = BANK
    if given.quick:
        given.workers_list, bank = [1], 50
        settings |= {"resize": 64, "crop": None}
    given.sizes = given.sizes or ([12, 24, 48] if given.quick else [100, 1000, 10_000])
    record = Record("scale", QUESTION, given)
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as name:
        folder = Path(name)
        say(f"making {max(given.sizes)} images")
        files = made_files(folder / "all", max(given.sizes), 12 if given.quick else DIFFERENT)
        shape = shapes(settings)
        shape["image_bytes"] = sum(file.stat().st_size for file in files) / len(files)
        record["images"] = {**shape, "side": SIDE, "different": min(DIFFERENT, len(files)), "bank": bank}
        runs: list[dict[str, Any]] = []
        record["runs"] = runs
        for workers in given.workers_list:
            with ray_with(workers):
                for size in given.sizes:
                    say(f"{workers} workers, {size} images")
                    some = linked(files[:size], folder / str(size))
                    options_of = {**settings, "coreset_ratio": bank / (size * shape["patches"])}
                    runs.append(measured(some, folder / "model.safetensors", options_of, workers, shape))
                    record["growth"] = growth(runs)
                    record.write(given.output)  # a run that is cut off keeps what it has
    shown(record.content["results"])


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def made_files(folder: Path, count: int, different: int) -> list[Path]:
    """``count`` JPEG files of made screws in ``folder``, the first ``different`` of them drawn."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:06d}.jpg" for number in range(count)]
    shares = os.cpu_count() or 1
    with ProcessPoolExecutor(shares, mp_context=get_context("fork")) as pool:
        tasks = [pool.submit(write_images, files, share, shares, min(different, count)) for share in range(shares)]
        for task in tasks:
            task.result()
    return files


def write_images(files: Sequence[Path], share: int, shares: int, different: int) -> None:
    """The images whose drawing is in one share; each with all its variants."""
    for drawing in range(share, different, shares):
        pixels, _ = screws.render("good", SIDE, np.random.default_rng(drawing))
        for number in range(drawing, len(files), different):
            grey = NOISE if number != drawing else 0.0
            noisy = pixels + np.random.default_rng(number).normal(0, grey, pixels.shape)
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(files[number], quality=95)


def linked(files: Sequence[Path], folder: Path) -> Path:
    """A folder with these files alone, the same bytes."""
    folder.mkdir(exist_ok=True)
    for file in files if not any(folder.iterdir()) else ():
        os.link(file, folder / file.name)
    return folder


def shapes(settings: dict[str, Any]) -> dict[str, int]:
    """Of one image: its patches, bytes on disk while fit runs, bytes of projections, and numbers of a patch."""
    embedder = SAPatchCore(**settings).embedder
    ((_, patches),) = embedder.patches(list(made_images(1, SIDE)))
    local, context = patches.local[0], patches.context[0]
    return {
        "patches": len(local),
        "spill_bytes": 4 * (local.numel() + context.numel()),
        "projected_bytes": projection_of(embedder.settings, embedder.network)(patches).nbytes,
        "width": local.shape[1] + context.shape[1],
    }


@contextmanager
def ray_with(workers: int) -> Iterator[None]:
    import ray

    with tempfile.TemporaryDirectory(prefix="sr", ignore_cleanup_errors=True) as folder:  # sockets need short names
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address="local", num_cpus=workers, _temp_dir=folder, **quiet)
        try:
            yield
        finally:
            ray.shutdown()


def measured(folder: Path, model: Path, options: dict[str, Any], workers: int, shape: dict[str, Any]) -> dict[str, Any]:
    """fit and predict of the images in ``folder``."""
    size, clock = len(list(folder.iterdir())), Clock()
    with Watch() as watch:
        made = fit(folder, model, options, address="local", shares=workers, progress=clock)
    learned: dict[str, Any] = {
        "seconds": clock.fit(),
        "rounds": clock.calls["coreset"] + 1,
        "peak_mb": watch.peaks(),
        "processor_seconds": watch.seconds(),
        "spill_bytes": size * shape["spill_bytes"],
        "model_bytes": model_bytes(model),
        "bank": made["bank"],
    }
    scores, clock = model.with_name(f"scores-{workers}-{size}"), Clock()
    part = min(PART, math.ceil(size / PARTS))
    with Watch() as watch:
        found = predict(model, [folder], scores, address="local", workers=workers, part=part, progress=clock)
    predicted = {
        "seconds": clock.predict(),
        "peak_mb": watch.peaks(),
        "processor_seconds": watch.seconds(),
        "part": part,
        "table_bytes": sum(file.stat().st_size for file in scores.rglob("*.parquet")),
    }
    if found.images != size or found.errors:
        raise SystemExit(f"{found.images} of {size} images scored, {found.errors} errors")
    say(f"  fit {learned['seconds']['whole']:.1f} s, predict {predicted['seconds']['whole']:.1f} s")
    return {"workers": workers, "images": size, "fit": learned, "predict": predicted}


def model_bytes(path: Path) -> dict[str, int]:
    """Of a model file: its calibration, its training images' pictures, and the rest."""
    out = {"calibration": 0, "thumbnails": 0}
    with safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            kind = name.split(".")[0]
            if kind in out:
                out[kind] += file.get_tensor(name).nbytes
    return {**out, "rest": path.stat().st_size - sum(out.values())}


class Clock:
    """A progress callback that notes when each stage was first and last seen at work."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._begin = now, now()
        self._working: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self.calls = dict.fromkeys((*STAGES, "predict"), 0)

    def __call__(self, stage: str, done: int, _: int | None) -> None:
        if done:
            self._working.setdefault(stage, self._now())
        self._last[stage] = self._now()
        self.calls[stage] += 1

    def fit(self) -> dict[str, float]:
        """start: until the first images are embedded. Each stage then ends where it was last seen; write is the rest."""
        seconds = {"start": self._working["embed"] - self._begin}
        before = self._working["embed"]
        for stage in STAGES:
            end = self._last.get(stage, before)
            seconds[stage], before = end - before, end
        end = self._now()
        return {**seconds, "write": end - before, "whole": end - self._begin}

    def predict(self) -> dict[str, float]:
        """score: all from the start of Ray to the last part, the listing and the workers' start among it; sum: the rest."""
        end = self._now()
        score = self._last["predict"] - self._begin
        return {"score": score, "sum": end - self._begin - score, "whole": end - self._begin}


def growth(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By workers and stage: seconds = a + b · images, where there are three sizes or more."""
    out: dict[str, Any] = {}
    for workers in dict.fromkeys(run["workers"] for run in runs):
        of_these = sorted((run for run in runs if run["workers"] == workers), key=lambda run: run["images"])
        sizes = [run["images"] for run in of_these]
        if len(sizes) < 3:
            continue
        out[str(workers)] = {
            f"{work} {stage}": line(sizes, [run[work]["seconds"][stage] for run in of_these])
            for work in ("fit", "predict")
            for stage in of_these[0][work]["seconds"]
        }
    return out


def line(sizes: Sequence[int], seconds: Sequence[float]) -> dict[str, Any]:
    """Least squares of seconds = a + b · size, and the slope of their logarithms between the two largest sizes."""
    matrix = np.stack([np.ones(len(sizes)), np.array(sizes, float)], axis=1)
    (a, b), *_ = np.linalg.lstsq(matrix, np.array(seconds), rcond=None)
    residuals = np.array(seconds) - matrix @ np.array([a, b])
    few, many = (max(value, 1e-9) for value in seconds[-2:])
    slope = math.log(many / few) / math.log(sizes[-1] / sizes[-2])
    return {"a": float(a), "b": float(b), "residuals": residuals.tolist(), "exponent": slope}


def shown(results: dict[str, Any]) -> None:
    for workers, stages in results.get("growth", {}).items():
        print(f"\n{workers} workers")
        rows = [(name, one["a"], one["b"], one["exponent"]) for name, one in stages.items()]
        table(("stage", "a s", "b s an image", "exponent"), rows)


if __name__ == "__main__":
    sys.exit(main())
