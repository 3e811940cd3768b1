"""What the tables say beyond the results: which model is better, which kinds are told, what ten million images would need."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Runs = Sequence[Mapping[str, Any]]

MODELS = {"none": "PatchCore", "self": "SA-PatchCore"}
# Each part by itself is as it should be: what is wrong is a number, a position or a pair. All other kinds change a part or
# a surface, or their data set does not say what they are.
CO_OCCURRENCE = {"screws": ("over-coupling", "lacking"), "kits": ("missing", "extra", "swapped", "wrong-pair")}
RARELY = 0.2  # share of a kind's images: where fewer are rejected, it cannot be told
MOVED = 0.1  # share by which a part must exceed that of good images to count as moved
CLOSE = 0.01  # of AUROC


def compared(runs: Runs) -> list[dict[str, Any]]:
    """Of each data set, network and kind of anomaly (None: all kinds) both models' image AUROC, one number a seed."""
    found: dict[tuple[str, str, str | None], dict[str, dict[int, float]]] = {}
    for run in runs:
        network = f"{run['backbone']}, random weights" if run["weights"] == "random" else run["backbone"]
        for kind, value in {None: run["image_auroc"], **run["per_defect"]}.items():
            both = found.setdefault((run["dataset"], network, kind), {"none": {}, "self": {}})
            both[run["attention"]][run["seed"]] = value
    rows = []
    for dataset, network, kind in found:
        both = found[dataset, network, kind]
        seeds = [seed for seed in both["none"] if seed in both["self"]]
        plain, attended = ([both[model][seed] for seed in seeds] for model in ("none", "self"))
        if seeds:
            rows.append(
                {
                    "dataset": dataset,
                    "network": network,
                    "kind": kind,
                    "plain": plain,
                    "attended": attended,
                    "gains": [after - before for before, after in zip(plain, attended, strict=True)],
                    "co_occurrence": kind in CO_OCCURRENCE.get(dataset, ()),
                }
            )
    return rows


def better(gains: Sequence[float]) -> str:
    """Who is better by SA-PatchCore's gains, one a seed; a tie within twice the standard error of their mean."""
    mean = statistics.fmean(gains)
    # A single seed has no spread, and proves nothing.
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    if abs(mean) <= 2 * error + 1e-9:  # rounding in the mean of equal numbers is no win
        return "tie"
    return MODELS["self"] if mean > 0 else MODELS["none"]


def claim(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over some kinds of anomaly: who is better on average, by how much (a mean over the kinds, each seed), and how often."""
    outcomes = [better(row["gains"]) for row in rows]
    whole = [statistics.fmean(of_seed) for of_seed in zip(*(row["gains"] for row in rows), strict=True)]
    counts = {"won": outcomes.count(MODELS["self"]), "lost": outcomes.count(MODELS["none"])}
    means = {"better": better(whole), "gains": whole, "losses": [-gain for gain in whole]}
    return {**counts, "tied": outcomes.count("tie"), **means}


def told(runs: Runs) -> list[dict[str, Any]]:
    """Of each data set and kind of defect: how many are rejected at each rate, what these are called, how far each part moves.

    local, context: that part of the kind's middle image, as a multiple of the good test images' middle one.
    """
    rows = []
    for name, group in _sets(runs).items():
        kinds = group[0]["kinds"]
        for kind in sorted(kinds, key=lambda kind: (kind == "good", kinds[kind]["true"], kind)):
            called = [
                {call: sum(run["rates"][rate]["called"][kind][call] for run in group) for call in calls["called"][kind]}
                for rate, calls in enumerate(group[0]["rates"])
            ]
            moved = {
                part: statistics.fmean(
                    run["kinds"][kind][f"{part}_ratio"] / run["kinds"]["good"][f"{part}_ratio"] for run in group
                )
                for part in ("local", "context")
            }
            rows.append(
                {
                    "set": name,
                    "kind": kind,
                    "is": kinds[kind]["true"],
                    "called": called,
                    **moved,
                    "images": sum(run["kinds"][kind]["images"] for run in group),
                    "rejected": [sum(calls.values()) for calls in called],
                    "right": [calls.get(kinds[kind]["true"], 0) for calls in called],
                }
            )
    return rows


def coarse(runs: Runs) -> list[dict[str, Any]]:
    """The data sets whose calibration images are too few for a rate that was asked for, with the smallest possible one."""
    return [
        {"set": name, "images": group[0]["calibration_images"], "rate": rate["rate"], "asked": rate["asked"]}
        for name, group in _sets(runs).items()
        for rate in group[0]["rates"]
        if rate["rate"] > rate["asked"] * (1 + 1e-6)
    ]


def _sets(runs: Runs) -> dict[str, list[Mapping[str, Any]]]:
    """The runs of each data set, one an image seed."""
    sets: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        name = run["dataset"] if run["image_seed"] is None else f"{run['dataset']}, made"
        sets.setdefault(name, []).append(run)
    return sets


def recipe_rows(recipes: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Image AUROC of each network and model: that of all made sets, and that of each real one by its name."""
    rows = []
    for file, sets in recipes.items():
        network = file.removesuffix("/weights.safetensors").removesuffix(".safetensors")
        if network.startswith("random:"):
            network = f"{network.removeprefix('random:')}, random weights"
        for attention, model in MODELS.items():
            values = {name: both[attention] for name, both in sets.items()}
            made = [value for name, value in values.items() if name.startswith("made-")]
            real = {name: value for name, value in values.items() if not name.startswith("made-")}
            rows.append({"network": network, "model": model, "made": made, "real": real})
    return rows


def pays_from(banks: Mapping[str, Mapping[str, Any]], search: str) -> int | None:
    """The smallest measured bank from which on ``search`` is faster than exact, or None."""
    faster: int | None = None
    for count, searches in sorted(banks.items(), key=lambda one: int(one[0]), reverse=True):
        if search not in searches or searches[search]["over_exact"]["median"] >= 1:
            break
        faster = int(count)
    return faster


CANDIDATES, FEWEST_CANDIDATES = 8192, 64  # of scale/fit.py; a test compares them
PROJECTED = 128  # numbers of a projected patch, float32
CALIBRATION_IMAGES = 10_000  # good images apart, of fit's --calibrate
# What grows with a worker's images.
LEARN, SCORE = ("fit embed", "fit coreset", "fit calibrate"), ("predict score",)


def runs_of(results: Mapping[str, Any], workers: int) -> list[Any]:
    """The runs with so many workers, the fewest images first."""
    return sorted((run for run in results["runs"] if run["workers"] == workers), key=lambda run: run["images"])


def carried(results: Mapping[str, Any], images: int, workers: int) -> dict[str, Any]:
    """What so many images would need on so many workers of one core, from the growth that one such worker showed.

    No measurement: what many workers cost beyond that (a network's and a storage's limits, machines that differ) is not in it,
    and nothing is said of GPUs. Times are in seconds and sizes in bytes; pairs are those of fit and of predict.
    """
    of, lines = results["images"], results["growth"]["1"]
    few, *_, before, most = runs_of(results, 1)
    share, bank = images / workers, most["fit"]["bank"][0]

    def more(*names: str) -> float:
        """How much more of something each image made."""
        ends: list[Any] = [few, most]
        for name in names:
            ends = [end[name] for end in ends]
        return float(ends[1] - ends[0]) / (most["images"] - few["images"])

    exponent = math.log(most["fit"]["rounds"] / before["fit"]["rounds"]) / math.log(most["images"] / before["images"])
    rounds = most["fit"]["rounds"] * (images / most["images"]) ** exponent
    kept, rest = more("fit", "model_bytes", "calibration"), more("fit", "model_bytes", "rest")
    peaks = few["fit"]["peak_mb"]["workers"] + more("fit", "peak_mb", "workers") * (share - few["images"])
    return {
        "evenly": [sum(lines[stage]["b"] for stage in stages) * share for stages in (LEARN, SCORE)],
        "by_exponents": [by_exponents(lines, most, stages, share) for stages in (LEARN, SCORE)],
        "worker": [1e6 * peaks, 1e6 * most["predict"]["peak_mb"]["workers"]],
        "projections": of["projected_bytes"] * share,
        "spilled": of["spill_bytes"] * share,
        "listing": [max(more(work, "peak_mb", "listing"), 0) * 1e6 * images for work in ("fit", "predict")],
        "read": of["image_bytes"] * images,
        "read_a_second": [of["image_bytes"] * workers / lines[stage]["b"] for stage in ("fit embed", *SCORE)],
        "rounds": rounds,
        # A projection, its row, its distance; a projection, its row and share, to every worker; the rows, their images and cells.
        "candidates": rounds * max(FEWEST_CANDIDATES, CANDIDATES // workers) * workers * (4 * PROJECTED + 12),
        "centres": bank * workers * (4 * PROJECTED + 16),
        "bank": bank * (4 * of["width"] + 16),
        "model": (kept + rest) * images,
        "model_calibrated": kept * CALIBRATION_IMAGES + rest * images,
        "tables": more("predict", "table_bytes") * images,
    }


def by_exponents(lines: Mapping[str, Any], most: Mapping[str, Any], stages: Iterable[str], images: float) -> float:
    """Seconds of so many images, from those of the largest run and each stage's exponent; one below 1 is that of a start."""
    total = 0.0
    for stage in stages:
        work, name = stage.split()
        total += most[work]["seconds"][name] * (images / most["images"]) ** max(lines[stage]["exponent"], 1)
    return total


def beside(runs: Runs) -> list[dict[str, Any]]:
    """Of each data set and network, over its seeds: each model's and each rule's image AUROC, each kind's by the preset, and at
    each rate the share of defects found, of good ones rejected, and of found ones whose kind is told right."""
    sets: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        network = f"{run['backbone']}, random weights" if run["weights"] == "random" else run["backbone"]
        sets.setdefault((run["dataset"], network), []).append(run)
    rows = []
    for (dataset, network), group in sets.items():
        ours = [run["models"]["recommended"] for run in group]
        rates = []
        for number, rate in enumerate(ours[0]["rates"]):
            kinds = [one["rates"][number]["kinds"] for one in ours]
            defects = [{name: one for name, one in of_seed.items() if name != "good"} for of_seed in kinds]
            found = sum(one["rejected"] for of_seed in defects for one in of_seed.values())
            told = sum(
                one["called"].get("co-occurrence" if name in CO_OCCURRENCE.get(dataset, ()) else "local", 0)
                for of_seed in defects
                for name, one in of_seed.items()
            )
            rates.append(
                {
                    "asked": rate["asked"],
                    "rate": rate["rate"],
                    "found": found / sum(one["images"] for of_seed in defects for one in of_seed.values()),
                    "false": sum(of_seed["good"]["rejected"] for of_seed in kinds)
                    / sum(of_seed["good"]["images"] for of_seed in kinds),
                    "told": told / found if found else None,
                }
            )
        rows.append(
            {
                "dataset": dataset,
                "network": network,
                "input": group[0]["input"],
                "seeds": len(group),
                "models": {
                    name: [run["models"][name]["image_auroc"] for run in group if name in run["models"]]
                    for name in max((run["models"] for run in group), key=len)
                },
                "kinds": {kind: [one["per_defect"][kind] for one in ours] for kind in ours[0]["per_defect"]},
                "aupro": [one["aupro"] for one in ours if one["aupro"] is not None],
                "rules": {name: [run["rules"][name] for run in group] for name in group[0]["rules"]},
                "rates": rates,
            }
        )
    return rows
