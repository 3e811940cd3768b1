"""What all benchmarks share: an interleaved timer, the record of the machine, made images, the result file."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch

import sapatchcore
from sapatchcore.atomic import write_text
from sapatchcore.data.pixels import prepare
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.folders import open_dataset, training_images
from sapatchcore.datasets.samples import Dataset
from sapatchcore.embed.backbone import normalise
from sapatchcore.synth.write import SCENES, find_scene, write_dataset

RESULTS = Path(__file__).parent / "results"
BACKBONE = "wide_resnet50_2"

UInt8Array = npt.NDArray[np.uint8]
Seconds = dict[str, list[float]]  # for each variant, its time in every round


def parser(name: str, question: str, *, several: bool = False, needed: bool = True) -> argparse.ArgumentParser:
    """The options that every benchmark has; ``several``: --data takes folders, and must be given where it is ``needed``."""
    options = argparse.ArgumentParser(description=question)
    if several:
        options.add_argument("--data", type=Path, nargs="+", required=needed, help="folders, a category each")
    else:
        options.add_argument("--data", type=Path, help="folder of one category; without it: made images")
    options.add_argument("--quick", action="store_true", help="a tiny size: shows that it runs, measures nothing")
    options.add_argument(
        "--output", type=Path, default=RESULTS / f"{name}.json", help="result file (default: %(default)s)"
    )
    options.add_argument("--repeats", type=int, default=0, help="rounds (default: the benchmark's own)")
    return options


def interleaved(variants: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1) -> Seconds:
    """Time the variants in turns, A B C, B C A, …: what the machine does meanwhile meets all of them alike.

    The first ``warm_up`` rounds are not counted.
    """
    names, seconds = list(variants), {name: [] for name in variants}
    for turn in range(warm_up + repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            begin = time.perf_counter()
            variants[name]()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """Median, smallest and largest, times ``scale``."""
    return {
        "median": statistics.median(values) * scale,
        "min": min(values) * scale,
        "max": max(values) * scale,
        "rounds": len(values),
    }


def ratio(seconds: Seconds, one: str, other: str) -> dict[str, float]:
    """How many times as long ``one`` takes as ``other``: a ratio each round, then median and spread."""
    return spread([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])


def fastest(seconds: Seconds, names: Sequence[str]) -> str:
    return min(names, key=lambda name: statistics.median(seconds[name]))


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss survives exec: a child would start with its parent's size. VmHWM is the program's own.
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_subprocess(module: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``python -m module --child TASK`` in the repository's root; it prints a JSON object as its last line."""
    command = [sys.executable, "-m", module, "--child", json.dumps(task)]
    done = subprocess.run(command, cwd=RESULTS.parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module} --child failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def images_for(data: Path | None, count: int) -> list[Path] | list[UInt8Array]:
    """``count`` good images: the category's, again from the start where it has fewer, or made ones."""
    if data is None:
        return list(made_images(count))
    return list(itertools.islice(itertools.cycle(training_images(data)), count))


def made_images(count: int, size: int = 320, seed: int = 0) -> UInt8Array:
    """(count, size, size, 3) uint8: grey images, each a mixture of some Gaussian bumps on a soft slope."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for image in images:
        values = 120 + 40 * random.uniform(-1, 1) * rows + 40 * random.uniform(-1, 1) * columns
        for _ in range(12):
            y, x = random.uniform(0.1, 0.9, 2)
            wide, high = random.uniform(0.01, 0.12, 2)
            bump = np.exp(-(((rows - y) / high) ** 2) - ((columns - x) / wide) ** 2)
            values = values + random.uniform(-90, 90) * bump
        values = values + random.normal(0, 3, values.shape)
        image[:] = np.clip(values, 0, 255).astype(np.uint8)[:, :, None]
    return images


def test_set(data: Path | None) -> Dataset | None:
    return None if data is None else open_dataset(data)


def data_sets(given: argparse.Namespace, small: Mapping[str, Any]) -> Iterator[Dataset]:
    """The made data sets of ``--synth`` as they are published, with ``--quick`` of ``small`` numbers; then those of ``--data``.
    Made ones are gone when all of them have been."""
    with tempfile.TemporaryDirectory() as folder:
        for scene in filter(None, given.synth.split(",")):
            write_dataset(Path(folder) / scene, scene, **(small if given.quick else {}))
            yield open_dataset(Path(folder) / scene)
    yield from map(open_dataset, given.data or [])


def network_batches(
    sources: Sequence[Path] | Sequence[UInt8Array], batch_size: int, *, channels_last: bool, dtype: torch.dtype
) -> list[torch.Tensor]:
    """The images as the bare network takes them, decoded, resized, normalised: (n, 3, 224, 224) each."""
    pixels = np.stack([prepare(read_image(source), (256, 256), (224, 224)) for source in sources])
    memory = torch.channels_last if channels_last else torch.contiguous_format
    return [
        normalise(batch).to(dtype=dtype, memory_format=memory) for batch in torch.from_numpy(pixels).split(batch_size)
    ]


def bare_network(name: str, *, channels_last: bool, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """timm's network up to layer 3 and nothing else, random weights: the floor of every time here."""
    torch.manual_seed(0)
    network = timm.create_model(name.split(".")[0], pretrained=False, features_only=True, out_indices=(2, 3))
    network.eval().requires_grad_(False)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    return network.to(dtype=dtype, memory_format=memory)


@torch.inference_mode()
def run_network(network: torch.nn.Module, batches: Sequence[torch.Tensor]) -> None:
    for batch in batches:
        network(batch)


class Record:
    """One benchmark's result: created before the work, written after it."""

    def __init__(self, name: str, question: str, arguments: argparse.Namespace) -> None:
        self._begin = time.perf_counter()
        shown = {key: value for key, value in vars(arguments).items() if key not in ("output", "child")}
        # A folder's name says which images; where it lay is nobody's business.
        shown = {key: _without_folders(value) for key, value in shown.items()}
        self.content: dict[str, Any] = {
            "benchmark": name,
            "question": question,
            "arguments": shown,
            "environment": environment(),
            "results": {},
        }

    def __setitem__(self, key: str, value: object) -> None:
        self.content["results"][key] = value

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        self.content["environment"]["load_after"] = _load()
        self.content["seconds"] = round(time.perf_counter() - self._begin, 1)
        write_text(path, json.dumps(_rounded(self.content), indent=1, ensure_ascii=False) + "\n")
        print(f"\n{path.name}: {self.content['seconds']} s in all, load {_load()[0]:.2f}")


def environment() -> dict[str, Any]:
    """Where and with what: a number without it means nothing."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len((_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "sapatchcore": sapatchcore.__version__,
        "made_sets": {scene: find_scene(scene).VERSION for scene in SCENES},
        "load_before": _load(),
    }


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; numbers with three significant digits."""
    cells = [list(columns)] + [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def shown(values: Mapping[str, float]) -> str:
    """ "1.23 (1.20–1.31)": median, smallest, largest."""
    return f"{values['median']:.3g} ({values['min']:.3g}–{values['max']:.3g})"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _without_folders(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    return [_without_folders(one) for one in value] if isinstance(value, list) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _load() -> list[float]:
    with contextlib.suppress(OSError):
        return [round(value, 2) for value in os.getloadavg()]
    return []


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
