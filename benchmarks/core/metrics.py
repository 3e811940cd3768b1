"""How long do the metrics of a test set take?"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.measure import Record, images_for, interleaved, made_images, parser, shown, spread, table, test_set
from sapatchcore import SAPatchCore
from sapatchcore.data.images import read_mask
from sapatchcore.score.metrics import auroc, average_precision, best_f1
from sapatchcore.verify.pixels import pixel_metrics

QUESTION = "Time of all metrics: a real test set's masks and maps, and made maps of 1024×1024"


def main(arguments: list[str] | None = None) -> None:
    options = parser("metrics", QUESTION)
    options.add_argument("--large", type=int, default=40, help="made maps of 1024×1024 (default: %(default)s)")
    given = options.parse_args(arguments)
    repeats = 1 if given.quick else given.repeats or 5
    record = Record("metrics", QUESTION, given)
    record["test_set"] = on_test_set(given, repeats)
    print()
    record["made_1024"] = on_made_maps(3 if given.quick else given.large, 128 if given.quick else 1024, repeats)
    record.write(given.output)


def on_test_set(given, repeats: int) -> dict[str, object]:
    """Maps of a small random network: their values do not matter for the time, their number and ties do."""
    detector = SAPatchCore(backbone="resnet18", weights="random", resize=224, crop=None, device="cpu")
    detector.fit(images_for(given.data, 4 if given.quick else 40))
    dataset = test_set(given.data)
    if dataset is None:
        sources = made_images(4 if given.quick else 160, seed=1)
        labels = [index % 4 > 0 for index in range(len(sources))]
        masks = [made_mask(320, index) if bad else np.zeros((320, 320), bool) for index, bad in enumerate(labels)]
        result = detector.predict(sources)
    else:
        samples = dataset.test[:: 20 if given.quick else 1]
        labels = [not sample.is_good for sample in samples]
        result = detector.predict([sample.path for sample in samples])
        masks = [read_mask(sample.masks or (), size) for sample, size in zip(samples, result.sizes, strict=True)]
    held = list(result.maps)
    scores = result.scores
    seconds = interleaved(
        {
            "image: AUROC, AP, best F1": lambda: (
                auroc(labels, scores),
                average_precision(labels, scores),
                best_f1(labels, scores),
            ),
            "pixels: all four, maps in memory": lambda: pixel_metrics(masks, held),
            "pixels: all four, maps on demand": lambda: pixel_metrics(masks, result.maps),
            "the maps alone": lambda: list(result.maps),
        },
        repeats=repeats,
    )
    title = f"{len(masks)} images, {sum(mask.size for mask in masks) / 1e6:.1f} million pixels"
    table((title, "seconds"), [(one, shown(spread(values))) for one, values in seconds.items()])
    return {
        "images": len(masks),
        "pixels": int(sum(mask.size for mask in masks)),
        "defective_pixels": int(sum(mask.sum() for mask in masks)),
        "seconds": {one: spread(values) for one, values in seconds.items()},
    }


def on_made_maps(count: int, size: int, repeats: int) -> dict[str, object]:
    random = np.random.default_rng(0)
    masks = [made_mask(size, index) if index % 2 else np.zeros((size, size), bool) for index in range(count)]
    maps = [random.normal(0, 1, (size, size)).astype(np.float32) + 2 * mask for mask in masks]
    maps = [values.astype(np.float32) for values in maps]
    seconds = interleaved({"pixels: all four": lambda: pixel_metrics(masks, maps)}, repeats=repeats)
    title = f"{count} made maps, {count * size * size / 1e6:.1f} million pixels, no ties"
    table((title, "seconds"), [(one, shown(spread(values))) for one, values in seconds.items()])
    return {
        "images": count,
        "size": size,
        "defective_pixels": int(sum(mask.sum() for mask in masks)),
        "seconds": {one: spread(values) for one, values in seconds.items()},
    }


def made_mask(size: int, seed: int) -> np.ndarray:
    """(size, size) bool: two round defects."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size]
    mask = np.zeros((size, size), dtype=bool)
    for _ in range(2):
        y, x, radius = *random.uniform(0.2, 0.8, 2) * size, random.uniform(0.02, 0.08) * size
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return mask


if __name__ == "__main__":
    sys.exit(main())
