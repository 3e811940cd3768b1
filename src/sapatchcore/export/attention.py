"""The self-attention of layer 3 as a graph, in time linear in the number of positions (embed/attention.py says what it is).

Per channel, out[i] = f(x[i]) with one function of one number,

    f(t) = Σ_j x_j e^{t x_j} / Σ_j e^{t x_j}

whatever the position. So the sums are taken at a few *anchors* a_k, evenly over the channel's values, as moments about the middle
v_j = x_j − mid, M_p[k] = Σ_j e^{a_k x_j} v_j^p, and between anchors by Taylor's series, with r = t − a_k for the nearest anchor:

    f(t) = mid + Σ_p M_{p+1} r^p / p! / Σ_p M_p r^p / p!

There are so many anchors that |r·v| ≤ ½; eight terms then leave 2⁻⁸ / 8! ≈ 10⁻⁷ of a sum of positive numbers, less than float32's
own rounding in it, whatever the data. Where that would take more anchors than there are positions, the positions' values are the
anchors, r is 0, and nothing is approximated.
"""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange

_TERMS = 8
_REACH = 0.5  # of |r·v|
_NUMBERS = 1 << 24  # of an image's exponentials in one slice of channels at most (64 MB), up to ``_SLICES`` of them
# All of them stand in the graph. Beyond, a slice takes more where there are as many anchors as positions, which is rare: 4,096
# positions would need a channel whose values lie 90 apart.
_SLICES = 32


def anchored_attention(x: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) float32 → the same: out[i] = Σ_j softmax_j(x[i]·x[j]) · x[j] for each channel by itself."""
    n, c, h, w = x.shape
    rows = rearrange(x, "n c h w -> n c (h w)")
    step = max(-(-c // _SLICES), _NUMBERS // rows.shape[2] ** 2)
    slices = [rows[:, first : first + step] for first in range(0, rows.shape[1], step)]
    mixed = [_mix(part.flatten(0, 1)).unflatten(0, (n, part.shape[1])) for part in slices]
    return rearrange(torch.cat(mixed, dim=1), "n c (h w) -> n c h w", h=h, w=w)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Each channel of an image, a row (r, N) float32, by itself → (r, N)."""
    positions = x.shape[1]
    high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    span, middle = high - low, (high + low) / 2
    steps = torch.ceil((span * span).amax(dim=(0, 1)) / (4 * _REACH)).clamp(min=1)  # between anchors, by the widest row
    dense = steps + 1 > positions
    most = torch.full((), positions, dtype=torch.float32)
    count = cast(int, torch.minimum(steps + 1, most).to(torch.int64).item())  # not int(…): it is a symbol in an export
    torch._check(count >= 1)
    torch._check(count <= positions)
    apart = torch.clamp(span / steps, min=1e-30)
    anchors = torch.where(dense, x.narrow(1, 0, count), low + torch.arange(count, dtype=torch.float32) * apart)[
        :, :, None
    ]
    # a·x[j] less its largest value over j, which is that of the row's largest or smallest x[j].
    weights = torch.minimum(anchors * (x - high)[:, None, :], anchors * (x - low)[:, None, :]).exp()  # (r, k, N)

    powers = [torch.ones_like(x), x - middle]
    while len(powers) < _TERMS + 1:
        powers.append(powers[-1] * powers[1])
    moments = torch.stack(powers, dim=1) @ weights.transpose(1, 2)  # (r, terms + 1, k)
    position = (x - low) / apart  # among the anchors
    near = torch.round(position)
    rest = torch.where(dense, torch.zeros_like(x), (position - near) * apart)
    near = torch.where(dense, torch.arange(positions, dtype=torch.float32), near).to(torch.int64)
    here = [moments[:, p].gather(1, near) for p in range(_TERMS + 1)]
    return middle + _series(here[1:], rest) / _series(here[:-1], rest)


def _series(moments: list[torch.Tensor], r: torch.Tensor) -> torch.Tensor:
    """Σ_p moments[p] · r^p / p!"""
    total = moments[-1]
    for p in range(len(moments) - 1, 0, -1):
        total = moments[p - 1] + total * (r * (1 / p))
    return total
