"""VisA as published: good and defective images in two folders, the split in a table beside the categories.

Source: Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", 2022, and the one-class split ``split_csv/1cls.csv`` of the data set's own repository,
amazon-science/spot-diff.
"""

from __future__ import annotations

import csv
from pathlib import Path

from sapatchcore.datasets.samples import GOOD, TEST, TRAIN, Dataset, Sample, named_folder
from sapatchcore.errors import DataError

VISA_NORMAL, VISA_MASKS = "Data/Images/Normal", "Data/Masks/Anomaly"
VISA_SPLIT = "split_csv/1cls.csv"
VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def read_visa(folder: Path) -> Dataset:
    """One category, split as its authors' one-class list says; every defect is labelled "anomaly".

    Raises DataError where the list is missing, lacks columns, does not know the category, names files that
    do not exist, or trains on defects.
    """
    name = named_folder(folder).name
    table = named_folder(folder).parent / VISA_SPLIT
    if not table.is_file():
        raise DataError(
            f"{folder} is a VisA category, but {VISA_SPLIT} is missing beside it: without it train and "
            "test are unknown. Copy it from the data set's own repository, amazon-science/spot-diff, to "
            "the folder that holds the categories."
        )
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        missing = [column for column in VISA_COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise DataError(
                f"{table} lacks the columns {', '.join(missing)}. It must have {', '.join(VISA_COLUMNS)}. "
                "Copy it again from amazon-science/spot-diff."
            )
        listed = list(rows)
    samples: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for row in listed:
        if row["object"] == name:
            sample = _visa_sample(folder, row, table)
            if row["split"] not in samples or (row["split"] == TRAIN and not sample.is_good):
                raise DataError(
                    f"{table} puts the {row['label']} image {row['image']} into {row['split']!r}. Allowed: "
                    "normal in train, any in test. Use the one-class list, 1cls.csv."
                )
            samples[row["split"]].append(sample)
    if not samples[TRAIN]:
        objects = sorted({row["object"] for row in listed})
        raise DataError(f"{table} has no training image of {name!r}. It lists {', '.join(objects)}. Rename the folder.")
    train, test = (tuple(sorted(samples[split], key=lambda one: one.path.as_posix())) for split in (TRAIN, TEST))
    return Dataset(name, "visa", train, test)


def _visa_sample(folder: Path, row: dict[str, str], table: Path) -> Sample:
    path = folder / _below_category(row["image"])
    if not path.is_file():
        raise DataError(f"{table} lists {row['image']}, which does not exist. Unpack the data set again.")
    if row["label"] == "normal":
        return Sample(path, GOOD, ())
    mask = folder / _below_category(row["mask"]) if row["mask"] else None
    if mask is None or not (folder / VISA_MASKS).is_dir():
        return Sample(path, row["label"], None)
    if not mask.is_file():
        raise DataError(f"{table} lists the mask {row['mask']}, which does not exist. Unpack the data set again.")
    return Sample(path, row["label"], (mask,))


def _below_category(listed: str | None) -> Path:
    # The table's paths begin with the category; results show the folder as the user wrote it.
    return Path(*Path(listed or "").parts[1:])
