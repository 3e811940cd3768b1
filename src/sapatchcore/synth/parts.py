"""Parts seen from above, drawn one by one: nuts, washers, pins, screws, plugs and sockets.

A part is a signed distance to its outline (negative inside), a slope of its surface and a colour; shade, highlight and
drop shadow follow from these and from the light. Lengths are fractions of the image's side, so any size shows the same.
A part's own frame has x along its axis and its centre at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]  # float32 throughout; the stubs widen it beside a number
Bool = npt.NDArray[np.bool_]
Colour = tuple[float, float, float]
Box = tuple[float, float, float, float]

# A part lies within this radius around its axis, which reaches this far on both sides of the centre: (half axis, radius).
REACH = {
    "nut": (0.0, 0.043),
    "washer": (0.0, 0.043),
    "pin": (0.044, 0.013),
    "screw": (0.090, 0.0355),
    "plug": (0.032, 0.034),
    "socket": (0.020, 0.0355),
}
COLOURS = {"red": (0.62, 0.09, 0.08), "blue": (0.08, 0.22, 0.60), "yellow": (0.84, 0.62, 0.07)}
_STEEL, _ZINC, _BRASS, _DARK = (0.58, 0.59, 0.61), (0.66, 0.67, 0.68), (0.72, 0.55, 0.26), (0.05, 0.05, 0.055)

_NUT, _NUT_HOLE = 0.0372, 0.0215  # half the width across flats; radius of the hole
_WASHER, _WASHER_HOLE = 0.0425, 0.0220
_SHANK, _PITCH = 0.0125, 0.0085  # of the screw: half its width; from one thread to the next
_HEAD = (-0.116, -0.088, 0.0265, 0.004)  # left, right, half height, corner; see box
_PLUG, _SOCKET = (-0.058, 0.022, 0.026, 0.008), (-0.038, 0.040, 0.0325, 0.009)
_APART = 0.012  # a plug's prongs and a socket's slots, from the axis
_SHADOW_SOFT = 0.011


@dataclass(frozen=True)
class KitPart:
    """One part and where it lies.

    type: a key of REACH. compartment: where it lies. x, y: its centre. angle: of its axis, radians. colour: a key of
    COLOURS for plugs and sockets, "" for metal. shade: how bright it is beside its like, about 1.
    """

    type: str
    compartment: str
    x: float
    y: float
    angle: float
    colour: str
    shade: float


@dataclass(frozen=True)
class Light:
    """A soft light from one side. azimuth: where it comes from, radians. length: of a part's shadow."""

    azimuth: float
    length: float


def draw_shadow(scene: Float, part: KitPart, light: Light) -> None:
    """Darken ``scene`` (side, side, 3) float32, in place, where the part keeps the light away."""
    side = len(scene)
    shift = light.length * math.cos(light.azimuth), light.length * math.sin(light.azimuth)
    window, x, y = _window(part, side, light.length + _SHADOW_SOFT)
    for share, softness, strength in ((1.0, _SHADOW_SOFT, 0.42), (0.25, 0.6 * _SHADOW_SOFT, 0.30)):
        distance = outline(part.type, *_turned(x + share * shift[0], y + share * shift[1], part.angle))
        scene[window] *= 1 - strength * _ramp(0.5 - distance / softness)[..., None]


def draw_part(scene: Float, part: KitPart, light: Light) -> None:
    """Draw the part over ``scene`` (side, side, 3) float32, in place; its edge is smooth over one pixel."""
    side = len(scene)
    window, x, y = _window(part, side, 2 / side)
    u, v = _turned(x, y, part.angle)
    cover = np.clip(0.5 - outline(part.type, u, v) * side, 0, 1)[..., None]
    paint = _paint(part, u, v, light.azimuth - part.angle, side) * part.shade
    scene[window] += cover * (paint - scene[window])


def mark_part(mask: Bool, part: KitPart) -> None:
    """Set ``mask`` (side, side) bool, in place, inside the part's outline; its hole counts as part of it."""
    window, x, y = _window(part, len(mask), 1 / len(mask))
    u, v = _turned(x, y, part.angle)
    inside = outline(part.type, u, v) <= 0
    if part.type in ("nut", "washer"):
        inside |= u * u + v * v < _NUT**2
    mask[window] |= inside


def _window(part: KitPart, side: int, margin: float) -> tuple[tuple[slice, slice], Float, Float]:
    """The rows and columns that the part may touch, and their pixels' x (1, w) and y (h, 1) from its centre."""
    half, radius = REACH[part.type]
    across = half * abs(math.cos(part.angle)) + radius + margin
    down = half * abs(math.sin(part.angle)) + radius + margin
    top, left = max(int((part.y - down) * side), 0), max(int((part.x - across) * side), 0)
    rows = np.arange(top, min(math.ceil((part.y + down) * side) + 1, side))
    columns = np.arange(left, min(math.ceil((part.x + across) * side) + 1, side))
    x = ((columns + 0.5) / side - part.x).astype(np.float32)[None, :]
    y = ((rows + 0.5) / side - part.y).astype(np.float32)[:, None]
    return (slice(top, top + len(rows)), slice(left, left + len(columns))), x, y


def _turned(x: Float, y: Float, angle: float) -> tuple[Float, Float]:
    """Coordinates in the frame of an axis at ``angle``."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _ramp(x: Float) -> Float:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def box(u: Float, v: Float, left: float, right: float, half: float, corner: float) -> Float:
    """Signed distance to a rounded rectangle from ``left`` to ``right``, ``half`` above and below the axis."""
    across = np.abs(u - (left + right) / 2) - ((right - left) / 2 - corner)
    up = np.abs(v) - (half - corner)
    distance: Float = (
        np.hypot(np.maximum(across, 0), np.maximum(up, 0)) + np.minimum(np.maximum(across, up), 0) - corner
    )
    return distance


def outline(kind: str, u: Float, v: Float) -> Float:
    """Signed distance to the outline of a part of type ``kind``, negative inside; holes are outside.

    u, v: coordinates in the part's frame. A hexagon's and a screw's distances are exact near the edge only.
    """
    distance: Float
    if kind == "nut":
        r, flat = np.hypot(u, v), np.abs(v)
        hexagon = np.maximum(flat, np.abs(u) * math.sqrt(0.75) + flat * 0.5) - _NUT
        # A real nut's corners are turned off.
        distance = np.maximum(np.maximum(hexagon, r - 1.13 * _NUT), _NUT_HOLE - r)
    elif kind == "washer":
        r = np.hypot(u, v)
        distance = np.maximum(r - _WASHER, _WASHER_HOLE - r)
    elif kind == "pin":
        distance = box(u, v, -0.053, 0.053, 0.0115, 0.004)
    elif kind == "screw":
        wave = np.cos((2 * math.pi / _PITCH) * u + np.sign(v) * 0.9)
        point = np.clip((u - 0.094) / 0.024, 0, 1)
        shank = np.abs(v) - _SHANK * (1 - 0.55 * point) - 0.0011 * wave
        distance = np.minimum(np.maximum(shank, np.abs(u - 0.012) - 0.104), box(u, v, *_HEAD))
    elif kind == "plug":
        prongs = box(u, np.abs(v) - _APART, 0.0, 0.060, 0.0045, 0.003)
        distance = np.minimum(box(u, v, *_PLUG), prongs)
    else:
        distance = np.minimum(box(u, v, *_SOCKET), box(u, v, -0.052, -0.03, 0.014, 0.003))
    return distance


def _paint(part: KitPart, u: Float, v: Float, azimuth: float, side: int) -> Float:
    """(h, w, 3) colour of the part's surface in the light; azimuth: of the light, in the part's frame."""
    if part.type == "pin":
        ends = np.sign(u) * _ramp((np.abs(u) - 0.048) / 0.005)
        return _lit(_BRASS, ends, v / 0.0115, azimuth, gloss=0.55)
    if part.type == "screw":
        return _screw(u, v, azimuth, side)
    if part.type == "plug":
        ridges = (
            0.5 * np.sin((2 * math.pi / 0.0095) * (u + 0.034)) * ((np.abs(u + 0.034) < 0.019) & (np.abs(v) < 0.018))
        )
        plastic = _moulded(_PLUG, COLOURS[part.colour], u, v, ridges, azimuth)
        across = np.clip((np.abs(v) - _APART) / 0.0045, -1, 1) * np.sign(v)
        metal = _lit(_ZINC, np.zeros_like(across), across, azimuth, gloss=0.5)
        return np.where((u > _PLUG[1])[..., None], metal, plastic)
    if part.type == "socket":
        plastic = _moulded(_SOCKET, COLOURS[part.colour], u, v, np.zeros_like(u), azimuth)
        slots = box(u, np.abs(v) - _APART, -0.018, 0.026, 0.0062, 0.004)
        plastic += 0.12 * _ramp(1 - np.abs(slots - 0.002) * 400)[..., None]
        dark: Float = _ramp(0.5 - slots * 300)[..., None]
        return plastic + dark * (np.array(_DARK, np.float32) - plastic)
    return _turned_metal(part.type, u, v, azimuth)


def _screw(u: Float, v: Float, azimuth: float, side: int) -> Float:
    """(h, w, 3) of a screw lying on its side: a threaded cylinder and a hexagonal head of three visible faces."""
    thread = 0.75 * min(max(side * _PITCH / 2 - 0.5, 0), 1)  # threads finer than two pixels would alias
    across = np.clip(v / _SHANK, -1, 1)
    phase = (2 * math.pi / _PITCH) * u + across * 0.9
    shank = _lit(_STEEL, thread * np.sin(phase), 0.9 * across, azimuth, gloss=0.5)
    shank *= (1 - 0.15 * thread * (1 - np.cos(phase)))[..., None]
    face = 0.75 * np.clip(np.round(v / 0.0175), -1, 1)
    from_middle = u + 0.102
    edge = 0.8 * np.sign(from_middle) * _ramp((np.abs(from_middle) - 0.008) / 0.006)
    return np.where((u < _HEAD[1])[..., None], _lit(_STEEL, edge, face, azimuth, gloss=0.5), shank)


def _moulded(body: Box, colour: Colour, u: Float, v: Float, ridges: Float, azimuth: float) -> Float:
    """(h, w, 3) of a plastic body with rounded edges; ridges: slopes on its upper face."""
    left, right, half, _ = body
    rim = 0.7 * _ramp(1 + box(u, v, *body) / 0.008)
    from_middle = u - (left + right) / 2
    on_long_edge = np.abs(v) - half > np.abs(from_middle) - (right - left) / 2
    slope_u = np.where(on_long_edge, 0, rim * np.sign(from_middle)) + ridges
    return _lit(colour, slope_u, np.where(on_long_edge, rim * np.sign(v), 0), azimuth, gloss=0.28)


def _turned_metal(kind: str, u: Float, v: Float, azimuth: float) -> Float:
    """(h, w, 3) of a nut or a washer: turned faces, whose fine rings light up along the light's direction."""
    r = np.maximum(np.hypot(u, v), 1e-4)
    if kind == "nut":
        colour, edge, bevel, hole, countersink, rings = _STEEL, 0.97 * _NUT, 0.16 * _NUT, _NUT_HOLE, 0.006, 0.15
    else:
        colour, edge, bevel, hole, countersink, rings = (
            _ZINC,
            0.93 * _WASHER,
            0.07 * _WASHER,
            _WASHER_HOLE,
            0.0022,
            0.30,
        )
    slope = 0.75 * _ramp((r - edge) / bevel) - 0.85 * _ramp(1 - (r - hole) / countersink)
    cos, sin = u / r, v / r
    along = cos * math.cos(azimuth) + sin * math.sin(azimuth)
    metal = _lit(colour, slope * cos, slope * sin, azimuth, gloss=0.45)
    metal *= (1 + rings * (along**4 - 0.27))[..., None]
    return metal


def _lit(colour: Colour, slope_u: Float, slope_v: Float, azimuth: float, *, gloss: float) -> Float:
    """(h, w, 3): a surface of ``colour`` under a soft light 50° up; slopes are the normal's tilt, about -1…1."""
    normal = np.sqrt(1 + slope_u * slope_u + slope_v * slope_v)
    toward = slope_u * math.cos(azimuth) + slope_v * math.sin(azimuth)
    diffuse = np.maximum((0.77 + 0.64 * toward) / normal, 0)
    # The half-way vector between the light and the eye above.
    mirror = np.maximum((0.94 + 0.34 * toward) / normal, 0)
    shine = 0.6 * gloss * mirror**24
    shaded: Float = (0.42 + 0.75 * diffuse)[..., None] * np.array(colour, np.float32) + shine[..., None]
    return shaded
