"""Scalar fields: the grain of a made surface, before it has colour or light.

Every function draws one (side, side) float32 field with values in [0, 1] from a NumPy generator. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

Field = npt.NDArray[np.float32]


def noise(random: np.random.Generator, side: int) -> Field:
    """Random phases under a chosen spectrum: power law, band-limited, or of one orientation."""
    frequency_y = np.fft.fftfreq(side).astype(np.float32)[:, None]
    frequency_x = np.fft.rfftfreq(side).astype(np.float32)[None]
    radius = np.hypot(frequency_y, frequency_x)
    kind = random.integers(3)
    if kind == 0:
        weight = (radius + 1 / side) ** -random.uniform(0.6, 2.2)
    else:
        centre = np.exp(random.uniform(np.log(0.02), np.log(0.3)))
        weight = np.exp(-(((radius - centre) / (centre * random.uniform(0.1, 0.5))) ** 2))
        if kind == 2:
            angle = np.arctan2(frequency_y, frequency_x) - random.uniform(0, np.pi)
            weight *= np.exp((np.cos(2 * angle) - 1) / random.uniform(0.02, 0.4))
    weight[0, 0] = 0
    spectrum = weight * np.exp(2j * np.pi * random.random(weight.shape, np.float32))
    return _unit(np.fft.irfft2(spectrum, (side, side)).astype(np.float32))


def lattice(random: np.random.Generator, side: int) -> Field:
    """Stripes, grids, meshes and weaves: one, two or three sets of lines of any profile."""
    y, x = _plane(side)
    angle, period = random.uniform(0, np.pi), np.exp(random.uniform(np.log(3.5), np.log(40)))
    sharp = np.exp(random.uniform(np.log(0.3), np.log(6)))
    turns = (
        (0.0,),
        (0.0, np.pi / 2),
        (0.0, np.pi / 2),
        (0.0, random.uniform(0.6, 2.4)),
        (0.0, np.pi / 3, 2 * np.pi / 3),
    )
    lines, phases = [], []
    for turn in turns[random.integers(len(turns))]:
        own = period * random.choice((1, 1, 1, random.uniform(0.5, 2)))
        phase = (np.cos(angle + turn) * x + np.sin(angle + turn) * y) * (np.pi / own) + random.uniform(0, np.pi)
        phases.append(phase)
        lines.append(np.abs(np.sin(phase)) ** sharp)
    if len(lines) == 1:
        field = lines[0]
    elif len(lines) == 2 and random.random() < 0.35:  # a weave: the sets pass over one another in turns
        over = (np.floor(phases[0] / np.pi) + np.floor(phases[1] / np.pi)) % 2
        field = np.where(over == 0, lines[0] * 0.6 + 0.4, lines[1] * 0.6)
    else:
        field = (np.minimum, np.maximum, np.multiply, np.add)[random.integers(4)].reduce(lines)
    return _unit(field)


def cells(random: np.random.Generator, side: int) -> Field:
    """Voronoi cells: distance to the nearest point, to the nearest border, or one value a cell."""
    count = int(np.exp(random.uniform(np.log(20), np.log(1500))))
    points = random.random((count, 2)) * side
    if random.random() < 0.4:  # a disturbed lattice
        per_row = max(3, int(np.sqrt(count)))
        step = side / per_row
        points = (np.stack(np.mgrid[0:per_row, 0:per_row], -1).reshape(-1, 2) + 0.5) * step
        points = points + random.normal(0, step * random.uniform(0, 0.3), points.shape)
    where = np.stack(np.mgrid[0:side, 0:side], -1).reshape(-1, 2)
    distance, nearest = cKDTree(points).query(where, k=2)
    kind = random.integers(3)
    if kind == 0:
        field = distance[:, 0]
    elif kind == 1:
        field = np.minimum(distance[:, 1] - distance[:, 0], random.uniform(1.5, 12))
    else:
        field = random.random(len(points))[nearest[:, 0]]
    return _unit(field.reshape(side, side))


def rings(random: np.random.Generator, side: int) -> Field:
    """Grown rings, stretched along one axis, as in wood or marble."""
    y, x = _plane(side)
    angle, stretch = random.uniform(0, np.pi), random.uniform(1, 12)
    centre = random.uniform(-1, 2, 2) * side
    u = np.cos(angle) * (x - centre[0]) + np.sin(angle) * (y - centre[1])
    v = -np.sin(angle) * (x - centre[0]) + np.cos(angle) * (y - centre[1])
    radius = np.hypot(u / stretch, v) + noise(random, side) * random.uniform(0, 40)
    return _unit(np.abs(np.sin(radius * np.pi / random.uniform(4, 30))) ** random.uniform(0.3, 3))


def leaves(random: np.random.Generator, side: int) -> Field:
    """Dead leaves: shapes of power-law sizes that hide one another, each of one value."""
    y, x = _plane(side)
    field = np.full((side, side), random.random(), np.float32)
    smallest, round_ = random.uniform(2, 6), random.random()
    for _ in range(int(random.integers(60, 260))):
        size = min(smallest * random.random() ** -0.5, side / 3)
        a, b = size, size * random.uniform(0.25, 1)
        cy, cx, angle = *(random.random(2) * side), random.uniform(0, np.pi)
        top, bottom = max(0, int(cy - a)), min(side, int(cy + a) + 2)
        left, right = max(0, int(cx - a)), min(side, int(cx + a) + 2)
        px, py = x[:, left:right] - cx, y[top:bottom] - cy
        u, v = np.cos(angle) * px + np.sin(angle) * py, -np.sin(angle) * px + np.cos(angle) * py
        inside = (
            (u / a) ** 2 + (v / b) ** 2 < 1
            if random.random() < round_
            else (np.abs(u) < a * 0.7) & (np.abs(v) < b * 0.7)
        )
        field[top:bottom, left:right][inside] = random.random()
    return field


def sines(random: np.random.Generator, side: int) -> Field:
    """A small random network of sines from coordinates to a value."""
    y, x = _plane(side)
    z = np.stack(np.broadcast_arrays(x, y, np.hypot(x - side / 2, y - side / 2)), -1) / side * random.uniform(2, 12)
    for width in (12, 12, 1):
        z = np.sin(
            z @ random.normal(0, 1.3, (z.shape[-1], width)).astype(np.float32)
            + random.uniform(-3, 3, width).astype(np.float32)
        )
    return _unit(z[..., 0])


def fractal(random: np.random.Generator, side: int) -> Field:
    """The density of an iterated function system of two to five contracting maps."""
    count = int(random.integers(2, 6))
    maps = random.uniform(-1, 1, (count, 2, 2))
    maps *= (random.uniform(0.45, 0.85, count) / np.linalg.norm(maps, 2, axis=(1, 2)))[:, None, None]
    shifts = random.uniform(-1, 1, (count, 2))
    points, kept = random.uniform(-1, 1, (3000, 2)), []
    for step in range(36):
        which = random.integers(count, size=len(points))
        points = np.einsum("nij,nj->ni", maps[which], points) + shifts[which]
        if step > 8:
            kept.append(points)
    found = np.concatenate(kept)
    low, high = np.quantile(found, 0.01, axis=0), np.quantile(found, 0.99, axis=0)
    density, _, _ = np.histogram2d(*found.T, bins=side, range=[(a, b + 1e-6) for a, b in zip(low, high, strict=True)])
    return _unit(gaussian_filter(np.log1p(density).astype(np.float32), random.uniform(0.5, 1.5)))


FAMILIES: dict[str, Callable[[np.random.Generator, int], Field]] = {
    "noise": noise,
    "lattice": lattice,
    "cells": cells,
    "rings": rings,
    "leaves": leaves,
    "sines": sines,
    "fractal": fractal,
}


def field(random: np.random.Generator, side: int, families: tuple[str, ...]) -> Field:
    """One field, or two mixed; often bent by a smooth displacement."""
    drawn = FAMILIES[families[random.integers(len(families))]](random, side)
    if random.random() < 0.35:
        other = FAMILIES[families[random.integers(len(families))]](random, side)
        share = random.uniform(0.15, 0.5)
        drawn = (drawn * other, np.maximum(drawn, other), drawn * (1 - share) + other * share)[random.integers(3)]
    if random.random() < 0.4:
        drawn = _bent(random, drawn)
    return _unit(drawn)


def _bent(random: np.random.Generator, drawn: Field) -> Field:
    side = len(drawn)
    reach = random.uniform(8, 40)
    shift = gaussian_filter(random.standard_normal((2, side, side), np.float32), (0, reach, reach), mode="wrap")
    shift *= random.uniform(0.5, 8) / shift.std()
    return map_coordinates(drawn, np.stack(np.mgrid[0:side, 0:side]) + shift, order=1, mode="reflect")


def _plane(side: int) -> tuple[Field, Field]:
    along = np.arange(side, dtype=np.float32)
    return along[:, None], along[None]


def _unit(values: npt.NDArray[np.floating]) -> Field:
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-9)).astype(np.float32)
