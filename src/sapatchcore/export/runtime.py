"""Scores from an exported file: images are decoded as ``predict`` does it, ONNX Runtime or OpenVINO do all after it.

Both compute on the CPU, in float32. No PyTorch here: this runs where images are scored.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.data.images import all_images
from sapatchcore.data.pixels import Appearance, appearance
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
from sapatchcore.errors import DataError, ModelFileError, SAPatchCoreError, SettingsError, install
from sapatchcore.export.metadata import (
    GLOBAL,
    GRIDS,
    INPUT,
    METADATA,
    SCORES,
    SUFFIXES,
    calibration_from,
    files_of,
    read_metadata,
    usual_from,
    verify_checksum,
    without_arrays,
)
from sapatchcore.result import Result, gather_result
from sapatchcore.score.calibration import Calibrated
from sapatchcore.settings import Settings, settings_from

PIXELS = 1 << 24  # in a batch at most: larger images go one by one

UInt8Array = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]


class Exported(Calibrated):
    """An exported model: scores, parts, maps and verdicts as SAPatchCore gives them, without PyTorch.

    Attributes:
        path: of the file. settings: the options that it was learned with. metadata: what the file says of itself, see
            docs/export.md. runtime: what computes, for example "onnxruntime 1.32.0". can_learn: False; that needs the model
            file that it came from.
    """

    can_learn = False

    def __init__(
        self, path: Path, session: Session, *, batch_size: int | None = None, workers: int | None = None
    ) -> None:
        """session: of the file, whose checksum was verified; ``open_exported`` makes it. batch_size, workers: None for the
        model's own.

        Raises ModelFileError where the metadata are not what an exported model holds; SettingsError for an option outside
        its range.
        """
        self.path, self._session, self.runtime = path, session, session.runtime
        self.metadata = read_metadata(path, session.metadata)
        given = {"batch_size": batch_size, "workers": workers}
        here = {name: value for name, value in given.items() if value is not None}
        try:
            stored = settings_from(self.metadata["settings"]).model_dump()
            self._calibration = calibration_from(self.metadata)
            self._usual = usual_from(self.metadata)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ModelFileError(
                f"{path} does not hold what an exported model holds ({reason_of(error, 160)}). Export it anew."
            ) from None
        self.settings: Settings = settings_from({**stored, **here})

    def predict(self, images: Images, progress: Progress | None = None) -> Result:
        """Score images; images, progress and the result as of SAPatchCore.predict. Images of equal size in a row go together.

        Raises DataError where an image cannot be read, gives no finite score, or there is none.
        """
        sources, total = as_sources(images, all_images)
        settings = self.settings
        batches = full_size_batches(sources, batch_size=settings.batch_size, workers=settings.workers)
        return gather_result(
            ((batch, self._scored(batch)) for batch in batches),
            settings,
            total=total,
            progress=progress,
            calibration=self._calibration,
            usual=self._usual,
        )

    def _scored(self, batch: Batch) -> tuple[npt.NDArray[Any], ...]:
        try:
            found = self._session.run(batch.pixels)
        except Exception as error:  # the runtimes' errors have no common class
            raise DataError(f"{self.runtime} could not score {', '.join(batch.names)}: {reason_of(error)}") from None
        if not np.isfinite(found["score"]).all():
            name = batch.names[int(np.isfinite(found["score"]).argmin())]
            raise DataError(f"The network gave numbers that are not finite for {name}. Export it in float32.")
        return tuple(found[name] for name in (*SCORES, *GRIDS, *GLOBAL) if name in found)


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
    session = _session(file, threads, (*SCORES, *GRIDS, *GLOBAL))
    return Exported(file, session, batch_size=batch_size, workers=workers)


def describe_exported(path: Path) -> dict[str, Any]:
    """What a person wants to know of an exported file, JSON-ready. Raises as ``open_exported``."""
    metadata = without_arrays(read_metadata(path, _session(path, None, SCORES).metadata))
    size = sum(file.stat().st_size for file in files_of(path))
    return {"file": str(path), "bytes": size, **metadata}


def full_size_batches(sources: Iterable[ImageSource], *, batch_size: int, workers: int) -> Generator[Batch, None, None]:
    """Batches of images at their own size, decoded by ``workers`` threads while the caller computes.

    Images of equal size that follow each other are a batch, up to ``batch_size`` of them and ``PIXELS`` in all.
    """

    def read(numbered: tuple[int, ImageSource]) -> tuple[str, UInt8Array, Appearance]:
        name = source_name(numbered[1], numbered[0])
        image = read_image(numbered[1], name)
        return name, image, appearance(image)

    waiting: list[tuple[str, UInt8Array, Appearance]] = []
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


def _batch(images: list[tuple[str, UInt8Array, Appearance]]) -> Batch:
    names, pixels, looks = zip(*images, strict=True)
    height, width = pixels[0].shape[:2]
    return Batch(names, ((height, width),) * len(names), np.stack(pixels), looks)


@dataclass(frozen=True, eq=False)
class Session:
    """A loaded model of either runtime.

    run: (n, h, w, 3) uint8 → its outputs by name. metadata: the JSON text in it, or None. runtime: "onnxruntime 1.32.0".
    """

    run: Callable[[UInt8Array], Arrays]
    metadata: str | None
    runtime: str


def onnx_session(name: str, content: bytes, *, threads: int | None, outputs: Sequence[str] | None = None) -> Session:
    """ONNX Runtime's.

    name: what messages call the file. threads: None for all cores. outputs: those to compute, of which the file may lack some;
    None for all.

    Raises SAPatchCoreError without the package; ModelFileError where the runtime refuses the file.
    """
    onnxruntime = _package("onnxruntime", f"An ONNX file needs onnxruntime: {install('edge')}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ModelFileError(f"{name} cannot be loaded by ONNX Runtime: {reason_of(error)}") from None
    there = [one.name for one in session.get_outputs()]
    wanted = there if outputs is None else [one for one in outputs if one in there]

    def run(images: UInt8Array) -> Arrays:
        return dict(zip(wanted, session.run(wanted, {INPUT: images}), strict=True))

    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return Session(run, metadata, f"onnxruntime {onnxruntime.__version__}")


def openvino_session(
    name: str, content: bytes, weights: bytes, *, threads: int | None, outputs: Sequence[str] | None = None
) -> Session:
    """OpenVINO's; content and weights: of the .xml and the .bin. All else as of ``onnx_session``."""
    openvino = _package("openvino", f"An OpenVINO file needs openvino: {install('edge-openvino')}")
    # Where the processor has bfloat16, OpenVINO would compute in it by itself: other scores.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(content, weights)
        there = {one.get_any_name(): one for one in model.outputs}
        wanted = list(there) if outputs is None else [one for one in outputs if one in there]
        kept = openvino.Model([there[one].get_node() for one in wanted], model.get_parameters())
        # One image a request: with a free batch OpenVINO runs many steps one by one instead of as one.
        kept.reshape({INPUT: [1, -1, -1, 3]})
        compiled = core.compile_model(kept, "CPU", config)
        metadata = model.get_rt_info([METADATA]).astype(str) if model.has_rt_info([METADATA]) else None
    except Exception as error:  # RuntimeError, mostly
        raise ModelFileError(f"{name} cannot be loaded by OpenVINO: {reason_of(error)}") from None
    requests = threading.local()  # a request computes one image at a time

    def run(images: UInt8Array) -> Arrays:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        parts: list[Arrays] = []
        for index in range(len(images)):
            found = requests.own.infer({INPUT: images[index : index + 1]}, share_inputs=True)
            parts.append({one: np.array(found[one]) for one in wanted})  # copies: the next image overwrites these
        return parts[0] if len(parts) == 1 else {one: np.concatenate([part[one] for part in parts]) for one in wanted}

    return Session(run, metadata, f"openvino {openvino.__version__.split('-')[0]}")


def _session(path: Path, threads: int | None, outputs: tuple[str, ...]) -> Session:
    """The runtime's session of the very bytes whose checksum was verified."""
    if path.suffix.lower() not in SUFFIXES:
        raise ModelFileError(f"{path} is no exported model: its name must end in {' or '.join(SUFFIXES)}.")
    content = [_bytes(file) for file in files_of(path)]
    verify_checksum(path, *content)
    open_one = onnx_session if len(content) == 1 else openvino_session
    return open_one(str(path), *content, threads=threads, outputs=outputs)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{file} does not exist. Check the path, or export the model file again.") from None
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read: {error.strerror or error}.") from None


def _package(name: str, sentence: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SAPatchCoreError(sentence) from None


def reason_of(error: Exception, most: int = 240) -> str:
    """The error's text as one line of up to ``most`` characters."""
    return " ".join(str(error).split())[:most]
