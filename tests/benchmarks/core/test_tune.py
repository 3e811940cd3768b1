"""The benchmark of tune runs, its true figures are the detector's, and its correlation is Spearman's."""

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


def test_it_compares_estimates_with_what_the_detector_finds(tmp_path: Path) -> None:
    root, output = tmp_path / "given", tmp_path / "tune.json"
    write_dataset(root, "screws", side=96, train=10, test={"good": 3, "lacking": 3})
    script("benchmarks/core/tune.py").main(["--quick", "--synth", "", "--data", str(root), "--output", str(output)])
    (found,) = json.loads(output.read_text(encoding="utf-8"))["results"]["sets"]
    dataset = open_dataset(root)
    detector = SAPatchCore(backbone="builtin", preset="recommended", resize=96)
    result = detector.fit([one.path for one in dataset.train]).predict([one.path for one in dataset.test])
    first = found["candidates"][0]
    assert first["candidate"] == "builtin 96"
    assert first["true"] == pytest.approx(
        auroc(np.array([not one.is_good for one in dataset.test]), result.scores), abs=1e-6
    )
    best = max(row["true"] for row in found["candidates"])
    assert found["regret"] == pytest.approx(best - found["chosen_true"], abs=2e-6)


def test_the_correlation_is_spearmans() -> None:
    spearman = script("benchmarks/core/tune.py").spearman
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 40, 30])) == pytest.approx(0.8)  # 1 − 6·2 / (4·15)
    assert spearman(np.array([1.0, 2]), np.array([5.0, 5])) is None
