"""Is the coreset that many machines choose together as good as one machine's? Rounds, and Malkomes' two rounds.

One process plays all shares in turn: seconds are those of the slowest share and of the choosing process, without a network.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.measure import Record, parser, spread, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.embed.patches import Embedder
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import choose, projection_of
from sapatchcore.memory.distributed import Candidates, Centres, Choice, Frontier
from sapatchcore.memory.search.exact import ExactIndex
from sapatchcore.memory.spill import Spill
from sapatchcore.memory.training import TrainingImage, training_images
from sapatchcore.scale.fit import CANDIDATES, FEWEST_CANDIDATES
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.metrics import auroc
from sapatchcore.synth.write import find_scene, write_dataset

QUESTION = (
    "The coreset chosen over 2 to 16 shares against one machine's: covering radius, image AUROC, what travels, time"
)
SHARES = (2, 4, 8, 16)
ROUNDS, TWO_ROUNDS = "rounds", "two rounds (Malkomes)"
ROWS = 4096  # compared with the centres at a time


def main(arguments: list[str] | None = None) -> None:
    options = parser("shares", QUESTION, several=True, needed=False)
    options.add_argument("--backbone", default="builtin", help="(default: %(default)s)")
    options.add_argument("--weights", default="pretrained", help="of the backbone (default: %(default)s)")
    options.add_argument("--coreset-ratio", type=float, default=0.01, help="(default: %(default)s)")
    options.add_argument("--shares", type=int, nargs="+", default=SHARES, help="(default: %(default)s)")
    options.add_argument("--side", type=int, default=350, help="pixels of a made screw's image (default: %(default)s)")
    options.add_argument("--train", type=int, default=200, help="made images to learn from (default: %(default)s)")
    options.add_argument("--test", type=int, default=40, help="made images of each kind (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.shares, given.side, given.train, given.test = [2, 3], 128, 6, 1
    record = Record("shares", QUESTION, given)
    settings = {name: getattr(given, name) for name in ("backbone", "weights", "coreset_ratio")} | {"device": "cpu"}
    found: dict[str, Any] = {}
    record["sets"] = found
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
        made = Path(folder) / "screws"
        kinds = dict.fromkeys(find_scene("screws").KINDS, given.test)
        write_dataset(made, "screws", side=given.side, train=given.train, test=kinds)
        for data in (made, *(given.data or ())):
            dataset = open_dataset(data)
            name = f"made {dataset.name}" if data == made else dataset.name
            found[name] = compared(dataset, settings, given.shares, given.repeats or 3, quick=given.quick)
            shown(name, found[name])
            record.write(given.output)  # a run that is cut off keeps what it has


class Chosen(NamedTuple):
    """rows: of all patches, in the order of choice. seconds: of the slowest share in each round, added up, and of the one process
    that chooses. rows_shown: candidates that travelled. rounds: times that the shares were asked."""

    rows: torch.Tensor
    rounds: int
    rows_shown: int
    seconds: dict[str, float]


def share_of(x: torch.Tensor, share: int, shares: int) -> torch.Tensor:
    """The patches of images share, share + shares, …: x (images, patches, d) → (n, d)."""
    return x[share::shares].reshape(-1, x.shape[2]).contiguous()


def numbers(share: torch.Tensor, rows: torch.Tensor, shares: int, per_image: int) -> torch.Tensor:
    """Rows of shares as rows of all patches, images in their order. share, rows: (m,) int64."""
    return (share + rows // per_image * shares) * per_image + rows % per_image


def in_rounds(x: torch.Tensor, count: int, shares: int, seed: int) -> Chosen:
    """The choice of scale/fit.py. x: (images, patches, d) float32."""
    per_image = x.shape[1]
    parts, choosing = [share_of(x, share, shares) for share in range(shares)], 0.0
    frontiers, slowest = turns([partial(Frontier, part, share) for share, part in enumerate(parts)])
    shown = max(FEWEST_CANDIDATES, CANDIDATES // shares)
    choice, rounds, travelled = Choice(count), 1, 0
    image, cell = divmod(int(np.random.default_rng(seed).integers(len(x) * per_image)), per_image)
    centres = choice.begin(image % shares, image // shares * per_image + cell, x[image, cell])
    while choice.chosen < count:
        answers, spent = turns([partial(answer, one, centres, shown) for one in frontiers])
        slowest += spent
        travelled += sum(len(one.rows) for one in answers)
        begin = time.perf_counter()
        centres = choice.among(answers)
        choosing += time.perf_counter() - begin
        rounds += 1
    all_of_them = choice.all()
    rows = numbers(all_of_them.shares, all_of_them.rows, shares, per_image)
    return Chosen(rows, rounds, travelled, {"slowest share": slowest, "choosing": choosing})


def answer(frontier: Frontier, centres: Centres, shown: int) -> Candidates:
    frontier.meet(centres)
    return frontier.candidates(shown)


def in_two_rounds(x: torch.Tensor, count: int, shares: int, seed: int) -> Chosen:
    """Each share's own greedy centres, ``count`` of each, and greedy centres among all these."""
    per_image, parts = x.shape[1], [share_of(x, share, shares) for share in range(shares)]
    own, slowest = turns([partial(choose, part, min(count, len(part)), seed=seed) for part in parts])
    kept = [numbers(torch.full_like(one.rows, s), one.rows, shares, per_image) for s, one in enumerate(own)]
    union = torch.cat(kept)
    begin = time.perf_counter()
    among = choose(x.flatten(0, 1)[union], count, seed=seed).rows
    seconds = {"slowest share": slowest, "choosing": time.perf_counter() - begin}
    return Chosen(union[among], 2, len(union), seconds)


def turns(works: list[Callable[[], Any]]) -> tuple[list[Any], float]:
    """What each of ``works`` gives, one after another, and the seconds of the slowest."""
    found, slowest = [], 0.0
    for work in works:
        begin = time.perf_counter()
        found.append(work())
        slowest = max(slowest, time.perf_counter() - begin)
    return found, slowest


def compared(
    dataset: Dataset, settings: dict[str, Any], counts: list[int], repeats: int, *, quick: bool = False
) -> dict[str, Any]:
    """One machine's choice and those over each number of shares in ``counts``, all in turn, ``repeats`` times for the seconds."""
    embedder = SAPatchCore(**settings).embedder
    seed, projection = embedder.settings.seed, projection_of(embedder.settings, embedder.network)
    step = max(1, len(dataset.train) // 8) if quick and len(dataset.train) > 8 else 1
    projected, training, grid = [], [], (0, 0)
    with Spill() as spill:
        for batch, patches in embedder.patches([one.path for one in dataset.train[::step]]):
            projected.append(projection(patches))
            spill.append(patches)
            training += training_images(batch)
            grid = patches.grid
        x = torch.cat(projected).reshape(len(training), spill.patches_per_image, -1)
        count = max(1, int(embedder.settings.coreset_ratio * x.shape[0] * x.shape[1] + 1e-9))
        alone, spent = [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            single = choose(x.flatten(0, 1), count, seed=seed).rows
            alone.append(time.perf_counter() - begin)
            chosen = {
                (shares, way): run(x, count, shares, seed)
                for shares in counts
                for way, run in ((ROUNDS, in_rounds), (TWO_ROUNDS, in_two_rounds))
            }
            spent.append([sum(one.seconds.values()) / alone[-1] for one in chosen.values()])
        times = [spread(list(ratios)) for ratios in zip(*spent, strict=True)]
        sets = [single, *(one.rows for one in chosen.values())]
        banks = [bank_of(rows, spill, training, grid) for rows in sets]
    radii = [radius(x.flatten(0, 1), rows) for rows in sets]
    step = max(1, len(dataset.test) // 16) if quick else 1
    aurocs = image_aurocs(embedder, banks, dataset, step)
    width = 4 * x.shape[2] + 8 + 4  # bytes of a candidate: its projection, its row, its distance
    runs = []
    for number, ((shares, way), one) in enumerate(chosen.items(), 1):
        sent = 4 * x.shape[2] + 8 if way == TWO_ROUNDS else width
        runs.append(
            {
                "shares": shares,
                "way": way,
                "radius_over_single": radii[number] / radii[0] if radii[0] else 1.0,
                "auroc": aurocs[number],
                "auroc_less_single": None if aurocs[number] is None else aurocs[number] - aurocs[0],
                "in_common": len(set(one.rows.tolist()) & set(single.tolist())) / count,
                "rounds": one.rounds,
                "candidates": one.rows_shown,
                "candidate_bytes": one.rows_shown * sent,
                "centre_bytes": 0 if way == TWO_ROUNDS else count * shares * (4 * x.shape[2] + 16),
                "seconds": one.seconds,
                "over_single_time": times[number - 1],
            }
        )
    about = {
        "images": len(training),
        "patches": x.shape[0] * x.shape[1],
        "bank": count,
        "tested": len(dataset.test[::step]),
    }
    return {**about, "single": {"radius": radii[0], "auroc": aurocs[0], "seconds": spread(alone)}, "runs": runs}


def radius(x: torch.Tensor, rows: torch.Tensor) -> float:
    """The largest distance of a row of ``x`` (n, d) from the nearest of ``rows``, exact to float64's rounding."""
    centres = x[rows]
    index = ExactIndex(centres)
    return max(
        float((part.double() - centres[index.nearest(part)].double()).norm(dim=1).max()) for part in x.split(ROWS)
    )


def bank_of(rows: torch.Tensor, spill: Spill, training: list[TrainingImage], grid: tuple[int, int]) -> Bank:
    """The memory bank of these patches, as SAPatchCore.fit makes it."""
    per_image = spill.patches_per_image
    return Bank(spill.read(rows), rows // per_image, rows % per_image, tuple(training), grid)


def image_aurocs(embedder: Embedder, banks: list[Bank], dataset: Dataset, step: int) -> list[float | None]:
    """Of each bank, on the same patches of the test images. None where one of the two classes is missing."""
    tested = dataset.test[::step]
    labels = [not sample.is_good for sample in tested]
    if len(set(labels)) < 2:
        return [None] * len(banks)
    first: dict[tuple[int, ...], int] = {}  # a bank of the same rows in the same order has the same scores
    same = [first.setdefault(key(bank), index) for index, bank in enumerate(banks)]
    scores: dict[int, list[np.ndarray]] = {index: [] for index in first.values()}
    for _, patches in embedder.patches([sample.path for sample in tested]):
        for index, parts in scores.items():
            parts.append(score_patches(patches, banks[index], embedder.settings)[0])
    return [auroc(labels, np.concatenate(scores[index])) for index in same]


def key(bank: Bank) -> tuple[int, ...]:
    return tuple((bank.images * bank.grid[0] * bank.grid[1] + bank.cells).tolist())


def shown(name: str, found: dict[str, Any]) -> None:
    single = found["single"]
    print(f"\n{name}: {found['images']} images, {found['patches']} patches, bank {found['bank']}; one machine {single}")
    names = ("radius_over_single", "auroc_less_single", "in_common", "rounds", "candidates", "candidate_bytes")
    rows = [
        (one["shares"], one["way"], *(one[column] for column in names), *one["seconds"].values())
        for one in found["runs"]
    ]
    table(
        ("shares", "way", "radius /", "AUROC −", "in common", "rounds", "candidates", "bytes", "share s", "choosing s"),
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
