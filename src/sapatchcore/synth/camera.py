"""What a camera does to a scene: vignette, blur, sensor noise, 8 bits.

The noise is mostly the same in the three channels, as after a camera's own processing; the colour part is drawn at half the
resolution, since a sensor has one colour filter a pixel and interpolates the rest.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

CHROMA = 0.35  # the colour part of the noise, as a share of the grey part
READ = 0.55  # the part of the noise that does not grow with the light


def photograph(
    scene: npt.NDArray[np.float32], random: np.random.Generator, *, vignette: float, blur: float, noise: float
) -> npt.NDArray[np.uint8]:
    """The scene as a camera would store it.

    scene: (h, w, 3) float32, 0…1; what lies outside is clipped at the end. random: its state moves on by an amount
    that depends on the scene's size alone. vignette: the share of light lost in the corners, 0…1. blur: standard
    deviation of the optical blur, pixels. noise: standard deviation of the sensor noise at full light, grey
    levels of 255; less in the dark.
    Returns (h, w, 3) uint8.
    """
    height, width = scene.shape[:2]
    light = _vignette(height, width, vignette, random.uniform(-0.12, 0.12, 2))
    grey = random.standard_normal((height, width), dtype=np.float32)
    tint = random.standard_normal((2, (height + 1) // 2, (width + 1) // 2), dtype=np.float32)
    tint *= CHROMA * noise
    plane, spare = np.empty_like(grey), np.empty_like(grey)
    picture = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        plane[...] = scene[..., channel]
        _blur(plane, spare, blur)
        plane *= light
        if channel == 0:
            # Shot noise grows as the root of the light; a straight line is near enough, and one look serves all channels.
            np.multiply(plane, (1 - READ) * noise, out=spare)
            spare += READ * noise
            grey *= spare
        plane *= 255
        plane += grey
        if channel != 1:
            colour = tint[channel // 2].repeat(2, axis=1)[:, :width]
            plane[0::2] += colour
            plane[1::2] += colour[: height // 2]
        plane += 0.5
        picture[..., channel] = np.clip(plane, 0, 255, out=plane)
    return picture


def _vignette(height: int, width: int, strength: float, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(h, w) float32: 1 at the centre, 1 - strength about the corners; centre: its offset in half image sides (y, x)."""
    rows = (np.linspace(-1, 1, height, dtype=np.float32) - np.float32(centre[0])) ** 2
    columns = (np.linspace(-1, 1, width, dtype=np.float32) - np.float32(centre[1])) ** 2
    share = np.float32(strength / 2)
    return (1 - share * rows)[:, None] - (share * columns)[None, :]


def _blur(plane: npt.NDArray[np.float32], spare: npt.NDArray[np.float32], sigma: float) -> None:
    """Blur (h, w) in place, by as many passes of three taps an axis as their variances need to add up to sigma²."""
    passes = max(1, math.ceil(sigma * sigma / 0.6))
    side = np.float32(sigma * sigma / passes / 2)  # of one tap beside the middle one: a pass has variance 2·side
    if side <= 0:
        return
    for _ in range(passes):
        for line, part in ((plane, spare), (plane.T, spare.T)):
            np.multiply(line, side, out=part)
            line *= 1 - 2 * side
            line[1:] += part[:-1]
            line[:-1] += part[1:]
            line[0] += part[0]  # what lies outside is as the edge
            line[-1] += part[-1]
