"""What does a machine need that only scores: megabytes on its disk, and seconds until it has begun?

Two fresh environments with the package's wheel: one with the extra "edge" (ONNX Runtime), one with "learn" (PyTorch). The
versions are those of requirements.txt. Times are of whole processes, from the call to the end.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from benchmarks.measure import Record, Seconds, interleaved, parser, ratio, shown, spread, table

ROOT = Path(__file__).parents[2]
QUESTION = "Installed size and start-up of the package without PyTorch (edge) and with it (learn)"
EXTRAS = ("edge", "learn")
# On Linux the package index's PyTorch comes for GPUs. What of it a machine without one never loads:
FOR_GPUS = ("nvidia", "triton", "torch/lib/libtorch_cuda*", "torch/lib/libtorch_nvshmem*", "torch/lib/libc10_cuda*")
READY = {
    "edge": "import onnxruntime; from sapatchcore import open_exported",
    "learn": "from sapatchcore import SAPatchCore",
}


def main(arguments: list[str] | None = None) -> None:
    options = parser("edge", QUESTION)
    options.add_argument("--model", type=Path, help="an exported model (.onnx): also times a whole predict with edge")
    options.add_argument("--learned", type=Path, help="the model file that it comes from: the same with learn")
    options.add_argument("--images", type=Path, help="folder of the images to predict")
    given = options.parse_args(arguments)
    if given.data is not None:
        options.error("--data means nothing here: use --model and --images")
    if (given.model is None) == (given.images is not None) or (given.learned is not None and given.model is None):
        options.error("--model, or --model and --learned, go with --images")
    repeats = 1 if given.quick else given.repeats or 7
    record = Record("edge", QUESTION, given)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = built(folder)
        environments = {
            extra: installed(folder / extra, wheel, extra) for extra in EXTRAS[: 1 if given.quick else None]
        }
        record["installed"] = {extra: size(site) for extra, (site, _) in environments.items()}
        programs = {extra: program for extra, (_, program) in environments.items()}
        record["seconds"] = timed(variants(programs, given.model, given.learned, given.images), repeats)
    show(record.content["results"])
    record.write(given.output)


def built(folder: Path) -> Path:
    """The package's wheel."""
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


def installed(folder: Path, wheel: Path, extra: str) -> tuple[Path, Path]:
    """A fresh environment with the wheel and one extra: its site-packages, and the folder of its programs."""
    uv("venv", "--python", sys.executable, str(folder))
    program = folder / "bin"
    package = f"sapatchcore[{extra}] @ {wheel.as_uri()}"
    pins = str(ROOT / "requirements.txt")
    # Compiled, as pip does it: else the first start would be another than those after it.
    uv("pip", "install", "--python", str(program / "python"), "--compile-bytecode", "--constraint", pins, package)
    return next(folder.glob("lib/python*/site-packages")), program


def uv(*command: str) -> None:
    done = subprocess.run([find_uv_bin(), *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv {command[0]} failed:\n{done.stderr[-2000:]}")


def size(site: Path) -> dict[str, Any]:
    """Megabytes of what lies in ``site``, in all and of its largest folders."""
    parts = {part.name: bytes_of([part]) for part in site.iterdir()}
    largest = sorted(parts, key=lambda name: -parts[name])[:8]
    return {
        "megabytes": sum(parts.values()) / 1e6,
        "of_it_for_gpus": bytes_of(file for pattern in FOR_GPUS for file in site.glob(pattern)) / 1e6,
        "packages": len(list(site.glob("*.dist-info"))),
        "largest": {name: parts[name] / 1e6 for name in largest},
    }


def bytes_of(paths: Iterable[Path]) -> int:
    """Bytes of the files ``paths``, and of all files in those that are folders; each once."""
    files = {file for path in paths for file in ([path] if not path.is_dir() else path.rglob("*"))}
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def variants(
    programs: dict[str, Path], model: Path | None, learned: Path | None, images: Path | None
) -> dict[str, dict[str, Callable[[], None]]]:
    """For each question, what to run in each environment. programs: the folder of each environment's programs."""
    asked: dict[str, dict[str, Callable[[], None]]] = {
        "sapatchcore --version": {extra: process(bin / "sapatchcore", "--version") for extra, bin in programs.items()},
        "import sapatchcore": {
            extra: process(bin / "python", "-c", "import sapatchcore") for extra, bin in programs.items()
        },
        "import what scores": {extra: process(bin / "python", "-c", READY[extra]) for extra, bin in programs.items()},
    }
    files = {extra: file for extra, file in (("edge", model), ("learn", learned)) if file is not None}
    if images is not None:
        asked["sapatchcore predict"] = {
            extra: process(programs[extra] / "sapatchcore", "predict", file, images, "--quiet")
            for extra, file in files.items()
            if extra in programs
        }
    return asked


def process(*command: str | Path) -> Callable[[], None]:
    """Runs the command to its end, outside of this environment."""
    # A compiled file may be written here, as on any machine; nothing of this process's path is to be found.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run() -> None:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=kept, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")

    return run


def timed(asked: dict[str, dict[str, Callable[[], None]]], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each, in turns, by the clock and of the processor; and how many times as long "learn" takes as "edge"."""
    used: Seconds = {}

    def counted(name: str, run: Callable[[], None]) -> Callable[[], None]:
        def work() -> None:
            begin = processor_seconds()
            run()
            used.setdefault(name, []).append(processor_seconds() - begin)

        return work

    names = {f"{what}: {extra}": run for what, runs in asked.items() for extra, run in runs.items()}
    clock = interleaved({name: counted(name, run) for name, run in names.items()}, repeats=repeats)
    # Other work on the machine does not count in the processor's own seconds, nor does waiting for the disk.
    taken = {"by_the_clock": clock, "by_the_processor": {name: values[-repeats:] for name, values in used.items()}}
    found: dict[str, dict[str, Any]] = {}
    for what, runs in asked.items():
        one, other = (f"{what}: {extra}" for extra in ("learn", "edge"))
        found[what] = {
            way: {extra: spread(seconds[f"{what}: {extra}"]) for extra in runs}
            | ({"learn_over_edge": ratio(seconds, one, other)} if len(runs) == 2 else {})
            for way, seconds in taken.items()
        }
    return found


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def show(results: dict[str, Any]) -> None:
    sizes = results["installed"]
    rows = [
        (extra, one["packages"], round(one["megabytes"]), round(one["megabytes"] - one["of_it_for_gpus"]))
        for extra, one in sizes.items()
    ]
    table(("extra", "packages", "MB", "MB without what is for GPUs"), rows)
    print()
    columns = (*sizes, "learn_over_edge")
    for way in ("by_the_clock", "by_the_processor"):
        rows = [
            (what, *(shown(one[way][column]) if column in one[way] else "–" for column in columns))
            for what, one in results["seconds"].items()
        ]
        table((f"seconds, {way.replace('_', ' ')}", *sizes, "learn / edge"), rows)
        print()


if __name__ == "__main__":
    sys.exit(main())
