"""The comparison of the recommended preset runs, its numbers are the detector's, and its table is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scripts import script

from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.score.metrics import auroc
from sapatchcore.synth.write import write_dataset


def test_its_scores_are_the_detectors(tmp_path: Path) -> None:
    root, output = tmp_path / "given", tmp_path / "recommended.json"
    write_dataset(root, "kits", side=96, train=6, test={"good": 2, "missing": 2})
    arguments = ["--quick", "--synth", "", "--data", str(root), "--output", str(output)]
    script("benchmarks/core/recommended.py").main(arguments)
    content = json.loads(output.read_text(encoding="utf-8"))
    (run,) = content["results"]["runs"]
    dataset = open_dataset(root)
    detector = SAPatchCore(backbone="builtin", preset="recommended", resize=64)
    detector.fit([sample.path for sample in dataset.train])
    result = detector.predict([sample.path for sample in dataset.test])
    wrong = np.array([not sample.is_good for sample in dataset.test])
    assert run["models"]["recommended"]["image_auroc"] == auroc(wrong, result.scores)
    assert run["rules"]["global"] == auroc(wrong, result.global_scores)
    assert run["rules"]["largest lead, global less 2"] == auroc(wrong, result.scores), "the rule that is used"
    assert run["input"] == [64, 64]
    for rate in run["models"]["recommended"]["rates"]:
        rejected = result.scores > result.threshold(max(rate["asked"], 1 / 7))  # 6 images can promise no smaller one
        assert rate["kinds"]["missing"]["rejected"] == int(rejected[wrong].sum())
        assert rate["kinds"]["good"]["rejected"] == int(rejected[~wrong].sum())
        assert rate["kinds"]["good"]["images"] == 2
    assert set(run["models"]) == {"PatchCore", "SA-PatchCore", "recommended"}
