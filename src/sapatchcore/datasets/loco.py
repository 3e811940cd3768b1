"""MVTec LOCO AD's ground truth: several regions an image, each with the area at which it counts as found.

Source: Bergmann et al., "Beyond Dents and Scratches", 2022, and the rule of its official evaluation: a
missing part may lie in many places, so marking ``saturation`` pixels of the region is enough (the metric
sPRO).

We differ: a relative saturation area is at least one pixel, where the official rule may round a tiny
region's to 0.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sapatchcore.data.images import read_mask_values
from sapatchcore.datasets.samples import Dataset, Sample, Saturation
from sapatchcore.errors import DataError

CONFIG_KEYS = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")


def read_saturation_config(path: Path) -> dict[int, Saturation]:
    """``defects_config.json`` by pixel value; {} where the file is missing.

    Raises DataError where it is not a list of objects with the four keys of CONFIG_KEYS and sensible values.
    """
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}. Unpack the data set again.") from error
    if not isinstance(entries, list):
        raise DataError(f"{path} must be a list of objects. Got {type(entries).__name__}. Unpack the data set again.")
    by_value: dict[int, Saturation] = {}
    for entry in entries:
        missing = [key for key in CONFIG_KEYS if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise DataError(f"{path}: an entry lacks {', '.join(missing)}. Got {entry!r}. Unpack the data set again.")
        name, value, threshold, relative = (entry[key] for key in CONFIG_KEYS)
        numbers = isinstance(value, int) and isinstance(threshold, int | float) and isinstance(relative, bool)
        if not numbers or threshold <= 0 or (relative and threshold > 1) or value in by_value:
            raise DataError(
                f"{path}: the entry {entry!r} cannot be used. Allowed: a pixel_value that is a whole "
                "number and occurs once; a saturation_threshold above 0, and at most 1 where "
                "relative_saturation is true."
            )
        by_value[value] = Saturation(str(name), float(threshold), relative)
    return by_value


def read_loco_regions(
    sample: Sample, dataset: Dataset, shape: tuple[int, int]
) -> list[tuple[npt.NDArray[np.bool_], int]]:
    """Each mask of a LOCO sample as a region (h, w) bool and its saturation area in pixels.

    shape: (h, w) of the image. Its saturation area is int(threshold × area) where relative, else
    min(threshold, area). A good image has no regions. Raises DataError where the sample has no ground truth,
    the data set no ``defects_config.json``, or a mask not exactly one number that this names.
    """
    if sample.masks is None:
        raise DataError(f"{sample.path} has no ground truth, so its regions are unknown. Add its ground_truth folder.")
    if sample.masks and not dataset.saturation:
        raise DataError(
            f"{dataset.name} ({dataset.layout}) has no saturation areas. Only MVTec LOCO AD has them: put "
            "its defects_config.json into the category's folder."
        )
    regions = []
    for path in sample.masks:
        values = read_mask_values(path, shape)
        found = np.unique(values[values != 0]).tolist()
        if len(found) != 1 or found[0] not in dataset.saturation:
            allowed = ", ".join(str(value) for value in sorted(dataset.saturation))
            raise DataError(
                f"{path} must hold one number beside 0. Got "
                f"{', '.join(str(value) for value in found) or 'only 0'}. "
                f"Allowed by defects_config.json: {allowed}."
            )
        region = values != 0
        area = int(region.sum())
        rule = dataset.saturation[found[0]]
        saturated = max(1, int(rule.threshold * area)) if rule.relative else min(int(rule.threshold), area)
        regions.append((region, saturated))
    return regions
