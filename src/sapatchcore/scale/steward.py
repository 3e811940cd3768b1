"""What happens once in a distributed fit: the choice of patches, the model file.

It runs in a process of its own on the machine where the command was given. What the model file holds of every image it brings
together in mapped files, from where the shares' answers lie: its own memory holds the memory bank and a handle for each share,
however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Files, Sizes, Texts
from sapatchcore.embed.patches import Embedder
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.distributed import Candidates, Centres, Choice
from sapatchcore.memory.spill import mapped
from sapatchcore.memory.training import TrainingImages
from sapatchcore.model_file import to_stored, write_model
from sapatchcore.scale.share import Broadcast, Kept, Known, Task
from sapatchcore.score.calibration import ARRAYS, SEPARATE, Calibration
from sapatchcore.settings import settings_from


class Steward:
    """The images by shares (image i of all is in share i modulo their number), and what is made of the shares' answers."""

    def __init__(self, options: dict[str, Any]) -> None:
        """options: of settings.py. Raises WeightsError, SettingsError for the network, which is found here alone."""
        self._options = options
        self._embedder = Embedder(settings_from(options))

    def begin(self, total: int, threads: int, shares: int) -> tuple[Task, None]:
        """What all shares are told, and nothing, to wait for. total: images to learn from."""
        self._total, self._shares = total, shares
        weights = {name: value.cpu().numpy() for name, value in self._embedder.network.weights.items()}
        return Task(self._options, weights, threads, shares), None

    def first(self, count: int, per_image: int) -> tuple[int, int]:
        """(share, row) of the first of ``count`` centres: the patch that one machine would draw."""
        self._choice, self._per_image = Choice(count), per_image
        drawn = int(np.random.default_rng(self._embedder.settings.seed).integers(self._total * per_image))
        image, cell = divmod(drawn, per_image)
        return image % self._shares, image // self._shares * per_image + cell

    def begin_with(self, share: int, row: int, projected: torch.Tensor) -> Centres:
        """The first centre, as a round."""
        return self._choice.begin(share, row, projected)

    def among(self, *shares: Candidates) -> tuple[Centres, int]:
        """The next round of centres, and how many there are by then."""
        return self._choice.among(shares), self._choice.chosen

    def centres(self) -> Centres:
        """All of them, in the order of choice."""
        return self._choice.all()

    def bank(self, grid: tuple[int, int], *kept: Kept) -> Broadcast:
        """The memory bank of the centres, images numbered through all shares."""
        centres = self._choice.all()
        shares, rows = centres.shares.numpy(), centres.rows.numpy()
        patches = np.empty((len(rows), kept[0].rows.shape[1]), np.float32)
        for share, one in enumerate(kept):
            patches[shares == share] = one.rows
        images = shares + rows // self._per_image * self._shares
        return Broadcast(patches, images, rows % self._per_image, self._total, grid)

    def write(
        self,
        path: str,
        inside: tuple[bool, bool],
        made: Broadcast,
        names: Sequence[Any],
        answers: Sequence[Sequence[Any]],
    ) -> dict[str, Any]:
        """Write the model file, the same as from one machine; what there is to say of it.

        inside: whether the network's weights and the training images' pictures go into it. names: references to those of the
        images to learn from, and of those apart. answers: references to what every share answered to ``kept``, ``radius``,
        ``sizes``, and ``leave_one_out`` or ``calibration``.

        Raises ModelFileError where it cannot be written.
        """
        import ray

        kept, radii = (ray.get(list(of_each)) for of_each in answers[:2])
        sizes, known = answers[2:]
        training = TrainingImages(
            on_disk(ray.get(names[0])),
            Sizes(dealt_back(self._total, len(sizes), (ray.get(one).array for one in sizes))),
            pictures_of(self._total, {number: file for one in kept for number, file in one.thumbnails.items()}),
        )
        bank: Bank = replace(made.bank(torch.device("cpu")), training=training, radius=max(radii))
        calibration = self._calibration(training, names[1], known)
        write_model(Path(path), to_stored(self._embedder.settings, self._embedder.network, bank, calibration, *inside))
        return {
            "training_images": len(training),
            "bank": list(made.rows.shape),
            "calibration_images": 0 if calibration is None else len(calibration),
            "covering_radius": bank.radius,
        }

    def _calibration(self, training: TrainingImages, named: Any, known: Sequence[Any]) -> Calibration | None:
        """Of all images in their order; None where no share has a part of it.

        named: a reference to the names of those apart. known: references to each share's part.
        """
        import ray

        first: Known | None = ray.get(known[0])
        if first is None:
            return None
        apart = first.source == SEPARATE
        names: Texts = on_disk(ray.get(named)) if apart else training.names
        there = known[: len(names)]  # fewer images than shares: the other shares have none

        def whole(array_of: Callable[[Known], npt.NDArray[Any]]) -> npt.NDArray[Any]:
            return dealt_back(len(names), len(there), (array_of(ray.get(one)) for one in there))

        arrays: dict[str, Any] = {name: whole(lambda one, name=name: one.arrays[name]) for name in ARRAYS}  # type: ignore[misc]
        return Calibration(
            source=first.source,
            names=names,
            sizes=Sizes(whole(lambda one: one.sizes.array)) if apart else training.sizes,
            image_score=self._embedder.settings.image_score,
            neighbors=self._embedder.settings.neighbors,
            **arrays,
        )


def dealt_back(total: int, shares: int, parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """One mapped array (total, …) of the items i, i + n, i + 2n, … in each of the ``parts`` of n ``shares``.

    Whole numbers are brought down to the 32 bits that the model file has. The parts are looked at one at a time.
    """
    out = np.empty(0)
    for number, part in enumerate(parts):
        if not number:
            out = mapped((total, *part.shape[1:]), np.int32 if part.dtype.kind == "i" else part.dtype)
        out[number::shares] = part
    return out


def on_disk(texts: Texts) -> Texts:
    """The same texts in mapped files."""
    content, ends = (mapped(array.shape, array.dtype) for array in (texts.files.content, texts.files.ends))
    content[...], ends[...] = texts.files.content, texts.files.ends
    return Texts(Files(content, ends))


def pictures_of(total: int, files: dict[int, bytes]) -> Files | None:
    """``files`` by the number of their image, of ``total`` in all; None where there is none."""
    if not any(files.values()):
        return None
    ends = mapped((total,), np.int64)
    for number, file in files.items():
        ends[number] = len(file)
    np.cumsum(ends, out=ends)
    return Files(np.frombuffer(bytearray(b"".join(files[number] for number in sorted(files))), np.uint8), ends)
