"""Scores from an exported file: images are decoded as ``predict`` does it, ONNX Runtime or OpenVINO does all after it.

No PyTorch here: this is what runs on the line.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.images import all_images
from sapatchcore.data.sources import (
    Batch,
    Images,
    ImageSource,
    Progress,
    as_sources,
    load_ahead,
    read_image,
    source_name,
)
from sapatchcore.errors import DataError, ModelFileError, SettingsError
from sapatchcore.export.checksum import check_seal
from sapatchcore.export.metadata import GRIDS, SCORES, SUFFIXES, calibration_from, files_of, read_facts, without_arrays
from sapatchcore.export.sessions import Session, onnx_session, openvino_session
from sapatchcore.result import Result, gather_result
from sapatchcore.score.calibration import Calibrated
from sapatchcore.settings import Settings, settings_from

PIXELS = 1 << 24  # in a batch at most: larger images go one by one


class Exported(Calibrated):
    """An exported model: scores, parts, maps and verdicts as SAPatchCore gives them, without PyTorch.

    Attributes:
        path: of the file. settings: the options that it was learned with. facts: what the file says of itself, see
            docs/export.md. runtime: what computes, for example "onnxruntime 1.32.0".
    """

    can_learn = False

    def __init__(
        self, path: Path, session: Session, *, batch_size: int | None = None, workers: int | None = None
    ) -> None:
        """session: of the file's sealed bytes; ``open_exported`` makes it. batch_size, workers: None for the model's own."""
        self.path, self._session, self.runtime = path, session, session.runtime
        self.facts = read_facts(path, session.metadata)
        given = {"batch_size": batch_size, "workers": workers}
        here = {name: value for name, value in given.items() if value is not None}
        try:
            stored = settings_from(self.facts["settings"]).model_dump()
            self._calibration = calibration_from(self.facts)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelFileError(
                f"{path} does not hold what an exported model holds ({reason}). Export it anew."
            ) from None
        self.settings: Settings = settings_from({**stored, **here})

    def predict(self, images: Images, progress: Progress | None = None) -> Result:
        """Score images; images, progress and the result as of SAPatchCore.predict. Images of equal size in a row go together.

        Raises DataError where an image cannot be read, gives no finite score, or there is none.
        """
        sources, total = as_sources(images, all_images)
        settings = self.settings
        batches = batches_as_they_are(sources, batch_size=settings.batch_size, workers=settings.workers)
        return gather_result(
            ((batch, self._scored(batch)) for batch in batches),
            settings,
            total=total,
            progress=progress,
            calibration=self._calibration,
        )

    def _scored(self, batch: Batch) -> tuple[npt.NDArray[Any], ...]:
        try:
            found = self._session.run(batch.pixels)
        except Exception as error:  # the runtimes' errors have no common class
            reason = " ".join(str(error).split())[:240]
            raise DataError(f"{self.runtime} could not score {', '.join(batch.names)}: {reason}") from None
        if not np.isfinite(found["score"]).all():
            name = batch.names[int(np.isfinite(found["score"]).argmin())]
            raise DataError(f"The network gave numbers that are not finite for {name}. Export it in float32.")
        return tuple(found[name] for name in (*SCORES, *GRIDS))


def open_exported(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Exported:
    """An exported model from its .onnx file, or its .xml file with the .bin beside it.

    threads: that the runtime computes with; None for all cores. batch_size, workers: as of settings.py.

    Raises ModelFileError where a file is missing, cut, altered, does not belong to the other, or is of another format;
    SAPatchCoreError where its runtime is not installed; SettingsError for other options outside their range.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads must be 1 or more. Got {threads}. Leave it out to use all cores.")
    file = Path(path)
    session = _session(file, threads, (*SCORES, *GRIDS))
    return Exported(file, session, batch_size=batch_size, workers=workers)


def describe_exported(path: Path) -> dict[str, Any]:
    """What a person wants to know of an exported file, JSON-ready. Raises as ``open_exported``."""
    facts = without_arrays(read_facts(path, _session(path, None, SCORES).metadata))
    size = sum(file.stat().st_size for file in files_of(path))
    return {"file": str(path), "bytes": size, **facts}


def batches_as_they_are(
    sources: Iterable[ImageSource], *, batch_size: int, workers: int
) -> Generator[Batch, None, None]:
    """Batches of images at their own size, decoded by ``workers`` threads while the caller computes.

    Images of equal size that follow each other are a batch, up to ``batch_size`` of them and ``PIXELS`` in all.
    """

    def read(numbered: tuple[int, ImageSource]) -> tuple[str, npt.NDArray[np.uint8]]:
        name = source_name(numbered[1], numbered[0])
        return name, read_image(numbered[1], name)

    waiting: list[tuple[str, npt.NDArray[np.uint8]]] = []
    with closing(load_ahead(enumerate(sources), read, workers=workers, ahead=batch_size + workers)) as images:
        for one in images:
            height, width = one[1].shape[:2]
            most = min(batch_size, max(1, PIXELS // (height * width)))
            if waiting and (waiting[0][1].shape != one[1].shape or len(waiting) >= most):
                yield _batch(waiting)
                waiting = []
            waiting.append(one)
        if waiting:
            yield _batch(waiting)


def _batch(images: list[tuple[str, npt.NDArray[np.uint8]]]) -> Batch:
    names, pixels = zip(*images, strict=True)
    height, width = pixels[0].shape[:2]
    return Batch(names, ((height, width),) * len(names), np.stack(pixels))


def _session(path: Path, threads: int | None, outputs: tuple[str, ...]) -> Session:
    """The runtime's session of the very bytes whose seal was found whole."""
    if path.suffix.lower() not in SUFFIXES:
        raise ModelFileError(f"{path} is no exported model: its name must end in {' or '.join(SUFFIXES)}.")
    content = [_bytes(file) for file in files_of(path)]
    check_seal(path, *content)
    open_one = onnx_session if len(content) == 1 else openvino_session
    return open_one(str(path), *content, threads=threads, outputs=outputs)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{file} does not exist. Check the path, or export the model file again.") from None
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read: {error.strerror or error}.") from None
