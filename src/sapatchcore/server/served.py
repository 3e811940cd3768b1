"""One model in service, whichever its format: what a decoding thread and the inference thread need of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np

from sapatchcore.data.pixels import Appearance, Size, UInt8Array, appearance, prepare
from sapatchcore.errors import learn_needed
from sapatchcore.export.metadata import files_of
from sapatchcore.open_model import Detector
from sapatchcore.result import Result
from sapatchcore.score.threshold import smallest_rate

if TYPE_CHECKING:
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.score.explain import Explanation

T = TypeVar("T")
Format = Literal["model", "onnx", "openvino"]
FORMATS: dict[str, Format] = {".safetensors": "model", ".onnx": "onnx", ".xml": "openvino"}
Explain = Callable[..., "Explanation"]  # (image's index in the batch, *, false_reject, most)


def in_own_thread(name: str, work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a new thread that ends with it.

    Whatever computes with PyTorch outside the inference thread runs so. OpenMP counts the threads of every thread that ever
    computed until that one ends; with more of them than processors, all sleep between two steps, and a network takes twice
    as long.
    """
    done: Future[T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work())
        except BaseException as error:  # goes to who waits for it
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class Processors(Enum):
    """How many of them PyTorch computes with."""

    ALL = "all"
    ALL_BUT_ONE = "all but one"
    ONE = "one"


@cache
def _processors() -> int:
    """That PyTorch computes with by itself: asked before anybody changes it."""
    import torch

    return torch.get_num_threads()


def _compute_with(processors: Processors) -> None:
    """In the calling thread alone, and in threads that begin to compute after it."""
    import torch

    every = _processors()
    count = {Processors.ALL: every, Processors.ALL_BUT_ONE: max(1, every - 1), Processors.ONE: 1}[processors]
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded model. hash: SHA-256 of its files' bytes."""

    name: str
    path: Path
    hash: str
    bytes: int
    loaded_at: datetime
    detector: Detector

    @property
    def batch_size(self) -> int:
        """Images that go through the network at a time."""
        return self.detector.settings.batch_size

    @property
    def calibration_images(self) -> int:
        """0 where the model gives no verdicts."""
        return len(self.detector.calibration) if self.detector.is_calibrated else 0

    @property
    def smallest_false_reject(self) -> float | None:
        """The smallest rate that the calibration can promise."""
        count = self.calibration_images
        return smallest_rate(count) if count else None

    @property
    def can_learn(self) -> bool:
        """Whether it is a detector, which can be updated and explains its scores; an exported model does neither."""
        return self.detector.can_learn

    @property
    def learner(self) -> SAPatchCore:
        """The detector, where ``can_learn``."""
        return cast("SAPatchCore", self.detector)

    @property
    def on_cpu(self) -> bool:
        """Whether PyTorch computes it on the CPU, so that two batches can be computed side by side."""
        return self.can_learn and self.learner.device == "cpu"

    def cost(self, width: int, height: int) -> int:
        """Bytes that a decoded image of this size takes while it waits."""
        if self.can_learn:
            height, width = self.detector.settings.input_size
        return 3 * width * height

    def prepare(self, image: UInt8Array) -> UInt8Array:
        """What waits for the inference thread: resized and cropped already where the network's graph does not do it."""
        settings = self.detector.settings
        return prepare(image, settings.resize, settings.crop) if self.can_learn else image

    def score(
        self,
        names: Sequence[str],
        sizes: Sequence[Size],
        looks: Sequence[Appearance],
        pixels: Sequence[UInt8Array],
        *,
        processors: Processors = Processors.ALL,
    ) -> tuple[Result, Explain | None]:
        """A batch of prepared images: the result, and what explains one of them where the model can.

        sizes, looks: the images' own, before they were prepared: (h, w), and as of ``appearance``. Raises as SAPatchCore.predict.
        """
        if not self.can_learn:
            return replace(self.detector.predict(list(pixels)), paths=tuple(names)), None
        from sapatchcore.data.sources import Batch

        _compute_with(processors)
        scored = self.learner.score(Batch(tuple(names), tuple(sizes), np.stack(pixels), tuple(looks)))
        return scored.result, scored.explain


def load(name: str, path: Path, options: dict[str, Any]) -> Served:
    """Load a model file, check it whole and score one made image with it.

    options: of SAPatchCore.load, for models of PyTorch. Raises SAPatchCoreError, with a sentence, where it is not to be used.
    """
    digest, size = file_hash(path)
    detector: Detector
    if FORMATS[path.suffix.lower()] == "model":
        with learn_needed():
            from sapatchcore.detector import SAPatchCore

            detector = SAPatchCore.load(path, **options)
    else:
        from sapatchcore.export.runtime import open_exported

        detector = open_exported(path, batch_size=options.get("batch_size"), workers=0)  # images come decoded
    served = Served(name, path, digest, size, datetime.now(UTC), detector)
    made = np.random.default_rng(0).integers(0, 256, (*detector.settings.resize, 3), dtype=np.uint8)
    served.score(["made"], [made.shape[:2]], [appearance(made)], [served.prepare(made)])
    return served


def file_hash(path: Path) -> tuple[str, int]:
    """(SHA-256 of the model's bytes, how many they are)."""
    digest, size = hashlib.sha256(), 0
    for one in files_of(path):
        with one.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
                size += len(part)
    return digest.hexdigest(), size
