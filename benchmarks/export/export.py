"""Are an exported file's scores the model's, and what does each shorter number format cost?"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import BACKBONE, Record, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.export.export import export_model
from sapatchcore.export.graph import FORMATS
from sapatchcore.export.runtime import open_exported
from sapatchcore.result import Result
from sapatchcore.score.metrics import auroc

QUESTION = "export: AUROC, scores and verdicts of every precision in both runtimes, against the model's own"
RUNTIMES = {"onnx": "m.onnx", "openvino": "m.xml"}


def main(arguments: list[str] | None = None) -> None:
    options = parser("export", QUESTION, several=True)
    options.add_argument("--backbone", default=BACKBONE, help="(default: %(default)s)")
    options.add_argument("--weights", default="random", help="as of sapatchcore fit (default: %(default)s)")
    options.add_argument("--attention", default="self", help="self or none (default: %(default)s)")
    options.add_argument("--coreset-ratio", type=float, default=0.1, help="(default: %(default)s)")
    options.add_argument("--runtimes", default=",".join(RUNTIMES), help="(default: %(default)s)")
    options.add_argument("--precisions", default=",".join(FORMATS), help="of the network (default: %(default)s)")
    options.add_argument("--bank-precisions", default=",".join(FORMATS), help="of the bank (default: %(default)s)")
    given = options.parse_args(arguments)
    runtimes, precisions = given.runtimes.split(","), given.precisions.split(",")
    record, runs, rows = Record("export", QUESTION, given), [], []
    for folder in given.data:
        dataset = open_dataset(folder)
        step = max(1, len(dataset.test) // 8) if given.quick else 1
        train = [sample.path for sample in dataset.train][: 12 if given.quick else None]
        detector = SAPatchCore(
            backbone="resnet18" if given.quick else given.backbone,
            weights=given.weights,
            attention=given.attention,
            coreset_ratio=given.coreset_ratio,
            device="cpu",
        ).fit(train)
        tested = dataset.test[::step]
        own = detector.predict([sample.path for sample in tested])
        labels = [not sample.is_good for sample in tested]
        # Network and bank by turns: what the one costs does not hide behind the other. Then both in int8, the fast profile.
        pairs = [(precision, "float32") for precision in precisions]
        pairs += [("float32", bank) for bank in given.bank_precisions.split(",") if bank != "float32"]
        pairs += [
            (short, short) for short in precisions if short == "int8" and short in given.bank_precisions.split(",")
        ]
        for runtime in runtimes:
            for precision, bank in pairs:
                run = one(detector, own, labels, [sample.path for sample in tested], runtime, precision, bank)
                runs.append({"category": dataset.name, "backbone": detector.settings.backbone, **run})
                record["runs"] = runs
                rows.append([runs[-1][key] for key in SHOWN])
                print(*rows[-1], flush=True)
    print()
    table(SHOWN, rows)
    record.write(given.output)


SHOWN = (
    *("category", "runtime", "precision", "bank_precision", "megabytes", "own_auroc", "auroc_difference"),
    *("largest_score_difference", "median_score_difference", "other_verdicts"),
)


def one(
    detector: SAPatchCore, own: Result, labels: list[bool], paths: list[Path], runtime: str, precision: str, bank: str
) -> dict[str, Any]:
    """One file against the model: both on every test image, each with its own thresholds."""
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
        file = Path(folder) / RUNTIMES[runtime]
        begin = time.perf_counter()
        written = export_model(detector, file, precision=precision, bank_precision=bank)
        seconds = time.perf_counter() - begin
        size = sum(part.stat().st_size for part in Path(folder).iterdir())
        exported = open_exported(file)
        theirs = exported.predict(paths)
    differences = np.abs(theirs.scores - own.scores) / np.maximum(own.scores, 1e-12)
    ours, others = (
        ([one.rejected for one in result.verdicts()], [one.kind for one in result.verdicts()])
        for result in (own, theirs)
    )
    own_auroc, file_auroc = auroc(labels, own.scores), auroc(labels, theirs.scores)
    return {
        "runtime": runtime,
        "version": exported.runtime,
        "precision": precision,
        "bank_precision": bank,
        "bank": written["bank"],
        "megabytes": size / 1e6,
        "export_seconds": seconds,
        "images": len(paths),
        "own_auroc": own_auroc,
        "file_auroc": file_auroc,
        "auroc_difference": file_auroc - own_auroc,
        "largest_score_difference": float(differences.max()),
        "median_score_difference": float(np.median(differences)),
        "other_verdicts": int(sum(a != b for a, b in zip(ours[0], others[0], strict=True))),
        "other_kinds": int(sum(a != b and bool(a) and bool(b) for a, b in zip(ours[1], others[1], strict=True))),
        "other_p_values": int((own.p_values.astype(np.float32) != theirs.p_values.astype(np.float32)).sum()),
        "false_reject": own.rate(),
        "calibration_scores": written["calibration_scores"],
        "check": written["check"],
    }


if __name__ == "__main__":
    sys.exit(main())
