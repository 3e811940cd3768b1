"""What a verdict costs: calibration as a share of fit, an explanation on top of predict, a report of a test set."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.measure import BACKBONE, Record, images_for, interleaved, parser, shown, spread, table, test_set
from sapatchcore import SAPatchCore
from sapatchcore.data.sources import Images, read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.learning import calibrate
from sapatchcore.memory.coreset import choose
from sapatchcore.score.threshold import threshold
from sapatchcore.show.report import write_report
from sapatchcore.synth.write import write_dataset
from sapatchcore.verify.evaluate import evaluate

QUESTION = "calibration's share of fit, ms of an explanation on top of predict, seconds and bytes of a report"


def main(arguments: list[str] | None = None) -> None:
    options = parser("verdict", QUESTION)
    options.add_argument("--train-images", type=int, default=320, help="(default: %(default)s)")
    options.add_argument("--images", type=int, default=16, help="explained, in a round (default: %(default)s)")
    given = options.parse_args(arguments)
    train, count, repeats = (8, 2, 1) if given.quick else (given.train_images, given.images, given.repeats or 5)
    record = Record("verdict", QUESTION, given)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = test_set(given.data) or made_set(folder / "screws", train)
        learned = images_for(given.data, train) if given.data else [sample.path for sample in dataset.train]
        rows = []
        for backbone in ("builtin", "resnet18" if given.quick else BACKBONE):
            weights = "pretrained" if backbone == "builtin" else "random"
            detector = SAPatchCore(backbone=backbone, weights=weights, device="cpu")
            share = calibration_share(detector, learned, 1 if given.quick else 3)
            explained = explanation(detector, dataset, count, repeats)
            record[backbone] = {
                "bank": len(detector.memory_bank),
                **share,
                **explained,
                "anew": anew(detector, learned),
            }
            rows.append((backbone, shown(share["calibration_share_of_fit"]), shown(explained["explain_ms"])))
            if backbone == "builtin":
                record["report"] = report(detector, dataset, folder)
        table(("network", "calibration / rest of fit", "explain, ms on top of predict"), rows)
    record.write(given.output)


def made_set(folder: Path, train: int) -> Dataset:
    write_dataset(folder, "screws", side=128, train=train, test={"good": 4, "paint": 4})
    found = test_set(folder)
    assert found is not None
    return found


def calibration_share(detector: SAPatchCore, learned: Images, rounds: int) -> dict[str, Any]:
    """From the coreset's last centre to the end of fit, over all before it."""
    shares, seconds = [], []
    for _ in range(rounds + 1):
        last = {}
        begin = time.perf_counter()
        detector.fit(learned, lambda stage, *_: last.update({stage: time.perf_counter()}))  # noqa: B023
        whole = time.perf_counter() - begin
        calibration = begin + whole - last["coreset"]
        shares.append(calibration / (whole - calibration))
        seconds.append(calibration)
    return {"calibration_share_of_fit": spread(shares[1:]), "calibration_seconds": spread(seconds[1:])}


def anew(detector: SAPatchCore, learned: Images) -> dict[str, float]:
    """Calibration as fit takes it, over that where every fold's bank is chosen from nothing."""
    found, seconds = [], []
    choices = {"begun": choose, "anew": lambda *given, begun=None, **options: choose(*given, **options)}  # noqa: ARG005
    for choice in choices.values():
        last = {}
        with mock.patch.object(calibrate, "choose", choice):
            detector.fit(learned, lambda stage, *_: last.update({stage: time.perf_counter()}))  # noqa: B023
        seconds.append(time.perf_counter() - last["coreset"])
        found.append(detector.calibration.grids.max((1, 2)))
    rates = [max(rate, 1 / (len(found[0]) + 1)) for rate in (0.05, 0.01)]
    limits = [[threshold(scores, rate) for rate in rates] for scores in found]
    return {
        "begun_over_anew_seconds": seconds[0] / seconds[1],
        "begun_over_anew_scores": float(np.median(found[0] / found[1])),
        "begun_over_anew_threshold_5_percent": limits[0][0] / limits[1][0],
        "begun_over_anew_threshold_1_percent": limits[0][1] / limits[1][1],
    }


def explanation(detector: SAPatchCore, dataset: Dataset, count: int, repeats: int) -> dict[str, Any]:
    """Batch 1, images decoded beforehand, spread over the test set; a difference in every round, over its images."""
    indices = np.linspace(0, len(dataset.test) - 1, count).astype(int)
    pixels = [read_image(dataset.test[index].path) for index in indices]

    def every(call: Any) -> None:
        for image in pixels:
            call(image)

    variants = {"predict": lambda: every(detector.predict), "explain": lambda: every(detector.explain)}
    seconds = interleaved(variants, repeats=repeats)
    more = [(b - a) * 1e3 / count for a, b in zip(seconds["predict"], seconds["explain"], strict=True)]
    return {"predict_ms": spread(seconds["predict"], 1e3 / count), "explain_ms": spread(more)}


def report(detector: SAPatchCore, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Of the whole test set, after scoring."""
    evaluation = evaluate(detector, dataset)
    begin = time.perf_counter()
    written = write_report(folder / "report.html", detector, dataset, evaluation, seconds={})
    return {"images": written.images, "seconds": time.perf_counter() - begin, "bytes": written.bytes}


if __name__ == "__main__":
    sys.exit(main())
