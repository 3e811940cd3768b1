"""Where a map lies above its threshold: connected regions, largest peak first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # top, left, height, width in pixels


@dataclass(frozen=True, eq=False)
class Region:
    """One 8-connected region of an image in which its anomaly map exceeds a threshold.

    box: (top, left, height, width) in pixels of the image. area: pixels. peak: the map's largest value in it;
    peak_at: (row, column) of that pixel. mask: (height, width) bool, the region's pixels inside its box.
    """

    box: Box
    area: int
    peak: float
    peak_at: tuple[int, int]
    mask: Mask


def label_regions(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """The 8-connected regions of ``mask`` (h, w) bool: numbers from 1, (h, w) int32, 0 outside; the count.

    Neighbours across a corner belong together, as in the benchmarks' own evaluations.
    """
    labels = np.empty(mask.shape, np.int32)
    return labels, int(ndimage.label(mask, structure=np.ones((3, 3)), output=labels))


def find_regions(values: Float32, threshold: float) -> list[Region]:
    """The regions of ``values`` (H, W) above ``threshold``, the highest peak first; none where nothing exceeds it."""
    labels, _ = label_regions(values > threshold)
    regions = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[rows, columns] == number
        inside = np.where(mask, values[rows, columns], -np.inf)
        row, column = divmod(int(inside.argmax()), mask.shape[1])
        regions.append(
            Region(
                box=(rows.start, columns.start, *mask.shape),
                area=int(mask.sum()),
                peak=float(inside[row, column]),
                peak_at=(rows.start + row, columns.start + column),
                mask=mask,
            )
        )
    return sorted(regions, key=lambda region: -region.peak)


def whole_mask(regions: list[Region], size: tuple[int, int]) -> Mask:
    """(H, W) bool: all pixels of ``regions`` in an image of ``size``."""
    mask = np.zeros(size, bool)
    for region in regions:
        top, left, height, width = region.box
        mask[top : top + height, left : left + width] |= region.mask
    return mask
