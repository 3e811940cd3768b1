"""What does the recommended preset find, part by part, beside both of the paper's models? And which rule of fusion is best?

The paper's models see what the preset sees: whole images in their own shape, the same network and size. Of the preset: image
AUROC of the fused score, of the patches' own and of the global one, and of other rules that combine the two; how many defects,
of each kind, lie above the threshold that promises a rate, and how many good ones; what kinds these are called.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.core.method import subset
from benchmarks.measure import Record, data_sets, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.samples import Dataset
from sapatchcore.result import Result
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.fusion import fused, scales_of, tail
from sapatchcore.score.metrics import auroc
from sapatchcore.score.threshold import p_values, possible_rate
from sapatchcore.verify.evaluate import evaluate_result

QUESTION = "The recommended preset, part by part, beside both of the paper's models; rules of fusion"
RATES = (0.01, 0.05, 0.1)
MODELS: dict[str, dict[str, Any]] = {
    "PatchCore": {"attention": "none", "crop": None, "keep_aspect": True},
    "SA-PatchCore": {"attention": "self", "crop": None, "keep_aspect": True},
    "recommended": {"preset": "recommended"},
}

Floats = npt.NDArray[np.float64]
Rule = Callable[[Floats, Floats, Calibration], Floats]


def main(arguments: list[str] | None = None) -> None:
    options = parser("recommended", QUESTION, several=True, needed=False)
    options.add_argument("--backbones", default="builtin", help="(default: %(default)s)")
    options.add_argument("--weights", default="pretrained", help="'pretrained', or 'random', which measures nothing")
    options.add_argument("--resize", type=int, default=256, help="of the shorter side (default: %(default)s)")
    options.add_argument("--seeds", default="0,1,2,3,4", help="(default: %(default)s)")
    options.add_argument(
        "--paper-seeds", default="0", help="of them, those with the paper's models (default: %(default)s)"
    )
    options.add_argument("--synth", default="screws,kits", help="made data sets (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.resize, given.seeds = 64, "0"
    record = Record("recommended", QUESTION, given)
    runs: list[dict[str, Any]] = []
    record["runs"] = runs
    small = {"side": 96, "train": 8, "test": {"good": 3, "lacking": 2, "scratch": 2}}
    for dataset in data_sets(given, small):
        dataset = subset(dataset) if given.quick and dataset.name not in given.synth else dataset
        for backbone in given.backbones.split(","):
            for seed in map(int, given.seeds.split(",")):
                common = {"backbone": backbone, "weights": given.weights, "resize": given.resize, "seed": seed}
                models = MODELS if str(seed) in given.paper_seeds.split(",") else ("recommended",)
                runs.append(run(dataset, common, models))
                record.write(given.output)  # a run that is cut off keeps what it has


def run(dataset: Dataset, common: dict[str, Any], models: Iterable[str]) -> dict[str, Any]:
    """One data set, network and seed: each of ``models``, the recommended preset last."""
    found: dict[str, Any] = {"dataset": dataset.name, **common, "train": len(dataset.train), "models": {}}
    labels = np.array([sample.label for sample in dataset.test])
    for name in models:
        detector = SAPatchCore(**MODELS[name], **common).fit([sample.path for sample in dataset.train])
        result = detector.predict([sample.path for sample in dataset.test])
        evaluation = evaluate_result(result, dataset)
        found["models"][name] = {
            "image_auroc": evaluation.image_auroc,
            "per_defect": dict(evaluation.per_defect_auroc),
            # None where there is no ground truth
            "pixel_auroc": None if math.isnan(evaluation.pixel.auroc) else evaluation.pixel.auroc,
            "aupro": None if math.isnan(evaluation.pixel.aupro) else evaluation.pixel.aupro,
            "rates": [at_rate(result, labels, rate) for rate in RATES],
        }
    found["input"] = list(detector.settings.resize)
    found |= {"rules": by_rule(result, labels), "temperature": detector.settings.temperature}
    rows = [(name, one["image_auroc"], *one["per_defect"].values()) for name, one in found["models"].items()]
    rows += [(f"rule: {name}", value) for name, value in found["rules"].items()]
    print(f"\n{dataset.name}, {common['backbone']}, seed {common['seed']}")
    kinds = list(found["models"]["recommended"]["per_defect"])
    table(("model", "image AUROC", *kinds), [(*row, *[""] * (len(kinds) + 2 - len(row))) for row in rows])
    return found


def at_rate(result: Result, labels: npt.NDArray[Any], asked: float) -> dict[str, Any]:
    """What lies above the threshold that promises ``asked``, or the smallest possible rate."""
    assert result.calibration is not None
    rate = possible_rate(len(result.calibration), asked)
    verdicts = result.verdicts(rate)
    counts: dict[str, Counter[str]] = {str(label): Counter() for label in labels}
    for label, verdict in zip(labels, verdicts, strict=True):
        if verdict.rejected:
            counts[str(label)][verdict.kind] += 1
    images = Counter(map(str, labels))
    return {
        "asked": asked,
        "rate": rate,
        "kinds": {
            label: {"images": images[label], "rejected": count.total(), "called": dict(count)}
            for label, count in counts.items()
        },
    }


def by_rule(result: Result, labels: npt.NDArray[Any]) -> dict[str, float]:
    """Image AUROC of the patches' own score, of the global one, and of each rule for both."""
    calibration = result.calibration
    assert calibration is not None
    assert result.global_scores is not None
    own = np.hypot(result.local_scores, result.context_scores).astype(np.float64)
    whole = result.global_scores.astype(np.float64)
    wrong = labels != "good"
    return {name: float(auroc(wrong, rule(own, whole, calibration))) for name, rule in RULES.items()}


def parts(calibration: Calibration) -> tuple[Floats, Floats]:
    assert calibration.largest is not None
    assert calibration.global_scores is not None
    return calibration.largest.astype(np.float64), calibration.global_scores.astype(np.float64)


def standardised(own: Floats, whole: Floats, calibration: Calibration) -> list[Floats]:
    """Both less their median over good images, over their spread between the quartiles."""
    found = []
    for values, good in zip((own, whole), parts(calibration), strict=True):
        low, middle, high = np.quantile(good, (0.25, 0.5, 0.75))
        found.append((values - middle) / max(high - low, 1e-12))
    return found


def surprise(own: Floats, whole: Floats, calibration: Calibration) -> list[Floats]:
    """−log p of both: good images' ranks, beyond the 0.9 quantile an exponential tail."""
    found = []
    for values, good in zip((own, whole), parts(calibration), strict=True):
        begin, spread = tail(good)
        inside = -np.log(p_values(values, good))
        found.append(np.where(values > begin, -np.log(0.1) + (values - begin) / spread, inside))
    return found


def stable(own: Floats, whole: Floats, calibration: Calibration) -> Floats:
    """Both standardised, each weighted by how little good images' scores vary from fold to fold."""
    weights = []
    for good in parts(calibration):
        folds = [np.median(good[fold::5]) for fold in range(5)]
        weights.append(1 / (np.std(folds) / np.std(good) + 0.1))
    return sum_of([w * z for w, z in zip(weights, standardised(own, whole, calibration), strict=True)])


def sum_of(values: Sequence[Floats]) -> Floats:
    return np.sum(values, axis=0)


def used(own: Floats, whole: Floats, calibration: Calibration) -> Floats:
    """The rule of score/fusion.py, in its own words."""
    scales = scales_of(*(good.astype(np.float32) for good in parts(calibration)))
    return fused(own.astype(np.float32), whole.astype(np.float32), scales).astype(np.float64)


RULES: dict[str, Rule] = {
    "patches": lambda own, _, __: own,
    "global": lambda _, whole, __: whole,
    "sum": lambda *given: sum_of(standardised(*given)),
    "maximum": lambda *given: np.max(standardised(*given), axis=0),
    "Fisher": lambda *given: sum_of(surprise(*given)),
    "smallest p": lambda *given: np.max(surprise(*given), axis=0),
    "weighted by stability": stable,
    "largest lead, global less 2": used,
}


if __name__ == "__main__":
    sys.exit(main())
