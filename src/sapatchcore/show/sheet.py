"""A sheet of examples: for each a good picture, the same with a defect, and where in the whole image it is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sapatchcore.show.drawing import INK, PAPER, outlined, resized_mask, write_fitted

UInt8Array = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CELL = 176  # pixels a side of each picture
GAP, LABEL = 6, 20  # pixels between them; of the line of text above
ACROSS = 3  # examples a row
LEAST_SHOWN = 0.25  # of the image's shorter side: a smaller defect is shown with this much around it
AROUND = 1.6  # sides of the defect's box that are shown
OUTLINE = (230, 40, 40)


@dataclass(frozen=True)
class Example:
    """original, defect: (h, w, 3) uint8. mask: (h, w) bool, where they differ. name: what the text above says."""

    original: UInt8Array
    defect: UInt8Array
    mask: Mask
    name: str


def sheet_png(examples: Sequence[Example]) -> bytes:
    """``example_sheet`` as the bytes of a PNG file."""
    out = io.BytesIO()
    Image.fromarray(example_sheet(examples)).save(out, "PNG")
    return out.getvalue()


def example_sheet(examples: Sequence[Example]) -> UInt8Array:
    """(H, W, 3) uint8: the examples, ACROSS a row: the part of the image about the defect without and with it, and the whole
    image with a line around the mask. Raises ValueError where there is no example (a defect of the caller's code)."""
    if not examples:
        raise ValueError("A sheet needs an example. Got none.")
    wide, high = 3 * CELL + 3 * GAP, CELL + LABEL + GAP
    columns = min(ACROSS, len(examples))
    sheet = Image.new("RGB", (columns * wide + 2 * GAP, -(-len(examples) // columns) * high + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, example in enumerate(examples):
        left, top = GAP + number % columns * wide, GAP + number // columns * high
        write_fitted(pen, (left, top), example.name, wide - 2 * GAP, 14, INK, "la")
        rows, columns_shown = _about(example.mask)
        for index, picture in enumerate(
            (example.original[rows, columns_shown], example.defect[rows, columns_shown], _whole(example))
        ):
            image = _fitted(picture)
            room = (CELL - image.width) // 2, (CELL - image.height) // 2
            sheet.paste(image, (left + index * (CELL + GAP // 2) + room[0], top + LABEL + room[1]))
    return np.asarray(sheet)


def _about(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns of a square about the mask, within the image."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return slice(0, height), slice(0, width)
    extent = AROUND * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    side = int(max(extent, LEAST_SHOWN * min(height, width)))
    shown = []
    for ends, length in (((rows[0], rows[-1]), height), ((columns[0], columns[-1]), width)):
        first = min(max(0, int(ends[0] + ends[1] + 1 - side) // 2), max(0, length - side))
        shown.append(slice(first, min(length, first + side)))
    return shown[0], shown[1]


def _fitted(picture: UInt8Array) -> Image.Image:
    """The picture with its longer side at CELL; enlarged ones by whole pixels' colours, so that nothing is smoothed away."""
    height, width = picture.shape[:2]
    scale = CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return Image.fromarray(picture).resize(size, how)


def _whole(example: Example) -> UInt8Array:
    """The defective image, small, with a line around the mask."""
    small = np.asarray(_fitted(example.defect))
    return outlined(small, resized_mask(example.mask, (small.shape[0], small.shape[1])), OUTLINE)
