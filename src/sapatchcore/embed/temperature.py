"""``temperature`` "auto": how far the products of layer 3's self-attention are divided, from the good images themselves.

Nothing in the paper's attention divides the products, so how sharp it is hangs on the scale of layer 3: with values far below 1
every row of the softmax is flat and gives the channel's mean; with large ones it is one-hot, and a position hears but itself.
In a channel of one image, the row of the position with the value x has the products x·x_j / T; over the positions j their
standard deviation is |x|·s / T, with s that of the channel's values. T is chosen so that this is 1 for a usual row of a usual
channel:

    T = mean over channels and images of rms(x)·s,    x the values that the attention reads: layer 3 after 3×3 max pooling

Of a channel with mean 0 that is its variance. A network whose layer 3 is a times as large gets a² times the temperature, and
a times the same context.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from itertools import chain, islice

import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore.data.sources import ImageSource, read_batches
from sapatchcore.embed.patches import Embedder

EXAMPLES = 32  # images that are looked at: all would hardly change the mean over so many channels
_SMALLEST, _LARGEST = 1e-6, 1e6  # settings.py takes none above


def with_temperature(embedder: Embedder, sources: Iterable[ImageSource]) -> tuple[Embedder, Iterable[ImageSource]]:
    """``embedder`` with a number for the temperature "auto", and the images to learn from, of which none is used up.

    sources: of the first ``EXAMPLES`` the network's layer 3 is looked at; they are handed on before the others. Where the
    temperature is a number that was given, both come back as they are. Without attention it has no effect, and becomes 1.

    Raises as ``Embedder.patches``.
    """
    settings = embedder.settings
    if settings.requested.get("temperature", settings.temperature) != "auto":
        return embedder, sources
    found = 1.0
    if settings.attention == "self":
        remaining = iter(sources)
        first = list(islice(remaining, EXAMPLES))
        found, sources = _typical(embedder, first), chain(first, remaining)
    resolved = copy.copy(embedder)  # a fit that fails leaves the detector's own as it was
    resolved.settings = settings.resolved(temperature=found)
    return resolved, sources


@torch.inference_mode()
def _typical(embedder: Embedder, images: list[ImageSource]) -> float:
    """The temperature for ``images``; 1 where they have no spread at all, or none are given.

    Three significant digits: the same number whatever the size of a batch, and the one that ``info`` prints.
    """
    total, count = 0.0, 0
    for batch in read_batches(images, embedder.settings):
        _, layer3 = embedder.network.features(torch.from_numpy(batch.pixels))
        spread = products_deviation(layer3.float().cpu())
        total, count = total + float(spread.sum()), count + len(spread)
    mean = total / count if count else 0.0
    return min(max(float(f"{mean:.3g}"), _SMALLEST), _LARGEST) if math.isfinite(mean) and mean > 0 else 1.0


def products_deviation(layer3: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) float32 → (n,) float64: the deviation of a row of products x·x_j, rms over x, mean over channels."""
    x = rearrange(F.max_pool2d(layer3, kernel_size=3, stride=1, padding=1), "n c h w -> n c (h w)").double()
    return (x.square().mean(2).sqrt() * x.std(2, correction=0)).mean(1)
