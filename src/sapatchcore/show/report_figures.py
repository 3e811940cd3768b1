"""A report's numbers: verdict counts, both thresholds, the result tables, intervals and plots."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sapatchcore.datasets.samples import GOOD, Dataset
from sapatchcore.detector import SAPatchCore
from sapatchcore.errors import MetricError
from sapatchcore.score.calibration import CROSS_FITTED, LEAVE_ONE_OUT, SEPARATE
from sapatchcore.score.threshold import rank
from sapatchcore.show.plots import Line, curves, histogram
from sapatchcore.verify.curves import (
    LEVEL,
    RESAMPLES,
    Interval,
    auroc_interval,
    per_defect_intervals,
    precision_recall_curve,
    roc_curve,
)
from sapatchcore.verify.evaluate import Evaluation
from sapatchcore.verify.tables import MODELS, NOT_RUN, Run, result_tables

# Where a calibration's scores come from, for people.
SOURCES = {
    CROSS_FITTED: "the training images, each measured by a bank that was chosen without it",
    LEAVE_ONE_OUT: "the training images, each without its own patches",
    SEPARATE: "images that were not learned from",
}


@dataclass(frozen=True)
class Count:
    """label: of the images; of: how many; rejected: of these."""

    label: str
    of: int
    rejected: int


@dataclass(frozen=True)
class Plot:
    """svg: the picture, or "" where ``reason`` says why there is none."""

    title: str
    svg: str
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ReportFigures:
    """Everything of a report but the gallery. test, good: images; kinds: of defects. counts: of the calibrated threshold,
    good first, None without calibration. rate: its promised false-reject rate. promise, realised, labels: sentences, "" for
    none. tables: title, (column, cell) pairs and why there are none. aurocs: per kind of defect, its images and interval."""

    test: int
    good: int
    kinds: int
    counts: tuple[Count, ...] | None
    rate: float | None
    promise: str
    realised: str
    labels: str
    tables: tuple[tuple[str, tuple[tuple[str, str], ...], str], ...]
    aurocs: tuple[tuple[str, int, Interval], ...]
    aurocs_reason: str
    interval: str
    outside: float
    plots: tuple[Plot, ...]


def report_figures(
    detector: SAPatchCore, dataset: Dataset, evaluation: Evaluation, false_reject: float | None
) -> ReportFigures:
    """All figures of ``evaluation``, as a page shows them. Raises SettingsError for a rate that cannot be promised."""
    names = np.asarray(evaluation.labels, dtype=object)
    decisions = evaluation.promised(false_reject)
    counts = None
    if decisions is not None:
        counts = tuple(Count(label, of, rejected) for label, (rejected, of) in decisions.rejected.items())
    aurocs, reason = _aurocs(evaluation)
    return ReportFigures(
        test=len(names),
        good=int((names == GOOD).sum()),
        kinds=len(set(names[names != GOOD].tolist())),
        counts=counts,
        rate=None if decisions is None else decisions.false_reject,
        promise=_promise(evaluation, false_reject),
        realised=_realised(evaluation, counts, false_reject),
        labels=_seen_labels(evaluation),
        tables=_tables(detector, dataset, evaluation),
        aurocs=aurocs,
        aurocs_reason=reason,
        interval=f"{percent(LEVEL)} intervals: percentile bootstrap, {RESAMPLES:,} resamples of the images, good and defective "
        "drawn apart. They say how far other images of the same kind may move the figure, and not what other defects do; "
        "where all images are told apart, an interval has no width, however few they are.",
        outside=evaluation.outside if math.isfinite(evaluation.outside) else 0.0,
        plots=_plots(evaluation, false_reject),
    )


def _promise(evaluation: Evaluation, false_reject: float | None) -> str:
    calibration = evaluation.result.calibration
    if calibration is None:
        return ""
    rate = evaluation.result.rate(false_reject)
    limit = evaluation.result.threshold(false_reject)
    k = rank(rate, len(calibration))
    ordinal = "the largest" if k == 1 else f"number {k} from the top"
    at_most = "about" if calibration.source == CROSS_FITTED else "at most"  # docs/verdicts.md has how near it comes
    return (
        f"The threshold {limit:.4g} was made from the scores of {len(calibration)} good images alone "
        f"({SOURCES[calibration.source]}): it is {ordinal} of them, so that of good parts like these {at_most} {percent(rate)} "
        "are rejected, whatever defects look like."
    )


def _realised(evaluation: Evaluation, counts: tuple[Count, ...] | None, false_reject: float | None) -> str:
    """How likely so many false rejects are if the promised rate holds exactly: their number is then beta-binomial."""
    calibration = evaluation.result.calibration
    good = next((count for count in counts or () if count.label == GOOD), None)
    if calibration is None or good is None:
        return ""
    rate = evaluation.result.rate(false_reject)
    text = f"Promised: at most {percent(rate)} of good parts rejected; here {good.rejected} of {good.of}"
    text += f" ({percent(good.rejected / good.of)})."
    if good.rejected:
        k = rank(rate, len(calibration))
        chance = float(stats.betabinom.sf(good.rejected - 1, good.of, k, len(calibration) + 1 - k))
        text += f" Where the promise just holds, as many or more occur in {percent(chance)} of such test sets."
    return text


def _seen_labels(evaluation: Evaluation) -> str:
    best = evaluation.best_of_labels
    if best.image is None:
        return ""
    good, of_good = best.rejected.get(GOOD, (0, 0))
    defects = [count for label, count in best.rejected.items() if label != GOOD]
    found, of_defects = sum(count for count, _ in defects), sum(of for _, of in defects)
    return (
        f"The best F{evaluation.beta:g} ({evaluation.image_f1:.4f}) is at the threshold {best.image:.4g}, which was chosen on "
        f"the labels of these very test images. It would reject {good} of {of_good} good ones and miss {of_defects - found} of "
        f"{of_defects} defects; for other parts it promises nothing."
    )


def _tables(
    detector: SAPatchCore, dataset: Dataset, evaluation: Evaluation
) -> tuple[tuple[str, tuple[tuple[str, str], ...], str], ...]:
    """The three result tables without the categories that did not run, and why one is empty."""
    model = MODELS[detector.settings.attention]
    run = Run(model, dataset.name, detector.settings.seed, evaluation.to_dict())
    reasons = [evaluation.reasons.get(name, "") for name in ("image_auroc", "pixel_auroc", "pixel_f1")]
    found = []
    for table, reason in zip(result_tables([run]), reasons, strict=True):
        cells = [(name, cell) for name, cell in zip(table.columns, table.rows[0][1], strict=True) if cell is not None]
        found.append((table.title, tuple((name, f"{cell[0]:.4f}") for name, cell in cells), reason or NOT_RUN))
    return tuple(found)


def _aurocs(evaluation: Evaluation) -> tuple[tuple[tuple[str, int, Interval], ...], str]:
    names = np.asarray(evaluation.labels, dtype=object)
    try:
        found = per_defect_intervals(evaluation.labels, evaluation.result.scores)
        rows = [(name, int((names == name).sum()), interval) for name, interval in found.items()]
        if len(rows) > 1:
            defective = names != GOOD
            rows.append(("all defects", int(defective.sum()), auroc_interval(defective, evaluation.result.scores)))
    except MetricError as error:
        return (), str(error)
    return tuple(rows), "" if rows else "There is no defective test image."


def _plots(evaluation: Evaluation, false_reject: float | None) -> tuple[Plot, ...]:
    result, pixel = evaluation.result, evaluation.pixel
    names = np.asarray(evaluation.labels, dtype=object)
    kinds = sorted(set(names[names != GOOD].tolist()))
    groups = {} if result.calibration is None else {"calibration, good": result.calibration.scores}
    groups["test, good"] = result.scores[names == GOOD]
    groups |= {f"test, {kind}": result.scores[names == kind] for kind in kinds}
    marks = []
    defective = names != GOOD
    limits: list[tuple[float, str, bool]] = []
    if result.calibration is not None:
        rate = result.rate(false_reject)
        limit = result.threshold(false_reject)
        limits.append((limit, f"threshold from good images ({percent(rate)} promised)", False))
    if math.isfinite(evaluation.image_threshold):
        limits.append((evaluation.image_threshold, f"best F{evaluation.beta:g} threshold: has seen labels", True))
    lines = [Line(at, name, seen) for at, name, seen in limits]
    if defective.any() and not defective.all():
        for at, name, seen in limits:
            rejected = result.scores >= at if seen else result.scores > at
            marks.append((float(rejected[~defective].mean()), float(rejected[defective].mean()), name))

    def roc() -> str:
        drawn = {f"all defects, AUROC {evaluation.image_auroc:.4f}": roc_curve(defective, result.scores)}
        axes = ("false positive rate: good images rejected", "true positive rate: defects rejected")
        return curves(drawn, axes, "ROC curve of the image scores", diagonal=True, marks=marks)

    def precision_recall() -> str:
        drawn = {
            f"average precision {evaluation.average_precision:.4f}": precision_recall_curve(defective, result.scores)
        }
        axes = ("recall: defects rejected", "precision: rejected that are defects")
        return curves(drawn, axes, "Precision-recall curve of the image scores", level=float(defective.mean()))

    def pro() -> str:
        if pixel.pro is None:
            raise MetricError(evaluation.reasons.get("aupro", "no ground truth"))
        limit = float(pixel.pro.x[-1])
        drawn = {f"area to {limit:g}: {pixel.aupro:.4f}": pixel.pro}
        axes = ("false positive rate of pixels", "mean share of a region found")
        return curves(drawn, axes, "Per-region overlap of the anomaly maps", limit=limit)

    return (
        _plot("Scores", lambda: histogram(groups, lines, "Histogram of image scores, one row a group")),
        _plot("ROC", roc),
        _plot("Precision and recall", precision_recall, "Dotted: the share of defects among the test images."),
        _plot(
            "Per-region overlap",
            pro,
            f"Over {pixel.regions} regions; each weighs the same, however large." if pixel.regions else "",
        ),
    )


def _plot(title: str, draw: Callable[[], str], note: str = "") -> Plot:
    try:
        return Plot(title, draw(), note)
    except MetricError as error:
        return Plot(title, "", reason=f"Not drawn: {error}")


def percent(share: float) -> str:
    """0.01234 → "1.23 %", on one line."""
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%" if not 0 < share < 1e-5 else "less than 0.001\N{NO-BREAK SPACE}%"
