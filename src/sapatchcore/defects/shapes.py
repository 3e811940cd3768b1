"""What made defects are shaped by: lines, blots and textures, as the share of each pixel that they cover.

All are (h, w) float32; lengths are pixels; a generator is the only source of chance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

Float = npt.NDArray[np.floating[Any]]  # float32 throughout
Points = npt.NDArray[np.float64]

FINER = 3  # lines are drawn this many times finer, then averaged


def wander(random: np.random.Generator, length: float, *, steps: int, turn: float, kink: float = 0.0) -> Points:
    """(steps + 1, 2) x and y of a line of about ``length``, from (0, 0) on, in any direction.

    turn: by how many radians its direction drifts in all, smoothly. kink: standard deviation of each step's own direction.
    """
    drift = turn * random.uniform(-1, 1) * np.linspace(0, 1, steps) + turn * random.uniform(-0.5, 0.5) * np.sin(
        np.linspace(0, math.pi * random.uniform(0.5, 2), steps)
    )
    angle = random.uniform(0, 2 * math.pi) + drift + kink * random.standard_normal(steps)
    stride = length / steps * random.uniform(0.6, 1.4, steps)
    steps_taken = stride[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps_taken, axis=0)])


def line(shape: tuple[int, int], points: Points, widths: Sequence[float] | Points) -> Float:
    """The cover of a line with round joints through points, (n, 2) x and y; widths: n, pixels."""
    height, width = shape
    canvas = Image.new("L", (FINER * width, FINER * height))
    pen = ImageDraw.Draw(canvas)
    fine = (np.asarray(points) + 0.5) * FINER
    for (start, end), wide in zip(itertools.pairwise(fine), widths, strict=False):
        pen.line([tuple(start), tuple(end)], 255, max(1, round(FINER * float(wide))))
        radius = FINER * float(wide) / 2
        if radius >= 1:
            pen.ellipse([*(end - radius), *(end + radius)], 255)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX)).astype(np.float32) / 255


def blot(shape: tuple[int, int], radius: float, random: np.random.Generator, *, rough: float, soft: float) -> Float:
    """The cover of an irregular spot about the middle, of about ``radius``.

    rough: how much the outline varies, as a share of the radius. soft: how wide its edge is, pixels.
    """
    height, width = shape
    y, x = np.ogrid[:height, :width]
    right, down = x - (width - 1) / 2, y - (height - 1) / 2
    turn, stretch = random.uniform(0, math.pi), random.uniform(0.6, 1.0)
    along = (math.cos(turn) * right + math.sin(turn) * down).astype(np.float32)
    across = (math.cos(turn) * down - math.sin(turn) * right).astype(np.float32) / np.float32(stretch)
    angle = np.arctan2(across, along)
    outline = np.ones(shape, np.float32)
    for waves in range(2, 7):
        outline += np.float32(rough * random.standard_normal() * 2 / waves**1.7) * np.cos(
            waves * angle + np.float32(random.uniform(0, 2 * math.pi))
        )
    return smooth_step((radius * np.maximum(outline, 0.3) - np.hypot(along, across)) / max(soft, 1.0) + 0.5)


def chip(shape: tuple[int, int], radius: float, random: np.random.Generator, soft: float) -> Float:
    """The cover of a splinter about the middle: a polygon of straight breaks, five to eight, of about ``radius``."""
    height, width = shape
    count = int(random.integers(5, 9))
    angle = np.sort(
        random.uniform(0, 2 * math.pi) + 2 * math.pi * (np.arange(count) + random.uniform(0, 0.7, count)) / count
    )
    reach = radius * random.uniform(0.65, 1.25, count)
    corners = np.stack([width / 2 + reach * np.cos(angle), height / 2 + reach * np.sin(angle)], axis=1) * FINER
    canvas = Image.new("L", (FINER * width, FINER * height))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in corners], 255)
    cover = np.asarray(canvas.resize((width, height), Image.Resampling.BOX)).astype(np.float32) / 255
    return softened(cover, soft)


def clouds(shape: tuple[int, int], scale: float, random: np.random.Generator) -> Float:
    """Uneven (h, w) float32 of mean 0 and deviation 1: random grids of cells of ``scale`` and a half of it, enlarged smoothly."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for cell, weight in ((scale, 1.0), (scale / 2, 0.6)):
        grid = random.standard_normal((max(2, round(height / cell) + 2), max(2, round(width / cell) + 2)))
        plane = Image.fromarray(grid.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(plane)
    uneven: Float = (total - total.mean()) / max(float(total.std()), 1e-6)
    return uneven


def made_texture(shape: tuple[int, int], scale: float, random: np.random.Generator) -> Float:
    """(h, w) float32 of mean about 0 and deviation about 1: stripes, a weave, clouds or grains of about ``scale``."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = random.uniform(0, math.pi)
    along = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / scale)
    across = (y * math.cos(angle) - x * math.sin(angle)) * (2 * math.pi / scale)
    kind = random.integers(4)
    regular: Float
    if kind == 0:
        regular = np.sin(along + 0.6 * clouds(shape, 3 * scale, random)) * np.float32(1.4)
        return regular
    if kind == 1:
        regular = np.sin(along) + np.sin(across)
        return regular
    if kind == 2:
        return clouds(shape, scale, random)
    return np.clip(clouds(shape, scale / 2, random), -2, 2)


def softened(cover: Float, sigma: float) -> Float:
    """The cover with its edge blurred, standard deviation in pixels."""
    if sigma <= 0.2:
        return cover
    soft: Float = ndimage.gaussian_filter(cover, sigma, truncate=3)
    return soft


def smooth_step(values: Float) -> Float:
    """0 below 0, 1 above 1, and smooth in between."""
    clipped = np.clip(values, 0, 1)
    step: Float = clipped * clipped * (3 - 2 * clipped)
    return step
