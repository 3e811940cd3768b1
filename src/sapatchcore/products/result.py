"""What ``predict`` returns of several products: each image has its own product's scores, thresholds and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sapatchcore.data.statistics import ImageStatistics
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.result import Result
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.regions import Region
from sapatchcore.score.verdict import Verdict

T = TypeVar("T")
Known = tuple[Calibration | None, ImageStatistics | None]  # of one product, as ``calibration`` and ``usual`` of Result

_OF_ALL = ("resize", "crop", "calibration", "usual")  # of Result's fields, those that have no entry an image


@dataclass(frozen=True, eq=False)
class ProductsResult(Result):
    """n scored images of several products.

    Scores are each product's own: compare them within a product, and p-values across products. ``of("screw")`` is the plain
    result of the images that were taken for that product.

    Attributes, beside those of Result:
        products: n names, the product that each image was taken for. unlike: n, whether it is unlike every product. known: each
        product's calibration, and what its training images had. ``calibration`` and ``usual`` are None where the images
            are of more than one product.
    """

    products: tuple[str, ...] = ()
    unlike: tuple[bool, ...] = ()
    known: Mapping[str, Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("products", "unlike"):
            if len(getattr(self, name)) != len(self):
                raise ValueError(f"ProductsResult.{name} must have {len(self)} entries.")
        if len(set(self.products)) == 1:
            for name, value in zip(("calibration", "usual"), self.known[self.products[0]], strict=True):
                object.__setattr__(self, name, value)

    def of(self, product: str) -> Result:
        """The images that were taken for ``product``, as that product's own model gives them. Raises DataError where there is
        none."""
        at = [i for i, name in enumerate(self.products) if name == product]
        if not at:
            raise DataError(
                f"No image was taken for {product!r}. Those here were taken for {', '.join(sorted(set(self.products)))}."
            )
        calibration, usual = self.known[product]
        return Result(**self._entries(at), calibration=calibration, usual=usual)

    def only(self, image: int) -> ProductsResult:
        """As of Result."""
        own: dict[str, Any] = {
            "products": (self.products[image],),
            "unlike": (self.unlike[image],),
            "known": self.known,
        }
        return ProductsResult(**self._entries([image]), **own)

    @property
    def notes(self) -> tuple[tuple[str, ...], ...]:
        """As of Result, beside what the product's training images had; and where an image is unlike every product."""
        found = self._of_each(lambda result: result.notes)
        sentence = "Unlike every product of this model: it was taken for the nearest, {}, and its score means little."
        return tuple(
            (*((sentence.format(name),) if unlike else ()), *notes)
            for name, unlike, notes in zip(self.products, self.unlike, found, strict=True)
        )

    @property
    def p_values(self) -> npt.NDArray[np.float64]:
        """As of Result, each by its own product's calibration."""
        return np.array(self._of_each(lambda result: result.p_values.tolist()))

    def rate(self, false_reject: float | None = None) -> float:
        """As of Result: the smallest that all of the images' products can promise."""
        return max(self.of(name).rate(false_reject) for name in set(self.products))

    def threshold(self, false_reject: float | None = None) -> float:
        """As of Result. Raises SettingsError for images of more than one product: ask ``of(product)``."""
        return self._alone().threshold(false_reject)

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """As ``threshold``."""
        return self._alone().pixel_threshold(false_reject)

    def regions(self, image: int, false_reject: float | None = None) -> list[Region]:
        """As of Result."""
        return self.only(image)._alone().regions(0, false_reject)

    def verdicts(self, false_reject: float | None = None) -> list[Verdict]:
        """As of Result, each by its own product's thresholds."""
        return self._of_each(lambda result: result.verdicts(false_reject))

    def _alone(self) -> Result:
        names = sorted(set(self.products))
        if len(names) > 1:
            raise SettingsError(
                f"These images are of {len(names)} products, {', '.join(names)}, and each has its own thresholds. Ask one of "
                f"them: result.of({names[0]!r})."
            )
        return self.of(names[0])

    def _of_each(self, ask: Callable[[Result], Sequence[T]]) -> list[T]:
        """What each product's result says of its images, in the order of the images."""
        found = {name: iter(ask(self.of(name))) for name in set(self.products)}
        return [next(found[name]) for name in self.products]

    def _entries(self, at: Sequence[int]) -> dict[str, Any]:
        """Result's fields of the images ``at`` alone, and what is the same for all."""
        found: dict[str, Any] = {"resize": self.resize, "crop": self.crop}
        for name in (one.name for one in fields(Result) if one.name not in _OF_ALL):
            value = getattr(self, name)
            if isinstance(value, tuple):
                found[name] = tuple(value[i] for i in at) if value else ()
            else:
                found[name] = None if value is None else value[list(at)]
        return found


def products_of(result: Result) -> tuple[str | None, ...]:
    """Of each image the product that it was taken for; None of a model of one."""
    return result.products if isinstance(result, ProductsResult) else (None,) * len(result)
