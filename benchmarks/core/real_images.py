"""How accurate are both models on real images with random weights, and how much does the seed matter?

Random weights only: what a pretrained network reaches is another question (``sapatchcore benchmark ROOT``).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Record, parser, spread, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.verify.evaluate import evaluate

QUESTION = "Accuracy on real images: category × network (random weights) × attention × seed"
METRICS = ("image_auroc", "pixel_auroc", "pixel_f1", "aupro")


def main(arguments: list[str] | None = None) -> None:
    options = parser("real_images", QUESTION, several=True)
    options.add_argument("--backbones", default="resnet18,wide_resnet50_2", help="(default: %(default)s)")
    options.add_argument("--weights", default="random", help="'random', 'pretrained' or a file")
    options.add_argument("--attentions", default="self,none", help="(default: %(default)s)")
    options.add_argument("--seeds", default="0,1,2", help="(default: %(default)s)")
    options.add_argument("--coreset-ratio", type=float, default=0.01, help="(default: %(default)s)")
    given = options.parse_args(arguments)
    backbones = ["resnet18"] if given.quick else given.backbones.split(",")
    seeds = [0] if given.quick else [int(seed) for seed in given.seeds.split(",")]
    record = Record("real_images", QUESTION, given)

    runs, rows = [], []
    for folder in given.data:
        dataset = subset(open_dataset(folder)) if given.quick else open_dataset(folder)
        for backbone in backbones:
            for attention in given.attentions.split(","):
                found = [run(dataset, given, backbone, attention, seed) for seed in seeds]
                runs += found
                means = [mean([one["metrics"][name] for one in found]) for name in METRICS]
                rows.append((dataset.name, backbone, attention, len(found), *means))
                print(*rows[-1], flush=True)
    record["runs"] = runs
    print()
    table(("category", "network", "attention", "seeds", *METRICS), rows)
    record.write(given.output)


def run(dataset: Dataset, given: argparse.Namespace, backbone: str, attention: str, seed: int) -> dict[str, object]:
    detector = SAPatchCore(
        backbone=backbone,
        weights=given.weights if given.weights in ("random", "pretrained") else str(Path(given.weights)),
        attention=attention,
        coreset_ratio=given.coreset_ratio,
        seed=seed,
    )
    detector.fit([sample.path for sample in dataset.train])
    evaluation = evaluate(detector, dataset).to_dict()
    return {
        "category": dataset.name,
        "backbone": backbone,
        "weights": Path(given.weights).name,
        "attention": attention,
        "coreset_ratio": given.coreset_ratio,
        "seed": seed,
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "metrics": {name: number(evaluation, name) for name in METRICS},
    }


def number(evaluation: dict[str, object], name: str) -> float | None:
    value = evaluation.get(name)
    return float(value) if isinstance(value, int | float) and value == value else None


def mean(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    found = spread(there)
    return f"{sum(there) / len(there):.3f} ({found['min']:.3f}–{found['max']:.3f})"


def subset(dataset: Dataset) -> Dataset:
    """A few images of each kind, for --quick."""
    return replace(dataset, train=dataset.train[:8], test=dataset.test[::12])


if __name__ == "__main__":
    sys.exit(main())
