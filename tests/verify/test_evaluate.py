"""Figures of one category, from scores that are made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sapatchcore.datasets.folders import open_dataset
from sapatchcore.result import Result
from sapatchcore.verify.evaluate import evaluate_result
from sapatchcore.verify.tables import evaluation_text

SIDE = 64


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def scored(paths: list[Path], grids: np.ndarray, *, resize: int = SIDE, crop: int | None = None) -> Result:
    """A result with these patch scores (n, h, w), all of them local."""
    grids = grids.astype(np.float32)
    worst = grids.max(axis=(1, 2))
    return Result(
        paths=tuple(str(path) for path in paths),
        scores=worst,
        local_scores=worst,
        context_scores=np.zeros_like(worst),
        patch_scores=grids,
        local_patches=grids,
        context_patches=np.zeros_like(grids),
        neighbours=np.zeros(grids.shape, np.int64),
        sizes=((SIDE, SIDE),) * len(paths),
        resize=(resize, resize),
        crop=None if crop is None else (crop, crop),
    )


def category(folder: Path, mask: np.ndarray) -> Path:
    """MVTec AD's layout: two good test images, two of the defect "dent" with this mask, one "stain" without."""
    grey = np.full((SIDE, SIDE), 128)
    for name in ("train/good/0", "test/good/0", "test/good/1", "test/dent/0", "test/dent/1"):
        write(folder / f"{name}.png", grey)
    for name in ("0", "1"):
        write(folder / f"ground_truth/dent/{name}_mask.png", mask)
    return folder


def test_figures_by_hand(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE))
    mask[:16, :16] = 255  # the first cell of a 4×4 grid
    dataset = open_dataset(category(tmp_path / "c", mask))
    grids = np.zeros((4, 4, 4))
    labels = [sample.label for sample in dataset.test]
    assert labels == ["dent", "dent", "good", "good"]
    grids[0, 0, 0], grids[1, 0, 0], grids[2, 3, 3], grids[3, 3, 3] = 4, 2, 3, 1
    found = evaluate_result(scored([s.path for s in dataset.test], grids), dataset)
    # Pairs (defective > good): 4>3, 4>1, 2>1 hold, 2>3 does not: 3 of 4.
    assert found.image_auroc == 0.75
    assert found.per_defect_auroc == {"dent": 0.75}
    # Best F1 at threshold 2: both found, one false alarm: 2·2/(2·2 + 1).
    assert found.image_f1 == pytest.approx(0.8)
    assert found.image_threshold == 2
    assert found.pixel.defective_pixels == 2 * 16 * 16
    assert found.pixel.regions == 2
    assert found.outside == 0
    assert found.reasons == {}
    figures = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [one["score"] for one in figures["scores"]] == [4, 2, 3, 1]
    assert list(figures["scores"][0]) == ["path", "label", "score", "local", "context", "p_value"]
    whole = replace(found.result, global_scores=np.arange(4, dtype=np.float32))
    figures = replace(found, result=whole).to_dict()
    assert list(figures["scores"][3]) == ["path", "label", "score", "local", "context", "global", "p_value"]
    assert [one["global"] for one in figures["scores"]] == [0, 1, 2, 3]
    assert "0.7500" in evaluation_text(found)


def test_pixels_outside_the_crop_are_not_judged(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE))
    mask[:32, 28:36] = 255  # 32 rows, of which the crop to 32 pixels (rows 16 to 47) sees 16
    dataset = open_dataset(category(tmp_path / "c", mask))
    grids = np.ones((4, 4, 4))
    found = evaluate_result(scored([s.path for s in dataset.test], grids, crop=32), dataset)
    assert found.pixel.pixels == 4 * 32 * 32
    assert found.pixel.defective_pixels == 2 * 16 * 8
    assert found.outside == pytest.approx(0.5)
    assert "50.0%" in evaluation_text(found)


def test_one_kind_of_image_gives_nan_with_its_reason(tmp_path: Path) -> None:
    folder = category(tmp_path / "c", np.eye(SIDE) * 255)
    for file in (folder / "test/dent").iterdir():
        file.unlink()
    (folder / "test/dent").rmdir()
    dataset = open_dataset(folder)
    found = evaluate_result(scored([s.path for s in dataset.test], np.ones((2, 4, 4))), dataset)
    assert math.isnan(found.image_auroc)
    assert "image_auroc" in found.reasons
    assert found.to_dict()["image_auroc"] is None
    assert math.isnan(found.pixel.auroc)


def test_loco_reports_spro_for_each_kind(tmp_path: Path) -> None:
    folder = tmp_path / "loco"
    grey = np.full((SIDE, SIDE), 128)
    mask = np.zeros((SIDE, SIDE))
    mask[:16, :16] = 200
    for kind in ("good", "logical_anomalies", "structural_anomalies"):
        write(folder / f"test/{kind}/000.png", grey)
        if kind != "good":
            write(folder / f"ground_truth/{kind}/000/000.png", mask)
    write(folder / "train/good/000.png", grey)
    write(folder / "validation/good/000.png", grey)
    entry = {"defect_name": "missing", "pixel_value": 200, "saturation_threshold": 64, "relative_saturation": False}
    (folder / "defects_config.json").write_text(json.dumps([entry]))
    dataset = open_dataset(folder)
    assert dataset.layout == "loco"
    grids = np.zeros((3, 4, 4))
    logical = [sample.label for sample in dataset.test].index("logical_anomalies")
    grids[logical, 0, 0] = 5  # the logical one is found, the structural one is not at all
    found = evaluate_result(scored([s.path for s in dataset.test], grids), dataset)
    assert set(found.spro) == {"logical_anomalies", "structural_anomalies"}
    assert found.spro["logical_anomalies"][0.05] == pytest.approx(1, abs=0.02)
    assert found.spro["structural_anomalies"][0.05] < 0.1
    assert "sPRO to FPR 0.05, logical_anomalies" in evaluation_text(found)
