"""Small data sets of made screws for the commands, and the options of a small model."""

from __future__ import annotations

from pathlib import Path

from sapatchcore.synth.write import write_dataset

SMALL = ["--backbone", "builtin", "--resize", "64", "--crop", "none", "--coreset-ratio", "0.05"]


def make_screws(folder: Path, *, seed: int, train: int = 24, test: int = 8) -> None:
    """Good images to learn from; to test good ones, as many of a local defect, as many of a wrong combination."""
    tests = dict.fromkeys(("good", "scratch", "over-coupling"), test)
    write_dataset(folder, "screws", side=96, train=train, test=tests, seed=seed)
