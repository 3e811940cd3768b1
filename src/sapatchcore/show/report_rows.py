"""The test images of a report as plain records: verdict, reason, mistake.

The page, its CSV and its JSON are made of these, so they say the same.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sapatchcore.atomic import write_bytes, write_json
from sapatchcore.data.sources import Progress
from sapatchcore.datasets.samples import Dataset
from sapatchcore.detector import SAPatchCore
from sapatchcore.result import Result
from sapatchcore.score.explain import Cause, Explanation
from sapatchcore.verify.evaluate import Evaluation

MOST = 3  # regions of an image that are explained
ACCEPT, REJECT = "accept", "reject"
FALSE_REJECT, MISSED = "false reject", "missed defect"
COLUMNS = (
    "path", "label", "verdict", "wrong", "score", "threshold", "ratio", "p_value", "kind", "reason", "local_share",
    "context_share", "global_score", "global_ratio", "good_image", "good_turned", "good_box", "regions", "notes",
)  # fmt: skip
_TOGETHER = 32  # images that are explained between two reports of progress


def report_rows(
    detector: SAPatchCore,
    dataset: Dataset,
    evaluation: Evaluation,
    *,
    false_reject: float | None = None,
    explanations: Sequence[Explanation] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One record a test image, in the data set's order, JSON-ready (None, never NaN), by COLUMNS.

    explanations: what ``explained`` returned for all test images; None to compute it. A box is [top, left, height, width] in
    pixels of its image. verdict and what follows from it are None without calibration, what is global without a global part.
    regions: each with box, area and peak, the box of its worst patch, and image and box of the nearest good patch; good_image
    and good_box: of the worst; good_turned: how, where it is in a turned copy of the image.

    Errors as of ``explained``.
    """
    if explanations is None and evaluation.result.calibration is not None:
        explanations = explained(detector, evaluation.result, range(len(dataset.test)), false_reject, progress)
    found = [None] * len(dataset.test) if explanations is None else explanations
    labels, notes = evaluation.labels, evaluation.result.notes
    return [
        {**_row(evaluation.result, index, labels[index], one), "notes": list(notes[index])}
        for index, one in enumerate(found)
    ]


def report_csv(rows: Sequence[dict[str, Any]]) -> str:
    """``report_rows`` as CSV: boxes as "top left height width", regions as JSON, notes one after another, nothing for None."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # with "\n" a lone "\r" in a name would stay unquoted
    writer.writerow(COLUMNS)
    for row in rows:
        box = row["good_box"]
        flat = {
            **row,
            "good_box": None if box is None else " ".join(map(str, box)),
            "regions": json.dumps(row["regions"], allow_nan=False, separators=(",", ":")),
            "notes": " ".join(row["notes"]),
        }
        writer.writerow([flat[name] for name in COLUMNS])
    return out.getvalue()


def write_rows(
    detector: SAPatchCore,
    dataset: Dataset,
    evaluation: Evaluation,
    *,
    false_reject: float | None = None,
    csv_file: Path | None = None,
    json_file: Path | None = None,
    explanations: Sequence[Explanation] | None = None,
    progress: Progress | None = None,
) -> None:
    """``report_rows`` to files: as CSV, and as JSON below "verdicts", beside all figures; nothing for None.

    Errors as of ``report_rows``, and DataError where a file cannot be written.
    """
    if csv_file is None and json_file is None:
        return
    options: dict[str, Any] = {"false_reject": false_reject, "explanations": explanations, "progress": progress}
    rows = report_rows(detector, dataset, evaluation, **options)
    if csv_file is not None:  # a path that is no text keeps its bytes
        content = report_csv(rows).encode("utf-8", "surrogateescape")
        write_bytes(csv_file, content, "Name another file with `csv_file`.")
    if json_file is not None:
        figures = evaluation.to_dict(false_reject)
        figures.pop("scores")
        write_json(json_file, {**figures, "verdicts": rows}, "Name another file with `json_file`.")


def explained(
    detector: SAPatchCore,
    result: Result,
    indices: Sequence[int],
    false_reject: float | None,
    progress: Progress | None = None,
) -> list[Explanation]:
    """``detector.explain`` of these images of ``result``, with progress, stage "explain".

    Raises NotFittedError without calibration; SettingsError for a rate that cannot be promised; DataError where an image
    cannot be read any more.
    """
    found: list[Explanation] = []
    for start in range(0, len(indices), _TOGETHER):
        paths = [result.paths[index] for index in indices[start : start + _TOGETHER]]
        found += detector.explain(paths, false_reject=false_reject, most=MOST)
        if progress is not None:
            progress("explain", len(found), len(indices))
    return found


def mistake(rejected: bool | None, label: str) -> str:
    """FALSE_REJECT, MISSED, or "" where the verdict fits the label or there is none."""
    if rejected is None or rejected == (label != "good"):
        return ""
    return FALSE_REJECT if rejected else MISSED


def local_share(result: Result, index: int) -> float:
    """local² / (local² + context²) of one image, in [0, 1], as of Verdict; the context's share is the rest."""
    local, context = float(result.local_scores[index]) ** 2, float(result.context_scores[index]) ** 2
    return local / (local + context) if local + context > 0 else 0.0


def worst_first(result: Result, labels: Sequence[str], wrong: Sequence[str], limit: float | None) -> list[int]:
    """All images' indices: mistakes, the farthest on the wrong side of the threshold first; then the others, the nearest to it
    first. Without a threshold the highest score first."""
    if limit is None:
        return [int(index) for index in np.argsort(-result.scores, kind="stable")]
    side = np.array([1 if label == "good" else -1 for label in labels])
    beyond = side * (result.scores.astype(np.float64) - limit)  # above 0: on the wrong side
    right = np.array([not one for one in wrong])
    return [int(index) for index in np.lexsort((np.arange(len(side)), -beyond, right))]


def shown(wrong: Sequence[str], most: int) -> list[int]:
    """The indices, in order, of all mistakes and of others at even steps, ``most`` together."""
    mistakes = [index for index, one in enumerate(wrong) if one]
    others = [index for index, one in enumerate(wrong) if not one]
    room = min(len(others), max(0, most - len(mistakes)))
    return sorted([*mistakes, *(others[step * len(others) // room] for step in range(room))])


def short_names(paths: Sequence[str]) -> list[str]:
    """The paths relative to the folder that all have in common, with forward slashes."""
    whole = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - texts, not files
    try:
        shared = os.path.commonpath({os.path.dirname(path) for path in whole})  # noqa: PTH120
    except ValueError:  # none, or on several drives
        return list(paths)
    return [PurePath(os.path.relpath(path, shared)).as_posix() for path in whole]


def _row(result: Result, index: int, label: str, one: Explanation | None) -> dict[str, Any]:
    share = local_share(result, index)
    verdict = None if one is None else one.verdict
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "path": result.paths[index],
        "label": label,
        "score": float(result.scores[index]),
        "local_share": share,
        "context_share": 1 - share,
        "global_score": None if result.global_scores is None else float(result.global_scores[index]),
        "regions": [],
    }
    if one is not None and verdict is not None:
        good = one.causes[0].good
        row |= {
            "verdict": REJECT if verdict.rejected else ACCEPT,
            "wrong": mistake(verdict.rejected, label),
            "threshold": verdict.threshold,
            "ratio": verdict.score / verdict.threshold if verdict.threshold > 0 else None,
            "p_value": verdict.p_value,
            "kind": verdict.kind,
            "reason": verdict.sentence,
            "global_ratio": verdict.global_ratio,
            "good_image": good.image,
            "good_turned": good.turned or None,
            "good_box": list(good.box),
            "regions": [_region(cause) for cause in one.causes if cause.region is not None],
        }
    return row


def _region(cause: Cause) -> dict[str, Any]:
    assert cause.region is not None  # the caller's choice
    return {
        "box": list(cause.region.box),
        "area": cause.region.area,
        "peak": cause.region.peak,
        "patch_box": list(cause.box),
        "good_image": cause.good.image,
        "good_turned": cause.good.turned or None,
        "good_box": list(cause.good.box),
    }
