"""What a TNVision run leaves behind as numbers: the scores' JSON, and a run of Weights & Biases.

The JSON has TNVision's names (``eval_AUROC-image``, ``eval_Threshold-pixel``, ...), so what reads these goes
on reading them. We differ: a value that is undefined is null with a reason, never a made-up number, and
thresholds that were chosen with the test's labels say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sapatchcore.datasets.samples import Dataset
from sapatchcore.errors import SAPatchCoreError
from sapatchcore.show.trackers import tracked
from sapatchcore.tnvision.config import Config
from sapatchcore.verify.evaluate import Evaluation

# What to do where a file of the results cannot be written.
ADVICE = "Free space, or name another folder in RESULT.savedir."
FROM_LABELS, FROM_YAML = "the test's labels: the scores at these thresholds are optimistic", "the YAML's TEST"


@dataclass(frozen=True)
class Thresholds:
    """From which score an image and from which value a pixel counts as a defect; None where unknown."""

    image: float | None
    pixel: float | None
    source: str


def find_thresholds(config: Config, dataset: Dataset, evaluation: Evaluation) -> Thresholds:
    """TRAIN.compute_threshold: those of the best F-beta on the test's labels; else TEST's, as they are.

    evaluation: taken with TRAIN.beta.
    """
    if not config.TRAIN.compute_threshold:
        return Thresholds(config.TEST.threshold_image, config.TEST.threshold_pixel, FROM_YAML)
    defective = any(not sample.is_good for sample in dataset.test)
    image = evaluation.image_threshold if defective else math.nan
    return Thresholds(_defined(image), _defined(evaluation.pixel.f1_threshold), FROM_LABELS)


def scores_of(config: Config, dataset: Dataset, evaluation: Evaluation, thresholds: Thresholds) -> dict[str, Any]:
    """All that ``best_score.json`` holds; best_score is the mean of the areas, as in TNVision."""
    pixel = evaluation.pixel
    areas = {
        "eval_AUROC-image": _defined(evaluation.image_auroc),
        "eval_AUROC-pixel": _defined(pixel.auroc),
        "eval_AUPRO-pixel": _defined(pixel.aupro),
    }
    known = [value for value in areas.values() if value is not None]
    scores: dict[str, Any] = {"best_score": float(np.mean(known)) if known else None, **areas}
    scores[f"eval_F{config.TRAIN.beta:g}-pixel"] = _defined(pixel.f1)  # F1, or with another beta F0.5, F2
    scores["eval_Threshold-image"], scores["eval_Threshold-pixel"] = thresholds.image, thresholds.pixel
    scores["thresholds_from"] = thresholds.source
    scores["beta"] = config.TRAIN.beta if thresholds.source == FROM_LABELS else None
    if thresholds.image is not None:
        alarm = np.asarray(evaluation.result.scores) >= thresholds.image
        defective = np.array([not sample.is_good for sample in dataset.test])
        scores["decisions"] = {
            "defects_found": int((alarm & defective).sum()),
            "defects_missed": int((~alarm & defective).sum()),
            "false_alarms": int((alarm & ~defective).sum()),
            "good_passed": int((~alarm & ~defective).sum()),
        }
    scores["evaluation"] = evaluation.to_dict()
    return scores


def log_to_wandb(config: Config, folder: Path, scores: Mapping[str, Any]) -> str:
    """Send the scores to Weights & Biases; returns one sentence that says what became of them.

    Without API_KEY all stays in ``folder`` (mode "offline"). Never raises: scores are on disk already.
    """
    key = config.API_KEY.get_secret_value()
    problems: list[str] = []
    try:
        with tracked(
            "wandb",
            run=f"{config.DATASET.target}_{folder.name}",
            settings=config.model_dump(mode="json", exclude={"API_KEY"}),
            folder=folder,
            warn=problems.append,
            project=config.EXP_NAME,
            key=key,
        ) as tracker:
            tracker.figures({name: value for name, value in scores.items() if isinstance(value, float)})
    except SAPatchCoreError as error:  # it is not installed
        problems.append(str(error))
    if problems:
        return f"TRAIN.use_wandb: {problems[0]}"
    return f"Scores were logged to Weights & Biases ({'online' if key else f'offline, below {folder}'})."


def _defined(value: float) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
