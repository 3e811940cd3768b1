"""Score millions of images over many machines, with Ray Data: in parts, each of which is finished or not begun.

A run that was stopped goes on with the same command: finished parts are not scored again, those that were only begun are.
Images that have come into the folders since are scored then too. This file runs in the command's process, which holds a number
for each part.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapatchcore.data.sources import Progress
from sapatchcore.errors import MissingPackageError, ScaleError, SettingsError, install
from sapatchcore.scale.cluster import LazyActor, absolute, connected

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from sapatchcore.scale.scoring import ScoreTotals

MAP_FORMATS = ("tiff", "npy")
PART = 1000  # images: what each worker loses at most when it stops


def predict(
    model: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    *,
    address: str,
    workers: int | None = None,
    false_reject: float | None = None,
    maps: str | os.PathLike[str] | None = None,
    map_format: str = "tiff",
    part: int = PART,
    progress: Progress | None = None,
) -> ScoreTotals:
    """Score images on a Ray cluster into Parquet tables. Returns what these hold in the end.

    Args:
        model: a model file or an exported one, on this machine.
        images: image files, folders, or addresses of either (s3://…, gs://…); every machine sees them under these names.
        output: folder or address of the tables, which every machine reaches: ``scores/``, ``errors/`` (images that could not
            be read, with the reason), ``images/`` (what is in which part) and ``run.json``.
        options: device, precision, batch_size, workers, weights and search, as of SAPatchCore.load.
        address: of the cluster, or "local"; as of cluster.connected.
        workers: processes that score; None for as many as the cluster has room for.
        false_reject: as of Result.verdicts; None for the usual rate, or the smallest that can be promised.
        maps: folder or address for the anomaly maps, None for none. map_format: tiff or npy (float32).
        part: images of a part.
        progress: called as ``progress("predict", done, total)`` with numbers of images, those of earlier runs among them.

    Raises SettingsError where ``output`` holds scores of another model or rate; DataError where there is no image, or a table
    cannot be written; and what opening the model and cluster.connected raise.
    """
    if map_format not in MAP_FORMATS:
        raise SettingsError(
            f"The map format must be {' or '.join(MAP_FORMATS)} with `address`. Got {map_format!r}: a PNG's one scale for all "
            "images would need all scores first."
        )
    if part < 1:
        raise SettingsError(f"A part must have 1 or more images. Got {part}.")
    with connected(address) as cluster:
        import ray

        count = cluster.workers(workers)
        run_id, folder, tables = secrets.token_hex(8), str(Path.cwd()), absolute(output)

        def actor(role: str, module: str, kind: str, *arguments: object) -> ActorHandle:
            lazy = ray.remote(LazyActor).options(name=f"{role}-{run_id}", **cluster.here())
            return lazy.remote(folder, module, kind, *arguments)

        opening: dict[str, Any] = dict.fromkeys(("precision", "batch_size", "workers", "weights", "search"))
        opening |= {"device": "auto", **(options or {})}
        given = absolute(model), opening, tables, false_reject, folder, part
        run = actor("run", "scale.scoring", "ScoringRun", *given)
        finished = ray.get(run.call.remote("finished"))  # from here on the folder is this run's
        listing = actor("listing", "scale.storage", "PartListing", tables)
        counts = ray.get(listing.call.remote("list_images", [os.fspath(source) for source in images], part))
        del listing  # ends its process
        left = [number for number in range(len(counts)) if number not in finished]
        map_folder = None if maps is None else absolute(maps)
        ray.get(run.call.remote("begin", map_folder, map_format, cluster.threads(count)))
        total, done = sum(counts), sum(counts) - sum(counts[number] for number in left)
        if progress is not None:
            progress("predict", done, total)
        for number in _scored(left, f"run-{run_id}", min(count, len(left)), cluster.worker_resources()):
            done += counts[number]
            if progress is not None:
                progress("predict", done, total)
        totals: ScoreTotals = ray.get(run.call.remote("totals"))
        return totals


def _scored(parts: list[int], run: str, workers: int, resources: Mapping[str, float]) -> Iterator[int]:
    """The numbers of the parts as they are finished. run: the name of the ScoringRun's actor."""
    if not parts:
        return
    try:
        from ray import data
    except ImportError as error:
        raise MissingPackageError(f"Ray's data sets need {error.name}: {install('scale')}", name=error.name) from None
    context = data.DataContext.get_current()
    context.enable_progress_bars = False  # ``progress`` counts the parts of earlier runs too
    context.print_on_execution_start = False
    from sapatchcore.scale.scoring import PartScorers

    rows = data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    scored = rows.map_batches(
        PartScorers,
        fn_constructor_args=(run,),
        compute=data.ActorPoolStrategy(size=workers),
        batch_size=1,
        **resources,
    )
    for row in scored.iter_rows():
        if row["failure"]:
            raise ScaleError(f"{row['failure']} What was finished stays: the same command goes on from there.")
        yield int(row["part"])
