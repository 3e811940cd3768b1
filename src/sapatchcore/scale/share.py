"""One worker of a distributed fit: its share of the images, embedded once and kept for the stages.

All that a share holds can be computed again from its assignment. So a share that was restarted, on another machine after its
own was lost, embeds its images again at the next call and goes on from there: nothing is missing, nothing counts twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Files, Sizes, Texts
from sapatchcore.embed.patches import Embedder
from sapatchcore.embed.whitening import Whitening
from sapatchcore.learning.calibrate import folds_of, scored_by_others, separate
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import projection_of
from sapatchcore.memory.distributed import Candidates, Centres, Frontier
from sapatchcore.memory.pooled import GlobalPart, pooled
from sapatchcore.memory.spill import GrowingRows, Spill
from sapatchcore.memory.training import TrainingImage, TrainingImages, packed_appearance, training_images
from sapatchcore.score.calibration import Calibration
from sapatchcore.settings import settings_from

if TYPE_CHECKING:
    from ray import ObjectRef

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

GPU_BATCH = 64  # images at a time on a GPU, which would mostly wait with the usual 8
_REPORT_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class FitTask:
    """What is the same for every share.

    options: of settings.py, those that were given. weights: the network's tensors as arrays, found once, so that other
    machines need no copy. whitening: its matrices, where settings ask for it. threads: to compute with. shares: their
    number. total: images to learn from.
    """

    options: dict[str, Any]
    weights: dict[str, npt.NDArray[Any]]
    whitening: Whitening | None
    threads: int
    shares: int
    total: int


@dataclass(frozen=True)
class KeptPatches:
    """What the memory bank takes from a share.

    rows: (m, d) float32. thumbnails: of the images that the rows come from, by the image's number among all.
    """

    rows: Float32
    thumbnails: dict[int, bytes]


@dataclass(frozen=True)
class BankArrays:
    """The memory bank as it is sent to the shares, without the training images' names.

    rows: (m, d) float32. images, cells: (m,) int64. total: training images in all. grid: (h, w) of an image's patches.
    statistics: (total, …) float32, pooled, where separate images are to get a global score.
    """

    rows: Float32
    images: Int64
    cells: Int64
    total: int
    grid: tuple[int, int]
    statistics: Float32 | None = None

    def bank(self, device: torch.device) -> Bank:
        """The bank on ``device``."""
        rows, images, cells = (torch.from_numpy(one.copy()) for one in (self.rows, self.images, self.cells))
        zeros = np.broadcast_to(np.int64(0), (self.total, 2))  # takes the room of one number
        names = Texts(Files(np.empty(0, np.uint8), zeros[:, 0]))
        part = None if self.statistics is None else GlobalPart(torch.from_numpy(self.statistics.copy()))
        return Bank(rows.to(device), images, cells, TrainingImages(names, Sizes(zeros)), self.grid, global_part=part)


@dataclass(frozen=True)
class ShareCalibration:
    """A share's part of the calibration, without names.

    arrays: as of Calibration, by name; other processes read them where they lie. source: CROSS_FITTED or SEPARATE.
    """

    arrays: dict[str, npt.NDArray[Any]]
    sizes: Sizes
    source: str

    @classmethod
    def of(cls, calibration: Calibration) -> ShareCalibration:
        arrays = {name: getattr(calibration, name) for name in calibration.array_names}
        return cls(arrays, Sizes.of(calibration.sizes), calibration.source)


class ShareWorker:
    """Runs in a Ray actor, which calls its methods one at a time."""

    def __init__(self, assignments: str, number: int) -> None:
        """assignments: the name of the actor that is asked what there is to do. number: of the share."""
        import ray

        self._assignments = ray.get_actor(assignments)
        task_reference, names, self._apart = ray.get(self._assignments.of.remote(number))
        task: FitTask = ray.get(task_reference)
        self._names: Texts = ray.get(names)
        self._number, self._shares, self._total = number, task.shares, task.total
        self._reported, self._scored = 0.0, 0
        torch.set_num_threads(task.threads)
        settings = settings_from(task.options)
        weights = {name: torch.from_numpy(value.copy()) for name, value in task.weights.items()}
        self._embedder = Embedder(settings, weights, task.whitening)
        if self._embedder.network.device.type != "cpu" and "batch_size" not in task.options:
            self._embedder.settings = settings.model_copy(update={"batch_size": GPU_BATCH})
        self._spill: Spill | None = None
        self._frontier: Frontier | None = None
        self._fold = -1  # that the frontier leaves out
        self._projected = GrowingRows(on_disk=settings.projection is None)
        self._training: list[TrainingImage] = []
        self._statistics: list[torch.Tensor] = []

    def learn(self) -> tuple[int, tuple[int, int]]:
        """Read and embed the share's images: the patches of each, and their grid."""
        spill = self._embedded()
        return spill.patches_per_image, spill.grid

    def point(self, row: int) -> torch.Tensor:
        """(dimensions,) float32: one patch of the share, projected."""
        return self._x()[row].clone().cpu()  # pickled, a view would bring the whole tensor along

    def candidates(self, fold: int, rounds: Sequence[ObjectRef], count: int) -> Candidates:
        """The share's ``count`` farthest patches from all centres so far. fold: whose images do not count, -1 for none.
        rounds: references to the Centres of each."""
        return self._after(fold, rounds).candidates(count)

    def radius(self, fold: int, rounds: Sequence[ObjectRef]) -> float:
        """The largest distance of any patch of the share from its nearest centre, projected. fold, rounds: as of candidates."""
        return self._after(fold, rounds).radius()

    def kept(self, centres: Centres) -> KeptPatches:
        """The centres that are patches of this share, unprojected."""
        spill, rows = self._embedded(), centres.rows[centres.shares == self._number]
        images = (rows // spill.patches_per_image).unique().tolist()
        thumbnails = {self._global(image): self._training[image].thumbnail for image in images}
        return KeptPatches(spill.read(rows).numpy(), thumbnails)

    def cross_fitted(self, fold: int, sent: BankArrays) -> ShareCalibration | None:
        """The share's images of ``fold`` against the bank of the other folds; None where it has none of them."""
        spill = self._embedded()
        bank = sent.bank(self._embedder.network.device)
        at = [one for one in range(spill.images) if self._global(one) % folds_of(sent.total) == fold]
        if not at:
            return None
        numbers, before = [self._global(one) for one in at], self._scored

        def report(done: int) -> None:
            self._scored = before + done
            self._report("calibrate", self._scored, len(self._training))

        found = scored_by_others(fold, bank, spill, self._embedder, at, numbers, self._training, report)
        return ShareCalibration.of(found)

    def separate(self, sent: BankArrays) -> ShareCalibration | None:
        """The share's good images that were not learned from, against the bank; None where there are none."""
        import ray

        names: Texts = ray.get(self._apart)
        if not names:
            return None
        bank = sent.bank(self._embedder.network.device)
        return ShareCalibration.of(separate(bank, self._embedder, (names, len(names)), self._report))

    def sizes(self) -> tuple[Sizes, Float32]:
        """(H, W) of each of the share's images, and their appearance, (n, 3)."""
        self._embedded()
        looks = packed_appearance([image.appearance for image in self._training])
        assert looks is not None  # all were read here
        return Sizes.of(image.size for image in self._training), looks

    def statistics(self) -> Float32 | None:
        """(n, …) float32: the pooled statistics of the share's images; None where there is no global part."""
        self._embedded()
        return torch.cat(self._statistics).numpy() if self._statistics else None

    def _x(self) -> torch.Tensor:
        self._embedded()
        return self._projected.tensor().to(self._embedder.network.device)

    def _global(self, image: int) -> int:
        """The number among all images of one of the share's."""
        return self._number + image * self._shares

    def _after(self, fold: int, rounds: Sequence[ObjectRef]) -> Frontier:
        """The share's distances after all ``rounds``; a restarted share goes through them from the first."""
        import ray

        if self._frontier is None or self._fold != fold:
            spill, x = self._embedded(), self._x()
            folds = folds_of(self._total)
            allowed = [one for one in range(spill.images) if fold < 0 or self._global(one) % folds != fold]
            among = torch.arange(len(x)).unflatten(0, (spill.images, -1))[allowed].flatten()
            self._frontier, self._fold = Frontier(x, self._number, among), fold
        for centres in ray.get(list(rounds[self._frontier.met :])):
            self._frontier.meet(centres)
        return self._frontier

    def _embedded(self) -> Spill:
        """The patches of all the share's images: projected in memory, unprojected on this machine's disk."""
        if self._spill is not None:
            return self._spill
        spill, projection = Spill(), projection_of(self._embedder.settings, self._embedder.network)
        try:
            for batch, patches in self._embedder.patches(self._names):
                self._projected.append(projection(patches))
                spill.append(patches)
                self._training += training_images(batch)
                if patches.layers is not None:
                    self._statistics.append(pooled(patches.layers).float())
                self._report("embed", len(self._training), len(self._names))
        except BaseException:
            spill.__exit__(None, None, None)
            raise
        self._spill = spill
        return spill

    def _report(self, stage: str, done: int, total: int | None) -> None:
        """Tell how far this share is, now and then; nobody waits for the answer."""
        now = time.monotonic()
        if done == total or now - self._reported > _REPORT_EVERY:
            self._reported = now
            self._assignments.report.remote(stage, self._number, done)
