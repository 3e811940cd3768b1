"""How the scores of millions of images lie in their folder: parts of images, each finished or not begun.

``run.json`` says which model and images; ``images/part-000000.parquet`` names the images of a part, ``scores/`` has a table
under the same name when the part is finished, and ``errors/`` one where images of it could not be read. Since a table is there
as a whole or not at all, a run that was stopped goes on with the parts that have none.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from sapatchcore.errors import DataError, SettingsError
from sapatchcore.scale.places import Place

RUN, IMAGES, SCORES, ERRORS = "run.json", "images", "scores", "errors"
IMAGE_COLUMNS = pa.schema([("path", pa.string())])
SCORE_COLUMNS = pa.schema(
    [
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("score", pa.float32()),
        ("local", pa.float32()),
        ("context", pa.float32()),
        ("p_value", pa.float64()),
        ("rejected", pa.bool_()),
        ("kind", pa.string()),
        ("map", pa.string()),
    ]
)
ERROR_COLUMNS = pa.schema([("path", pa.string()), ("reason", pa.string())])
_KEY = np.dtype("S16")  # of a name: two of a billion are alike with a chance below 1e-20


def file_of(folder: str, part: int) -> str:
    return f"{folder}/part-{part:06d}.parquet"


def number_of(name: str) -> int:
    """The part that a file name belongs to; -1 for other names."""
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdigit() and name == f"part-{number}.parquet" else -1


def read_table(place: Place, name: str) -> Any:
    """The table, or None where there is none. Raises DataError where it is damaged."""
    content = place.read(name)
    if content is None:
        return None
    try:
        return parquet.read_table(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{place.folder}/{name} is damaged ({error}). Remove it: its part is then made again."
        ) from None


def write_table(
    place: Place, name: str, columns: Mapping[str, Sequence[Any]], schema: Any, facts: dict[str, str]
) -> None:
    """facts: texts that the file says of itself. Raises DataError where it cannot be written."""
    out = io.BytesIO()
    table = pa.table(dict(columns), schema=schema.with_metadata(facts))
    parquet.write_table(table, out, compression="zstd")
    place.write(name, out.getvalue())


def finished(place: Place) -> set[int]:
    """The parts that have their scores."""
    return {number_of(name) for name in place.names(SCORES)} - {-1}


def claim(place: Place, facts: dict[str, Any]) -> None:
    """The folder belongs to this run from now on, or did before.

    Raises SettingsError where it is of another model, rate or size of parts: their scores would be mixed.
    """
    content = place.read(RUN)
    if content is None:
        place.write(RUN, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
        return
    try:
        before = json.loads(content)
        other = [name for name, value in facts.items() if before[name] != value]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{place.folder}/{RUN} is damaged. Name another folder.") from None
    if other:
        told = ", ".join(f"{name} {before[name]}, now {facts[name]}" for name in other)
        raise SettingsError(
            f"{place.folder} holds scores of another run: {told}. Name another folder, or give the same command as then."
        )


def list_images(place: Place, images: Iterable[str], part: int) -> list[int]:
    """Bring the list of images up to date, and say how many each part has.

    Images that are in no part yet become new parts of up to ``part`` images, in their order, each once however often it is
    named; those that were listed before keep their places, whether or not a listing was broken off. Memory: 16 bytes an image.
    """
    counts, met = _listed(place)
    fresh = _unknown(iter(images), met)
    while names := list(islice(fresh, part)):
        write_table(place, file_of(IMAGES, len(counts)), {"path": names}, IMAGE_COLUMNS, {})
        counts.append(len(names))
    return counts


def _listed(place: Place) -> tuple[list[int], _Met]:
    """How many images each part has, and all of them."""
    numbers = sorted({number_of(name) for name in place.names(IMAGES)} - {-1})
    if numbers != list(range(len(numbers))):
        raise DataError(f"{place.folder}/{IMAGES} lacks parts. Name another folder.")
    counts, met = [], _Met()
    for number in numbers:
        names = read_table(place, file_of(IMAGES, number))["path"].to_pylist()
        counts.append(len(names))
        met.new(names)
    return counts, met


def _unknown(images: Iterator[str], met: _Met) -> Iterator[str]:
    while names := list(islice(images, 8192)):
        yield from met.new(names)


class _Met:
    """Names that were met, by their keys."""

    def __init__(self) -> None:
        # Of sorted keys, each run more than twice as long as the next: few, whatever came.
        self._runs: list[npt.NDArray[Any]] = []

    def new(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that were not met yet, in their order; from now on they are."""
        keys = _keys(names)
        fresh = np.zeros(len(keys), bool)
        fresh[np.unique(keys, return_index=True)[1]] = True
        for run in self._runs:
            fresh &= run[np.minimum(np.searchsorted(run, keys), len(run) - 1)] != keys
        if fresh.any():
            self._runs.append(np.sort(keys[fresh]))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._runs.append(np.sort(np.concatenate((self._runs.pop(), self._runs.pop()))))
        return [name for name, one in zip(names, fresh, strict=True) if one]


def _keys(names: Sequence[str]) -> npt.NDArray[Any]:
    # A last byte of zero would be cut off by NumPy: the last bit is always set.
    digests = (hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names)
    return np.array([digest[:-1] + bytes([digest[-1] | 1]) for digest in digests], _KEY)
