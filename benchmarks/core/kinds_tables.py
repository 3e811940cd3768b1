"""What results/kinds.json and results/update.json say, as tables and sentences for the documentation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
GOOD = "good"
RARELY = 0.2  # share of a kind's images: where fewer are rejected, it cannot be told
MOVED = 0.1  # share by which a part must exceed that of good images to count as moved
CLOSE = 0.01  # of AUROC

Runs = Sequence[dict[str, Any]]
Sets = dict[str, list[dict[str, Any]]]  # the runs of each data set, one an image seed


def load(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


# ------------------------------------------------------------------------------------------------- kinds


def kinds_table() -> str:
    """Markdown: of every kind how many are rejected, what these are called, how far either part moves; and what follows."""
    sets = data_sets(load("kinds")["results"]["runs"])
    asked = [rate["asked"] for rate in next(iter(sets.values()))[0]["rates"]]
    columns = [
        text for rate in asked for text in (f"rejected at {_percent(rate)}", "called local / co-occurrence / both")
    ]
    heads = ("data set", "kind", "is", *columns, "local part", "context part")
    rows = []
    for name, runs in sets.items():
        for kind in sorted(runs[0]["kinds"], key=lambda kind: (kind == GOOD, runs[0]["kinds"][kind]["true"], kind)):
            cells = []
            for place in range(len(asked)):
                calls = called(runs, kind, place)
                cells += [f"{sum(calls.values())} of {images(runs, kind)}", " / ".join(map(str, calls.values()))]
            parts = [f"×{moved(runs, kind, part):.2f}" for part in ("local", "context")]
            rows.append((name, kind, runs[0]["kinds"][kind]["true"] or "–", *cells, *parts))
    return "\n\n".join((_markdown(heads, rows), *kinds_sentences(sets, asked)))


def kinds_sentences(sets: Sets, asked: Sequence[float]) -> list[str]:
    """How often the kind is right; which kinds cannot be told, and why; where a promise could not be kept."""
    lines = ["Of the rejected defects, so many are called what they are:"]
    lines[0] += "".join(f" *{name}* {_shares(runs, asked)};" for name, runs in sets.items())
    lines[0] = lines[0][:-1] + ". No image has a defect of both kinds, so “both” counts as wrong throughout."
    last = len(asked) - 1
    at = _percent(asked[last])
    rare, chance, wrong = [], [], []
    for name, runs in sets.items():
        for kind, facts in runs[0]["kinds"].items():
            calls, total = called(runs, kind, last), images(runs, kind)
            count = sum(calls.values())
            if kind == GOOD:
                continue
            if count < RARELY * total:
                rare.append((name, kind, count, total, *(moved(runs, kind, part) for part in ("local", "context"))))
            if count <= asked[last] * total:
                chance.append(f"*{name}* {kind}")
            elif 2 * calls[facts["true"]] < count:
                most = max(calls, key=lambda call: calls[call])
                wrong.append(f"*{name}* {kind}, which is {facts['true']}: {calls[most]} of {count} are called {most}")
    still = [one for one in rare if max(one[4:]) < 1 + MOVED]
    above = [one for one in rare if max(one[4:]) >= 1 + MOVED]
    few = (
        f"Of these kinds fewer than {_percent(RARELY)} of the images are rejected at {at}, so their kind is seldom told"
    )
    if still:
        lines.append(
            f"{few}, because the features hardly see them: neither part of a typical image is {_percent(MOVED)} above that "
            f"of a typical good one: {_list(map(_rare, still))}."
        )
    if above:
        lines.append(f"{few}; a part does rise, but within what single good images show: {_list(map(_rare, above))}.")
    if chance:
        lines.append(
            f"Rejected no more often than good images may be, so that their rejections, and the kinds given, are chance: "
            f"{_list(chance)}."
        )
    if wrong:
        lines.append(f"Rejected more often than that, but told wrongly in most cases: {_list(wrong)}.")
    coarse = [
        f"*{name}* ({runs[0]['calibration_images']} images: {_percent(rate['rate'])} instead of {_percent(rate['asked'])})"
        for name, runs in sets.items()
        for rate in runs[0]["rates"]
        if rate["rate"] > rate["asked"] * (1 + 1e-6)
    ]
    if coarse:
        lines.append(f"Too few images for the rate asked for, so the smallest possible one: {_list(coarse)}.")
    return lines


def data_sets(runs: Runs) -> Sets:
    sets: Sets = {}
    for run in runs:
        name = run["dataset"] if run["image_seed"] is None else f"{run['dataset']}, made"
        sets.setdefault(name, []).append(run)
    return sets


def images(runs: Runs, kind: str) -> int:
    return sum(run["kinds"][kind]["images"] for run in runs)


def called(runs: Runs, kind: str, place: int) -> dict[str, int]:
    """Of the rejected images of a kind at the rate ``place``, how many are called what, over all image seeds."""
    counts = [run["rates"][place]["called"][kind] for run in runs]
    return {call: sum(count[call] for count in counts) for call in counts[0]}


def moved(runs: Runs, kind: str, part: str) -> float:
    """The part of the kind's middle image, as a multiple of the good test images' middle one."""
    return statistics.fmean(run["kinds"][kind][f"{part}_ratio"] / run["kinds"][GOOD][f"{part}_ratio"] for run in runs)


def _shares(runs: Runs, asked: Sequence[float]) -> str:
    texts = []
    for place, rate in enumerate(asked):
        calls = {kind: called(runs, kind, place) for kind in runs[0]["kinds"] if kind != GOOD}
        total = sum(sum(count.values()) for count in calls.values())
        right = sum(count[runs[0]["kinds"][kind]["true"]] for kind, count in calls.items())
        texts.append(
            f"{right} of {total}{f' ({_percent(round(right / total, 2))})' if total else ''} at {_percent(rate)}"
        )
    return ", ".join(texts)


def _rare(one: tuple[str, str, int, int, float, float]) -> str:
    name, kind, count, total, local, context = one
    return f"*{name}* {kind} ({count} of {total}; local ×{local:.2f}, context ×{context:.2f})"


# ------------------------------------------------------------------------------------------------- update


def update_table() -> str:
    """Markdown: half, half and update, all; then an image that was learned and forgotten; and what follows."""
    parts_of_it = [
        load(file.stem)["results"] for file in sorted(RESULTS.glob("update*.json"))
    ]  # a file a coreset ratio
    runs, forgotten = ([one for part in parts_of_it for one in part[what]] for what in ("runs", "forget"))
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["coreset_ratio"], run["split"]), []).append(run)
    heads = ("coreset ratio", "first half", "image AUROC: half", "updated", "all", "updated − all")
    heads += ("pixel AUROC: half", "updated", "all", "rows: half", "added", "all", "update's time, of fit on all")
    rows = []
    for (ratio, split), group in groups.items():
        aurocs = [
            _spread([run[stage][what] for run in group])
            for what in ("image_auroc", "pixel_auroc")
            for stage in ("half", "updated", "all")
        ]
        counts = [run["half"]["rows"] for run in group], [run["rows_added"] for run in group]
        rows.append(
            (
                *(f"{ratio:g}", {"random": "at random", "first": "by name"}[split], *aurocs[:3]),
                *(_spread(gaps(group, "image_auroc"), signed=True), *aurocs[3:]),
                *(_range(values) for values in counts),
                _range([run["all"]["rows"] for run in group]),
                _range([run["seconds"]["update"] / run["seconds"]["fit_all"] for run in group], "{:.2f}"),
            )
        )
    parts = [_markdown(heads, rows), *update_sentences(runs)]
    if forgotten:
        heads = ("bad image", "seed", "rows of it", "image AUROC: learned", "forgotten", "never learned")
        heads += (
            "its p-value: learned",
            "forgotten",
            "never learned",
            "its kind's: learned",
            "forgotten",
            "never learned",
        )
        stages = ("with", "forgotten", "never")
        rows = [
            (
                *(one["kind"], str(one["seed"]), str(one["rows_of_image"])),
                *(f"{one[stage]['image_auroc']:.3f}" for stage in stages),
                *(f"{one[stage]['p_of_image']:.3f}" for stage in stages),
                *(f"{one[stage]['p_of_kind']['median']:.3f}" if one[stage]["p_of_kind"] else "–" for stage in stages),
            )
            for one in forgotten
        ]
        parts += [_markdown(heads, rows), forget_sentence(forgotten)]
    return "\n\n".join(parts)


def update_sentences(runs: Runs) -> list[str]:
    lines = []
    for ratio in dict.fromkeys(run["coreset_ratio"] for run in runs):
        group = [run for run in runs if run["coreset_ratio"] == ratio]
        seen = gaps(group, "image_auroc")
        mean, lost = statistics.fmean(seen), statistics.fmean(gaps(group, "image_auroc", "half"))
        seeds = {run["seed"]: run["all"]["image_auroc"] for run in group}
        within = sum(abs(gap) <= CLOSE for gap in seen)
        chance = ""
        if len(seeds) > 1:
            chance = f"; between seeds, fit on all itself varies by ± {statistics.stdev(seeds.values()):.3f}"
        first = group[0]
        lines.append(
            f"At coreset ratio {ratio:g}, half the images are {_signed(lost)} of image AUROC from all; after the update it is "
            f"{_signed(mean)} ({_signed(min(seen))} to {_signed(max(seen))} in single runs, {within} of {len(seen)} within "
            f"{CLOSE}{chance}): on average {'within' if abs(mean) <= CLOSE else 'not within'} {CLOSE} of fit on all. "
            f"The bank then has {_percent(round(_share(group), 2))} of its rows. "
            f"Of {first['all']['good_images']} good test images, the mean "
            f"number rejected is {_rejects(group)}."
        )
    return lines


def forget_sentence(forgotten: Runs) -> str:
    gap = [one["forgotten"]["image_auroc"] - one["never"]["image_auroc"] for one in forgotten]
    cost = [one["with"]["image_auroc"] - one["never"]["image_auroc"] for one in forgotten]
    back = sum(one["forgotten"]["p_of_image"] <= 2 * one["never"]["p_of_image"] for one in forgotten)
    return (
        f"A bad image among the training images changes image AUROC by {_signed(statistics.fmean(cost))}, on average, from a fit "
        f"without it; once it is forgotten, the difference is {_signed(statistics.fmean(gap))} "
        f"({_signed(min(gap))} to {_signed(max(gap))}). Its own p-value is back to at most twice that of a fit without it in "
        f"{back} of {len(forgotten)} runs."
    )


def gaps(runs: Runs, figure: str, stage: str = "updated") -> list[float]:
    """``stage`` less fit on all."""
    return [run[stage][figure] - run["all"][figure] for run in runs]


def _share(runs: Runs) -> float:
    return statistics.fmean(run["updated"]["rows"] / run["all"]["rows"] for run in runs)


def _rejects(runs: Runs) -> str:
    texts = []
    for rate in runs[0]["all"]["false_rejects"]:
        counts = [
            statistics.fmean(run[stage]["false_rejects"][rate]["rejected"] for run in runs)
            for stage in ("half", "updated", "all")
        ]
        half, updated, whole = (f"{count:.1f}" for count in counts)
        texts.append(f"{half} with half, {updated} after the update, {whole} with all at {_percent(float(rate))}")
    return "; ".join(texts)


# ------------------------------------------------------------------------------------------------- text


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(texts: Iterable[str]) -> str:
    return "; ".join(texts)


def _signed(value: float) -> str:
    rounded = round(value, 3) + 0.0  # no "−0.000"
    return (f"{rounded:+.3f}" if rounded else f"{rounded:.3f}").replace("-", "−")


def _spread(values: Sequence[float], *, signed: bool = False) -> str:
    """ "0.912 ± 0.013": mean and standard deviation."""
    mean = statistics.fmean(values)
    text = _signed(mean) if signed else f"{mean:.3f}"
    return text + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def _range(values: Sequence[float], form: str = "{:,}") -> str:
    """ "96–110", or "96" where all are alike."""
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low}–{high}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %".replace(".0 %", " %")
