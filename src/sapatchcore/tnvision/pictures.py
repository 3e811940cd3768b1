"""The pictures of a TNVision run: images beside their anomaly maps, and what the network sees."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.images import read_mask
from sapatchcore.data.pixels import prepare
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.result import Result
from sapatchcore.tnvision.config import Config
from sapatchcore.tnvision.results import ADVICE, Thresholds
from sapatchcore.verify.evaluate import Evaluation
from sapatchcore.verify.files import write_bytes

PANEL = 400  # pixels of a panel's longer side
# Cold to hot over [0, 1]; a pixel threshold lies in the middle.
HEAT = np.array([[0, 0, 130], [0, 130, 255], [255, 230, 0], [255, 90, 0], [200, 0, 0]], np.float32)

UInt8Array = npt.NDArray[np.uint8]


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
    rank = {index: place for place, index in enumerate(ranked[: config.TRAIN.top_k], start=1)}
    folders = _named(keys.saveall, "saveall"), _named(keys.save_test_img, "save_test_img")
    _save(dataset, result, thresholds, folder, folders, rank)


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
    rank: Mapping[int, int],
) -> None:
    """folders: of all test images with and without ground truth, "" for none. rank: of the images of top_k."""
    all_folder, test_folder = folders
    for index, sample in enumerate(dataset.test):
        name = f"{sample.path.parent.name}_{sample.path.stem}.png"
        blind = [folder / test_folder / f"result_{name}"] if test_folder else []
        full = [folder / all_folder / f"result_{name}"] if all_folder else []
        if index in rank:
            full.append(folder / "top_k" / f"{rank[index]:03d}_{name}")
        if not full and not blind:
            continue
        image = read_image(sample.path)
        panels = _panels(image, result.maps[index], thresholds.pixel)
        if full and sample.masks is not None:
            truth = _marked(image, read_mask(sample.masks, image.shape[:2]), (0, 200, 0))
            _write([*panels, truth], full)
            _write(panels, blind)
        else:  # without ground truth it is one picture
            _write(panels, full + blind)


def _named(folder: bool | str, default: str) -> str:
    return (default if folder else "") if isinstance(folder, bool) else folder


def _panels(image: UInt8Array, anomaly_map: npt.NDArray[np.float32], threshold: float | None) -> list[UInt8Array]:
    """The image, its heat, and what lies above the threshold where there is one.

    image: (h, w, 3) uint8. anomaly_map: (h, w).
    """
    top = 2 * threshold if threshold else float(anomaly_map.max()) or 1.0
    place = np.clip(anomaly_map / top, 0, 1)
    knots = np.linspace(0, 1, len(HEAT))
    heat = np.stack([np.interp(place, knots, HEAT[:, channel]) for channel in range(3)], axis=2)
    panels = [image, (0.5 * image + 0.5 * heat).astype(np.uint8)]
    if threshold is not None:
        panels.append(_marked(image, anomaly_map >= threshold, (255, 0, 0)))
    return panels


def _write(panels: Sequence[UInt8Array], files: Sequence[Path]) -> None:
    """The panels side by side, each at most PANEL high and wide, as a PNG: encoded once, however many files there are."""
    if not files:
        return
    content = _png(np.concatenate([_panel(one) for one in panels], axis=1))
    for file in files:
        write_bytes(file, content, ADVICE)


def _png(pixels: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _marked(image: UInt8Array, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> UInt8Array:
    marked = image.copy()
    marked[mask] = (0.5 * image[mask] + 0.5 * np.array(colour)).astype(np.uint8)
    return marked


def _panel(pixels: UInt8Array) -> UInt8Array:
    shrunk = Image.fromarray(pixels)
    shrunk.thumbnail((PANEL, PANEL))
    return np.asarray(shrunk)
