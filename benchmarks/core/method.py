"""PatchCore against SA-PatchCore: image AUROC, overall and of each kind of anomaly, over several seeds.

The two models differ in one line, so they share all before it: an image goes through a network once for both. Weights
that the seed does not change go once for all seeds.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import Record, parser
from sapatchcore.data.sources import Batch, ImageSource, read_batches
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.builtin import BUILTIN
from sapatchcore.embed.network import PRETRAINED, RANDOM, choose_device
from sapatchcore.embed.patches import to_patches
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import Projection, greedy_coreset
from sapatchcore.score.metrics import auroc, per_defect_auroc
from sapatchcore.settings import Settings, settings_from
from sapatchcore.synth.write import find_scene, write_dataset

QUESTION = "PatchCore against SA-PatchCore: data set × network × attention × seed, image AUROC and that of each kind"
ATTENTIONS = ("none", "self")
IMAGES_SEED = 0  # of the made images, the same in every run

Maps = tuple[torch.Tensor, torch.Tensor]  # layer 2 and layer 3 of a batch
Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


def main(arguments: list[str] | None = None) -> None:
    options = parser("method", QUESTION, several=True)
    options.add_argument("--backbones", default=f"{BUILTIN},resnet18", help="(default: %(default)s)")
    options.add_argument("--seeds", default="0,1,2,3,4", help="(default: %(default)s)")
    options.add_argument("--coreset-ratio", type=float, default=0.01, help="(default: %(default)s)")
    options.add_argument("--synth", default="screws,kits", help="made data sets (default: %(default)s)")
    options.add_argument("--side", type=int, default=350, help="pixels of a made image (default: %(default)s)")
    options.add_argument("--train", type=int, default=200, help="made images to learn from (default: %(default)s)")
    options.add_argument("--test", type=int, default=40, help="made images of each kind (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.seeds, given.side, given.train, given.test = "0", 128, 8, 2
    backbones, seeds = given.backbones.split(","), [int(seed) for seed in given.seeds.split(",")]
    record = Record("method", QUESTION, given)
    results: list[dict[str, object]] = []
    record["runs"] = results
    with tempfile.TemporaryDirectory() as folder:
        scenes = [scene for scene in given.synth.split(",") if scene]
        datasets = [made_dataset(Path(folder) / scene, given.side, given.train, given.test) for scene in scenes]
        datasets += [subset(one) if given.quick else one for one in map(open_dataset, given.data)]
        for dataset in datasets:
            crop = None if dataset.name in scenes else "224"  # a made screw may lie at the border
            runs = [
                settings_from(
                    {
                        "backbone": backbone,
                        "weights": PRETRAINED if backbone == BUILTIN else RANDOM,
                        "attention": attention,
                        "coreset_ratio": given.coreset_ratio,
                        "crop": crop,
                        "seed": seed,
                    }
                )
                for backbone in backbones
                for seed in seeds
                for attention in ATTENTIONS
            ]
            for result in results_of(dataset, runs):
                results.append(result)
                print(*(result[name] for name in ("dataset", "backbone", "attention", "seed")), end=" ")
                print(f"{result['image_auroc']:.3f}", flush=True)
            record.write(given.output)  # a run that is cut off keeps what it has


def made_dataset(out: Path, side: int, train: int, test: int) -> Dataset:
    """The scene that ``out`` is named after, made there."""
    counts = dict.fromkeys(find_scene(out.name).KINDS, test)
    write_dataset(out, out.name, side=side, train=train, test=counts, seed=IMAGES_SEED)
    return open_dataset(out)


def subset(dataset: Dataset) -> Dataset:
    """Two images of each kind, for --quick: every AUROC needs both sides."""
    seen: Counter[str] = Counter()
    test = []
    for sample in dataset.test:
        seen[sample.label] += 1
        if seen[sample.label] <= 2:
            test.append(sample)
    return replace(dataset, train=dataset.train[:8], test=tuple(test))


def results_of(dataset: Dataset, runs: Sequence[Settings]) -> Iterator[dict[str, object]]:
    """The figures of each run on one data set."""
    labels = [sample.label for sample in dataset.test]
    train, test = ([sample.path for sample in part] for part in (dataset.train, dataset.test))
    for settings, scores in scored(train, test, runs):
        yield {
            "dataset": dataset.name,
            "backbone": settings.backbone,
            "weights": settings.weights,
            "attention": settings.attention,
            "coreset_ratio": settings.coreset_ratio,
            "seed": settings.seed,
            "train_images": len(train),
            "test_images": {label: labels.count(label) for label in sorted(set(labels))},
            "image_auroc": auroc([label != "good" for label in labels], scores),
            "per_defect": per_defect_auroc(labels, scores),
        }


def scored(
    train: Iterable[ImageSource], test: Iterable[ImageSource], runs: Sequence[Settings]
) -> Iterator[tuple[Settings, Scores]]:
    """Each of ``runs`` with its image scores (n,) of ``test``: those of SAPatchCore's fit and predict, to the last bit.

    The runs share resize, crop and batch size. Runs in a row that have the same network share one pass through it.
    """
    good, other = ([batch.pixels for batch in batches(images, runs[0])] for images in (train, test))
    held: tuple[object, ...] | None = None
    for settings in runs:
        wanted = (settings.backbone, settings.weights, settings.seed if settings.weights == RANDOM else None)
        if wanted != held:
            learned, asked = [], []  # given up before the next ones come: maps of one network at a time
            backbone = network(settings)
            learned, asked = features(backbone, good), features(backbone, other)
            held = wanted
        yield settings, image_scores(backbone.channels, learned, asked, settings)


def batches(images: Iterable[ImageSource], settings: Settings) -> Iterator[Batch]:
    """The detector's own: a network's last bits may depend on how many images it sees at a time."""
    return read_batches(images, settings)


def network(settings: Settings) -> Backbone:
    return Backbone(
        settings.backbone,
        weights=settings.weights,
        layers=settings.layers,
        input_size=settings.input_size,
        device=choose_device(settings.device),
        precision=settings.precision,
        seed=settings.seed,
    )


def features(backbone: Backbone, pixels: Sequence[Pixels]) -> list[Maps]:
    return [backbone.features(torch.from_numpy(batch)) for batch in pixels]


@torch.inference_mode()
def image_scores(
    channels: tuple[int, int], learned: Sequence[Maps], asked: Sequence[Maps], settings: Settings
) -> Scores:
    """(n,) the largest patch score of each image of ``asked``, with a bank of ``learned``: steps 3 to 8."""
    mixing = (settings.attention, settings.temperature, settings.context_weight)
    kept = [to_patches(*maps, *mixing) for maps in learned]
    cell, grid, device = kept[0].cell, kept[0].grid, kept[0].local.device
    projection = Projection(*channels, settings.projection, settings.seed, device)
    x = torch.cat([projection(patches) for patches in kept])
    count = max(1, int(settings.coreset_ratio * len(x) + 1e-9))  # as fit rounds it
    chosen = greedy_coreset(x, count, seed=settings.seed)
    images, cells = chosen // len(cell), chosen % len(cell)
    local, context = torch.cat([one.local for one in kept]), torch.cat([one.context for one in kept])
    rows = torch.cat((local[images, cells], context[images, cell.cpu()[cells]]), dim=1)
    bank = Bank(rows, images, cells, (), grid)
    compared = [bank.compare(to_patches(*maps, *mixing)) for maps in asked]
    scores: Scores = torch.cat([distances.whole.amax(1) for distances in compared]).cpu().numpy()
    return scores


if __name__ == "__main__":
    sys.exit(main())
