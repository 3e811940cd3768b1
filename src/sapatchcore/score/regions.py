"""Where a map lies above its threshold: connected regions, largest peak first.

Labelling goes by runs: stretches of a row that the mask holds, of which a real mask has few. Runs that touch in neighbouring
rows are joined all at once: every region goes over to an earlier one that it touches, then to the one which that went over
to, until none does (Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", Journal of Algorithms 3, 1982).
Each round at least halves the regions that touch another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size, crop_box
from sapatchcore.score.anomaly_score import axis_operator

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
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

    Neighbours across a corner belong together, as in the benchmarks' own evaluations. Numbers are in reading order of each
    region's first pixel.
    """
    labels, boxes = _labelled(mask)
    return labels, len(boxes)


def find_regions(values: Float32, threshold: float) -> list[Region]:
    """The regions of ``values`` (H, W) above ``threshold``, the highest peak first; none where nothing exceeds it."""
    labels, boxes = _labelled(values > threshold)
    regions = []
    for number, (top, left, bottom, right) in enumerate(boxes.tolist(), start=1):
        rows, columns = slice(top, bottom), slice(left, right)
        mask = labels[rows, columns] == number
        inside = np.where(mask, values[rows, columns], -np.inf)
        row, column = divmod(int(inside.argmax()), mask.shape[1])
        regions.append(
            Region(
                box=(top, left, *mask.shape),
                area=int(mask.sum()),
                peak=float(inside[row, column]),
                peak_at=(top + row, left + column),
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


def _labelled(mask: Mask) -> tuple[npt.NDArray[np.int32], Int64]:
    """As ``label_regions``; in the count's place each region's box, (n, 4) top, left, bottom, right, the last two behind it."""
    stride = mask.shape[1] + 1
    starts, ends = _runs(mask)
    numbers = _regions_of(starts, ends, stride)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(numbers.astype(np.int32), ends - starts)
    rows, columns = np.divmod(starts, stride)
    count = int(numbers.max(initial=0))
    low, high = np.full((2, count), mask.size), np.zeros((2, count), np.int64)
    for axis, (begin, end) in enumerate(((rows, rows + 1), (columns, ends % stride))):
        np.minimum.at(low[axis], numbers - 1, begin)
        np.maximum.at(high[axis], numbers - 1, end)
    return labels, np.concatenate((low, high)).T


def _runs(mask: Mask) -> tuple[Int64, Int64]:
    """The first place of each run, (r,), and the one behind its last, (r,), both in reading order.

    Places count through the rows of ``mask`` (h, w) with an empty column behind each: row · (w + 1) + column.
    """
    height, width = mask.shape
    held = np.zeros(height * (width + 1) + 1, np.bool_)  # the empty place in front is the border of the first
    held[1:].reshape(height, width + 1)[:, :width] = mask
    borders = np.flatnonzero(held[1:] != held[:-1])
    return borders[::2], borders[1::2]


def _regions_of(starts: Int64, ends: Int64, stride: int) -> Int64:
    """(r,) the number of each run's region, from 1, in the order of their first runs. stride: places of a row."""
    runs = np.arange(len(starts))
    # The runs of the next row that a run touches, corners among them, lie side by side: from the first that does not end
    # before it to the last that does not begin behind it.
    first = np.searchsorted(ends, starts + stride, side="left")
    touched = np.searchsorted(starts, ends + stride, side="right") - first
    upper = np.repeat(runs, touched)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(touched) - touched), touched)
    root = runs.copy()  # of each run one of its region that is no later; in the end its first
    while len(upper):
        one, other = root[upper], root[lower]
        apart = one != other
        upper, lower, one, other = upper[apart], lower[apart], one[apart], other[apart]
        root[np.maximum(one, other)] = np.minimum(one, other)  # of several, any does: all are earlier
        while not np.array_equal(nearer := root[root], root):
            root = nearer
    numbers: Int64 = np.cumsum(root == runs)[root]
    return numbers


def window(size: Size, resize: Size, crop: Size | None) -> tuple[slice, slice]:
    """The part of an image of ``size`` (h, w) that the network sees: rows and columns, one of each at least."""
    top, left, height, width = crop_box(resize, crop)
    slices = []
    for pixels, resized, start, cropped in zip(size, resize, (top, left), (height, width), strict=True):
        seen = np.flatnonzero(axis_operator(1, resized, start, cropped, pixels)[:, 0])
        first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (pixels // 2, pixels // 2)
        slices.append(slice(first, last + 1))
    return slices[0], slices[1]


def is_whole(resize: Size, crop: Size | None) -> bool:
    """Whether the network sees all of each image."""
    return crop is None or crop == resize
