"""Learning on: is half the images and an update with the rest as good as all at once? What do five more good parts change?
And is a forgotten image gone?

The first half: drawn at random, and the first by name. Of every seed, fit on all goes right before both. Five more: any, and
those with the highest scores, which an operator is asked about; of both models, the verdicts on all other good images, before
and after at the same promised rate.
"""

from __future__ import annotations

import copy
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.core.method import subset
from benchmarks.measure import Record, parser, shown, spread, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset, Sample
from sapatchcore.score.metrics import auroc
from sapatchcore.score.threshold import FALSE_REJECT, possible_rate
from sapatchcore.synth.write import find_scene, write_dataset
from sapatchcore.verify.evaluate import evaluate

QUESTION = "fit on half and update with the rest, against fit on all; forget an image, against fit without it"
RATES = (0.05, 0.1)
SPLITS = ("random", "first")  # which images are learned first
FIVE = ("random", "highest")  # which five good parts are learned
STAGES = ("with", "forgotten", "never")  # of a bad image among the training images


def main(arguments: list[str] | None = None) -> None:
    options = parser("update", QUESTION)
    options.add_argument("--coreset-ratios", default="0.01", help="(default: %(default)s)")
    options.add_argument("--seeds", default="0,1,2", help="of halves (default: %(default)s)")
    options.add_argument("--five-seeds", default="0,1,2", help="of five more parts (default: %(default)s)")
    options.add_argument(
        "--forget-seeds", default="0,1,2", help="each with another kind of defect (default: %(default)s)"
    )
    given = options.parse_args(arguments)
    if given.quick:
        given.seeds = given.five_seeds = given.forget_seeds = "0"
    record = Record("update", QUESTION, given)
    runs: list[dict[str, Any]] = []
    five: list[dict[str, Any]] = []
    forgotten: list[dict[str, Any]] = []
    ratios = [float(ratio) for ratio in given.coreset_ratios.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_dataset(given.data) if given.data else made_dataset(Path(folder) / "screws", given.quick)
        if given.quick:
            dataset = subset(dataset)
        record["dataset"] = dataset.name
        record["runs"], record["five"], record["forget"] = runs, five, forgotten
        for ratio in ratios:
            for seed in seeds_of(given.seeds):
                runs += runs_of(dataset, ratio, seed)
                record.write(given.output)  # a run that is cut off keeps what it has
            of_ratio = [run for run in runs if run["coreset_ratio"] == ratio]
            if of_ratio:
                record[f"time {ratio:g}"] = times(of_ratio)
        for seed in seeds_of(given.five_seeds):
            for preset in ("paper", "recommended"):
                five += learn_five(dataset, preset, ratios[0], seed)
                record.write(given.output)
        for seed in seeds_of(given.forget_seeds):
            forgotten.append(forget(dataset, ratios[0], seed, Path(folder) / f"bad {seed}"))
            record.write(given.output)
    tables(runs, five, forgotten)
    record.write(given.output)


def seeds_of(text: str) -> list[int]:
    """None of "", which leaves a part out."""
    return [int(seed) for seed in text.split(",") if seed]


def made_dataset(out: Path, quick: bool) -> Dataset:
    """Screws, where no folder is given."""
    counts = dict.fromkeys(find_scene(out.name).KINDS, 2 if quick else 40)
    write_dataset(out, out.name, side=128 if quick else 350, train=8 if quick else 200, test=counts)
    return open_dataset(out)


def detector(ratio: float, seed: int) -> SAPatchCore:
    return SAPatchCore(backbone="builtin", attention="self", coreset_ratio=ratio, seed=seed)


def runs_of(dataset: Dataset, ratio: float, seed: int) -> list[dict[str, Any]]:
    """A run of each split: half, updated with the rest, and all, which is fitted in turns with the updates."""
    paths = [sample.path for sample in dataset.train]
    first: dict[str, set[int]] = {
        "random": set(np.random.default_rng(seed).permutation(len(paths))[: len(paths) // 2].tolist()),
        "first": set(range(len(paths) // 2)),
    }
    whole, seconds_all = timed(lambda: detector(ratio, seed).fit(paths))
    of_all = figures(whole, dataset)
    found = []
    for split in SPLITS:
        half = [path for number, path in enumerate(paths) if number in first[split]]
        rest = [path for number, path in enumerate(paths) if number not in first[split]]
        learner, seconds_half = timed(lambda half=half: detector(ratio, seed).fit(half))
        before = figures(learner, dataset)
        _, seconds_update = timed(lambda learner=learner, rest=rest: learner.update(rest))
        after = figures(learner, dataset)
        found.append(
            {
                "coreset_ratio": ratio,
                "seed": seed,
                "split": split,
                "learned_first": len(half),
                "learned_then": len(rest),
                "half": before,
                "updated": after,
                "all": of_all,
                "rows_added": after["rows"] - before["rows"],
                "seconds": {"fit_half": seconds_half, "update": seconds_update, "fit_all": seconds_all},
            }
        )
        aurocs = ", ".join(f"{name} {found[-1][name]['image_auroc']:.4f}" for name in ("half", "updated", "all"))
        print(f"{ratio:g}, seed {seed}, {split}: {aurocs}; {found[-1]['rows_added']} rows added", flush=True)
    return found


def figures(fitted: SAPatchCore, dataset: Dataset) -> dict[str, Any]:
    """How well a detector tells the test images, and how many good ones it rejects."""
    assert fitted._bank is not None
    found = evaluate(fitted, dataset)
    scores, good = found.result.scores, np.array([sample.is_good for sample in dataset.test])
    calibration = fitted.calibration
    rates = {f"{rate:g}": possible_rate(len(calibration), rate) for rate in RATES}
    return {
        "images": len(fitted.provenance[0]),
        "rows": len(fitted.memory_bank),
        "radius": fitted._bank.radius,
        "image_auroc": found.image_auroc,
        "pixel_auroc": found.pixel.auroc,
        "good_images": int(good.sum()),
        "false_rejects": {
            name: {"rate": rate, "rejected": int((scores[good] > fitted.threshold(rate)).sum())}
            for name, rate in rates.items()
        },
    }


def learn_five(dataset: Dataset, preset: str, ratio: float, seed: int) -> list[dict[str, Any]]:
    """Half of the images are learned, then five of the other good ones: what becomes of the verdicts on all that are left."""
    paths = [sample.path for sample in dataset.train]
    order = [paths[number] for number in np.random.default_rng(seed).permutation(len(paths))]
    others = order[len(order) // 2 :] + [sample.path for sample in dataset.test if sample.is_good]
    learner = SAPatchCore(backbone="builtin", preset=preset, coreset_ratio=ratio, seed=seed)
    before = learner.fit(order[: len(order) // 2]).predict(others).scores
    rates = {f"{rate:g}": possible_rate(len(learner.calibration), rate) for rate in (FALSE_REJECT, *RATES)}
    found = []
    for which in FIVE:
        chosen = before.argsort()[-5:] if which == "highest" else np.arange(5)  # others are in a random order
        left = np.setdiff1d(np.arange(len(others)), chosen)
        updated = copy.copy(learner).update([others[i] for i in chosen])
        after = updated.predict([others[i] for i in left]).scores
        verdicts = {
            name: flips(before[left] > learner.threshold(rate), after > updated.threshold(rate))
            for name, rate in rates.items()
        }
        found.append(
            {
                "preset": preset,
                "coreset_ratio": ratio,
                "seed": seed,
                "learned_first": len(order) // 2,
                "learned": which,
                "rows_added": len(updated.memory_bank) - len(learner.memory_bank),
                "judged": len(left),
                "rates": {name: {"rate": rates[name], **counts} for name, counts in verdicts.items()},
            }
        )
        print(f"five {which}, {preset}, seed {seed}: {verdicts}", flush=True)
    return found


def flips(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Of images that were rejected or not, before and after."""
    return {
        "accepted": int((~before).sum()),
        "then_rejected": int((~before & after).sum()),
        "rejected": int(before.sum()),
        "then_accepted": int((before & ~after).sum()),
    }


def timed(work: Callable[[], SAPatchCore]) -> tuple[SAPatchCore, float]:
    begin = time.perf_counter()
    done = work()
    return done, time.perf_counter() - begin


def times(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    return {
        "update_to_fit_all": spread([one["update"] / one["fit_all"] for one in seconds]),
        "update_to_fit_half": spread([one["update"] / one["fit_half"] for one in seconds]),
    }


def forget(dataset: Dataset, ratio: float, seed: int, folder: Path) -> dict[str, Any]:
    """One training image is a defective one under another name: with it, without it by forget, and never learned.

    The defective image itself is left out of the test's AUROC; its own p-value is told apart from those of its kind.
    """
    kinds = sorted({sample.label for sample in dataset.test if not sample.is_good})
    kind = kinds[seed % len(kinds)]
    bad = next(sample for sample in dataset.test if sample.label == kind)
    folder.mkdir(parents=True)
    copy = folder / f"looks good{bad.path.suffix}"
    shutil.copyfile(bad.path, copy)
    good = [sample.path for sample in dataset.train[1:]]
    learner = detector(ratio, seed).fit([*good, copy])
    rows = int((learner.provenance[1] == len(good)).sum())
    others = [sample for sample in dataset.test if sample != bad]
    stages = {"with": told_apart(learner, others, bad)}
    _, seconds = timed(lambda: learner.forget(copy))
    stages["forgotten"] = told_apart(learner, others, bad)
    never, seconds_fit = timed(lambda: detector(ratio, seed).fit(good))
    stages["never"] = told_apart(never, others, bad)
    print(f"forget {kind}, seed {seed}: " + ", ".join(f"{name} {one}" for name, one in stages.items()), flush=True)
    return {
        "coreset_ratio": ratio,
        "seed": seed,
        "kind": kind,
        "train_images": len(good) + 1,
        "rows_of_image": rows,
        **stages,
        "seconds": {"forget": seconds, "fit_without": seconds_fit},
    }


def told_apart(fitted: SAPatchCore, others: Sequence[Sample], bad: Sample) -> dict[str, Any]:
    result = fitted.predict([sample.path for sample in (*others, bad)])
    labels = [sample.label for sample in others]
    same = [i for i, label in enumerate(labels) if label == bad.label]
    return {
        "rows": len(fitted.memory_bank),
        "image_auroc": auroc([not sample.is_good for sample in others], result.scores[:-1]),
        "p_of_image": float(result.p_values[-1]),
        "p_of_kind": spread(result.p_values[same].tolist()) if same else None,
    }


def tables(runs: Sequence[dict[str, Any]], five: Sequence[dict[str, Any]], forgotten: Sequence[dict[str, Any]]) -> None:
    print()
    table(
        ("ratio", "seed", "first half", "half", "updated", "all", "updated − all", "rows", "added", "all", "time"),
        [
            (
                *(run[name] for name in ("coreset_ratio", "seed", "split")),
                *(run[name]["image_auroc"] for name in ("half", "updated", "all")),
                run["updated"]["image_auroc"] - run["all"]["image_auroc"],
                *(run["half"]["rows"], run["rows_added"], run["all"]["rows"]),
                run["seconds"]["update"] / run["seconds"]["fit_all"],
            )
            for run in runs
        ],
    )
    for ratio in sorted({run["coreset_ratio"] for run in runs}):
        of_ratio = [run for run in runs if run["coreset_ratio"] == ratio]
        print(f"update / fit on all at {ratio:g}: {shown(times(of_ratio)['update_to_fit_all'])}")
    print()
    table(
        ("five", "preset", "seed", "judged", "rate", "accepted", "then rejected", "rejected", "then accepted"),
        [
            (one["learned"], one["preset"], one["seed"], one["judged"], *counts.values())
            for one in five
            for counts in one["rates"].values()
        ],
    )
    print()
    table(
        ("kind", "seed", "rows of it", *(f"{what}, {stage}" for what in ("AUROC", "p") for stage in STAGES)),
        [
            (
                *(one[name] for name in ("kind", "seed", "rows_of_image")),
                *(one[stage][what] for what in ("image_auroc", "p_of_image") for stage in STAGES),
            )
            for one in forgotten
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
