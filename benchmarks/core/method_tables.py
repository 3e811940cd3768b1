"""What results/method.json says of PatchCore against SA-PatchCore, as rows and sentences for docs/results.md.

The paper claims a gain on co-occurrence anomalies and parity elsewhere. Differences are SA-PatchCore's AUROC less
PatchCore's with the same network and seed. One is a tie where its mean over the seeds is within twice its standard error.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

# Each part by itself is as it should be: what is wrong is a number, a place or a pair. All other kinds change a part or
# a surface, or their data set does not say what they are.
CO_OCCURRENCE = {"screws": ("over-coupling", "lacking"), "kits": ("missing", "extra", "swapped", "wrong-pair")}
WON, LOST, TIED = "SA-PatchCore", "PatchCore", "tie"

Runs = Sequence[dict[str, Any]]
Row = tuple[str, ...]


def auroc_rows(runs: Runs) -> list[Row]:
    """(data set, network, PatchCore, SA-PatchCore, difference, better) of the whole test sets."""
    return [
        (dataset, network_name(runs, backbone), *_cells(runs, dataset, backbone, None))
        for dataset in _names(runs, "dataset")
        for backbone in _names(runs, "backbone")
        if _pairs(runs, dataset, backbone, None)
    ]


def kind_rows(runs: Runs, backbone: str) -> list[Row]:
    """(data set, kind, group, PatchCore, SA-PatchCore, difference, better), co-occurrence first."""
    return [
        (dataset, kind, "co-occurrence" if group else "other", *_cells(runs, dataset, backbone, kind))
        for group in (True, False)
        for dataset, kind in _kinds(runs, backbone, co_occurrence=group)
    ]


def verdict(runs: Runs, backbone: str) -> str:
    """Whether the paper's claim holds with this network: sentences made of the numbers."""
    sentences = []
    holds = []
    for co_occurrence in (True, False):
        kinds = _kinds(runs, backbone, co_occurrence=co_occurrence)
        if not kinds:
            continue
        gains = [_gains(_pairs(runs, dataset, backbone, kind)) for dataset, kind in kinds]
        outcomes = [better(gain) for gain in gains]
        whole = [statistics.fmean(of_seed) for of_seed in zip(*gains, strict=True)]  # a mean over the kinds, each seed
        average, won, lost = better(whole), outcomes.count(WON), outcomes.count(LOST)
        if co_occurrence:
            claim, holds_here = "the claimed gain", average == WON and won > lost
        else:
            claim, holds_here = "the claimed parity (no loss on average)", average != LOST
        verb = {WON: "gains", LOST: "loses", TIED: "is level, at"}[average]
        amount = _shown(whole, signed=average == TIED) if average != LOST else _shown([-value for value in whole])
        sentences.append(
            f"On {'co-occurrence' if co_occurrence else 'other'} kinds SA-PatchCore {verb} {amount} on average; it wins "
            f"{won} of {len(kinds)} kinds, loses {lost}, ties {outcomes.count(TIED)}: {claim} "
            f"{'holds' if holds_here else 'does not hold'} here."
        )
        holds.append(holds_here)
    if len(holds) == 2:
        sentences.append(
            f"**The paper's claim, a gain on co-occurrence anomalies and parity elsewhere, "
            f"{'holds' if all(holds) else 'does not hold'} here with {network_name(runs, backbone)}.**"
        )
    return " ".join(sentences)


def conditions(runs: Runs, arguments: Sequence[dict[str, Any]]) -> str:
    """Seeds, coreset ratio and images, as measured; arguments: of each file that the runs are from."""
    seeds = ", ".join(str(seed) for seed in _names(runs, "seed"))
    ratios = ", ".join(str(ratio) for ratio in _names(runs, "coreset_ratio"))
    sides = {scene: given["side"] for given in arguments for scene in given["synth"].split(",")}
    sizes = []
    for dataset in _names(runs, "dataset"):
        run = next(run for run in runs if run["dataset"] == dataset)
        side = sides.get(dataset)
        made = "" if side is None else f", made, {side}×{side}"
        sizes.append(
            f"*{dataset}* ({run['train_images']} to learn from, {sum(run['test_images'].values())} to test{made})"
        )
    return (
        f"Seeds {seeds}; coreset ratio {ratios}; images resized to 256×256, of which made ones are inspected whole and others "
        f"cropped to 224×224. Images: {', '.join(sizes)}."
    )


def network_name(runs: Runs, backbone: str) -> str:
    weights = next(run["weights"] for run in runs if run["backbone"] == backbone)
    return f"{backbone}, random weights" if weights == "random" else backbone


def better(gains: Sequence[float]) -> str:
    """Who is better by SA-PatchCore's gains, one a seed; a tie within twice the standard error of their mean."""
    mean = statistics.fmean(gains)
    # A single seed has no spread, and proves nothing.
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    if abs(mean) <= 2 * error + 1e-9:  # rounding in the mean of equal numbers is no win
        return TIED
    return WON if mean > 0 else LOST


def _kinds(runs: Runs, backbone: str, *, co_occurrence: bool) -> list[tuple[str, str]]:
    """(data set, kind) of one group, in the order of the runs."""
    found = [(run["dataset"], kind) for run in runs if run["backbone"] == backbone for kind in run["per_defect"]]
    return [
        (dataset, kind)
        for dataset, kind in dict.fromkeys(found)
        if (kind in CO_OCCURRENCE.get(dataset, ())) == co_occurrence and _pairs(runs, dataset, backbone, kind)
    ]


def _pairs(runs: Runs, dataset: str, backbone: str, kind: str | None) -> list[tuple[float, float]]:
    """(PatchCore's AUROC, SA-PatchCore's) of each seed that both have; kind None: of the whole test set."""
    found: dict[str, dict[int, float]] = {"none": {}, "self": {}}
    for run in runs:
        if (run["dataset"], run["backbone"]) == (dataset, backbone):
            value = run["image_auroc"] if kind is None else run["per_defect"][kind]
            found[run["attention"]][run["seed"]] = value
    return [(value, found["self"][seed]) for seed, value in found["none"].items() if seed in found["self"]]


def _cells(runs: Runs, dataset: str, backbone: str, kind: str | None) -> Row:
    pairs = _pairs(runs, dataset, backbone, kind)
    gains = _gains(pairs)
    return (*(_shown(values) for values in zip(*pairs, strict=True)), _shown(gains, signed=True), better(gains))


def _gains(pairs: Iterable[tuple[float, float]]) -> list[float]:
    return [attended - plain for plain, attended in pairs]


def _shown(values: Sequence[float], *, signed: bool = False) -> str:
    """ "0.912 ± 0.013": mean and standard deviation."""
    mean = round(statistics.fmean(values), 3) + 0.0  # no "−0.000"
    text = f"{mean:+.3f}" if signed and mean else f"{mean:.3f}"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return text.replace("-", "−") + spread


def _names(runs: Runs, key: str) -> list[Any]:
    return list(dict.fromkeys(run[key] for run in runs))
