"""Made images as a data set on disk, in MVTec AD's layout or CAD-SD's, whole or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.datasets.samples import GOOD, GROUND_TRUTH, TEST, TRAIN, named_folder
from sapatchcore.errors import DataError, SettingsError, did_you_mean

SCENES = ("screws", "kits")
LAYOUTS = ("mvtec", "cad_sd")
JPEG_QUALITY = 95
FACTS = "synth.json"


class Scene(Protocol):
    """What a scene's module offers. VERSION: another number, other images of the same seed. KINDS: "good" first. SIDE, TRAIN
    and TEST: what is made where nothing is asked for."""

    @property
    def VERSION(self) -> int: ...
    @property
    def KINDS(self) -> tuple[str, ...]: ...
    @property
    def SIDE(self) -> int: ...
    @property
    def TRAIN(self) -> int: ...
    @property
    def TEST(self) -> dict[str, int]: ...

    def render(
        self, kind: str, side: int, random: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """(side, side, 3) uint8 image and (side, side) bool mask of one of KINDS; SettingsError where it cannot be."""
        ...


@dataclass(frozen=True)
class Written:
    """What lies on disk. version: the scene's. test: images of each kind."""

    folder: Path
    scene: str
    version: int
    layout: str
    side: int
    train: int
    test: dict[str, int]


def find_scene(name: str) -> Scene:
    """The scene called ``name``, one of SCENES; SettingsError for another."""
    if name == "screws":
        from sapatchcore.synth import screws

        return screws
    if name == "kits":
        from sapatchcore.synth import kits

        return kits
    raise SettingsError(f"The scene must be {' or '.join(SCENES)}. Got {name!r}.{did_you_mean(name, SCENES)}")


def write_dataset(
    out: Path,
    scene_name: str,
    *,
    side: int | None = None,
    train: int | None = None,
    test: dict[str, int] | None = None,
    layout: str = "mvtec",
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Written:
    """Make the images of one scene in ``out``, a new or an empty folder.

    side: pixels; each scene has its smallest. train: good images to learn from. test: images of each kind; a kind that is
    not in it gets none. None: the scene's own. layout: "mvtec" (PNG) or "cad_sd" (JPEG, numbered folders); both with PNG
    masks, 255 where defective. An image's pixels depend on its seed, part, kind, number and side alone, not on the counts;
    FACTS, beside them, says the scene, its version, the side and the seed. progress: called with the stage, images done and
    images in all.

    Raises SettingsError for a value out of range, DataError where ``out`` holds something or cannot be written. Until all
    is there nothing has the data set's name.
    """
    scene = find_scene(scene_name)
    side, train = scene.SIDE if side is None else side, scene.TRAIN if train is None else train
    test = dict(scene.TEST if test is None else test)
    _check(scene, train, test, layout, seed)
    out = named_folder(out)
    with new_folder(out) as part:
        total = train + sum(test.values())
        for done, files in enumerate(_files(scene, side, train, test, layout, seed), start=1):
            for path, content in zip(*files, strict=True):
                write_below(part, path, content)
            if progress is not None:
                progress("images", done, total)
        write_facts(part, {"scene": scene_name, "version": scene.VERSION, "side": side, "seed": seed})
    counts = {kind: test.get(kind, 0) for kind in scene.KINDS}
    return Written(out, scene_name, scene.VERSION, layout, side, train, counts)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write a data set in, which has its name, ``out``, once the block has ended well; else nothing is left of it.

    Raises DataError where ``out`` holds something or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file. Name a new folder.")
    try:
        is_new = not out.is_dir()
        if not is_new and any(out.iterdir()):
            raise DataError(f"{out} is not empty. Name a new folder, or empty this one first.")
        # An empty folder is filled, not replaced: it may be where the user stands, or a mounted disk.
        part = (out.parent if is_new else out) / f".{out.name}.{os.getpid()}.part"
        part.mkdir(parents=True)
        try:
            yield part
            if is_new:
                part.rename(out)
            else:
                for path in sorted(part.iterdir()):  # train/ comes last: without it, it is no data set yet
                    path.rename(out / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}. Name another folder.") from None


def write_below(folder: Path, path: Path, content: bytes) -> None:
    """Write a file, and the folders that it needs."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)


def write_facts(folder: Path, facts: dict[str, object]) -> None:
    """What a made data set says of itself, beside its images."""
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _check(scene: Scene, train: int, test: dict[str, int], layout: str, seed: int) -> None:
    """Raises SettingsError for what cannot be made."""
    if layout not in LAYOUTS:
        raise SettingsError(f"layout must be {' or '.join(LAYOUTS)}. Got {layout!r}.{did_you_mean(layout, LAYOUTS)}")
    for name, value, least in (("train", train, 1), ("seed", seed, 0)):
        if value < least:
            raise SettingsError(f"{name} must be {least} or more. Got {value}.")
    for kind, count in test.items():
        if kind not in scene.KINDS:
            raise SettingsError(
                f"test must name kinds out of {', '.join(scene.KINDS)}. Got {kind!r}.{did_you_mean(kind, scene.KINDS)}"
            )
        if count < 0:
            raise SettingsError(f"test must be 0 or more of each kind. Got {count} of {kind}.")
    if not sum(test.values()):
        raise SettingsError("test must ask for at least one image. Got 0. Use 1 or more of each kind.")


def _files(
    scene: Scene, side: int, train: int, test: dict[str, int], layout: str, seed: int
) -> Iterator[tuple[list[Path], list[bytes]]]:
    """Of every image in turn: its path below the data set and its bytes, then its mask's where it has one."""
    wanted = [(TRAIN, GOOD, train)] + [(TEST, kind, test.get(kind, 0)) for kind in scene.KINDS]
    for part, kind, count in wanted:
        index = scene.KINDS.index(kind)
        folder = f"{index}_{kind}" if layout == "cad_sd" else kind
        for number in range(count):
            # Its own generator, so that neither the counts nor the order matter.
            random = np.random.default_rng([seed, (TRAIN, TEST).index(part), index, number])
            picture, mask = scene.render(kind, side, random)
            paths = [Path(part, folder, f"{number:03}{'.jpg' if layout == 'cad_sd' else '.png'}")]
            data = [_jpeg(picture) if layout == "cad_sd" else png(picture)]
            if kind != GOOD:
                paths.append(Path(GROUND_TRUTH, folder, f"{number:03}_mask.png"))
                data.append(png(mask.astype(np.uint8) * 255))
            yield paths, data


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """(h, w, 3) or (h, w) as a PNG.

    We differ from Pillow, which tries five filters a row and searches for repeats: noise has none, and the search is most
    of the time of a whole image. Each row holds the differences to the pixel on its left (PNG's filter 1), Huffman coded.
    """
    height, width = pixels.shape[:2]
    step = pixels.size // (height * width)
    line = pixels.reshape(height, -1)
    rows = np.empty((height, 1 + line.shape[1]), np.uint8)
    rows[:, 0] = 1
    rows[:, 1 : 1 + step] = line[:, :step]
    np.subtract(line[:, step:], line[:, :-step], out=rows[:, 1 + step :])
    squeeze = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY if step == 3 else zlib.Z_DEFAULT_STRATEGY)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if step == 3 else 0, 0, 0, 0)  # 8 bits; colour or grey
    chunks = ((b"IHDR", header), (b"IDAT", squeeze.compress(rows.data) + squeeze.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
