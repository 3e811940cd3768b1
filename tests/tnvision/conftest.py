"""Parts that are as bright as they are defective, and runs on them with a made-up detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import Brightness, evaluate_brightness, keys
from PIL import Image

from sapatchcore.tnvision import run as tnvision
from sapatchcore.tnvision.read import config_from


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Five good training images; good test images as bright as 10 and 60, defects as 50, 200 and 250."""

    def image(path: str, grey: int, spot: int | None = None) -> None:
        pixels = np.full((32, 32), grey, np.uint8)
        if spot is not None:
            pixels[:8, :8] = spot
        (tmp_path / "parts" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "parts" / path)

    for number in range(5):
        image(f"train/good/{number}.png", 10 + number)
    image("test/good/0.png", 5, 10)
    image("test/good/1.png", 5, 60)
    for name, grey in (("dim", 50), ("mid", 200), ("hot", 250)):
        image(f"test/spot/{name}.png", 5, grey)
        image(f"ground_truth/spot/{name}_mask.png", 0, 255)
    return tmp_path / "parts"


@pytest.fixture
def run(parts: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the smallest YAML with some keys set on `parts`; the folder of the results."""
    monkeypatch.setattr(tnvision, "evaluate", evaluate_brightness)
    monkeypatch.setattr(tnvision, "SAPatchCore", Brightness)
    Brightness.made.clear()

    def one(*changes: tuple[str, Any]) -> Path:
        fixed = [
            ("DATASET.datadir", str(parts.parent)),
            ("DATASET.target", "parts"),
            ("DATASET.resize", [64, 64]),
        ]
        result = ("RESULT.savedir", str(parts.parent / "out"))
        return tnvision.run(config_from(keys(*fixed, result, *changes), "x.yaml"))

    return one
