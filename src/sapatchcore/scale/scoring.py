"""The processes of a distributed predict: one run, which holds the model, and workers, which turn images into tables."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sapatchcore import __version__
from sapatchcore.data.sources import groups, load_ahead, read_image
from sapatchcore.errors import DataError, ModelFileError, SAPatchCoreError
from sapatchcore.export.metadata import files_of
from sapatchcore.open_model import open_model
from sapatchcore.result import Result
from sapatchcore.scale.storage import (
    ERROR_COLUMNS,
    ERRORS,
    IMAGES,
    SCORE_COLUMNS,
    SCORES,
    Storage,
    claim,
    file_of,
    finished,
    read_table,
    write_table,
)
from sapatchcore.score.threshold import check_rate, possible_rate
from sapatchcore.show.maps import map_file

if TYPE_CHECKING:
    from ray import ObjectRef

_AT_ONCE = 32  # images that are held decoded, in their full size, before they are scored


@dataclass(frozen=True)
class ScoringTask:
    """What every worker is told.

    model: its files by name, the one to open first. options: of open_model.py's ``open_model``. output, maps: folders or
    addresses; maps None for none. map_format: tiff or npy. folder: where relative paths start. threads: to compute with.
    rate: the promised false-reject rate, None where the model is not calibrated. metadata: of each table of scores.
    """

    model: dict[str, bytes]
    options: dict[str, Any]
    output: str
    maps: str | None
    map_format: str
    folder: str
    threads: int
    rate: float | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class ScoreTotals:
    """What the tables of all finished parts hold. rate: the promised false-reject rate; None without calibration."""

    images: int
    errors: int
    rejected: int
    parts: int
    rate: float | None
    first_errors: list[str] = field(default_factory=list)


class ScoringRun:
    """Holds the model and the run's folder, in an actor on the machine where the command was given."""

    def __init__(
        self, model: str, options: dict[str, Any], output: str, false_reject: float | None, folder: str, part: int
    ) -> None:
        """folder: where relative paths start. part: images of a part.

        Raises what opening the model raises, and SettingsError for a rate that its calibration cannot promise, or where
        another run has ``output``.
        """
        path = Path(model)
        detector = open_model(path, **options)
        self._rate: float | None = None
        if false_reject is not None or detector.is_calibrated:
            images = len(detector.calibration)
            self._rate = possible_rate(images) if false_reject is None else false_reject
            check_rate(self._rate, images)
        try:
            self._model = {file.name: file.read_bytes() for file in files_of(path)}
        except OSError as error:
            raise ModelFileError(f"{error.filename} cannot be read: {error.strerror}. Check the path.") from None
        self._storage, self._output, self._options, self._folder = Storage(output), output, options, folder
        checksum = hashlib.sha256()
        for content in self._model.values():
            checksum.update(content)
        self._metadata = {"model": path.name, "model_sha256": checksum.hexdigest(), "false_reject": self._rate}
        claim(self._storage, {**self._metadata, "images_of_a_part": part})

    def finished(self) -> set[int]:
        """The parts that have their scores already."""
        return finished(self._storage)

    def task(self, maps: str | None, map_format: str, threads: int) -> ScoringTask:
        """What all workers are told. maps, map_format, threads: as of ScoringTask."""
        return ScoringTask(
            model=self._model,
            options=self._options,
            output=self._output,
            maps=maps,
            map_format=map_format,
            folder=self._folder,
            threads=threads,
            rate=self._rate,
            metadata={name: str(value) for name, value in {**self._metadata, "sapatchcore": __version__}.items()},
        )

    def begin(self, maps: str | None, map_format: str, threads: int) -> None:
        """Keep the task ready, once for all workers."""
        import ray

        self._task: ObjectRef = ray.put(self.task(maps, map_format, threads))

    def task_reference(self) -> ObjectRef:
        return self._task

    def totals(self) -> ScoreTotals:
        """Over the tables of all finished parts, which are read one at a time."""
        images = errors = rejected = 0
        first: list[str] = []
        parts = sorted(finished(self._storage))
        for part in parts:
            table = read_table(self._storage, file_of(SCORES, part))
            images += len(table)
            rejected += sum(table["rejected"].to_pylist()) if self._rate is not None else 0
            refused = read_table(self._storage, file_of(ERRORS, part))
            if refused is not None:
                errors += len(refused)
                first += [str(reason) for reason in refused["reason"].to_pylist()[: 3 - len(first)]]
        return ScoreTotals(images, errors, rejected, len(parts), self._rate, first)


class PartScorer:
    """Scores parts, with a model of its own."""

    def __init__(self, task: ScoringTask) -> None:
        """Opens the model and the folders of the tables and the maps."""
        self._task = task
        if Path(task.folder).is_dir():  # without it only relative paths fail, and by their names
            os.chdir(task.folder)
        self._storage = Storage(task.output)
        self._maps = Storage(task.maps) if task.maps is not None else None
        with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
            for name, content in task.model.items():
                (Path(folder) / name).write_bytes(content)
            self._detector = open_model(Path(folder) / next(iter(task.model)), threads=task.threads, **task.options)

    def score(self, part: int) -> tuple[int, int]:
        """Score the images of one part and write its tables; how many were scored, and how many could not be read."""
        names = read_table(self._storage, file_of(IMAGES, part))["path"].to_pylist()
        scored: dict[str, list[Any]] = {name: [] for name in SCORE_COLUMNS.names}
        errors: dict[str, list[str]] = {name: [] for name in ERROR_COLUMNS.names}
        reading = load_ahead(
            names, _read, workers=self._detector.settings.workers, ahead=_AT_ONCE + self._detector.settings.workers
        )
        with closing(reading) as images:
            for group in groups(zip(names, images, strict=True), _AT_ONCE):
                good = [(name, pixels) for name, pixels in group if not isinstance(pixels, str)]
                bad = [(name, reason) for name, reason in group if isinstance(reason, str)]
                for name, reason in (*bad, *self._scored(good, scored)):
                    errors["path"].append(name)
                    errors["reason"].append(reason)
        # The scores last: they say that the part is finished. An errors table of an earlier try is replaced.
        if errors["path"] or self._storage.read(file_of(ERRORS, part)) is not None:
            write_table(self._storage, file_of(ERRORS, part), errors, ERROR_COLUMNS, self._task.metadata)
        write_table(self._storage, file_of(SCORES, part), scored, SCORE_COLUMNS, self._task.metadata)
        return len(scored["path"]), len(errors["path"])

    def _scored(
        self, images: Sequence[tuple[str, npt.NDArray[np.uint8]]], rows: dict[str, list[Any]]
    ) -> list[tuple[str, str]]:
        """Add the rows of ``images``; returns those that could not be scored, with the reason."""
        if not images:
            return []
        try:
            result = self._detector.predict([pixels for _, pixels in images])
        except DataError as error:  # one of them cannot be scored; one at a time shows which
            if len(images) == 1:
                return [(images[0][0], str(error))]
            return [failed for image in images for failed in self._scored([image], rows)]
        self._add([name for name, _ in images], result, rows)
        return []

    def _add(self, names: Sequence[str], result: Result, rows: dict[str, list[Any]]) -> None:
        rate = self._task.rate
        verdicts = [None] * len(result) if rate is None else result.verdicts(rate)
        notes = result.notes
        for i, (name, verdict) in enumerate(zip(names, verdicts, strict=True)):
            height, width = result.sizes[i]
            row = {
                "path": name,
                "height": height,
                "width": width,
                "score": float(result.scores[i]),
                "local": float(result.local_scores[i]),
                "context": float(result.context_scores[i]),
                "global": None if result.global_scores is None else float(result.global_scores[i]),
                "p_value": None if verdict is None else verdict.p_value,
                "rejected": None if verdict is None else verdict.rejected,
                "kind": None if verdict is None else verdict.kind or None,
                "map": self._write_map(name, result, i),
                "notes": list(notes[i]),
            }
            for column, value in row.items():
                rows[column].append(value)

    def _write_map(self, name: str, result: Result, image: int) -> str | None:
        if self._maps is None:
            return None
        # By the image's whole path, so that no two maps have one name: s3://bucket/a.png, /data/a.png.
        file = f"{name.replace('://', '/').lstrip('/')}.{self._task.map_format}"
        self._maps.write(file, map_file(result.maps[image], self._task.map_format))
        return f"{self._maps.folder}/{file}"


def _read(name: str) -> npt.NDArray[np.uint8] | str:
    """The image, or why it cannot be read."""
    try:
        return read_image(name, name)
    except DataError as error:
        return str(error)


class PartScorers:
    """What Ray Data makes on each worker, and calls with numbers of parts.

    An error of this package is returned in the row, since Ray Data would wrap it in a page of its own.
    """

    def __init__(self, run: str) -> None:
        """run: the name of the ScoringRun's actor."""
        self._run = run
        self._scorer: PartScorer | None = None

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, list[Any]]:
        """batch: ``part``, (n,) int64. Returns the same parts, and ``failure``: "", or why one could not be finished."""
        import ray

        parts, failure = [int(part) for part in batch["part"]], ""
        try:
            if self._scorer is None:
                reference = ray.get(ray.get_actor(self._run).call.remote("task_reference"))
                self._scorer = PartScorer(ray.get(reference))
            for part in parts:
                self._scorer.score(part)
        except SAPatchCoreError as error:
            failure = str(error)
        return {"part": parts, "failure": [failure] * len(parts)}
