"""From images to patches: the network's two feature maps, pooled, mixed and paired (paper steps 1 to 5).

Every cell of layer 2's grid is a patch. Its vector is layer 2's cell, average-pooled over 3×3, followed by the cell of layer 3
that covers it, mixed over the whole image by self-attention. Squared distances over concatenated channels add up, so both parts
are kept apart here: *local* (layer 2) and *context* (layer 3). The context stays on layer 3's own grid, each cell once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore.data.copies import with_copies
from sapatchcore.data.sources import Batch, ImageSource, Progress, read_batches
from sapatchcore.embed.attention import self_attention
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.network import GIVEN, choose_device
from sapatchcore.embed.tiles import backbone_class
from sapatchcore.embed.weights import Weights
from sapatchcore.embed.whitening import Whitening, ready
from sapatchcore.errors import DataError, NotFittedError
from sapatchcore.settings import Settings


@dataclass(frozen=True)
class Patches:
    """The embedding of n images.

    local: (n, p, c2) float32, p = h2·w2 patches an image. context: (n, r, c3) float32, r = h3·w3.
    cell: (p,) int64, the row of ``context`` that serves each patch. grid: (h2, w2). mixed: (n, c3, h3, w3) float32, what the
    context was mixed from, pooled already where there is self-attention; None where nobody will ask. layers: the two feature maps
    (n, c, h, w) float32 as the network gave them, where there is a global part. whitening: what both parts were multiplied by.
    """

    local: torch.Tensor
    context: torch.Tensor
    cell: torch.Tensor
    grid: tuple[int, int]
    mixed: torch.Tensor | None = None
    layers: tuple[torch.Tensor, torch.Tensor] | None = None
    whitening: Whitening | None = None

    def rows(self) -> torch.Tensor:
        """(n, p, c2 + c3) float32: the patches as the paper has them."""
        return torch.cat((self.local, self.context[:, self.cell]), dim=2)

    def split(self, images: int) -> list[Patches]:
        """The same patches, up to ``images`` images at a time."""
        parts = zip(self.local.split(images), self.context.split(images), strict=True)
        return [Patches(local, context, self.cell, self.grid) for local, context in parts]


class Embedder:
    """The one way from images to patches, for fit, predict and all else. The network is built when it is first needed."""

    def __init__(self, settings: Settings, given: Weights | None = None, whitening: Whitening | None = None) -> None:
        """given: the network's weights, where they came with a model file; whitening: what fit took from good images."""
        self.settings, self.whitening, self._given = settings, whitening, given
        self._network: Backbone | None = None

    @property
    def network(self) -> Backbone:
        """The frozen network. Raises as ``Backbone``, and SettingsError for a device that is not there."""
        if self._network is None:
            settings = self.settings
            self._network = backbone_class(settings.tiles)(
                settings.backbone,
                weights=GIVEN if self._given is not None else settings.weights,
                layers=settings.layers,
                input_size=settings.input_size,
                device=choose_device(settings.device),
                precision=settings.precision,
                seed=settings.seed,
                given=self._given,
            )
            self._given = None
        return self._network

    def patches(self, sources: Iterable[ImageSource], first: int = 0) -> Iterator[tuple[Batch, Patches]]:
        """Steps 1 to 5 a batch at a time. first: the number of the first image, for the names of those that have no path."""
        for batch in read_batches(sources, self.settings, first):  # step 1: resized by Lanczos and cropped
            yield batch, self.embed(batch)

    def learned(
        self, sources: Iterable[ImageSource], progress: Progress | None, total: int | None, first: int = 0
    ) -> Iterator[tuple[Batch, Patches]]:
        """As ``patches``, of images to learn from: with their turned copies where ``augment`` asks for them.

        progress: stage "embed", called with the images, not the copies, that are done with. total: images, where that is known.
        """
        if self.settings.augment == "none":
            found = self.patches(sources, first)
        else:
            batches = with_copies(read_batches(sources, self.settings, first), self.settings)
            found = ((batch, self.embed(batch)) for batch in batches)
        done = 0
        for batch, patches in found:
            yield batch, patches
            done += batch.turns.count(0) if batch.turns else len(batch.names)
            if progress is not None:
                progress("embed", done, total)

    def embed(self, batch: Batch) -> Patches:
        """Steps 2 to 5 for one batch. Raises DataError, with the image's name, where the network gives infinity or NaN."""
        settings = self.settings
        with torch.inference_mode():
            layer2, layer3 = self.network.features(torch.from_numpy(batch.pixels))  # step 2: two layers
            options = settings.attention, settings.temperature, settings.context_weight
            patches = to_patches(layer2, layer3, *options)  # steps 3 to 5: pooled, mixed, paired
            if settings.global_part != "none":
                patches = replace(patches, layers=(layer2.float(), layer3.float()))
            if settings.metric == "whitened":
                by = ready(self.whitening, patches.local.device)
                whitened = patches.local @ by.local, patches.context @ by.context
                patches = replace(patches, local=whitened[0], context=whitened[1], whitening=by)
        finite = torch.isfinite(patches.local.sum(dim=(1, 2)) + patches.context.sum(dim=(1, 2)))
        if not bool(finite.all()):
            raise DataError(
                f"The network gave numbers that are not finite for {batch.names[int(finite.int().argmin())]}, computed in "
                f"{settings.precision}. Use precision float32 (float16 ends at 65504), or other weights."
            )
        return patches


def to_patches(
    layer2: torch.Tensor, layer3: torch.Tensor, attention: str, temperature: float | str = 1, context_weight: float = 1
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
        if isinstance(temperature, str):
            raise NotFittedError("temperature auto is taken from good images. Call fit first, or name a number.")
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


def covering_cell(fine: tuple[int, int], coarse: tuple[int, int]) -> torch.Tensor:
    """(h2·w2,) int64: which cell of the coarse grid lies under each cell of the fine one (nearest upsampling)."""
    cells = torch.arange(coarse[0] * coarse[1], dtype=torch.float64).reshape(1, 1, *coarse)
    return F.interpolate(cells, size=fine, mode="nearest").flatten().long()
