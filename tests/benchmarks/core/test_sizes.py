"""The benchmark of input sizes runs, all sizes see the same images, and its table says what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import script

from sapatchcore.datasets.folders import open_dataset
from sapatchcore.synth.write import write_dataset


def test_it_runs_and_makes_its_table(tmp_path: Path) -> None:
    root, output = tmp_path / "given", tmp_path / "sizes.json"
    write_dataset(root, "kits", side=96, train=10, test={"good": 3, "missing": 3})
    script("benchmarks/core/sizes.py").main(["--quick", "--synth", "", "--data", str(root), "--output", str(output)])
    content = json.loads(output.read_text(encoding="utf-8"))
    small, large = content["results"]["runs"]
    assert (small["input"], large["input"]) == ([64, 64], [96, 96])
    assert (small["train"], small["test"]) == (large["train"], large["test"]) == (10, 6)
    assert large["rows"] == pytest.approx(1.5**2 * small["rows"], abs=2)
    for run in (small, large):
        assert 0 <= run["found"] <= 1
        assert run["rate"] == pytest.approx(1 / 11)
    assert set(content["results"]["milliseconds"]["over_first"]) == {"64", "96"}
    tables = script("benchmarks/tables.py")
    text = tables.part("docs/results.md", "", {**tables.measured(), "sizes": content})
    assert f"| given | {small['image_auroc']:.3f} ({small['aupro']:.2f}) | " in text


def test_some_images_are_spread_evenly(tmp_path: Path) -> None:
    benchmark = script("benchmarks/core/sizes.py")
    write_dataset(tmp_path / "set", "kits", side=96, train=120, test={"good": 50, "missing": 20})
    found = benchmark.some_of(open_dataset(tmp_path / "set"))
    assert len(found.train) == benchmark.TRAIN
    assert [sample.label for sample in found.test] == ["good"] * benchmark.GOOD + ["missing"] * benchmark.EACH
    assert (found.test[0].path.name, found.test[39].path.name) == ("000.png", "049.png")
