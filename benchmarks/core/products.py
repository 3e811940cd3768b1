"""One model of several products: is the product told right, and does each image get the score of its product's own model?

The recommended preset. Each category is a product. Of every test image: the product that it was taken for, and whether it was
noted as unlike every one. Image AUROC of a category by the one model, each image as it was taken, beside that of a model of its
own, with the same input, and with the preset's own, which keeps the images' shape. And of each category: how many of its test
images are noted by a model of the others, which has never seen its like.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.core.method import subset
from benchmarks.measure import Record, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.memory.pooled import pooled
from sapatchcore.products.products import Products
from sapatchcore.products.telling import Telling
from sapatchcore.score.metrics import auroc

QUESTION = "One model of several products: products told right, image AUROC beside one model each"


def main(arguments: list[str] | None = None) -> None:
    options = parser("products", QUESTION, several=True)
    options.add_argument("--backbone", default="builtin", help="(default: %(default)s)")
    options.add_argument("--weights", default="pretrained", help="'pretrained', or 'random', which measures nothing")
    options.add_argument("--resize", type=int, default=256, help="(default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options.add_argument("--most", type=int, default=0, help="good images of a category (default: all)")
    options.add_argument("--test", type=int, default=0, help="test images of a category (default: all)")
    given = options.parse_args(arguments)
    if given.quick:
        given.resize = 64
    record = Record("products", QUESTION, given)
    datasets = {}
    for dataset in map(open_dataset, given.data):
        few = subset(dataset) if given.quick else dataset
        datasets[dataset.name] = replace(few, train=spread(few.train, given.most), test=spread(few.test, given.test))
    rows = compared(datasets, given)
    record["products"] = rows
    columns = (
        "product",
        "told right",
        "of defects",
        "noted",
        "noted, foreign",
        "together",
        "alone",
        "alone, own shape",
    )
    table(columns, [(row["dataset"], *(row[name] for name in NAMES)) for row in rows])
    record.write(given.output)


NAMES = ("told", "told_defects", "noted", "noted_foreign", "together", "alone", "alone_own_shape")


def spread(samples: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """``most`` of them, evenly spread; all where ``most`` is 0."""
    at = np.unique(np.linspace(0, len(samples) - 1, most or len(samples)).round().astype(int))
    return tuple(samples[index] for index in at)


def compared(datasets: Mapping[str, Dataset], given: Any) -> list[dict[str, Any]]:
    """A row a product."""
    options = {
        "preset": "recommended",
        "backbone": given.backbone,
        "weights": given.weights,
        "resize": given.resize,
        "seed": given.seed,
    }
    train = {name: [sample.path for sample in dataset.train] for name, dataset in datasets.items()}
    together = SAPatchCore.fit_products(train, **options)
    rows = []
    for number, (name, dataset) in enumerate(datasets.items()):
        test = [sample.path for sample in dataset.test]
        wrong = np.array([not sample.is_good for sample in dataset.test])
        result = together.predict(test)
        right = np.array([product == name for product in result.products])
        own = together.product(name)  # what a model of its own with this input has learned: a test says so
        keeping = SAPatchCore(**options).fit(train[name])
        rows.append(
            {
                "dataset": name,
                "train": len(train[name]),
                "test": len(test),
                "told": float(right.mean()),
                "told_defects": float(right[wrong].mean()),
                "noted": float(np.mean(result.unlike)),
                "noted_foreign": foreign(together, number, dataset) if len(datasets) > 2 else None,
                "together": auroc(wrong, result.scores),
                "alone": auroc(wrong, own.predict(test).scores),
                "alone_own_shape": auroc(wrong, keeping.predict(test).scores),
                "own_input": list(keeping.settings.resize),
            }
        )
    return rows


def foreign(together: Products, number: int, dataset: Dataset) -> float:
    """The share of a category's test images that a model of all products but the one ``number`` notes as unlike every one."""
    names = [name for at, name in enumerate(together.names) if at != number]
    telling = Telling.of([together.product(name).bank for name in names])
    found: list[bool] = []
    for _, patches in together.product(names[0]).embedder.patches([sample.path for sample in dataset.test]):
        assert patches.layers is not None  # as there is a global part
        found += telling.told(pooled(patches.layers))[1].tolist()
    return float(np.mean(found))


if __name__ == "__main__":
    sys.exit(main())
