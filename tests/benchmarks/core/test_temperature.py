"""The comparison over temperatures runs, and its runs are what the package itself would score."""

from __future__ import annotations

import json
from pathlib import Path

from scripts import script

from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.score.metrics import auroc
from sapatchcore.synth.write import write_dataset


def test_its_scores_are_the_detectors(tmp_path: Path) -> None:
    root, output = tmp_path / "given", tmp_path / "temperature.json"
    write_dataset(root, "kits", side=96, train=4, test={"good": 2, "missing": 2})
    wanted = ["--backbones", "resnet18", "--weights", "random", "--temperatures", "2,auto"]
    script("benchmarks/core/temperature.py").main(["--quick", "--data", str(root), *wanted, "--output", str(output)])
    runs = json.loads(output.read_text(encoding="utf-8"))["results"]["runs"]
    assert [(run["attention"], run["asked"]) for run in runs] == [("none", 1), ("self", 2), ("self", "auto")]
    dataset = open_dataset(root)
    for run in runs:
        options = {"attention": run["attention"], "temperature": run["asked"], "resize": 64, "crop": None}
        detector = SAPatchCore(backbone="resnet18", weights="random", **options)
        detector.fit([sample.path for sample in dataset.train])
        assert detector.settings.temperature == run["temperature"]
        scores = detector.predict([sample.path for sample in dataset.test]).scores
        assert auroc([sample.label != "good" for sample in dataset.test], scores) == run["image_auroc"]
