"""A first run: made screws, both of the paper's models and the recommended preset, a table and a picture. No download.

The screws are drawn (``synth/screws.py``) and the network was trained on made images only, so the figures show how the models
differ; they promise nothing for photographs. The demo touches no file in the folder that it did not make.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sapatchcore.atomic import write_bytes, write_text
from sapatchcore.data.images import is_image, read_mask
from sapatchcore.data.sources import Progress, read_image
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.detector import SAPatchCore
from sapatchcore.embed.network import choose_device
from sapatchcore.errors import DataError
from sapatchcore.result import Result
from sapatchcore.score.threshold import possible_rate
from sapatchcore.show.drawing import Scale
from sapatchcore.show.maps import GalleryRow, gallery
from sapatchcore.synth.screws import KINDS, VERSION
from sapatchcore.synth.write import write_dataset
from sapatchcore.verify.evaluate import evaluate_result

TRAIN, TEST, SIDE = 80, 20, 350
RESIZE = 256
IMAGES, TABLE, PICTURE = "screws", "demo.md", "demo.png"
HEADS = ("image", "ground truth", "anomaly map", "global part")
COLUMNS: dict[str, dict[str, Any]] = {
    "PatchCore": {"attention": "none", "crop": None},  # a screw may lie at the edge
    "SA-PatchCore": {"crop": None},
    "recommended": {"preset": "recommended"},
}
FALSE_REJECT = 0.05
GOOD_SHARE = 0.95  # of the good image's map that is dark in the picture

_ADVICE = "Free space, or name another folder with `output`."


def run_demo(
    folder: Path, progress: Progress | None = None, *, train: int = TRAIN, test: int = TEST, side: int = SIDE
) -> str:
    """Make the images in ``folder``, fit and score all three models, write everything there, and return what to print.

    train: good images to learn from. test: images of each kind. side: of all images, in pixels. progress: as of ``fit`` and
    ``predict``; stage "images" comes before theirs, "metrics" after. In the folder of an earlier demo its images are used
    again and its other files replaced.

    Raises DataError or ModelFileError where ``folder`` holds other files under these names or cannot be written;
    SettingsError where a number is too small.
    """
    models = {name: folder / f"{name}.safetensors" for name in COLUMNS}
    try:
        images = _make_images(folder, [*models.values(), folder / TABLE, folder / PICTURE], train, test, side, progress)
    except OSError as error:
        raise DataError(f"{folder} cannot be used: {error.strerror or error}. {_ADVICE}") from None
    dataset = open_dataset(images, "mvtec")
    columns = []
    for name, path in models.items():
        detector = SAPatchCore(**COLUMNS[name], backbone="builtin", resize=RESIZE)
        detector.fit([sample.path for sample in dataset.train], progress)
        result, milliseconds = _timed_predict(detector, dataset, progress)
        columns.append(_figures(result, dataset, milliseconds, progress))
        detector.save(path)
    names = list(models)
    write_bytes(folder / PICTURE, _picture(result, dataset), _ADVICE)  # of the last model, the recommended one
    write_text(folder / TABLE, _markdown(names, columns, train, test, side), _ADVICE)
    return "\n".join(
        [
            *_text(names, columns),
            "",
            f"Images       {images}",
            *(f"{word:12} {path}" for word, path in zip(("Model files", "", ""), models.values(), strict=True)),
            f"This table   {folder / TABLE}",
            f"Picture      {folder / PICTURE} (recommended, the first test image of each kind)",
            "",
            "Next, with your own images:",
            "  sapatchcore fit FOLDER_OF_GOOD_IMAGES -o model.safetensors --backbone builtin --preset recommended",
            "  sapatchcore predict model.safetensors IMAGES --maps maps",
        ]
    )


def _make_images(
    folder: Path, outputs: list[Path], train: int, test: int, side: int, progress: Progress | None
) -> Path:
    """The data set's folder: an earlier demo's where its images are the same, else a new one.

    Raises DataError for files there that may not be the demo's own: none is ever overwritten, or learned from.
    """
    images = folder / IMAGES
    present = {path.relative_to(images).as_posix() for path in images.rglob("*") if is_image(path)}
    if not present:
        if taken := [path for path in outputs if path.exists()]:
            raise DataError(
                f"{taken[0]} exists, and {images} does not hold the demo's images: it may be yours. Name another folder "
                "with `output`."
            )
        write_dataset(images, "screws", side=side, train=train, test=dict.fromkeys(KINDS, test), progress=progress)
        return images
    # One image of each kind is made again: files of the same names may come from another version or another side.
    with tempfile.TemporaryDirectory() as name:
        again = Path(name) / IMAGES
        write_dataset(again, "screws", side=side, train=1, test=dict.fromkeys(KINDS, 1))
        firsts = {path.relative_to(again).as_posix(): path.read_bytes() for path in again.rglob("*") if is_image(path)}
    expected = {
        first.replace("000", f"{number:03}")
        for first in firsts
        for number in range(train if first.startswith("train") else test)
    }
    if present != expected or any((images / first).read_bytes() != content for first, content in firsts.items()):
        raise DataError(
            f"{images} holds other images than this demo makes. Remove {folder} if an earlier version made it, or name another "
            "folder with `output`."
        )
    return images


def _timed_predict(detector: SAPatchCore, dataset: Dataset, progress: Progress | None) -> tuple[Result, float]:
    """The test images' result, and milliseconds an image, decoding included, after one batch that warms up."""
    paths = [sample.path for sample in dataset.test]
    detector.predict(paths[: detector.settings.batch_size])
    start = time.perf_counter()
    result = detector.predict(paths, progress)
    return result, (time.perf_counter() - start) * 1e3 / len(paths)


def _figures(result: Result, dataset: Dataset, milliseconds: float, progress: Progress | None) -> dict[str, str]:
    """The table's rows for one model, as printed."""
    found = evaluate_result(result, dataset, progress)
    assert result.calibration is not None
    good = np.array([sample.is_good for sample in dataset.test])
    rate = possible_rate(len(result.calibration), FALSE_REJECT)
    rejected = result.scores > result.threshold(rate)
    return {
        "Image AUROC": f"{found.image_auroc:.3f}",
        **{f"- {kind}": f"{found.per_defect_auroc[kind]:.3f}" for kind in KINDS if kind in found.per_defect_auroc},
        f"Found at {rate:.0%}": f"{rejected[~good].mean():.3f}",
        "False rejects": f"{rejected[good].mean():.3f}",
        "Pixel AUROC": f"{found.pixel.auroc:.3f}",
        "Pixel F1": f"{found.pixel.f1:.3f}",
        "Milliseconds an image": f"{milliseconds:.1f}",
    }


def _text(names: list[str], columns: list[dict[str, str]]) -> list[str]:
    rows = [("", names), *((row, [column[row] for column in columns]) for row in columns[0])]
    return [f"{row:22}" + "".join(f"{cell:>14}" for cell in cells) for row, cells in rows]


def _markdown(names: list[str], columns: list[dict[str, str]], train: int, test: int, side: int) -> str:
    device = choose_device("auto").type
    threads = torch.get_num_threads()
    where = f"CPU, {threads} thread{'s' * (threads > 1)}" if device == "cpu" else device.upper()
    return "\n".join(
        [
            f"| | {' | '.join(names)} |",
            f"|---|{'---:|' * len(names)}",
            *(f"| {row} | {' | '.join(column[row] for column in columns)} |" for row in columns[0]),
            "",
            f"Made screws of {side}×{side} pixels, resized to {RESIZE}×{RESIZE}: {train} good ones to learn from, {test} of each "
            "kind to test. Found, false rejects: the shares of defects and of good ones above the threshold that promises this "
            f"rate. Backbone `builtin`, {where}; the time includes reading the files. Data set: screws, version "
            f"{VERSION}.",
            "",
        ]
    )


def _picture(result: Result, dataset: Dataset) -> bytes:
    """The first test image of each kind with its maps, as a PNG."""
    labels = [sample.label for sample in dataset.test]
    whole, wholes = result.global_scores, result.global_maps
    assert whole is not None
    assert wholes is not None
    rows = [
        GalleryRow(
            name=labels[i],
            lines=(f"score {result.scores[i]:.3g}", f"global {whole[i]:.3g}"),
            image=read_image(dataset.test[i].path),
            truth=read_mask(dataset.test[i].masks or (), result.sizes[i]),
            maps=(result.maps[i], np.maximum(wholes[i], 0)),  # below 0 the image is more usual for a place
        )
        for i in map(labels.index, KINDS)
    ]
    scales = []
    for column in zip(*(row.maps for row in rows), strict=True):
        usual = float(np.quantile(column[0], GOOD_SHARE))  # of the good image: against 0 all of a map would be bright
        scales.append(Scale(usual, None, max(*(float(np.max(values)) for values in column), usual + 1e-6)))
    note = f"each column on one scale: from what {GOOD_SHARE:.0%} of the good image lies below to the largest value"
    file = io.BytesIO()
    Image.fromarray(gallery(rows, HEADS, scales, note)).save(file, "PNG", optimize=True)
    return file.getvalue()
