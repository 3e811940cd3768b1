"""Large images in tiles (`tiles`): the network sees overlapping tiles, all after it one pair of feature maps of the whole image.

Cells near a tile's edge have seen the network's padding in place of the picture. So neighbouring tiles overlap, by ``OVERLAP``
pixels on either side of the cut between them, and of each tile's feature maps only the part up to the cut is taken. Put side by
side these parts are the maps that the network would give for the whole image: equal to its own where a convolutional network
sees at most ``OVERLAP`` pixels around a cell, near to them where it sees farther (docs/tiles.md has figures). Pooling,
self-attention, bank and map then go on as if there had been no tiles: one bank, one map, a context of the whole image.

Along one axis, of an input of W pixels and a layer of stride S, which has C = ⌈W/S⌉ cells, a tile has L cells and begins at a
multiple of S; the last one ends with the image. So all have the same number of pixels, and each rounds odd sizes as the whole
image would, whatever W is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.network import strides_of
from sapatchcore.errors import SettingsError
from sapatchcore.settings import OVERLAP, Tiles

Size = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """A tile along one axis.

    pixels: of the input. cells: of the tile's own finer and coarser feature map, those that are taken.
    """

    pixels: slice
    cells: tuple[slice, slice]


def cut(side: int, tiles: int, strides: Size, *, counted: bool) -> tuple[Tile, ...]:
    """The tiles along one axis, in order, all of the same number of pixels.

    Args:
        side: pixels of the input along it.
        tiles: how many, where ``counted``; else the most pixels of one, and there are as few as will do.
        strides: of the finer and the coarser layer.

    Raises SettingsError where the overlap leaves a tile nothing of its own.
    """
    fine, coarse = strides
    cells = -(-side // coarse)
    rest = side - (cells - 1) * coarse  # pixels of the last cell
    # Cells beyond a cut, at a tile's beginning and at its end, whose last cell has ``rest`` pixels.
    before, after = -(-OVERLAP // coarse), 1 - (rest - OVERLAP) // coarse
    overlap = before + after
    if counted:
        count = tiles
        length = -(-(cells + overlap * (count - 1)) // count)
    else:
        length = min(cells, (tiles - rest) // coarse + 1)
        count = 1 if length == cells else -(-(cells - length) // max(1, length - overlap)) + 1
    # Where the first cells of neighbouring tiles are the same, one of them adds nothing.
    if count > 1 and (length <= overlap or cells - length < count - 1):
        raise SettingsError(
            f"tiles must leave each tile a part of its own. Got {tiles} {'tiles' if counted else 'pixels'} on a side of "
            f"{side} pixels, where neighbours overlap by {overlap * coarse}. Use larger or fewer tiles."
        )
    starts = [index * (cells - length) // max(1, count - 1) for index in range(count)]
    # A cut lies in the middle of what two neighbours share.
    cuts = [0, *((left + length + right + before - after) // 2 for left, right in pairwise(starts)), cells]
    pixels, scale = (length - 1) * coarse + rest, coarse // fine
    return tuple(
        Tile(
            slice(start * coarse, start * coarse + pixels),
            (
                slice((first - start) * scale, min((last - start) * scale, -(-pixels // fine))),
                slice(first - start, last - start),
            ),
        )
        for start, (first, last) in zip(starts, pairwise(cuts), strict=True)
    )


@dataclass(frozen=True)
class Tiling:
    """The tiles of an input: rows × columns of them."""

    rows: tuple[Tile, ...]
    columns: tuple[Tile, ...]

    @classmethod
    def of(cls, input_size: Size, tiles: Tiles, strides: Size) -> Tiling:
        """tiles: as of the settings, (rows, columns) or the most pixels a side. Raises as ``cut``."""
        counted = isinstance(tiles, tuple)
        down, across = tiles if isinstance(tiles, tuple) else (tiles, tiles)
        return cls(
            cut(input_size[0], down, strides, counted=counted), cut(input_size[1], across, strides, counted=counted)
        )

    @property
    def tile_size(self) -> Size:
        """(h, w) of every tile."""
        first = self.rows[0].pixels, self.columns[0].pixels
        return first[0].stop - first[0].start, first[1].stop - first[1].start

    def tiles(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(n, h, w, 3) → each tile (n, th, tw, 3), a row of tiles after the other."""
        return [images[:, row.pixels, column.pixels] for row in self.rows for column in self.columns]

    def joined(self, maps: list[torch.Tensor], layer: int) -> torch.Tensor:
        """The feature map of the whole image, (n, c, h', w'), from those of its tiles, ordered as ``tiles``; layer: 0 or 1."""
        along = [column.cells[layer] for column in self.columns]
        rows = []
        for index, row in enumerate(self.rows):
            own = maps[index * len(along) : (index + 1) * len(along)]
            parts = [one[:, :, row.cells[layer], cells] for one, cells in zip(own, along, strict=True)]
            rows.append(torch.cat(parts, dim=3))
        return torch.cat(rows, dim=2)


def backbone_class(tiles: Tiles | None) -> Callable[..., Backbone]:
    """What builds a network: Backbone, or TiledBackbone with its ``tiles``."""
    return Backbone if tiles is None else partial(TiledBackbone, tiles=tiles)


class TiledBackbone(Backbone):
    """A Backbone that sees its images in tiles; attributes as of that, and ``tiling``. It is built for the size of a tile."""

    def __init__(
        self,
        name: str,
        *,
        weights: str,
        layers: tuple[str, str],
        input_size: Size,
        tiles: Tiles,
        device: torch.device,
        precision: str,
        seed: int,
        given: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """As Backbone. tiles: as of the settings. Raises SettingsError, too, where they do not fit the input or the network."""
        strides = strides_of(name, layers)
        if strides[1] % strides[0]:
            raise SettingsError(
                f"tiles need a network whose strides divide each other. Got {name} with strides {strides[0]} and {strides[1]}. "
                "Use tiles none, or other layers."
            )
        self._name, self.tiling = name, Tiling.of(input_size, tiles, strides)
        super().__init__(
            name,
            weights=weights,
            layers=layers,
            input_size=self.tiling.tile_size,
            device=device,
            precision=precision,
            seed=seed,
            given=given,
        )

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As Backbone's, of the whole images. One tile of each image is in the network at a time."""
        seen = super().features
        return self._joined([seen(tile) for tile in self.tiling.tiles(images)])

    @torch.inference_mode()
    def features_at_once(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with all tiles in the network together: for a graph, which then holds the network once."""
        tiles = self.tiling.tiles(images)
        shape = (len(tiles), images.shape[0])
        first, second = super().features(torch.cat(tiles))
        return self._joined(list(zip(first.unflatten(0, shape), second.unflatten(0, shape), strict=True)))

    def _joined(self, maps: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """maps: each tile's two layers. Raises SettingsError for a network whose maps are not as large as its strides say."""
        first, second = zip(*maps, strict=True)
        for layer, stride in zip((first, second), self.strides, strict=True):
            expected = tuple(-(-side // stride) for side in self.tiling.tile_size)
            if tuple(layer[0].shape[2:]) != expected:
                raise SettingsError(
                    f"tiles need a network that gives a cell for every {stride} pixels. Got {self._name}, whose map of a tile of "
                    f"{'x'.join(map(str, self.tiling.tile_size))} has {'x'.join(map(str, layer[0].shape[2:]))} cells, "
                    f"not {'x'.join(map(str, expected))}. Use a `resize` or `crop` of multiples of "
                    f"{self.strides[1]}, or tiles none."
                )
        return self.tiling.joined(list(first), 0), self.tiling.joined(list(second), 1)
