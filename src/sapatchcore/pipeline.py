"""The paper's steps for one batch at a time: from images to patches, from patches to scores. The network lives here.

Source: Ishida et al., "SA-PatchCore: Anomaly Detection in Dataset With Co-Occurrence Relationships Using Self-Attention",
IEEE Access 11, 2023; PatchCore: Roth et al., CVPR 2022. ``docs/differences.md`` says where implementations differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch, Progress, Sources, read_batches
from sapatchcore.embed.backbone import GIVEN, Backbone
from sapatchcore.embed.device import choose_device
from sapatchcore.embed.patches import Patches, require_numbers, to_patches
from sapatchcore.embed.weights import Weights
from sapatchcore.errors import SettingsError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.projection import Projection
from sapatchcore.result import Result, as_calibration, gather_result
from sapatchcore.score.calibration import SEPARATE, Calibration, scored_anew
from sapatchcore.score.explain import Explanation, cause_of
from sapatchcore.score.image_score import largest, neighbourhood_weight
from sapatchcore.score.regions import Region
from sapatchcore.settings import Settings


class Shape(TypedDict):
    """How images are brought to the network."""

    resize: Size
    crop: Size | None


@dataclass(frozen=True, eq=False)
class Scored:
    """One batch after step 8: its result, and what it takes to explain its images without the network.

    patches: of the batch, with ``mixed``. bank: that they were compared with.
    """

    result: Result
    patches: Patches
    bank: Bank
    settings: Settings

    def explain(self, image: int, *, false_reject: float | None, most: int) -> Explanation:
        """The verdict on the image at place ``image``, with its causes; as SAPatchCore.explain."""
        result = self.result.only(image)
        regions: list[Region | None] = [*result.regions(0, false_reject)[:most]] or [None]
        arrays = (result.patch_scores, result.local_patches, result.context_patches, result.neighbours)
        grids, size = [grid[0] for grid in arrays], result.sizes[0]
        causes = [cause_of(one, grids, size, self.patches, image, self.bank, self.settings) for one in regions]
        return Explanation(result.paths[0], result.verdicts(false_reject)[0], tuple(causes))


class Pipeline:
    """Steps 1 to 5, 7 and 8 with one choice of settings. The network is built when it is first needed."""

    def __init__(self, settings: Settings, given: Weights | None = None) -> None:
        """given: the network's weights, where they came with a model file."""
        self.settings = settings
        self._given = given
        self._network: Backbone | None = None

    @property
    def network(self) -> Backbone:
        """The frozen network."""
        if self._network is None:
            settings = self.settings
            self._network = Backbone(
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
        return self._network

    @property
    def projection(self) -> Projection:
        """Step 6's random projection: the same for the same settings."""
        network, settings = self.network, self.settings
        return Projection(*network.channels, settings.projection, settings.seed, network.device)

    @property
    def shape(self) -> Shape:
        """``resize`` and ``crop``, by name."""
        return {"resize": self.settings.resize, "crop": self.settings.crop}

    def patches(self, sources: Any, first: int = 0) -> Iterator[tuple[Batch, Patches]]:
        """Steps 1 to 5, a batch at a time: the one path from images to patches, for fit, predict and embed."""
        settings = self.settings
        for batch in read_batches(
            sources,
            resize=settings.resize,
            crop=settings.crop,
            batch_size=settings.batch_size,
            workers=settings.workers,
            first=first,
        ):  # step 1: resized by Lanczos and cropped
            yield batch, self.embed(batch)

    def embed(self, batch: Batch) -> Patches:
        """Steps 2 to 5 for one batch."""
        settings = self.settings
        with torch.inference_mode():
            layer2, layer3 = self.network.features(torch.from_numpy(batch.pixels))  # step 2: two layers
            patches = to_patches(  # steps 3 to 5: pooled, mixed, paired
                layer2, layer3, settings.attention, settings.temperature, settings.context_weight
            )
        require_numbers(patches, batch.names, settings.precision)
        return patches

    @torch.inference_mode()
    def score(self, patches: Patches, bank: Bank, excluded: torch.Tensor | None = None) -> tuple[npt.NDArray[Any], ...]:
        """Steps 7 and 8 for one batch: what Result holds of each image, in its order.

        excluded: (n,) int64, for each image a training image whose rows do not count.
        """
        distances = bank.compare(patches, excluded)  # step 7: the nearest patch of the bank
        scores, at = largest(distances.whole)  # step 8: the image score is the largest patch score,
        worst = torch.arange(len(at), device=at.device), at
        parts = [scores, distances.local[worst], distances.context[worst]]
        if self.settings.image_score == "reweighted":  # or that, weighted by how crowded the bank is around its match
            patch = torch.cat((patches.local[worst], patches.context[worst[0], patches.cell[at]]), dim=1)
            around = bank.around(patch, distances.row[worst], self.settings.neighbors, excluded)
            parts = [part * neighbourhood_weight(scores, around) for part in parts]
        grids = (distances.whole, distances.local, distances.context, distances.row)
        return tuple(value.cpu().numpy() for value in (*parts, *(grid.unflatten(1, patches.grid) for grid in grids)))

    def predict(
        self, bank: Bank, sources: Sources, progress: Progress | None, stage: str, known: Calibration | None
    ) -> Result:
        """All images against the bank. stage: of ``progress``. known: what their verdicts are measured against."""
        self._check(bank)
        scored = ((batch, self.score(patches, bank)) for batch, patches in self.patches(sources[0]))
        return gather_result(  # step 9, the anomaly maps, on demand
            scored, **self.shape, total=sources[1], progress=progress, calibration=known, stage=stage
        )

    def explain(
        self, bank: Bank, sources: Sources, known: Calibration, *, false_reject: float | None, most: int
    ) -> list[Explanation]:
        """Each image's verdict with the causes of its ``most`` highest regions, or of its worst patch where it has none."""
        found = []
        for batch, patches in self.patches(sources[0]):
            scored = self.scored(bank, batch, patches, known)
            found += [scored.explain(i, false_reject=false_reject, most=most) for i in range(len(batch.names))]
        return found

    def scored(self, bank: Bank, batch: Batch, patches: Patches, known: Calibration | None) -> Scored:
        """One batch with its result, ready to be explained."""
        self._check(bank)
        arrays = self.score(patches, bank)
        result = gather_result([(batch, arrays)], **self.shape, total=None, progress=None, calibration=known)
        return Scored(result, patches, bank, self.settings)

    def _check(self, bank: Bank) -> None:
        if self.settings.image_score == "reweighted" and len(bank.rows) == 1:
            raise SettingsError(
                "image_score 'reweighted' needs a memory bank of 2 or more patches. Got 1: every image's score would be 0. "
                "Use a larger coreset_ratio, or image_score max."
            )

    def calibration(self, bank: Bank, sources: Sources, progress: Progress | None) -> Calibration:
        """Good images that were not learned from, as calibration."""
        result = self.predict(bank, sources, progress, "calibrate", None)
        nowhere = np.full(len(result), -1, np.int64)
        return as_calibration(result, SEPARATE, nowhere, self.settings.image_score, self.settings.neighbors)

    def scored_again(
        self, known: Calibration, places: Sequence[int], bank: Bank, progress: Progress | None
    ) -> Calibration:
        """``known`` with the images at ``places`` compared with ``bank`` anew, as far as their files are at hand."""
        at_hand = [place for place in places if Path(known.names[place]).is_file()]
        if not at_hand:
            return known
        excluded = torch.from_numpy(known.images[at_hand])
        done, scored = 0, []
        for batch, patches in self.patches([known.names[place] for place in at_hand]):
            scored.append((batch, self.score(patches, bank, excluded[done : done + len(batch.names)])))
            done += len(batch.names)
            if progress is not None:
                progress("calibrate", done, len(at_hand))
        result = gather_result(scored, **self.shape, total=None, progress=None)
        images, settings = known.images[at_hand], self.settings
        fresh = as_calibration(result, known.source, images, settings.image_score, settings.neighbors)
        return scored_anew(known, at_hand, fresh)
