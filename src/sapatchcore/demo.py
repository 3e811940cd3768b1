"""A first run on a handful of images made on the spot: a blue square and a red disc on a grey bench.

Test images: good ones; *scratch*, a dark line across a part (local); *twins*, two squares or two discs (co-occurrence:
each part is known, their combination is not). The network has random weights, since this package ships none yet: the
demo shows the path from a folder to a table, and its figures say nothing about the method.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from sapatchcore.data.folders import open_dataset
from sapatchcore.detector import Progress, SAPatchCore
from sapatchcore.verify.evaluate import evaluate
from sapatchcore.verify.tables import MODELS

SIDE = 160
COUNTS = {"train/good": 24, "test/good": 8, "test/scratch": 8, "test/twins": 8}


def run_demo(folder: Path, progress: Progress | None = None) -> str:
    """Make the images in ``folder``, fit and score both models, and return what to print."""
    category = make_images(folder / "bench", seed=0)
    dataset = open_dataset(category)
    lines = [f"{'':14}{'image AUROC':>12}{'scratch':>10}{'twins':>10}{'pixel AUROC':>13}{'ms an image':>13}"]
    for attention, name in MODELS.items():
        detector = SAPatchCore(backbone="resnet18", weights="random", resize=SIDE, crop=None, attention=attention)
        detector.fit([sample.path for sample in dataset.train], progress)
        start = time.perf_counter()
        detector.predict([sample.path for sample in dataset.test])
        milliseconds = (time.perf_counter() - start) * 1e3 / len(dataset.test)
        found = evaluate(detector, dataset, progress)
        defects = "".join(f"{found.per_defect_auroc[kind]:10.3f}" for kind in ("scratch", "twins"))
        lines.append(f"{name:14}{found.image_auroc:12.3f}{defects}{found.pixel.auroc:13.3f}{milliseconds:13.1f}")
        detector.save(folder / f"{name}.safetensors")
    return "\n".join(
        [
            *lines,
            "",
            "Random weights: a check that all parts work, not a result.",
            f"Images are in {category}, model files in {folder}. Next, with your own images:",
            "  sapatchcore fit FOLDER_OF_GOOD_IMAGES -o model.safetensors --weights FILE",
            "  sapatchcore predict model.safetensors IMAGES",
        ]
    )


def make_images(folder: Path, *, seed: int) -> Path:
    """Write the demo's images in MVTec AD's layout, with masks; the same bytes for the same seed."""
    random = np.random.default_rng(seed)
    for part, count in COUNTS.items():
        kind = part.split("/")[1]
        (folder / part).mkdir(parents=True, exist_ok=True)
        if kind != "good":
            (folder / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = _scene(kind, random)
            Image.fromarray(image).save(folder / part / f"{number:03}.png")
            if kind != "good":
                Image.fromarray(mask).save(folder / "ground_truth" / kind / f"{number:03}_mask.png")
    return folder


def _scene(kind: str, random: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(SIDE, SIDE, 3) image and (SIDE, SIDE) mask, 255 where defective."""
    image, mask = Image.new("RGB", (SIDE, SIDE), (168, 166, 160)), Image.new("L", (SIDE, SIDE))
    pen, truth = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    parts = ["square", "disc"] if kind != "twins" else [str(random.choice(("square", "disc")))] * 2
    for place, part in enumerate(parts):
        x, y = (0.3 + 0.4 * place) * SIDE + random.integers(-8, 9), 0.5 * SIDE + random.integers(-20, 21)
        box = (x - 20, y - 20, x + 20, y + 20)
        (pen.rectangle if part == "square" else pen.ellipse)(
            box, fill=(52, 88, 156) if part == "square" else (176, 58, 48)
        )
        if kind == "scratch" and place == 0:
            line = [(x - 16, y + random.integers(-10, 11)), (x + 16, y + random.integers(-10, 11))]
            pen.line(line, fill=(20, 20, 20), width=3)
            truth.line(line, fill=255, width=3)
        if kind == "twins" and (place == 1) == (part == "square"):  # the part that stands where the other kind belongs
            truth.rectangle(box, fill=255)
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32) + random.normal(0, 4, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), np.asarray(mask)
