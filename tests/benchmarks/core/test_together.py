"""The comparison of networks together runs, and its numbers are the detector's."""

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

NAMES = "builtin+test_resnet"


def test_its_scores_are_the_detectors(tmp_path: Path) -> None:
    root, output = tmp_path / "given", tmp_path / "together.json"
    write_dataset(root, "kits", side=96, train=6, test={"good": 2, "missing": 2})
    options = {"weights": "pretrained+random", "resize": 64}
    arguments = ["--quick", "--data", str(root), "--backbone", NAMES, "--weights", options["weights"]]
    script("benchmarks/core/together.py").main([*arguments, "--output", str(output)])
    results = json.loads(output.read_text(encoding="utf-8"))["results"]
    (run,) = results["runs"]
    dataset = open_dataset(root)
    detector = SAPatchCore(preset="recommended", backbone=NAMES, **options)
    paths = [sample.path for sample in dataset.test]
    result = detector.fit([sample.path for sample in dataset.train]).predict(paths)
    wrong = np.array([not sample.is_good for sample in dataset.test])
    assert run["image_auroc"] == auroc(wrong, result.scores)
    scores = script("benchmarks/core/together.py").by_rule([one.predict(paths) for one in detector.networks])
    used = scores["patch scores, root mean square over √(qσ)"]
    np.testing.assert_allclose(used, result.scores, rtol=1e-4)
    assert run["rules"] == {name: auroc(wrong, one) for name, one in scores.items()}
    assert list(run["alone"]) == NAMES.split("+")
    assert results["time"]["batch 1"]["together"]["of_bare"]["median"] == pytest.approx(
        results["time"]["batch 1"]["together"]["of_bare"]["max"]
    )
