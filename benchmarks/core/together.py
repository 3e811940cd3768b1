"""What do networks find together that none finds alone, by which rule, and in what time beside one large network?

The recommended preset. Image AUROC of all together, of each network alone, and of other rules that combine the same scores: of
image scores, or of patch scores, before the image score is taken. Time: ``predict`` of images in memory, together and alone,
as a multiple of the bare Wide ResNet-50-2, random weights, on as many pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.core.method import subset
from benchmarks.core.recommended import RATES, at_rate
from benchmarks.measure import (
    BACKBONE,
    Record,
    bare_network,
    data_sets,
    interleaved,
    parser,
    ratio,
    run_network,
    shown,
    spread,
    table,
)
from sapatchcore import SAPatchCore
from sapatchcore.data.pixels import prepare
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.embed.backbone import normalise
from sapatchcore.result import Result
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.fusion import fused, scales_of, smoothed, tail
from sapatchcore.score.metrics import auroc
from sapatchcore.score.together import unit_of

QUESTION = "Several networks together: image AUROC beside each alone, rules, time beside Wide ResNet-50-2"
BATCH = 8

Floats = npt.NDArray[np.float64]
Scores = Sequence[Floats]  # of each network: of test images, or of good ones that it did not learn from
Rule = Callable[[Scores, Scores], Floats]  # both, in the units of the latter


def main(arguments: list[str] | None = None) -> None:
    options = parser("together", QUESTION, several=True, needed=False)
    options.add_argument("--backbone", default="builtin+efficientnet_lite2", help="(default: %(default)s)")
    options.add_argument("--weights", default="pretrained", help="'pretrained', or 'random', which measures nothing")
    options.add_argument("--resize", type=int, default=256, help="of the shorter side (default: %(default)s)")
    options.add_argument("--seeds", default="0,1,2,3,4", help="(default: %(default)s)")
    options.add_argument("--synth", default="", help="made data sets, screws or kits (default: none)")
    options.add_argument("--images", type=int, default=32, help="timed, in a round (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.resize, given.seeds, given.images = 64, "0", 2
    record = Record("together", QUESTION, given)
    runs: list[dict[str, Any]] = []
    record["runs"] = runs
    small = {"side": 96, "train": 8, "test": {"good": 3, "lacking": 2, "scratch": 2}}
    for dataset in data_sets(given, small):
        dataset = subset(dataset) if given.quick and dataset.name not in given.synth else dataset
        for seed in map(int, given.seeds.split(",")):
            common = {"backbone": given.backbone, "weights": given.weights, "resize": given.resize, "seed": seed}
            detector = SAPatchCore(preset="recommended", **common)
            detector.fit([sample.path for sample in dataset.train])
            if not runs:
                record["time"] = timed(detector, dataset, given)
            runs.append({**common, **run(detector, dataset)})
            record.write(given.output)  # a run that is cut off keeps what it has


def run(detector: SAPatchCore, dataset: Dataset) -> dict[str, Any]:
    """One data set and seed: AUROC together, alone and by rule; what lies above the thresholds."""
    paths, labels = [sample.path for sample in dataset.test], np.array([sample.label for sample in dataset.test])
    result, alone = detector.predict(paths), [one.predict(paths) for one in detector.networks]
    names = [one.settings.backbone for one in detector.networks]
    wrong = labels != "good"
    found = {
        "dataset": dataset.name,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "input": list(detector.settings.resize),
        "metric": [one.settings.metric for one in detector.networks],
        "image_auroc": auroc(wrong, result.scores),
        "alone": {name: auroc(wrong, one.scores) for name, one in zip(names, alone, strict=True)},
        "rates": [at_rate(result, labels, rate) for rate in RATES],
        "rules": {name: auroc(wrong, scores) for name, scores in by_rule(alone).items()},
    }
    print(f"\n{dataset.name}, seed {detector.settings.seed}")
    rows = [("together", found["image_auroc"]), *found["alone"].items(), *found["rules"].items()]
    table(("", "image AUROC"), rows)
    return found


def by_rule(alone: Sequence[Result]) -> dict[str, Floats]:
    """Image scores by other rules. Of patch scores the patches' own image scores and the global ones are fused as ever."""
    calibrations = [one.calibration for one in alone if one.calibration is not None]
    scores, good = [one.scores.astype(np.float64) for one in alone], [one.scores.astype(float) for one in calibrations]
    found = {f"image scores, {name}": rule(scores, good) for name, rule in RULES.items()}
    grids, good_grids = [one.patch_scores for one in alone], [one.grids for one in calibrations]
    if len({grid.shape for grid in grids}) > 1:
        return found  # of grids of one size alone
    own = [_own(one) for one in calibrations]
    wholes = [np.asarray(one.global_scores, np.float64) for one in alone]
    good_wholes = [np.asarray(one.global_scores, np.float64) for one in calibrations]
    for name, rule in RULES.items():
        joined, good_joined = (_smoothest(_of_patches(rule, some, own)) for some in (grids, good_grids))
        whole, good_whole = rule(wholes, good_wholes), rule(good_wholes, good_wholes)
        scales = scales_of(good_joined, good_whole.astype(np.float32))
        found[f"patch scores, {name}"] = fused(joined, whole.astype(np.float32), scales).astype(np.float64)
    return found


def _own(calibration: Calibration) -> Floats:
    assert calibration.largest is not None
    return calibration.largest.astype(np.float64)


def _of_patches(rule: Rule, grids: Sequence[npt.NDArray[Any]], own: Scores) -> npt.NDArray[np.float32]:
    flat = rule([grid.reshape(-1).astype(np.float64) for grid in grids], own)
    return flat.reshape(grids[0].shape).astype(np.float32)


def _smoothest(grids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The image score "smoothed" of patch scores (n, h, w)."""
    found: npt.NDArray[np.float32] = smoothed(grids).max((1, 2))
    return found


def _over(scores: Scores, units: Sequence[float]) -> list[Floats]:
    return [one / unit for one, unit in zip(scores, units, strict=True)]


def _leads(scores: Scores, good: Scores) -> list[Floats]:
    found = []
    for one, own in zip(scores, good, strict=True):
        begin, beyond = tail(own.astype(np.float32))
        found.append((one - begin) / beyond)
    return found


def _root_mean_square(values: Scores) -> Floats:
    found: Floats = np.sqrt(np.mean(np.square(values), axis=0))
    return found


def _units(good: Scores) -> list[float]:
    return [unit_of(one.astype(np.float32)) for one in good]


RULES: dict[str, Rule] = {
    "root mean square over √(qσ)": lambda s, good: _root_mean_square(_over(s, _units(good))),
    "root mean square over q": lambda s, good: _root_mean_square(_over(s, [np.quantile(one, 0.9) for one in good])),
    "sum of z": lambda s, good: np.sum(
        [(one - own.mean()) / own.std() for one, own in zip(s, good, strict=True)], axis=0
    ),
    "mean of leads": lambda s, good: np.mean(_leads(s, good), axis=0),
    "largest lead": lambda s, good: np.max(_leads(s, good), axis=0),
}


def timed(detector: SAPatchCore, dataset: Dataset, given: Any) -> dict[str, Any]:
    """Milliseconds an image, and multiples of the bare large network; batches of ``BATCH`` and of one image."""
    size, repeats = detector.settings.input_size, given.repeats or (1 if given.quick else 7)
    at = np.linspace(0, len(dataset.test) - 1, given.images).astype(int)
    pixels = [read_image(dataset.test[index].path) for index in at]
    small = np.stack([prepare(one, detector.settings.resize, detector.settings.crop) for one in pixels])
    name = "resnet18" if given.quick else BACKBONE
    found: dict[str, Any] = {"large": name, "input": list(size), "images": len(pixels)}
    for batch in (BATCH, 1):
        few = [pixels[first : first + batch] for first in range(0, len(pixels), batch)]
        normal = [normalise(one) for one in torch.from_numpy(small).split(batch)]
        variants: dict[str, Callable[[], object]] = {}
        for layout in (False, True):
            memory = torch.channels_last if layout else torch.contiguous_format
            network, batches = (
                bare_network(name, channels_last=layout),
                [one.to(memory_format=memory) for one in normal],
            )
            variants[f"bare, {'NHWC' if layout else 'NCHW'}"] = lambda n=network, b=batches: run_network(n, b)
        for label, one in (("together", detector), *((one.settings.backbone, one) for one in detector.networks)):
            variants[label] = lambda d=one, images=few: [d.predict(some) for some in images]
        with torch.inference_mode():
            seconds = interleaved(variants, repeats=repeats)
        floor = min(("bare, NCHW", "bare, NHWC"), key=lambda label: np.median(seconds[label]))
        times = {
            label: {"ms": spread(values, 1000 / len(pixels)), "of_bare": ratio(seconds, label, floor)}
            for label, values in seconds.items()
        }
        found[f"batch {batch}"] = times
        print(f"\nbatch {batch}")
        rows = [(label, shown(one["ms"]), shown(one["of_bare"])) for label, one in times.items()]
        table(("", "ms an image", f"of {name}, bare"), rows)
    return found


if __name__ == "__main__":
    sys.exit(main())
