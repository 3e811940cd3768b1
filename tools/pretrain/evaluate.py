"""Compare backbones by one measure: image AUROC of both models, coreset 0.01, on made and on given data sets.

    python tools/pretrain/evaluate.py random:resnet18 run/weights.safetensors --data ROOT/screw ROOT/grid -o recipes.json

A network is ``random:NAME`` or a file that train.py or publish.py wrote.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from made_sets import made_sets
from safetensors import safe_open
from safetensors.torch import load_file

from sapatchcore.atomic import write_json
from sapatchcore.data.sources import read_batches
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.patches import to_patches
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import Projection, greedy_coreset
from sapatchcore.score.metrics import auroc
from sapatchcore.settings import Settings

Maps = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("networks", nargs="+")
    options.add_argument("--data", type=Path, nargs="*", default=[], help="folders, a category each")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", "-o", type=Path)
    given = options.parse_args()
    sets = {name: (list(train), list(test), labels) for name, (train, test, labels) in made_sets().items()}
    for folder in given.data:
        dataset = open_dataset(folder)
        labels = np.array([sample.label != "good" for sample in dataset.test], np.int64)
        sets[dataset.name] = ([s.path for s in dataset.train], [s.path for s in dataset.test], labels)
    table: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'':28}", *(f"{name[-11:]:>11}" for name in sets))
    for text in given.networks:
        backbone = network(text, given.seed)
        found = {name: measure(backbone, *parts, seed=given.seed) for name, parts in sets.items()}
        table[text] = found
        for attention in ("self", "none"):
            print(f"{text[-22:]:22} {attention:5}", *(f"{found[name][attention]:11.3f}" for name in sets), flush=True)
        if given.output:
            write_json(given.output, table)


def network(text: str, seed: int) -> Backbone:
    """The backbone that ``random:NAME`` or a file describes."""
    tensors = None
    name = text.removeprefix("random:")
    if name == text:
        with safe_open(text, "pt") as file:
            name = file.metadata()["network"]
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in load_file(text).items()}
    return Backbone(
        name,
        weights="random",
        layers=("layer2", "layer3"),
        input_size=(224, 224),
        device=torch.device("cpu"),
        precision="float32",
        seed=seed,
        given=tensors,
    )


def measure(
    backbone: Backbone, train: list[object], test: list[object], labels: npt.NDArray[np.int64], seed: int
) -> dict[str, float]:
    """Image AUROC by attention."""
    good, other = feature_maps(backbone, train), feature_maps(backbone, test)
    return {
        attention: auroc(labels, image_scores(backbone, good, other, attention, seed)) for attention in ("self", "none")
    }


def feature_maps(backbone: Backbone, sources: list[object]) -> list[Maps]:
    return [backbone.features(torch.from_numpy(batch.pixels)) for batch in read_batches(sources, Settings(workers=1))]


def image_scores(
    backbone: Backbone, good: list[Maps], other: list[Maps], attention: str, seed: int
) -> npt.NDArray[np.float32]:
    """(n,) the largest patch score of each image, as the detector computes it."""
    projection = Projection(*backbone.channels, 128, seed, backbone.device)
    kept = [to_patches(*maps, attention) for maps in good]
    projected = torch.cat([projection(patches) for patches in kept])
    chosen = greedy_coreset(projected, max(1, int(0.01 * len(projected))), seed=seed)
    rows = torch.cat([patches.rows().flatten(0, 1) for patches in kept])[chosen]
    bank = Bank(rows, chosen, chosen, (), kept[0].grid)
    return torch.cat([bank.compare(to_patches(*maps, attention)).whole.amax(1) for maps in other]).numpy()


if __name__ == "__main__":
    main()
