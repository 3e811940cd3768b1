"""tools/pretrain: the same images for the same seed, labels that fit them, a run that goes on, a file that computes the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from scripts import ROOT

FOLDER = str(ROOT / "tools" / "pretrain")
MODULES = ("camera", "fields", "made_sets", "objectives", "publish", "recipes", "scenes", "textures", "train")


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, Any]]:
    """The scripts as modules, by name; they import one another, as they do when one of them is run."""
    sys.path.insert(0, FOLDER)
    try:
        yield {name: import_module(name) for name in MODULES}
    finally:
        sys.path.remove(FOLDER)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def pool(tools: dict[str, Any]) -> torch.Tensor:
    families = tuple(tools["fields"].FAMILIES)
    return torch.from_numpy(np.stack([tools["textures"].tile(number, 3, families) for number in range(6)]))


def generator(seed: int = 0) -> torch.Generator:
    random = torch.Generator()
    random.manual_seed(seed)
    return random


@pytest.mark.parametrize("family", ["noise", "lattice", "cells", "rings", "leaves", "sines", "fractal"])
def test_fields_are_seeded_and_in_range(tools: dict[str, Any], family: str) -> None:
    draw = tools["fields"].FAMILIES[family]
    one, again, other = (draw(np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert one.shape == (64, 64)
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 1
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_tiles_are_seeded_classes(tools: dict[str, Any], pool: torch.Tensor) -> None:
    families = tuple(tools["fields"].FAMILIES)
    assert pool.shape == (6, 3, tools["textures"].SIDE, tools["textures"].SIDE)
    assert np.array_equal(tools["textures"].tile(4, 3, families), pool[4].numpy())
    assert len({tile.numpy().tobytes() for tile in pool}) == 6


def test_scenes_are_seeded_and_labelled(tools: dict[str, Any], pool: torch.Tensor) -> None:
    draw = tools["scenes"].draw
    one, again = (draw(pool, 8, 64, generator(5), leaves=3, defective=0.5, mono=0.5) for _ in range(2))
    assert torch.equal(one.images, again.images)
    assert one.images.shape == (8, 3, 64, 64)
    assert one.surfaces.shape == one.defects.shape == (8, 64, 64)
    assert set(one.surfaces.unique().tolist()) <= set(range(6))
    # Only where a defect is marked, or next to nothing is to be seen, may the two pictures differ.
    difference = (one.images - one.whole).abs().amax(1)
    assert float(difference[one.defects == 0].max()) <= 0.08 + 1e-6
    assert int((one.defects > 0).sum()) > 0
    assert int((one.defects[4:] > 0).sum()) == 0
    grey = (one.whole.amax(1) - one.whole.amin(1)).flatten(1).amax(1) < 1e-6
    assert 0 < int(grey.sum()) < 8


def test_photographs_are_eight_bit(tools: dict[str, Any], pool: torch.Tensor) -> None:
    made = tools["scenes"].draw(pool, 4, 64, generator(), leaves=2, defective=0.0)
    taken = tools["camera"].photograph(made.images, generator(1), mono=1.0)
    assert torch.equal(taken, tools["camera"].photograph(made.images, generator(1), mono=1.0))
    assert float(taken.min()) >= 0
    assert float(taken.max()) <= 1
    assert torch.allclose(taken * 255, (taken * 255).round(), atol=1e-4)


def test_second_stand_shows_a_spot_where_it_says(tools: dict[str, Any]) -> None:
    images = torch.zeros(6, 3, 96, 96)
    images[:, :, 30:35, 58:63] = 1
    stand = tools["camera"].Stand.draw(6, generator(2), 0.45)
    spot = torch.tensor([[60.5 / 48 - 1, 32.5 / 48 - 1]])
    for seen, found in zip(stand.look(images)[:, 0], stand.find(spot)[:, 0], strict=True):
        y, x = (seen > 0.4).nonzero().float().mean(0) + 0.5
        assert torch.allclose((found + 1) * 48, torch.stack((x, y)), atol=0.8)


def test_cells_of_two_stands_are_matched(tools: dict[str, Any]) -> None:
    """With features that are painted on the scene, a cell and its match are alike."""
    stand = tools["camera"].Stand.draw(4, generator(2), 0.3)
    painted = torch.nn.functional.interpolate(
        torch.randn(4, 16, 9, 9, generator=generator(4)), size=(96, 96), mode="bilinear"
    )
    rows = torch.cat((painted, stand.look(painted)))[:, :, ::8, ::8].permute(0, 2, 3, 1)
    none = torch.zeros(4, 12, 12, dtype=torch.bool)
    matched, _ = tools["objectives"]._contrast(rows, none, 8, stand, torch.nn.Identity(), generator(3))
    astray, _ = tools["objectives"]._contrast(rows, none, 8, None, torch.nn.Identity(), generator(3))
    assert float(matched) < 0.5 * float(astray)


def arguments(output: Path, **options: Any) -> argparse.Namespace:
    given = {"images": 20, "seed": 1, "device": "cpu", "minutes_between_checkpoints": 0.0}
    return argparse.Namespace(output=output, **{**given, **options})


@pytest.mark.parametrize(
    "losses",
    [
        {"whole": 1.0, "dense": 1.0, "defect": 1.0, "defective": 0.5},
        {"contrast": 1.0, "changed": 0.5, "alike": 0.5, "turn": 0.3, "defective": 0.5},
    ],
)
def test_cut_off_run_goes_on_as_if_it_was_not(
    tools: dict[str, Any], losses: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: torch.Tensor
) -> None:
    recipe = tools["recipes"].Recipe(network="resnet10t", surfaces=6, side=64, batch=4, **losses)
    monkeypatch.setattr(tools["textures"], "pool", lambda *_: pool)
    train = tools["train"].train
    train(recipe, arguments(tmp_path / "straight" / "run"))
    draw, calls = tools["scenes"].draw, 0

    def cut_off(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return draw(*given, **options)

    monkeypatch.setattr(tools["scenes"], "draw", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, arguments(tmp_path / "cut" / "run"))
    train(recipe, arguments(tmp_path / "cut" / "run"))
    assert calls == 4 + 2  # three of five steps, the one that was cut off, and the last two
    one, other = (load_file(tmp_path / name / "run" / "weights.safetensors") for name in ("straight", "cut"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    with pytest.raises(SystemExit, match="is of another run"):
        train(recipe, arguments(tmp_path / "cut" / "run", seed=2))


@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_evened_network_computes_the_same(tools: dict[str, Any], name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True, out_indices=(2, 3), pretrained=False).eval()
    weights = network.state_dict()
    factors = [torch.rand(channels) + 0.5 for channels in network.feature_info.channels()]
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        before = [found.clone() for found in network(images)]
        for layer, factor in zip(("layer2", "layer3"), factors, strict=True):
            weights = tools["publish"].scaled(weights, layer, factor)
        network.load_state_dict(weights)
        after = network(images)
    for old, new, factor in zip(before, after, factors, strict=True):
        torch.testing.assert_close(new, old * factor[:, None, None], rtol=1e-4, atol=1e-5)


def test_made_validation_set(tools: dict[str, Any]) -> None:
    train, test, labels = tools["made_sets"].one_set(1, "lattice", train=3, test=6)
    assert train.shape == (3, 256, 256, 3)
    assert test.shape == (6, 256, 256, 3)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
