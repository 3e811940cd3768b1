"""What the embedding takes from good images before the first is learned: ``temperature`` "auto", ``metric`` "whitened", and the
shape of the input with ``keep_aspect``.

The first two are few numbers about very many patches, so some images say nearly what all would. The whitening
(``whitening.py``) is that of patches at the temperature found.

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
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch, ImageSource, load_ahead, read_batches, read_image, source_name
from sapatchcore.embed.patches import Embedder
from sapatchcore.embed.whitening import Moments, Whitening
from sapatchcore.presets import FEWEST
from sapatchcore.settings import Settings

EXAMPLES = 64  # images that a temperature is taken from, and most that are kept of images that can be read only once
WHITENED = 256  # that a whitening is taken from: with 64, scores vary by a few percent with the choice of images
LONGEST, MULTIPLE = 4, 32  # of the sides of an input in the images' shape
_SMALLEST, _LARGEST = 1e-6, 1e6  # of a temperature: settings.py takes none beyond

Examples = list[tuple[int, ImageSource]]  # each with its number among all, which names those that have no path


def adapted(
    embedder: Embedder, sources: Iterable[ImageSource], folds: int = 1
) -> tuple[Embedder, Iterable[ImageSource]]:
    """``embedder`` with what its settings take from good images, and the images to learn from, of which none is used up.

    sources: of a sequence some images, spread evenly over it, are looked at; of others the first ones, which are handed
    on before the rest. Where no setting asks for anything, both come back as they are. Without attention the temperature has
    no effect, and becomes 1. The recommended preset's global part is left out where the images are too few for one. folds: of the
    calibration to come, image i in fold i modulo their number; 1 where there is none.

    Raises as ``Embedder.patches``.
    """
    settings = embedder.settings
    if settings.preset == "recommended" and settings.global_part != "none" and settings.augment == "none":
        few, sources = examples_of(sources, FEWEST)
        if len(few) < FEWEST:
            embedder = copy.copy(embedder)
            settings = embedder.settings = settings.model_copy(update={"global_part": "none"})
    auto = settings.requested.get("temperature", settings.temperature) == "auto"
    if not auto and settings.metric == "euclidean" and not settings.keep_aspect:
        return embedder, sources
    most = WHITENED if settings.metric == "whitened" else EXAMPLES if auto else 1  # the first image has the shape
    examples, sources = examples_of(sources, most)
    _ = embedder.network  # built now, for the copy, too
    found = copy.copy(embedder)  # a fit that fails leaves the detector's own as it was
    if settings.keep_aspect and examples:
        size = size_like(examples[0][1], min(settings.resize))
        if size != settings.resize:
            settings = settings.model_copy(update={"resize": size})
            found = Embedder(settings, embedder.network.weights)  # a transformer is built for its input's size
    if auto:
        few = examples[:: max(1, -(-len(examples) // EXAMPLES))]
        number = _typical_temperature(found, few) if settings.attention == "self" else 1.0
        found.settings = settings.resolved(temperature=number)
    if settings.metric == "whitened":
        found.whitening = _whitening(found, examples, folds)
    return found, sources


def examples_of(sources: Iterable[ImageSource], most: int) -> tuple[Examples, Iterable[ImageSource]]:
    """Up to ``most`` of ``sources``, of those that can be read only once up to ``EXAMPLES``, and all of them."""
    if isinstance(sources, Sequence):
        count = min(most, len(sources))
        numbers = [at * len(sources) // count for at in range(count)]
        return [(number, sources[number]) for number in numbers], sources
    remaining = iter(sources)
    first = list(islice(remaining, min(most, EXAMPLES)))
    return list(enumerate(first)), chain(first, remaining)


def size_like(image: ImageSource, side: int) -> Size:
    """(h, w) with the shorter side ``side`` and the shape of ``image``; the longer one is a multiple of ``MULTIPLE``, and at most
    ``LONGEST`` times as long."""
    height, width = read_image(image, source_name(image, 0)).shape[:2]
    times = min(max(height, width) / min(height, width), LONGEST)
    longer = max(side, round(side * times / MULTIPLE) * MULTIPLE)
    return (longer, side) if height > width else (side, longer)


def _read(examples: Examples, settings: Settings) -> Iterator[Batch]:
    """Batches of one image: the same numbers whatever ``batch_size``."""
    alone = settings.model_copy(update={"workers": 0})

    def read(example: tuple[int, ImageSource]) -> Batch:
        (batch,) = read_batches([example[1]], alone, example[0])
        return batch

    return load_ahead(examples, read, workers=settings.workers, ahead=2 * settings.workers + 1)


def _typical_temperature(embedder: Embedder, examples: Examples) -> float:
    """The temperature for ``examples``, to three significant digits; 1 where they have no spread at all, or there are none."""
    spread = []
    for batch in _read(examples, embedder.settings):
        _, layer3 = embedder.network.features(torch.from_numpy(batch.pixels))
        spread.append(float(products_deviation(layer3.float().cpu())))
    mean = sum(spread) / len(spread) if spread else 0.0
    return min(max(float(f"{mean:.3g}"), _SMALLEST), _LARGEST) if math.isfinite(mean) and mean > 0 else 1.0


def products_deviation(layer3: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) float32 → (n,) float64: the deviation of a row of products x·x_j, rms over x, mean over channels."""
    x = rearrange(F.max_pool2d(layer3, kernel_size=3, stride=1, padding=1), "n c h w -> n c (h w)").double()
    return (x.square().mean(2).sqrt() * x.std(2, correction=0)).mean(1)


def _whitening(embedder: Embedder, examples: Examples, folds: int) -> Whitening:
    """Of the patches of ``examples``; a context counts once, however many patches it serves."""
    plain = copy.copy(embedder)
    plain.settings = embedder.settings.model_copy(update={"metric": "euclidean"})
    c2, c3 = embedder.network.channels
    moments = [(Moments(c2), Moments(c3)) for _ in range(folds)]
    for (number, _), batch in zip(examples, _read(examples, plain.settings), strict=True):
        patches, (local, context) = plain.embed(batch), moments[number % folds]
        local.add(patches.local[0])
        context.add(patches.context[0])
    return Whitening.of(moments)
