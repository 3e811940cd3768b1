"""How sharp should the self-attention be? SA-PatchCore over temperatures, and with "auto", against PatchCore, on real features.

Images are inspected whole. All runs of a network share one pass through it, as in ``method.py``; scores are those of SAPatchCore.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.core.method import results_of, subset
from benchmarks.measure import Record, parser, table
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.embed.adaptation import adapted
from sapatchcore.embed.patches import Embedder
from sapatchcore.settings import Settings, settings_from

QUESTION = (
    "SA-PatchCore over temperatures, and with temperature auto, against PatchCore: image AUROC and that of each kind"
)


def main(arguments: list[str] | None = None) -> None:
    options = parser("temperature", QUESTION, several=True)
    options.add_argument(
        "--backbones", default="efficientnet_lite0,efficientnet_lite2,builtin", help="(default: %(default)s)"
    )
    options.add_argument("--weights", default="pretrained", help="'pretrained', or 'random', which measures nothing")
    options.add_argument("--temperatures", default="1,8,64,512,auto", help="(default: %(default)s)")
    options.add_argument("--resize", default="256", help="(default: %(default)s)")
    options.add_argument("--coreset-ratio", type=float, default=0.01, help="(default: %(default)s)")
    options.add_argument("--seeds", default="0", help="(default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.resize, given.seeds = "64", "0"
    record = Record("temperature", QUESTION, given)
    runs: list[dict[str, Any]] = []
    record["runs"] = runs
    for dataset in map(open_dataset, given.data):
        dataset = subset(dataset) if given.quick else dataset
        for backbone in given.backbones.split(","):
            asked = list(settings_of(dataset, backbone, given))
            for one, result in zip(asked, results_of(dataset, asked), strict=True):
                word = "auto" if one.requested else one.temperature
                runs.append({**result, "asked": word, "temperature": one.temperature, "resize": list(one.resize)})
            show([run for run in runs if (run["dataset"], run["backbone"]) == (dataset.name, backbone)])
            record.write(given.output)  # a run that is cut off keeps what it has


def settings_of(dataset: Dataset, backbone: str, given: Any) -> Iterator[Settings]:
    """PatchCore, then SA-PatchCore at each temperature, "auto" as the number that ``fit`` would take; for each seed."""
    for seed in given.seeds.split(","):
        base = {
            "backbone": backbone,
            "weights": given.weights,
            "resize": given.resize,
            "crop": None,
            "coreset_ratio": given.coreset_ratio,
            "seed": int(seed),
        }
        yield settings_from({**base, "attention": "none"})
        for temperature in given.temperatures.split(","):
            settings = settings_from({**base, "temperature": temperature})
            paths = [sample.path for sample in dataset.train]
            yield adapted(Embedder(settings), paths)[0].settings


def show(runs: list[dict[str, Any]]) -> None:
    """All figures of a data set and a network."""
    print(f"\n{runs[0]['dataset']}, {runs[0]['backbone']}")
    kinds = list(runs[0]["per_defect"])
    rows = [
        (name_of(run), run["seed"], run["image_auroc"], *(run["per_defect"][kind] for kind in kinds)) for run in runs
    ]
    table(("model", "seed", "image AUROC", *kinds), rows)


def name_of(run: dict[str, Any]) -> str:
    if run["attention"] == "none":
        return "PatchCore"
    return f"SA, auto ({run['temperature']:g})" if run["asked"] == "auto" else f"SA, {run['temperature']:g}"


if __name__ == "__main__":
    sys.exit(main())
