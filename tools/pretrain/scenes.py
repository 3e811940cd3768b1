"""Made scenes: shapes of known surfaces over one another, lit, some with a small defect, and what each pixel shows.

Everything is drawn for a whole batch at a time by PyTorch, on the CPU or a GPU, from one generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import grid_sample, interpolate

DEFECTS = ("none", "scratch", "spot", "stain", "foreign", "moved", "bent", "smeared")


@dataclass(frozen=True)
class Scenes:
    """A batch. Images are before the camera: light, but no lens and no sensor.

    Attributes:
        images: (n, 3, side, side) float32, about [0, 1].
        whole: the same without the defects.
        surfaces: (n, side, side) int64, the class of the tile that each pixel shows.
        defects: (n, side, side) int64, index into DEFECTS; 0 where nothing visible was changed.
    """

    images: torch.Tensor
    whole: torch.Tensor
    surfaces: torch.Tensor
    defects: torch.Tensor


def draw(
    pool: torch.Tensor,
    count: int,
    side: int,
    random: torch.Generator,
    *,
    leaves: int,
    defective: float,
    mono: float = 0.0,
) -> Scenes:
    """``count`` scenes of ``leaves`` shapes on a ground; a share ``defective`` gets defects, a share ``mono`` is grey.

    pool: (classes, 3, s, s) uint8, on the generator's device.
    """
    device = random.device
    y, x = plane(side, device)
    images, surfaces = _surface(pool, count, side, random)
    surfaces = surfaces[:, None, None].expand(count, side, side).clone()
    light = uniform((count, 1, 1), 0, 2 * math.pi, random)
    for _ in range(leaves):
        shape = _Shape.draw(count, side, random)
        u, v, depth = shape.at(x, y)
        inside = ((1 - depth) * shape.scale).add(0.5).clamp(0, 1) * shape.present
        fill, classes = _surface(pool, count, side, random)
        fill = fill * _bulge(u, v, depth, light - shape.angle, random)[:, None]
        shadow = uniform((count, 1, 1), 0, 0.7, random) * torch.exp(
            -((depth - 1) * shape.scale / uniform((count, 1, 1), 1, 6, random)).clamp(min=0)
        )
        images = images * (1 - (shadow * shape.present)[:, None])
        images = torch.lerp(images, fill, inside[:, None])
        surfaces = torch.where(inside > 0.5, classes[:, None, None], surfaces)
    made = with_defects(Scenes(images, images, surfaces, torch.zeros_like(surfaces)), pool, random, defective)
    grey = (uniform((count, 1, 1, 1), 0, 1, random) < mono).float()  # of the scene, not of a photograph: colour matters
    images, whole = (torch.lerp(part, part.mean(1, keepdim=True), grey) for part in (made.images, made.whole))
    return Scenes(images, whole, made.surfaces, made.defects)


@dataclass(frozen=True)
class _Shape:
    """Ellipses, bars, boxes, stars and gears: |u/a|^p + |v/b|^p < r(θ)^p. Every field is (n, 1, 1)."""

    centre_y: torch.Tensor
    centre_x: torch.Tensor
    angle: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    power: torch.Tensor
    teeth: torch.Tensor
    wave: torch.Tensor
    present: torch.Tensor
    scale: torch.Tensor  # pixels from the middle to the border, for soft edges

    @staticmethod
    def draw(count: int, side: int, random: torch.Generator) -> _Shape:
        size = (count, 1, 1)
        a = torch.exp(uniform(size, math.log(0.04), math.log(0.5), random))
        b = a * torch.exp(uniform(size, math.log(0.08), 0.2, random))
        power = torch.tensor((2.0, 2.0, 6.0, 12.0), device=random.device)[
            torch.randint(4, size, generator=random, device=random.device)
        ]
        return _Shape(
            centre_y=uniform(size, 0, 1, random),
            centre_x=uniform(size, 0, 1, random),
            angle=uniform(size, 0, 2 * math.pi, random),
            a=a,
            b=b.clamp(min=0.012),
            power=power,
            teeth=torch.randint(2, 13, size, generator=random, device=random.device).float(),
            wave=uniform(size, -0.5, 0.35, random).clamp(min=0),
            present=(uniform(size, 0, 1, random) < 0.8).float(),
            scale=torch.minimum(a, b).clamp(min=0.012) * side,
        )

    def at(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(u, v, depth): coordinates in half axes, and how far out; the border is at 1. Each (n, side, side)."""
        cos, sin = torch.cos(self.angle), torch.sin(self.angle)
        u = (cos * (x - self.centre_x) + sin * (y - self.centre_y)) / self.a
        v = (cos * (y - self.centre_y) - sin * (x - self.centre_x)) / self.b
        radius = (u.abs().clamp(min=1e-4) ** self.power + v.abs().clamp(min=1e-4) ** self.power) ** (1 / self.power)
        return u, v, radius / (1 + self.wave * torch.cos(self.teeth * torch.atan2(v, u)))


def _surface(pool: torch.Tensor, count: int, side: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A turned, scaled, shifted piece of one tile an image, colours a little changed: (n, 3, side, side), classes (n,)."""
    classes = torch.randint(len(pool), (count,), generator=random, device=random.device)
    angle = uniform((count,), 0, 2 * math.pi, random)
    scale = torch.exp(uniform((count,), math.log(0.6), math.log(1.4), random)) * side / pool.shape[-1]
    mirror = torch.where(uniform((count,), 0, 1, random) < 0.5, -1.0, 1.0)
    cos, sin = (torch.cos(angle) * scale)[:, None, None], (torch.sin(angle) * scale)[:, None, None]
    y, x = (2 * part - 1 for part in plane(side, random.device))
    x = x * mirror[:, None, None]
    where = torch.stack((cos * x - sin * y, sin * x + cos * y), -1) + uniform((count, 1, 1, 2), -1, 1, random)
    found = grid_sample(pool[classes].float(), where, padding_mode="reflection", align_corners=False) / 255
    gain = 1 + normal((count, 3, 1, 1), 0.07, random)
    return found * gain + normal((count, 3, 1, 1), 0.04, random), classes


def _bulge(
    u: torch.Tensor, v: torch.Tensor, depth: torch.Tensor, light: torch.Tensor, random: torch.Generator
) -> torch.Tensor:
    """Light on the shape as a flat plate, a dome or a rod: (n, side, side) factors."""
    count = len(u)
    kind = torch.randint(4, (count, 1, 1), generator=random, device=random.device)
    normal_x = torch.where(kind == 2, 0.0, u.clamp(-1, 1)) * (kind >= 2)
    normal_y = v.clamp(-1, 1) * (kind >= 2)
    normal_z = (1 - normal_x**2 - normal_y**2).clamp(min=0).sqrt()
    tilt = uniform((count, 1, 1), 0.1, 1.1, random)
    lambert = (
        torch.sin(tilt) * (torch.cos(light) * normal_x + torch.sin(light) * normal_y) + torch.cos(tilt) * normal_z
    ).clamp(0, 1)
    shine = uniform((count, 1, 1), 0, 1.5, random) * lambert ** uniform((count, 1, 1), 6, 40, random)
    flat = uniform((count, 1, 1), 0.6, 1.3, random)
    rim = 1 + uniform((count, 1, 1), -0.5, 0.5, random) * torch.exp(-((1 - depth) / 0.15).clamp(min=0))
    return torch.where(kind >= 2, 0.25 + 0.9 * lambert + shine, flat) * rim


def with_defects(scenes: Scenes, pool: torch.Tensor, random: torch.Generator, share: float) -> Scenes:
    """A small change in the first ``share`` of the images; a pixel counts as defective where it can be seen."""
    count = round(share * len(scenes.images))
    if not count:
        return scenes
    before, side = scenes.images[:count], scenes.images.shape[-1]
    y, x = plane(side, random.device)
    size = (count, 1, 1)
    kind = torch.randint(1, len(DEFECTS), size, generator=random, device=random.device)
    angle = uniform(size, 0, math.pi, random)
    reach = torch.exp(uniform(size, math.log(2.5), math.log(12), random)) / side
    long = torch.where(kind == 1, reach * uniform(size, 1.5, 5, random), reach * uniform(size, 0.6, 1.6, random))
    wide = torch.where(kind == 1, uniform(size, 0.5, 1.6, random) / side, reach)
    cy, cx = uniform(size, 0.05, 0.95, random), uniform(size, 0.05, 0.95, random)
    u = (torch.cos(angle) * (x - cx) + torch.sin(angle) * (y - cy)) / long
    v = (torch.cos(angle) * (y - cy) - torch.sin(angle) * (x - cx)) / wide
    v = v - normal(size, 0.3, random) * (u**2 - 0.5) * torch.where(kind == 1, 3.0, 0.5)
    radius = torch.sqrt(u**2 + v**2) * (1 + 0.25 * torch.cos(3 * torch.atan2(v, u) + angle))
    soft = torch.exp(-(radius**2))
    hard = ((1.2 - radius) * wide * side + 0.5).clamp(0, 1)
    colour = uniform((count, 3, 1, 1), 0, 1, random)
    colour = torch.where(uniform((count, 1, 1, 1), 0, 1, random) < 0.6, colour[:, :1], colour)
    painted = torch.lerp(before, colour, uniform((count, 1, 1, 1), 0.4, 1, random))
    jump = normal((count, 2, 1, 1), 0.15, random)
    bend = soft[:, None] * reach[:, None] * normal((count, 2, 1, 1), 0.9, random)
    shift = torch.where((kind == 5)[:, None], jump, bend)
    where = torch.stack((x + shift[:, 0], y + shift[:, 1]), -1) * 2 - 1
    moved = grid_sample(before, where, padding_mode="reflection", align_corners=False)
    smeared = interpolate(interpolate(before, scale_factor=0.2, mode="area"), size=(side, side), mode="bilinear")
    foreign, _ = _surface(pool, count, side, random)
    mask, after = torch.zeros_like(soft), before
    for number, other, where_ in (
        (1, painted, hard),
        (2, painted, hard),
        (3, before * (0.5 + colour), soft),
        (4, foreign, hard),
        (5, moved, hard),
        (6, moved, torch.ones_like(soft)),
        (7, smeared, soft),
    ):
        mask = torch.where(kind == number, where_, mask)
        after = torch.where((kind == number)[:, None], other, after)
    after = torch.lerp(before, after, mask[:, None])
    seen = (after - before).abs().amax(1) > 0.08
    defects = scenes.defects.clone()
    defects[:count] = torch.where(seen, kind, 0)
    return Scenes(torch.cat((after, scenes.images[count:])), scenes.images, scenes.surfaces, defects)


def plane(side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    along = (torch.arange(side, device=device) + 0.5) / side
    return along[:, None], along[None]


def uniform(size: tuple[int, ...], low: float, high: float, random: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(size, generator=random, device=random.device)


def normal(size: tuple[int, ...], deviation: float, random: torch.Generator) -> torch.Tensor:
    return deviation * torch.randn(size, generator=random, device=random.device)
