"""What scores images, as one protocol, and how it is opened: from a model file, or from an exported one without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import numpy.typing as npt

from sapatchcore.data.sources import Images, Progress
from sapatchcore.errors import ModelFileError, SettingsError
from sapatchcore.export.metadata import is_exported
from sapatchcore.result import Result
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.drift import Drift
from sapatchcore.settings import Settings

if TYPE_CHECKING:
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.products.products import Products


@runtime_checkable
class Detector(Protocol):
    """What scores images: ``SAPatchCore``, or ``Exported``, which needs no PyTorch. Both document what is named here."""

    settings: Settings

    @property
    def can_learn(self) -> bool:
        """Whether there are ``update`` and ``forget``."""
        ...

    @property
    def is_calibrated(self) -> bool:
        """Whether verdicts can be given."""
        ...

    @property
    def calibration(self) -> Calibration:
        """The scores of good images that verdicts rest on. Raises NotFittedError where there are none."""
        ...

    def threshold(self, false_reject: float | None = None) -> float:
        """The score above which an image is rejected."""
        ...

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """The same for the values of anomaly maps."""
        ...

    def drift(self, p_values: npt.ArrayLike, *, false_alarm: float = 0.01) -> Drift:
        """Whether p-values of good parts, (t,) in their order, have ceased to look like the calibration's."""
        ...

    def predict(self, images: Images, progress: Progress | None = None) -> Result:
        """Score images; higher = more anomalous."""
        ...


def load_model(model: Path, product: str | None = None, **options: str | int | None) -> SAPatchCore:
    """The detector in a model file, or of one ``product`` in a file of several; options: as of SAPatchCore.load, None where not
    given.

    Raises ModelFileError for an exported one; what ``of_product`` raises.
    """
    return of_product(load_whole(model, options), product, model)


def of_product(whole: SAPatchCore | Products, product: str | None, model: Path) -> SAPatchCore:
    """The detector of ``product``, where ``model`` holds several; of one, ``whole`` itself.

    Raises SettingsError where a file of several products comes without a product's name, or another with one; DataError where it
    has no such product.
    """
    from sapatchcore.products.products import Products

    if isinstance(whole, Products):
        if product is None:
            raise SettingsError(f"{model} holds several products: {', '.join(whole.names)}. Name one with `product`.")
        return cast("SAPatchCore", whole.product(product))
    if product is not None:
        raise SettingsError(f"{model} holds one product, without a name. Leave `product` out.")
    return whole


def load_whole(model: Path, options: Mapping[str, str | int | None]) -> SAPatchCore | Products:
    """All that a model file holds; as ``load_model``."""
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
) -> Detector:
    """The detector in a model file, of all its products where there are several, or the exported model.

    threads: processors that this process computes with; None for all. The other options: as of SAPatchCore.load.

    Raises SettingsError where an option is given that an exported model cannot follow.
    """
    if not is_exported(model):
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        options = {
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "workers": workers,
            "weights": weights,
            "search": search,
        }
        return load_whole(model, options)
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
