"""How much faster is an image with the built-in backbone than with Wide ResNet-50-2?"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.measure import BACKBONE, Record, images_for, interleaved, parser, ratio, shown, spread, table, test_set
from sapatchcore import SAPatchCore
from sapatchcore.data.sources import read_image

QUESTION = "predict: ms an image, the built-in backbone against Wide ResNet-50-2 (random weights), both models"
NAMES = {"self": "SA-PatchCore", "none": "PatchCore"}


def main(arguments: list[str] | None = None) -> None:
    options = parser("builtin", QUESTION)
    options.add_argument("--train-images", type=int, default=320, help="(default: %(default)s)")
    options.add_argument("--images", type=int, default=32, help="timed, in a round (default: %(default)s)")
    given = options.parse_args(arguments)
    train, count, repeats = (8, 4, 1) if given.quick else (given.train_images, given.images, given.repeats or 5)
    slow = "resnet18" if given.quick else BACKBONE
    record = Record("builtin", QUESTION, given)
    dataset = test_set(given.data)
    sources = [sample.path for sample in dataset.test] if dataset else images_for(None, count)
    # Spread over the test set, decoded once: a camera hands over pixels, not files.
    pixels = [read_image(sources[index]) for index in np.linspace(0, len(sources) - 1, count).astype(int)]
    learned = images_for(given.data, train)
    detectors = {
        (attention, backbone): SAPatchCore(
            backbone=backbone,
            weights="pretrained" if backbone == "builtin" else "random",
            attention=attention,
            device="cpu",
        ).fit(learned)
        for attention in NAMES
        for backbone in ("builtin", slow)
    }
    rows = []
    for batch_size in (8, 1):
        split = [pixels[i : i + batch_size] for i in range(0, count, batch_size)]
        variants = {
            f"{NAMES[attention]}, {backbone}": lambda d=detector, s=split: [d.predict(few) for few in s]
            for (attention, backbone), detector in detectors.items()
        }
        seconds = interleaved(variants, repeats=repeats)
        found = {}
        for model in NAMES.values():
            found[model] = {
                "ms_an_image": {
                    backbone: spread(seconds[f"{model}, {backbone}"], 1000 / count) for backbone in ("builtin", slow)
                },
                "times_faster": ratio(seconds, f"{model}, {slow}", f"{model}, builtin"),
            }
            one = found[model]
            rows.append(
                (batch_size, model, *(shown(ms) for ms in one["ms_an_image"].values()), shown(one["times_faster"]))
            )
        record[f"batch {batch_size}"] = found
    table(("batch", "model", "builtin, ms an image", f"{slow}, ms an image", "times faster"), rows)
    record.write(given.output)


if __name__ == "__main__":
    sys.exit(main())
