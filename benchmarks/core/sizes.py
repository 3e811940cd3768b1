"""What do larger inputs cost, and what do they find? The recommended preset with the shorter side at 256, 384 and 512.

Of every data set some images, so that the largest size takes minutes; all sizes see the same. Milliseconds are of ``predict``,
one image at a time, all sizes in turns.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.core.recommended import at_rate
from benchmarks.measure import Record, data_sets, interleaved, parser, ratio, shown, spread, table
from sapatchcore import SAPatchCore
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset, Sample
from sapatchcore.verify.evaluate import evaluate_result

QUESTION = "The recommended preset at several sizes: image AUROC, AUPRO, defects found, milliseconds an image"
TRAIN, GOOD, EACH = 100, 40, 15  # images at most: to learn from; good ones and those of each kind to test
RATE = 0.05
TIMED = 8


def main(arguments: list[str] | None = None) -> None:
    options = parser("sizes", QUESTION, several=True, needed=False)
    options.add_argument("--backbone", default="builtin", help="(default: %(default)s)")
    options.add_argument("--sizes", default="256,384,512", help="of the shorter side (default: %(default)s)")
    options.add_argument("--synth", default="screws", help="made data sets (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.sizes = "64,96"
    sizes = [int(size) for size in given.sizes.split(",")]
    record = Record("sizes", QUESTION, given)
    runs: list[dict[str, Any]] = []
    record["runs"] = runs
    small = {"side": 96, "train": 8, "test": {"good": 3, "scratch": 2}}
    for dataset in data_sets(given, small):
        detectors = {}
        for size in sizes:
            options = {"backbone": given.backbone, "preset": "recommended", "resize": size, "batch_size": 4}
            detectors[size] = SAPatchCore(**options)
            runs.append({"dataset": dataset.name, "resize": size, **run(detectors[size], some_of(dataset))})
            record.write(given.output)  # a run that is cut off keeps what it has
        if "milliseconds" not in record.content["results"]:
            record["milliseconds"] = milliseconds(detectors, dataset, 1 if given.quick else given.repeats or 5)
    record.write(given.output)


def some_of(dataset: Dataset) -> Dataset:
    """Evenly spread over the training images, and over the test images of each label."""
    labels = {sample.label for sample in dataset.test}
    test = [spread_out([one for one in dataset.test if one.label == label], label) for label in sorted(labels)]
    train = spread_out(list(dataset.train), "", TRAIN)
    return replace(dataset, train=tuple(train), test=tuple(sample for samples in test for sample in samples))


def spread_out(samples: list[Sample], label: str, most: int | None = None) -> list[Sample]:
    most = most or (GOOD if label == "good" else EACH)
    return [
        samples[at] for at in np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int))
    ]


def run(detector: SAPatchCore, dataset: Dataset) -> dict[str, Any]:
    detector.fit([sample.path for sample in dataset.train])
    result = detector.predict([sample.path for sample in dataset.test])
    evaluation = evaluate_result(result, dataset)
    labels = np.array([sample.label for sample in dataset.test])
    rate = at_rate(result, labels, RATE)
    bad = [counts for label, counts in rate["kinds"].items() if label != "good"]
    found = {
        "input": list(detector.settings.resize),
        "train": len(dataset.train),
        "test": len(dataset.test),
        "rows": len(detector.memory_bank),
        "image_auroc": evaluation.image_auroc,
        "aupro": None if math.isnan(evaluation.pixel.aupro) else evaluation.pixel.aupro,
        "per_defect": dict(evaluation.per_defect_auroc),
        "rate": rate["rate"],
        "found": sum(one["rejected"] for one in bad) / sum(one["images"] for one in bad),
        "rejected": rate["kinds"]["good"]["rejected"] / rate["kinds"]["good"]["images"],
    }
    shown_names = ("input", "image_auroc", "aupro", "found", "rejected")
    table(("data set", *shown_names), [(dataset.name, *(found[name] or "" for name in shown_names))])
    return found


def milliseconds(detectors: dict[int, SAPatchCore], dataset: Dataset, repeats: int) -> dict[str, Any]:
    """Of predict, an image: at each size, and over the first size's."""
    pixels = [read_image(sample.path) for sample in dataset.test[:TIMED]]

    def every(detector: SAPatchCore) -> None:
        for image in pixels:
            detector.predict(image)

    variants = {str(size): lambda one=one: every(one) for size, one in detectors.items()}
    seconds = interleaved(variants, repeats=repeats)
    first = next(iter(variants))
    rows = [
        (size, shown(spread(values, 1e3 / len(pixels))), shown(ratio(seconds, size, first)))
        for size, values in seconds.items()
    ]
    table(("side", "ms an image", f"over {first}"), rows)
    return {
        "dataset": dataset.name,
        "predict_ms": {size: spread(values, 1e3 / len(pixels)) for size, values in seconds.items()},
        "over_first": {size: ratio(seconds, size, first) for size in seconds},
    }


if __name__ == "__main__":
    sys.exit(main())
