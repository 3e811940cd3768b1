"""From scores to colours, and the colours of words and paper.

Inferno by Nathaniel Smith and Stéfan van der Walt (matplotlib, CC0), every 16th of its 256 colours and straight lines
between them. Its lightness rises evenly, so that equal steps of a score look equal, in print and to the colour-blind.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

OPACITY = 0.75  # of the maps' colours; the rest is the image in grey, so that one sees where the heat lies

INK: Colour = (20, 20, 20)
PAPER: Colour = (255, 255, 255)
INFERNO = np.array(
    [
        (0, 0, 4), (11, 7, 36), (33, 12, 74), (60, 9, 101), (87, 16, 109), (112, 25, 110), (137, 34, 106), (163, 43, 97),
        (187, 55, 85), (209, 70, 68), (227, 89, 50), (241, 113, 30), (249, 141, 10), (252, 171, 15), (249, 202, 50),
        (242, 232, 101), (252, 255, 164),
    ],
    np.float32,
)  # fmt: skip


def colours(values: Float32, scale: tuple[float, float]) -> Float32:
    """(…, 3) float32 in [0, 255]: the colour of each number; the scale's first and below darkest, its second brightest."""
    low, high = scale
    place = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    knots = np.linspace(0, 1, len(INFERNO))
    return np.stack([np.interp(place, knots, channel) for channel in INFERNO.T], axis=-1).astype(np.float32)


def ramp(values: Float32, low: float, full: float) -> Float32:
    """The opacity of a map's colours, (…) float32 in [0, OPACITY]: none up to half of the way from ``low``, the usual level, to
    ``full``, the threshold, and all of it from there on. So the part stays visible, and what counts as defective stands out.
    """
    clear = (low + full) / 2
    opacity: Float32 = np.float32(OPACITY) * np.clip((values - clear) / (full - clear), 0, 1)
    return opacity
