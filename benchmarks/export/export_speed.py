"""How fast is an exported model beside anomalib's PatchCore in its own OpenVINO export, and what does int8 cost in accuracy?

Ours begins at the raw image and ends at the map of its size, with self-attention; batch 1, all cores, banks of one size, random
weights. anomalib runs in an environment of its own, made here by uv; see export_speed_anomalib.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from uv import find_uv_bin

from benchmarks.measure import (
    BACKBONE,
    Record,
    Seconds,
    bare_network,
    images_for,
    interleaved,
    made_images,
    network_batches,
    parser,
    ratio,
    shown,
    spread,
    table,
    test_set,
)
from sapatchcore import SAPatchCore, open_exported
from sapatchcore.data.images import list_images
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.export.export import export_model
from sapatchcore.export.runtime import onnx_session, openvino_session
from sapatchcore.score.metrics import auroc

QUESTION = (
    "an exported model, raw image to map: ms an image beside anomalib's OpenVINO export; image AUROC by precision"
)
OPPONENT = "anomalib[openvino]==2.7.*"
ROWS, PATCHES = 2508, 784  # of the bank; of an image at 224×224
SUFFIXES = {"OpenVINO": ".xml", "ONNX Runtime": ".onnx"}
PRECISIONS = ("float32", "int8")  # of network and bank
BARE = "bare network in OpenVINO, float32"

Variants = dict[str, Callable[[], object]]


def main(arguments: list[str] | None = None) -> None:
    options = parser("export_speed", QUESTION)
    options.add_argument("--train-images", type=int, default=64, help="that the bank comes from (default: %(default)s)")
    options.add_argument("--images", type=int, default=8, help="timed, in a round (default: %(default)s)")
    options.add_argument("--full-resolution", type=Path, metavar="FOLDER", help="images to time; without it, made ones")
    options.add_argument("--runtimes", default=",".join(SUFFIXES), help="(default: %(default)s)")
    options.add_argument(
        "--temperature", type=float, default=1.0, help="below 1: attention as sharp as of trained weights"
    )
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="for the environment: the next run has it already")
    options.add_argument("--without-anomalib", action="store_true", help="measure ours alone")
    given = options.parse_args(arguments)
    name, patches = ("resnet18", 64) if given.quick else (BACKBONE, PATCHES)
    small: dict[str, Any] = {"resize": 64, "crop": None} if given.quick else {}
    train, count, repeats = (8, 2, 1) if given.quick else (given.train_images, given.images, given.repeats or 9)
    runtimes = {runtime: SUFFIXES[runtime] for runtime in given.runtimes.split(",")}
    record = Record("export_speed", QUESTION, given)
    record["versions"] = {"openvino": openvino.__version__}
    record["processor"] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    raw = timed_images(given.full_resolution, count)
    learned = images_for(given.data, train)
    rows = min(ROWS, train * patches // 2)
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        detector = SAPatchCore(
            backbone=name,
            weights="random",
            device="cpu",
            coreset_ratio=(rows + 0.25) / (train * patches),
            temperature=given.temperature,
            **small,
        ).fit(learned)
        record["bank"] = list(detector.memory_bank.shape)
        files, record["export"] = exported(detector, Path(temporary), name, runtimes)
        variants = {**ours(files, raw), BARE: bare(name, raw)}
        with opponent(folder, raw, name, rows, wanted=not given.without_anomalib) as theirs:
            record["versions"] = {"openvino": openvino.__version__, "theirs": theirs.pop("versions", None)}
            seconds = interleaved({**variants, **theirs}, repeats=repeats)
        record["speed"] = speed(seconds, count)
        if dataset := test_set(given.data):
            built_in = SAPatchCore(backbone="builtin", device="cpu", coreset_ratio=detector.settings.coreset_ratio).fit(
                learned
            )
            files |= exported(built_in, Path(temporary), built_in.settings.backbone, runtimes)[0]
            record["accuracy"] = accuracy(files, dataset, 20 if given.quick else 1)
    record.write(given.output)


def timed_images(folder: Path | None, count: int) -> np.ndarray:
    """(count, h, w, 3) uint8 of one size, 1024×1024 where they are made."""
    if folder is None:
        return made_images(count, size=1024, seed=1)
    files = list_images(folder)
    return np.stack([read_image(files[k % len(files)]) for k in range(count)])


def exported(
    detector: SAPatchCore, folder: Path, name: str, runtimes: dict[str, str]
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The detector's files by "network, runtime precision", and what the export took and found."""
    files: dict[str, Path] = {}
    exports: dict[str, Any] = {}
    for runtime, suffix in runtimes.items():
        for precision in PRECISIONS:
            files[f"{name}, {runtime} {precision}"] = file = folder / f"{name}-{runtime}-{precision}{suffix}"
            begin = time.perf_counter()
            said = export_model(detector, file, precision=precision, bank_precision=precision)
            took = time.perf_counter() - begin
            print(f"exported {file.name} in {took:.0f} s", flush=True)
            exports[f"{runtime} {precision}"] = {
                "seconds": took,
                "bytes": sum(one.stat().st_size for one in folder.glob(f"{file.stem}.*")),
                "check": said["check"],
            }
    return files, exports


def ours(files: dict[str, Path], raw: np.ndarray) -> Variants:
    """graph: a call of the runtime, all outputs. predict: the package's own way, from pixels to result and map."""
    variants: Variants = {}
    for name, file in files.items():
        what = f"ours, {name.partition(', ')[2]}"
        content = file.read_bytes()
        session = (
            onnx_session(what, content, threads=None)
            if file.suffix == ".onnx"
            else openvino_session(what, content, file.with_suffix(".bin").read_bytes(), threads=None)
        )
        whole = open_exported(file)
        variants[f"{what}: graph"] = lambda s=session: [s.run(raw[k : k + 1]) for k in range(len(raw))]
        variants[f"{what}: predict"] = lambda w=whole: [w.predict([image]).maps[0] for image in raw]
    return variants


def bare(name: str, raw: np.ndarray) -> Callable[[], object]:
    """The network up to layer 3 and nothing else."""
    inputs = network_batches(list(raw), 1, channels_last=False, dtype=torch.float32)
    network = torch.export.export(bare_network(name, channels_last=False), (inputs[0],))
    model = openvino.convert_model(network)
    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    return lambda: [compiled(one.numpy()) for one in inputs]


@contextmanager
def opponent(folder: Path, raw: np.ndarray, name: str, rows: int, *, wanted: bool) -> Iterator[dict[str, Any]]:
    """What to time of anomalib's, and under "versions" of what; nothing where it is not wanted."""
    if not wanted:
        yield {}
        return
    python = environment(folder / "anomalib")
    np.save(folder / "raw.npy", raw)
    np.save(
        folder / "seen.npy", torch.cat(network_batches(list(raw), 1, channels_last=False, dtype=torch.float32)).numpy()
    )
    script = Path(__file__).with_name("export_speed_anomalib.py")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    command = [str(python), str(script)]
    done = subprocess.run(
        [*command, "build", str(folder), name, str(rows)],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"anomalib's export failed:\n{done.stderr[-2000:]}")
    with (
        (folder / "anomalib.log").open("w") as log,
        subprocess.Popen(
            [*command, "serve", str(folder)],
            cwd=folder,
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        hello = answer(process)
        yield {"versions": hello["versions"]} | {
            f"anomalib, {one}": lambda one=one: answer(process, {"name": one, "runs": len(raw)})
            for one in hello["variants"]
        }
        process.stdin.close()  # type: ignore[union-attr]


def environment(folder: Path) -> Path:
    """The Python of an environment with the opponent, made where it is not there yet."""
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        for command in (
            ["venv", "--clear", "--python", sys.executable, str(folder)],
            ["pip", "install", "--python", str(python), OPPONENT],
        ):
            done = subprocess.run([find_uv_bin(), *command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"uv {command[0]} failed:\n{done.stderr[-2000:]}")
        (folder / "ready").touch()
    return python


def answer(process: subprocess.Popen[str], asked: dict[str, Any] | None = None) -> dict[str, Any]:
    """The next line from a process that answers lines of JSON, after the question ``asked``."""
    assert process.stdin is not None
    assert process.stdout is not None
    if asked is not None:
        print(json.dumps(asked), file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit("anomalib's process ended before it answered; anomalib.log says why.")
    return dict(json.loads(line))


def speed(seconds: Seconds, count: int) -> dict[str, Any]:
    """Of every variant ms an image; of every one of ours how many times faster it is than each of theirs of its kind."""
    found: dict[str, Any] = {"ms_an_image": {name: spread(values, 1000 / count) for name, values in seconds.items()}}
    table(("", "ms an image"), [(name, shown(values)) for name, values in found["ms_an_image"].items()])
    for kind in ("graph", "predict"):
        theirs = [name for name in seconds if name.startswith(f"anomalib, {kind}")]
        mine = [name for name in seconds if name.startswith("ours") and name.endswith(kind)]
        faster = {name: {other: ratio(seconds, other, name) for other in theirs} for name in mine}
        found[f"times_faster, {kind}"] = faster
        rows = [(name, *(shown(one) for one in values.values())) for name, values in faster.items()]
        print()
        table((f"times faster, {kind}", *theirs), rows)
    found["over_bare_network"] = {name: ratio(seconds, name, BARE) for name in seconds if name.endswith("graph")}
    return found


def accuracy(files: dict[str, Path], dataset: Dataset, step: int) -> dict[str, Any]:
    """Image AUROC of every file, labels by folder."""
    samples = dataset.test[::step]
    labels = [not sample.is_good for sample in samples]
    found: dict[str, Any] = {"images": len(samples), "image_auroc": {}}
    for name, file in files.items():
        found["image_auroc"][name] = auroc(labels, open_exported(file).predict([one.path for one in samples]).scores)
    print()
    table(("image AUROC", ""), list(found["image_auroc"].items()))
    return found


if __name__ == "__main__":
    sys.exit(main())
