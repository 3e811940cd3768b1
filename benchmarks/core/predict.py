"""How long does an image take, and what does a shorter number format cost in accuracy?"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
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
    test_set,
)
from sapatchcore import SAPatchCore
from sapatchcore.data.sources import read_image
from sapatchcore.score.metrics import auroc

QUESTION = "predict: ms an image against the bare network, for two banks, two batches and three formats"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BARE = ("network float32 NCHW", "network float32 channels-last")


def main(arguments: list[str] | None = None) -> None:
    options = parser("predict", QUESTION)
    options.add_argument("--backbone", default=BACKBONE, help="random weights (default: %(default)s)")
    options.add_argument("--train-images", type=int, default=320, help="(default: %(default)s)")
    options.add_argument("--images", type=int, default=32, help="timed, in a round (default: %(default)s)")
    options.add_argument("--precisions", default=",".join(DTYPES), help="(default: %(default)s)")
    given = options.parse_args(arguments)
    precisions = given.precisions.split(",")
    name = given.backbone = "resnet18" if given.quick else given.backbone
    train, count, repeats = (16, 8, 1) if given.quick else (given.train_images, given.images, given.repeats or 5)
    record = Record("predict", QUESTION, given)

    dataset = test_set(given.data)
    sources = [sample.path for sample in dataset.test] if dataset else images_for(None, count)
    # Spread over the test set, decoded once: a camera hands over pixels, not files.
    indices = np.linspace(0, len(sources) - 1, count).astype(int)
    pixels = [read_image(sources[index]) for index in indices]
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
        models = fitted(Path(folder), images_for(given.data, train), name)
        for batch_size in (8, 1):
            record[f"batch {batch_size}"] = times(models, pixels, name, batch_size, precisions, repeats)
        if dataset:
            tested = dataset.test[:: 20 if given.quick else 1]
            record["image_auroc"] = accuracy(models, tested, precisions)
    record.write(given.output)


def fitted(folder: Path, sources: list, name: str) -> dict[str, Path]:
    """A model file for each attention and each size of the bank."""
    models = {}
    for attention in ("self", "none"):
        for share in (0.01, 0.1):
            detector = SAPatchCore(
                backbone=name, weights="random", attention=attention, coreset_ratio=share, device="cpu"
            ).fit(sources)
            file = folder / f"{attention}-{share}.safetensors"
            detector.save(file)
            models[f"attention {attention}, bank {len(detector.memory_bank)}"] = file
    return models


def times(
    models: dict[str, Path], pixels: list, name: str, batch_size: int, precisions: list[str], repeats: int
) -> dict[str, object]:
    variants = {}
    for model, file in models.items():
        for precision in precisions:
            detector = SAPatchCore.load(file, device="cpu", precision=precision, batch_size=batch_size)
            variants[f"{model}, {precision}"] = lambda d=detector: d.predict(pixels)
    for precision in precisions:
        for channels_last in (False, True) if precision == "float32" else (True,):
            network = bare_network(name, channels_last=channels_last, dtype=DTYPES[precision])
            batches = network_batches(pixels, batch_size, channels_last=channels_last, dtype=DTYPES[precision])
            order = "channels-last" if channels_last else "NCHW"
            variants[f"network {precision} {order}"] = lambda n=network, b=batches: run_network(n, b)
    seconds = interleaved(variants, repeats=repeats)
    bare = fastest(seconds, BARE)
    found: dict[str, object] = {"images": len(pixels), "faster_bare_network": bare, "variants": {}}
    rows = []
    for variant, values in seconds.items():
        one: dict[str, object] = {"ms_an_image": spread(values, 1000 / len(pixels))}
        one["over_bare_float32_network"] = ratio(seconds, variant, bare)
        model, _, precision = variant.rpartition(", ")
        if model:
            one["over_own_float32"] = ratio(seconds, variant, f"{model}, float32")
        found["variants"][variant] = one
        rows.append(
            (
                variant,
                shown(one["ms_an_image"]),
                shown(one["over_bare_float32_network"]),
                shown(one["over_own_float32"]) if model else "",
            )
        )
    print()
    table((f"batch {batch_size}", "ms an image", "/ bare float32 network", "/ own float32"), rows)
    return found


def accuracy(models: dict[str, Path], samples: tuple, precisions: list[str]) -> dict[str, dict[str, float]]:
    """Image AUROC of each model in each format, labels by folder."""
    labels = [not sample.is_good for sample in samples]
    found: dict[str, dict[str, float]] = {}
    for model, file in models.items():
        found[model] = {}
        for precision in precisions:
            detector = SAPatchCore.load(file, device="cpu", precision=precision)
            found[model][precision] = auroc(labels, detector.predict([one.path for one in samples]).scores)
    print()
    table(("image AUROC", *precisions), [(model, *values.values()) for model, values in found.items()])
    return found


if __name__ == "__main__":
    sys.exit(main())
