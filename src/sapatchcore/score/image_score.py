"""From patch scores to one score an image (paper step 8; Roth et al. 2022, equations 6 and 7).

    m*_test, m* = the patch with the largest score and its nearest patch of the bank;   s* = |m*_test − m*|
    "max":         s = s*                                                     (the authors of SA-PatchCore)
    "reweighted":  s = (1 − exp(s*) / Σ_{m ∈ N_b(m*)} exp|m*_test − m|) · s*

N_b(m*) are the b patches of the bank nearest to *m\\**, itself among them, as in Roth et al. TNVision sums over the b
patches nearest to *m\\*_test* instead; where bank patches lie close together the two sets, and so the scores, are alike.
"""

from __future__ import annotations

import torch


def largest(patch_scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, p) → the largest score of each image and which patch has it, (n,) each; the first one of equals."""
    top = patch_scores.amax(1)
    return top, (patch_scores == top[:, None]).int().argmax(1)


def neighbourhood_weight(distance: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """The factor of "reweighted", in [0, 1).

    Args:
        distance: (n,) s*, from m*_test to m*.
        distances: (n, b) from m*_test to the patches of N_b(m*), m* itself among them.

    Returns:
        (n,) float32. Computed as a softmax, so that large distances do not overflow.
    """
    return 1 - torch.exp(-torch.logsumexp(distances - distance[:, None], dim=1)).clamp(max=1)
