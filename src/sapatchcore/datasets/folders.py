"""From a folder to a data set: which layout it has, what to learn from, what to test on.

The layout is recognised by the folders' names alone. What fits none or several is refused with a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sapatchcore.data.images import is_image, list_images
from sapatchcore.datasets import layouts
from sapatchcore.datasets.layouts import sub_folders, train_folder
from sapatchcore.datasets.samples import (
    GOOD,
    LAYOUT_FOLDERS,
    LAYOUTS,
    VALIDATION,
    Dataset,
    named_folder,
)
from sapatchcore.datasets.visa import read_visa
from sapatchcore.errors import DataError, SettingsError, did_you_mean

AUTO = "auto"

_READERS: dict[str, Callable[[Path], Dataset]] = {
    "mvtec": layouts.read_mvtec,
    "loco": layouts.read_loco,
    "cad_sd": layouts.read_cad_sd,
    "visa": read_visa,
    "btad": layouts.read_btad,
    "plain": layouts.read_plain,
}


def open_dataset(folder: str | os.PathLike[str], layout: str = AUTO) -> Dataset:
    """The category in ``folder``, all sorted; ``layout`` is one of LAYOUTS, or "auto" to recognise it.

    Raises DataError where the folder is missing, fits no layout or several, or its parts do not fit each
    other; SettingsError for an unknown layout.
    """
    path = Path(folder)
    return _READERS[_layout_of(path, layout)](path)


def training_images(folder: str | os.PathLike[str], layout: str = AUTO) -> tuple[Path, ...]:
    """What ``fit FOLDER`` learns from: a category's training images, a plain folder's, or its ``good/``.

    Nothing is held out here: of a plain folder with ``good/``, all good images. Errors as in
    ``open_dataset``.
    """
    path = Path(folder)
    found = _layout_of(path, layout)
    if found in ("visa", "cad_sd"):  # only the split list knows VisA's; CAD-SD's could be several
        return tuple(sample.path for sample in _READERS[found](path).train)
    if found == "plain":
        layouts.check_plain(path)
    return list_images(train_folder(path, found) or path)


def validation_images(folder: str | os.PathLike[str], layout: str = AUTO) -> tuple[Path, ...]:
    """Good images that a category keeps apart for calibration (MVTec LOCO AD's validation); none elsewhere."""
    kept_apart = Path(folder) / VALIDATION / GOOD
    if _layout_of(Path(folder), layout) != "loco" or not kept_apart.is_dir():
        return ()
    return list_images(kept_apart)


def find_categories(root: str | os.PathLike[str], layout: str = AUTO) -> dict[str, Path]:
    """The categories in ``root``, by name, sorted; a root that is itself one category gives that one.

    Sub-folders that are no data set are left out. Under "auto", a sub-folder with images directly in it is
    none: it has nothing to test on. Raises DataError where ``root`` is missing or holds no category.
    """
    path = Path(root)
    wanted = _wanted(path, layout)
    if any(_is_category(path, one, wanted) for one in wanted):
        return {named_folder(path).name: path}
    found = {
        child.name: child
        for child in _possible_categories(path)
        if any(_is_category(child, one, wanted) for one in wanted)
    }
    if not found and "plain" in wanted and train_folder(path, "plain") is not None:
        return {named_folder(path).name: path}
    if not found:
        raise DataError(f"{path} holds no category. {_got(path)} {_expected(wanted)}")
    return found


def _possible_categories(root: Path) -> list[Path]:
    # The test/ of a category that lacks train/ looks like a plain folder; it must not pass for one.
    return [child for child in sub_folders(root) if child.name not in layouts.RESERVED_NAMES]


def _is_category(folder: Path, layout: str, wanted: tuple[str, ...]) -> bool:
    train = train_folder(folder, layout)
    return train is not None and (train != folder or wanted == ("plain",))


def _wanted(folder: Path, layout: str) -> tuple[str, ...]:
    """The layouts that may be found, after the checks that every entry point shares."""
    if layout != AUTO and layout not in LAYOUTS:
        raise SettingsError(
            f"layout must be {AUTO}, {', '.join(LAYOUTS)}. Got {layout!r}.{did_you_mean(layout, (AUTO, *LAYOUTS))}"
        )
    if not folder.exists():
        raise DataError(f"The folder {folder} does not exist. Check the path.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, where the folder of a data set is needed. Name the folder that holds it.")
    return LAYOUTS if layout == AUTO else (layout,)


def _layout_of(folder: Path, layout: str) -> str:
    wanted = _wanted(folder, layout)
    fitting = [one for one in wanted if train_folder(folder, one) is not None]
    # A stray picture beside train/ makes no training set; good/ beside train/ does, and is ambiguous.
    if len(fitting) > 1 and train_folder(folder, "plain") == folder:
        fitting.remove("plain")
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"{folder} fits several layouts: {', '.join(fitting)}. {_got(folder)} "
            "Name one with layout, or open the folder inside it that is meant."
        )
    nested = [
        child.name for child in _possible_categories(folder) if any(_is_category(child, one, wanted) for one in wanted)
    ]
    if nested:
        raise DataError(
            f"{folder} is no data set itself, but its sub-folders {_some(nested)} are. Open one of them, "
            "or benchmark all."
        )
    if layout != AUTO:
        raise DataError(f"{folder} has not the layout {layout}: {_missing(folder, layout)} is missing. {_got(folder)}")
    raise DataError(f"{folder} has none of the known layouts. {_got(folder)} {_expected(wanted)}")


def _missing(folder: Path, layout: str) -> str:
    """The first part that ``layout`` needs and ``folder`` lacks."""
    parts = {
        "cad_sd": ("train", "train/0_good"),
        "visa": ("Data/Images/Normal",),
        "btad": ("train", "train/ok"),
    }
    if layout == "plain":
        return f"{GOOD}/, or an image,"
    for part in parts.get(layout, ("train", f"train/{GOOD}")):
        if not (folder / part).is_dir():
            return part
    # train/good is there, but LOCO's own parts are missing, or are there although mvtec was named.
    return " or ".join(layouts.LOCO_PARTS) if layout == "loco" else "a test folder without LOCO's kinds"


def _got(folder: Path) -> str:
    folders = [child.name for child in sub_folders(folder)]
    images = sum(is_image(path) for path in folder.iterdir())
    return f"Got {f'the sub-folders {_some(folders)}' if folders else 'no sub-folders'} and {images} images."


def _expected(wanted: tuple[str, ...]) -> str:
    return "Expected " + "; ".join(f"{one}: {LAYOUT_FOLDERS[one]}" for one in wanted) + "."


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
