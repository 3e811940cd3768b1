"""Turned copies of good images, which `augment` "rotate" learns beside each: for few images of a part that may lie any way round.

A copy is made of what the network sees, after resizing and cropping, about its centre: quarter turns and mirror images, seven
beside each image. They move pixels and change none; angles between would have to be interpolated and leave corners to fill, and
found hardly more in twice the time. Where an image is not square its quarter turn would be of another shape than the camera
gives, and stretched to the input's it would show a part that there is not: it then has three copies, by half a turn and
mirrored. A copy is learned from and never scored for a threshold: what is promised is about images as the camera gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch, groups
from sapatchcore.settings import Settings

MIRRORED = 360  # added to the angle of a copy that is mirrored, left to right, before it is turned
TURNS = (90, 180, 270, MIRRORED, MIRRORED + 90, MIRRORED + 180, MIRRORED + 270)  # degrees, counter-clockwise
_LIKE_A_SQUARE = 1 / 32  # of the longer side: at 256 pixels nothing is half a cell of layer 2 from where a turn has it


def with_copies(batches: Iterable[Batch], settings: Settings) -> Iterator[Batch]:
    """The images of ``batches`` to learn from, each followed by its copies, up to ``batch_size`` at a time."""
    for batch in batches:
        each = ((i, turn) for i, size in enumerate(batch.sizes) for turn in (0, *turns_of(size, settings)))
        for some in groups(each, settings.batch_size):
            yield Batch(
                tuple(batch.names[i] for i, _ in some),
                tuple(batch.sizes[i] for i, _ in some),
                np.stack([turned_by(batch.pixels[i], turn) for i, turn in some]),
                tuple(batch.appearance[i] for i, _ in some),
                tuple(turn for _, turn in some),
            )


def turns_of(size: Size, settings: Settings) -> tuple[int, ...]:
    """How the copies of an image of ``size`` (h, w) are turned: all ways, or where the image or the network's input is no
    square by half a turn and mirrored."""
    height, width = settings.input_size
    square = height == width and max(size) - min(size) <= _LIKE_A_SQUARE * max(size)
    return TURNS if square else tuple(turn for turn in TURNS if turn % 180 == 0)


def turned_by(values: npt.NDArray[np.generic], turn: int) -> npt.NDArray[np.generic]:
    """``values`` (h, w, …) as the copy ``turn`` has them; contiguous."""
    mirrored = values[:, ::-1] if turn >= MIRRORED else values
    return np.ascontiguousarray(np.rot90(mirrored, turn % MIRRORED // 90))


def cell_before(cell: tuple[int, int], grid: tuple[int, int], turn: int) -> tuple[int, int]:
    """Where in the grid (h, w) of the image itself the ``cell`` (row, column) of its copy was."""
    before = turned_by(np.arange(grid[0] * grid[1]).reshape(grid), turn)
    row, column = divmod(int(before[cell]), grid[1])
    return row, column


def learned_from(turns: Sequence[str]) -> str:
    """How many images were learned from, by how each was turned: "4 images", or "4 images and 28 turned copies of them"."""
    copies = sum(map(bool, turns))
    more = f" and {copies} turned copies of them" if copies else ""
    return f"{len(turns) - copies} image{'s' * (len(turns) - copies != 1)}{more}"


def in_words(turn: int) -> str:
    """ "" of an image as it came, "turned by 90°", "mirrored", "mirrored and turned by 90°"."""
    angle = turn % MIRRORED
    return " and ".join(["mirrored"] * (turn >= MIRRORED) + [f"turned by {angle}°"] * (angle > 0))
