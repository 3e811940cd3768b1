"""One model in service, whichever its format: what a decoding thread and the inference thread need of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sapatchcore.data.pixels import Size, UInt8Array, prepare
from sapatchcore.errors import learn_needed
from sapatchcore.export.metadata import files_of
from sapatchcore.result import Result
from sapatchcore.score.threshold import smallest_rate

Format = Literal["model", "onnx", "openvino"]
FORMATS: dict[str, Format] = {".safetensors": "model", ".onnx": "onnx", ".xml": "openvino"}


class Share(Enum):
    """Of the processors that PyTorch computes with."""

    ALL = "all"
    MOST = "all but one"
    ONE = "one"


@dataclass(frozen=True, eq=False)
class Plain:
    """A scored batch without what explaining its images would need."""

    result: Result


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded model. engine: SAPatchCore, or an exported model. hash: SHA-256 of the file's bytes."""

    name: str
    path: Path
    format: Format
    hash: str
    bytes: int
    loaded_at: datetime
    engine: Any

    @property
    def batch_size(self) -> int:
        """Images that go through the network at a time."""
        return int(self.engine.settings.batch_size)

    @property
    def calibration_images(self) -> int:
        """0 where the model gives no verdicts."""
        return len(self.engine.calibration) if self.engine.is_calibrated else 0

    @property
    def smallest_false_reject(self) -> float | None:
        """The smallest rate that the calibration can promise."""
        count = self.calibration_images
        return smallest_rate(count) if count else None

    @property
    def can_explain(self) -> bool:
        """Whether it holds what an explanation needs; then it can be updated, too."""
        return self.format == "model"

    @property
    def shares(self) -> bool:
        """Whether two batches can be computed side by side, each with a share of the processors."""
        return self.format == "model" and bool(self.engine.device == "cpu")

    def cost(self, width: int, height: int) -> int:
        """Bytes that a decoded image of this size takes while it waits."""
        if self.can_explain:
            height, width = self.engine.settings.input_size
        return 3 * width * height

    def prepare(self, image: UInt8Array) -> UInt8Array:
        """What waits for the inference thread: resized and cropped already where the network's graph does not do it."""
        settings = self.engine.settings
        return prepare(image, settings.resize, settings.crop) if self.can_explain else image

    def score(
        self,
        names: Sequence[str],
        sizes: Sequence[Size],
        pixels: Sequence[UInt8Array],
        *,
        share: Share = Share.ALL,
    ) -> Any:
        """A batch of prepared images: its ``result``, and where it can ``explain``. sizes: the images' own.

        Raises as SAPatchCore.predict.
        """
        if self.can_explain:
            from sapatchcore.data.sources import Batch

            _compute_with(share)
            return self.engine.score(Batch(tuple(names), tuple(sizes), np.stack(pixels)))
        return Plain(replace(self.engine.predict(list(pixels)), paths=tuple(names)))


@cache
def _processors() -> int:
    """That PyTorch computes with by itself: asked before anybody changes it."""
    import torch

    return torch.get_num_threads()


def _compute_with(share: Share) -> None:
    """Of the calling thread alone, and of threads that begin to compute after it."""
    import torch

    count = {Share.ALL: _processors(), Share.MOST: max(1, _processors() - 1), Share.ONE: 1}[share]
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def load(name: str, path: Path, options: dict[str, Any]) -> Served:
    """Load a model file, check it whole and score one made image with it.

    options: of SAPatchCore.load, for models of PyTorch. Raises SAPatchCoreError, with a sentence, where it is not to be used.
    """
    digest, size = file_hash(path)
    kind = FORMATS[path.suffix.lower()]
    engine: Any
    if kind == "model":
        with learn_needed():
            from sapatchcore.detector import SAPatchCore

            engine = SAPatchCore.load(path, **options)
    else:
        from sapatchcore.export.runtime import open_exported

        engine = open_exported(path, batch_size=options.get("batch_size"), workers=0)  # images come decoded
    served = Served(name, path, kind, digest, size, datetime.now(UTC), engine)
    made = np.random.default_rng(0).integers(0, 256, (*engine.settings.resize, 3), dtype=np.uint8)
    served.score(["made"], [made.shape[:2]], [served.prepare(made)])
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
