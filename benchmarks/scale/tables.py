"""The tables of docs/scale.md, from results/shares.json and results/scale.json.

The third is no measurement: it carries the growth that one worker of one core showed to many such workers. What many workers cost
beyond that (a network's and a storage's limits, machines that differ) is not in it, and nothing is said of GPUs.
"""

from __future__ import annotations

import math
from typing import Any

from sapatchcore.settings import Settings

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
LEARN: Row = ("fit embed", "fit coreset", "fit calibrate")  # what grows with a worker's images
SCORE: Row = ("predict score",)


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
    """One row for each stage and number of workers."""
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
    return rows


def taken_rows(results: dict[str, Any], command: dict[str, Any]) -> list[Row]:
    """One row for each process and number of workers: memory, and the time of processors where it was taken.

    command: results of a later run, in which the time of the command has not that of the watching in it; its runs may be none.
    """
    rows: list[Row] = []
    for work in ("fit", "predict"):
        for role in results["runs"][0][work]["peak_mb"]:
            for workers in results["growth"]:
                runs = runs_of(results, int(workers))
                peaks = " · ".join(f"{run[work]['peak_mb'][role]:.0f} MB" for run in runs)
                timed = runs_of(command, int(workers)) if role == "command" else runs
                spent = [run[work]["processor_seconds"].get(role) for run in timed]
                seconds = "" if None in spent else " · ".join(f"{one:.1f} s" for one in spent)
                name = "ledger" if (work, role) == ("predict", "steward") else role
                rows.append((f"{work}: {name}", workers, peaks, seconds))
    return rows


def taken_head(results: dict[str, Any]) -> Row:
    sizes = " · ".join(f"{run['images']:,}" for run in runs_of(results, 1))
    return ("process", "workers", f"memory, {sizes} images", "processor")


def extrapolated_rows(results: dict[str, Any]) -> list[Row]:
    """What IMAGES images would need on WORKERS workers, from the runs of one worker."""
    images, lines = results["images"], results["growth"]["1"]
    few, most = runs_of(results, 1)[0], runs_of(results, 1)[-1]
    share, between = IMAGES / WORKERS, most["images"] - few["images"]
    bank, rounds = most["fit"]["bank"][0], rounds_of(results)
    shown = max(FEWEST_CANDIDATES, CANDIDATES // WORKERS) * WORKERS
    candidates = rounds * shown * (4 * PROJECTED + 12)  # a projection, its row, its distance
    centres = bank * WORKERS * (4 * PROJECTED + 16)  # a projection, its row and share, to every worker
    broadcast = bank * (4 * images["width"] + 16)  # the bank's rows with their images and cells
    read = images["image_bytes"] * IMAGES
    rates = [images["image_bytes"] * WORKERS / lines[stage]["b"] for stage in ("fit embed", "predict score")]

    def more(work: str, *names: str) -> float:
        """How much more of something each image made."""
        values = []
        for run in (few, most):
            value: Any = run[work]
            for name in names:
                value = value[name]
            values.append(value)
        return float(values[1] - values[0]) / between

    kept, told = more("fit", "model_bytes", "calibration"), more("fit", "model_bytes", "rest")
    working = few["fit"]["peak_mb"]["workers"] * 1e6 + more("fit", "peak_mb", "workers") * 1e6 * (share - few["images"])
    listing = [max(more(work, "peak_mb", "listing"), 0) * 1e6 * IMAGES for work in ("fit", "predict")]
    return [
        ("time, if it grows evenly", *(hours(evenly(lines, stages) * share) for stages in (LEARN, SCORE))),
        (
            "time, if it grows by the exponents above 1",
            *(hours(by_exponents(lines, most, stages, share)) for stages in (LEARN, SCORE)),
        ),
        ("memory of a worker", size(working), size(most["predict"]["peak_mb"]["workers"] * 1e6)),
        ("of this, projections", size(images["projected_bytes"] * share), "none"),
        ("disk of a worker for patches", size(images["spill_bytes"] * share), "none"),
        ("memory of the listing", *map(size, listing)),
        ("images read, by all workers", size(read), size(read)),
        ("the same, a second", *map(size, rates)),
        ("rounds of the coreset", f"{rounds:.0f}", "none"),
        ("candidates sent to the steward, in all rounds", size(candidates), "none"),
        ("centres sent to the workers", size(centres), "none"),
        ("the bank, to each worker", size(broadcast), size(broadcast)),
        ("the model file, every image looked back at", size((kept + told) * IMAGES), "none"),
        (
            f"the model file, with {CALIBRATION_IMAGES:,} images of `--calibrate`",
            size(kept * CALIBRATION_IMAGES + told * IMAGES),
            "none",
        ),
        ("tables of names and scores", "none", size(more("predict", "table_bytes") * IMAGES)),
    ]


def evenly(lines: dict[str, Any], stages: Row) -> float:
    """Seconds more for each image."""
    return float(sum(lines[stage]["b"] for stage in stages))


def by_exponents(lines: dict[str, Any], most: dict[str, Any], stages: Row, images: float) -> float:
    """Seconds of so many images, from those of the largest run and each stage's exponent; one below 1 is that of a start."""
    total = 0.0
    for stage in stages:
        work, name = stage.split()
        total += most[work]["seconds"][name] * (images / most["images"]) ** max(lines[stage]["exponent"], 1)
    return total


def rounds_of(results: dict[str, Any]) -> float:
    """Rounds of the coreset over IMAGES images, growing as between the two largest runs of one worker."""
    before, most = runs_of(results, 1)[-2:]
    exponent = math.log(most["fit"]["rounds"] / before["fit"]["rounds"]) / math.log(most["images"] / before["images"])
    return float(most["fit"]["rounds"] * (IMAGES / most["images"]) ** exponent)


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
    images, usual = results["images"], Settings().coreset_ratio
    patches, row = images["patches"] * IMAGES, 4 * images["width"]
    return (
        f"Not measured: carried from one worker of one core to {WORKERS} such workers and {IMAGES:,} images of the same kind. "
        "It takes for granted that images arrive as fast as they are read here, that no worker is lost, and that rounds of the "
        f"coreset grow as they did between the two largest runs. The bank is the same, {images['bank']:,} rows: of so many "
        f"patches that is `--coreset-ratio {images['bank'] / patches:.1e}`. {usual:g}, the usual ratio, would keep "
        f"{usual * patches / 1e6:.0f} million rows, {size(usual * patches * row)}, which each worker would have to hold."
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
