"""Photographs that tests make defects on: a bar on a ground, textures, a tray of pieces; each with where its part is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
GROUND, BAR = (200, 196, 188), (70, 74, 82)
PIECES = {"disc": (210, 170, 60), "bar": (160, 60, 50), "hook": (60, 90, 190)}


def photographed(scene: npt.NDArray[Any], rng: np.random.Generator) -> UInt8:
    """(h, w, 3) uint8: the scene, blurred as by a lens, darker in the corners, with noise."""
    height, width = scene.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - 0.12 * (x**2 + y**2)
    soft = ndimage.gaussian_filter(scene.astype(np.float64), (0.8, 0.8, 0)) * light[..., None]
    return np.clip(np.rint(soft + rng.normal(0, 1.2, (height, width, 1))), 0, 255).astype(np.uint8)


def bar(seed: int, size: tuple[int, int] = (160, 160), angle: float | None = None) -> tuple[UInt8, Bool]:
    """A ribbed dark bar anywhere on a light ground, at any angle; and where it is, (h, w) bool."""
    rng = np.random.default_rng(seed)
    height, width = size
    turn = rng.uniform(0, math.pi) if angle is None else angle
    row, column = np.array(size) / 2 + rng.uniform(-0.08, 0.08, 2) * size
    y, x = np.mgrid[:height, :width]
    along = (x - column) * math.cos(turn) + (y - row) * math.sin(turn)
    across = (y - row) * math.cos(turn) - (x - column) * math.sin(turn)
    side = min(size)
    mask = (np.abs(along) < 0.32 * side) & (np.abs(across) < 0.09 * side)
    ribs = 1 + 0.5 * np.sin(along * 2 * math.pi / (0.07 * side))
    scene = np.where(mask[..., None], np.array(BAR) * ribs[..., None], np.array(GROUND))
    return photographed(scene, rng), mask


def mesh(seed: int, side: int = 160) -> UInt8:
    """A regular wire mesh that fills the image, at any angle."""
    rng = np.random.default_rng(seed)
    turn, start = rng.uniform(0, math.pi), rng.uniform(0, 10, 2)
    y, x = np.mgrid[:side, :side]
    along = x * math.cos(turn) + y * math.sin(turn) + start[0]
    across = y * math.cos(turn) - x * math.sin(turn) + start[1]
    wires = np.maximum(np.cos(along * 2 * math.pi / 13), np.cos(across * 2 * math.pi / 13))
    return photographed(np.repeat((150 - 90 * (wires > 0.7))[..., None], 3, -1), rng)


def casting(seed: int, side: int = 160) -> UInt8:
    """A rough surface that fills the image: grains without a direction."""
    rng = np.random.default_rng(seed)
    grains = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.2)
    return photographed(np.repeat((150 + 28 * grains / grains.std())[..., None], 3, -1), rng)


def tray(seed: int, side: int = 256) -> tuple[UInt8, dict[str, tuple[int, int]]]:
    """A tray with two compartments on a dark bench, a disc in one, a bar and a hook in the other; and their middles, row and
    column."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    scene = np.tile(np.array([45.0, 42.0, 40.0]), (side, side, 1))
    scene[(np.abs(x - 0.5) < 0.44) & (np.abs(y - 0.5) < 0.44)] = (120, 128, 135)
    for low, high in ((0.10, 0.47), (0.53, 0.90)):
        scene[(np.abs(x - 0.5) < 0.39) & (y > low) & (y < high)] = (150, 158, 165)
    middles = {}
    for name, (row, column) in {"disc": (0.28, 0.5), "bar": (0.71, 0.32), "hook": (0.71, 0.68)}.items():
        row, column = row + rng.uniform(-0.05, 0.05), column + rng.uniform(-0.06, 0.06)
        right, down = x - column, y - row
        if name == "disc":
            here = np.hypot(right, down) < 0.05
        elif name == "bar":
            here = (np.abs(right) < 0.025) & (np.abs(down) < 0.09)
        else:
            here = (np.abs(right) < 0.02) & (np.abs(down) < 0.09)
            here |= (right > -0.02) & (right < 0.10) & (np.abs(down - 0.07) < 0.02)
        scene[here] = PIECES[name]
        middles[name] = (round(row * side), round(column * side))
    return photographed(scene, rng), middles
