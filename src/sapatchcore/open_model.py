"""Opening what scores images, whichever it is: a model file, or an exported model, which needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sapatchcore.errors import ModelFileError, SettingsError
from sapatchcore.export.metadata import is_exported

if TYPE_CHECKING:
    import numpy.typing as npt

    from sapatchcore.data.sources import Images, Progress
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.export.runtime import Exported
    from sapatchcore.result import Result
    from sapatchcore.score.calibration import Calibration
    from sapatchcore.score.drift import Drift
    from sapatchcore.settings import Settings


class Detector(Protocol):
    """What scores images: a detector, or an exported model. can_learn: whether it can ``update`` and ``forget``."""

    settings: Settings

    @property
    def can_learn(self) -> bool: ...

    @property
    def is_calibrated(self) -> bool: ...

    @property
    def calibration(self) -> Calibration: ...

    def threshold(self, false_reject: float = ...) -> float: ...

    def pixel_threshold(self, false_reject: float = ...) -> float: ...

    def drift(self, p_values: npt.ArrayLike, *, false_alarm: float = ...) -> Drift: ...

    def predict(self, images: Images, progress: Progress | None = None) -> Result: ...


def load_model(model: Path, **options: str | int | None) -> SAPatchCore:
    """The detector in a model file; options: as of SAPatchCore.load, None where not given.

    Raises ModelFileError for an exported one.
    """
    if is_exported(model):
        raise ModelFileError(
            f"{model} is an exported model, which predict, watch and info take. For all else name the model file that it came "
            "from."
        )
    from sapatchcore.detector import SAPatchCore

    return SAPatchCore.load(model, **{name: value for name, value in options.items() if value is not None})


def open_model(
    model: Path,
    *,
    device: str,
    precision: str | None,
    batch_size: int | None,
    workers: int | None,
    weights: str | None,
    search: str | None = None,
    threads: int | None = None,
) -> SAPatchCore | Exported:
    """What scores images: the detector in a model file, or an exported model, which needs no PyTorch.

    threads: processors that this process computes with; None for all. The other options: as of SAPatchCore.load.

    Raises SettingsError where an option is given that an exported model cannot follow.
    """
    if not is_exported(model):
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return load_model(
            model,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            weights=weights,
            search=search,
        )
    from sapatchcore.export.runtime import open_exported

    refused = {
        "precision": precision,
        "weights": weights,
        "search": search,
        "device": device if device not in ("auto", "cpu") else None,
    }
    if wrong := [f"`{name}` {value}" for name, value in refused.items() if value is not None]:
        raise SettingsError(
            f"{', '.join(wrong)} cannot be had with an exported model: its network is in the file as it was exported, and "
            f"computes on the CPU. Leave it out, or name a model file. Got {model}."
        )
    return open_exported(model, threads=threads, batch_size=batch_size, workers=workers)
