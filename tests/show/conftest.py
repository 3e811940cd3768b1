"""A made data set in MVTec AD's layout, and a small detector's evaluation of it, for the report's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset, Sample
from sapatchcore.verify.evaluate import Evaluation, evaluate

SIZE = (64, 80)
HOSTILE = "<img src=x onerror=alert(1)>.png"


@dataclass(frozen=True)
class Made:
    """A fitted detector, a data set and its evaluation."""

    detector: SAPatchCore
    dataset: Dataset
    evaluation: Evaluation


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _category(folder: Path, images: Callable[..., np.ndarray]) -> Path:
    """12 good images to learn from; 4 good ones, 3 with a dent and 2 with a scratch to test."""
    pixels = images(21, SIZE, 1)
    for number in range(12):
        _write(folder / f"train/good/{number:02}.png", pixels[number])
    for number in range(4):
        _write(folder / f"test/good/{number:03}.png", pixels[12 + number])
    for kind, first, count in (("dent", 16, 3), ("scratch", 19, 2)):
        for number in range(count):
            mask = np.zeros(SIZE, np.uint8)
            # The last dent is too faint to be found.
            box = np.s_[20:36, 30:46] if kind == "dent" else np.s_[10:14, 8:60]
            mask[box] = 255
            image = pixels[first + number].copy()
            image[box] = image[box] // 16 if (kind, number) != ("dent", 2) else image[box]
            name = HOSTILE if (kind, number) == ("dent", 1) else f"{number:03}.png"
            _write(folder / f"test/{kind}" / name, image)
            _write(folder / f"ground_truth/{kind}" / f"{Path(name).stem}_mask.png", mask)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, images: Callable[..., np.ndarray], small: dict[str, Any]) -> Made:
    """See ``Made``, with a global part; one file name is hostile, and so is a label, which no folder could have."""
    folder = _category(tmp_path_factory.mktemp("report") / "parts", images)
    found = open_dataset(folder)
    samples = tuple(
        Sample(one.path, "</script>" if one.label == "scratch" else one.label, one.masks) for one in found.test
    )
    dataset = Dataset(found.name, found.layout, found.train, samples)
    detector = SAPatchCore(**small, coreset_ratio=0.2, global_part="pooled").fit([one.path for one in dataset.train])
    return Made(detector, dataset, evaluate(detector, dataset))
