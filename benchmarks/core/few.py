"""How good is a model of few good images, and do turned copies of them help?

The recommended preset. The seed draws the good images, the same ones with and without `augment`, and fewer are the first of more.
Image AUROC over the same test images each time, which are embedded once and compared with every bank.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.core.method import subset
from benchmarks.measure import Record, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.data.sources import Batch, read_batches
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.embed.patches import Embedder, Patches
from sapatchcore.embed.whitening import ready
from sapatchcore.result import gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.metrics import auroc

QUESTION = "1 to 16 good images, with turned copies and without: image AUROC"
AUGMENT = ("none", "rotate")

Seen = list[tuple[Batch, Patches]]


def main(arguments: list[str] | None = None) -> None:
    options = parser("few", QUESTION, several=True)
    options.add_argument("--backbone", default="builtin", help="(default: %(default)s)")
    options.add_argument("--weights", default="pretrained", help="'pretrained', or 'random', which measures nothing")
    options.add_argument("--resize", type=int, default=256, help="of the shorter side (default: %(default)s)")
    options.add_argument("--images", default="1,4,8,16", help="good images (default: %(default)s)")
    options.add_argument("--coreset-ratios", default="0.01", help="(default: %(default)s)")
    options.add_argument("--seeds", default="0,1,2", help="(default: %(default)s)")
    options.add_argument("--test", type=int, default=0, help="test images, evenly spread (default: all)")
    given = options.parse_args(arguments)
    if given.quick:
        given.resize, given.images, given.seeds = 64, "1,4", "0"
    record = Record("few", QUESTION, given)
    runs: list[dict[str, Any]] = []
    record["runs"] = runs
    for dataset in map(open_dataset, given.data):
        dataset = subset(dataset) if given.quick else dataset
        if given.test:
            at = np.unique(np.linspace(0, len(dataset.test) - 1, given.test).round().astype(int))
            dataset = replace(dataset, test=tuple(dataset.test[index] for index in at))
        runs += of_set(dataset, given)
        record.write(given.output)  # a run that is cut off keeps what it has


def of_set(dataset: Dataset, given: Any) -> list[dict[str, Any]]:
    """Every number of images, coreset ratio and seed of one data set, with copies and without."""
    wrong = np.array([not sample.is_good for sample in dataset.test])
    seen: Seen = []
    found = []
    for seed in map(int, given.seeds.split(",")):
        order = np.random.default_rng(seed).permutation(len(dataset.train))
        for count in map(int, given.images.split(",")):
            train = [dataset.train[index].path for index in order[:count]]
            for ratio in map(float, given.coreset_ratios.split(",")):
                row: dict[str, Any] = {
                    "dataset": dataset.name,
                    "test": len(dataset.test),
                    "images": len(train),
                    "coreset_ratio": ratio,
                    "seed": seed,
                    "image_auroc": {},
                    "copies": 0,
                }
                for augment in AUGMENT:
                    detector = SAPatchCore(
                        preset="recommended",
                        backbone=given.backbone,
                        weights=given.weights,
                        resize=given.resize,
                        coreset_ratio=ratio,
                        seed=seed,
                        augment=augment,
                    ).fit(train)
                    row["image_auroc"][augment] = auroc(wrong, scores(detector, dataset, seen))
                    row["copies"] = max(row["copies"], sum(map(bool, detector.turns)))
                found.append(row)
    columns = ("images", "coreset_ratio", "seed", *AUGMENT)
    print(f"\n{dataset.name}")
    table(columns, [(*(row[name] for name in columns[:3]), *row["image_auroc"].values()) for row in found])
    return found


def scores(detector: SAPatchCore, dataset: Dataset, seen: Seen) -> np.ndarray:
    """Image scores of the test images. seen: their patches, not whitened, the same for all of a data set; filled by the first
    call."""
    settings = detector.settings
    if not seen:
        # A single image has no global part, those that follow do; the whitening is each detector's own.
        whole = settings.model_copy(update={"global_part": "pooled", "metric": "euclidean"})
        embedder = Embedder(whole, detector.embedder.network.weights)
        seen += [
            (batch, embedder.embed(batch)) for batch in read_batches([sample.path for sample in dataset.test], whole)
        ]
    by = ready(detector.embedder.whitening, detector.bank.rows.device)
    whitened = (
        (batch, replace(patches, local=patches.local @ by.local, context=patches.context @ by.context))
        for batch, patches in seen
    )
    scored = ((batch, score_patches(patches, detector.bank, settings)) for batch, patches in whitened)
    return gather_result(scored, settings).scores


if __name__ == "__main__":
    sys.exit(main())
