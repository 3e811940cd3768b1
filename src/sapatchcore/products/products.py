"""Several products in one model: the network sees an image once, what it gives tells the product, whose bank then scores it.

Everything of one product is its own detector's: bank, calibration, thresholds, learning on. They share the network and its input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.images import all_images
from sapatchcore.data.sources import Batch, Images, Progress, as_sources, read_batches
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError, SAPatchCoreError, SettingsError
from sapatchcore.learning.images import Updatable
from sapatchcore.memory.pooled import pooled
from sapatchcore.model_file import write_model
from sapatchcore.networks import refuse_several
from sapatchcore.products.model_file import PRODUCTS, load_products, stored_products
from sapatchcore.products.result import Known, ProductsResult
from sapatchcore.products.telling import Telling
from sapatchcore.result import gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.drift import Drift, drift
from sapatchcore.score.explain import Explanation
from sapatchcore.settings import Settings, settings_from
from sapatchcore.together.model_file import NETWORKS, holds
from sapatchcore.together.scored import Scored, Seen
from sapatchcore.together.together import Together

Make = Callable[..., Updatable]  # a detector of one product, from options


class Products:
    """A fitted model of several products, which ``SAPatchCore.fit_products`` makes and ``SAPatchCore.load`` opens.

    Attributes: ``settings``, which all products share; a temperature that is "auto" is each one's own.
    """

    can_learn = False  # without a product's name

    def __init__(self, products: Mapping[str, Updatable]) -> None:
        """products: fitted detectors with one network and one input size, two or more, by their names."""
        self._products = dict(products)
        first = next(iter(self._products.values()))
        self.settings: Settings = first.settings
        for one in self._products.values():
            one.embedder._network = first.embedder.network  # in memory once
        self._telling: Telling | None = None

    @classmethod
    def fit(
        cls,
        make: Make,
        products: Mapping[str, Images],
        progress: Progress | None,
        calibrate: Mapping[str, Images],
        options: Mapping[str, Any],
    ) -> Products:
        """As SAPatchCore.fit_products. make: builds one product's detector of ``options``."""
        options = {"global_part": "pooled", "keep_aspect": False, **options}
        settings = settings_from(options)
        refuse_several(settings.backbone, "a model of several products")
        if settings.global_part == "none":
            raise SettingsError(
                "`global_part` none leaves nothing to tell products by. Use pooled, which is the default here."
            )
        if len(products) < 2:
            raise DataError(f"A model of several products needs at least two. Got {len(products)}. For one use fit.")
        if unknown := sorted(set(calibrate) - set(products)):
            raise DataError(f"calibrate names products that are not learned: {', '.join(unknown)}.")
        found: dict[str, Updatable] = {}
        network = None
        for name, images in products.items():
            one = make(**options)
            one.embedder._network = network
            try:
                one.fit(images, progress, calibrate=calibrate.get(name))
            except SAPatchCoreError as error:
                raise type(error)(f"Product {name}: {error}") from None
            if one.bank.global_part is None:
                raise DataError(f"Product {name}: to tell it from others takes at least three good images.")
            found[name], network = one, network or one.embedder.network
            first = next(iter(found))
            if one.settings.resize != found[first].settings.resize:
                sizes = ["x".join(map(str, found[which].settings.resize)) for which in (first, name)]
                raise SettingsError(
                    f"Products in one model share one input, and with `keep_aspect` {first} needs {sizes[0]}, {name} {sizes[1]}. "
                    "Leave `keep_aspect` out: all images are then resized to the same size."
                )
        return cls(found)

    @property
    def names(self) -> tuple[str, ...]:
        """The products, in the order in which they were given."""
        return tuple(self._products)

    def product(self, name: str) -> Updatable:
        """The detector of one product, with all that a detector does: verdicts, explanations, export, learning on.

        Raises DataError for a name that is none of ``names``."""
        if name not in self._products:
            raise DataError(f"{name!r} is none of this model's products. Allowed: {', '.join(self._products)}.")
        return self._products[name]

    @property
    def telling(self) -> Telling:
        """What tells the products; taken anew where one of them has learned on."""
        banks = [one.bank for one in self._products.values()]
        if self._telling is None or not self._telling.is_of(banks):
            self._telling = Telling.of(banks)
        return self._telling

    def predict(self, images: Images, progress: Progress | None = None) -> ProductsResult:
        """As SAPatchCore.predict, each image by the product that it is taken for; every image is read once."""
        sources, total = as_sources(images, all_images)
        told: list[tuple[str, bool]] = []

        def scored() -> Iterator[tuple[Batch, tuple[npt.NDArray[Any], ...]]]:
            for batch in read_batches(sources, self.settings):
                parts = list(self._by_product(batch))
                order = np.concatenate([part.at for part in parts]).argsort()
                told.extend(_in_order([(part.name, odd) for part in parts for odd in part.unlike], order))
                columns = zip(*(part.scored.seen[0].arrays for part in parts), strict=True)
                yield batch, tuple(np.concatenate(column)[order] for column in columns)

        plain = gather_result(scored(), self.settings, total=total, progress=progress)
        names, unlike = zip(*told, strict=True)
        return ProductsResult(**vars(plain), products=names, unlike=unlike, known=self._known())

    def explain(self, images: Images, *, false_reject: float | None = None, most: int = 3) -> list[Explanation]:
        """As SAPatchCore.explain, each image by the product that it is taken for."""
        found: list[Explanation] = []
        for batch in read_batches(as_sources(images, all_images)[0], self.settings):
            parts = list(self._by_product(batch))
            order = np.concatenate([part.at for part in parts]).argsort()
            each = [
                part.scored.explain(i, false_reject=false_reject, most=most)
                for part in parts
                for i in range(len(part.at))
            ]
            found += _in_order(each, order)
        if not found:
            raise DataError("No image to explain was given. Give at least one.")
        return found

    def update(self, product: str, images: Images, progress: Progress | None = None, **how: Any) -> Products:
        """Learn more good images of one product; the rest as of SAPatchCore.update."""
        self.product(product).update(images, progress, **how)
        return self

    def forget(self, product: str, image: str | os.PathLike[str], progress: Progress | None = None) -> Products:
        """Give up what was learned from one training image of one product, as SAPatchCore.forget."""
        self.product(product).forget(image, progress)
        return self

    @property
    def is_calibrated(self) -> bool:
        """Whether verdicts can be given of every product."""
        return all(one.is_calibrated for one in self._products.values())

    @property
    def calibration(self) -> Calibration:
        """Of the product with the fewest scores: what it can promise, all can. Raises NotFittedError where one has none."""
        return min((one.calibration for one in self._products.values()), key=len)

    def threshold(self, false_reject: float | None = None) -> float:
        """Raises SettingsError: each product has its own. Ask ``product(name)``."""
        raise SettingsError(
            f"Each of {len(self.names)} products has its own thresholds. Ask one of them: "
            f"detector.product({self.names[0]!r}).threshold({false_reject})."
        )

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """As ``threshold``."""
        return self.threshold(false_reject)

    def drift(self, p_values: npt.ArrayLike, *, false_alarm: float = 0.01) -> Drift:
        """As of one product, of a stream of all: p-values are rounded up to those of the product with the fewest scores."""
        count = len(self.calibration)
        steps = np.ceil(np.asarray(p_values, np.float64) * (count + 1) - 1e-9)
        return drift(steps / (count + 1), count, false_alarm=false_alarm, seed=self.settings.seed)

    def save(
        self, path: str | os.PathLike[str], *, include_weights: bool = True, include_thumbnails: bool = True
    ) -> None:
        """As SAPatchCore.save: one file holds all products, the network once."""
        write_model(Path(path), stored_products(self._products, include_weights, include_thumbnails))

    @classmethod
    def load(cls, path: str | os.PathLike[str], make: Make, **options: Any) -> Products:
        """As SAPatchCore.load. make: builds one product's detector of its settings."""
        found = load_products(Path(path), options)
        return cls({name: make(**parts[0].model_dump()).take(*parts) for name, parts in found.items()})

    def _known(self) -> dict[str, Known]:
        return {name: (one._calibration, one.bank.usual) for name, one in self._products.items()}

    def _by_product(self, batch: Batch) -> Iterator[_Part]:
        """The images of a batch, product by product, each seen by the network once."""
        network = next(iter(self._products.values())).embedder.network
        with torch.inference_mode():
            layers = network.features(torch.from_numpy(batch.pixels))
            statistics = pooled((layers[0].float(), layers[1].float()))
        product, unlike = self.telling.told(statistics)
        for number, (name, one) in enumerate(self._products.items()):
            at = np.flatnonzero(product == number)
            if not len(at):
                continue
            names, sizes, looks = (tuple(each[i] for i in at) for each in (batch.names, batch.sizes, batch.appearance))
            few = Batch(names, sizes, batch.pixels[at], looks)  # type: ignore[arg-type]  # of three kinds
            embedder = Embedder(one.settings, whitening=one.embedder.whitening)
            embedder._network = cast("Backbone", _Given((layers[0][at], layers[1][at])))
            patches = embedder.embed(few)
            arrays = score_patches(patches, one.bank, one.settings)
            result = gather_result([(few, arrays)], one.settings, one._calibration, one.bank.usual)
            yield _Part(name, at, unlike[at].tolist(), Scored(result, (Seen(patches, arrays, one.bank, one.settings),)))


@dataclass(frozen=True, eq=False)
class _Part:
    """The images of a batch that were taken for one product. at: their numbers in the batch."""

    name: str
    at: npt.NDArray[np.int64]
    unlike: list[bool]
    scored: Scored


@dataclass(frozen=True, eq=False)
class _Given:
    """A network that has seen the images already."""

    layers: tuple[torch.Tensor, torch.Tensor]

    def features(self, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As of Backbone."""
        return self.layers


def _in_order(items: list[Any], order: npt.NDArray[np.int64]) -> list[Any]:
    return [items[index] for index in order.tolist()]


def loader(path: Path, make: Make, several: type[Together]) -> Callable[..., Any] | None:
    """What loads a file of several networks or products. make: builds a detector of one product. several: the class of one of
    several networks. None for a file of one network and product, and for one that cannot be read."""
    if holds(path, NETWORKS):
        return several.load
    return partial(Products.load, make=make) if holds(path, PRODUCTS) else None


class FitsProducts:
    """What a detector has for several products."""

    @classmethod
    def fit_products(
        cls,
        products: Mapping[str, Images],
        progress: Progress | None = None,
        *,
        calibrate: Mapping[str, Images] | None = None,
        **options: Any,
    ) -> Products:
        """One model of several products, which tells the product of an image and scores it by that product's own bank.

        Args:
            products: name → its good images, as for ``fit``; two products or more, three images each or more. progress: as of
            ``fit``; begins anew with each product. calibrate: name → good images that are not among these. options: of
            settings.py, the same for all products. Images of any shape are resized to one size: ``keep_aspect`` is off
                unless it is given. ``global_part`` is "pooled": it tells the products.

        Raises as ``fit``, the product named; SettingsError for several networks, ``global_part`` "none", or inputs of different
        sizes.
        """
        return Products.fit(cast("Make", cls), products, progress, calibrate or {}, options)
