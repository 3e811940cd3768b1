"""What results/thresholds.json says of the promise: tables and sentences for the documentation.

``promise_table()`` is all of it as Markdown. Every number and every sentence's claim comes from the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Rows = Sequence[dict[str, Any]]
LEAVE_ONE_OUT, SEPARATE = "left out", "separate"


def promise_table() -> str:
    """Rates × calibration, the training images' number, and the drift, as Markdown; losses included."""
    return page_of(json.loads((RESULTS / "thresholds.json").read_text(encoding="utf-8"))["results"])


def page_of(results: dict[str, Any]) -> str:
    """The same of the given results."""
    parts = [_conditions(results["sets"]), "", *_rates(results["rates"]), "", *_thresholds(results["rates"])]
    if results["counts"]:
        parts += ["", *_counts(results["counts"])]
    return "\n".join([*parts, "", *_drift(results["drift"])])


def _conditions(sets: dict[str, dict[str, Any]]) -> str:
    texts = [
        f"*{name}*: {one['good_images']} good images at {one['resize'][0]}×{one['resize'][1]} "
        f"({'no crop' if one['crop'] is None else 'cropped'}, {one['patches_an_image']} patches each), coreset ratio "
        f"{one['coreset_ratio']:g}, {one['backbone']} backbone, {one['splits']} random splits"
        for name, one in sets.items()
    ]
    return "; ".join(texts) + "."


def _rates(rows: Rows) -> list[str]:
    rates = sorted({row["promised"] for row in rows})
    lines: dict[tuple[Any, ...], dict[float, dict[str, Any]]] = {}
    for row in rows:
        key = (row["set"], row["threshold"], row["calibration"], row["learned"], row["calibrated"], row["tested"])
        lines.setdefault(key, {})[row["promised"]] = row
    head = ("images", "threshold", "calibration", "learned", "calibrated", "tested", *map(_percent, rates))
    table = _table(head, [(*key, *(_share(cells[rate]) for rate in rates)) for key, cells in sorted(lines.items())])
    possible = [row for row in rows if row["possible"]]
    broken = [row for row in possible if not row["kept"]]
    text = [
        "Realised share of good images above the threshold, in percent, for each promised rate: mean ± standard error over "
        "the splits, and in brackets the standard deviation between single splits.",
        "",
        *table,
        "",
        f"The promise, at most the rate and three standard errors, is kept in {len(possible) - len(broken)} of "
        f"{len(possible)} cases." + "".join(f" Not kept: {_named(row)}." for row in broken),
    ]
    for calibration in (SEPARATE, LEAVE_ONE_OUT):
        ratios = sorted(row["realised_over_promised"] for row in possible if row["calibration"] == calibration)
        if ratios:
            text.append(
                f"Calibration {_called(calibration)} realises {ratios[0]:.2f} to {ratios[-1]:.2f} times the promised rate "
                f"(middle case: {ratios[len(ratios) // 2]:.2f})."
            )
        if calibration == LEAVE_ONE_OUT and ratios and ratios[-1] < 0.5:
            text.append(
                "That keeps the promise, and is a loss: its thresholds lie higher than the rate asks for, and anomalies that "
                "score between both are accepted."
            )
    if missing := [row for row in rows if not row["possible"]]:
        few = sorted({(row["calibrated"], row["promised"]) for row in missing})
        text.append(
            "Not possible: "
            + "; ".join(f"{_percent(rate)} with {count} calibration images" for count, rate in few)
            + "."
        )
    spread = [row for row in possible if row["between_splits"] > row["promised"]]
    if spread:
        text.append(
            "The promise is one of the mean over calibrations: a single one may reject more. The deviation between splits is "
            f"larger than the rate itself in {len(spread)} of {len(possible)} cases, partly for the few images tested."
        )
    return text


def _thresholds(rows: Rows) -> list[str]:
    """How much higher the left-out threshold is than the separate one of the same bank."""
    both = [row for row in rows if row.get("over_separate_threshold")]
    if not both:
        return []
    found = [
        (
            row["set"],
            row["threshold"],
            row["learned"],
            _percent(row["promised"]),
            _ratio(row["over_separate_threshold"]),
        )
        for row in both
    ]
    return [
        "Threshold by leaving out, as a multiple of the separate one of the same bank: median, and the middle 80 % of splits.",
        "",
        *_table(("images", "threshold", "learned", "rate", "left out / separate"), found),
    ]


def _counts(rows: Rows) -> list[str]:
    rate = rows[0]["promised"]
    found = [
        (
            row["set"],
            row["threshold"],
            row["learned"],
            f"{100 * row['coreset_ratio']:g} %",
            f"{row['rows_an_image']:.1f}",
            row["tested"],
            _share(row),
            f"{row['realised_over_promised']:.2f}" if row["possible"] else "–",
            _ratio(row["over_separate_threshold"]),
        )
        for row in rows
    ]
    head = (
        *("images", "threshold", "learned", "coreset ratio", "rows an image", "tested", "realised, %"),
        *("/ promised", "threshold left out / separate"),
    )
    text = [
        f"Leaving out at a promised {_percent(rate)}, by the number of training images. The separate threshold is that of all "
        "images that are tested.",
        "",
        *_table(head, found),
    ]
    for kind in ("image", "pixel"):
        of_kind = [row for row in rows if row["possible"] and row["threshold"] == kind]
        by_ratio = [row for row in of_kind if row["coreset_ratio"] == of_kind[0]["coreset_ratio"]]
        if len(by_ratio) > 1:
            few, many = by_ratio[0], by_ratio[-1]
            text += [
                "",
                f"Of the {kind} threshold's promise, {100 * few['realised_over_promised']:.0f} % is used with "
                f"{few['learned']} training images and {100 * many['realised_over_promised']:.0f} % with {many['learned']}.",
            ]
    return text


def _drift(found: dict[str, Any]) -> list[str]:
    good = found["good_streams"]
    delays = [
        (
            row["quiet"],
            f"{row['shift']} σ",
            _parts(row["median"]),
            _parts(row["high"]),
            f"{row['false_before']} of {row['streams']}",
            row["never"],
        )
        for row in found["delays"]
    ]
    alarms = [
        (_percent(row["promised"]), f"{100 * row['share']:.2f} ± {100 * row['standard_error']:.2f} %")
        for row in good["shares"]
    ]
    kept = all(row["share"] <= row["promised"] + 3 * row["standard_error"] for row in good["shares"])
    worst = max((row for row in found["delays"] if row["median"] is not None), key=lambda row: row["median"])
    return [
        f"Drift: normal scores, {found['calibration']} of them for calibration, false alarm {_percent(found['false_alarm'])}. "
        "Shifted parts until the alarm, after so many good ones; without the streams that alarmed before the change.",
        "",
        *_table(
            ("good parts before", "shift", "median", "90 %", "alarmed before", f"not in {found['parts_after']}"), delays
        ),
        "",
        f"The slowest of these: a shift of {worst['shift']} σ after {worst['quiet']} good parts, {worst['median']} parts in "
        f"the median and {_parts(worst['high'])} in 90 % of the streams.",
        "",
        f"Streams of {good['parts']} good parts that ever raise the alarm, of {good['streams']}:",
        "",
        *_table(("promised at most", "share"), alarms),
        "",
        "The alarm's promise is kept." if kept else "The alarm's promise is not kept.",
    ]


def _share(row: dict[str, Any]) -> str:
    if not row["possible"]:
        return "not possible"
    return f"{100 * row['realised']:.2f} ± {100 * row['standard_error']:.2f} ({100 * row['between_splits']:.2f})"


def _ratio(values: dict[str, float] | None) -> str:
    return "–" if values is None else f"{values['median']:.3f} ({values['low']:.3f}–{values['high']:.3f})"


def _named(row: dict[str, Any]) -> str:
    return (
        f"{row['set']}, {row['threshold']} threshold, {row['calibration']}, {row['learned']} learned, "
        f"{_percent(row['promised'])}: {_share(row)}"
    )


def _called(calibration: str) -> str:
    return "with separate images" if calibration == SEPARATE else "by leaving out"


def _parts(count: int | None) -> str:
    return "–" if count is None else str(count)


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
