"""The folder of a distributed predict: images in parts, each of which is finished or not begun.

``run.json`` names the model, ``images/part-000000.parquet`` the images of a part. ``scores/`` has a table of the same name once
the part is finished, ``errors/`` one if some of its images could not be read. Tables are written whole or not at all, so a run
that was stopped goes on with the parts that have no scores.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from sapatchcore.atomic import atomic_write
from sapatchcore.data.images import IMAGE_SUFFIXES, images_below
from sapatchcore.data.remote import filesystem, is_address, reason
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.scale.cluster import absolute

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
        ("global", pa.float32()),  # null without a global part
        ("p_value", pa.float64()),
        ("rejected", pa.bool_()),
        ("kind", pa.string()),
        ("map", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)
ERROR_COLUMNS = pa.schema([("path", pa.string()), ("reason", pa.string())])
_KEY = np.dtype("S16")  # of a name: two of a billion are alike with a chance below 1e-20


class Storage:
    """Files below one folder, on a disk or behind an address, by names with slashes. A file is written whole or not at all."""

    def __init__(self, folder: str) -> None:
        """folder: a path or an address. Raises as data/remote.py's ``filesystem``."""
        self.folder = folder.rstrip("/") or "/"
        self._files: Any
        self._files, self._root = filesystem(self.folder)

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is no such file. Raises DataError where it cannot be read."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each kind of storage has errors of its own
            raise DataError(f"{self.folder}/{name} cannot be read: {reason(error)}.") from None

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file. Raises DataError where it cannot be written; a file of before is then untouched."""
        if not is_address(self.folder):
            path = Path(self.folder) / name
            with atomic_write(path, DataError, lambda error: _refused(str(path), error), make_folder=True) as part:
                part.write_bytes(content)
            return
        try:  # object storage shows an object only once all of it is there
            self._files.pipe_file(f"{self._root}/{name}", content)
        except Exception as error:
            raise DataError(_refused(f"{self.folder}/{name}", error)) from None

    def names(self, folder: str) -> list[str]:
        """The files directly in one of its folders, sorted; none where there is no such folder."""
        try:
            found = self._files.ls(f"{self._root}/{folder}", detail=True, refresh=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise DataError(f"{self.folder}/{folder} cannot be listed: {reason(error)}.") from None
        names = (one["name"].rstrip("/").rsplit("/", 1)[-1] for one in found if one["type"] == "file")
        return sorted(name for name in names if not name.startswith("."))


def _refused(name: str, error: Exception) -> str:
    return f"{name} cannot be written: {reason(error)}. Free space, or name another folder; what was finished stays."


def file_of(folder: str, part: int) -> str:
    return f"{folder}/part-{part:06d}.parquet"


def number_of(name: str) -> int:
    """The part that a file name belongs to; -1 for other names."""
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdigit() and name == f"part-{number}.parquet" else -1


def read_table(storage: Storage, name: str) -> Any:
    """The table, or None where there is none. Raises DataError where it is damaged."""
    content = storage.read(name)
    if content is None:
        return None
    try:
        return parquet.read_table(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{storage.folder}/{name} is damaged ({error}). Remove it: its part is then made again."
        ) from None


def write_table(
    storage: Storage, name: str, columns: Mapping[str, Sequence[Any]], schema: pa.Schema, metadata: dict[str, str]
) -> None:
    """metadata: of the file, by key. Raises DataError where it cannot be written."""
    out = io.BytesIO()
    table = pa.table(dict(columns), schema=schema.with_metadata(metadata))
    parquet.write_table(table, out, compression="zstd")
    storage.write(name, out.getvalue())


def finished(storage: Storage) -> set[int]:
    """The parts that have their scores."""
    return {number_of(name) for name in storage.names(SCORES)} - {-1}


def claim(storage: Storage, run: dict[str, Any]) -> None:
    """Make the folder this run's, unless it is already.

    run: model, rate and size of parts. Raises SettingsError where another run has the folder: their scores would be mixed.
    """
    content = storage.read(RUN)
    if content is None:
        storage.write(RUN, (json.dumps(run, indent=1, sort_keys=True) + "\n").encode())
        return
    try:
        before = json.loads(content)
        other = [name for name, value in run.items() if before[name] != value]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{storage.folder}/{RUN} is damaged. Name another folder.") from None
    if other:
        told = ", ".join(f"{name} {before[name]}, now {run[name]}" for name in other)
        raise SettingsError(
            f"{storage.folder} holds scores of another run: {told}. Name another folder, or give the same command as then."
        )


def list_images(storage: Storage, images: Iterable[str], part: int) -> list[int]:
    """Bring the list of images up to date; how many each part has.

    Images that are in no part yet become new parts of up to ``part`` images, in their order, each once however often it is
    named. Images that were listed before stay where they are, also after a listing that was cut off. Memory: 16 bytes an image.
    """
    counts, seen = _listed(storage)
    fresh = _unlisted(iter(images), seen)
    while names := list(islice(fresh, part)):
        write_table(storage, file_of(IMAGES, len(counts)), {"path": names}, IMAGE_COLUMNS, {})
        counts.append(len(names))
    return counts


class PartListing:
    """Lists the images of a distributed predict, in an actor of its own: its memory grows with them, and goes with it."""

    def __init__(self, output: str) -> None:
        self._storage = Storage(output)

    def list_images(self, sources: Sequence[str], part: int) -> list[int]:
        """As the function; sources: images, folders or addresses. Raises DataError where they hold no image."""
        counts = list_images(self._storage, _images(sources), part)
        if not counts:
            raise DataError(f"{', '.join(sources)} holds no image. Allowed: {' '.join(IMAGE_SUFFIXES)}.")
        return counts


def _images(sources: Sequence[str]) -> Iterator[str]:
    """Every image of the sources, by its absolute path or its address; of a folder all below it, in order."""
    for source in map(absolute, sources):
        if source.lower().endswith(IMAGE_SUFFIXES) and (is_address(source) or Path(source).is_file()):
            yield source
        else:
            yield from images_below(source)


def _listed(storage: Storage) -> tuple[list[int], _SeenNames]:
    """How many images each part has, and the names of all."""
    numbers = sorted({number_of(name) for name in storage.names(IMAGES)} - {-1})
    if numbers != list(range(len(numbers))):
        raise DataError(f"{storage.folder}/{IMAGES} lacks parts. Name another folder.")
    counts, seen = [], _SeenNames()
    for number in numbers:
        names = read_table(storage, file_of(IMAGES, number))["path"].to_pylist()
        counts.append(len(names))
        seen.add(names)
    return counts, seen


def _unlisted(images: Iterator[str], seen: _SeenNames) -> Iterator[str]:
    while names := list(islice(images, 8192)):
        yield from seen.add(names)


class _SeenNames:
    """A set of names, 16 bytes each."""

    def __init__(self) -> None:
        # Sorted arrays of keys, each more than twice as long as the next, so that there are few.
        self._runs: list[npt.NDArray[Any]] = []

    def add(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that were not in the set, in their order."""
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
    # NumPy would cut off a last byte of zero: the last bit is always set.
    digests = (hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names)
    return np.array([digest[:-1] + bytes([digest[-1] | 1]) for digest in digests], _KEY)
