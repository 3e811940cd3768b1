"""Why an image was rejected: its kind, the nearest good patches, and what the context was drawn from.

A patch score splits exactly, score² = local² + context². The context splits further, over the places of the image: with
attention weights a_cj (Σ_j a_cj = 1), values x_cj, the patch's context out_c = w Σ_j a_cj x_cj and the context ref_c of its
nearest good patch,

    context² = Σ_c (out_c − ref_c)² = Σ_j Σ_c (out_c − ref_c) a_cj (w x_cj − ref_c)

so each place j has an exact share, and the shares add up to context². A large one is a place that drew the patch away from
what good images show; a negative one drew it back. We know of no other implementation that has this.

Where patches are whitened, the context is W out, and context² = |W (out − r)|² with r = W⁻¹ ref. The share of place j is then
Σ_c (W W (out − r))_c a_cj (w x_cj − r_c), the same sum in the network's own channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange

from sapatchcore.data.copies import cell_before, in_words
from sapatchcore.data.pixels import Size, crop_box
from sapatchcore.embed.patches import Patches
from sapatchcore.memory.bank import Bank
from sapatchcore.score.regions import Box, Region
from sapatchcore.score.verdict import Verdict
from sapatchcore.settings import Settings

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GoodPatch:
    """The patch of the memory bank nearest to a patch in question.

    image: the training image that it came from. box: (top, left, height, width), its cell in that image's own pixels.
    thumbnail: a JPEG file of what the network saw of that image, or b"" where none was kept. thumbnail_box: the cell in it,
    as shares of its height and width. turned: "", or where a copy is nearest how it was turned: then the thumbnail shows the
    copy, while ``box`` is in the image that it was made from.
    """

    image: str
    box: Box
    thumbnail: bytes
    thumbnail_box: tuple[float, float, float, float]
    turned: str = ""


@dataclass(frozen=True, eq=False)
class Cause:
    """One region, and its patch with the largest score.

    region: None where the image as a whole is rejected but no pixel of its map. cell: (row, column) of the patch in the
    grid; box: that cell in the image's own pixels. score, local, context: of the patch. good: its nearest good patch.
    drawn_from: (h, w) float32 on layer 3's grid: each place's share of context², adding up to it. network: of several, the one
    that explains, in the units of all; all numbers are its own.
    """

    region: Region | None
    cell: tuple[int, int]
    box: Box
    score: float
    local: float
    context: float
    good: GoodPatch
    drawn_from: Float32
    network: str = ""


@dataclass(frozen=True, eq=False)
class Explanation:
    """path: of the image. verdict: with its kind. causes: the largest peak first; at least one."""

    path: str
    verdict: Verdict
    causes: tuple[Cause, ...]


def cause_of(
    region: Region | None,
    grids: Sequence[npt.NDArray[Any]],
    size: Size,
    patches: Patches,
    image: int,
    bank: Bank,
    settings: Settings,
) -> Cause:
    """Why ``region`` of an image lies above the threshold; of the whole image where it is None.

    grids: patch scores, their local and context parts, and nearest rows of the bank, each (h, w). size: (H, W) of the image.
    patches, image: its patches, with ``mixed``, and its index among them.
    """
    scores, local, context, rows = grids
    shape = (scores.shape[0], scores.shape[1])
    inside = scores
    if region is not None:
        under = cells_under(region, size, shape, settings.resize, settings.crop)
        if under.any():  # a small region can lie between the cells' centres: then the image's worst patch stands for it
            inside = np.where(under, scores, -np.inf)
    at = divmod(int(inside.argmax()), shape[1])
    good = int(rows[at])
    return Cause(
        region=region,
        cell=at,
        box=cell_box(at, shape, size, settings.resize, settings.crop),
        score=float(scores[at]),
        local=float(local[at]),
        context=float(context[at]),
        good=good_patch(bank, good, settings),
        drawn_from=drawn_from(patches, image, at[0] * shape[1] + at[1], bank.rows[good], settings),
    )


def good_patch(bank: Bank, row: int, settings: Settings) -> GoodPatch:
    """Where row ``row`` of the bank came from."""
    image = bank.training[int(bank.images[row])]
    height, width = bank.grid
    at = divmod(int(bank.cells[row]), width)
    return GoodPatch(
        image=image.name,
        box=cell_box(cell_before(at, bank.grid, image.turn), bank.grid, image.size, settings.resize, settings.crop),
        thumbnail=image.thumbnail,
        thumbnail_box=(at[0] / height, at[1] / width, 1 / height, 1 / width),
        turned=in_words(image.turn),
    )


def cell_box(cell: tuple[int, int], grid: tuple[int, int], size: Size, resize: Size, crop: Size | None) -> Box:
    """(top, left, height, width) in an image of ``size`` (h, w) of one cell of the patch grid; at least a pixel."""
    top, left, height, width = crop_box(resize, crop)
    edges = []
    for at, cells, start, cropped, resized, pixels in zip(
        cell, grid, (top, left), (height, width), resize, size, strict=True
    ):
        first, last = ((start + share * cropped / cells) * pixels / resized for share in (at, at + 1))
        begin = min(round(first), pixels - 1)
        edges.append((begin, max(1, min(round(last), pixels) - begin)))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def cells_under(
    region: Region, size: Size, grid: tuple[int, int], resize: Size, crop: Size | None
) -> npt.NDArray[np.bool_]:
    """(h, w) bool: the cells of the grid whose centres lie in the region."""
    top, left, height, width = region.box
    centres = []
    for cells, start, cropped, resized, pixels in zip(
        grid, crop_box(resize, crop)[:2], crop_box(resize, crop)[2:], resize, size, strict=True
    ):
        centres.append(((start + (np.arange(cells) + 0.5) * cropped / cells) * pixels / resized).astype(int))
    rows, columns = centres[0] - top, centres[1] - left
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    picked = region.mask[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
    found: npt.NDArray[np.bool_] = inside & picked
    return found


@torch.inference_mode()
def drawn_from(patches: Patches, image: int, patch: int, good: torch.Tensor, settings: Settings) -> Float32:
    """(h, w) float32 on layer 3's grid: the share of each place in the patch's context², adding up to it.

    good: (d,) the bank's row that the patch is measured from. Zeros that pooling adds at the border count for the patch's
    own place.
    """
    assert patches.mixed is not None  # only what fit stores on disk lacks it
    shape = patches.mixed.shape[2:]
    values = rearrange(patches.mixed[image], "c h w -> c (h w)")  # (c, N)
    cell = int(patches.cell[patch])
    reference = good[patches.local.shape[2] :]  # (c,)
    away = patches.context[image, cell] - reference  # (c,)
    squared = away.square().sum()
    if patches.whitening is not None:
        by = patches.whitening.context
        away, reference = by @ away, torch.linalg.solve(by, reference)
    if settings.attention == "self":
        weights = torch.softmax(values[:, cell, None] * values / float(settings.temperature), dim=1)  # (c, N)
    else:
        row, column = divmod(cell, shape[1])
        weights = values.new_zeros(shape)
        weights[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 1 / 9
        weights = weights.flatten()  # (N,)
    pulled = weights * (settings.context_weight * values - reference[:, None])  # (c, N)
    shares = away @ pulled  # (N,)
    shares[cell] += squared - shares.sum()  # the padding's, and rounding
    found: Float32 = shares.reshape(tuple(shape)).cpu().numpy()
    return found
