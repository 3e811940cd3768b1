"""How long does the greedy coreset take, and is it the plain loop's?

Compared with the plain loop in the fastest form found: every centre is one pass over all patches, with all
buffers allocated beforehand. Two forms of the pass are timed, and the faster one runs in full.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import BACKBONE, Record, images_for, interleaved, parser, ratio, shown, spread, table
from sapatchcore import Settings
from sapatchcore.data.sources import read_batches
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.patches import to_patches
from sapatchcore.memory.coreset import Projection, greedy_coreset

QUESTION = "Time and covering radius of the greedy coreset against the plain in-place loop"

Pass = Callable[[torch.Tensor, torch.Tensor], None]  # (centre, distance): brings the distances up to date


def main(arguments: list[str] | None = None) -> None:
    options = parser("coreset", QUESTION)
    options.add_argument("--backbone", default=BACKBONE, help="random weights (default: %(default)s)")
    options.add_argument("--patches", type=int, default=250_000, help="(default: %(default)s)")
    given = options.parse_args(arguments)
    count, repeats = (4_000, 1) if given.quick else (given.patches, given.repeats or 3)
    given.backbone = "resnet18" if given.quick else given.backbone
    record = Record("coreset", QUESTION, given)

    source = given.data.name if given.data else "made images"
    real = projected_patches(given.data, count, given.backbone)
    isotropic = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    rows: list[tuple[object, ...]] = []
    for name, x in ((source, real), ("isotropic Gaussian (worst case)", isotropic)):
        found = compare(x, repeats)
        record[name] = found
        one, ten, plain = found["ours_1_percent"], found["ours_10_percent"], found["plain_1_percent"]
        rows.append(
            (
                name,
                len(x),
                shown(one),
                shown(plain),
                shown(found["plain_over_ours"]),
                shown(ten),
                found["ten_over_one"],
                found["radius_difference"],
            )
        )
    columns = ("patches", "n", "ours 1 % s", "plain 1 % s", "plain/ours", "ours 10 % s", "10 %/1 %", "radius")
    table(columns, rows)
    print("radius: (ours − plain) / plain at 1 %, from float64 distances")
    record.write(given.output)


def projected_patches(data: Path | None, count: int, backbone: str) -> torch.Tensor:
    """(count, 128) float32, or fewer where the images give fewer: what ``fit`` hands to the coreset."""
    settings = Settings(backbone=backbone, weights="random")
    device = torch.device("cpu")
    network = Backbone(
        settings.backbone,
        weights=settings.weights,
        layers=settings.layers,
        input_size=settings.input_size,
        device=device,
        precision="float32",
        seed=0,
    )
    found: list[torch.Tensor] = []
    projection, total = None, 0
    for batch in read_batches(images_for(data, -(-count // 784)), Settings()):
        with torch.inference_mode():
            patches = to_patches(*network.features(torch.from_numpy(batch.pixels)), "self")
            if projection is None:
                projection = Projection(patches.local.shape[2], patches.context.shape[2], 128, 0, device)
            found.append(projection(patches))
        total += len(found[-1])
    return torch.cat(found)[:count].clone()


def compare(x: torch.Tensor, repeats: int) -> dict[str, object]:
    n = len(x)
    one, ten = max(2, n // 100), max(2, n // 10)
    first = int(np.random.default_rng(0).integers(n))
    forms = {"matrix times vector": by_product(x), "differences": by_differences(x)}
    few = min(one, 16)
    tried = interleaved(
        {name: lambda step=step: plain_loop(x, few, first, step) for name, step in forms.items()}, repeats=3
    )
    best = min(tried, key=lambda name: min(tried[name]))
    chosen: dict[str, torch.Tensor] = {}

    def ours() -> None:
        chosen["ours"] = greedy_coreset(x, one, seed=0)

    def plain() -> None:
        chosen["plain"] = plain_loop(x, one, first, forms[best])

    def ours_ten() -> None:
        greedy_coreset(x, ten, seed=0)

    greedy_coreset(x, min(n, 64), seed=0)  # warm-up: the loop itself is too long for a round that does not count
    seconds = interleaved({"ours": ours, "plain": plain, "ours_ten": ours_ten}, repeats=repeats, warm_up=0)
    radii = {name: radius(x, rows) for name, rows in chosen.items()}
    times = {name: spread(values) for name, values in seconds.items()}
    return {
        "patches": n,
        "dimensions": x.shape[1],
        "centres_1_percent": one,
        "centres_10_percent": ten,
        "ours_1_percent": times["ours"],
        "plain_1_percent": times["plain"],
        "ours_10_percent": times["ours_ten"],
        "plain_over_ours": ratio(seconds, "plain", "ours"),
        "ten_over_one": times["ours_ten"]["median"] / times["ours"]["median"],
        "plain_form": best,
        "plain_forms_seconds_a_centre": {name: min(values) / few for name, values in tried.items()},
        "radius_ours": radii["ours"],
        "radius_plain": radii["plain"],
        "radius_difference": radii["ours"] / radii["plain"] - 1,
        "same_choices": float((chosen["ours"] == chosen["plain"]).float().mean()),
    }


def by_product(x: torch.Tensor) -> Pass:
    """|x|² − 2x·c + |c|² by one matrix-vector product into a buffer: reads the patches once a centre."""
    x = x - x.mean(0)
    norms, buffer = x.square().sum(1), torch.empty(len(x))

    def update(centre: torch.Tensor, distance: torch.Tensor) -> None:
        c = x[int(centre)]
        torch.addmv(norms, x, c, alpha=-2, out=buffer)
        buffer.add_(c.square().sum())
        torch.minimum(distance, buffer, out=distance)

    return update


def by_differences(x: torch.Tensor) -> Pass:
    """Σ(x − c)² through a buffer as large as the patches: no rounding trouble, more memory traffic."""
    difference, buffer = torch.empty_like(x), torch.empty(len(x))

    def update(centre: torch.Tensor, distance: torch.Tensor) -> None:
        torch.sub(x, x[int(centre)], out=difference)
        torch.linalg.vecdot(difference, difference, out=buffer)
        torch.minimum(distance, buffer, out=distance)

    return update


@torch.inference_mode()
def plain_loop(x: torch.Tensor, count: int, first: int, update: Pass) -> torch.Tensor:
    """Greedy k-center selection, a pass over all patches for every centre; (count,) int64."""
    distance = torch.full((len(x),), torch.inf)
    chosen = torch.empty(count, dtype=torch.int64)
    pick = torch.tensor(first)
    for k in range(count):
        chosen[k] = pick
        update(pick, distance)
        distance[pick] = -torch.inf
        pick = distance.argmax()
    return chosen


def radius(x: torch.Tensor, chosen: torch.Tensor) -> float:
    """The covering radius from float64 distances."""
    centres = x[chosen].double()
    return max(float(torch.cdist(rows.double(), centres).amin(1).max()) for rows in x.split(4096))


if __name__ == "__main__":
    sys.exit(main())
