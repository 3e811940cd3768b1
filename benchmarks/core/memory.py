"""How much memory does ``fit`` need at its peak, and how much more with every image?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.measure import BACKBONE, Record, images_for, in_subprocess, made_images, parser, peak_memory, table
from sapatchcore import SAPatchCore

QUESTION = "Peak resident memory of fit for few and for many images, each in a process of its own"


def main(arguments: list[str] | None = None) -> None:
    options = parser("memory", QUESTION)
    options.add_argument("--backbone", default=BACKBONE, help="random weights (default: %(default)s)")
    options.add_argument("--images", default="320,2000", help="two numbers of images (default: %(default)s)")
    options.add_argument("--child", help=argparse.SUPPRESS)
    given = options.parse_args(arguments)
    if given.child:
        child(json.loads(given.child))
        return
    name = given.backbone = "resnet18" if given.quick else given.backbone
    few, many = (8, 24) if given.quick else (int(one) for one in given.images.split(","))
    record = Record("memory", QUESTION, given)

    found, rows = {}, []
    for count in (few, many):
        task = {"backbone": name, "images": count, "data": str(given.data.resolve()) if given.data else ""}
        one = in_subprocess("benchmarks.core.memory", task)
        found[str(count)] = one
        rows.append((count, one["peak_mb"], one["before_fit_mb"], one["bank"]))
    growth = (rows[1][1] - rows[0][1]) / (many - few)
    record["peaks"] = found
    record["growth_mb_an_image"] = growth
    record["patches_on_disk_mb_an_image"] = found[str(few)]["patch_mb"]
    table(("images", "peak MB", "MB before fit", "bank"), rows)
    print(f"growth {growth:.3f} MB an image")
    record.write(given.output)


def child(task: dict[str, object]) -> None:
    count = int(task["images"])
    # Made images come one by one: a list of thousands would be measured with fit.
    sources = images_for(Path(task["data"]), count) if task["data"] else made_one_by_one(count)
    detector = SAPatchCore(backbone=task["backbone"], weights="random", coreset_ratio=0.01, device="cpu")
    embedding = detector.embed(made_images(1))  # builds the network, so that "before" holds it
    before = peak_memory()
    detector.fit(sources)
    print(
        json.dumps(
            {
                "peak_mb": peak_memory() / 1e6,
                "before_fit_mb": before / 1e6,
                "bank": len(detector.memory_bank),
                "patch_mb": embedding.nbytes / 1e6,
            }
        )
    )


def made_one_by_one(count: int):
    for number in range(count):
        yield made_images(1, seed=number)[0]


if __name__ == "__main__":
    sys.exit(main())
