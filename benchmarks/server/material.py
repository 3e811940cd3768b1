"""What the load test inspects: a model of made screws with the built-in backbone, and image files of two kinds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.synth.write import write_dataset

KINDS = {"png 1024": ("PNG", 1024), "jpeg 700": ("JPEG", 700)}  # what cameras write: whole, and packed
TEST = {"good": 12, "paint": 2, "scratch": 2}  # a line sees mostly good parts


@dataclass(frozen=True)
class Material:
    """model: the file. images: of each of KINDS, the files."""

    model: Path
    images: dict[str, list[Path]]


def make(folder: Path, *, short: bool) -> Material:
    """Learn from 100 made images (short: 6 small ones), default settings, and write the images to inspect."""
    side, train = (160, 6) if short else (1024, 100)
    test = dict.fromkeys(TEST, 1) if short else TEST
    write_dataset(folder / "set", "screws", side=side, train=train, test=test)
    detector = SAPatchCore(backbone="builtin", device="cpu").fit(folder / "set")
    model = folder / "model.safetensors"
    detector.save(model)
    made = sorted((folder / "set" / "test").rglob("*.png"))
    images: dict[str, list[Path]] = {}
    for kind, (file_format, wanted) in KINDS.items():
        images[kind] = []
        for path in made:
            target = folder / kind.replace(" ", "_") / f"{path.parent.name}_{path.stem}.{file_format.lower()}"
            target.parent.mkdir(exist_ok=True)
            if file_format == "PNG":
                target.write_bytes(path.read_bytes())
            else:
                with Image.open(path) as picture:
                    small = picture.resize((min(wanted, side),) * 2, Image.Resampling.LANCZOS)
                small.save(target, file_format, quality=90)
            images[kind].append(target)
    return Material(model, images)
