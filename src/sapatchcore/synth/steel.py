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

RADIUS = 3.0  # of the rod, teeth included
PITCH = 1.2  # of the thread, a little coarser than M6's, so that it shows at small sides
DEPTH = 0.5  # of the thread, as seen at the rod's outline
CORNER = 7.5  # of the nut: from the axis to a corner
FLAT = CORNER * 0.866  # and to the middle of a face
HEIGHT = 7.5  # of the nut, along the axis
BEVEL = 0.75  # of the nut's edges: what it leaves of a face is the bright square
OUT = (0.4, 1.6)  # how far the rod sticks out of a nut
END = 11.0  # how far from an end the nut, and its shadow, may reach
RODS = (39.0, 41.0)  # lengths
HALO = 2.5  # how far a part darkens the background
ROUND = 1.5  # radius of the halo's own corners
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
        shine=random.uniform(0.85, 1.10),
        body=random.uniform(0.11, 0.16),
        tint=_tint(random),
        crests=random.uniform(0.55, 1.15, TABLE).astype(np.float32),
        wear=_smooth(random, 9),
        grain=random.standard_normal(TABLE * TABLE, dtype=np.float32),
    )


def draw_nut(random: np.random.Generator, rod: Rod, end: int) -> Nut:
    """A nut by lot, near the end at u > 0 (``end`` 1) or u < 0 (-1)."""
    return Nut(
        middle=end * (rod.length / 2 - random.uniform(*OUT) - HEIGHT / 2),
        turn=random.normal(0, 0.07),
        face=random.uniform(0.80, 0.95),
        dark=(random.uniform(0.09, 0.16), random.uniform(0.09, 0.16)),
        tint=_tint(random),
        grain=_smooth(random, 3),
    )


def shadow(u: FloatArray, v: FloatArray, rod: Rod, nuts: Sequence[Nut]) -> FloatArray:
    """The light that reaches the background, 0…1: a dark halo about each part."""
    light = _halo(u, v, rod.length / 2, RADIUS)
    for nut in nuts:
        light *= _halo(u - nut.middle, v, HEIGHT / 2, CORNER)
    return light


def rod(u: FloatArray, v: FloatArray, size: float, one: Rod, nuts: Sequence[Nut]) -> tuple[FloatArray, FloatArray]:
    """Colour and cover of the rod; size: of a pixel, millimetres; nuts: those that shade it."""
    to_end = one.length / 2 - np.abs(u)
    taper = np.clip(1 - to_end / 1.1, 0, 1)  # the chamfer
    fine = math.exp(-8 * (1.1 * size / PITCH) ** 2)  # what a pixel's size leaves of the thread
    # The outline: teeth, half a turn apart on the two sides.
    side = np.sign(v)
    depth = DEPTH * fine * (1 - taper)
    tooth = u / PITCH + one.turn + 0.25 * side
    outline = RADIUS - depth * np.abs(2 * (tooth - np.floor(tooth)) - 1) ** 1.2 - 0.9 * taper
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
    rim = 0.05 * np.exp(-(((np.abs(across) - 0.86) / 0.09) ** 2))  # the bright background, mirrored
    relief = fine * (1 - taper) * (0.55 * (crest - 0.45) + math.copysign(0.20, one.glint) * slope)
    light = (body + rim) * (1 + 1.5 * relief) + 0.012 * grain * (0.3 + facing)
    wide = np.exp(-(((angle - one.glint) / 0.46) ** 2))
    narrow = np.exp(-(((angle - one.glint - 0.05 * wear) / 0.155) ** 2))
    dash = np.exp(-(((phase - 0.5) / 0.29) ** 2))  # broader than the crest: its round flanks mirror the light too
    caught = dash * one.crests[turn % TABLE] * fine + (1 - fine) * 0.45
    light += one.shine * narrow * caught * (1 - 0.6 * taper) + 0.07 * wide * (0.3 + caught)
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
    width = max(0.35, size)  # over which an edge is rounded
    middle = np.clip(0.5 + (v - upper - BEVEL) / width, 0, 1) * np.clip(0.5 + (lower - BEVEL - v) / width, 0, 1)
    # How far from a face's own middle line, along the face.
    centre = FLAT * math.sin(one.turn)
    aside = np.where(
        (v > upper) & (v < lower),
        (v - centre) / math.cos(one.turn),
        CORNER / 2 - np.minimum(np.abs(v - upper), np.abs(v - lower)) / 0.5,
    )
    # The cone cuts a face along an arc; beyond it the cone itself is seen.
    cut = BEVEL + (np.hypot(FLAT, aside) - FLAT) * 0.577
    flat = np.clip(0.5 + (reach - cut) / size, 0, 1)
    grain = one.grain[(np.floor(v * 6).astype(np.intp)) % TABLE]
    lengthwise = (u - one.middle) / HEIGHT
    bright = one.face * (1 + 0.035 * grain + math.copysign(0.10, one.middle) * lengthwise - 0.06 * (v / CORNER) ** 2)
    dark = np.where(v < 0, one.dark[0], one.dark[1]) * (1.1 - 0.6 * (np.abs(v) / CORNER - 0.5)) * (1 + 0.07 * grain)
    dark = dark + 0.16 * np.exp(-(((np.abs(v) - 0.96 * CORNER) / 0.28) ** 2))  # the bright background, mirrored
    light = dark + middle * (bright - dark)
    cone = 0.10 + 0.26 * np.exp(-((v / (0.5 * CORNER)) ** 2))
    light = cone + flat * (light - cone)
    edge = np.exp(-((np.minimum(np.abs(v - upper), np.abs(v - lower)) / 0.3) ** 2))
    light = light + flat * edge * 0.16 * (1 - light)
    light *= 1 - 0.4 * np.exp(-np.maximum(reach, 0) / 0.18)
    return (one.tint[:, None] * light).astype(np.float32), cover


def scratch(
    colour: FloatArray, u: FloatArray, v: FloatArray, size: float, on: Rod, reach: float, random: np.random.Generator
) -> None:
    """Draw a bright, ragged scrape over the thread, in place, with |u| < reach: its crests are crushed and shine."""
    length, slant = random.uniform(3.0, 4.75), random.choice((-1, 1)) * random.uniform(0.2, 0.85)
    at = random.uniform(-reach + length / 2, reach - length / 2)
    room = 2.3 - length / 2 * math.sin(abs(slant))
    aside = random.uniform(-room, room)
    cosine, sine = math.cos(slant), math.sin(slant)
    along = (u - at) * cosine + (v - aside) * sine
    across = (v - aside) * cosine - (u - at) * sine
    crest = 0.5 - 0.5 * np.cos(2 * np.pi * (u / PITCH + on.turn) + np.arcsin(np.clip(v / RADIUS, -1, 1)))
    cover = np.zeros_like(u)
    for stroke in range(random.integers(3, 6)):  # the first is as long as the scrape, the others lie beside it
        long = length * (1 if stroke == 0 else random.uniform(0.35, 0.8))
        start = -length / 2 if stroke == 0 else random.uniform(-length / 2, length / 2 - long)
        beside = 0.0 if stroke == 0 else random.normal(0, 0.4)
        wide = random.uniform(0.30, 0.55) if stroke == 0 else random.uniform(0.08, 0.24)
        wobble, ragged = _smooth(random, 14), _smooth(random, 5)
        share = (along - start) / long  # 0…1
        entry = np.clip(share * 60, 0, TABLE - 1).astype(np.intp)
        ends = np.clip(np.minimum(share, 1 - share) * long / max(0.25, size) + 0.5, 0, 1)
        width = max(wide, 0.6 * size) * np.clip(1 + 0.4 * ragged[entry], 0.4, 1.8)
        far = np.abs(across - beside - 0.12 * wobble[entry]) / width
        cover = np.maximum(cover, ends * np.exp(-(far**4)) * (0.55 + 0.45 * crest))
    rubbed = 0.3 * np.exp(-((across / 0.9) ** 2)) * np.clip((length / 2 - np.abs(along)) / 0.4, 0, 1)
    colour += rubbed.astype(np.float32) * (np.float32(0.45) - colour)
    streaks = _smooth(random, 3)[np.floor(across * 12).astype(np.intp) % TABLE]
    metal = random.uniform(0.82, 0.96) * (1 + 0.08 * streaks)
    colour += np.clip(cover, 0, 1).astype(np.float32) * (metal.astype(np.float32) - colour)


def paint(colour: FloatArray, u: FloatArray, v: FloatArray, on: Rod, reach: float, random: np.random.Generator) -> None:
    """Draw a dark red patch, in place, with |u| < reach: it has run in between the threads, whose crests show through."""
    long, wide = random.uniform(7.75, 9.6), random.uniform(1.9, 2.8)
    at, aside = random.uniform(-reach + long / 2, reach - long / 2), random.uniform(-0.7, 0.7)
    turns = u / PITCH + on.turn + np.arcsin(np.clip(v / RADIUS, -1, 1)) / (2 * np.pi)
    groove = np.floor(turns).astype(np.intp) % TABLE
    run, shift = random.uniform(0.72, 1.1, TABLE)[groove], random.uniform(-0.45, 0.45, TABLE)[groove]
    from_end = long / 2 - np.abs(u - at)
    half = wide * run * np.clip(0.45 + from_end / (0.3 * long), 0, 1)
    cover = np.clip((half - np.abs(v - aside - shift)) / 0.3 + 0.5, 0, 1) * np.clip(from_end / 0.3 + 0.5, 0, 1)
    crest = np.exp(-(((turns - np.floor(turns) - 0.5) / 0.2) ** 2))
    cover *= random.uniform(0.85, 0.97) * (1 - 0.75 * crest)
    red = np.array([random.uniform(0.29, 0.40), random.uniform(0.025, 0.05), random.uniform(0.03, 0.06)], np.float32)
    light = colour.mean(0)
    facing = np.sqrt(np.maximum(1 - (v / RADIUS) ** 2, 0))
    coat = red[:, None] * (0.3 + 0.8 * facing + 0.6 * light) + 0.10 * np.clip(light - 0.55, 0, 1)  # a little gloss
    colour += cover.astype(np.float32) * (coat.astype(np.float32) - colour)


def _halo(u: FloatArray, v: FloatArray, along: float, across: float) -> FloatArray:
    """Light beside a part that reaches ``along`` and ``across`` from its middle."""
    beside = np.hypot(np.maximum(np.abs(u) - along + ROUND, 0), np.maximum(np.abs(v) - across + ROUND, 0)) - ROUND
    beside = np.maximum(beside, 0)
    return np.asarray(1 - 0.6 * np.exp(-((beside / (0.42 * HALO)) ** 1.3)), np.float32)


def _tint(random: np.random.Generator) -> FloatArray:
    return (np.array([1.0, 0.995, 0.98]) * (1 + random.normal(0, 0.008, 3))).astype(np.float32)


def _smooth(random: np.random.Generator, width: int) -> FloatArray:
    """(TABLE,) float32: chance that changes over ``width`` entries, deviation 1, periodic."""
    spectrum = np.fft.rfft(random.standard_normal(TABLE)) * np.exp(
        -((np.arange(TABLE // 2 + 1) * width / TABLE) ** 2) * 3
    )
    values = np.fft.irfft(spectrum, TABLE)
    return np.asarray(values / values.std(), np.float32)
