"""Made surfaces: a pool of tiles, each a class of its own, from scalar fields, palettes and light."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import fields
import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

SIDE = 192  # pixels of a tile


def tile(number: int, seed: int, families: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """(3, SIDE, SIDE): the surface of class ``number``; the same bytes for the same arguments."""
    random = np.random.default_rng([seed, number])
    height = fields.field(random, SIDE, families)
    if random.random() < 0.3:  # few levels with hard borders: prints, holes, coatings
        levels = int(random.integers(2, 5))
        height = gaussian_filter(np.floor(height * levels * 0.999) / max(levels - 1, 1), random.uniform(0, 0.8))
    colour = palette(random, height)
    if random.random() < 0.5:
        colour = lit(random, height, colour if random.random() < 0.4 else _one_colour(random))
    return (np.clip(colour, 0, 1) * 255).astype(np.uint8)


def palette(random: np.random.Generator, values: fields.Field) -> fields.Field:
    """(h, w) in [0, 1] → (3, h, w): through two to six colours, grey ones in two of five classes."""
    count = int(random.integers(2, 7))
    grey = random.random() < 0.4
    colours = np.repeat(random.random((count, 1)), 3, 1) if grey else random.random((count, 3))
    if random.random() < 0.5:  # neighbours in colour: most surfaces are not motley
        colours = colours.mean(0) + (colours - colours.mean(0)) * random.uniform(0.2, 0.7)
    stops = np.sort(np.append(random.random(count - 2), (0, 1)))
    return np.stack([np.interp(values, stops, colours[:, band]) for band in range(3)]).astype(np.float32)


def lit(random: np.random.Generator, height: fields.Field, colour: fields.Field) -> fields.Field:
    """The field as relief under one lamp: Lambert's shading and a highlight."""
    smooth = gaussian_filter(height, random.uniform(0.6, 2))
    slope_y, slope_x = np.gradient(smooth)
    strength = random.uniform(0.15, 1.2) / max(float(np.hypot(slope_x, slope_y).mean()), 1e-6)
    angle, tilt = random.uniform(0, 2 * np.pi), random.uniform(0.2, 1.2)
    length = np.sqrt(1 + (strength * slope_x) ** 2 + (strength * slope_y) ** 2)
    across = (np.cos(angle) * slope_x + np.sin(angle) * slope_y) * strength
    lambert = np.clip((np.cos(tilt) - np.sin(tilt) * across) / length, 0, 1)
    shine = random.uniform(0, 0.8) * lambert ** random.uniform(8, 60)
    return (colour * (random.uniform(0.05, 0.4) + 0.9 * lambert) + shine).astype(np.float32)


def pool(count: int, seed: int, families: tuple[str, ...], processes: int = 2) -> torch.Tensor:
    """(count, 3, SIDE, SIDE) uint8."""
    with ProcessPoolExecutor(processes) as workers:
        made = workers.map(partial(tile, seed=seed, families=families), range(count), chunksize=64)
        return torch.from_numpy(np.stack(list(made)))


def _one_colour(random: np.random.Generator) -> fields.Field:
    base = random.uniform(0.2, 0.9)
    spread = 0 if random.random() < 0.5 else 0.3
    return np.clip(base + random.uniform(-spread, spread, (3, 1, 1)), 0, 1).astype(np.float32)
