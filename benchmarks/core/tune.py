"""Does `tune` choose well? Its estimate of each candidate, from good images alone, beside what real defects say.

`tune` sees the training images. Every candidate that it judged is then fitted on all of them and scores the test images, which
decide nothing. Of each data set: Spearman's correlation of the estimate with the true image AUROC over the candidates, and the
regret, the best candidate's true AUROC less the chosen one's. Over all sets: the chosen ones' mean true AUROC, and that of
each candidate that every set has.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.measure import Record, data_sets, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.samples import Dataset
from sapatchcore.score.metrics import auroc
from sapatchcore.tuning.tuning import Tuning, called

QUESTION = "Does tune choose well? Estimates from made defects against real ones: rank correlation, regret"


def main(arguments: list[str] | None = None) -> None:
    options = parser("tune", QUESTION, several=True, needed=False)
    options.add_argument("--backbones", default="builtin,efficientnet_lite2", help="(default: %(default)s)")
    options.add_argument("--minutes", type=float, default=10, help="for each comparison (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options.add_argument("--synth", default="screws,kits", help="made data sets (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.backbones, given.minutes = "builtin", 0.02
    record = Record("tune", QUESTION, given)
    sets: list[dict[str, Any]] = []
    record["sets"] = sets
    small = {"side": 96, "train": 10, "test": {"good": 3, "lacking": 3}}
    for dataset in data_sets(given, small):
        sets.append(of_set(dataset, given.backbones.split(","), given.minutes, given.seed))
        record.content["results"]["whole"] = whole(sets)
        record.write(given.output)  # a run that is cut off keeps what it has


def of_set(dataset: Dataset, backbones: list[str], minutes: float, seed: int) -> dict[str, Any]:
    """What `tune` thinks of every candidate, and what the test images say."""
    train = [sample.path for sample in dataset.train]
    detector = SAPatchCore.tune(train, minutes=minutes, backbones=backbones, seed=seed)
    tuning = detector.tuning
    assert tuning is not None
    wrong = np.array([not sample.is_good for sample in dataset.test])
    test = [sample.path for sample in dataset.test]
    rows = []
    for candidate in tuning.candidates:
        scores = SAPatchCore(**candidate.options).fit(train).predict(test).scores
        rows.append(
            {
                "candidate": called(candidate.options),
                "estimate": candidate.quality,
                "groups": candidate.groups,
                "error": candidate.error,
                "milliseconds": candidate.milliseconds,
                "true": float(auroc(wrong, scores)),
            }
        )
    found = {"dataset": dataset.name, "train": len(train), "candidates": rows, **agreement(rows, tuning)}
    print(f"\n{dataset.name}: correlation {found['correlation']}, regret {found['regret']:.3f}")
    columns = ("candidate", "estimate", "true", "milliseconds")
    table(columns, [tuple(row[name] for name in columns) for row in rows])
    return found


def agreement(rows: list[dict[str, Any]], tuning: Tuning) -> dict[str, Any]:
    """Spearman's correlation, None where all candidates are equally good, the regret, and the chosen candidate."""
    estimate, true = (np.array([row[name] for row in rows]) for name in ("estimate", "true"))
    chosen = rows[tuning.chosen]
    return {
        "correlation": spearman(estimate, true),
        "regret": float(true.max() - chosen["true"]),
        "chosen": chosen["candidate"],
        "chosen_true": chosen["true"],
        "seconds": tuning.seconds,
    }


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """The correlation of ranks, equal values sharing theirs; None where either does not vary."""
    if min(np.ptp(one), np.ptp(other)) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def whole(sets: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the data sets: the mean and the largest regret, the chosen ones' mean true AUROC, each fixed candidate's."""
    names = set.intersection(*({plain(row["candidate"]) for row in one["candidates"]} for one in sets))
    fixed = {
        name: statistics.fmean(
            next(row["true"] for row in one["candidates"] if plain(row["candidate"]) == name) for one in sets
        )
        for name in sorted(names)
    }
    regrets = [one["regret"] for one in sets]
    return {
        "mean_regret": statistics.fmean(regrets),
        "largest_regret": max(regrets),
        "chosen": statistics.fmean(one["chosen_true"] for one in sets),
        "fixed": fixed,
    }


def plain(candidate: str) -> str:
    """A candidate's name with the shorter side alone: "builtin 256x352" is "builtin 256"."""
    network, _, rest = candidate.partition(" ")
    size, comma, more = rest.partition(",")
    return f"{network} {min(map(int, size.split('x')))}{comma}{more}"


if __name__ == "__main__":
    sys.exit(main())
