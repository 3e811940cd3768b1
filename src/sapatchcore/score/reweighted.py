"""Roth et al.'s weight of an image score, by how crowded the memory bank is around its match (2022, equations 6 and 7).

    m*_test, m* = the patch with the largest score and its nearest patch of the bank;   s* = |m*_test − m*|
    s = (1 − exp(s*) / Σ_{m ∈ N_b(m*)} exp|m*_test − m|) · s*

N_b(m*) are the b patches of the bank nearest to *m\\**, itself among them, as in Roth et al. TNVision sums over the b
patches nearest to *m\\*_test* instead; where bank patches lie close together the two sets, and so the scores, are alike.
"""

from __future__ import annotations

import torch

from sapatchcore.embed.patches import Patches
from sapatchcore.errors import SettingsError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.search.brute_force import nearest


def weights(
    scores: torch.Tensor,
    patches: Patches,
    worst: torch.Tensor,
    row: torch.Tensor,
    bank: Bank,
    k: int,
    excluded: torch.Tensor | None = None,
) -> torch.Tensor:
    """(n,) float32: what each image score is multiplied by.

    scores: (n,) s*. patches, worst: of n images, and which patch (n,) int64 of each is m*_test. row: (n,) int64, m* in the
    bank. k: b. excluded: as of ``Bank.compare``.

    Raises SettingsError for a bank of one patch.
    """
    if len(bank.rows) == 1:
        raise SettingsError(
            "image_score 'reweighted' needs a memory bank of 2 or more patches. Got 1: every image's score would be 0. "
            "Use a larger coreset_ratio, or image_score max."
        )
    image = torch.arange(len(worst), device=worst.device)
    patch = torch.cat((patches.local[image, worst], patches.context[image, patches.cell[worst]]), dim=1)
    return neighbourhood_weight(scores, distances_around(bank, patch, row, k, excluded))


def neighbourhood_weight(distance: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """The factor of "reweighted", in [0, 1).

    Args:
        distance: (n,) s*, from m*_test to m*.
        distances: (n, b) from m*_test to the patches of N_b(m*), m* itself among them.

    Returns:
        (n,) float32. Computed as a softmax, so that large distances do not overflow.
    """
    return 1 - torch.exp(-torch.logsumexp(distances - distance[:, None], dim=1)).clamp(max=1)


@torch.inference_mode()
def distances_around(
    bank: Bank, patch: torch.Tensor, row: torch.Tensor, k: int, excluded: torch.Tensor | None = None
) -> torch.Tensor:
    """(n, k) distances from each patch (n, d) to the k rows nearest to *row* (n,), the row itself among them.

    excluded: as of ``Bank.compare``. Where fewer rows are left, the last distances are -inf, which weigh nothing.
    """
    own = torch.zeros(len(patch), dtype=torch.int64)
    if excluded is not None:
        owners, counts = bank.owners
        at = torch.searchsorted(owners, excluded.cpu()).clamp(max=len(owners) - 1)
        own = torch.where(owners[at] == excluded.cpu(), counts[at], 0)
    there = (len(bank.rows) - own).clamp(max=k)  # (n,)
    out = patch.new_full((len(patch), k), -torch.inf)
    for count in there.unique().tolist():
        chosen = (there == count).nonzero().squeeze(1).to(patch.device)
        away = None if excluded is None else excluded.to(patch.device)[chosen]
        _, neighbours = nearest(bank.rows[row[chosen]], bank.rows, count, away, bank.groups)
        out[chosen, :count] = (patch[chosen, None] - bank.rows[neighbours]).square().sum(2).sqrt()
    return out
