"""Small data sets of made screws for the commands, and the options of a small model."""

from __future__ import annotations

from pathlib import Path

from sapatchcore.synth.write import write_dataset

SMALL = ["--backbone", "resnet18", "--weights", "random", "--resize", "64", "--crop", "none", "--coreset-ratio", "0.05"]


def make_screws(folder: Path, *, seed: int) -> None:
    """24 good images to learn from; to test 8 good ones, 8 of a local defect, 8 of a wrong combination."""
    test = dict.fromkeys(("good", "scratch", "over-coupling"), 8)
    write_dataset(folder, "screws", side=96, train=24, test=test, seed=seed)
