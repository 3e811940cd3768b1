"""One worker of a distributed predict: a part's images in, its tables out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.sources import groups, load_ahead, read_image
from sapatchcore.errors import DataError, SAPatchCoreError
from sapatchcore.open_model import open_model
from sapatchcore.result import Result
from sapatchcore.scale.parts import (
    ERROR_COLUMNS,
    ERRORS,
    IMAGES,
    SCORE_COLUMNS,
    SCORES,
    file_of,
    read_table,
    write_table,
)
from sapatchcore.scale.places import Place
from sapatchcore.show.maps import map_file

_TOGETHER = 32  # images that are decoded before they are scored: their own size, so no more than this at a time


@dataclass(frozen=True)
class Work:
    """What every worker is told.

    model: its files by name, the one to open first. options: of open_model.py's ``open_model``. output, maps: folders or
    addresses; maps None for none. map_format: tiff or npy. folder: where relative paths start. threads: processors to compute
    with. rate: the promised false-reject rate, None where the model is not calibrated. facts: what each table says of itself.
    """

    model: dict[str, bytes]
    options: dict[str, Any]
    output: str
    maps: str | None
    map_format: str
    folder: str
    threads: int
    rate: float | None
    facts: dict[str, str]


class Scorer:
    """Made by Ray Data on the machine that it works on; called with the numbers of parts."""

    def __init__(self, work: Work) -> None:
        """Opens the model, and the folders of the tables and the maps."""
        self._work = work
        if Path(work.folder).is_dir():  # absolute paths and addresses need none; the others then fail by their names
            os.chdir(work.folder)
        self._place = Place(work.output)
        self._maps = Place(work.maps) if work.maps is not None else None
        with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
            for name, content in work.model.items():
                (Path(folder) / name).write_bytes(content)
            self._detector = open_model(Path(folder) / next(iter(work.model)), threads=work.threads, **work.options)

    def score(self, part: int) -> tuple[int, int]:
        """Score the images of one part and write its tables: how many were scored, and how many could not be read."""
        names = read_table(self._place, file_of(IMAGES, part))["path"].to_pylist()
        scored: dict[str, list[Any]] = {name: [] for name in SCORE_COLUMNS.names}
        errors: dict[str, list[str]] = {name: [] for name in ERROR_COLUMNS.names}
        reading = load_ahead(
            names, _read, workers=self._detector.settings.workers, ahead=_TOGETHER + self._detector.settings.workers
        )
        with closing(reading) as images:
            for group in groups(zip(names, images, strict=True), _TOGETHER):
                good = [(name, pixels) for name, pixels in group if not isinstance(pixels, str)]
                bad = [(name, reason) for name, reason in group if isinstance(reason, str)]
                for name, reason in (*bad, *self._scored(good, scored)):
                    errors["path"].append(name)
                    errors["reason"].append(reason)
        # The scores last: where they are, the part is finished.
        if errors["path"] or self._place.read(file_of(ERRORS, part)) is not None:  # of an earlier try at this part
            write_table(self._place, file_of(ERRORS, part), errors, ERROR_COLUMNS, self._work.facts)
        write_table(self._place, file_of(SCORES, part), scored, SCORE_COLUMNS, self._work.facts)
        return len(scored["path"]), len(errors["path"])

    def _scored(
        self, images: Sequence[tuple[str, npt.NDArray[np.uint8]]], rows: dict[str, list[Any]]
    ) -> list[tuple[str, str]]:
        """Add the rows of ``images``; those that could not be scored, with the reason."""
        if not images:
            return []
        try:
            result = self._detector.predict([pixels for _, pixels in images])
        except DataError as error:  # one of them gave no numbers: which one, each alone will say
            if len(images) == 1:
                return [(images[0][0], str(error))]
            return [failed for image in images for failed in self._scored([image], rows)]
        self._add([name for name, _ in images], result, rows)
        return []

    def _add(self, names: Sequence[str], result: Result, rows: dict[str, list[Any]]) -> None:
        rate = self._work.rate
        verdicts = [None] * len(result) if rate is None else result.verdicts(rate)
        for i, (name, verdict) in enumerate(zip(names, verdicts, strict=True)):
            height, width = result.sizes[i]
            row = {
                "path": name,
                "height": height,
                "width": width,
                "score": float(result.scores[i]),
                "local": float(result.local_scores[i]),
                "context": float(result.context_scores[i]),
                "p_value": None if verdict is None else verdict.p_value,
                "rejected": None if verdict is None else verdict.rejected,
                "kind": None if verdict is None else verdict.kind or None,
                "map": self._write_map(name, result, i),
            }
            for column, value in row.items():
                rows[column].append(value)

    def _write_map(self, name: str, result: Result, image: int) -> str | None:
        if self._maps is None:
            return None
        # The image's whole place, so that no two maps have one name: s3://bucket/a.png, /data/a.png.
        file = f"{name.replace('://', '/').lstrip('/')}.{self._work.map_format}"
        self._maps.write(file, map_file(result.maps[image], self._work.map_format))
        return f"{self._maps.folder}/{file}"


def _read(name: str) -> npt.NDArray[np.uint8] | str:
    """The image, or why it cannot be read."""
    try:
        return read_image(name, name)
    except DataError as error:
        return str(error)


class Scorers:
    """What Ray Data makes and calls: a Scorer that has its work from the ledger, an actor's name.

    An error that has a sentence is told as a row, since Ray Data would wrap it in a page of its own.
    """

    def __init__(self, ledger: str) -> None:
        self._ledger = ledger
        self._scorer: Scorer | None = None

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, list[Any]]:
        """batch: ``part``, (n,) int64. The parts that are finished, and why one could not be."""
        import ray

        parts, failure = [int(part) for part in batch["part"]], ""
        try:
            if self._scorer is None:
                self._scorer = Scorer(ray.get(ray.get(ray.get_actor(self._ledger).call.remote("work"))))
            for part in parts:
                self._scorer.score(part)
        except SAPatchCoreError as error:
            failure = str(error)
        return {"part": parts, "failure": [failure] * len(parts)}
