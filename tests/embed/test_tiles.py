"""Tiles: where they lie, that their maps make the whole image's, and a detector that sees in tiles."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import made_images
from torch import nn

from sapatchcore import SAPatchCore, SettingsError
from sapatchcore.embed import tiles as module
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.network import strides_of
from sapatchcore.embed.tiles import TiledBackbone, cut
from sapatchcore.settings import OVERLAP

GIVEN: dict[str, Any] = {
    "weights": "random",
    "layers": ("layer2", "layer3"),
    "device": torch.device("cpu"),
    "precision": "float32",
    "seed": 0,
}


def bounds(side: int, tiles: int, *, counted: bool) -> list[tuple[int, ...]]:
    """Of each tile: first and last pixel, own cells of stride 8, own cells of stride 16."""
    return [
        (tile.pixels.start, tile.pixels.stop, *(edge for one in tile.cells for edge in (one.start, one.stop)))
        for tile in cut(side, tiles, (8, 16), counted=counted)
    ]


def test_two_tiles_of_320_pixels() -> None:
    # 20 cells of 16 pixels, cut after 10; each tile reaches 4 cells, 64 pixels, beyond the cut.
    assert bounds(320, 2, counted=True) == [(0, 224, 0, 20, 0, 10), (96, 320, 8, 28, 4, 14)]


def test_the_last_cell_may_be_a_part() -> None:
    # 21 cells, the last of 10 pixels; 42 of stride 8, the last of 2. A tile of 15 cells is 234 pixels.
    assert bounds(330, 2, counted=True) == [(0, 234, 0, 20, 0, 10), (96, 330, 8, 30, 4, 15)]
    assert cut(328, 2, (8, 16), counted=True)[1].cells == (slice(8, 29), slice(4, 15))  # 41 of stride 8


def test_three_tiles_of_at_most_230_pixels() -> None:
    # 14 cells are 224 pixels. 14 + 6 + 6 = 26 cells: three tiles that begin 6 cells apart.
    assert bounds(416, 230, counted=False) == [
        (0, 224, 0, 20, 0, 10),
        (96, 320, 8, 20, 4, 10),
        (192, 416, 8, 28, 4, 14),
    ]


def test_an_axis_that_fits_is_one_tile() -> None:
    assert bounds(160, 224, counted=False) == bounds(160, 1, counted=True) == [(0, 160, 0, 20, 0, 10)]


@pytest.mark.parametrize("strides", [(8, 16), (4, 8), (14, 14), (16, 32)])
def test_own_cells_lie_side_by_side_and_far_from_the_edges(strides: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for side in rng.integers(700, 2100, 40).tolist():
        for tiles, counted in ((int(rng.integers(2, 9)), True), (int(rng.integers(240, 600)), False)):
            found = cut(side, tiles, strides, counted=counted)
            assert len({one.pixels.stop - one.pixels.start for one in found}) == 1
            assert (found[0].pixels.start, found[-1].pixels.stop) == (0, side)
            if counted:
                assert len(found) == tiles
            else:
                assert found[0].pixels.stop <= tiles
            for layer, stride in enumerate(strides):
                own = [
                    (
                        one.pixels.start // stride + one.cells[layer].start,
                        one.pixels.start // stride + one.cells[layer].stop,
                    )
                    for one in found
                ]
                assert (own[0][0], own[-1][1]) == (0, -(-side // stride))
                assert all(left[1] == right[0] for left, right in pairwise(own))
                assert all(first < last for first, last in own)
                assert all(
                    last * stride + OVERLAP <= one.pixels.stop for one, (_, last) in zip(found[:-1], own, strict=False)
                )
                assert all(
                    first * stride - OVERLAP >= one.pixels.start
                    for one, (first, _) in zip(found[1:], own[1:], strict=True)
                )


def test_tiles_without_a_part_of_their_own() -> None:
    with pytest.raises(SettingsError, match=r"part of its own. Got 9 tiles on a side of 256 pixels.* overlap by 128"):
        cut(256, 9, (8, 16), counted=True)
    with pytest.raises(SettingsError, match=r"Got 160 pixels on a side of 512 pixels, where neighbours overlap by 256"):
        cut(512, 160, (64, 128), counted=False)


class Toy(nn.Module):
    """A network that sees 31 pixels around a cell of stride 16; padding: of its convolutions."""

    def __init__(self, padding: int = 1) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.steps = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, stride=2, padding=padding) for i in range(4))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=random) / 3
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for step in self.steps:
            x = torch.relu(step(x))
            found.append(x)
        return found[2:]


def pair(size: tuple[int, int], tiles: Any, network: nn.Module) -> tuple[Backbone, TiledBackbone]:
    """One network that sees the whole image, one that sees tiles."""
    whole = Backbone("test_resnet", input_size=size, **GIVEN)
    tiled = TiledBackbone("test_resnet", input_size=size, tiles=tiles, **GIVEN)
    whole._network = tiled._network = network
    return whole, tiled


def pixels(size: tuple[int, int], count: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((320, 256), (2, 2)), ((333, 500), (2, 3)), ((409, 201), (3, 1)), ((321, 470), 240), ((192, 192), (1, 1))],
)
def test_tiles_give_the_whole_images_maps(size: tuple[int, int], tiles: Any) -> None:
    whole, tiled = pair(size, tiles, Toy())
    given = pixels(size, 2)
    for expected, found, at_once in zip(
        whole.features(given), tiled.features(given), tiled.features_at_once(given), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4, check_stride=False)
        torch.testing.assert_close(at_once, found, rtol=0, atol=1e-4, check_stride=False)


def test_without_overlap_they_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERLAP", 0)
    whole, tiled = pair((320, 320), (2, 2), Toy())
    expected, found = (one.features(pixels((320, 320)))[1] for one in (whole, tiled))
    different = (expected - found).abs().amax((0, 1)) > 1e-3
    assert different[9:11].any()
    assert different[:, 9:11].any()
    different[9:11], different[:, 9:11] = False, False
    assert not different.any()


def test_one_tile_of_each_image_is_in_the_network_at_a_time() -> None:
    _, tiled = pair((320, 320), (2, 2), Toy())
    seen: list[tuple[int, ...]] = []
    tiled._network.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    tiled.features(pixels((320, 320), 3))
    assert seen == [(3, 3, 224, 224)] * 4


def test_a_transformer_is_built_for_a_tile() -> None:
    network = TiledBackbone("test_vit", input_size=(192, 256), tiles=160, **GIVEN)
    assert network.tiling.tile_size == (160, 160)
    assert [tuple(one.shape[2:]) for one in network.features(pixels((192, 256)))] == [(12, 16), (12, 16)]


def test_a_network_that_pads_nothing_is_refused() -> None:
    _, tiled = pair((320, 320), (2, 2), Toy(padding=0))
    with pytest.raises(
        SettingsError, match=r"every 8 pixels. Got test_resnet, whose map of a tile of 224x224 has 27x27"
    ):
        tiled.features(pixels((320, 320)))


def test_strides_that_do_not_divide_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "strides_of", lambda *_: (8, 12))
    with pytest.raises(SettingsError, match="strides 8 and 12"):
        TiledBackbone("test_resnet", input_size=(320, 320), tiles=(2, 2), **GIVEN)


@pytest.mark.parametrize("name", ["builtin", "test_resnet", "test_vit", "efficientnet_lite0"])
def test_strides_are_known_before_the_network_is_built(name: str) -> None:
    expected = (16, 16) if name == "test_vit" else (8, 16)
    assert strides_of(name, ("layer2", "layer3")) == expected
    if name in ("builtin", "test_resnet"):
        assert Backbone(name, input_size=(64, 64), **GIVEN).strides == expected


def test_strides_of_what_does_not_exist() -> None:
    for name, layers in (("resnet_18", ("layer2", "layer3")), ("builtin", ("layer2", "layer4"))):
        with pytest.raises(SettingsError, match=r"resnet18|no layer 'layer4'"):
            strides_of(name, layers)


@pytest.fixture(scope="module")
def tiled(small: dict[str, Any]) -> SAPatchCore:
    """A detector that sees 192 pixels a side in two by two tiles; not to be changed."""
    options = {**small, "resize": 192, "tiles": "2x2", "coreset_ratio": 0.05}
    return SAPatchCore(**options).fit(made_images(6, (200, 200)))


def test_a_detector_has_one_grid_and_one_map(tiled: SAPatchCore) -> None:
    images = made_images(2, (200, 200), seed=3)
    result = tiled.predict(images)
    assert result.patch_scores.shape == (2, 24, 24)
    assert result.maps[0].shape == (200, 200)
    assert len(tiled.bank.rows) == int(0.05 * 6 * 24 * 24)
    np.testing.assert_allclose(tiled.predict(images[1]).scores, result.scores[1:], rtol=1e-5)
    assert tiled.explain(images[:1])[0].causes


def test_tiles_stay_what_they_were_when_fitted(tiled: SAPatchCore, tmp_path: Path) -> None:
    tiled.save(tmp_path / "m.safetensors")
    loaded = SAPatchCore.load(tmp_path / "m.safetensors", device="cpu")
    assert loaded.settings.tiles == (2, 2)
    images = made_images(2, (200, 200), seed=3)
    np.testing.assert_array_equal(loaded.predict(images).scores, tiled.predict(images).scores)
    with pytest.raises(SettingsError, match="tiles cannot change after fit"):
        SAPatchCore.load(tmp_path / "m.safetensors", tiles=None)
    before = len(loaded.bank.training)
    loaded.update(made_images(1, (200, 200), seed=9))
    name = loaded.bank.training[-1].name
    assert len(loaded.bank.training) == before + 1
    assert len(loaded.forget(name).bank.training) == before


def test_a_small_scratch_in_a_large_image_is_found_in_tiles_only() -> None:
    good = made_images(4, (320, 320), seed=1)
    scratched = made_images(2, (320, 320), seed=2)
    top, left = 130, 190
    for i in range(8):
        scratched[:, top + i, left + i : left + i + 2] = 0
    options = {"backbone": "builtin", "device": "cpu", "crop": None, "coreset_ratio": 0.02, "attention": "none"}
    found = []
    for size in ({"resize": 80}, {"resize": 320, "tiles": "2x2"}):
        maps = SAPatchCore(**options, **size).fit(good).predict(scratched).maps
        peaks = [np.unravel_index(int(one.argmax()), one.shape) for one in maps]
        found.append([abs(y - top - 4) <= 10 and abs(x - left - 4) <= 10 for y, x in peaks])
    assert found == [[False, False], [True, True]]
