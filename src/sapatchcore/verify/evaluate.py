"""How well a fitted detector does on a category's test images: every figure of the result tables, and what both thresholds
decide there: the calibrated one, from good images alone, and the one that saw the test labels.

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
from sapatchcore.datasets.samples import GOOD, Dataset, Sample
from sapatchcore.detector import SAPatchCore
from sapatchcore.errors import DataError, MetricError
from sapatchcore.result import Result
from sapatchcore.score.metrics import auroc, average_precision, best_f1, per_defect_auroc
from sapatchcore.score.regions import window
from sapatchcore.verify.pixels import Lazy, PixelMetrics, pixel_metrics, spro_metrics

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]

FROM_GOOD = "good images alone"
FROM_LABELS = "the test's own labels: optimistic"


@dataclass(frozen=True)
class Decisions:
    """What one image threshold decides.

    source: FROM_GOOD or FROM_LABELS. false_reject: the calibrated rate, None for FROM_LABELS. image, pixel: the thresholds,
    None where there is none. rejected: by label, good among them, how many images are rejected and of how many.
    """

    source: str
    false_reject: float | None
    image: float | None
    pixel: float | None
    rejected: dict[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "from": self.source,
            "false_reject": self.false_reject,
            "image": self.image,
            "pixel": self.pixel,
            "rejected": {label: {"rejected": count, "of": of} for label, (count, of) in self.rejected.items()},
        }


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
        """The decisions of the best F-beta's thresholds, which were chosen on these very labels."""
        image, pixel = self.image_threshold, self.pixel.f1_threshold
        rejected = {} if math.isnan(image) else _counts(self.result.scores >= image, self.labels)
        return Decisions(FROM_LABELS, None, _without_nan(image), _without_nan(pixel), rejected)

    def rate(self, false_reject: float | None = None) -> float | None:
        """The promised rate, as of Result.rate; None without calibration."""
        return None if self.result.calibration is None else self.result.rate(false_reject)

    def promised(self, false_reject: float | None = None) -> Decisions | None:
        """The decisions of the calibrated threshold at this rate (None: as of Result.threshold); None without calibration."""
        rate = self.rate(false_reject)
        if rate is None:
            return None
        image, pixel = self.result.threshold(rate), self.result.pixel_threshold(rate)
        return Decisions(FROM_GOOD, rate, image, pixel, _counts(self.result.scores > image, self.labels))

    def to_dict(self, false_reject: float | None = None) -> dict[str, Any]:
        """JSON-ready: all figures (None for NaN, with its reason), and each test image's label, scores and p-value.

        false_reject: as of ``promised``.
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
        columns: dict[str, Sequence[Any]] = {
            "path": self.result.paths,
            "label": self.labels,
            "score": self.result.scores.tolist(),
            "local": self.result.local_scores.tolist(),
            "context": self.result.context_scores.tolist(),
        }
        if self.result.global_scores is not None:
            columns["global"] = self.result.global_scores.tolist()
        columns["p_value"] = p_values
        scores = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
        return {**_without_nan(figures), "scores": scores}


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
    """Pixel metrics over the windows of the images that have ground truth; the share of defective pixels outside them."""
    judged = [i for i, sample in enumerate(samples) if sample.masks is not None]
    if not any(samples[i].masks for i in judged):
        judged = []  # good images alone say nothing of pixels: no ground truth

    def mask_of(i: int) -> Mask:
        return read_mask(samples[i].masks or (), result.sizes[i])

    def seen(i: int) -> tuple[slice, slice]:
        return window(result.sizes[i], result.resize, result.crop)

    def report(done: int) -> None:
        if progress is not None:
            progress("metrics", done, 2 * len(judged))

    maps = result.maps
    pixel = pixel_metrics(
        Lazy(len(judged), lambda at: mask_of(judged[at])[seen(judged[at])]),
        Lazy(len(judged), lambda at: maps[judged[at]][seen(judged[at])]),
        beta=beta,
        progress=report,
    )
    if result.crop is None or not judged:
        return pixel, 0.0 if judged else math.nan
    everywhere = sum(int(mask_of(i).sum()) for i in judged if samples[i].masks)
    return pixel, 1 - pixel.defective_pixels / everywhere if everywhere else math.nan


def _spro(result: Result, dataset: Dataset, reasons: dict[str, str]) -> dict[str, dict[float, float]]:
    """Area under sPRO for each kind of anomaly with all good images, over the whole images as the benchmark has it."""
    kinds = sorted({sample.label for sample in dataset.test if not sample.is_good})
    areas = {}
    for kind in kinds:
        indices = [i for i, sample in enumerate(dataset.test) if sample.is_good or sample.label == kind]
        try:
            areas[kind] = _spro_of(result, dataset, indices)
        except MetricError as error:
            reasons[f"spro {kind}"] = str(error)
    return areas


def _spro_of(result: Result, dataset: Dataset, indices: Sequence[int]) -> dict[float, float]:
    def regions_of(at: int) -> list[tuple[Mask, int]]:
        return read_loco_regions(dataset.test[indices[at]], dataset, result.sizes[indices[at]])

    maps = result.maps
    return spro_metrics(Lazy(len(indices), regions_of), Lazy(len(indices), lambda at: maps[indices[at]]))


def _counts(rejected: Any, labels: Sequence[str]) -> dict[str, tuple[int, int]]:
    names = np.asarray(labels, dtype=object)
    order = sorted(set(labels), key=lambda label: (label != GOOD, label))
    return {label: (int(rejected[names == label].sum()), int((names == label).sum())) for label in order}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
