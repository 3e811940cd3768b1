"""How much longer than its network alone does a whole ``fit`` take?"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from benchmarks.measure import (
    BACKBONE,
    Record,
    bare_network,
    fastest,
    images_for,
    interleaved,
    network_batches,
    parser,
    ratio,
    run_network,
    shown,
    spread,
    table,
)
from sapatchcore import SAPatchCore
from sapatchcore.data.images import list_images
from sapatchcore.data.pixels import prepare
from sapatchcore.data.sources import read_image

QUESTION = "fit of 320 images at 1 %, files to memory bank, against the bare network over the same images"
WORKERS = (0, 1, 2, 4)


def main(arguments: list[str] | None = None) -> None:
    options = parser("fit", QUESTION)
    options.add_argument("--backbone", default=BACKBONE, help="random weights (default: %(default)s)")
    options.add_argument("--images", type=int, default=320, help="(default: %(default)s)")
    options.add_argument(
        "--full-resolution", type=Path, metavar="FOLDER", help="large images, repeated to 64, for the workers"
    )
    given = options.parse_args(arguments)
    name = given.backbone = "resnet18" if given.quick else given.backbone
    count, repeats = (16, 1) if given.quick else (given.images, given.repeats or 3)
    record = Record("fit", QUESTION, given)

    sources = images_for(given.data, count)
    record["fit"] = whole_fit(sources, name, repeats)
    if given.full_resolution:
        files = list_images(given.full_resolution)
        wanted = 8 if given.quick else 64
        record["workers"] = workers([files[i % len(files)] for i in range(wanted)], name, repeats)
    record.write(given.output)


def whole_fit(sources: list, name: str, repeats: int) -> dict[str, object]:
    detector = built(name, workers=2)
    parts: dict[str, list[float]] = {"embed": [], "coreset": [], "rest": []}
    batches = {flag: network_batches(sources, 8, channels_last=flag, dtype=torch.float32) for flag in (False, True)}
    networks = {flag: bare_network(name, channels_last=flag) for flag in (False, True)}
    variants = {
        "fit": lambda: parts_of_fit(detector, sources, parts),
        "network NCHW": lambda: run_network(networks[False], batches[False]),
        "network channels-last": lambda: run_network(networks[True], batches[True]),
    }
    for network, some in ((networks[flag], batches[flag][:2]) for flag in (False, True)):
        run_network(network, some)  # warm-up: a whole round that does not count would take too long
    seconds = interleaved(variants, repeats=repeats, warm_up=0)
    bare = fastest(seconds, ("network NCHW", "network channels-last"))
    found: dict[str, object] = {
        "images": len(sources),
        "seconds": {one: spread(values) for one, values in seconds.items()},
        "parts_of_fit": {part: spread(values) for part, values in parts.items()},
        "faster_bare_network": bare,
        "over_faster_bare_network": ratio(seconds, "fit", bare),
        "over_network_nchw": ratio(seconds, "fit", "network NCHW"),
        "over_network_channels_last": ratio(seconds, "fit", "network channels-last"),
    }
    rows = [
        (one, shown(found["seconds"][one]), shown(ratio(seconds, "fit", one)) if one != "fit" else "")
        for one in seconds
    ]
    rows += [(f"  fit: {part}", shown(spread(values)), "") for part, values in parts.items()]
    table((f"{len(sources)} images", "seconds", "fit / this"), rows)
    return found


def workers(files: list[Path], name: str, repeats: int) -> dict[str, object]:
    """How far decoding hides behind the network: fit with 0, 1, 2 and 4 threads, and both of them alone."""
    detectors = {count: built(name, workers=count) for count in WORKERS}
    batches = network_batches(files, 8, channels_last=True, dtype=torch.float32)
    network = bare_network(name, channels_last=True)

    def decode() -> None:
        for file in files:
            prepare(read_image(file), (256, 256), (224, 224))

    variants = {f"fit, workers {n}": lambda d=d: d.fit(files) for n, d in detectors.items()}
    variants |= {"decoding alone": decode, "network alone": lambda: run_network(network, batches)}
    run_network(network, batches[:1])
    seconds = interleaved(variants, repeats=repeats, warm_up=0)
    print()
    rows = [(one, shown(spread(values, 1000 / len(files)))) for one, values in seconds.items()]
    table((f"{len(files)} images of full resolution", "ms an image"), rows)
    return {
        "images": len(files),
        "ms_an_image": {one: spread(values, 1000 / len(files)) for one, values in seconds.items()},
        "over_workers_0": {f"workers {n}": ratio(seconds, f"fit, workers {n}", "fit, workers 0") for n in WORKERS},
    }


def built(name: str, *, workers: int) -> SAPatchCore:
    """A detector whose network is built and warm: one tiny fit did it."""
    detector = SAPatchCore(
        backbone=name, weights="random", coreset_ratio=0.01, batch_size=8, workers=workers, device="cpu"
    )
    return detector.fit(images_for(None, 8))


def parts_of_fit(detector: SAPatchCore, sources: list, parts: dict[str, list[float]]) -> None:
    begin = time.perf_counter()
    ends = {"embed": begin, "coreset": begin}

    def progress(stage: str, done: int, total: int | None) -> None:  # noqa: ARG001 - fit's signature
        ends[stage] = time.perf_counter()

    detector.fit(sources, progress)
    end = time.perf_counter()
    parts["embed"].append(ends["embed"] - begin)
    parts["coreset"].append(ends["coreset"] - ends["embed"])
    parts["rest"].append(end - ends["coreset"])


if __name__ == "__main__":
    sys.exit(main())
