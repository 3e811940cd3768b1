"""Which search of the memory bank pays, and from which size: exact, float16, int8, faiss?"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import BACKBONE, Record, interleaved, parser, ratio, shown, spread, table
from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.memory.search.approximate import FEWEST, ApproximateIndex
from sapatchcore.memory.search.exact import ExactIndex
from sapatchcore.memory.search.quantised import QuantisedIndex
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.metrics import auroc

QUESTION = (
    "search: build, size, ms an image and recall of each search, for banks of 2,508 to 1,000,000 patches; image AUROC"
)
SEARCHES: dict[str, Callable[[torch.Tensor], Any]] = {
    "exact": ExactIndex,
    "float16": lambda rows: QuantisedIndex(rows, "float16"),
    "int8": lambda rows: QuantisedIndex(rows, "int8"),
    "faiss": ApproximateIndex,
}
SIZES = (2508, 25_000, 100_000, 1_000_000)
PATCHES = 784  # of an image
ROWS = 2048  # made at a time


def main(arguments: list[str] | None = None) -> None:
    options = parser("search", QUESTION, several=True, needed=False)
    options.add_argument("--category", type=Path, help="data set for the image AUROC (default: none is taken)")
    options.add_argument("--coreset-ratio", type=float, default=0.1, help="of its bank (default: %(default)s)")
    options.add_argument("--images", type=int, default=200, help="to take patches from, at most (default: %(default)s)")
    options.add_argument("--queries", type=int, default=4, help="images that are searched for (default: %(default)s)")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="patches (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.quick:
        given.sizes, given.images, given.queries = [300, 3000], 6, 1
    record = Record("search", QUESTION, given)
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
        pool, queries, about = patches(given, Path(folder))
        record["patches"] = about
        record["banks"] = {
            str(size): measured(rows_of(pool, size, about), queries, given.repeats or (1 if given.quick else 3))
            for size in given.sizes
        }
    if given.category is not None:
        record["image_auroc"] = accuracy(given)
    record.write(given.output)


def patches(given: argparse.Namespace, folder: Path) -> tuple[torch.Tensor, list[torch.Tensor], dict[str, Any]]:
    """All patches, (largest size, d) float32 in a mapped file; those of each image to be searched for; what they are."""
    most = max(given.sizes)
    if given.data is None:
        made = mixture(most + PATCHES * given.queries)
        kind, real, d = "Gaussian mixture", most, 1536
        queries = [torch.cat(list(itertools.islice(made, 1)))[:PATCHES] for _ in range(given.queries)]
        pool = mapped(folder / "rows", most, d, made)
    else:
        kind = "real"
        images, asked = split(given)
        detector = network(given)
        queries = [torch.from_numpy(detector.embed([one])).flatten(0, 2) for one in asked]
        d = queries[0].shape[1]
        found = (torch.from_numpy(detector.embed([one])).flatten(0, 2) for one in images)
        pool = mapped(folder / "rows", most, d, found)
        real = min(most, len(images) * len(queries[0]))
    about = {"kind": kind, "rows": most, "real_rows": real, "width": d, "copies": most - real, "copies_away": 0.0}
    if real < most:  # the rest: copies of real ones, half as far from them as a new image's patches are
        near = ExactIndex(pool[:real])
        away = 0.5 * float(torch.cat([(q - pool[near.nearest(q)]).norm(dim=1) for q in queries]).median())
        random = torch.Generator().manual_seed(1)
        for start in range(real, most, ROWS):
            end = min(start + ROWS, most)
            noise = torch.randn(end - start, d, generator=random) * (away / d**0.5)
            pool[start:end] = pool[torch.arange(start, end) % real] + noise
        about["copies_away"] = away
    return pool, queries, about


def mapped(file: Path, rows: int, d: int, parts: Iterator[torch.Tensor]) -> torch.Tensor:
    """(rows, d) float32 in ``file``: the parts one after another, as far as they reach."""
    out = torch.from_numpy(np.memmap(file, np.float32, mode="w+", shape=(rows, d)))
    done = 0
    for part in parts:
        part = part[: rows - done]
        out[done : done + len(part)] = part
        done += len(part)
        if done == rows:
            break
    return out


def mixture(rows: int, d: int = 1536) -> Iterator[torch.Tensor]:
    """At least so many rows (…, d) of 200 Gaussians of 24 dimensions each, and a little noise in all others."""
    random = torch.Generator().manual_seed(0)
    middles, axes = torch.randn(200, d, generator=random), torch.randn(24, d, generator=random)
    for _ in range(-(-rows // ROWS) + 8):
        middle = middles[torch.randint(0, 200, (ROWS,), generator=random)]
        inside = torch.randn(ROWS, 24, generator=random) @ axes
        yield middle + 0.3 * inside + 0.1 * torch.randn(ROWS, d, generator=random)


def split(given: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Images to take patches from, evenly over the folders, and others of their test images to be searched for."""
    sets = [open_dataset(folder) for folder in given.data]
    tested = [sample.path for one in sets for sample in one.test]
    indices = np.linspace(0, len(tested) - 1, given.queries).astype(int)
    asked = [tested[index] for index in indices]
    images = [sample.path for one in sets for sample in one.train] + [one for one in tested if one not in set(asked)]
    return [images[index] for index in np.unique(np.linspace(0, len(images) - 1, given.images).astype(int))], asked


def network(given: argparse.Namespace) -> SAPatchCore:
    name = "resnet18" if given.quick else BACKBONE
    return SAPatchCore(backbone=name, weights="random", device="cpu")


def rows_of(pool: torch.Tensor, size: int, about: dict[str, Any]) -> torch.Tensor:
    """(size, d): real patches at random where there are enough; else all of them, and copies."""
    if size > about["real_rows"]:
        return pool[:size]
    chosen = torch.randperm(about["real_rows"], generator=torch.Generator().manual_seed(2))[:size]
    return pool[chosen.sort().values]


def measured(rows: torch.Tensor, queries: list[torch.Tensor], repeats: int) -> dict[str, Any]:
    """Every search of one bank. Where the bank is too small for FAISS it is left out, as detectors leave it out."""
    indexes, building = {}, {}
    for name, build in SEARCHES.items():
        if name == "faiss" and len(rows) <= FEWEST:
            continue
        begin = time.perf_counter()
        indexes[name] = build(rows)
        building[name] = time.perf_counter() - begin
    found = {name: [index.nearest(q) for q in queries] for name, index in indexes.items()}
    away = {name: distances(rows, queries, nearest) for name, nearest in found.items()}
    seconds = interleaved(
        {name: lambda index=index: [index.nearest(q) for q in queries] for name, index in indexes.items()},
        repeats=repeats,
    )
    out, shown_rows = {}, []
    for name, index in indexes.items():
        over = away[name] / away["exact"].clamp(min=1e-12)
        out[name] = {
            "build_seconds": building[name],
            "build_over_exact": building[name] / building["exact"],
            "index_bytes": held(index),
            "over_bank": held(index) / rows.nbytes,
            "ms_an_image": spread(seconds[name], 1000 / len(queries)),
            "over_exact": ratio(seconds, name, "exact"),
            "recall": float((over <= 1 + 1e-6).float().mean()),
            "largest_difference": float(over.max() - 1),
        }
        one = out[name]
        times = (shown(one["ms_an_image"]), shown(one["over_exact"]))
        shown_rows.append((name, building[name], held(index) / 1e6, *times, one["recall"], one["largest_difference"]))
    print()
    table(
        (f"{len(rows)} patches", "build s", "MB", "ms an image", "/ exact", "recall", "largest difference"), shown_rows
    )
    return out


def distances(rows: torch.Tensor, queries: list[torch.Tensor], found: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([(q - rows[nearest]).norm(dim=1) for q, nearest in zip(queries, found, strict=True)])


def held(index: Any) -> int:
    """Bytes that a search keeps beside the bank, in memory or in a mapped file."""
    if not isinstance(index, ExactIndex):
        return int(index.nbytes)
    return sum(rows.nbytes for rows in getattr(index, "_rows", []))  # none where it compares with the bank itself


def accuracy(given: argparse.Namespace) -> dict[str, Any]:
    """Image AUROC of the built-in network with each search of the same bank, on the same patches."""
    dataset = open_dataset(given.category)
    detector = SAPatchCore(backbone="builtin", device="cpu", coreset_ratio=given.coreset_ratio).fit(
        [sample.path for sample in dataset.train[:: 20 if given.quick else 1]]
    )
    bank, embedder = detector.bank, detector.embedder
    tested = dataset.test[:: 20 if given.quick else 1]
    banks = {name: replace(bank, search=name) for name in SEARCHES}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in banks}
    for _, some in embedder.patches([sample.path for sample in tested]):
        for name, one in banks.items():
            scores[name].append(score_patches(some, one, embedder.settings)[0])
    labels = [not sample.is_good for sample in tested]
    whole = {name: np.concatenate(parts) for name, parts in scores.items()}
    exact = auroc(labels, whole["exact"])
    out: dict[str, Any] = {"category": dataset.name, "bank": len(bank.rows), "images": len(tested), "searches": {}}
    for name, values in whole.items():
        out["searches"][name] = {
            "auroc": auroc(labels, values),
            "difference": auroc(labels, values) - exact,
            "largest_score_difference": float(np.abs(values / whole["exact"] - 1).max()),
        }
    print()
    table(
        (f"{dataset.name}, {len(bank.rows)} patches", "image AUROC", "less exact", "largest score difference"),
        [(name, *one.values()) for name, one in out["searches"].items()],
    )
    return out


if __name__ == "__main__":
    sys.exit(main())
