"""How a threaded rod and a hex nut look from above under soft light, as functions of the position on them.

A position is u (along the rod, from its middle) and v (across it), in millimetres; colours are (3, n) float32, 0…1; covers
are (n,) float32, the share of a pixel that lies inside.

A part's look depends on its own draw alone; what lies beside it (a nut's shadow on the rod) reaches a millimetre or two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

RADIUS = 3.0  # of the rod
PITCH = 1.15  # of the thread, a little coarser than M6's, so that it shows at small sides
DEPTH = 0.26  # of the thread, as seen at the rod's outline
CORNER = 5.9  # of the nut: from the axis to a corner
FLAT = CORNER * 0.866  # and to the middle of a face
HEIGHT = 5.4  # of the nut, along the axis
END = 10.5  # how far from an end the nut, and its shadow, may reach
RODS = (46.0, 48.0)  # lengths
TABLE = 128  # entries of the tables of chance below


@dataclass(frozen=True)
class Rod:
    """length: millimetres. turn: where the thread starts, turns. glint: the angle about the axis that faces the light,
    radians. shine, body: how bright the highlight and the metal are. tint: (3,). crests, wear: (TABLE,), of each crest's
    glint and of the metal along the rod. grain: (TABLE²,). All arrays float32."""

    length: float
    turn: float
    glint: float
    shine: float
    body: float
    tint: FloatArray
    crests: FloatArray
    wear: FloatArray
    grain: FloatArray


@dataclass(frozen=True)
class Nut:
    """middle: its u. turn: rotation about the axis, radians; at 0 a face looks straight up. face, dark: how bright that face
    and the outer two are. tint: (3,). grain: (TABLE,), the brushed metal. Both arrays float32."""

    middle: float
    turn: float
    face: float
    dark: tuple[float, float]
    tint: FloatArray
    grain: FloatArray


def draw_rod(random: np.random.Generator) -> Rod:
    """A rod by lot."""
    return Rod(
        length=random.uniform(*RODS),
        turn=random.uniform(0, 1),
        glint=random.normal(0, 0.07),
        shine=random.uniform(0.80, 1.05),
        body=random.uniform(0.30, 0.38),
        tint=_tint(random),
        crests=random.uniform(0.45, 1.15, TABLE).astype(np.float32),
        wear=_smooth(random, 9),
        grain=random.standard_normal(TABLE * TABLE, dtype=np.float32),
    )


def draw_nut(random: np.random.Generator, rod: Rod, end: int) -> Nut:
    """A nut by lot, near the end at u > 0 (``end`` 1) or u < 0 (-1)."""
    sticks_out = random.uniform(0.7, 3.0)
    return Nut(
        middle=end * (rod.length / 2 - sticks_out - HEIGHT / 2),
        turn=random.normal(0, 0.07),
        face=random.uniform(0.80, 0.95),
        dark=(random.uniform(0.16, 0.24), random.uniform(0.16, 0.24)),
        tint=_tint(random),
        grain=_smooth(random, 3),
    )


def shadow(u: FloatArray, v: FloatArray, rod: Rod, nuts: Sequence[Nut]) -> FloatArray:
    """The light that reaches the background, 0…1: a dark halo close to each part and a wide faint one."""
    light = _halo(np.hypot(np.maximum(np.abs(u) - rod.length / 2, 0), np.maximum(np.abs(v) - RADIUS, 0)), RADIUS)
    for nut in nuts:
        beside = np.hypot(np.maximum(np.abs(u - nut.middle) - HEIGHT / 2, 0), np.maximum(np.abs(v) - CORNER, 0))
        light *= _halo(beside, 0.8 * CORNER)
    return light


def rod(u: FloatArray, v: FloatArray, size: float, one: Rod, nuts: Sequence[Nut]) -> tuple[FloatArray, FloatArray]:
    """Colour and cover of the rod; size: of a pixel, millimetres; nuts: those that shade it."""
    to_end = one.length / 2 - np.abs(u)
    taper = np.clip(1 - to_end / 1.1, 0, 1)  # the chamfer
    fine = math.exp(-8 * (1.1 * size / PITCH) ** 2)  # what a pixel's size leaves of the thread
    # The outline: crests and roots, half a turn apart on the two sides.
    side = np.sign(v)
    depth = DEPTH * fine * (1 - taper)
    outline = RADIUS - depth * (0.5 + 0.5 * np.cos(2 * np.pi * (u / PITCH + one.turn + 0.25 * side))) - 0.75 * taper
    cover = np.clip(0.5 + (outline - np.abs(v)) / size, 0, 1) * np.clip(0.5 + to_end / size, 0, 1)

    across = np.clip(v / np.maximum(outline, 0.1), -0.999, 0.999)
    angle = np.arcsin(across)
    turns = u / PITCH + one.turn + angle / (2 * np.pi)
    phase = turns - np.floor(turns)
    crest = np.exp(-(((phase - 0.5) / 0.17) ** 2))
    slope = np.sin(2 * np.pi * phase)
    turn = np.floor(turns).astype(np.intp)
    wear = one.wear[(u * 1.6 + v * 0.5).astype(np.intp) % TABLE]
    grain = one.grain[(np.floor(u * 5).astype(np.intp) * 61 + np.floor(v * 5).astype(np.intp)) % one.grain.size]

    facing = np.maximum(np.cos(angle - one.glint), 0)
    body = one.body * (0.22 + 0.78 * facing**1.6) * (1 + 0.10 * wear)
    rim = 0.16 * np.exp(-(((np.abs(across) - 0.86) / 0.09) ** 2))  # the bright background, mirrored
    relief = fine * (1 - taper) * (0.34 * (crest - 0.45) + math.copysign(0.20, one.glint) * slope)
    light = (body + rim) * (1 + 1.5 * relief) + 0.02 * grain * (0.3 + facing)
    wide = np.exp(-(((angle - one.glint) / 0.46) ** 2))
    narrow = np.exp(-(((angle - one.glint - 0.05 * wear) / 0.135) ** 2))
    dash = np.exp(-(((phase - 0.5) / 0.25) ** 2))  # broader than the crest: its round flanks mirror the light too
    caught = dash * one.crests[turn % TABLE] * fine + (1 - fine) * 0.45
    light += one.shine * narrow * caught * (1 - 0.6 * taper) + 0.13 * wide * (0.45 + caught)
    light *= 1 - 0.25 * taper + 0.5 * taper * np.exp(-(((angle - one.glint) / 0.5) ** 2))
    light *= 1 - 0.35 * np.exp(-((to_end / 0.25) ** 2))
    for nut in nuts:
        gap = np.maximum(np.abs(u - nut.middle) - HEIGHT / 2, 0)
        light *= 1 - 0.55 * np.exp(-gap / 0.55)
    return (one.tint[:, None] * light).astype(np.float32), cover.astype(np.float32)


def nut_cover(u: FloatArray, v: FloatArray, size: float, one: Nut) -> FloatArray:
    """The share of each pixel that the nut covers."""
    reach, width = HEIGHT / 2 - np.abs(u - one.middle), CORNER * math.cos(one.turn)
    # Towards its ends the nut is turned to a cone, which takes the corners off.
    outline = np.minimum(width, FLAT * 0.97 + np.maximum(reach, 0) / 0.577)
    inside = np.clip(0.5 + (outline - np.abs(v)) / size, 0, 1) * np.clip(0.5 + reach / size, 0, 1)
    return np.asarray(inside, np.float32)


def nut(u: FloatArray, v: FloatArray, size: float, one: Nut) -> tuple[FloatArray, FloatArray]:
    """Colour and cover of a nut, which lies over the rod."""
    cover = nut_cover(u, v, size, one)
    reach = HEIGHT / 2 - np.abs(u - one.middle)
    upper, lower = CORNER * math.sin(one.turn - math.pi / 6), CORNER * math.sin(one.turn + math.pi / 6)
    middle = np.clip(0.5 + (v - upper) / size, 0, 1) * np.clip(0.5 + (lower - v) / size, 0, 1)
    # How far from a face's own middle line, along the face.
    centre = FLAT * math.sin(one.turn)
    aside = np.where(
        (v > upper) & (v < lower),
        (v - centre) / math.cos(one.turn),
        CORNER / 2 - np.minimum(np.abs(v - upper), np.abs(v - lower)) / 0.5,
    )
    # The cone cuts a face along an arc; beyond it the cone itself is seen.
    cut = (np.hypot(FLAT, aside) - FLAT * 0.97) * 0.577
    flat = np.clip(0.5 + (reach - cut) / size, 0, 1)
    grain = one.grain[(np.floor(v * 6).astype(np.intp)) % TABLE]
    lengthwise = (u - one.middle) / HEIGHT
    bright = one.face * (1 + 0.035 * grain + math.copysign(0.10, one.middle) * lengthwise - 0.06 * (v / CORNER) ** 2)
    dark = np.where(v < 0, one.dark[0], one.dark[1]) * (1.1 - 0.6 * (np.abs(v) / CORNER - 0.5)) * (1 + 0.07 * grain)
    dark = dark + 0.16 * np.exp(-(((np.abs(v) - 0.96 * CORNER) / 0.28) ** 2))  # the bright background, mirrored
    light = dark + middle * (bright - dark)
    cone = 0.30 + 0.30 * np.exp(-((v / (0.55 * CORNER)) ** 2))
    light = cone + flat * (light - cone)
    edge = np.exp(-((np.minimum(np.abs(v - upper), np.abs(v - lower)) / 0.22) ** 2))
    light = light + flat * edge * 0.10 * (1 - light)
    light *= 1 - 0.4 * np.exp(-np.maximum(reach, 0) / 0.18)
    return (one.tint[:, None] * light).astype(np.float32), cover


def scratch(
    colour: FloatArray, u: FloatArray, v: FloatArray, size: float, on: Rod, reach: float, random: np.random.Generator
) -> None:
    """Draw a bright scrape over the thread, in place, with |u| < reach."""
    length = random.uniform(5.0, 9.0)
    slant = random.uniform(0.25, 0.6) * (1 if random.random() < 0.5 else -1)
    at = random.uniform(-reach + length / 2, reach - length / 2)
    strength = random.uniform(0.6, 0.95)
    crest = 0.5 - 0.5 * np.cos(2 * np.pi * (u / PITCH + on.turn) + np.arcsin(np.clip(v / RADIUS, -1, 1)))
    cover = np.zeros_like(u)
    for _ in range(random.integers(1, 4)):
        middle = at + random.normal(0, 0.4)
        wobble, long = _smooth(random, 14), length * random.uniform(0.5, 1.0)
        wide, offset = random.uniform(0.16, 0.36), random.normal(0, 0.5)
        along = (u - middle) / long  # -0.5…0.5
        entry = np.clip((along + 0.5) * 40, 0, TABLE - 1).astype(np.intp)
        path = offset + slant * (u - middle) + 0.22 * wobble[entry]
        ends = np.clip((0.5 - np.abs(along)) * 6, 0, 1)
        width = max(wide, 0.7 * size) * (0.5 + ends) * (1 + 0.35 * wobble[(entry * 2 + 40) % TABLE])
        cover = np.maximum(cover, np.exp(-(((v - path) / width) ** 2)) * (ends > 0) * (0.6 + 0.4 * crest))
    cover *= strength
    colour += np.clip(cover, 0, 1).astype(np.float32) * (np.float32(0.98) - colour)


def paint(colour: FloatArray, u: FloatArray, v: FloatArray, reach: float, random: np.random.Generator) -> None:
    """Draw a dark red patch over the thread, in place, with |u| < reach; the shading shows through."""
    size, stretch = random.uniform(1.7, 3.0), random.uniform(0.9, 1.5)
    room = reach - 1.5 * size * stretch  # its waves reach up to half as far again
    at, across = random.uniform(-room, room), random.uniform(-1.2, 1.2)
    angle = np.arctan2(v - across, u - at)
    radius = np.full_like(u, size)
    for waves in range(2, 7):
        radius *= 1 + random.normal(0, 0.35 / waves) * np.cos(waves * angle + random.uniform(0, 2 * np.pi))
    far = np.hypot((u - at) / stretch, v - across)
    cover = np.clip((radius - far) / 0.35 + 0.5, 0, 1) * random.uniform(0.82, 0.96)
    red = np.array([random.uniform(0.34, 0.46), random.uniform(0.035, 0.07), random.uniform(0.045, 0.08)], np.float32)
    light = colour.mean(0)
    coat = red[:, None] * (0.35 + 1.15 * light) + 0.10 * np.clip(light - 0.55, 0, 1)  # a little gloss
    colour += cover.astype(np.float32) * (coat.astype(np.float32) - colour)


def _halo(distance: FloatArray, height: float) -> FloatArray:
    """Light beside a part that stands ``height`` over the background."""
    close, wide = np.float32(0.32 * height + 0.35), np.float32(1.5 * height)
    return np.asarray(
        (1 - 0.50 * np.exp(-distance / close)) * (1 - 0.12 * np.exp(-((distance / wide) ** 2))), np.float32
    )


def _tint(random: np.random.Generator) -> FloatArray:
    return (np.array([1.0, 0.995, 0.98]) * (1 + random.normal(0, 0.008, 3))).astype(np.float32)


def _smooth(random: np.random.Generator, width: int) -> FloatArray:
    """(TABLE,) float32: chance that changes over ``width`` entries, deviation 1, periodic."""
    spectrum = np.fft.rfft(random.standard_normal(TABLE)) * np.exp(
        -((np.arange(TABLE // 2 + 1) * width / TABLE) ** 2) * 3
    )
    values = np.fft.irfft(spectrum, TABLE)
    return np.asarray(values / values.std(), np.float32)
