"""Anomaly maps of a set: as files for programs, and for people beside their images, with the legend of their colours."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from sapatchcore.atomic import atomic_write
from sapatchcore.errors import DataError, SettingsError, did_you_mean
from sapatchcore.result import Result
from sapatchcore.show import drawing
from sapatchcore.show.drawing import INK, PAPER, Colour, Float32, Mask, Scale, Style, UInt8Array, font

FORMATS = ("png", "tiff", "npy")
PANEL = 224  # pixels of a gallery's panel's width
GAP = 8
LEFT = 150  # of a gallery's column of words
HEAD, FOOT = 40, 78  # of its line of heads, of its scales
OUTLINE: Colour = (0, 255, 120)  # no screw, no paper and no colour of the maps is like it
FAINT: Colour = (95, 95, 95)


def check_format(name: str) -> None:
    """Raises SettingsError for a format other than png, tiff or npy."""
    if name not in FORMATS:
        raise SettingsError(f"The map format must be {', '.join(FORMATS)}. Got {name!r}.{did_you_mean(name, FORMATS)}")


def write_maps(
    result: Result, folder: Path, name: str, progress: Callable[[str, int, int | None], None] | None = None
) -> list[Path]:
    """Write every map, in folders as the images lie in, and return the files, in the images' order.

    "npy" and "tiff" hold the float32 scores themselves. "png" holds 16-bit numbers, 65535 for the largest patch score
    of the whole set, so that the images of one set compare; its text entry "scale" is the score of one step.
    Raises DataError where a file cannot be written; those before it stay.
    """
    check_format(name)
    scale = float(result.patch_scores.max()) / 65535 or 1.0
    parents = {os.path.dirname(os.path.abspath(path)) for path in result.paths}  # noqa: PTH100, PTH120 - texts, not files
    shared = os.path.commonpath(parents)
    files = []
    for index, (path, values) in enumerate(zip(result.paths, result.maps, strict=True)):
        # The image's whole name is kept: a.png and a.jpg beside each other stay two maps.
        file = folder / f"{os.path.relpath(os.path.abspath(path), shared)}.{name}"  # noqa: PTH100
        _write_map(file, values, name, scale)
        files.append(file)
        if progress is not None:
            progress("maps", index + 1, len(result))
    return files


def map_file(values: Float32, name: str, scale: float = 1.0) -> bytes:
    """A map (H, W) float32 as the bytes of a file. name: png, tiff or npy. scale: of a PNG, the score of one of its steps."""
    out = io.BytesIO()
    if name == "npy":
        np.save(out, values)
    elif name == "tiff":
        Image.fromarray(values).save(out, "TIFF")
    else:
        entry = PngInfo()
        entry.add_text("scale", repr(scale))
        levels = np.clip(np.rint(values / scale), 0, 65535).astype(np.uint16)
        Image.fromarray(levels).save(out, "PNG", pnginfo=entry)
    return out.getvalue()


def scale_for(result: Result, false_reject: float | None) -> Scale:
    """One scale for all maps of ``result``: dark at a typical patch, the pixel threshold in it where there is one."""
    typical, largest = float(np.median(result.patch_scores)), float(result.patch_scores.max())
    if result.calibration is None:
        return Scale(typical, None, max(largest, typical + 1e-6))
    return drawing.scale_of(result.pixel_threshold(false_reject), low=typical, high=largest)


def legend(width: int, height: int, scale: Scale) -> UInt8Array:
    """(height, width, 3) uint8: the colours with ticks in units of the threshold, or in scores where there is none; and a
    key of both lines. About eight to twenty times as wide as high."""
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    small = font(max(9, min(height // 3, width // 30)))
    words = "ground truth"
    sample = (round(small.size * 2.2), height // 2 - 4)
    column = round(width - small.getlength(words) - sample[0] - 14)
    keys: tuple[tuple[str, Colour, Style], ...] = (
        ("predicted", drawing.PREDICTED, "solid"),
        (words, drawing.TRUTH, "dashed"),
    )
    for row, (word, colour, style) in enumerate(keys):
        y = 2 + row * (height // 2)
        page.paste(_sample(sample, colour, style), (column, y))
        pen.text((column + sample[0] + 8, y + sample[1] / 2), word, INK, small, anchor="lm")
    left, right, bottom = 4, column - round(small.size * 1.5), height - round(small.size * 1.6)
    page.paste(_bar(right - left, bottom - 2), (left, 2))
    pen.rectangle((left - 1, 1, right, bottom), outline=INK)
    taken: list[tuple[float, float]] = []
    for score, word in _ticks(scale):
        x = left + scale.position(score) * (right - left - 1)
        long = small.getlength(word)
        start = min(max(x - long / 2, 0), right - long)
        if any(start < there + small.size * 0.7 and start + long > here - small.size * 0.7 for here, there in taken):
            continue
        taken.append((start, start + long))
        if score == scale.threshold:  # through the whole bar, cased as it crosses dark and light
            pen.rectangle((round(x) - 2, 2, round(x) + 2, bottom), INK)
            pen.rectangle((round(x) - 1, 2, round(x) + 1, bottom), PAPER)
        pen.line((x, bottom, x, bottom + 3), INK)
        pen.text((start, bottom + 3), word, INK, small, anchor="la")
    return np.asarray(page)


@dataclass(frozen=True)
class GalleryRow:
    """One image. name: in large letters; lines: below it. image: (h, w, 3) uint8. truth: (h, w) bool, True where
    defective. maps: each (h, w) float32."""

    name: str
    lines: tuple[str, ...]
    image: UInt8Array
    truth: Mask
    maps: tuple[Float32, ...]


def gallery(rows: Sequence[GalleryRow], heads: Sequence[str], scales: Sequence[Scale], note: str) -> UInt8Array:
    """(height, width, 3) uint8: of every row its words, the image, the ground truth's outline and its maps.

    rows: all of one image size and with equally many maps. heads: a word for each column of panels. scales: of each column
    of maps. note: what the scales are, below.

    Raises ValueError where there is no row, sizes differ or heads are too few (a defect of the caller's code).
    """
    if not rows or len({row.image.shape for row in rows}) != 1 or any(len(row.maps) + 2 != len(heads) for row in rows):
        raise ValueError("gallery needs rows of one image size, and a head for each of their panels.")
    height, width = rows[0].image.shape[:2]
    panel = (PANEL, max(1, round(PANEL * height / width)))
    size = (LEFT + len(heads) * (PANEL + GAP), HEAD + len(rows) * (panel[1] + GAP) + FOOT)
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        pen.text((_column(column) + PANEL / 2, HEAD / 2), head, INK, font(18), anchor="mm")
    for number, row in enumerate(rows):
        y = HEAD + number * (panel[1] + GAP)
        pen.text((GAP, y + 6), row.name, INK, font(20))
        for line, words in enumerate(row.lines):
            pen.text((GAP, y + 38 + 23 * line), words, FAINT, font(16))
        shown = np.asarray(Image.fromarray(row.image).resize(panel, Image.Resampling.LANCZOS))
        panels = [shown, drawing.outlined(shown, drawing.resized_mask(row.truth, shown.shape[:2]), OUTLINE)]
        for values, scale in zip(row.maps, scales, strict=True):
            small = np.asarray(Image.fromarray(values).resize(panel, Image.Resampling.BILINEAR))
            panels.append(drawing.heat(shown, small, scale))
        for column, pixels in enumerate(panels):
            page.paste(Image.fromarray(pixels), (_column(column), y))
    for column, scale in enumerate(scales, start=2):
        left, y = _column(column), page.height - FOOT + 8
        page.paste(_bar(PANEL, 16), (left, y))
        pen.text((left, y + 20), f"{scale.low:.3g}", INK, font(16))
        pen.text((left + PANEL, y + 20), f"{scale.high:.3g}", INK, font(16), anchor="ra")
    pen.text((page.width - GAP, page.height - 2 * GAP), note, FAINT, font(16), anchor="rm")
    return np.asarray(page)


def _write_map(file: Path, values: Float32, name: str, scale: float) -> None:
    def sentence(error: OSError) -> str:
        return (
            f"{file} cannot be written: {error.strerror or error}. Free space, or name another folder for the maps; those "
            "written before it stay."
        )

    with atomic_write(file, DataError, sentence, make_folder=True) as part:
        part.write_bytes(map_file(values, name, scale))


def _bar(width: int, height: int) -> Image.Image:
    """All colours of a scale, the darkest on the left."""
    steps = drawing.colours(np.linspace(0, 1, width, dtype=np.float32), (0, 1))
    return Image.fromarray(np.rint(np.tile(steps, (height, 1, 1))).astype(np.uint8))


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Scores and their words, the most important first: where two words meet, the later one is left out."""
    if scale.threshold is None:
        return [(score, f"{score:.3g}") for score in np.linspace(scale.low, scale.high, 5)[[0, 4, 2, 1, 3]].tolist()]
    times = [1.0, 0.0, 2.0, 0.5, 1.5, 3.0, 4.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    shown = [(scale.threshold * share, f"{share:g}x threshold" if share == 1 else f"{share:g}x") for share in times]
    shown[1] = (0.0, "0")
    return [(score, word) for score, word in shown if scale.low <= score <= scale.high]


def _sample(size: tuple[int, int], colour: Colour, style: Style) -> Image.Image:
    """A line as it lies around a region, on a grey ground, for the legend."""
    picture = np.full((size[1], size[0], 3), 150, np.uint8)
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[-size[1] // 3 :] = True
    return Image.fromarray(drawing.contours(picture, mask, colour, style, max(1, size[1] // 7)))


def _column(number: int) -> int:
    """The left edge of a gallery's column of panels."""
    return LEFT + number * (PANEL + GAP)
