"""Learning on: a detector that takes in more good images, or gives one up, and what becomes of its calibration."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from sapatchcore.data.copies import in_words
from sapatchcore.data.images import all_images
from sapatchcore.data.sources import Images, Progress, as_sources
from sapatchcore.datasets.folders import training_images as good_images
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError
from sapatchcore.learning.calibrate import separate, with_scales
from sapatchcore.learning.changes import add_images, remove_image
from sapatchcore.memory.bank import Bank
from sapatchcore.result import Result
from sapatchcore.score.calibration import Calibrated, Calibration, Float32
from sapatchcore.settings import Settings


class Updatable(Calibrated):
    """What a detector has learned, and what it can go on learning with: ``calibrate``, ``update`` and ``forget``."""

    embedder: Embedder
    bank: Bank
    _bank: Bank | None

    if TYPE_CHECKING:
        fit: Callable[..., Self]
        predict: Callable[..., Result]

    def take(self, settings: Settings, embedder: Embedder, bank: Bank, calibration: Calibration | None) -> Self:
        """Have learned this."""
        self.settings, self.embedder, self._bank, self._calibration = settings, embedder, bank, calibration
        return self

    @property
    def networks(self) -> tuple[Updatable, ...]:
        """The detectors of several networks, whose scores become one; of one network this detector itself."""
        return (self,)

    @property
    def calibration(self) -> Calibration:
        """As of ``Calibrated``. Raises NotFittedError before ``fit`` or ``load``, too."""
        self._require_learned()
        return super().calibration

    @property
    def is_calibrated(self) -> bool:
        """As of ``Calibrated``. Raises NotFittedError before ``fit`` or ``load``."""
        self._require_learned()
        return super().is_calibrated

    @property
    def rows(self) -> int:
        """Of the memory banks of all networks."""
        return sum(len(one.bank.rows) for one in self.networks)

    def _require_learned(self) -> object:
        return self.bank

    @property
    def memory_bank(self) -> Float32:
        """(m, d) float32, read-only: the kept patches of good images. Raises as ``bank``."""
        rows = self.bank.rows.cpu().numpy()
        rows.flags.writeable = False  # on the CPU these are the very numbers that predict compares with
        return rows

    @property
    def covering_radius(self) -> float:
        """Every patch learned from lies within this distance of a row of the bank, in the projection of the choice."""
        return self.bank.radius + self.bank.loosened

    @property
    def provenance(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Names of the training images, and for each row of the bank the number of its image and its patch, (m,). A copy has the
        name of the image that it was made from; ``turns`` says how."""
        bank = self.bank
        return tuple(image.name for image in bank.training), bank.images.numpy(), bank.cells.numpy()

    @property
    def turns(self) -> tuple[str, ...]:
        """Of each training image "", or where `augment` made it how it was turned: "mirrored and turned by 90°"."""
        return tuple(in_words(image.turn) for image in self.networks[0].bank.training)

    @property
    def device(self) -> str:
        """What the network computes on: "cpu", "cuda" or "mps"."""
        return self.embedder.network.device.type

    def embed(self, images: Images) -> Float32:
        """(n, h, w, d) float32: the patches of each image, exactly as fit and predict see them."""
        sources, _ = as_sources(images, all_images)
        found = [one.rows().unflatten(1, one.grid).cpu().numpy() for _, one in self.embedder.patches(sources)]
        if not found:
            raise DataError("No image to embed was given. Give at least one.")
        return np.concatenate(found)

    def calibrate(self, images: Images, progress: Progress | None = None) -> Self:
        """Score good images that were not learned from; the thresholds then rest on them. As fit's ``calibrate``."""
        calibration = separate(self.bank, self.embedder, as_sources(images, all_images), progress)
        self._bank, self._calibration = with_scales(self.bank, calibration)
        return self

    def update(
        self,
        images: Images,
        progress: Progress | None = None,
        *,
        calibrate: Images | None = None,
        rescore: bool = True,
    ) -> Self:
        """Learn more good images: patches farther from the bank than its covering radius join it.

        Calibration goes on as it was made. Where it came from the training images, their scores stay, and the new images join
        with those that the bank of before gives them: of images that it had not learned from. So no threshold falls because of
        what was learned, and no good image that was accepted is rejected for it; but a global part is measured anew by all
        images, and its scores move a little either way. Separate images are scored anew where their files are at hand; where
        not, their scores stay, as upper bounds: the bank grew. calibrate: as of ``fit``, takes the place of all this. rescore:
        False keeps the scores of before without looking for files.

        Raises as ``fit``, and DataError for an image that was learned from already; the detector then is as it was.
        """
        self._bank, self._calibration = add_images(
            self.bank,
            self._calibration,
            self.embedder,
            as_sources(images, good_images),
            apart=None if calibrate is None else as_sources(calibrate, all_images),
            rescore=rescore,
            progress=progress,
        )
        return self

    def forget(self, image: str | os.PathLike[str], progress: Progress | None = None) -> Self:
        """Give up what was learned from one training image and its copies, by its name in ``provenance``.

        Calibration images that were measured from its patches are scored anew where they can be read; where not, their
        scores are raised by what they may have grown at most. progress: stage "calibrate".

        Raises DataError where the name is not known, or nothing would be left.
        """
        parts = self.bank, self._calibration, self.embedder
        self._bank, self._calibration = remove_image(*parts, os.fspath(image), progress)
        return self
