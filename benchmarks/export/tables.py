"""The tables of docs/export.md, from results/export.json, export_speed.json and edge.json."""

from __future__ import annotations

import statistics
from typing import Any

Row = tuple[str, ...]
BACKBONES = {"builtin": "The built-in backbone"}
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
    name, rows = runs[0]["backbone"], [run["bank"][0] for run in runs]
    return (
        f"{BACKBONES.get(name, name)}, banks of {min(rows)} to {max(rows)} rows, test images of {', '.join(categories)}; "
        f"{', '.join(versions)}. Each side with its own thresholds, at the smallest rate that its calibration images can "
        "promise, or 1 %."
    )


SPEED_HEAD: Row = ("", "ms an image", "× as fast as anomalib's float32", "its default", "its int8")
_OTHERS = ("float32", "default", "int8")


def speed_rows(found: dict[str, Any]) -> list[Row]:
    """(what, ms an image, times as fast as each of anomalib's) of the graphs, then of each package's own predict."""
    speed, rows = found["speed"], []
    for kind in ("graph", "predict"):
        for name, against in speed[f"times_faster, {kind}"].items():
            times = (against.get(f"anomalib, {kind}, {other}") for other in _OTHERS)
            rows.append((name.removeprefix("ours, "), _ms(speed, name), *(_times(one) for one in times)))
        for other in _OTHERS:
            if (name := f"anomalib, {kind}, {other}") in speed["ms_an_image"]:
                rows.append(
                    (
                        f"anomalib {found['versions']['theirs']['anomalib']}, {other}: {kind}",
                        _ms(speed, name),
                        "",
                        "",
                        "",
                    )
                )
    return rows


def _ms(speed: dict[str, Any], name: str) -> str:
    return f"{speed['ms_an_image'][name]['median']:.0f}"


def _times(ratio: dict[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f}"


def speed_conditions(content: dict[str, Any]) -> str:
    """What was timed, a sentence."""
    found, where = content["results"], content["environment"]
    rows, numbers = found["bank"]
    return (
        f"Wide ResNet-50-2, bank of {rows:,} × {numbers:,}, batch 1, {where['cpus']} cores of {where['cpu']}, all variants by "
        "turns in one run. Ours begins at a raw image of 1024×1024, with self-attention, and ends at its map; anomalib's *graph* "
        "begins at the prepared 224×224 input, and its *predict* at the raw image."
    )


EDGE_HEAD: Row = ("", "edge (ONNX Runtime)", "learn (PyTorch)", "learn / edge")
_STEPS = {
    "import what scores": "import what scores",
    "sapatchcore predict": "`sapatchcore predict` of 8 images, start to end",
}


def edge_rows(found: dict[str, Any]) -> list[Row]:
    """Megabytes on the disk, and seconds of whole processes."""
    sizes = [found["installed"][extra]["megabytes"] for extra in ("edge", "learn")]
    small = [
        found["installed"][extra]["megabytes"] - found["installed"][extra]["of_it_for_gpus"]
        for extra in ("edge", "learn")
    ]
    rows: list[Row] = [
        ("installed, MB", *(f"{size:,.0f}" for size in sizes), f"{sizes[1] / sizes[0]:.0f}"),
        ("installed, less what only GPUs use, MB", *(f"{size:,.0f}" for size in small), f"{small[1] / small[0]:.1f}"),
    ]
    for key, name in _STEPS.items():
        for clock, unit in (("by_the_clock", "s"), ("by_the_processor", "processor s")):
            one = found["seconds"][key][clock]
            rows.append(
                (
                    f"{name}, {unit}",
                    *(f"{one[extra]['median']:.2f}" for extra in ("edge", "learn")),
                    f"{one['learn_over_edge']['median']:.1f}",
                )
            )
    return rows
