"""An image score beyond the paper's: the largest mean of neighbouring patches, and the global part beside the patches'.

*smoothed*: the largest of the patch scores' means over 3×3 patches. A patch that is far from the bank by chance stands alone;
a defect is seldom one patch. Local and context part share the score out in the ratio of their mean squares, so that
score² = local² + context² holds here, too.

*Fused*. Of good images' scores of either part, beyond the quantile q = 0.9 the excess has a mean b; taken as exponential, a
score s is exp(−(s − q)/b) times rarer than the worst tenth. The larger of both evidences counts, the global one less 2:

    score = max(s_p, q_p + b_p [(s_g − q_g)/b_g − 2])

So the score stays the patches' own wherever the image as a whole is not e² times the rarer. A maximum, since a part that knows
nothing must not hide one that knows: to a sum, or to a maximum without the handicap, it adds its noise everywhere
(``benchmarks/core/recommended.py`` compares eight rules). Two parts are looked at, and good images' own fused scores are what
thresholds rest on, so that the promise is the fused score's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sapatchcore.settings import Settings

if TYPE_CHECKING:
    from sapatchcore.embed.patches import Patches
    from sapatchcore.memory.pooled import GlobalPart

Float32 = npt.NDArray[np.float32]
Arrays = tuple[npt.NDArray[Any], ...]
Scales = tuple[float, ...]  # q and b of the patches' own scores, then of the global ones

TAIL = 0.9  # of good images' scores: from here on the tail is taken as exponential
HANDICAP = 2.0  # the global part's


def smoothed(grids: Float32) -> Float32:
    """(n, h, w) → the mean of each cell and those around it that are in the grid, (n, h, w) float32."""
    total, count = np.zeros(grids.shape, np.float32), np.zeros(grids.shape[1:], np.float32)
    h, w = grids.shape[1:]
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            to = slice(max(0, -down), h - max(0, down)), slice(max(0, -across), w - max(0, across))
            of = slice(max(0, down), h + min(0, down)), slice(max(0, across), w + min(0, across))
            total[:, *to] += grids[:, *of]
            count[to] += 1
    return total / count


def image_scores(grids: Float32, image_score: str) -> Float32:
    """(n,) float32: the image score "smoothed" of patch scores (n, h, w), or else "max", which "reweighted" never exceeds."""
    largest: Float32 = (smoothed(grids) if image_score == "smoothed" else grids).max((1, 2))
    return largest


def smoothed_scores(whole: Float32, local: Float32, context: Float32) -> tuple[Float32, Float32, Float32]:
    """The image score "smoothed" and its local and context part, (n,) float32 each, of patch scores and parts (n, h, w)."""
    n = len(whole)
    means = smoothed(whole).reshape(n, -1)
    at = np.arange(n), means.argmax(1)
    score = means[at]
    shares = [smoothed(np.square(part)).reshape(n, -1)[at] for part in (local, context)]
    total = np.maximum(shares[0] + shares[1], np.float32(1e-30))
    return score, score * np.sqrt(shares[0] / total), score * np.sqrt(shares[1] / total)


def scales_of(largest: Float32, global_scores: Float32) -> Scales:
    """What ``fused`` needs, from both scores (n,) of good images that were not learned from: of each part q and b."""
    return (*tail(largest), *tail(global_scores))


def tail(scores: Float32) -> tuple[float, float]:
    """q and b of good images' scores (n,): the quantile at ``TAIL``, and the mean excess beyond it."""
    values = scores.astype(np.float64)
    begin = float(np.quantile(values, TAIL))
    beyond = values[values > begin] - begin
    spread = float(beyond.mean()) if len(beyond) else 0.0
    return begin, max(spread, 1e-6 * abs(begin), 1e-12)  # good images that are all alike have no tail


def fused(largest: Float32, global_scores: Float32, scales: Scales) -> Float32:
    """(n,) float32: one score of the patches' own (n,) and the global one (n,)."""
    begin, spread, global_begin, global_spread = scales
    lead = (global_scores.astype(np.float64) - global_begin) / global_spread - HANDICAP
    found: Float32 = np.maximum(largest, (begin + spread * lead).astype(np.float32))
    return found


def beyond_the_largest(arrays: Arrays, patches: Patches, part: GlobalPart | None, settings: Settings) -> Arrays:
    """What ``score_patches`` found, with the image score that ``settings`` ask for.

    part: with it, the scores are fused, and two arrays follow: the global scores (n,) and each place's share of their squares
    (n, h, w), float32.
    """
    if settings.image_score == "smoothed":
        arrays = (*smoothed_scores(*arrays[3:6]), *arrays[3:])
    if part is None:
        return arrays
    assert patches.layers is not None  # as settings have a global part
    from sapatchcore.memory.pooled import pooled

    statistics = pooled(patches.layers)
    scores = part.gaussian.distance(statistics).numpy().astype(np.float32)
    shares = part.gaussian.shares(patches.layers, statistics, patches.cell)
    whole = arrays[0] if part.scales is None else fused(arrays[0], scores, part.scales)
    return (whole, *arrays[1:], scores, shares.unflatten(1, patches.grid).cpu().numpy())
