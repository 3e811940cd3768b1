"""Local defects on a good image: each a function of where it lies, which returns the changed window.

Sizes are shares of the image's side, drawn evenly on a logarithmic scale, down to what a person just sees; contrasts grow with
how lively the surface is, since what shows on polished metal drowns in a rough casting. Marks lie on the part alone, have soft
edges, and keep the grain of what they lie on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sapatchcore.defects.shapes import blot, chip, clouds, line, made_texture, smooth_step, softened, wander
from sapatchcore.defects.subject import ORDERED, Float, Subject, UInt8, depth_of
from sapatchcore.defects.window import Window, behind, enlarged, hole, put_back, taken, window_around

FAINTEST = 11.0  # grey levels of the weakest mark on a smooth surface
OF_TEXTURE = (1.3, 0.7)  # of the surface's own deviation, added: of a rough one; of one with lines, on which marks show
GRAIN = 0.016  # of the side: what is finer than this is the surface's own roughness
STRONGEST = 2.8  # times the weakest
ON_PIECES = 0.6  # how often a defect of a carrier lies on what it carries


@dataclass(frozen=True)
class Site:
    """Where a defect is made.

    patch: (h, w, 3) float32, the window's pixels. surface: (h, w) float32, how much of each is the part. size: of the defect,
    pixels: a length or a radius. side: the image's, pixels, as sqrt(h·w). strength: grey levels. bright: whether the mark is
    lighter. tint: (3,) float32, about 1. across: the angle, radians from the columns' direction,
    across the surface's own lines. hole: (h, w, 3) float32,
    what is seen where the part is gone; of a part that fills the image something dark or light. soft: pixels of an edge.
    """

    patch: Float
    surface: Float
    size: float
    side: float
    strength: float
    bright: bool
    tint: Float
    across: float
    hole: Float
    soft: float
    random: np.random.Generator

    @property
    def shape(self) -> tuple[int, int]:
        return self.patch.shape[0], self.patch.shape[1]

    @property
    def change(self) -> Float:
        """(3,) float32: what the mark adds to a pixel that it covers."""
        return self.tint * np.float32(self.strength if self.bright else -self.strength)

    @property
    def middle(self) -> Float:
        return np.array([(self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2])


def scratch(site: Site) -> Float:
    """A thin ragged line, with a faint edge of the other tone where its burr catches or loses the light."""
    wide = max(1.1, site.side * site.random.uniform(0.003, 0.008))
    points = wander(site.random, site.size, steps=24, turn=site.random.uniform(0, 0.9))
    taper = np.sin(np.linspace(0.15, math.pi - 0.1, 24)) ** 0.6
    cover = line(site.shape, points - points.mean(0) + site.middle, wide * taper)
    cover = softened(cover * np.clip(0.8 + 0.4 * clouds(site.shape, 5 * wide, site.random), 0.15, 1), site.soft)
    step = max(1, round(0.7 * wide))
    edge = np.roll(cover, (step, step), axis=(0, 1)) * (1 - cover)
    return site.patch + ((1.8 * cover - 0.6 * edge) * site.surface)[..., None] * site.change


def spot(site: Site) -> Float:
    """A small dot of dirt, rust or paint, or a pit that shines."""
    cover = softened(blot(site.shape, site.size, site.random, rough=0.25, soft=0.5 * site.size), site.soft)
    return site.patch + (1.2 * cover * site.surface)[..., None] * site.change


def stain(site: Site) -> Float:
    """A large film of oil, water or glue: uneven, often stronger at its rim, through which the surface shows."""
    cover = blot(site.shape, site.size, site.random, rough=0.3, soft=site.size * site.random.uniform(0.3, 0.9))
    rim = cover * (1 - cover) * site.random.uniform(0, 2)
    film = cover * np.clip(0.75 + 0.25 * clouds(site.shape, 0.7 * site.size, site.random), 0.3, 1.1) + rim
    level = max(float(site.patch.mean()), 40.0)
    # Half as a factor, as light through a film; half added, so that it shows on black too.
    toned = (0.5 + 0.5 * site.patch / level) * site.change
    stained: Float = site.patch + (film * site.surface)[..., None] * toned
    return stained


def crack(site: Site) -> Float:
    """A dark jagged line with a branch or two, lighter along one side."""
    wide = max(1.1, site.side * site.random.uniform(0.0025, 0.006))
    points = wander(site.random, site.size, steps=18, turn=0.8, kink=0.55)
    points += site.middle - points.mean(0)
    cover = line(site.shape, points, wide * np.linspace(1.1, 0.5, 18))
    for _ in range(int(site.random.integers(0, 3))):
        branch = wander(site.random, 0.35 * site.size, steps=7, turn=0.6, kink=0.5)
        start = points[int(site.random.integers(4, 14))]
        cover = np.maximum(cover, line(site.shape, branch + start, wide * np.linspace(0.8, 0.4, 7)))
    cover = softened(cover, 0.8 * site.soft)
    edge = np.roll(cover, (1, 1), axis=(0, 1)) * (1 - cover)
    dark = np.float32(1.9 * site.strength)
    return site.patch + ((0.3 * edge - cover) * site.surface * dark)[..., None]


def bend(site: Site) -> Float:
    """A part pushed out of its place: pixels shifted, most in the middle, across the lines that show it."""
    height, width = site.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    right, down = x - (width - 1) / 2, y - (height - 1) / 2
    shift = site.size * site.random.uniform(0.3, 0.6) * site.random.choice([-1, 1])
    angle = site.across + site.random.uniform(-0.6, 0.6)
    near = np.exp(-(right**2 + down**2) / (0.9 * site.size) ** 2)
    at = np.stack([y - near * np.float32(math.sin(angle) * shift), x - near * np.float32(math.cos(angle) * shift)])
    planes = [ndimage.map_coordinates(site.patch[..., one], at, order=1, mode="nearest") for one in range(3)]
    moved = np.stack(planes, axis=-1)
    fade = smooth_step((2.4 * site.size - np.hypot(right, down)) / (0.4 * site.size))
    return site.patch + fade[..., None] * (moved - site.patch)


def smear(site: Site) -> Float:
    """The surface wiped along one direction: its lines are gone and its colours drawn out."""
    angle = site.across + site.random.uniform(-0.5, 0.5)
    reach = site.size * site.random.uniform(0.5, 1.0)
    drawn, count = np.zeros_like(site.patch), 13
    for step in np.linspace(-1, 1, count):
        by = round(step * reach * math.sin(angle)), round(step * reach * math.cos(angle))
        drawn += np.roll(site.patch, by, axis=(0, 1))
    cover = blot(site.shape, site.size, site.random, rough=0.4, soft=0.5 * site.size) * site.surface
    return site.patch + cover[..., None] * (drawn / count - site.patch)


def missing_piece(site: Site) -> Float:
    """A piece broken out: what lies behind the part shows, past a dark line of breakage."""
    cover = chip(site.shape, site.size, site.random, site.soft)
    broken = softened(cover, 1 + 0.06 * site.size) * (1 - cover) * site.surface
    gone = (cover * np.minimum(1, 1.5 * site.surface))[..., None]
    darker = site.patch - (broken * np.float32(0.8 * site.strength))[..., None]
    broken_out: Float = darker + gone * (site.hole - darker)
    return broken_out


def foreign_piece(site: Site) -> Float:
    """A fibre, a flake or a shaving of another made texture lying on the part, with its shadow."""
    kind = site.random.integers(3)
    wide = max(1.3, site.size * site.random.uniform(0.08, 0.2))
    if kind == 0:  # a fibre or a shaving
        points = wander(site.random, 2.2 * site.size, steps=20, turn=site.random.uniform(0.5, 2.5))
        cover = softened(line(site.shape, points - points.mean(0) + site.middle, [wide] * 20), site.soft)
    elif kind == 1:
        cover = chip(site.shape, 0.8 * site.size, site.random, site.soft)
    else:
        cover = blot(site.shape, 0.8 * site.size, site.random, rough=0.25, soft=1.5)
    texture = made_texture(site.shape, max(3.0, site.size * site.random.uniform(0.15, 0.5)), site.random)
    weight = np.maximum(cover * site.surface, 1e-3)
    level = np.average(site.patch.reshape(-1, 3), axis=0, weights=weight.ravel())
    body = np.clip(level + 1.6 * site.change, 8, 247) + (texture * np.float32(0.25 * site.strength))[..., None]
    away = max(1, round(0.12 * site.size))
    shadow = softened(np.roll(cover, (away, away), axis=(0, 1)), 0.5 * away + site.soft) * (1 - cover)
    lying = site.patch * (1 - np.float32(0.22) * shadow)[..., None]
    # It may jut out over the part's edge, as what lies on something does.
    shown: Float = lying + cover[..., None] * (body.astype(np.float32) - lying)
    return shown


@dataclass(frozen=True)
class Local:
    """How one kind is drawn: the range of its size, as shares of the image's side; how far it reaches from its middle, in
    sizes; where on the part it lies: anywhere, where there are lines to break ("lines"), where there is something to wipe away
    ("lively"), at the part's edge ("edge"). thick: its size at most, in radii of the part."""

    draw: Callable[[Site], Float]
    least: float
    most: float
    reach: float
    where: str = ""
    thick: float = math.inf


LOCAL = {
    "scratch": Local(scratch, 0.04, 0.25, 0.75, thick=5),
    "spot": Local(spot, 0.007, 0.028, 2.2, thick=0.7),
    "stain": Local(stain, 0.03, 0.10, 2.0, thick=1.3),
    "crack": Local(crack, 0.05, 0.22, 0.9, thick=5),
    "bend": Local(bend, 0.025, 0.08, 2.5, where="lines", thick=1.2),
    "smear": Local(smear, 0.03, 0.09, 2.2, where="lively", thick=1.2),
    "missing-piece": Local(missing_piece, 0.018, 0.06, 1.6, where="edge", thick=0.9),
    "foreign-piece": Local(foreign_piece, 0.016, 0.06, 2.2, thick=1.2),
}


def make_local(subject: Subject, kind: str, random: np.random.Generator) -> tuple[UInt8, Window] | None:
    """The image, (h, w, 3) uint8, with one try at a defect of ``kind``, one of LOCAL, and the window that it may have changed.

    None where the image shows no part. Whether the change is seen is the caller's to ask.
    """
    how = LOCAL[kind]
    place = _place(subject, how.where, random)
    if place is None:
        return None
    row, column, thick = place
    height, width = subject.image.shape[:2]
    scale = height / subject.part.shape[0]
    side = math.sqrt(height * width)
    size = side * math.exp(random.uniform(math.log(how.least), math.log(how.most)))
    size = max(min(size, how.thick * scale * thick), how.least * side)
    middle = (round((row + random.random()) * scale), round((column + random.random()) * scale))
    window = window_around(middle, math.ceil(how.reach * size + 0.02 * side) + 2, (height, width))
    patch = taken(subject.image, window)
    surface = enlarged(subject.part, subject, window)
    grey = patch.mean(-1)
    rough = float((grey - ndimage.gaussian_filter(grey, GRAIN * side, truncate=2)).std())
    faintest = FAINTEST + OF_TEXTURE[subject.is_ordered] * rough
    strength = faintest * math.exp(random.uniform(0, math.log(STRONGEST)))
    level = float(grey[tuple(length // 2 for length in grey.shape)])
    room = (level - 5, 250 - level)  # below and above
    bright = bool(random.random() < 0.5) if min(room) > strength else room[1] > room[0]
    tint = np.ones(3, np.float32)
    if not subject.is_grey:
        tint += random.normal(0, 0.22, 3).astype(np.float32)
    site = Site(
        patch,
        surface,
        size,
        side,
        strength,
        bright,
        tint,
        float(subject.order[1][row, column]) if how.where in ("lines", "lively") else 0.0,
        _hole(subject, window, patch, random) if kind == "missing-piece" else patch,
        max(0.5, 0.0014 * side),
        random,
    )
    return put_back(subject.image, how.draw(site), window), window


def _place(subject: Subject, where: str, random: np.random.Generator) -> tuple[int, int, float] | None:
    """A row and a column of the small part, drawn by chance, and how thick the part is there: the radius of a disc in it."""
    part, depth = subject.part, subject.depth
    if subject.carries and subject.count and random.random() < ON_PIECES:
        part = subject.pieces > 0
        depth = depth_of(part)
    chances: Float = part.astype(np.float32)
    if where == "lines" and not subject.is_ordered:
        return None
    if where in ("lines", "lively"):
        chances = chances * subject.steep
    if where == "lines":
        chances = chances * (subject.order[0] > ORDERED)
    if where == "edge" and subject.calm.any():
        chances = chances * (depth <= 3)
    total = np.cumsum(chances, dtype=np.float64)
    if total[-1] <= 0:
        return None
    index = int(np.searchsorted(total, random.random() * total[-1], side="right"))
    row, column = (int(at) for at in np.unravel_index(min(index, total.size - 1), chances.shape))
    return row, column, float(depth[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5].max())


def _hole(subject: Subject, window: Window, patch: Float, random: np.random.Generator) -> Float:
    seen = behind(subject, window, random)
    return hole(patch, random) if seen is None else seen
