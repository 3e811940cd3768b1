"""Kits: a tray whose compartments hold a fixed set of parts, photographed from above.

A good kit has two nuts, two washers, three pins, one screw, and a plug and a socket of one colour, any of three. Every
part lies anywhere in its compartment, at any angle. A defective kit has the same parts, drawn alike: only a count, a position
or a pair is wrong, so no part of a defective image is unusual by itself.

The positions are drawn for one part more than a compartment holds, in every image, and what is not there is left out.
So the spacing of the parts is the same whether or not one is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.synth.camera import photograph
from sapatchcore.synth.parts import COLOURS, REACH, KitPart, Light, box, draw_part, draw_shadow, mark_part

Float = npt.NDArray[np.floating[Any]]  # float32 throughout; the stubs widen it beside a number
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Double = npt.NDArray[np.float64]

VERSION = 1
KINDS = ("good", "missing", "extra", "swapped", "wrong-pair")
SIDE = 512
SMALLEST = 96
TRAIN = 200
TEST: dict[str, int] = {"good": 100, "missing": 40, "extra": 40, "swapped": 40, "wrong-pair": 40}


@dataclass(frozen=True)
class Compartment:
    """Centre and half sizes in the tray, as fractions of the image's side, and what a good kit has in it."""

    x: float
    y: float
    half_width: float
    half_height: float
    holds: tuple[str, ...]


# The four corners are of one size and equally far from the centre: light and lens treat them alike.
COMPARTMENTS = {
    "nuts": Compartment(-0.2195, -0.299, 0.2105, 0.131, ("nut", "nut")),
    "washers": Compartment(0.2195, -0.299, 0.2105, 0.131, ("washer", "washer")),
    "screws": Compartment(0.0, 0.0, 0.430, 0.150, ("screw",)),
    "pins": Compartment(-0.2195, 0.299, 0.2105, 0.131, ("pin", "pin", "pin")),
    "pair": Compartment(0.2195, 0.299, 0.2105, 0.131, ("plug", "socket")),
}
_CORNERS = ("nuts", "washers", "pins", "pair")
_WALL = 0.010  # width of a compartment's sloping wall
_ROUND = 0.022  # radius of its corners
_DRAWS = 24  # arrangements tried at a time
_ALONG = np.linspace(-1, 1, 5)[:, None]  # points of an axis, as shares of half its length
_GAP = 0.020  # parts lie at least this far from each other: more than a shadow's length
_TRAY, _PLASTIC, _BENCH = 0.455, (0.44, 0.50, 0.54), (0.19, 0.175, 0.16)


@dataclass(frozen=True)
class Layout:
    """What is where, before anything is drawn; lengths are fractions of the image's side.

    parts: what lies in the tray, in the tray's frame. offending: indices of the parts that the mask marks.
    lacking: the compartment that lacks a part, or "". x, y, turn: where the tray's centre is, and its angle, radians.
    light: the main light. gradient: (x, y) slope of the brightness over the image. tint: (r, g, b) exposure.
    """

    parts: tuple[KitPart, ...]
    offending: tuple[int, ...]
    lacking: str
    x: float
    y: float
    turn: float
    light: Light
    gradient: tuple[float, float]
    tint: tuple[float, float, float]


def render(kind: str, side: int, random: np.random.Generator) -> tuple[UInt8, Bool]:
    """A photograph of a kit, and where it is wrong.

    kind: one of KINDS. side: of the square image, pixels, at least 96. random: the only source of chance.
    Returns the image (side, side, 3) uint8 and the mask (side, side) bool. The mask holds nothing for good; for missing
    the whole floor of the compartment that lacks a part, since it could lie anywhere in it; for extra one part, chosen at
    random among those of its type in the compartment, since they do not differ; for swapped both exchanged parts; for
    wrong-pair the plug and the socket. The holes of nuts and washers count as part of them.
    Raises SettingsError for an unknown kind or a smaller side.
    """
    return draw(lay_out(kind, random), side, random)


def lay_out(kind: str, random: np.random.Generator) -> Layout:
    """Draw a kit of this kind; see render. Raises SettingsError for an unknown kind."""
    if kind not in KINDS:
        raise SettingsError(f"{kind!r} is not a kind of kit.{did_you_mean(kind, KINDS)} Allowed: {', '.join(KINDS)}.")
    plug, socket = (str(name) for name in random.permutation(list(COLOURS))[:2])
    colours = {"plug": plug, "socket": socket if kind == "wrong-pair" else plug}
    holds = {name: list(compartment.holds) for name, compartment in COMPARTMENTS.items()}
    marked: dict[str, int] = {}
    changed = str(random.choice(list(COMPARTMENTS)))  # which one lacks a part or has one too many
    if kind == "swapped":
        one, other = (str(name) for name in random.permutation(_CORNERS)[:2])
        marked = {name: int(random.integers(len(holds[name]))) for name in (one, other)}
        first, second = holds[one], holds[other]
        first[marked[one]], second[marked[other]] = second[marked[other]], first[marked[one]]
    parts: list[KitPart] = []
    offending: list[int] = []
    for name, compartment in COMPARTMENTS.items():
        types = [*holds[name], str(random.choice(compartment.holds))]
        positions = arrange(compartment, types, random)
        shades = random.normal(1, 0.025, len(types))
        keep = list(range(len(types) if kind == "extra" and name == changed else len(types) - 1))
        if kind == "extra" and name == changed:
            alike = [index for index in keep if types[index] == types[-1]]
            marked = {name: int(random.choice(alike))}
        if kind == "missing" and name == changed:
            keep.pop(int(random.integers(len(keep))))
        for index in keep:
            kept = types[index]
            if marked.get(name) == index or (kind == "wrong-pair" and name == "pair"):
                offending.append(len(parts))
            x, y, angle = (float(value) for value in positions[index])
            parts.append(KitPart(kept, name, x, y, angle, colours.get(kept, ""), float(shades[index])))
    toward = random.uniform(0, 2 * math.pi)
    slope = random.uniform(0.01, 0.07)
    exposure, warmth = random.normal(1, 0.015), random.normal(0, 0.008)
    x, y, turn = random.uniform(-1, 1, 3) * (0.011, 0.011, 0.035)
    return Layout(
        parts=tuple(parts),
        offending=tuple(offending),
        lacking=changed if kind == "missing" else "",
        x=0.5 + float(x),
        y=0.5 + float(y),
        turn=float(turn),
        light=Light(azimuth=float(random.normal(-2.3, 0.12)), length=float(random.uniform(0.009, 0.013))),
        gradient=(slope * math.cos(toward), slope * math.sin(toward)),
        tint=(exposure * (1 + warmth), exposure, exposure * (1 - warmth)),
    )


def arrange(compartment: Compartment, types: Sequence[str], random: np.random.Generator, attempts: int = 64) -> Double:
    """(n, 3) float64 of x, y and angle for n parts in a compartment, apart from each other and the walls.

    Whole arrangements are drawn until one is free of contact, so no part is squeezed in after the others. After as many
    ``attempts``, far more than any of the compartments needs, the parts are put side by side.
    """
    n = len(types)
    half, radius = np.array([REACH[one] for one in types]).T
    room = np.array([compartment.half_width, compartment.half_height]) - _WALL - 0.005
    centre = np.array([compartment.x, compartment.y])
    for _ in range(attempts):
        angle = random.uniform(0, 2 * math.pi, (_DRAWS, n))
        axis = half[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        where = random.uniform(-1, 1, (_DRAWS, n, 2)) * (room - radius[:, None] - np.abs(axis))
        free = np.ones(_DRAWS, bool)
        for i in range(n):
            for j in range(i):
                apart = _distance(where[:, i], axis[:, i], where[:, j], axis[:, j])
                free &= apart > radius[i] + radius[j] + _GAP
        if free.any():
            found = int(free.argmax())
            return np.column_stack([where[found] + centre, angle[found]])
    columns = compartment.x + room[0] * ((2 * np.arange(n) + 1) / n - 1)
    return np.column_stack([columns, np.full(n, compartment.y), np.full(n, math.pi / 2)])


def _distance(a: Double, along_a: Double, b: Double, along_b: Double) -> Double:
    """(m,) distances between two axes, each a centre (m, 2) and half its length (m, 2), from five points of the first."""
    points = a[:, None] + _ALONG * along_a[:, None] - b[:, None]  # (m, 5, 2)
    length = np.maximum(np.square(along_b).sum(-1), 1e-12)
    share = np.clip((points * along_b[:, None]).sum(-1) / length[:, None], -1, 1)
    squared: Double = np.square(points - share[..., None] * along_b[:, None]).sum(-1).min(1)
    return np.sqrt(squared)


def draw(layout: Layout, side: int, random: np.random.Generator) -> tuple[UInt8, Bool]:
    """The photograph (side, side, 3) uint8 and the mask (side, side) bool of a layout; random: texture and noise.

    Raises SettingsError for a side below 96.
    """
    if side < SMALLEST:
        raise SettingsError(f"side must be at least {SMALLEST} pixels. Got {side}. The default is {SIDE}.")
    lengths = ((np.arange(side) + 0.5) / side).astype(np.float32)
    x, y = lengths[None, :], lengths[:, None]
    cos, sin = math.cos(layout.turn), math.sin(layout.turn)
    u = (x - layout.x) * cos + (y - layout.y) * sin
    v = (y - layout.y) * cos - (x - layout.x) * sin
    scene = _tray(u, v, layout, random)
    parts = [_seen(part, layout) for part in layout.parts]
    for part in parts:
        draw_shadow(scene, part, layout.light)
    for part in parts:
        draw_part(scene, part, layout.light)
    scene *= (1 + layout.gradient[0] * (x - 0.5) + layout.gradient[1] * (y - 0.5))[..., None]
    scene *= np.array(layout.tint, np.float32)

    mask = np.zeros((side, side), bool)
    for index in layout.offending:
        mark_part(mask, parts[index])
    if layout.lacking:
        one = COMPARTMENTS[layout.lacking]
        mask |= _inside(u - one.x, v - one.y, one, _WALL) <= 0
    return photograph(
        scene.astype(np.float32, copy=False), random, vignette=0.10, blur=min(0.75 * side / SIDE, 1.2), noise=2.0
    ), mask


def _seen(part: KitPart, layout: Layout) -> KitPart:
    """The part in the image's frame."""
    cos, sin = math.cos(layout.turn), math.sin(layout.turn)
    x, y = layout.x + part.x * cos - part.y * sin, layout.y + part.x * sin + part.y * cos
    return replace(part, x=x, y=y, angle=part.angle + layout.turn)


def _tray(u: Float, v: Float, layout: Layout, random: np.random.Generator) -> Float:
    """(side, side, 3) float32: the empty tray on its bench; u, v: (side, side) coordinates in the tray's frame."""
    side = len(u)
    azimuth = layout.light.azimuth - layout.turn
    east, south = math.cos(azimuth), math.sin(azimuth)  # towards the light
    grain = random.standard_normal((side, side), dtype=np.float32)
    grain[1:] += grain[:-1]
    grain[:, 1:] += grain[:, :-1]
    body = np.maximum(np.abs(u), np.abs(v)) - _TRAY
    tray = 1 - 0.25 * np.clip(1 + body / 0.006, 0, 1)  # the rounded rim
    for one in COMPARTMENTS.values():
        window = _around(one, layout, side)
        a, b, tone = u[window] - one.x, v[window] - one.y, tray[window]
        edge = _inside(a, b, one, 0)
        cast = _inside(a + 0.016 * east, b + 0.016 * south, one, _WALL)
        floor = 0.86 - 0.32 * np.clip(0.5 + cast / 0.014, 0, 1)
        floor *= 1 - 0.22 * np.exp(np.minimum(edge + _WALL, 0) / 0.018)  # less light near the walls
        sideways = np.abs(a) - one.half_width > np.abs(b) - one.half_height
        wall = 0.80 - 0.45 * np.where(sideways, np.sign(a) * east, np.sign(b) * south)
        tone += np.clip(0.5 - edge * side, 0, 1) * (wall - tone)
        tone += np.clip(0.5 - (edge + _WALL) * side, 0, 1) * (floor - tone)
    tray *= 1 + 0.011 * grain
    shadow = np.maximum(np.abs(u + 0.03 * east), np.abs(v + 0.03 * south)) - _TRAY
    bench = 0.35 + 0.65 * np.clip(0.5 + shadow / 0.03, 0, 1) + 0.02 * grain
    cover = np.clip(0.5 - body * side, 0, 1)
    return np.stack([bench * b + cover * (tray * p - bench * b) for p, b in zip(_PLASTIC, _BENCH, strict=True)], -1)


def _around(one: Compartment, layout: Layout, side: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a compartment may cover, however the tray is turned."""
    across, down = one.half_width + 0.03, one.half_height + 0.03
    top, left = layout.y + one.y - down, layout.x + one.x - across
    rows, columns = (
        slice(max(int(at * side), 0), int((at + 2 * half) * side) + 1) for at, half in ((top, down), (left, across))
    )
    return rows, columns


def _inside(a: Float, b: Float, one: Compartment, smaller: float) -> Float:
    """Distance to a compartment's outline, negative inside; a, b: from its centre; smaller: moves the outline inwards."""
    return box(a, b, smaller - one.half_width, one.half_width - smaller, one.half_height - smaller, _ROUND)
