"""What a data set is, whichever way its folders are laid out: samples for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GOOD = "good"
TRAIN, TEST, VALIDATION, GROUND_TRUTH = "train", "test", "validation", "ground_truth"

# In the order in which a message lists them; each with what its folder must show.
LAYOUT_FOLDERS = {
    "mvtec": "train/good, test/good, test/<defect>, ground_truth/<defect>",
    "loco": "train/good, validation/good, test/logical_anomalies, test/structural_anomalies",
    "cad_sd": "train/0_good, test/0_good, test/1_scratch, ...",
    "visa": "Data/Images/Normal, Data/Images/Anomaly, and ../split_csv/1cls.csv",
    "btad": "train/ok, test/ok, test/ko, ground_truth/ko",
    "plain": "images directly in the folder, or good/ beside one folder for each defect",
}
LAYOUTS = tuple(LAYOUT_FOLDERS)


@dataclass(frozen=True)
class Sample:
    """One image file, with what is known of it.

    label: "good" or the defect's name. masks: the ground truth's files; () for a good image, where nothing is
    defective; None where no ground truth is known.
    """

    path: Path
    label: str
    masks: tuple[Path, ...] | None

    @property
    def is_good(self) -> bool:
        return self.label == GOOD


@dataclass(frozen=True)
class Saturation:
    """How much of a defect must be found to count as all of it (MVTec LOCO AD's ``defects_config.json``).

    threshold: pixels, or a fraction of the defect's area where ``relative``.
    """

    defect: str
    threshold: float
    relative: bool


@dataclass(frozen=True)
class Dataset:
    """One category: what is learned from, what is tested on.

    name: the category, that is its folder's name. layout: one of LAYOUTS. train and validation: good images
    only; validation (LOCO) is held out for calibration. saturation: LOCO only, by the number that a mask's
    pixels hold. note: what was assumed, for callers to print; "" where everything is as published.
    """

    name: str
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    validation: tuple[Sample, ...] = ()
    saturation: Mapping[int, Saturation] = field(default_factory=dict)
    note: str = ""


def named_folder(folder: Path) -> Path:
    """``folder`` with a name of its own: resolved where it is "." or "..", else as the user wrote it."""
    return folder.resolve() if folder.name in ("", "..") else folder
