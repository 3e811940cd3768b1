"""The benchmarks of few images and of several products run, and their figures are the detector's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scripts import script

from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.score.metrics import auroc
from sapatchcore.synth.write import write_dataset


def test_few_images(tmp_path: Path) -> None:
    root, output = tmp_path / "given", tmp_path / "few.json"
    write_dataset(root, "screws", side=96, train=5, test={"good": 2, "scratch": 2})
    script("benchmarks/core/few.py").main(["--quick", "--data", str(root), "--output", str(output)])
    runs = json.loads(output.read_text(encoding="utf-8"))["results"]["runs"]
    assert [(run["images"], run["copies"]) for run in runs] == [(1, 7), (4, 28)]
    dataset = open_dataset(root)
    train = [dataset.train[at].path for at in np.random.default_rng(0).permutation(len(dataset.train))[:4]]
    detector = SAPatchCore(preset="recommended", backbone="builtin", resize=64, augment="rotate").fit(train)
    scores = detector.predict([sample.path for sample in dataset.test]).scores
    wrong = np.array([not sample.is_good for sample in dataset.test])
    assert runs[1]["image_auroc"]["rotate"] == pytest.approx(auroc(wrong, scores), abs=1e-4)


def test_several_products(tmp_path: Path) -> None:
    for scene in ("screws", "kits"):
        write_dataset(
            tmp_path / scene, scene, side=96, train=5, test={"good": 2, "missing" if scene == "kits" else "scratch": 2}
        )
    output = tmp_path / "products.json"
    folders = [str(tmp_path / scene) for scene in ("screws", "kits")]
    script("benchmarks/core/products.py").main(["--quick", "--data", *folders, "--output", str(output)])
    first, second = json.loads(output.read_text(encoding="utf-8"))["results"]["products"]
    dataset = open_dataset(folders[1])
    detector = SAPatchCore(preset="recommended", backbone="builtin", resize=64, keep_aspect=False)
    detector.fit([sample.path for sample in dataset.train])
    scores = detector.predict([sample.path for sample in dataset.test]).scores
    wrong = np.array([not sample.is_good for sample in dataset.test])
    assert second["alone"] == pytest.approx(auroc(wrong, scores), abs=1e-4)
    assert (first["dataset"], second["dataset"]) == ("screws", "kits")
    assert (first["told"], second["told"]) == (1, 1)
    assert first["noted_foreign"] is None  # of two products, a model of the other one alone tells nothing
