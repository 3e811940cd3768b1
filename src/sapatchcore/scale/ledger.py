"""What happens once in a distributed predict: the model, its folder, and what came of all.

It runs in a process of its own on the machine where the command was given; that process itself holds a number for each part.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sapatchcore import __version__
from sapatchcore.errors import ModelFileError
from sapatchcore.export.metadata import files_of
from sapatchcore.open_model import open_model
from sapatchcore.scale.places import Place
from sapatchcore.scale.scoring import Work
from sapatchcore.scale.storage import ERRORS, SCORES, claim, file_of, finished, read_table
from sapatchcore.score.threshold import check_rate, possible_rate


@dataclass(frozen=True)
class Sum:
    """What the tables of all finished parts hold. rate: the promised false-reject rate; None without calibration."""

    images: int
    errors: int
    rejected: int
    parts: int
    rate: float | None
    first_errors: list[str] = field(default_factory=list)


class Ledger:
    """Keeps the run's folder."""

    def __init__(
        self, model: str, options: dict[str, Any], output: str, false_reject: float | None, folder: str, part: int
    ) -> None:
        """folder: where relative paths start. part: images of a part. Raises what opening the model raises, SettingsError for a
        rate that its calibration cannot promise, and where ``output`` holds another run."""
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
        self._place, self._output, self._options, self._folder, self._part = (
            Place(output),
            output,
            options,
            folder,
            part,
        )
        whole = hashlib.sha256()
        for content in self._model.values():
            whole.update(content)
        self._facts = {"model": path.name, "model_sha256": whole.hexdigest(), "false_reject": self._rate}
        claim(self._place, {**self._facts, "images_of_a_part": part})

    def finished(self) -> set[int]:
        return finished(self._place)

    def begin(self, maps: str | None, map_format: str, threads: int) -> None:
        """What all workers are told lies ready once for all of them."""
        import ray

        facts = {name: str(value) for name, value in {**self._facts, "sapatchcore": __version__}.items()}
        self._work = ray.put(
            Work(self._model, self._options, self._output, maps, map_format, self._folder, threads, self._rate, facts)
        )

    def work(self) -> Any:
        """A reference to it."""
        return self._work

    def sum(self) -> Sum:
        """Over the tables of all finished parts, one at a time."""
        images = errors = rejected = 0
        first: list[str] = []
        parts = sorted(finished(self._place))
        for part in parts:
            table = read_table(self._place, file_of(SCORES, part))
            images += len(table)
            rejected += sum(table["rejected"].to_pylist()) if self._rate is not None else 0
            refused = read_table(self._place, file_of(ERRORS, part))
            if refused is not None:
                errors += len(refused)
                first += [str(reason) for reason in refused["reason"].to_pylist()[: 3 - len(first)]]
        return Sum(images, errors, rejected, len(parts), self._rate, first)
