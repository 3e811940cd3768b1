"""One worker of a distributed fit: its share of the images, embedded once and kept, asked for by the stages in turn.

Whatever a share holds follows from what it was made with. So a share that is made again, on another machine after its own was
lost, embeds its images again when it is next asked, and goes on where the work was: nothing is missing, nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Files, Sizes, Texts
from sapatchcore.embed.patches import Embedder
from sapatchcore.learning.calibrate import leave_one_out, separate
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import projection_of
from sapatchcore.memory.distributed import Candidates, Centres, Frontier
from sapatchcore.memory.spill import GrowingRows, Spill
from sapatchcore.memory.training import TrainingImage, TrainingImages, training_images
from sapatchcore.score.calibration import ARRAYS, Calibration
from sapatchcore.settings import settings_from

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

GPU_BATCH = 64  # images at a time on a GPU, whose batch of 8 would wait more than it computes
_TELL_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Task:
    """What every share is told.

    options: of settings.py, those that were given. weights: the network's tensors as arrays, found once, so that the other
    machines need none. threads: processors to compute with.
    """

    options: dict[str, Any]
    weights: dict[str, npt.NDArray[Any]]
    threads: int
    shares: int


@dataclass(frozen=True)
class Kept:
    """What the memory bank takes from a share: rows (m, d) float32, and of its images those pictures that are shown."""

    rows: Float32
    thumbnails: dict[int, bytes]


@dataclass(frozen=True)
class Broadcast:
    """The memory bank on its way to the shares: rows (m, d) float32; images, cells (m,) int64; total: training images in all."""

    rows: Float32
    images: Int64
    cells: Int64
    total: int
    grid: tuple[int, int]

    def bank(self, device: torch.device) -> Bank:
        """The bank on ``device``, its training images without names."""
        rows, images, cells = (torch.from_numpy(one.copy()) for one in (self.rows, self.images, self.cells))
        nothing = np.broadcast_to(np.int64(0), (self.total, 2))  # one number stands for all
        names = Texts(Files(np.empty(0, np.uint8), nothing[:, 0]))
        return Bank(rows.to(device), images, cells, TrainingImages(names, Sizes(nothing)), self.grid)


@dataclass(frozen=True)
class Known:
    """A share's part of a calibration, less its names: arrays as of Calibration, which other processes read where they lie."""

    arrays: dict[str, npt.NDArray[Any]]
    sizes: Sizes
    source: str

    @classmethod
    def of(cls, calibration: Calibration | None) -> Known | None:
        if calibration is None:
            return None
        arrays = {name: getattr(calibration, name) for name in ARRAYS}
        return cls(arrays, Sizes.of(calibration.sizes), calibration.source)


class Share:
    """Made by Ray on the machine that holds it; methods are called one at a time."""

    def __init__(self, desk: str, number: int) -> None:
        """desk: its name. number: of the share. What it has to do comes from the desk whenever it is made."""
        import ray

        self._desk = ray.get_actor(desk)
        begun, names, self._apart = ray.get(self._desk.orders.remote(number))
        task: Task = ray.get(begun)
        self._names: Texts = ray.get(names)
        self._number, self._shares = number, task.shares
        self._told = 0.0
        torch.set_num_threads(task.threads)
        settings = settings_from(task.options)
        weights = {name: torch.from_numpy(value.copy()) for name, value in task.weights.items()}
        self._embedder = Embedder(settings, weights)
        if self._embedder.network.device.type != "cpu" and "batch_size" not in task.options:
            self._embedder.settings = settings.model_copy(update={"batch_size": GPU_BATCH})
        self._spill: Spill | None = None
        self._frontier: Frontier | None = None
        self._projected = GrowingRows(on_disk=settings.projection is None)
        self._training: list[TrainingImage] = []
        self._grid = (0, 0)

    def learn(self) -> tuple[int, int, tuple[int, int]]:
        """Read and embed the share's images: how many, patches of each, their grid."""
        spill = self._embedded()
        return len(self._training), spill.patches_per_image, self._grid

    def point(self, row: int) -> torch.Tensor:
        """(dimensions,): one patch of the share, projected."""
        return self._x()[row].clone().cpu()  # of a view all that it is a view of would be sent

    def candidates(self, rounds: Sequence[Any], count: int) -> Candidates:
        """The share's ``count`` farthest patches from all centres so far. rounds: references to these, a round each."""
        return self._moved_on(rounds).candidates(count)

    def radius(self, rounds: Sequence[Any]) -> float:
        """The largest distance of any patch of the share from its nearest centre, projected."""
        return self._moved_on(rounds).radius()

    def kept(self, centres: Centres) -> Kept:
        """The centres that are patches of this share, with all their numbers."""
        spill, rows = self._embedded(), centres.rows[centres.shares == self._number]
        images = (rows // spill.patches_per_image).unique().tolist()
        pictures = {self._of_all(image): self._training[image].thumbnail for image in images}
        return Kept(spill.read(rows).numpy(), pictures)

    def leave_one_out(self, sent: Broadcast) -> Known | None:
        """The share's images against the bank less their own rows; as learning/calibrate.py's."""
        spill = self._embedded()
        numbers = range(self._number, self._number + self._shares * len(self._training), self._shares)
        bank = sent.bank(self._embedder.network.device)
        return Known.of(leave_one_out(bank, spill, self._embedder.settings, numbers, self._training, self._tell))

    def calibration(self, sent: Broadcast) -> Known | None:
        """The share's good images that were not learned from, against the bank; None where there are none."""
        import ray

        names: Texts = ray.get(self._apart)
        if not names:
            return None
        bank = sent.bank(self._embedder.network.device)
        return Known.of(separate(bank, self._embedder, (names, len(names)), self._tell))

    def sizes(self) -> Sizes:
        """(H, W) of the share's images."""
        self._embedded()
        return Sizes.of(image.size for image in self._training)

    def _of_all(self, image: int) -> int:
        return self._number + image * self._shares

    def _x(self) -> torch.Tensor:
        self._embedded()
        return self._projected.tensor().to(self._embedder.network.device)

    def _moved_on(self, rounds: Sequence[Any]) -> Frontier:
        """The share's distances from the centres of all rounds; those of a share that was made again are met again."""
        import ray

        if self._frontier is None:
            self._frontier = Frontier(self._x(), self._number)
        for centres in ray.get(list(rounds[self._frontier.met :])):
            self._frontier.meet(centres)
        return self._frontier

    def _embedded(self) -> Spill:
        """The patches of all images of the share, in memory as projections and on this machine's disk as they are."""
        if self._spill is not None:
            return self._spill
        spill, projection = Spill(), projection_of(self._embedder.settings, self._embedder.network)
        try:
            for batch, patches in self._embedder.patches(self._names):
                self._projected.append(projection(patches))
                spill.append(patches)
                self._training += training_images(batch)
                self._grid = patches.grid
                self._tell("embed", len(self._training), len(self._names))
        except BaseException:
            spill.__exit__(None, None, None)
            raise
        self._spill = spill
        return spill

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        """What there is to see of the work, now and then; nobody waits for it."""
        now = time.monotonic()
        if done == total or now - self._told > _TELL_EVERY:
            self._told = now
            self._desk.tell.remote(stage, self._number, done)
