"""Screw rods with a hex nut on one end, after CAD-SD (Ishida et al. 2023, section IV): what an image needs, and its mask.

A threaded rod lies anywhere at any angle, always wholly inside; a good one carries a nut on one end. Two defects are local
(*scratch*, *paint*), two are combinations of parts that each look as in good images (*over-coupling*: a nut on both ends,
*lacking*: on neither).

Everything that is no defect is drawn before the kind is looked at, both nuts included, whether they are shown or not. So
the same generator gives the same rod, light and noise for every kind, and no part can tell what the other end looks like.

Lengths are millimetres along the rod (u, from its middle) and across it (v); an M6 rod. FIELD makes shares of an image's
side of them: CAD-SD's screws are 0.8 of it long and 0.12 thick, a nut is 0.30 across.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.synth import steel
from sapatchcore.synth.camera import photograph
from sapatchcore.synth.steel import FloatArray, Nut, Rod

VERSION = 2
KINDS = ("good", "scratch", "paint", "over-coupling", "lacking")
SIDE = 700
SMALLEST = 64
TRAIN = 400
TEST = {"good": 210, "scratch": 41, "paint": 41, "over-coupling": 44, "lacking": 40}

FIELD = 50.0  # millimetres along an image's side, at scale 1
MARGIN = 1.0  # millimetres between any part and the image's edge
NOTICEABLE = 0.04  # change of a channel, of 1, that counts as a defect's pixel
UNEVEN = 0.006  # of the background's brightness
COARSE = 175  # samples a side at which light and shadows are computed; they are soft


@dataclass(frozen=True)
class Screw:
    """One image without its defect. nuts: those at u > 0 and u < 0, shown or not. angle: radians. scale: pixels a
    millimetre. centre: (x, y) pixels. background: its colour, (3,) float32. paper: its unevenness, (12, 12) float32.
    slope: how the light falls off, down and across. vignette, blur, noise: as ``photograph`` takes them."""

    rod: Rod
    nuts: tuple[Nut, Nut]
    angle: float
    scale: float
    centre: tuple[float, float]
    exposure: float
    background: FloatArray
    paper: FloatArray
    slope: tuple[float, float]
    vignette: float
    blur: float
    noise: float


def render(kind: str, side: int, random: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """One image of ``kind``, one of KINDS: (side, side, 3) uint8, and where it is defective: (side, side) bool.

    side: pixels, SMALLEST or more. random: the only source of chance. The mask of scratch and paint holds the pixels that
    changed noticeably; of over-coupling one of the two nuts, drawn by lot, since either could be the one too many; of
    lacking where both missing nuts would be. Raises SettingsError for another kind or a smaller side.
    """
    if kind not in KINDS:
        raise SettingsError(f"kind must be {', '.join(KINDS)}. Got {kind!r}.{did_you_mean(kind, KINDS)}")
    if side < SMALLEST:
        raise SettingsError(f"side must be {SMALLEST} or more, or a scratch would be lost. Got {side}.")
    of_defect = np.random.default_rng(random.integers(2**63))  # apart: a defect moves nothing else
    screw = draw(side, random)
    shown = {"over-coupling": (True, True), "lacking": (False, False)}.get(kind, (True, False))
    nuts = [nut for nut, here in zip(screw.nuts, shown, strict=True) if here]
    scene = _background(screw, nuts, side)
    pixels, u, v = _pixels_near(screw, side)
    size = 1 / screw.scale  # of a pixel, in millimetres
    colour, cover = steel.rod(u, v, size, screw.rod, nuts)
    defective = np.zeros(u.shape, np.bool_)
    if kind in ("scratch", "paint"):
        bare, reach = colour.copy(), screw.rod.length / 2 - steel.END
        if kind == "scratch":
            steel.scratch(colour, u, v, size, screw.rod, reach, of_defect)
        else:
            steel.paint(colour, u, v, screw.rod, reach, of_defect)
        defective = np.abs(colour - bare).max(0) * cover > NOTICEABLE
    for nut in nuts:
        here = np.flatnonzero(np.abs(u - nut.middle) < steel.HEIGHT / 2 + size)
        face, inside = steel.nut(u[here], v[here], size, nut)
        colour[:, here] += inside * (face - colour[:, here])
        cover[here] = np.maximum(cover[here], inside)
    if kind == "over-coupling":
        defective = steel.nut_cover(u, v, size, screw.nuts[of_defect.integers(2)]) > 0.5
    if kind == "lacking":
        defective = np.maximum(*(steel.nut_cover(u, v, size, nut) for nut in screw.nuts)) > 0.5
    for plane, values in zip(scene.reshape(3, -1), colour, strict=True):
        behind = plane[pixels]
        plane[pixels] = behind + cover * (values * screw.exposure - behind)
    mask = np.zeros(side * side, np.bool_)
    mask[pixels] = defective
    image = scene.transpose(1, 2, 0)
    picture = photograph(image, random, vignette=screw.vignette, blur=screw.blur, noise=screw.noise)
    return picture, mask.reshape(side, side)


def draw(side: int, random: np.random.Generator) -> Screw:
    """Draw all that does not depend on the kind, for an image of ``side`` pixels."""
    scale = side / FIELD * random.uniform(0.97, 1.03)
    rod = steel.draw_rod(random)
    nuts = (steel.draw_nut(random, rod, 1), steel.draw_nut(random, rod, -1))
    angle = random.uniform(0, 2 * math.pi)
    # The box holds a nut on both ends, for every kind: where a screw lies tells nothing.
    across, down = _half_box(angle, scale, rod, MARGIN)
    centre = (random.uniform(across, side - across), random.uniform(down, side - down))
    return Screw(
        rod=rod,
        nuts=nuts,
        angle=angle,
        scale=scale,
        centre=centre,
        exposure=random.uniform(0.94, 1.06),
        background=_background_colour(random),
        paper=random.standard_normal((12, 12), dtype=np.float32),
        slope=(random.uniform(-0.05, 0.05), random.uniform(-0.05, 0.05)),
        vignette=random.uniform(0.29, 0.37),
        blur=side / SIDE * random.uniform(0.6, 0.85),
        noise=random.uniform(1.4, 2.2),
    )


def _half_box(angle: float, scale: float, rod: Rod, margin: float) -> tuple[float, float]:
    """Half the width and height, pixels, of the upright box about a rod that could carry two nuts."""
    along, across = scale * (rod.length / 2 + margin), scale * (steel.CORNER + margin)
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    return cosine * along + sine * across, sine * along + cosine * across


def _background(screw: Screw, nuts: Sequence[Nut], side: int) -> FloatArray:
    """(3, side, side) float32: the background, lit, with the shadows of the rod and ``nuts``."""
    coarse = min(side, COARSE)
    at = (np.arange(coarse, dtype=np.float32) + np.float32(0.5)) * np.float32(side / coarse)
    light = steel.shadow(*_on_rod(screw, at, at), screw.rod, nuts)
    ramp = np.linspace(-1, 1, coarse, dtype=np.float32)
    light *= 1 + screw.slope[0] * ramp[:, None] + screw.slope[1] * ramp
    light *= 1 + UNEVEN * _resized(screw.paper, coarse)
    light *= screw.exposure
    return screw.background[:, None, None] * _resized(light, side)


def _pixels_near(screw: Screw, side: int) -> tuple[npt.NDArray[np.intp], FloatArray, FloatArray]:
    """The pixels, (n,) indices into the flat image, that steel may cover; their u and v, (n,) float32."""
    edge = 2 / screw.scale  # two pixels more than the parts themselves
    half = _half_box(screw.angle, screw.scale, screw.rod, edge)
    x, y = (
        np.arange(max(0, int(at - reach)), min(side, int(at + reach) + 2))
        for at, reach in zip(screw.centre, half, strict=True)
    )
    u, v = _on_rod(screw, x.astype(np.float32) + np.float32(0.5), y.astype(np.float32) + np.float32(0.5))
    end = screw.rod.length / 2
    width = np.where(np.abs(u) > end - steel.END, steel.CORNER, steel.RADIUS)
    rows, columns = np.nonzero((np.abs(v) < width + edge) & (np.abs(u) < end + edge))
    return (rows + y[0]) * side + columns + x[0], u[rows, columns], v[rows, columns]


def _on_rod(screw: Screw, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """u and v, (h, w) float32 each, of the points at x (w,) and y (h,) pixels."""
    across = (x - np.float32(screw.centre[0])) / np.float32(screw.scale)
    down = (y - np.float32(screw.centre[1])) / np.float32(screw.scale)
    cosine, sine = math.cos(screw.angle), math.sin(screw.angle)
    return (across * cosine) + (down * sine)[:, None], (down * cosine)[:, None] - (across * sine)


def _background_colour(random: np.random.Generator) -> FloatArray:
    """(3,): light grey, a little warm or cool."""
    level, warm, green = random.uniform(0.82, 0.88), random.normal(0, 0.006), random.normal(0, 0.002)
    return (level * np.array([1 + warm, 1 + green, 1 - warm])).astype(np.float32)


def _resized(plane: FloatArray, side: int) -> FloatArray:
    return np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
