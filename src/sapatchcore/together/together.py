"""A detector of several networks: each learns by itself, and what they say of an image becomes one score (score/together.py).

Everything of one network is its own detector's: bank, calibration, learning on, what the file holds of it. Here is what it
takes to be one detector to whoever uses it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import numpy.typing as npt

from sapatchcore.data.images import all_images
from sapatchcore.data.sources import Batch, Images, ImageSource, Progress, as_sources, read_batches
from sapatchcore.datasets.folders import training_images as good_images
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.learning.images import Updatable
from sapatchcore.memory.bank import Bank
from sapatchcore.model_file import write_model
from sapatchcore.networks import of_each
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import Float32
from sapatchcore.score.fusion import Arrays
from sapatchcore.score.together import CommonScale, calibration_together, together
from sapatchcore.settings import Settings, settings_from
from sapatchcore.together.model_file import load_together, stored_together
from sapatchcore.together.scored import Scored, Seen
from sapatchcore.tuning.tune import Tunable
from sapatchcore.tuning.tuning import tuning_in


class Together(Updatable, Tunable):
    """What a detector does otherwise where `backbone` names several networks.

    Attributes: ``settings``, those of all; what an option is for each, where that is "auto" or one of several values, is in
    ``networks``.
    """

    single: ClassVar[Callable[..., Updatable]]  # the class of a detector with one network, which detector.py names
    _networks: tuple[Updatable, ...]
    _scale: CommonScale | None

    def __init__(self, **options: Any) -> None:
        self.settings: Settings = settings_from(options)
        self._networks = tuple(self.single(**one) for one in of_each(self.settings.model_dump()))
        self._scale, self._calibration = None, None

    @property
    def networks(self) -> tuple[Updatable, ...]:
        """The detectors of the networks, in the order of ``backbone``. Not to be changed."""
        return self._networks

    @property
    def scale(self) -> CommonScale:
        """What brings the networks' scores to one scale. Raises NotFittedError before ``fit`` or ``load``."""
        _ = self._networks[0].bank
        assert self._scale is not None  # a network that has learned has come with it
        return self._scale

    def fit(self, images: Images, progress: Progress | None = None, *, calibrate: Images | None = None) -> Self:
        """As SAPatchCore.fit, network by network; progress begins anew with each.

        Images that can be read only once are kept in memory until every network has seen them.

        Raises DataError, too, where no good image could be scored: by their scores the networks come to one scale.
        """
        sources, apart = _kept(images, good_images), None if calibrate is None else _kept(calibrate, all_images)
        fitted = [copy.copy(one) for one in self._networks]  # a fit that fails leaves the detector as it was
        for one in fitted:
            one.fit(sources, progress, calibrate=apart)
        return self._take(fitted, None)

    def predict(self, images: Images, progress: Progress | None = None) -> Result:
        """As SAPatchCore.predict; every image is read once."""
        self._require_learned()
        sources, total = as_sources(images, all_images)
        scored = ((batch, self._together(self._seen(batch))) for batch in read_batches(sources, self.settings))
        usual = self._networks[0].bank.usual
        return gather_result(scored, self.settings, self._calibration, usual, total=total, progress=progress)

    def score(self, batch: Batch) -> Scored:
        """As SAPatchCore.score."""
        self._require_learned()
        seen, usual = self._seen(batch), self._networks[0].bank.usual
        return Scored(gather_result([(batch, self._together(seen))], self.settings, self._calibration, usual), seen)

    def calibrate(self, images: Images, progress: Progress | None = None) -> Self:
        """As of one network; the networks' common scale stays."""
        sources = _kept(images, all_images)
        return self._changed(lambda one: one.calibrate(sources, progress))

    def update(
        self,
        images: Images,
        progress: Progress | None = None,
        *,
        calibrate: Images | None = None,
        rescore: bool = True,
    ) -> Self:
        """As of one network, in all of them; their common scale stays."""
        sources, apart = _kept(images, good_images), None if calibrate is None else _kept(calibrate, all_images)
        return self._changed(lambda one: one.update(sources, progress, calibrate=apart, rescore=rescore))

    def forget(self, image: str | os.PathLike[str], progress: Progress | None = None) -> Self:
        """As of one network, in all of them; their common scale stays."""
        return self._changed(lambda one: one.forget(image, progress))

    def save(
        self, path: str | os.PathLike[str], *, include_weights: bool = True, include_thumbnails: bool = True
    ) -> None:
        """As SAPatchCore.save: one file holds all networks."""
        scale, inside = self._require_learned(), (include_weights, include_thumbnails)
        stored = stored_together(self.settings, self._networks, scale, self._calibration, *inside)
        write_model(Path(path), stored, self.noted)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """As SAPatchCore.load; ``weights`` may be one for each network, joined by +."""
        found = load_together(Path(path), options)
        detector = cls(**found.settings.model_dump())
        networks = [cls.single(**parts[0].model_dump()).take(*parts) for parts in found.networks]
        detector.tuning = tuning_in(Path(path))
        return detector._take(networks, found.scale, found.peaks)

    @property
    def provenance(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """As of one network; the rows of all banks, one after another, as ``neighbours`` of a result count them."""
        found = [one.provenance for one in self._networks]
        return found[0][0], np.concatenate([one[1] for one in found]), np.concatenate([one[2] for one in found])

    @property
    def device(self) -> str:
        """As of one network."""
        return self._networks[0].device

    @property
    def bank(self) -> Bank:  # type: ignore[override]  # read-only, as it is for one network
        """Raises SettingsError: every network has its own. So do ``embed`` and all else that is asked of one bank."""
        self._refuse()

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """Raises as ``bank``."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SettingsError(
            f"{len(self._networks)} networks have a memory bank and patches each. Ask one of them: detector.networks[0]."
        )

    def _require_learned(self) -> CommonScale:
        return self.scale

    def _changed(self, change: Callable[[Updatable], object]) -> Self:
        """Every network changed, or none."""
        scale = self._require_learned()
        copies = [copy.copy(one) for one in self._networks]
        for one in copies:
            change(one)
        return self._take(copies, scale)

    def _take(self, networks: Sequence[Updatable], scale: CommonScale | None, peaks: Float32 | None = None) -> Self:
        """Have learned what the networks have. scale: None to take it from their scores of good images. peaks: of the
        calibration, where they are known already."""
        calibrations = [one._calibration for one in networks if one._calibration is not None]
        calibrated = len(calibrations) == len(networks)
        if scale is None:
            if not calibrated:
                raise DataError(
                    "Networks come to one scale by good images' scores, and one image alone cannot be scored by others. Give at "
                    "least two good images, or others to `calibrate` with."
                )
            scale = CommonScale.of(calibrations)
        of_one = networks[0].settings  # what images decide, they decide alike for all: `keep_aspect`, and what few lack
        settings = self.settings.model_copy(update={"resize": of_one.resize, "global_part": of_one.global_part})
        calibration = None
        if calibrated:
            calibration = calibration_together(calibrations, scale, settings.resize, settings.crop, peaks)
        self.settings, self._networks, self._scale, self._calibration = settings, tuple(networks), scale, calibration
        return self

    def _seen(self, batch: Batch) -> tuple[Seen, ...]:
        return tuple(self._each(batch, self._require_learned().units))

    def _each(self, batch: Batch, units: Sequence[float]) -> Iterator[Seen]:
        for one, unit in zip(self._networks, units, strict=True):
            patches = one.embedder.embed(batch)
            arrays = score_patches(patches, one.bank, one.settings)
            yield Seen(patches, arrays, one.bank, one.settings, one.settings.backbone, unit)

    def _together(self, seen: Sequence[Seen]) -> Arrays:
        rows = [len(one.bank.rows) for one in seen]
        return together([one.arrays for one in seen], self._require_learned(), self.settings.image_score, rows)


def _kept(images: Images, from_folder: Callable[[Path], Any]) -> list[ImageSource]:
    """The images, to be read as often as there are networks."""
    return list(as_sources(images, from_folder)[0])
