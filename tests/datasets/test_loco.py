"""LOCO's regions and saturation areas, by the official rule, with areas that one counts by head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.loco import read_loco_regions
from sapatchcore.datasets.samples import Dataset, Saturation
from sapatchcore.errors import DataError

CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 5, "relative_saturation": False},
    {"defect_name": "dent", "pixel_value": 254, "saturation_threshold": 0.7, "relative_saturation": True},
]
SHAPE = (4, 6)


def _category(root: Path, masks: list[np.ndarray], config: object = CONFIG) -> Dataset:
    """One defective test image with these masks; all images are 4×6."""
    for part in ("train/good", "validation/good", "test/good", "test/logical_anomalies"):
        (root / part).mkdir(parents=True)
        Image.new("L", (6, 4)).save(root / part / "0.png")
    truth = root / "ground_truth" / "logical_anomalies" / "0"
    truth.mkdir(parents=True)
    for place, mask in enumerate(masks):
        Image.fromarray(mask).save(truth / f"{place:03}.png")
    if config is not None:
        (root / "defects_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return open_dataset(root)


def _mask(value: int, area: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask.flat[:area] = value
    return mask


def test_saturation_areas(tmp_path: Path) -> None:
    masks = [_mask(255, 12), _mask(255, 3), _mask(254, 9), _mask(254, 1)]
    dataset = _category(tmp_path, masks)
    assert dataset.saturation == {255: Saturation("missing", 5.0, False), 254: Saturation("dent", 0.7, True)}
    defect, good = sorted(dataset.test, key=lambda sample: sample.is_good)
    regions = read_loco_regions(defect, dataset, SHAPE)
    # 5 of 12; all of 3; int(0.7 · 9 = 6.3); int(0.7) would be 0, at least one pixel counts.
    assert [area for _, area in regions] == [5, 3, 6, 1]
    for (region, _), mask in zip(regions, masks, strict=True):
        assert region.dtype == np.bool_
        assert np.array_equal(region, mask > 0)
    assert read_loco_regions(good, dataset, SHAPE) == []


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (_mask(7, 3), r"must hold one number beside 0\. Got 7\. Allowed by defects_config\.json: 254, 255"),
        (np.maximum(_mask(254, 5), _mask(255, 2)), r"Got 254, 255\."),
        (_mask(0, 0), r"Got only 0\."),
        (np.full((2, 2), 255, np.uint8), r"is 2×2 \(h×w\), its image 4×6"),
    ],
)
def test_masks_that_do_not_fit(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    dataset = _category(tmp_path, [mask])
    defect = next(sample for sample in dataset.test if not sample.is_good)
    with pytest.raises(DataError, match=message):
        read_loco_regions(defect, dataset, SHAPE)


def test_without_config_or_masks_there_are_no_regions(tmp_path: Path) -> None:
    dataset = _category(tmp_path / "a", [_mask(255, 3)], config=None)
    defect = next(sample for sample in dataset.test if not sample.is_good)
    with pytest.raises(DataError, match=r"a \(loco\) has no saturation areas.*defects_config\.json"):
        read_loco_regions(defect, dataset, SHAPE)
    _category(tmp_path / "b", [_mask(255, 3)])
    shutil.rmtree(tmp_path / "b" / "ground_truth")
    defect = next(sample for sample in open_dataset(tmp_path / "b").test if not sample.is_good)
    with pytest.raises(DataError, match="has no ground truth"):
        read_loco_regions(defect, dataset, SHAPE)


def _entry(**changes: Any) -> list[dict[str, Any]]:
    return [{**CONFIG[1], **changes}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not JSON"),
        ({"defect_name": "x"}, "must be a list of objects. Got dict"),
        ([1], "lacks defect_name, pixel_value"),
        ([{"defect_name": "x", "pixel_value": 1}], "lacks saturation_threshold, relative_saturation"),
        (_entry(pixel_value="254"), "cannot be used"),
        (_entry(saturation_threshold=0), "cannot be used"),
        (_entry(saturation_threshold=1.5), "at most 1 where relative"),
        (_entry(relative_saturation=1), "cannot be used"),
        (_entry() * 2, "occurs once"),
    ],
)
def test_configs_that_cannot_be_used(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _category(tmp_path, [_mask(254, 3)], config)
