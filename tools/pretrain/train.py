"""Train a backbone on made images: seeded, resumable, on a CPU or a GPU.

    python tools/pretrain/train.py --recipe contrast --images 400000 --output run

Writes ``run/checkpoint.pt`` every few minutes and continues from it when started again with the same arguments; the step
alone seeds what is drawn in it, so a run that was cut off sees the images that it would have seen. At the end
``run/weights.safetensors`` holds the averaged weights under timm's names.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import scenes
import textures
import timm
import torch
from camera import Stand, photograph
from objectives import Heads
from recipes import RECIPES, Recipe
from safetensors.torch import save_file
from torch import nn

from sapatchcore.atomic import atomic_write
from sapatchcore.embed.backbone import IMAGENET_MEAN, IMAGENET_STD
from sapatchcore.errors import DataError

AVERAGE = 0.998  # of the weights, a step


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--recipe", choices=RECIPES, required=True)
    options.add_argument("--images", type=int, required=True, help="photographs in all")
    options.add_argument("--output", type=Path, required=True, help="folder of the run")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--minutes-between-checkpoints", type=float, default=5)
    given = options.parse_args()
    train(RECIPES[given.recipe], given)


def train(recipe: Recipe, given: argparse.Namespace) -> None:
    device = torch.device(given.device)
    torch.manual_seed(given.seed)
    network = timm.create_model(recipe.network, features_only=True, out_indices=(2, 3), pretrained=False)
    heads = Heads(recipe, network.feature_info.channels()).to(device)
    network = network.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    parts = [*network.named_parameters(), *heads.named_parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [value for _, value in parts if value.ndim > 1], "weight_decay": 0.05},
            {"params": [value for _, value in parts if value.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.rate,
    )
    steps = math.ceil(given.images / recipe.batch)
    given.output.mkdir(parents=True, exist_ok=True)
    checkpoint, step = given.output / "checkpoint.pt", 0
    holders = {"network": network, "average": average, "heads": heads, "optimizer": optimizer}
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device, weights_only=True)
        if stored["run"] != _run(recipe, given):
            raise SystemExit(f"{checkpoint} is of another run: {stored['run']}. Choose another --output.")
        for name, holder in holders.items():
            holder.load_state_dict(stored[name])
        step = stored["step"]
    pool = _pool(recipe, given).to(device)
    began, saved, first = time.monotonic(), time.monotonic(), step
    mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=device)[:, None, None]
    shown: dict[str, float] = {}
    while step < steps:
        random = torch.Generator(device)
        random.manual_seed(given.seed * 1_000_003 + step)
        count = recipe.batch // recipe.views
        made = scenes.draw(
            pool,
            count,
            recipe.side,
            random,
            leaves=recipe.leaves,
            defective=recipe.defective,
            mono=recipe.mono_scenes,
        )
        views = [made.whole if recipe.changed else made.images, made.images][: recipe.views]
        stand = Stand.draw(count, random, recipe.turn) if recipe.turn else None
        if stand is not None:
            views[-1] = stand.look(views[-1])
        photographs = torch.cat([photograph(view, random, mono=recipe.mono_photographs) for view in views])
        photographs = ((photographs - mean) / std).to(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _schedule(step, steps)
        with torch.autocast(device.type, torch.bfloat16):
            losses = heads(network(photographs), made, stand, random)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_([value for _, value in parts], 5.0)
        optimizer.step()
        step += 1
        _follow(average, network, min(AVERAGE, step / (step + 10)))
        for name, loss in losses.items():
            shown[name] = 0.98 * shown.get(name, loss.item()) + 0.02 * loss.item()
        if step % 50 == 0 or step == steps:
            rate = (step - first) * recipe.batch / (time.monotonic() - began)
            print(f"{step}/{steps}", f"{rate:.0f}/s", {k: round(v, 3) for k, v in shown.items()}, flush=True)
        if step == steps or time.monotonic() - saved > 60 * given.minutes_between_checkpoints:
            content = {name: holder.state_dict() for name, holder in holders.items()}
            _write(checkpoint, {**content, "step": step, "run": _run(recipe, given)})
            saved = time.monotonic()
    weights = {name: value.cpu().contiguous() for name, value in average.state_dict().items()}
    save_file(weights, given.output / "weights.safetensors", {"network": recipe.network})


def _pool(recipe: Recipe, given: argparse.Namespace) -> torch.Tensor:
    """The surfaces, kept beside the runs: they take a minute to make."""
    kept = given.output.parent / f"surfaces-{recipe.surfaces}-{given.seed}-{'-'.join(recipe.families)}.pt"
    if kept.exists():
        return torch.load(kept, weights_only=True)
    pool = textures.pool(recipe.surfaces, given.seed, recipe.families, os.cpu_count() or 1)
    _write(kept, pool)
    return pool


def _run(recipe: Recipe, given: argparse.Namespace) -> dict[str, object]:
    return {**asdict(recipe), "images": given.images, "seed": given.seed}


def _schedule(step: int, steps: int) -> float:
    """Up in a line over the first twentieth, down in a half cosine to nothing."""
    start = max(1, steps // 20)
    return (
        (step + 1) / start if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))
    )


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def _write(path: Path, content: object) -> None:
    with atomic_write(path, DataError, lambda error: f"{path} cannot be written: {error.strerror}.") as part:
        torch.save(content, part)


if __name__ == "__main__":
    main()
