"""A whole evaluation as one HTML file that opens anywhere, without a network.

Everything is inside: pictures and plots, styles, and a script that sorts and filters. The page's policy allows no request
at all. The same model, data, settings and seconds give the same bytes; the caller passes the date.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sapatchcore.atomic import write_bytes
from sapatchcore.data.copies import learned_from
from sapatchcore.data.sources import Progress, read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.detector import SAPatchCore
from sapatchcore.score.explain import Explanation
from sapatchcore.show.drawing import INFERNO
from sapatchcore.show.plots import require_packages
from sapatchcore.show.report_cards import CausePictures, Picture, Scales, cause_pictures, panels
from sapatchcore.show.report_figures import SOURCES, percent, report_figures
from sapatchcore.show.report_rows import explained, local_share, mistake, short_names, shown, worst_first
from sapatchcore.verify.evaluate import Evaluation
from sapatchcore.verify.tables import MODELS

IMAGES = 1_000  # that the gallery shows at most; mistakes are always shown
PACKAGES = ("sapatchcore", "torch", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class WrittenReport:
    """path: the file; bytes: its size; images: test images; shown: of these in the gallery; mistakes: false rejects and
    missed defects, None without calibration."""

    path: Path
    bytes: int
    images: int
    shown: int
    mistakes: int | None


@dataclass(frozen=True)
class Card:
    """One image of the gallery. index: in the data set; rank: from the worst mistake on. rejected: None without calibration.
    wrong: "", or the mistake. ratio: score over threshold. notes: as of Result. local: its share of
    local² + context², in [0, 1]. global_score: None without a global part; global_ratio: it as a multiple of what is usual."""

    index: int
    rank: int
    name: str
    label: str
    score: float
    rejected: bool | None
    wrong: str
    ratio: float | None
    p_value: float | None
    kind: str
    reason: str
    notes: tuple[str, ...]
    local: float
    global_score: float | None
    global_ratio: float | None
    panels: tuple[Picture, ...]
    causes: tuple[CausePictures, ...]

    def record(self) -> dict[str, Any]:
        """What the page's script sorts and filters by."""
        verdict = None if self.rejected is None else "rejected" if self.rejected else "accepted"
        names = ("index", "rank", "name", "label", "score", "wrong", "p_value", "kind")
        return {**{name: getattr(self, name) for name in names}, "verdict": verdict}


def write_report(
    path: str | os.PathLike[str],
    detector: SAPatchCore,
    dataset: Dataset,
    evaluation: Evaluation,
    *,
    false_reject: float | None = None,
    seconds: Mapping[str, float],
    explanations: Sequence[Explanation] | None = None,
    date: str = "",
    progress: Progress | None = None,
) -> WrittenReport:
    """Write the report of ``evaluation``, whole or not at all.

    Args:
        path: The HTML file; its folder is made where it is missing.
        detector, dataset, evaluation: What ``evaluate`` took and gave.
        false_reject: The promised rate, as of Result.threshold.
        seconds: How long each step took, to be shown.
        explanations: What ``explained`` returned for all test images at this rate; None to compute it here.
        date: Shown as it is; "" for none.
        progress: Stages "explain" and "report".

    Raises:
        SAPatchCoreError: matplotlib or jinja2 is missing. SettingsError: the rate cannot be promised. DataError: an image
        or mask cannot be read, or the file cannot be written.
    """
    require_packages()
    if len(evaluation.result) != len(dataset.test):
        raise ValueError(f"A report needs one score an image. Got {len(evaluation.result)} and {len(dataset.test)}.")
    result, labels = evaluation.result, evaluation.labels
    false_reject = evaluation.rate(false_reject)  # the page says which it is
    wrong = [""] * len(labels)
    limit = None
    if false_reject is not None:
        limit = result.threshold(false_reject)
        pairs = zip(result.scores.tolist(), labels, strict=True)
        wrong = [mistake(score > limit, label) for score, label in pairs]
    indices = shown(wrong, IMAGES)
    if limit is None:
        reasons: list[Explanation | None] = [None] * len(indices)
    elif explanations is None:
        reasons = [*explained(detector, result, indices, false_reject, progress)]
    else:
        reasons = [explanations[i] for i in indices]
    scales = Scales.of(result, false_reject)
    cards = _cards(detector, dataset, evaluation, false_reject, scales, indices, reasons, wrong, progress)
    text = _page(
        cards=cards,
        records=[card.record() for card in cards],
        figures=report_figures(detector, dataset, evaluation, false_reject),
        legend=scales.legend(),
        ramps=scales.ramps(),
        colours=", ".join(f"rgb({r} {g} {b})" for r, g, b in INFERNO.astype(int).tolist()),
        about=_about(detector, evaluation, seconds),
        date=date,
        dataset=dataset,
        mistakes=sum(map(bool, wrong)),
        border=detector.settings.not_inspected,
    )
    content = text.encode("utf-8", "replace")  # a file name may hold bytes that are no text
    write_bytes(Path(path), content)
    mistakes = None if limit is None else sum(map(bool, wrong))
    return WrittenReport(Path(path), len(content), len(labels), len(indices), mistakes)


def _cards(
    detector: SAPatchCore,
    dataset: Dataset,
    evaluation: Evaluation,
    false_reject: float | None,
    scales: Scales,
    indices: Sequence[int],
    reasons: Sequence[Explanation | None],
    wrong: Sequence[str],
    progress: Progress | None,
) -> list[Card]:
    """The gallery, mistakes first."""
    result, labels = evaluation.result, evaluation.labels
    calibrated = result.calibration is not None
    limit = result.threshold(false_reject) if calibrated else None
    pixel_limit = result.pixel_threshold(false_reject) if calibrated else None
    order = worst_first(result, labels, wrong, limit)
    ranks = {index: rank for rank, index in enumerate(order)}
    names = short_names(result.paths)
    training = detector.provenance[0]
    called = dict(zip(training, short_names(training), strict=True))
    notes, cards = result.notes, []
    for number, (index, reason) in enumerate(zip(indices, reasons, strict=True), start=1):
        image = read_image(dataset.test[index].path)
        score = float(result.scores[index])
        verdict = None if reason is None else reason.verdict
        causes: tuple[CausePictures, ...] = ()
        if reason is not None and pixel_limit is not None:
            causes = cause_pictures(reason, result, image, pixel_limit, called)
        cards.append(
            Card(
                index=index,
                rank=ranks[index],
                name=names[index],
                label=labels[index],
                score=score,
                rejected=None if verdict is None else verdict.rejected,
                wrong=wrong[index],
                ratio=score / limit if limit else None,
                p_value=None if verdict is None else verdict.p_value,
                kind="" if verdict is None else verdict.kind,
                reason="" if verdict is None else verdict.sentence,
                notes=notes[index],
                local=local_share(result, index),
                global_score=None if result.global_scores is None else float(result.global_scores[index]),
                global_ratio=None if verdict is None else verdict.global_ratio,
                panels=panels(result, index, dataset.test[index], image, scales, pixel_limit),
                causes=causes,
            )
        )
        if progress is not None:
            progress("report", number, len(indices))
    return sorted(cards, key=lambda card: card.rank)


def _about(detector: SAPatchCore, evaluation: Evaluation, seconds: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """The tables at the end: the model, its settings, versions, seconds."""
    calibration = evaluation.result.calibration
    banks = [one.bank for one in detector.networks]
    radii = ", ".join(f"{one.covering_radius:.4g}" for one in detector.networks)
    model = {
        "Model": f"{MODELS[detector.settings.attention]}, backbone {detector.settings.backbone}",
        "Learned from": f"{learned_from(detector.turns)}, all good",
        "Memory bank": ", ".join(f"{len(one.rows)} patches of {one.rows.shape[1]} numbers" for one in banks),
        "Covering radius": f"{radii}, in the projection in which patches are chosen",
        "Calibration": "none"
        if calibration is None
        else f"{len(calibration)} good images, {SOURCES[calibration.source]}",
    }
    if detector.tuning is not None:
        model["Settings"] = detector.tuning.paragraph()
    settings = {name: _value(value) for name, value in detector.settings.model_dump(mode="json").items()}
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    times = {name: f"{value:.1f} s" for name, value in seconds.items()}
    return {"Model": model, "Settings": settings, "Versions": versions, "Time": times}


def _value(value: object) -> str:
    if isinstance(value, list):
        return (", " if isinstance(value[0], str) else " × ").join(map(str, value))
    return "none" if value is None else str(value)


def _page(**content: Any) -> str:
    """The page's HTML. Names and labels are escaped; style and script are the package's own."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files("sapatchcore.show") / "report_page"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    pages = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["percent"] = percent
    style, script = Markup(read("style.css")), Markup(read("gallery.js"))
    return pages.get_template("page.html").render(style=style, script=script, **content)
