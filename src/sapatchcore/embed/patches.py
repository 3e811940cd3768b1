"""From two feature maps to patches (paper steps 3 to 5).

Every cell of layer 2's grid is a patch. Its vector is layer 2's cell, average-pooled over 3×3, followed by the cell of
layer 3 that covers it, mixed over the whole image by self-attention. Squared distances over concatenated channels add
up, so both parts are kept apart here: *local* (layer 2) and *context* (layer 3). The context is kept at layer 3's own
grid, where every cell is stored once and not once for each patch that it serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore.embed.attention import self_attention
from sapatchcore.errors import DataError


@dataclass(frozen=True)
class Patches:
    """The embedding of n images.

    local: (n, p, c2) float32, p = h2·w2 patches an image. context: (n, r, c3) float32, r = h3·w3.
    cell: (p,) int64, the row of ``context`` that serves each patch. grid: (h2, w2). mixed: (n, c3, h3, w3) float32, what the
    context was mixed from, pooled already where there is self-attention; None where nobody will ask.
    """

    local: torch.Tensor
    context: torch.Tensor
    cell: torch.Tensor
    grid: tuple[int, int]
    mixed: torch.Tensor | None = None

    def rows(self) -> torch.Tensor:
        """(n, p, c2 + c3) float32: the patches as the paper has them."""
        return torch.cat((self.local, self.context[:, self.cell]), dim=2)

    def split(self, images: int) -> list[Patches]:
        """The same patches, up to ``images`` images at a time."""
        parts = zip(self.local.split(images), self.context.split(images), strict=True)
        return [Patches(local, context, self.cell, self.grid) for local, context in parts]


def to_patches(
    layer2: torch.Tensor,
    layer3: torch.Tensor,
    attention: str,
    temperature: float = 1.0,
    context_weight: float = 1.0,
) -> Patches:
    """Pool, mix and pair two feature maps.

    Args:
        layer2: (n, c2, h2, w2), any floating point dtype.
        layer3: (n, c3, h3, w3), at most as fine as ``layer2``.
        attention: "self" (max pooling, then self-attention: SA-PatchCore) or "none" (average pooling: PatchCore).
        temperature: divides the attention's products. context_weight: multiplies the context. Both are 1 in the paper.
    """
    layer2, layer3 = layer2.float(), layer3.float()
    local = F.avg_pool2d(layer2, kernel_size=3, stride=1, padding=1)
    if attention == "self":
        layer3 = F.max_pool2d(layer3, kernel_size=3, stride=1, padding=1)
        # (x/√t)·(x/√t) = x·x/t, and the values come back by √t.
        context = self_attention(layer3 / temperature**0.5) * temperature**0.5
    else:
        context = F.avg_pool2d(layer3, kernel_size=3, stride=1, padding=1)
    grid = (layer2.shape[2], layer2.shape[3])
    return Patches(
        rearrange(local, "n c h w -> n (h w) c").contiguous(),
        rearrange(context * context_weight, "n c h w -> n (h w) c").contiguous(),
        covering_cell(grid, (layer3.shape[2], layer3.shape[3])).to(local.device),
        grid,
        layer3,
    )


def require_numbers(patches: Patches, names: tuple[str, ...], precision: str) -> None:
    """Raises DataError, with the image's name, where the network gave infinity or NaN: no score could be trusted."""
    sums = patches.local.sum(dim=(1, 2)) + patches.context.sum(dim=(1, 2))
    if not bool(torch.isfinite(sums).all()):
        name = names[int(torch.isfinite(sums).int().argmin())]
        raise DataError(
            f"The network gave numbers that are not finite for {name}, computed in {precision}. "
            "Use precision float32 (float16 ends at 65504), or other weights."
        )


def covering_cell(fine: tuple[int, int], coarse: tuple[int, int]) -> torch.Tensor:
    """(h2·w2,) int64: which cell of the coarse grid lies under each cell of the fine one (nearest upsampling)."""
    cells = torch.arange(coarse[0] * coarse[1], dtype=torch.float64).reshape(1, 1, *coarse)
    return F.interpolate(cells, size=fine, mode="nearest").flatten().long()
