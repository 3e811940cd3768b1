"""What candidates are judged on: good images, and defects made on them, as the network's input has them; each seen once by each
network, however many candidates share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from sapatchcore.data.pixels import Size, UInt8Array, prepare
from sapatchcore.data.sources import ImageSource, read_image, source_name
from sapatchcore.datasets.samples import GOOD
from sapatchcore.defects.combinations import COMBINATIONS
from sapatchcore.defects.foreground import Foreground
from sapatchcore.defects.local_defects import LOCAL
from sapatchcore.defects.made import MadeDefect, generator, make_defect
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError
from sapatchcore.settings import Settings

if TYPE_CHECKING:
    from sapatchcore.defects.subject import Subject

FEWEST = 10  # good images: with less, each third that is held out is three images or fewer
MOST = 90  # that are looked at while candidates are compared; the model that comes out learns from all
WANTED = 120  # made defects of each group, or somewhat more
SHOWN = 16  # kept at full size, for people to look at

Shown = tuple[UInt8Array, MadeDefect]  # a good image, and a defect on it


@dataclass(frozen=True)
class AtSize:
    """At one input size. images: (h, w, 3) uint8 each. kinds: "good", or a kind of defects/made.py. sources: the number of the
    good image that each is, or was made on."""

    images: list[UInt8Array]
    kinds: list[str]
    sources: list[int]


class MadeImages:
    """Some of the good images, evenly spread over all, and what is made on them. Defects are made at the images' own size, so
    that a larger input may see more of a small one."""

    def __init__(self, sources: Sequence[ImageSource], seed: int) -> None:
        """Raises DataError where there are fewer than ``FEWEST``, one cannot be read, or they show no part."""
        if len(sources) < FEWEST:
            raise DataError(
                f"tune needs at least {FEWEST} good images, since some must be held out of what is learned. Got {len(sources)}. "
                "Give more, or use fit with preset recommended."
            )
        numbers = np.unique(np.linspace(0, len(sources) - 1, min(MOST, len(sources))).round().astype(int))
        self.sources = [sources[number] for number in numbers]
        self.seed = seed
        self._foreground = Foreground.of([self._image(number) for number in range(0, len(self.sources), 4)])
        self.shape = self._image(0).shape[:2]
        self.shown: list[Shown] = []
        self._at: tuple[Size, AtSize] | None = None

    def __len__(self) -> int:
        return len(self.sources)

    def at(self, size: Size) -> AtSize:
        """All of them resized to (h, w); those of the size that was asked for last are kept."""
        if self._at is None or self._at[0] != size:
            found = AtSize([], [], [])
            first = not self.shown
            for number in range(len(self.sources)):
                image = self._image(number)
                defects = self._made(self._foreground.find(image), number)
                for kind, picture in ((GOOD, image), *((one.kind, one.image) for one in defects)):
                    found.images.append(prepare(picture, size, None))
                    found.kinds.append(kind)
                    found.sources.append(number)
                if first:
                    self.shown += [(image, one) for one in defects[: SHOWN - len(self.shown)]]
            self._at = size, found
        return self._at[1]

    def _image(self, number: int) -> UInt8Array:
        return read_image(self.sources[number], source_name(self.sources[number], number))

    def _made(self, subject: Subject, number: int) -> list[MadeDefect]:
        """Of each group so many that all images together have ``WANTED``; kinds take turns, one that the image does not allow
        leaves its turn to the next."""
        made: list[MadeDefect] = []
        each = -(-WANTED // len(self.sources))
        for kinds in (tuple(LOCAL), tuple(COMBINATIONS)):
            tried = [kinds[(number * each + turn) % len(kinds)] for turn in range(len(kinds))]
            done = 0
            for kind in tried:
                if done == each:
                    break
                found = make_defect(subject, kind, generator(self.seed, number, kind), self._foreground)
                if found is not None:
                    made.append(MadeDefect(*found, kind, number))
                    done += 1
        return made


class Remembered:
    """A frozen network that looks at an image once: what its two layers gave is kept, in float16, by a digest of the pixels.

    remembers: False passes images through, as they take their time then.
    """

    def __init__(self, network: Backbone) -> None:
        self._network, self.remembers = network, True
        self._found: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As of Backbone."""
        if not self.remembers:
            return self._network.features(images)
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
        new = [at for at, key in enumerate(keys) if key not in self._found]
        if new:
            first, second = (layer.half().cpu() for layer in self._network.features(images[new]))
            for row, at in enumerate(new):
                self._found[keys[at]] = first[row].clone(), second[row].clone()
        local, context = (torch.stack([self._found[key][layer] for key in keys]) for layer in (0, 1))
        device = self._network.device
        return local.to(device).float(), context.to(device).float()


class RememberingEmbedder(Embedder):
    """An embedder with a network that is shared."""

    def __init__(self, settings: Settings, network: Remembered) -> None:
        super().__init__(settings)
        self.shared = network

    @property
    def network(self) -> Backbone:
        """The shared one."""
        return cast("Backbone", self.shared)


class Networks:
    """Networks by name, with what they remember; only of the input size that was asked for last."""

    def __init__(self) -> None:
        self._size: Size | None = None
        self._found: dict[tuple[str, str, str], Remembered] = {}

    def embedder(self, settings: Settings) -> RememberingEmbedder:
        """For ``settings`` of one network. Raises as ``Backbone``."""
        if settings.resize != self._size:
            self._size, self._found = settings.resize, {}
        key = settings.backbone, settings.weights, settings.precision
        if key not in self._found:
            self._found[key] = Remembered(Embedder(settings).network)
        return RememberingEmbedder(settings, self._found[key])
