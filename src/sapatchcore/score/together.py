"""Several networks, one score: each has its own memory bank, and their parts come to one scale by good images' scores.

With d_k the distance of a patch from the bank of network k,

    patch score² = mean over k of (d_k / u_k)²,   local² and context² likewise,   u_k² = q_k σ_k

where q_k is the 0.9 quantile of good images' scores by that network alone, cross-fitted, and σ_k their standard deviation. A
root of mean squares, so that patch score² = local² + context² holds as for one network. Near q_k it changes as the sum of
d_k / σ_k does, up to a factor: a network weighs more whose good scores vary less; far beyond, the farthest weighs most.

Of patch scores the image score is taken as ever, "max" or "smoothed": where networks agree on a place it is large, and what
each alone finds odd by chance lies in different places. ``benchmarks/core/together.py`` compares rules, of image scores, too.

The global scores g_k come together likewise, and so does what places add to their squares. Both scores become one as of one
network (``fusion.py``), with q and b of good images' scores by the networks together.

A patch is a cell of the finest grid; squares of a coarser one come to it along straight lines, what places add is shared out
evenly. Good images' calibration follows from those of the networks: its promise is for the score of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.pixels import Size
from sapatchcore.score.anomaly_score import interpolated
from sapatchcore.score.calibration import Calibration, largest_values
from sapatchcore.score.fusion import Arrays, Scales, fused, scales_of, smoothed, smoothed_scores, tail

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CommonScale:
    """What brings the parts of K networks to one scale, from good images' scores.

    units: K, of patch scores. global_units: K, of global ones; none without a global part. fusion: of the two scores of all
    networks, q and b; None without a global part.
    """

    units: tuple[float, ...]
    global_units: tuple[float, ...] = ()
    fusion: Scales | None = None

    @classmethod
    def of(cls, each: Sequence[Calibration]) -> CommonScale:
        """Of the networks' calibrations, with the same images in the same order."""
        units = tuple(unit_of(_own(one)) for one in each)
        scores = [one.global_scores for one in each if one.global_scores is not None]
        if not scores:
            return cls(units)
        scale = cls(units, tuple(unit_of(one) for one in scores))
        own = _image_scores(_grids_together(each, scale), each[0].image_score)
        return replace(scale, fusion=scales_of(own, _root_mean_square(scores, scale.global_units)))


def unit_of(scores: Float32) -> float:
    """u of good images' scores (n,). Where they hardly vary σ is 1 % of q: few images may be alike by chance."""
    begin = tail(scores)[0]
    return max(math.sqrt(max(begin, 0.0) * max(float(np.std(scores.astype(np.float64))), 0.01 * begin)), 1e-12)


def together(each: Sequence[Arrays], scale: CommonScale, image_score: str, rows: Sequence[int]) -> Arrays:
    """One image score, map and so on of several networks.

    each: what ``score_patches`` gave of each network, for the same n images. rows: of each network's bank. The answer is as one
    network's; ``neighbours`` are the rows of the network with the largest share in a patch score, numbered through all banks.
    """
    grid = finest([one[3].shape[1:] for one in each])
    parts = [
        [on_grid(np.square(one[part] / np.float32(unit)), grid) for one, unit in zip(each, scale.units, strict=True)]
        for part in (4, 5)
    ]
    local, context = (np.sqrt(np.mean(part, axis=0, dtype=np.float32)) for part in parts)
    whole = np.hypot(local, context)
    decides = np.argmax(np.add(*map(np.stack, parts)), axis=0)  # (n, h, w)
    first = np.cumsum([0, *rows[:-1]])
    numbered = np.stack([covering(one[6], grid) + start for one, start in zip(each, first, strict=True)])
    neighbours = np.take_along_axis(numbered, decides[None], axis=0)[0]
    grids = (whole, local, context)
    if image_score == "smoothed":
        scores = smoothed_scores(*grids)
    else:
        flat = [part.reshape(len(part), -1) for part in grids]
        worst = np.arange(len(whole)), flat[0].argmax(1)
        scores = flat[0][worst], flat[1][worst], flat[2][worst]
    if scale.fusion is None:
        return (*scores, *grids, neighbours)
    global_scores = _root_mean_square([one[7] for one in each], scale.global_units)
    shares = [_shared_out(one[8], grid) / np.float32(v * v) for one, v in zip(each, scale.global_units, strict=True)]
    places: Float32 = np.mean(shares, axis=0, dtype=np.float32)
    score = fused(scores[0], global_scores, scale.fusion)
    return (score, *scores[1:], *grids, neighbours, global_scores, places)


def calibration_together(
    each: Sequence[Calibration], scale: CommonScale, resize: Size, crop: Size | None, peaks: Float32 | None = None
) -> Calibration:
    """The calibration of the score of all, from those of the networks, with the same images in the same order.

    peaks: (n,) float32, where they are known already.

    Of a calibration whole patch scores are kept of every place, of both parts the largest alone. So the largest local part of
    the networks together is taken as the root mean square of theirs, less what their whole scores lose, which are largest in
    different places, and the context part likewise: kinds rest on them, and no promise.
    """
    grids = _grids_together(each, scale)
    own = _image_scores(grids, each[0].image_score)
    apart = _root_mean_square([one.grids.max((1, 2)) for one in each], scale.units)
    kept = np.divide(grids.max((1, 2)), apart, out=np.ones_like(apart), where=apart > 0)
    of_global: dict[str, Any] = {}
    scores = own
    if scale.fusion is not None:
        whole = _root_mean_square([one.global_scores for one in each], scale.global_units)
        scores = fused(own, whole, scale.fusion)
        of_global = {"largest": own, "global_scores": whole}
    return replace(
        each[0],
        scores=scores,
        local=kept * _root_mean_square([one.local for one in each], scale.units),
        context=kept * _root_mean_square([one.context for one in each], scale.units),
        peaks=largest_values(grids, each[0].sizes, resize, crop) if peaks is None else peaks,
        grids=grids,
        rows=np.empty((len(own), 0, 0), np.int64),  # of each network's bank: its own calibration has them
        **of_global,
    )


def finest(grids: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The grid (h, w) with the most cells; the first of equals."""
    h, w = max(grids, key=lambda grid: grid[0] * grid[1])
    return h, w


def on_grid(cells: Float32, grid: tuple[int, int]) -> Float32:
    """(n, h, w) → (n, *grid), along straight lines; as it is where the grids are the same."""
    if cells.shape[1:] == grid:
        return cells
    down, across = (between_cells(*axis) for axis in zip(cells.shape[1:], grid, strict=True))
    found: Float32 = np.matmul(np.matmul(down, cells), across.T)
    return found


@lru_cache(maxsize=16)
def between_cells(cells: int, wanted: int) -> Float32:
    """(wanted, cells) float32: what brings an axis of ``cells`` to ``wanted`` ones along straight lines."""
    return np.asarray(interpolated(np.eye(cells), (np.arange(wanted) + 0.5) * cells / wanted - 0.5), np.float32)


def covering(cells: npt.NDArray[Any], grid: tuple[int, int]) -> npt.NDArray[Any]:
    """(n, h, w) → (n, *grid): of each cell of the grid the one that covers it."""
    down, across = (np.arange(wanted) * have // wanted for have, wanted in zip(cells.shape[1:], grid, strict=True))
    return cells[:, down[:, None], across]


def _shared_out(cells: Float32, grid: tuple[int, int]) -> Float32:
    """(n, h, w) → (n, *grid), each cell's number shared out evenly among those that it covers."""
    served = np.zeros(cells.shape[1:], np.float32)
    own = covering(np.arange(served.size).reshape(1, *served.shape), grid)[0]
    np.add.at(served.reshape(-1), own.ravel(), 1)
    return covering(cells / served, grid)


def _own(calibration: Calibration) -> Float32:
    """(n,) float32: the patches' own image scores, before they were fused."""
    return calibration.scores if calibration.largest is None else calibration.largest


def _grids_together(each: Sequence[Calibration], scale: CommonScale) -> Float32:
    """(n, h, w) float32 patch scores."""
    grid = finest([one.grids.shape[1:] for one in each])
    squares = [on_grid(np.square(one.grids / np.float32(u)), grid) for one, u in zip(each, scale.units, strict=True)]
    found: Float32 = np.sqrt(np.mean(squares, axis=0, dtype=np.float32))
    return found


def _image_scores(grids: Float32, image_score: str) -> Float32:
    found: Float32 = (smoothed(grids) if image_score == "smoothed" else grids).max((1, 2))
    return found


def _root_mean_square(values: Sequence[Float32 | None], units: Sequence[float]) -> Float32:
    """K × (n,) → (n,) float32."""
    squares = [np.square(np.asarray(one) / np.float32(unit)) for one, unit in zip(values, units, strict=True)]
    found: Float32 = np.sqrt(np.mean(squares, axis=0, dtype=np.float32))
    return found
