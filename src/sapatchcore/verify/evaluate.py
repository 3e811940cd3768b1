"""How well a fitted detector does on a category's test images: every figure of the result tables.

Pixel metrics are taken at each image's own size over the window that the network saw. We differ: the authors scale the
ground truth down to the cropped 224×224. What part of the defective pixels lies outside the window is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sapatchcore.data.images import read_mask
from sapatchcore.data.sources import Progress
from sapatchcore.datasets.loco import read_loco_regions
from sapatchcore.datasets.samples import Dataset, Sample
from sapatchcore.detector import SAPatchCore
from sapatchcore.errors import DataError, MetricError
from sapatchcore.result import Result
from sapatchcore.score.regions import window
from sapatchcore.verify.lazy import Lazy
from sapatchcore.verify.metrics import auroc, average_precision, best_f1, per_defect_auroc
from sapatchcore.verify.pixels import PixelMetrics, pixel_metrics, spro_metrics
from sapatchcore.verify.verdicts import Decisions, best_of_labels, promised

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Evaluation:
    """The figures of one category. NaN where one is undefined: ``reasons`` says why, by its name.

    result: what predict returned for the test images, in their order; labels: "good" or the defect, of each.
    image_auroc, average_precision, image_f1 (at ``image_threshold``, chosen on these very labels): over all test images.
    per_defect_auroc: each defect against the good images. pixel: over the inspected windows of images with ground truth.
    outside: share of the defective pixels that lie outside the windows. spro: for MVTec LOCO AD, by kind of anomaly, the
    area under the sPRO curve up to each false-positive rate; else empty. beta: of ``image_f1`` and ``pixel.f1``; 1 is F1.
    """

    category: str
    layout: str
    result: Result
    labels: tuple[str, ...]
    image_auroc: float
    average_precision: float
    image_f1: float
    image_threshold: float
    per_defect_auroc: dict[str, float]
    pixel: PixelMetrics
    outside: float
    spro: dict[str, dict[float, float]]
    reasons: dict[str, str]
    beta: float = 1.0

    @property
    def best_of_labels(self) -> Decisions:
        """What the thresholds of the best F-beta decide on the labels that they were chosen on."""
        return best_of_labels(self.result, self.labels, self.image_threshold, self.pixel.f1_threshold)

    def promised(self, false_reject: float | None = None) -> Decisions | None:
        """What the threshold with a promise decides; None without calibration. As verify/verdicts.py."""
        return promised(self.result, self.labels, false_reject)

    def to_dict(self, false_reject: float | None = None) -> dict[str, Any]:
        """JSON-ready: all figures (None for NaN, with its reason), and each test image's label, scores and p-value.

        false_reject: of the promised threshold, as of Result.threshold.
        """
        decisions = self.promised(false_reject)
        pixel = asdict(self.pixel)
        pixel.pop("reasons")
        figures = {
            "category": self.category,
            "layout": self.layout,
            "images": len(self.labels),
            "image_auroc": self.image_auroc,
            "average_precision": self.average_precision,
            "image_f1": self.image_f1,
            "image_threshold": self.image_threshold,
            "beta": self.beta,
            "per_defect_auroc": self.per_defect_auroc,
            **{f"pixel_{name}": value for name, value in pixel.items() if name in ("auroc", "average_precision", "f1")},
            "pixel_threshold": self.pixel.f1_threshold,
            "aupro": self.pixel.aupro,
            "regions": self.pixel.regions,
            "defective_pixels": self.pixel.defective_pixels,
            "pixels": self.pixel.pixels,
            "defective_pixels_outside_window": self.outside,
            "spro": {kind: {str(limit): area for limit, area in areas.items()} for kind, areas in self.spro.items()},
            "decisions": {
                "promised": None if decisions is None else decisions.to_dict(),
                "best_of_labels": self.best_of_labels.to_dict(),
            },
            "reasons": self.reasons,
        }
        p_values = [None] * len(self.labels) if decisions is None else self.result.p_values.tolist()
        scores = zip(
            self.result.paths,
            self.labels,
            self.result.scores.tolist(),
            self.result.local_scores.tolist(),
            self.result.context_scores.tolist(),
            p_values,
            strict=True,
        )
        names = ("path", "label", "score", "local", "context", "p_value")
        return {**_without_nan(figures), "scores": [dict(zip(names, one, strict=True)) for one in scores]}


def evaluate(
    detector: SAPatchCore, dataset: Dataset, progress: Progress | None = None, *, beta: float = 1.0
) -> Evaluation:
    """Score the category's test images with a fitted detector and take all figures.

    progress: as of ``predict``, and then stage "metrics". beta: weight of recall in ``image_f1`` and ``pixel.f1``, which
    are F-beta, and in their thresholds. Raises DataError where there is no test image, or an image or a
    mask cannot be read.
    """
    if not dataset.test:
        raise DataError(
            f"{dataset.name} has no test images: its layout is {dataset.layout}. Evaluation needs good and defective ones."
        )
    result = detector.predict([sample.path for sample in dataset.test], progress)
    return evaluate_result(result, dataset, progress, beta=beta)


def evaluate_result(
    result: Result, dataset: Dataset, progress: Progress | None = None, *, beta: float = 1.0
) -> Evaluation:
    """The figures of scores that ``predict`` gave for ``dataset.test``, in its order."""
    labels = tuple(sample.label for sample in dataset.test)
    defective = [not sample.is_good for sample in dataset.test]
    reasons: dict[str, str] = {}

    def defined(name: str, compute: Callable[[], T], otherwise: T) -> T:
        try:
            return compute()
        except MetricError as error:
            reasons[name] = str(error)
            return otherwise

    nothing = (math.nan, math.nan)
    pixel, outside = _pixels(result, dataset.test, progress, beta)
    reasons |= {f"pixel_{name}" if name != "aupro" else name: reason for name, reason in pixel.reasons.items()}
    f1, threshold = defined("image_f1", lambda: best_f1(defective, result.scores, beta), nothing)
    return Evaluation(
        category=dataset.name,
        layout=dataset.layout,
        result=result,
        labels=labels,
        image_auroc=defined("image_auroc", lambda: auroc(defective, result.scores), math.nan),
        average_precision=defined("average_precision", lambda: average_precision(defective, result.scores), math.nan),
        image_f1=f1,
        image_threshold=threshold,
        per_defect_auroc=defined("per_defect_auroc", lambda: per_defect_auroc(labels, result.scores), {}),
        pixel=pixel,
        outside=outside,
        spro=_spro(result, dataset, reasons) if dataset.layout == "loco" else {},
        reasons=reasons,
        beta=beta,
    )


def _pixels(
    result: Result, samples: Sequence[Sample], progress: Progress | None, beta: float
) -> tuple[PixelMetrics, float]:
    """Pixel metrics over the windows of the images whose ground truth is known; defective share outside them."""
    known = [i for i, sample in enumerate(samples) if sample.masks is not None]
    if not any(samples[i].masks for i in known):
        known = []  # good images alone say nothing of pixels: no ground truth

    def mask_of(i: int) -> Mask:
        return read_mask(samples[i].masks or (), result.sizes[i])

    def seen(i: int) -> tuple[slice, slice]:
        return window(result.sizes[i], result.resize, result.crop)

    def report(done: int) -> None:
        if progress is not None:
            progress("metrics", done, 2 * len(known))

    maps = result.maps
    pixel = pixel_metrics(
        Lazy(len(known), lambda place: mask_of(known[place])[seen(known[place])]),
        Lazy(len(known), lambda place: maps[known[place]][seen(known[place])]),
        beta=beta,
        progress=report,
    )
    if result.crop is None or not known:
        return pixel, 0.0 if known else math.nan
    everywhere = sum(int(mask_of(i).sum()) for i in known if samples[i].masks)
    return pixel, 1 - pixel.defective_pixels / everywhere if everywhere else math.nan


def _spro(result: Result, dataset: Dataset, reasons: dict[str, str]) -> dict[str, dict[float, float]]:
    """Area under sPRO for each kind of anomaly with all good images, over the whole images as the benchmark has it."""
    kinds = sorted({sample.label for sample in dataset.test if not sample.is_good})
    areas = {}
    for kind in kinds:
        places = [i for i, sample in enumerate(dataset.test) if sample.is_good or sample.label == kind]
        try:
            areas[kind] = _spro_of(result, dataset, places)
        except MetricError as error:
            reasons[f"spro {kind}"] = str(error)
    return areas


def _spro_of(result: Result, dataset: Dataset, places: Sequence[int]) -> dict[float, float]:
    def regions_of(place: int) -> list[tuple[Mask, int]]:
        i = places[place]
        return read_loco_regions(dataset.test[i], dataset, result.sizes[i])

    maps = result.maps
    return spro_metrics(Lazy(len(places), regions_of), Lazy(len(places), lambda place: maps[places[place]]))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
