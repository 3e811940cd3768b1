"""The self-attention of layer 3 (SA-PatchCore, section III; paper step 4).

For every image and every channel by itself, with the N = h·w positions' values x as query, key and value:

    out[i] = Σ_j softmax_j(x[i]·x[j]) · x[j]

No learned weights, no scaling, no positions, no mixing of channels. We differ from the authors' form, which stores one
N×N matrix a channel, in the order of the work alone: out[i] depends on x[i] only through its value, and max pooling
leaves many positions with the same value, so each distinct value is a query once. No N×N matrix is ever stored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch.nn.attention import SDPBackend, sdpa_kernel

# Rows with up to so many distinct values are computed together, padded to the largest of them.
_DISTINCT = (16, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096)
_ROWS = 1024  # rows at a time on a CPU: what they need in between stays in its cache
_SLICE = 1 << 24  # numbers in the largest slice of attention weights that is stored where no fused kernel is (64 MB)


def self_attention(x: torch.Tensor) -> torch.Tensor:
    """Mix every position of every channel with all others by the similarity of their values.

    Args:
        x: (n, c, h, w) floating point, on any device.

    Returns:
        (n, c, h, w) float32, contiguous: a weighted mean of the channel's values at every position.
    """
    n, c, h, w = x.shape
    rows = rearrange(x, "n c h w -> (n c) (h w)").float().contiguous()
    together = _ROWS if rows.device.type == "cpu" else len(rows)
    mixed = torch.cat([_mix(part) for part in rows.split(together)])
    return rearrange(mixed, "(n c) (h w) -> n c h w", n=n, c=c, h=h, w=w)


def _mix(rows: torch.Tensor) -> torch.Tensor:
    """Each channel of an image, a row (r, N) float32, by itself → (r, N)."""
    values, order = rows.sort(dim=1)
    # The place of each sorted value among its row's distinct values: 0 0 0 1 1 2 …
    place = torch.zeros_like(order)
    torch.cumsum(values[:, 1:] != values[:, :-1], dim=1, out=place[:, 1:])
    distinct = place[:, -1] + 1

    out = torch.empty_like(rows)
    done, positions = 0, rows.shape[1]
    for width in (*[width for width in _DISTINCT if width < positions], positions):
        chosen = ((distinct > done) & (distinct <= width)).nonzero().squeeze(1)
        done = width
        if len(chosen) == 0:
            continue
        keys, places = values[chosen], place[chosen]
        queries = keys.new_zeros(len(chosen), width).scatter_(1, places, keys)
        mixed = _attend(queries, keys).gather(1, places)
        out[chosen] = torch.empty_like(mixed).scatter_(1, order[chosen], mixed)
    return out


def _attend(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Σ_j softmax_j(q[i]·k[j]) · k[j] for each row by itself; queries (r, q), keys (r, k) float32 → (r, q)."""
    # The fused kernels of other devices take no head of size 1.
    return _attend_fused(queries, keys) if keys.device.type == "cpu" else _attend_sliced(queries, keys)


def _attend_fused(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    q, k = rearrange(queries, "r q -> 1 r q 1"), rearrange(keys, "r k -> 1 r k 1")
    # Asked for by name: for an input that it cannot take, PyTorch would silently store N×N.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, k, scale=1.0)[0, :, :, 0]


def _attend_sliced(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The plain form, in slices of at most _SLICE weights."""
    out = torch.empty_like(queries)
    rows = max(1, _SLICE // (queries.shape[1] * keys.shape[1]))
    positions = max(1, _SLICE // keys.shape[1])
    for r in range(0, len(queries), rows):
        k = keys[r : r + rows]
        for i in range(0, queries.shape[1], positions):
            q = queries[r : r + rows, i : i + positions]
            weights = torch.softmax(q[:, :, None] * k[:, None, :], dim=2)
            out[r : r + rows, i : i + positions] = (weights @ k[:, :, None])[:, :, 0]
    return out
