"""SA-PatchCore in one sitting: fit and predict, a step of the paper per line.

Source: Ishida et al., "SA-PatchCore: Anomaly Detection in Dataset With Co-Occurrence Relationships Using Self-Attention",
IEEE Access 11, 2023; PatchCore: Roth et al., CVPR 2022. ``docs/differences.md`` says where implementations differ.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Self

from sapatchcore.data.images import all_images
from sapatchcore.data.sources import Batch, Images, Progress, as_sources, read_batches
from sapatchcore.datasets.folders import training_images as good_images
from sapatchcore.embed.adaptation import adapted
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import DataError, NotFittedError
from sapatchcore.learning.calibrate import FOLDS, cross_fitted, separate, with_scales
from sapatchcore.learning.images import Updatable
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import choose, projection_of
from sapatchcore.memory.pooled import pooled
from sapatchcore.memory.spill import GrowingRows, Spill, bank_of
from sapatchcore.memory.training import TrainingImage, training_images
from sapatchcore.model_file import load_model_file, to_stored, write_model
from sapatchcore.networks import names_of
from sapatchcore.products.products import FitsProducts, loader
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.explain import Explanation
from sapatchcore.settings import Settings, settings_from
from sapatchcore.together.scored import Scored, Seen
from sapatchcore.together.together import Together
from sapatchcore.tuning.tune import Tunable
from sapatchcore.tuning.tuning import tuning_in


class SAPatchCore(Updatable, Tunable, FitsProducts):
    """Learns from good images alone; finds local defects and wrong combinations of parts.

    Keyword arguments are the options of ``settings.py``, checked when given; nothing is loaded before ``fit``. With
    ``attention="none"`` it is PatchCore. Attributes: ``settings``, read-only, "auto" a number after ``fit``; ``embedder``.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> good = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        >>> detector = SAPatchCore(backbone="resnet18", weights="random", resize=64, crop=None)
        >>> result = detector.fit(good).predict(good[:2])
        >>> result.scores.shape, result.maps[0].shape
        ((2,), (64, 64))
    """

    can_learn = True  # as there are update and forget

    def __new__(cls, *_: object, **options: Any) -> Self:
        several = cls is SAPatchCore and len(names_of(str(options.get("backbone")))) > 1
        return super().__new__(SeveralNetworks if several else cls)  # type: ignore[return-value]  # is one

    def __init__(self, **options: Any) -> None:
        self.settings: Settings = settings_from(options)
        if self.settings.search == "faiss":
            from sapatchcore.memory.search.approximate import require_faiss

            require_faiss()  # before anything is learned
        self.embedder = Embedder(self.settings)
        self._bank: Bank | None = None
        self._calibration: Calibration | None = None

    def fit(self, images: Images, progress: Progress | None = None, *, calibrate: Images | None = None) -> Self:
        """Learn what good looks like, and how good images score.

        Args:
            images: good images only: a folder (a data set's category, or its images), paths, (h, w, 3) uint8 arrays,
                Pillow images, or any iterable of these. Read once, in order.
            progress: called as ``progress(stage, done, total)``; stages "embed", "coreset" and "calibrate".
            calibrate: good images that are not among ``images``, for the thresholds. None: every training image is scored by
                a bank that was chosen without it and its fold, a fifth of the images.

        Raises DataError: an image cannot be read, or there is none. WeightsError: the network's weights cannot be had.
        SettingsError: the network or a layer does not exist.
        """
        sources, total = as_sources(images, good_images)
        embedder, sources = adapted(self.embedder, sources, FOLDS)  # beyond the paper, where settings ask for it
        settings = embedder.settings
        apart = None if calibrate is None else as_sources(calibrate, all_images)
        project = projection_of(settings, embedder.network)
        training: list[TrainingImage] = []
        statistics = []
        with Spill() as spill, GrowingRows(on_disk=settings.projection is None) as projected:
            for batch, patches in embedder.learned(sources, progress, total):  # steps 1 to 5
                projected.append(project(patches))  # step 6: the random projection,
                spill.append(patches)
                training += training_images(batch)
                if patches.layers is not None:
                    statistics.append(pooled(patches.layers))
            if not training:
                raise DataError("No image to learn from was given. Give at least one good image.")
            x = projected.tensor().to(embedder.network.device)
            count = max(1, int(settings.coreset_ratio * len(x) + 1e-9))  # 0.29 · 100 is 28.999…
            report = None if progress is None else lambda done: progress("coreset", done, count)
            coreset = choose(x, count, seed=settings.seed, progress=report)  # k-center greedy, and the kept
            bank = bank_of(coreset, spill, training, settings.search, x.device, statistics)  # with all their numbers
            if apart is None:
                calibration = cross_fitted(x, spill, embedder, bank, progress)
            else:
                calibration = separate(bank, embedder, apart, progress)
        bank, calibration = with_scales(bank, calibration)  # beyond the paper, where there is a global part
        bank.build_index()
        _ = bank.usual  # now, so that the first image need not wait for it
        return self.take(settings, embedder, bank, calibration)

    def predict(self, images: Images, progress: Progress | None = None) -> Result:
        """Score images; higher = more anomalous.

        images: as for ``fit``; of a folder all images in it and below it. progress: as of ``fit``; stage "predict".

        Raises NotFittedError before ``fit`` or ``load``; DataError where an image cannot be read, or there is none.
        """
        bank, (sources, total) = self.bank, as_sources(images, all_images)
        scored = (
            (batch, score_patches(patches, bank, self.settings))  # steps 7 and 8: the nearest patches, the image score
            for batch, patches in self.embedder.patches(sources)  # steps 1 to 5
        )
        # Step 9, the anomaly maps, is done when they are asked for.
        return gather_result(scored, self.settings, self._calibration, bank.usual, total=total, progress=progress)

    def score(self, batch: Batch) -> Scored:
        """As ``predict`` of one batch of images that were read and resized before, as ``prepare`` of data/pixels.py does."""
        patches = self.embedder.embed(batch)
        arrays = score_patches(patches, self.bank, self.settings)
        result = gather_result([(batch, arrays)], self.settings, self._calibration, self.bank.usual)
        return Scored(result, (Seen(patches, arrays, self.bank, self.settings),))

    def explain(self, images: Images, *, false_reject: float | None = None, most: int = 3) -> list[Explanation]:
        """Each image's verdict with its reasons: the nearest good patches, and where the context was drawn from.

        false_reject: as of Result.threshold. most: regions of an image to explain, the highest peaks first.
        """
        found = []
        for batch in read_batches(as_sources(images, all_images)[0], self.settings):
            scored = self.score(batch)
            found += [scored.explain(i, false_reject=false_reject, most=most) for i in range(len(batch.names))]
        if not found:
            raise DataError("No image to explain was given. Give at least one.")
        return found

    @property
    def bank(self) -> Bank:  # type: ignore[override]  # read-only, as learning/images.py takes it
        """The memory bank with its provenance. Raises NotFittedError before ``fit`` or ``load``."""
        if self._bank is None:
            raise NotFittedError(
                "This detector has learned nothing yet. Call fit with good images, or load a model file."
            )
        return self._bank

    def save(
        self, path: str | os.PathLike[str], *, include_weights: bool = True, include_thumbnails: bool = True
    ) -> None:
        """Write the model file, whole or not at all.

        include_weights: False leaves the network's weights out (a much smaller file); ``load`` then finds them as ``fit`` did and
        checks that they are the same. include_thumbnails: False leaves out the training images' small pictures in explanations.

        Raises NotFittedError before ``fit``; ModelFileError where the file cannot be written.
        """
        inside = include_weights, include_thumbnails
        stored = to_stored(self.settings, self.embedder, self.bank, self._calibration, *inside)
        write_model(Path(path), stored, self.noted)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The detector that ``save`` wrote; of a file of several products their ``Products``.

        options: ``device`` (default "auto"), ``precision``, ``batch_size``, ``workers``, ``search`` and ``weights`` may differ
        on this machine, ``image_score`` and ``neighbors`` too (for "reweighted" calibrate it then); no others.

        Raises ModelFileError: the file is missing, cut, altered, from another format, or its network's weights, left
        out of it, are others now. SettingsError: another option is named. MissingPackageError: search "faiss" without FAISS.
        """
        if cls is SAPatchCore and (load := loader(Path(path), cls, SeveralNetworks)) is not None:
            return load(path, **options)  # type: ignore[no-any-return]
        parts = load_model_file(Path(path), options)
        detector = cls(**parts[0].model_dump()).take(*parts)
        detector.tuning = tuning_in(Path(path))
        return detector


class SeveralNetworks(Together, SAPatchCore):
    """A detector of several networks: what ``SAPatchCore(backbone="a+b")`` makes."""

    single = SAPatchCore


# What help() and editors show: every option of settings.py, keyword-only, with its default.
_OWN = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
SAPatchCore.__new__.__signature__ = SAPatchCore.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_OWN]
    + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in Settings.model_fields.items()
    ]
)
