"""SA-PatchCore in one sitting: fit and predict, a step of the paper per line.

Source: Ishida et al., "SA-PatchCore: Anomaly Detection in Dataset With Co-Occurrence Relationships Using Self-Attention",
IEEE Access 11, 2023; PatchCore: Roth et al., CVPR 2022. ``docs/differences.md`` says where implementations differ.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.folders import training_images
from sapatchcore.data.images import list_images
from sapatchcore.data.sources import Batch, Images, as_sources, read_batches
from sapatchcore.embed.backbone import GIVEN, Backbone
from sapatchcore.embed.device import choose_device
from sapatchcore.embed.patches import Patches, require_numbers, to_patches
from sapatchcore.embed.weights import Weights, digest
from sapatchcore.errors import DataError, ModelFileError, NotFittedError, SettingsError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import greedy_coreset
from sapatchcore.memory.projection import Projection
from sapatchcore.memory.spill import GrowingRows, Spill
from sapatchcore.memory.store import Stored, read_model, write_model
from sapatchcore.result import Result, gather_result
from sapatchcore.score.image_score import largest, neighbourhood_weight
from sapatchcore.settings import Settings, settings_from

Progress = Callable[[str, int, int | None], None]  # stage, how many are done, of how many (None: not known)
Float32 = npt.NDArray[np.float32]


class SAPatchCore:
    """Learns from good images alone; finds local defects and wrong combinations of parts.

    Keyword arguments are the options of ``settings.py``; they are checked when given, and nothing is loaded before
    ``fit``. ``attention="none"`` is PatchCore: the paper's two models differ in that one line.

    Attributes:
        settings: all options, read-only.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> good = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        >>> detector = SAPatchCore(backbone="resnet18", weights="random", resize=64, crop=None)
        >>> result = detector.fit(good).predict(good[:2])
        >>> result.scores.shape, result.maps[0].shape
        ((2,), (64, 64))
    """

    def __init__(self, **options: Any) -> None:
        self.settings: Settings = settings_from(options)
        self._backbone: Backbone | None = None
        self._given: Weights | None = None
        self._bank: Bank | None = None

    def fit(self, images: Images, progress: Progress | None = None) -> Self:
        """Learn what good looks like.

        Args:
            images: good images only: a folder (a data set's category, or its images), paths, (h, w, 3) uint8 arrays,
                Pillow images, or any iterable of these. Read once, in order.
            progress: called as ``progress(stage, done, total)``; stages "embed" and "coreset".

        Raises:
            DataError: an image cannot be read, or there is none. WeightsError: the network's weights cannot be had.
            SettingsError: the network or a layer does not exist.
        """
        settings, backbone = self.settings, self._ready()
        sources, total = as_sources(images, training_images)
        projection = Projection(*backbone.channels, settings.projection, settings.seed, backbone.device)
        names: list[str] = []
        grid = (0, 0)
        with Spill() as spill, GrowingRows(on_disk=settings.projection is None) as rows:
            for batch, patches in self._patches(sources):  # steps 1 to 5
                rows.append(projection(patches))  # step 6: the random projection,
                spill.append(patches)
                names += batch.names
                grid = patches.grid
                if progress is not None:
                    progress("embed", len(names), total)
            if not names:
                raise DataError("No image to learn from was given. Give at least one good image.")
            x = rows.tensor().to(backbone.device)
            count = max(1, int(settings.coreset_ratio * len(x) + 1e-9))  # 0.29 · 100 is 28.999…
            report = None if progress is None else lambda done: progress("coreset", done, count)
            chosen = greedy_coreset(x, count, seed=settings.seed, progress=report)  # k-center greedy,
            bank = spill.read(chosen).to(x.device)  # and the kept patches with all their numbers
            per_image = spill.patches_per_image
        self._bank = Bank(bank, chosen // per_image, chosen % per_image, tuple(names), grid)
        return self

    def predict(self, images: Images, progress: Progress | None = None) -> Result:
        """Score images; higher = more anomalous.

        Args:
            images: as for ``fit``; of a folder all images in it and below it.
            progress: called as ``progress("predict", done, total)``.

        Raises:
            NotFittedError: before ``fit`` or ``load``. DataError: an image cannot be read, or there is none.
        """
        bank = self._fitted()
        if self.settings.image_score == "reweighted" and len(bank.rows) == 1:
            raise SettingsError(
                "image_score 'reweighted' needs a memory bank of 2 or more patches. Got 1: every image's score would be 0. "
                "Use a larger coreset_ratio, or image_score max."
            )
        sources, total = as_sources(images, lambda folder: list_images(folder, recursive=True))
        scored = ((batch, self._score(patches, bank)) for batch, patches in self._patches(sources))
        return gather_result(  # step 9, the anomaly maps, on demand
            scored, resize=self.settings.resize, crop=self.settings.crop, total=total, progress=progress
        )

    def embed(self, images: Images) -> Float32:
        """(n, h, w, d) float32: the patches of each image, exactly as fit and predict see them."""
        sources, _ = as_sources(images, lambda folder: list_images(folder, recursive=True))
        found = [patches.rows().unflatten(1, patches.grid).cpu().numpy() for _, patches in self._patches(sources)]
        if not found:
            raise DataError("No image to embed was given. Give at least one.")
        return np.concatenate(found)

    @property
    def memory_bank(self) -> Float32:
        """(m, d) float32, read-only: the kept patches of good images. Raises NotFittedError before ``fit`` or ``load``."""
        rows = self._fitted().rows.cpu().numpy()
        rows.flags.writeable = False  # on the CPU these are the very numbers that predict compares with
        return rows

    @property
    def provenance(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Names of the training images, and for each row of the bank the number of its image and its patch, (m,)."""
        bank = self._fitted()
        return bank.names, bank.images.numpy(), bank.cells.numpy()

    def save(self, path: str | os.PathLike[str], *, include_weights: bool = True) -> None:
        """Write the model file, whole or not at all.

        include_weights: False leaves the network's weights out (a much smaller file); ``load`` then finds them as
        ``fit`` did and checks that they are the same.

        Raises NotFittedError before ``fit``; ModelFileError where the file cannot be written.
        """
        bank, backbone = self._fitted(), self._ready()
        header = {
            "settings": self.settings.model_dump(mode="json"),
            "versions": {name: version(name) for name in ("sapatchcore", "torch", "timm")},
            "layers": backbone.layers,
            "channels": backbone.channels,
            "strides": backbone.strides,
            "grid": bank.grid,
            "training_images": bank.names,
            "weights_sha256": digest(backbone.weights),
        }
        weights = backbone.weights if include_weights else None
        write_model(Path(path), Stored(header, bank.rows, bank.images, bank.cells, weights))

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The detector that ``save`` wrote.

        options: ``device`` (default "auto"), ``precision``, ``batch_size``, ``workers`` and ``weights`` may differ on this
        machine; all else is as it was fitted.

        Raises ModelFileError: the file is missing, cut, altered, from a newer format, or its network's weights, left
        out of it, are others now. SettingsError: another option is named.
        """
        stored = read_model(Path(path))
        local = {"device", "precision", "batch_size", "workers", "weights", "image_score", "neighbors"}
        if fixed := sorted(set(options) - local & set(Settings.model_fields)):
            raise SettingsError(
                f"{', '.join(fixed)} cannot change after fit. Allowed at load: {', '.join(sorted(local))}."
            )
        detector = cls(**{**stored.header["settings"], "device": "auto", **options})
        detector._given = stored.weights
        if stored.weights is None and digest(detector._ready().weights) != stored.header["weights_sha256"]:
            raise ModelFileError(
                f"{path} holds no network weights, and those found here ({detector.settings.weights}) are not the ones it was "
                "fitted with. Name the right file with weights, or save the model with its weights."
            )
        grid = stored.header["grid"]
        rows = stored.bank.to(detector._ready().device)
        names = tuple(stored.header["training_images"])
        detector._bank = Bank(rows, stored.images, stored.cells, names, (grid[0], grid[1]))
        return detector

    def _ready(self) -> Backbone:
        """The network, built when it is first needed."""
        if self._backbone is None:
            settings = self.settings
            self._backbone = Backbone(
                settings.backbone,
                weights=GIVEN if self._given is not None else settings.weights,
                layers=settings.layers,
                input_size=settings.input_size,
                device=choose_device(settings.device),
                precision=settings.precision,
                seed=settings.seed,
                given=self._given,
            )
            self._given = None
        return self._backbone

    def _patches(self, sources: Any) -> Iterator[tuple[Batch, Patches]]:
        """Steps 1 to 5, a batch at a time: the one path from images to patches, for fit, predict and embed."""
        settings, backbone = self.settings, self._ready()
        for batch in read_batches(
            sources,
            resize=settings.resize,
            crop=settings.crop,
            batch_size=settings.batch_size,
            workers=settings.workers,
        ):  # step 1: resized by Lanczos and cropped
            with torch.inference_mode():
                pixels = torch.from_numpy(batch.pixels)
                layer2, layer3 = backbone.features(pixels)  # step 2: two layers of the frozen network
                patches = to_patches(  # steps 3 to 5: pooled, mixed, paired
                    layer2, layer3, settings.attention, settings.temperature, settings.context_weight
                )
            require_numbers(patches, batch.names, settings.precision)
            yield batch, patches  # outside: the mode must not reach the caller

    @torch.inference_mode()
    def _score(self, patches: Patches, bank: Bank) -> tuple[npt.NDArray[Any], ...]:
        """Steps 7 and 8 for one batch: what Result holds of each image, in its order."""
        distances = bank.compare(patches)  # step 7: the nearest patch of the bank
        scores, at = largest(distances.whole)  # step 8: the image score is the largest patch score,
        worst = torch.arange(len(at), device=at.device), at
        parts = [scores, distances.local[worst], distances.context[worst]]
        if self.settings.image_score == "reweighted":  # or that, weighted by how crowded the bank is around its match
            patch = torch.cat((patches.local[worst], patches.context[worst[0], patches.cell[at]]), dim=1)
            around = bank.around(patch, distances.row[worst], self.settings.neighbors)
            parts = [part * neighbourhood_weight(scores, around) for part in parts]
        grids = (distances.whole, distances.local, distances.context, distances.row)
        return tuple(value.cpu().numpy() for value in (*parts, *(grid.unflatten(1, patches.grid) for grid in grids)))

    def _fitted(self) -> Bank:
        if self._bank is None:
            raise NotFittedError(
                "This detector has learned nothing yet. Call fit with good images, or load a model file."
            )
        return self._bank


# What help() and editors show: every option of settings.py, keyword-only, with its default.
SAPatchCore.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in Settings.model_fields.items()
    ]
)
