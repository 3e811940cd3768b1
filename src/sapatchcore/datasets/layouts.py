"""How each public data set lays out its folders, one reader a layout (VisA's is ``visa.py``).

Sources: MVTec AD (Bergmann et al. 2019), MVTec LOCO AD (Bergmann et al. 2022), CAD-SD (Ishida et al. 2023),
BTAD (Mishra et al. 2021).

We differ: listings are sorted, a defect's missing mask is an error rather than an empty mask, and where
there is no ground truth a sample says so (``masks=None``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sapatchcore.data.images import is_image, list_images
from sapatchcore.datasets.loco import read_saturation_config
from sapatchcore.datasets.samples import (
    GOOD,
    GROUND_TRUTH,
    TEST,
    TRAIN,
    VALIDATION,
    Dataset,
    Sample,
    named_folder,
)
from sapatchcore.datasets.visa import VISA_NORMAL
from sapatchcore.errors import DataError

LOCO_CONFIG = "defects_config.json"
LOCO_PARTS = ("test/logical_anomalies", "test/structural_anomalies", LOCO_CONFIG)
BTAD_GOOD = "ok"
# Names that mean something in the other layouts: beside a plain good/ they cannot be a defect's name.
RESERVED_NAMES = (TRAIN, TEST, VALIDATION, GROUND_TRUTH, "masks", "mask", "Data")
PLAIN_TEST_EVERY = 5  # a plain folder tests on every fifth good image

# (the ground truth's folder of one defect, the defect's images) → the masks of each image
MaskFinder = Callable[[Path, tuple[Path, ...]], list[tuple[Path, ...]]]


def sub_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted by name, hidden ones left out."""
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.name)


def train_folder(folder: Path, layout: str) -> Path | None:
    """Where the category ``folder`` keeps what is learned from, or None where it has not this layout."""
    if layout in ("mvtec", "loco"):
        is_loco = any((folder / part).exists() for part in LOCO_PARTS)
        return _existing(folder / TRAIN / GOOD) if is_loco == (layout == "loco") else None
    if layout == "cad_sd":
        return next(iter(_numbered_good(folder / TRAIN)), None)
    if layout == "visa":
        return _existing(folder / VISA_NORMAL)
    if layout == "btad":
        return _existing(folder / TRAIN / BTAD_GOOD)
    if (folder / GOOD).is_dir():
        return folder / GOOD
    return folder if any(is_image(path) for path in folder.iterdir()) else None


def read_mvtec(folder: Path) -> Dataset:
    """MVTec AD, and what is laid out like it. The readers raise DataError where parts are missing."""
    test = _read_test(folder, _mask_by_stem)
    return Dataset(named_folder(folder).name, "mvtec", _good_samples(folder / TRAIN / GOOD), test)


def read_loco(folder: Path) -> Dataset:
    """MVTec LOCO AD: a held-out validation set, several masks an image, a saturation for each defect."""
    validation = folder / VALIDATION / GOOD
    return Dataset(
        named_folder(folder).name,
        "loco",
        _good_samples(folder / TRAIN / GOOD),
        _read_test(folder, _masks_in_folder),
        validation=_good_samples(validation) if validation.is_dir() else (),
        saturation=read_saturation_config(folder / LOCO_CONFIG),
        note="" if validation.is_dir() else f"{folder} has no {VALIDATION}/{GOOD} to calibrate on.",
    )


def read_cad_sd(folder: Path) -> Dataset:
    """CAD-SD: folders are numbered, ``1_scratch`` is the defect "scratch"."""
    train = _numbered_good(folder / TRAIN)
    if len(train) != 1:
        raise DataError(
            f"{folder / TRAIN} must hold one numbered good folder. Got {_names(train) or 'none'}. Expected 0_good."
        )
    test = _read_test(folder, _mask_by_stem, label=lambda kind: re.sub(r"^\d+_", "", kind))
    return Dataset(named_folder(folder).name, "cad_sd", _good_samples(train[0]), test)


def read_btad(folder: Path) -> Dataset:
    """BTAD (beanTech): ``ok`` is good, ``ko`` the one kind of defect, and its label."""
    test = _read_test(folder, _mask_by_stem, label=lambda kind: GOOD if kind == BTAD_GOOD else kind)
    return Dataset(named_folder(folder).name, "btad", _good_samples(folder / TRAIN / BTAD_GOOD), test)


def read_plain(folder: Path) -> Dataset:
    """A user's own folder: only good images, or ``good/`` beside a folder for each defect."""
    check_plain(folder)
    name = named_folder(folder).name
    if not (folder / GOOD).is_dir():
        unread = sub_folders(folder)
        note = f"{folder} has no test images: all of its images count as good."
        note += f" Its sub-folders {_names(unread)} were not read." if unread else ""
        return Dataset(name, "plain", _good_samples(folder), (), note=note)
    good = _good_samples(folder / GOOD)
    held_out = good[PLAIN_TEST_EVERY - 1 :: PLAIN_TEST_EVERY]
    train = tuple(sample for number, sample in enumerate(good, start=1) if number % PLAIN_TEST_EVERY)
    test = list(held_out)
    for kind in sub_folders(folder):
        if kind.name != GOOD:
            test.extend(Sample(path, kind.name, None) for path in list_images(kind))
    note = (
        f"{folder} has no published split: every fifth good image ({len(held_out)} of {len(good)}) is held "
        "out for test, the others are learned from."
    )
    return Dataset(name, "plain", train, tuple(sorted(test, key=lambda one: one.path.as_posix())), note=note)


def check_plain(folder: Path) -> None:
    """Raises DataError where it is unclear which images of a plain folder with ``good/`` are good."""
    if not (folder / GOOD).is_dir():
        return
    reserved = [path for path in sub_folders(folder) if path.name in RESERVED_NAMES]
    loose = sum(is_image(path) for path in folder.iterdir())
    if reserved or loose:
        raise DataError(
            f"{folder} holds {GOOD}/ beside {_names(reserved) or f'{loose} images'}: it is unclear what is "
            f"good. Expected beside {GOOD}/ only one folder of images for each defect, named after it."
        )


def _existing(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def _numbered_good(train: Path) -> list[Path]:
    folders = sub_folders(train) if train.is_dir() else []
    return [path for path in folders if re.fullmatch(rf"\d+_{GOOD}", path.name)]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _good_samples(folder: Path) -> tuple[Sample, ...]:
    return tuple(Sample(path, GOOD, ()) for path in list_images(folder))


def _read_test(
    folder: Path, find_masks: MaskFinder, label: Callable[[str], str] = lambda kind: kind
) -> tuple[Sample, ...]:
    """All samples of ``test/``, a sub-folder for each kind; ``label`` turns its name into the label."""
    kinds = sub_folders(folder / TEST) if (folder / TEST).is_dir() else []
    if not kinds:
        raise DataError(f"{folder / TEST} is missing or has no sub-folders. Expected good/ and one for each defect.")
    samples: list[Sample] = []
    for kind in kinds:
        images, name, truth = list_images(kind), label(kind.name), folder / GROUND_TRUTH / kind.name
        if name == GOOD:
            samples.extend(Sample(path, GOOD, ()) for path in images)
        elif not truth.is_dir():
            samples.extend(Sample(path, name, None) for path in images)
        else:
            masks = find_masks(truth, images)
            samples.extend(Sample(path, name, found) for path, found in zip(images, masks, strict=True))
    return tuple(samples)


def _mask_by_stem(truth: Path, images: tuple[Path, ...]) -> list[tuple[Path, ...]]:
    """The one mask of each image: ``<stem>_mask.<suffix>``, or ``<stem>.<suffix>``."""
    by_stem: dict[str, Path] = {}
    for path in list_images(truth):
        if path.stem in by_stem:
            raise DataError(f"{truth} holds both {by_stem[path.stem].name} and {path.name}. Keep one of them.")
        by_stem[path.stem] = path
    masks: list[tuple[Path, ...]] = []
    for image in images:
        mask = by_stem.get(f"{image.stem}_mask") or by_stem.get(image.stem)
        if mask is None:
            raise _without_mask(image, truth, f"{image.stem}_mask.png")
        masks.append((mask,))
    return masks


def _masks_in_folder(truth: Path, images: tuple[Path, ...]) -> list[tuple[Path, ...]]:
    """All masks of each image, one region each: ``<stem>/000.png``, ``<stem>/001.png``, ..."""
    for image in images:
        if not (truth / image.stem).is_dir():
            raise _without_mask(image, truth, f"{image.stem}/000.png")
    return [list_images(truth / image.stem) for image in images]


def _without_mask(image: Path, truth: Path, expected: str) -> DataError:
    return DataError(
        f"{image} has no mask in {truth}. Expected {expected}. Add it, or remove "
        f"{GROUND_TRUTH}/{truth.name} to test without masks."
    )
