"""TNVision's smallest YAML, and a made-up detector that its run line can learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import yaml

from sapatchcore.data.images import read_mask
from sapatchcore.data.sources import read_image
from sapatchcore.score.metrics import auroc, best_f1
from sapatchcore.verify.pixels import pixel_metrics

RUN_LINE = "--task_type anomaly --model_type unsupervised --model_name sapatchcore --yaml_config"


def keys(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The smallest YAML, with some keys set: ("TRAIN.beta", 2)."""
    values: dict[str, Any] = {"DATASET": {"datadir": "datasets", "target": "bottle"}}
    for dotted, value in changes:
        *top, key = dotted.split(".")
        section = values.setdefault(top[0], {}) if top else values
        section[key] = value
    return values


def write_yaml(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Brightness:
    """A stand-in for the detector: the anomaly map is the brightness, the image score its largest value."""

    made: ClassVar[list[Brightness]] = []

    def __init__(self, **options: Any) -> None:
        self.settings = SimpleNamespace(**options)
        self.learned: list[Path] = []
        Brightness.made.append(self)

    def fit(self, paths: list[Path], progress: Callable[[str, int, int | None], None] | None = None) -> None:
        self.learned = list(paths)
        for done in range(1, len(paths) + 1):
            if progress:
                progress("learn", done, len(paths))

    def save(self, path: Path) -> None:
        values = {name: getattr(self.settings, name) for name in vars(self.settings)}
        path.write_text(json.dumps(values))

    @classmethod
    def load(cls, path: Path, **here: Any) -> Brightness:
        options = json.loads(path.read_text())
        return cls(
            **{
                **options,
                "layers": tuple(options["layers"]),
                "resize": tuple(options["resize"]),
                **here,
            }
        )


def evaluate_brightness(
    _: Brightness, dataset: Any, progress: Callable[[str, int, int | None], None], beta: float
) -> SimpleNamespace:
    maps = [read_image(one.path)[:, :, 0].astype(np.float32) for one in dataset.test]
    scores = np.array([one.max() for one in maps], np.float32)
    for done in range(1, len(maps) + 1):
        progress("test", done, len(maps))
    defective = [not one.is_good for one in dataset.test]
    judged = [(one, seen) for one, seen in zip(dataset.test, maps, strict=True) if one.masks is not None]
    masks = [read_mask(one.masks, (32, 32)) for one, _ in judged]
    return SimpleNamespace(
        result=SimpleNamespace(
            scores=scores,
            maps=maps,
            sizes=[(32, 32)] * len(maps),
            paths=tuple(str(one.path) for one in dataset.test),
        ),
        image_auroc=auroc(defective, scores),
        image_threshold=best_f1(defective, scores, beta)[1],
        pixel=pixel_metrics(masks, [seen for _, seen in judged], beta=beta),
        reasons={},
        to_dict=lambda: {"made": "up"},
    )
