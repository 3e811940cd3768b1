"""What a TNVision run leaves behind: the scores' JSON, a run of Weights & Biases, pictures.

The JSON has TNVision's names (``eval_AUROC-image``, ``eval_Threshold-pixel``, ...), so what reads these goes on reading
them. We differ: a value that is undefined is null with a reason, never a made-up number, and thresholds that were chosen
on the test's labels say so.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sapatchcore.atomic import write_bytes
from sapatchcore.data.images import read_mask
from sapatchcore.data.pixels import prepare
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.errors import SAPatchCoreError
from sapatchcore.result import Result
from sapatchcore.show import drawing
from sapatchcore.show.drawing import Colour, Float32, Mask, UInt8Array
from sapatchcore.show.trackers import tracked
from sapatchcore.tnvision.config import Config
from sapatchcore.verify.evaluate import Evaluation

# What to do where a file of the results cannot be written.
ADVICE = "Free space, or name another folder in RESULT.savedir."
FROM_LABELS, FROM_YAML = "the test's labels: the scores at these thresholds are optimistic", "the YAML's TEST"
PANEL = 400  # pixels of a panel's longer side
ABOVE: Colour = (255, 0, 0)
TRUTH: Colour = (0, 200, 0)
# Cold to hot; a pixel threshold lies in the middle.
HEAT = np.array([[0, 0, 130], [0, 130, 255], [255, 230, 0], [255, 90, 0], [200, 0, 0]], np.float32)


@dataclass(frozen=True)
class Thresholds:
    """The image score and the map's value from which on an image and a pixel count as a defect; None where there is none."""

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
    defined = [value for value in areas.values() if value is not None]
    scores: dict[str, Any] = {"best_score": float(np.mean(defined)) if defined else None, **areas}
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


def save_training_images(config: Config, dataset: Dataset, folder: Path) -> None:
    """TRAIN.num_sample training images, drawn by SEED, as the network sees them: resized, nothing else."""
    count = min(config.TRAIN.num_sample, len(dataset.train))
    for sample in random.Random(config.SEED).sample(dataset.train, count):
        seen = prepare(read_image(sample.path), config.DATASET.resize, None)
        write_bytes(folder / "visualize_aug" / f"{sample.path.stem}.png", _png(seen), ADVICE)


def save_pictures(
    config: Config, dataset: Dataset, evaluation: Evaluation, thresholds: Thresholds, folder: Path
) -> None:
    """The pictures that TRAIN.top_k, RESULT.saveall and RESULT.save_test_img ask for."""
    for old in (folder / "top_k").glob("[0-9][0-9][0-9]_*.png"):
        old.unlink()  # another run's ranks
    result, keys = evaluation.result, config.RESULT
    ranked = sorted(range(len(dataset.test)), key=lambda i: -float(result.scores[i]))
    ranks = {index: rank for rank, index in enumerate(ranked[: config.TRAIN.top_k], start=1)}
    folders = _named(keys.saveall, "saveall"), _named(keys.save_test_img, "save_test_img")
    _save(dataset, result, thresholds, folder, folders, ranks)


def save_onnx_pictures(config: Config, dataset: Dataset, result: Result, thresholds: Thresholds, folder: Path) -> None:
    """The pictures that RESULT.saveallonnx and RESULT.save_test_img_onnx ask for; result: the ONNX model's."""
    keys = config.RESULT
    folders = _named(keys.saveallonnx, "saveallonnx"), _named(keys.save_test_img_onnx, "save_test_img_onnx")
    _save(dataset, result, thresholds, folder, folders, {})


def _save(
    dataset: Dataset,
    result: Result,
    thresholds: Thresholds,
    folder: Path,
    folders: tuple[str, str],
    ranks: Mapping[int, int],
) -> None:
    """folders: of all test images with and without ground truth, "" for none. ranks: of the images of top_k, by index."""
    all_folder, test_folder = folders
    for index, sample in enumerate(dataset.test):
        name = f"{sample.path.parent.name}_{sample.path.stem}.png"
        blind = [folder / test_folder / f"result_{name}"] if test_folder else []
        full = [folder / all_folder / f"result_{name}"] if all_folder else []
        if index in ranks:
            full.append(folder / "top_k" / f"{ranks[index]:03d}_{name}")
        if not full and not blind:
            continue
        image = read_image(sample.path)
        truth = read_mask(sample.masks, image.shape[:2]) if full and sample.masks is not None else None
        panels = _panels(image, result.maps[index], thresholds.pixel, truth)
        if truth is not None:
            _write(panels, full)
            _write(panels[:-1], blind)
        else:  # without ground truth it is one picture
            _write(panels, full + blind)


def _named(folder: bool | str, default: str) -> str:
    return (default if folder else "") if isinstance(folder, bool) else folder


def _panels(image: UInt8Array, values: Float32, threshold: float | None, truth: Mask | None) -> list[UInt8Array]:
    """The image, its heat, what lies above the threshold where there is one, and the ground truth where it is asked for.

    image: (h, w, 3) uint8. values: (h, w) float32, its map. truth: (h, w) bool. Regions are filled at the panel's size, so
    that a single pixel of a large image is seen.
    """
    top = 2 * threshold if threshold else float(values.max()) or 1.0
    mixed = (0.5 * image + 0.5 * drawing.colours(values, (0.0, top), HEAT)).astype(np.uint8)
    small = _panel(image)
    panels = [small, _panel(mixed)]
    if threshold is not None:
        found = drawing.resized_mask(values >= threshold, small.shape[:2])
        panels.append(drawing.filled(small, found, ABOVE))
    if truth is not None:
        panels.append(drawing.filled(small, drawing.resized_mask(truth, small.shape[:2]), TRUTH))
    return panels


def _write(panels: Sequence[UInt8Array], files: Sequence[Path]) -> None:
    """The panels side by side as a PNG: encoded once, however many files there are."""
    if not files:
        return
    content = _png(np.concatenate(panels, axis=1))
    for file in files:
        write_bytes(file, content, ADVICE)


def _png(pixels: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _panel(pixels: UInt8Array) -> UInt8Array:
    """At most PANEL high and wide."""
    shrunk = Image.fromarray(pixels)
    shrunk.thumbnail((PANEL, PANEL))
    return np.asarray(shrunk)


def _defined(value: float) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
