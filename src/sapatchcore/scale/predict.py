"""Score millions of images over many machines, with Ray Data: in parts, each of which is finished or not begun.

A run that was stopped, wherever that was, goes on with the same command: parts that are finished are not scored again, and those
that were begun are. Images that have come into the folders since are scored then too.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapatchcore.data.remote import is_address
from sapatchcore.errors import MissingPackageError, ScaleError, SettingsError, install
from sapatchcore.scale.engine import connected
from sapatchcore.scale.host import Host, Progress

if TYPE_CHECKING:
    from sapatchcore.scale.ledger import Sum

MAP_FORMATS = ("tiff", "npy")
PART = 1000  # images: what is lost at most, of each worker, when it stops


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
) -> Sum:
    """Score images on a Ray cluster into Parquet tables; what these hold in the end.

    Args:
        model: a model file or an exported one, on this machine.
        images: image files, folders, or addresses of either (s3://…, gs://…); every machine sees them under these names.
        output: folder or address of the tables, which every machine reaches: ``scores/``, ``errors/`` (images that could not
            be read, with the reason), ``images/`` (what is in which part) and ``run.json``.
        options: device, precision, batch_size, workers, weights and search, as of SAPatchCore.load.
        address: of the cluster, or "local"; as of engine.connected.
        workers: processes that score; None for as many as the cluster has room for.
        false_reject: as of Result.verdicts; None for the usual rate, or the smallest that can be promised.
        maps: folder or address for the anomaly maps, None for none. map_format: tiff or npy (float32).
        part: images of a part.
        progress: called as ``progress("predict", done, total)`` with numbers of images, those of earlier runs among them.

    Raises SettingsError where ``output`` holds scores of another model or rate; DataError where there is no image, or a table
    cannot be written; and what opening the model and engine.connected raise.
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
        token, folder = secrets.token_hex(8), str(Path.cwd())
        name = f"ledger-{token}"
        asked = dict.fromkeys(("precision", "batch_size", "workers", "weights", "search")) | {"device": "auto"}
        ledger = (
            ray.remote(Host)
            .options(name=name, **cluster.here())
            .remote(
                *(folder, "scale.ledger", "Ledger", _whole(model), {**asked, **(options or {})}, _whole(output)),
                *(false_reject, folder, part),
            )
        )
        finished = ray.get(ledger.call.remote("finished"))  # now the folder is this run's
        listing = ray.remote(Host).options(name=f"listing-{token}", **cluster.here())
        parts = listing.remote(folder, "scale.listing", "Parts", _whole(output))
        counts = ray.get(parts.call.remote("list_images", [os.fspath(source) for source in images], part))
        del parts  # ends its process
        left = [number for number in range(len(counts)) if number not in finished]
        ray.get(ledger.call.remote("begin", None if maps is None else _whole(maps), map_format, cluster.threads(count)))
        total, done = sum(counts), sum(counts) - sum(counts[number] for number in left)
        if progress is not None:
            progress("predict", done, total)
        for number in _scored(left, name, min(count, len(left)), cluster.worker_resources()):
            done += counts[number]
            if progress is not None:
                progress("predict", done, total)
        found: Sum = ray.get(ledger.call.remote("sum"))
        return found


def _scored(parts: list[int], ledger: str, workers: int, where: Mapping[str, Any]) -> Any:
    """The numbers of the parts as they are finished."""
    if not parts:
        return
    try:
        from ray import data
    except ImportError as error:
        raise MissingPackageError(f"Ray's data sets need {error.name}: {install('scale')}", name=error.name) from None
    context = data.DataContext.get_current()
    context.enable_progress_bars = False  # ours says what is left of the whole
    context.print_on_execution_start = False
    from sapatchcore.scale.scorer import Scorers

    rows = data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    scored = rows.map_batches(
        Scorers,
        fn_constructor_args=(ledger,),
        compute=data.ActorPoolStrategy(size=workers),
        batch_size=1,
        **where,
    )
    for row in scored.iter_rows():
        if row["failure"]:
            raise ScaleError(f"{row['failure']} What was finished stays: the same command goes on from there.")
        yield int(row["part"])


def _whole(place: str | os.PathLike[str]) -> str:
    """A path from the root, so that it means the same in every process; an address as it is."""
    text = os.fspath(place)
    return text if is_address(text) else str(Path(text).absolute())
