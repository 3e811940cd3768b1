"""Is the kind told right? What a defect is, against what the verdict calls it; and how far it moves either part.

Only the package's own interface is used: fit, predict, verdicts. Thresholds come from the training images alone. Of the
made sets the true kind is known; every defect of a given set counts as local.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.core.method import subset
from benchmarks.figures import CO_OCCURRENCE as WRONG_PAIRS
from benchmarks.measure import Record, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import GOOD, Dataset
from sapatchcore.result import Result
from sapatchcore.score.threshold import possible_rate
from sapatchcore.score.verdict import CO_OCCURRENCE, LOCAL, UNCLEAR
from sapatchcore.synth.write import find_scene, write_dataset

QUESTION = (
    "Verdicts: of each kind of defect, how many are rejected, and are these called local, co-occurrence or unclear?"
)
RATES = (0.01, 0.05)
CALLS = (LOCAL, CO_OCCURRENCE, UNCLEAR)


def main(arguments: list[str] | None = None) -> None:
    options = parser("kinds", QUESTION, several=True)
    options.add_argument("--coreset-ratio", type=float, default=0.01, help="(default: %(default)s)")
    options.add_argument("--synth", default="screws,kits", help="made data sets (default: %(default)s)")
    options.add_argument("--image-seeds", default="0,1", help="of made data sets (default: %(default)s)")
    options.add_argument("--side", type=int, default=350, help="pixels of a made image (default: %(default)s)")
    options.add_argument("--train", type=int, default=200, help="made images to learn from (default: %(default)s)")
    options.add_argument("--test", type=int, default=100, help="made images of each kind (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.image_seeds, given.side, given.train, given.test = "0", 128, 8, 2
    record = Record("kinds", QUESTION, given)
    runs: list[dict[str, Any]] = []
    record["runs"] = runs
    seeds = [int(seed) for seed in given.image_seeds.split(",")]
    made = [(scene, seed) for seed in seeds for scene in given.synth.split(",") if scene]
    with tempfile.TemporaryDirectory() as folder:
        for scene, seed in made:
            out = Path(folder) / str(seed) / scene
            counts = dict.fromkeys(find_scene(scene).KINDS, given.test)
            write_dataset(out, scene, side=given.side, train=given.train, test=counts, seed=seed)
            runs.append(run(open_dataset(out), given.coreset_ratio, image_seed=seed))
            record.write(given.output)  # a run that is cut off keeps what it has
    for dataset in map(open_dataset, given.data):
        runs.append(run(subset(dataset) if given.quick else dataset, given.coreset_ratio))
        record.write(given.output)


def run(dataset: Dataset, coreset_ratio: float, image_seed: int | None = None) -> dict[str, Any]:
    """The counts of one data set; image_seed: of a made one, which is inspected whole, since its part may lie anywhere."""
    crop = 224 if image_seed is None else None
    detector = SAPatchCore(backbone="builtin", attention="self", resize=256, crop=crop, coreset_ratio=coreset_ratio)
    detector.fit([sample.path for sample in dataset.train])
    result = detector.predict([sample.path for sample in dataset.test])
    labels = [sample.label for sample in dataset.test]
    pairs = () if image_seed is None else WRONG_PAIRS.get(dataset.name, ())
    found: dict[str, Any] = {
        "dataset": dataset.name,
        "image_seed": image_seed,
        "crop": crop,
        "train_images": len(dataset.train),
        "calibration_images": len(detector.calibration),
        "kinds": {
            label: {
                "images": labels.count(label),
                "true": "" if label == GOOD else CO_OCCURRENCE if label in pairs else LOCAL,
                **medians(result, labels, label),
            }
            for label in dict.fromkeys(labels)
        },
        "rates": [called(result, labels, rate) for rate in RATES],
    }
    print(f"\n{dataset.name}" + ("" if image_seed is None else f", image seed {image_seed}"))
    for one in found["rates"]:
        rows = [
            (label, kind["true"], f"{one['rejected'][label]}/{kind['images']}", *one["called"][label].values())
            for label, kind in found["kinds"].items()
        ]
        table((f"at {one['rate']:.3g}", "is", "rejected", *CALLS), rows)
    return found


def medians(result: Result, labels: list[str], label: str) -> dict[str, float]:
    """Of all images of a kind, rejected or not: the middle one's parts, as multiples of what is usual."""
    verdicts = [one for one, kind in zip(result.verdicts(), labels, strict=True) if kind == label]
    return {
        "local_ratio": statistics.median(one.local_ratio for one in verdicts),
        "context_ratio": statistics.median(one.context_ratio for one in verdicts),
    }


def called(result: Result, labels: list[str], asked: float) -> dict[str, Any]:
    """What the rejected images of each kind are called at the false-reject rate ``asked``, or the smallest possible one."""
    assert result.calibration is not None
    rate = possible_rate(len(result.calibration), asked)
    counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for label, verdict in zip(labels, result.verdicts(rate), strict=True):
        if verdict.rejected:
            counts[label][verdict.kind] += 1
    return {
        "asked": asked,
        "rate": rate,
        "rejected": {label: count.total() for label, count in counts.items()},
        "called": {label: {call: count[call] for call in CALLS} for label, count in counts.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
