"""The table of docs/export.md, from results/export.json."""

from __future__ import annotations

import statistics
from typing import Any

Row = tuple[str, ...]
HEAD: Row = (
    *("runtime", "network", "bank", "MB", "image AUROC, file less model", "score, median difference", "largest"),
    "other verdicts",
)


def export_rows(runs: list[dict[str, Any]]) -> list[Row]:
    """One row for each runtime and pair of formats: over the categories the mean, with the extremes where there are several."""
    keys = dict.fromkeys((run["runtime"], run["precision"], run["bank_precision"]) for run in runs)
    rows = []
    for key in keys:
        these = [run for run in runs if (run["runtime"], run["precision"], run["bank_precision"]) == key]
        steps = [run["auroc_difference"] for run in these]
        spread = f" ({min(steps):+.4f} to {max(steps):+.4f})" if len(steps) > 1 else ""
        images = sum(run["images"] for run in these)
        rows.append(
            (
                *key,
                f"{statistics.fmean(run['megabytes'] for run in these):.0f}",
                f"{statistics.fmean(steps):+.4f}{spread}",
                f"{statistics.median(run['median_score_difference'] for run in these):.1g}",
                f"{max(run['largest_score_difference'] for run in these):.1g}",
                f"{sum(run['other_verdicts'] for run in these)} of {images}",
            )
        )
    return rows


def conditions(runs: list[dict[str, Any]]) -> str:
    """What the table was measured on, a sentence."""
    categories = list(dict.fromkeys(run["category"] for run in runs))
    versions = sorted({run["version"] for run in runs})
    return (
        f"{runs[0]['backbone']}, banks of {min(run['bank'][0] for run in runs)} to {max(run['bank'][0] for run in runs)} rows, "
        f"test images of {', '.join(categories)}; {', '.join(versions)}. Each side with its own thresholds, at the smallest "
        "rate that its calibration images can promise, or 1 %."
    )
