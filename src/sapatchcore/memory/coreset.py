"""Which patches the memory bank keeps: greedy k-center selection (paper step 6; Roth et al. 2022, algorithm 1).

    next centre = argmax_i  min_{c chosen} |x_i − c|

The covering radius, max_i min_c |x_i − c|, is at most twice the best possible one (Gonzalez 1985).

We differ from the usual loop, which passes over all patches once for every centre, in the order of the work, not in the
choice. A patch's distance to the chosen centres only shrinks, so an old distance is an upper bound. Patches that lie
close together form a block; a block remembers how many centres it has seen and its largest distance. The block with the
largest bound is looked at: if it has missed centres, it meets them in one matrix product, less those that are too far
away to matter (triangle inequality); otherwise its farthest patch is the next centre. Rounding may swap near-ties; the
covering radius is the plain loop's.

The first centre is drawn at random and *belongs* to the coreset (in two well-known implementations it is lost).

Distances are taken in a random projection (Johnson and Lindenstrauss 1984): a Gaussian matrix keeps them up to a few percent in
128 dimensions, whatever the number of patches. We differ: the authors take scikit-learn's SparseRandomProjection with eps 0.9,
Roth et al. a linear map to 128.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.patches import Patches
from sapatchcore.errors import SettingsError
from sapatchcore.settings import Settings

BLOCK = 512  # large enough for an efficient matrix product, small enough to lie close together
ANCHORS = 256  # that a row is compared with at once
TOGETHER = 8192  # rows at a time
PRODUCT = 512  # rows at a time where each is compared with every centre: more leave the processor's cache
_SLACK = 1.0001  # on squared distances, above float32's rounding: a centre is skipped only if it surely does not matter


class Projection:
    """A seeded linear map (d,) → (dimensions,); ``dimensions=None`` gives the patch itself.

    The matrix is split like the patch, so that each cell of layer 3 is projected once and not once for every patch that it
    serves.
    """

    def __init__(self, local: int, context: int, dimensions: int | None, seed: int, device: torch.device) -> None:
        """local, context: channels of the two parts of a patch."""
        self.dimensions = dimensions or local + context
        self._matrix: torch.Tensor | None = None
        self._split = local
        if dimensions is not None:
            gauss = np.random.default_rng(seed).standard_normal((local + context, dimensions), dtype=np.float32)
            self._matrix = torch.from_numpy(gauss / np.float32(np.sqrt(dimensions))).to(device)

    def __call__(self, patches: Patches) -> torch.Tensor:
        """(n·p, dimensions) float32."""
        if self._matrix is None:
            return patches.rows().flatten(0, 1)
        local = patches.local @ self._matrix[: self._split]
        context = patches.context @ self._matrix[self._split :]
        return local.add_(context[:, patches.cell]).flatten(0, 1)

    def of_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """(m, dimensions) float32 of rows (m, d) of a memory bank."""
        return rows if self._matrix is None else rows @ self._matrix


def projection_of(settings: Settings, network: Backbone) -> Projection:
    """The projection that a coreset is chosen in: the same for the same settings and network."""
    return Projection(*network.channels, settings.projection, settings.seed, network.device)


@dataclass
class Block:
    rows: torch.Tensor  # (b,) int64
    middle: torch.Tensor  # (d,) mean of its patches
    reach: float  # largest distance from the middle
    seen: int = 0  # centres that its distances take into account


@dataclass(frozen=True)
class Coreset:
    """rows: (count,) int64 row numbers on the CPU, in the order in which they were chosen. radius: the covering radius, the
    largest Euclidean distance from any row to the nearest chosen one."""

    rows: torch.Tensor
    radius: float


def greedy_coreset(
    x: torch.Tensor, count: int, *, seed: int, progress: Callable[[int], None] | None = None
) -> torch.Tensor:
    """The rows of ``choose``: (count,) int64. Parameters and errors as there."""
    return choose(x, count, seed=seed, progress=progress).rows


@dataclass(frozen=True)
class Begun:
    """Rows that are chosen already. rows: (b,) int64, distinct. squared: (n,) float32, of each row of x, its squared distance to
    the nearest of these; infinite where there is none."""

    rows: torch.Tensor
    squared: torch.Tensor


@torch.inference_mode()
def choose(
    x: torch.Tensor,
    count: int,
    *,
    seed: int,
    among: torch.Tensor | None = None,
    begun: Begun | None = None,
    progress: Callable[[int], None] | None = None,
) -> Coreset:
    """Choose ``count`` rows of ``x`` by exact greedy k-center selection.

    Args:
        x: (n, d) float32, on any device; the work stays there. It is neither changed nor copied as a whole.
        count: how many rows to choose, 1 to n, those that are chosen already among them.
        seed: draws the first centre, where none is chosen already.
        among: (r,) int64, distinct: the rows to choose from, and to cover; None for all.
        begun: what is chosen already, of these rows; it comes first.
        progress: called with the number of centres chosen so far, now and then.

    Raises:
        SettingsError: ``count`` is outside 1 to n, or to r.
    """
    n = len(x) if among is None else len(among)
    if not 1 <= count <= n:
        raise SettingsError(f"The coreset's size must be in 1 to {n}, the number of patches. Got {count}.")
    random = np.random.default_rng(seed)
    pick = int(random.integers(n))
    pick = pick if among is None else int(among[pick])
    mean = x.mean(0)  # taken off below: distances stay, and |x|² + |c|² − 2x·c loses fewer digits
    blocks = blocks_of(x, mean, random, among)
    centres = torch.empty(count, x.shape[1], device=x.device)
    norms = torch.empty(count, device=x.device)
    chosen = torch.empty(count, dtype=torch.int64)
    first = 0 if begun is None else len(begun.rows)
    distance = torch.full((len(x),), torch.inf, device=x.device)  # squared, to the centres its block has seen
    bounds = [(-np.inf, b) for b in range(len(blocks))]  # (−largest squared distance, block): a heap, largest first
    if begun is not None and first:
        chosen[:first] = begun.rows
        distance = begun.squared.to(x.device, copy=True)
        distance[begun.rows.to(x.device)] = -torch.inf
        for b, block in enumerate(blocks):
            block.seen = first
            bounds[b] = (-float(distance[block.rows].max()), b)
        heapq.heapify(bounds)

    for k in range(first, count + 1):
        while k:
            bound, b = bounds[0]
            block = blocks[b]
            if block.seen == k:
                pick = int(block.rows[distance[block.rows].argmax()])
                radius = max(-bound, 0.0) ** 0.5  # 0 where all are chosen: their distances are -inf
                break
            missed, missed_norms = centres[block.seen : k], norms[block.seen : k]
            block.seen = k
            if len(missed) > 8 and bound != -np.inf:
                # |x − c| ≥ |middle − c| − reach for all x of the block: at or above the bound, c changes nothing.
                limit = (block.reach + max(-bound, 0.0) ** 0.5) ** 2 * _SLACK - float(block.middle.square().sum())
                near = torch.addmv(missed_norms, missed, block.middle, alpha=-2) < limit
                missed, missed_norms = missed[near], missed_norms[near]
                if len(missed) == 0:
                    continue
            points = x[block.rows].sub_(mean)
            squared = torch.addmm(missed_norms, points, missed.T, alpha=-2).amin(1).add_(points.square().sum(1))
            nearest = torch.minimum(distance[block.rows], squared)
            distance[block.rows] = nearest
            heapq.heapreplace(bounds, (-float(nearest.max()), b))
        if k == count:  # what would come next lies at the covering radius
            break
        chosen[k] = pick
        torch.sub(x[pick], mean, out=centres[k])
        norms[k] = centres[k].square().sum()
        distance[pick] = -torch.inf  # never again, not even among duplicates
        if progress is not None and k % 64 == 0:
            progress(k)
    if progress is not None:
        progress(count)
    return Coreset(chosen, radius)


@torch.inference_mode()
def squared_to_groups(x: torch.Tensor, rows: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """(groups, n) float32: of each row of ``x`` (n, d), the squared distance to the nearest of ``rows`` (b,) int64 in each group;
    infinite where a group has none. group: (b,) int64, 0 to ``groups`` − 1."""
    order, counts = group.argsort(stable=True), group.bincount(minlength=groups).tolist()
    mean = x.mean(0)
    centres = x[rows[order].to(x.device)] - mean
    norms = centres.square().sum(1)
    out = torch.full((groups, len(x)), torch.inf, device=x.device)
    few = x.new_empty(min(len(x), PRODUCT), len(centres))
    for start in range(0, len(x), PRODUCT):
        points = x[start : start + PRODUCT] - mean
        squared = torch.addmm(norms, points, centres.T, alpha=-2, out=few[: len(points)])
        own = points.square().sum(1)
        for number, part in enumerate(squared.split(counts, 1)):
            if part.shape[1]:
                out[number, start : start + PRODUCT] = part.amin(1).add_(own)
    return out


def covering_radius(x: torch.Tensor, chosen: torch.Tensor) -> float:
    """Largest Euclidean distance from a row of ``x`` (n, d) to the nearest of the rows ``chosen`` (m,) int64."""
    centres = x[chosen.to(x.device)]
    return max(float(torch.cdist(rows, centres).amin(1).max()) for rows in x.split(4096))


def blocks_of(
    x: torch.Tensor, mean: torch.Tensor, random: np.random.Generator, among: torch.Tensor | None = None
) -> list[Block]:
    """Blocks of about BLOCK rows that lie close together. among: (r,) int64, these rows alone.

    What is large is made once and used again: made anew each time, between small results that stay, it would take new room
    of the heap each time, more than a gigabyte for four million rows.
    """
    rows = torch.arange(len(x), device=x.device) if among is None else among.to(x.device)
    blocks, buffer = [], x.new_empty(min(len(rows), BLOCK), x.shape[1])
    for group in _close(x, mean, random, rows):
        for some in group.split(BLOCK):
            points = torch.index_select(x, 0, some, out=buffer[: len(some)]).sub_(mean)
            middle = points.mean(0)
            blocks.append(Block(some, middle, float(points.sub_(middle).square_().sum(1).max().sqrt())))
    return blocks


def _close(
    x: torch.Tensor, mean: torch.Tensor, random: np.random.Generator, rows: torch.Tensor
) -> Iterator[torch.Tensor]:
    """``rows`` (n,) int64 of ``x``, sorted by the nearest of some drawn at random, an anchor for each block.

    Each row is compared with each anchor, which would grow with n²: where there are many, the rows are first parted by few.
    """
    n = len(rows)
    blocks = -(-n // BLOCK)
    count = blocks if blocks <= ANCHORS else math.isqrt(blocks)
    drawn = torch.from_numpy(random.choice(n, size=count, replace=False)).to(x.device)
    anchors = x[rows[drawn]] - mean
    half_norms = anchors.square().sum(1) / 2
    nearest = torch.empty(n, dtype=torch.int64, device=x.device)
    points, far = x.new_empty(min(n, TOGETHER), x.shape[1]), x.new_empty(min(n, TOGETHER), count)
    for some, out in zip(rows.split(TOGETHER), nearest.split(TOGETHER), strict=True):
        here = torch.index_select(x, 0, some, out=points[: len(some)]).sub_(mean)
        torch.argmin(torch.addmm(half_norms, here, anchors.T, alpha=-1, out=far[: len(some)]), 1, out=out)
    sorted_rows = rows[nearest.argsort(stable=True)]
    if count == blocks:
        yield sorted_rows
        return
    for part in sorted_rows.split(nearest.bincount(minlength=count).tolist()):
        if len(part) > n // 2:  # such as rows that are all the same: to part them again would go on for ever
            yield part
        elif len(part):
            yield from _close(x, mean, random, part)
