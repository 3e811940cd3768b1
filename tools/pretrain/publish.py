"""Make the shipped file of a training run: the scale of both layers, float16, a hash.

    python tools/pretrain/publish.py run/weights.safetensors -o src/sapatchcore/embed/builtin.safetensors

A ReLU network computes the same when a layer's output is multiplied and what reads it is divided. So layer 2 and layer 3 get
the spread over made scenes that is asked for: their ratio says how much each weighs in a distance, and the scale of layer 3
how sharp the self-attention is, a softmax of plain products.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import fields
import scenes
import textures
import timm
import torch
from camera import photograph
from safetensors import safe_open
from safetensors.torch import load_file, save

from sapatchcore.atomic import write_bytes
from sapatchcore.embed.backbone import IMAGENET_MEAN, IMAGENET_STD

Weights = dict[str, torch.Tensor]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("weights", type=Path)
    options.add_argument("--output", "-o", type=Path, required=True)
    options.add_argument(
        "--spread", type=float, nargs=2, default=(4.0, 1.0), help="of layer 2 and of layer 3 (default: 4 1)"
    )
    given = options.parse_args()
    with safe_open(given.weights, "pt") as file:
        network = file.metadata()["network"]
    weights = load_file(given.weights)
    spreads = measured(network, weights)
    for layer, spread, target in zip(("layer2", "layer3"), spreads, given.spread, strict=True):
        weights = scaled(weights, layer, target / spread.square().mean().sqrt().expand(len(spread)))
    tensors = {
        name: value.half() if value.ndim > 1 else value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    content = save(tensors, {"network": network})
    write_bytes(given.output, content)
    print(f"{given.output.name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


@torch.inference_mode()
def measured(name: str, weights: Weights) -> list[torch.Tensor]:
    """The standard deviation of every channel of layer 2 and of layer 3 over 64 made scenes."""
    network = timm.create_model(name, features_only=True, out_indices=(2, 3), pretrained=False)
    network.load_state_dict(weights)
    network.eval()
    pool = textures.pool(256, 4_242, tuple(fields.FAMILIES))
    random = torch.Generator()
    random.manual_seed(4_242)
    images = photograph(scenes.draw(pool, 64, 224, random, leaves=4, defective=0.0).images, random)
    maps = network((images - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None])
    return [found.transpose(0, 1).flatten(1).std(1) for found in maps]


def scaled(weights: Weights, layer: str, factor: torch.Tensor) -> Weights:
    """The same network, ``layer``'s output channels multiplied by ``factor`` (c,), whatever reads them divided by it."""
    following = f"layer{int(layer[-1]) + 1}.0."
    blocks = sorted({name.split(".")[1] for name in weights if name.startswith(f"{layer}.")})
    out = dict(weights)
    for name, value in weights.items():
        into = name.startswith(following) and name.endswith(
            ("conv1.weight", "downsample.0.weight", "downsample.1.weight")
        )
        inside = name.startswith(tuple(f"{layer}.{block}." for block in blocks[1:])) and name.endswith("conv1.weight")
        ends = (
            name.startswith(f"{layer}.")
            and (".bn2." in name or ".downsample." in name)
            and name.endswith((".weight", ".bias"))
        )
        if value.ndim == 4 and (into or inside) and value.shape[1] == len(factor):
            out[name] = value / factor[None, :, None, None]
        elif value.ndim == 1 and ends:
            out[name] = value * factor
    return out


if __name__ == "__main__":
    main()
