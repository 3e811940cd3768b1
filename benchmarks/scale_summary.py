"""The tables of docs/scale.md, from results/shares.json and results/scale.json.

The third is no measurement: it carries the growth that one worker of one core showed to many such workers. What many workers cost
beyond that (a network's and a storage's limits, machines that differ) is not in it, and nothing is said of GPUs.
"""

from __future__ import annotations

from typing import Any

Row = tuple[str, ...]
SHARES_HEAD: Row = (
    *("set", "shares", "way", "covering radius / one machine's", "image AUROC, less one machine's"),
    *("patches in common", "rounds", "candidates sent", "time / one machine's"),
)
GROWTH_HEAD: Row = ("stage", "workers", "seconds, by images", "ms more an image", "largest residual", "exponent")
EXTRAPOLATED_HEAD: Row = ("what", "fit", "predict")

IMAGES = 10_000_000
WORKERS = 100  # of one core each, like the one that was measured
CALIBRATION_IMAGES = 10_000  # good images apart, of fit's --calibrate
CANDIDATES, FEWEST_CANDIDATES = 8192, 64  # of scale/fit.py; a test compares them
PROJECTED = 128  # numbers of a projected patch, float32
STAGES = (
    *("fit start", "fit embed", "fit coreset", "fit calibrate", "fit write", "fit whole"),
    *("predict score", "predict sum", "predict whole"),
)


def shares_rows(results: dict[str, Any]) -> list[Row]:
    """One row for each set, number of shares and way."""
    return [
        (
            name,
            str(one["shares"]),
            one["way"],
            f"{one['radius_over_single']:.5f}",
            "–" if one["auroc_less_single"] is None else f"{one['auroc_less_single']:+.4f}",
            f"{one['in_common']:.1%}",
            str(one["rounds"]),
            f"{one['candidates']:,} ({one['candidate_bytes'] / 1e6:.1f} MB)",
            "{median:.2f} ({min:.2f}–{max:.2f})".format(**one["over_single_time"]),
        )
        for name, found in results["sets"].items()
        for one in found["runs"]
    ]


def shares_conditions(results: dict[str, Any], arguments: dict[str, Any]) -> str:
    """What the coresets were chosen from, a sentence."""
    sets = "; ".join(
        f"{name}, {found['images']} images to learn from, {found['bank']:,} of {found['patches']:,} patches kept, "
        f"{found['tested']} images tested"
        for name, found in results["sets"].items()
    )
    return f"Network: {arguments['backbone']}. {sets[0].upper()}{sets[1:]}."


def growth_rows(results: dict[str, Any]) -> list[Row]:
    """One row for each stage and number of workers, then what was the largest in memory, and the processors' time."""
    rows: list[Row] = []
    for stage in STAGES:
        work, name = stage.split()
        for workers, lines in results["growth"].items():
            one = lines[stage]
            seconds = " · ".join(
                f"{run[work]['seconds'][name]:.1f} ({run['images']:,})" for run in runs_of(results, int(workers))
            )
            residual = max(abs(value) for value in one["residuals"])
            figures = (f"{one['b'] * 1000:.2f}", f"{residual:.2f} s", f"{one['exponent']:.2f}")
            rows.append((stage, workers, seconds, *figures))
    for work in ("fit", "predict"):
        for role in results["runs"][0][work]["peak_mb"]:
            for workers in results["growth"]:
                runs = runs_of(results, int(workers))
                peaks = " · ".join(f"{run[work]['peak_mb'][role]:.0f} MB ({run['images']:,})" for run in runs)
                rows.append((f"{work}, memory: {role}", workers, peaks, "", "", ""))
        for role in results["runs"][0][work]["processor_seconds"]:
            for workers in results["growth"]:
                runs = runs_of(results, int(workers))
                spent = " · ".join(f"{run[work]['processor_seconds'][role]:.1f} s ({run['images']:,})" for run in runs)
                rows.append((f"{work}, processor: {role}", workers, spent, "", "", ""))
    return rows


def extrapolated_rows(results: dict[str, Any]) -> list[Row]:
    """What IMAGES images would need on WORKERS workers, from the runs of one worker."""
    images, lines = results["images"], results["growth"]["1"]
    few, most = runs_of(results, 1)[0], runs_of(results, 1)[-1]
    share = IMAGES / WORKERS
    learn = sum(lines[f"fit {stage}"]["b"] for stage in ("embed", "coreset", "calibrate")) * share
    score = lines["predict score"]["b"] * share
    shown = max(FEWEST_CANDIDATES, CANDIDATES // WORKERS) * WORKERS
    rounds, bank = most["fit"]["rounds"], most["fit"]["bank"][0]
    candidates = rounds * shown * (4 * PROJECTED + 12)  # a projection, its row, its distance
    centres = bank * WORKERS * (4 * PROJECTED + 16)  # a projection, its row and share, to every worker
    broadcast = bank * (4 * images["width"] + 16)  # the bank's rows with their images and cells
    read = images["image_bytes"] * IMAGES
    between = most["images"] - few["images"]
    table = (most["predict"]["table_bytes"] - few["predict"]["table_bytes"]) / between
    kept, told = (
        (most["fit"]["model_bytes"][part] - few["fit"]["model_bytes"][part]) / between
        for part in ("calibration", "rest")
    )
    names = {
        work: (most[work]["peak_mb"]["listing"] - few[work]["peak_mb"]["listing"]) * 1e6 / between
        for work in ("fit", "predict")
    }
    projected = images["projected_bytes"] * share
    return [
        ("time", hours(learn), hours(score)),
        ("memory of a worker for projections", size(projected), "none"),
        ("disk of a worker for patches", size(images["spill_bytes"] * share), "none"),
        ("memory of the listing", *(size(max(names[work], 0) * IMAGES) for work in ("fit", "predict"))),
        ("images read, by all workers", size(read), size(read)),
        ("candidates sent to the steward, in all rounds", size(candidates), "none"),
        ("centres sent to the workers", size(centres), "none"),
        ("the bank, to each worker", size(broadcast), size(broadcast)),
        ("the model file, every image looked back at", size((kept + told) * IMAGES), "none"),
        (
            f"the model file, with {CALIBRATION_IMAGES:,} images of `--calibrate`",
            size(kept * CALIBRATION_IMAGES + told * IMAGES),
            "none",
        ),
        ("tables of names and scores", "none", size(table * IMAGES)),
    ]


def conditions(results: dict[str, Any], environment: dict[str, Any]) -> str:
    """What the growth was measured on, sentences."""
    images = results["images"]
    return (
        f"{environment['cpus']} cores of {environment['cpu']}; torch {environment['torch']}; built-in backbone; made screws of "
        f"{images['side']}×{images['side']}, JPEG, {images['image_bytes'] / 1e3:.0f} KB an image, {images['different']} of them "
        f"drawn, the others these with noise; a memory bank of {images['bank']:,} rows at every size; all workers on one "
        "machine."
    )


def assumptions(results: dict[str, Any]) -> str:
    """What the extrapolation takes for granted, sentences."""
    return (
        f"Not measured: carried from one worker of one core to {WORKERS} such workers and {IMAGES:,} images of the same kind, "
        f"with the same bank of {results['images']['bank']:,} rows and as many rounds as the largest run had. It takes for "
        "granted that images arrive as fast as they are read here, and that no worker is lost."
    )


def runs_of(results: dict[str, Any], workers: int) -> list[dict[str, Any]]:
    """The runs with so many workers, the fewest images first."""
    return sorted((run for run in results["runs"] if run["workers"] == workers), key=lambda run: run["images"])


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.1f} KB"
