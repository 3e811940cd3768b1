"""The pictures of a TNVision run: images beside their anomaly maps, and what the network sees."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.images import read_image, read_mask
from sapatchcore.data.samples import Dataset, Sample
from sapatchcore.data.transform import prepare
from sapatchcore.result import Result
from sapatchcore.tnvision.config import Config
from sapatchcore.tnvision.results import Thresholds, write_file
from sapatchcore.verify.evaluate import Evaluation

PANEL = 400  # pixels of a panel's longer side
# Cold to hot over [0, 1]; a pixel threshold lies in the middle.
HEAT = np.array([[0, 0, 130], [0, 130, 255], [255, 230, 0], [255, 90, 0], [200, 0, 0]], np.float32)

UInt8Array = npt.NDArray[np.uint8]


def save_training_images(config: Config, dataset: Dataset, folder: Path) -> None:
    """TRAIN.num_sample training images, drawn by SEED, as the network sees them: resized, nothing else."""
    count = min(config.TRAIN.num_sample, len(dataset.train))
    for sample in random.Random(config.SEED).sample(dataset.train, count):
        seen = prepare(read_image(sample.path), config.DATASET.resize, None)
        write_image(folder / "visualize_aug" / f"{sample.path.stem}.png", seen)


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
        if not (all_folder or test_folder or index in rank):
            continue
        values = result.maps[index]
        full = picture(sample, values, thresholds.pixel, with_truth=True)
        name = f"{sample.path.parent.name}_{sample.path.stem}.png"
        if index in rank:
            write_image(folder / "top_k" / f"{rank[index]:03d}_{name}", full)
        if all_folder:
            write_image(folder / all_folder / f"result_{name}", full)
        if test_folder:
            blind = picture(sample, values, thresholds.pixel, with_truth=False)
            write_image(folder / test_folder / f"result_{name}", blind)


def _named(folder: bool | str, default: str) -> str:
    return (default if folder else "") if isinstance(folder, bool) else folder


def write_image(path: Path, pixels: UInt8Array) -> None:
    """(h, w, 3) uint8 as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_file(path, buffer.getvalue())


def picture(
    sample: Sample, anomaly_map: npt.NDArray[np.float32], threshold: float | None, *, with_truth: bool
) -> UInt8Array:
    """Panels side by side: the image, its heat, what lies above the threshold, and the ground truth.

    anomaly_map: (h, w) as large as the image. The last two panels are left out where there is no threshold or
    no ground truth. Returns (at most PANEL, panels · w, 3) uint8.
    """
    image = read_image(sample.path)
    top = 2 * threshold if threshold else float(anomaly_map.max()) or 1.0
    place = np.clip(anomaly_map / top, 0, 1)
    knots = np.linspace(0, 1, len(HEAT))
    heat = np.stack([np.interp(place, knots, HEAT[:, channel]) for channel in range(3)], axis=2)
    panels = [image, (0.5 * image + 0.5 * heat).astype(np.uint8)]
    if threshold is not None:
        panels.append(_marked(image, anomaly_map >= threshold, (255, 0, 0)))
    if with_truth and sample.masks is not None:
        panels.append(_marked(image, read_mask(sample.masks, image.shape[:2]), (0, 200, 0)))
    return np.concatenate([_panel(one) for one in panels], axis=1)


def _marked(image: UInt8Array, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> UInt8Array:
    marked = image.copy()
    marked[mask] = (0.5 * image[mask] + 0.5 * np.array(colour)).astype(np.uint8)
    return marked


def _panel(pixels: UInt8Array) -> UInt8Array:
    shrunk = Image.fromarray(pixels)
    shrunk.thumbnail((PANEL, PANEL))
    return np.asarray(shrunk)
