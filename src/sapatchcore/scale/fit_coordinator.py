"""What happens once in a distributed fit: the choice of patches, and the model file.

It runs in a process of its own on the machine where the command was given. Its memory holds the memory bank, however many
images there are: what the model file says of each image it gathers from the shares into mapped temporary files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.packed import Files, Sizes, Texts
from sapatchcore.embed.adaptation import adapted
from sapatchcore.embed.patches import Embedder
from sapatchcore.learning.calibrate import FOLDS, folds_of, with_scales
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.distributed import Candidates, Centres, Choice
from sapatchcore.memory.pooled import GlobalPart
from sapatchcore.memory.spill import mapped
from sapatchcore.memory.training import TrainingImages
from sapatchcore.model_file import to_stored, write_model
from sapatchcore.scale.share import BankArrays, FitTask, KeptPatches, ShareCalibration
from sapatchcore.score.calibration import CROSS_FITTED, SEPARATE, Calibration, Float32
from sapatchcore.settings import settings_from

if TYPE_CHECKING:
    from ray import ObjectRef

Int64 = npt.NDArray[np.int64]


class FitCoordinator:
    """Runs in a Ray actor. Image i of all is in share i modulo the number of shares."""

    def __init__(self, options: dict[str, Any]) -> None:
        """options: of settings.py. Raises WeightsError, SettingsError for the network, which is found here alone."""
        self._options = options
        self._embedder = Embedder(settings_from(options))

    def task(self, total: int, threads: int, shares: int, names: Sequence[ObjectRef]) -> tuple[FitTask, None]:
        """What every share is told, and None as a second return value to wait for.

        total: images to learn from. names: a reference to their names; some are looked at where a setting asks for it.
        """
        import ray

        self._total, self._shares = total, shares
        self._embedder, _ = adapted(self._embedder, ray.get(names[0]), FOLDS)
        found = self._embedder.settings
        self._options = {**self._options, "temperature": found.temperature, "resize": found.resize}
        weights = {name: value.cpu().numpy() for name, value in self._embedder.network.weights.items()}
        return FitTask(self._options, weights, self._embedder.whitening, threads, shares, total), None

    def first(self, count: int, patches_per_image: int) -> tuple[int, int]:
        """(share, row) of the first of ``count`` centres, the patch that one machine would draw."""
        self._choice = self._whole = Choice(count)
        self._patches_per_image = patches_per_image
        random = np.random.default_rng(self._embedder.settings.seed)
        image, cell = divmod(int(random.integers(self._total * patches_per_image)), patches_per_image)
        return image % self._shares, image // self._shares * patches_per_image + cell

    def begin(self, share: int, row: int, projected: torch.Tensor) -> tuple[Centres, int]:
        """The first centre, as a round, and how many are still to choose."""
        return self._choice.begin(share, row, projected), self._choice.missing

    def outside(self, fold: int) -> tuple[Centres, int]:
        """What the choice of a fold's bank begins with: the whole bank's centres that are not of the fold's images, as a round,
        and how many are still to choose."""
        whole, folds = self._whole.all(), folds_of(self._total)
        images = self._total - len(range(fold, self._total, folds))
        self._choice = Choice(min(len(whole.rows), images * self._patches_per_image))
        kept = self._images(whole) % folds != fold
        centres = self._choice.go_on(Centres(whole.shares[kept], whole.rows[kept], whole.projected[kept]))
        return centres, self._choice.missing

    def choose_among(self, *candidates: Candidates) -> tuple[Centres, int]:
        """The next round of centres, and how many are still to choose. candidates: of each share."""
        return self._choice.among(candidates), self._choice.missing

    def centres(self) -> Centres:
        """All of them, in the order of choice."""
        return self._choice.all()

    def bank(self, grid: tuple[int, int], *kept: KeptPatches) -> BankArrays:
        """The memory bank of the centres, its images numbered through all shares."""
        centres = self._choice.all()
        shares, rows = centres.shares.numpy(), centres.rows.numpy()
        patches = np.empty((len(rows), kept[0].rows.shape[1]), np.float32)
        for share, one in enumerate(kept):
            patches[shares == share] = one.rows
        images = self._images(centres).numpy()
        return BankArrays(patches, images, rows % self._patches_per_image, self._total, grid)

    def _images(self, centres: Centres) -> torch.Tensor:
        """(c,) int64: the image of each centre, numbered through all shares."""
        return centres.shares + centres.rows // self._patches_per_image * self._shares

    def with_statistics(self, made: BankArrays, *parts: Float32) -> BankArrays:
        """The memory bank with every training image's pooled statistics. parts: of each share."""
        return replace(made, statistics=self._in_order(parts))

    def write(
        self,
        path: str,
        include: tuple[bool, bool],
        made: BankArrays,
        names: Sequence[ObjectRef],
        answers: Sequence[Sequence[ObjectRef]],
    ) -> dict[str, Any]:
        """Write the model file, the same as from one machine. Returns its numbers of images and rows, and its radius.

        include: whether the network's weights and the training images' thumbnails go into it. names: references to the names
        of the images to learn from, and of those to calibrate with. answers: references to what every share returned from
        ``kept``, ``radius``, ``sizes``, ``statistics``, and ``cross_fitted`` of each fold, one after another, or ``separate``.

        Raises ModelFileError where it cannot be written.
        """
        import ray

        kept, radii = (ray.get(list(of_each)) for of_each in answers[:2])
        sizes, statistics, calibrations = answers[2:]
        thumbnails = {number: file for one in kept for number, file in one.thumbnails.items()}
        shares = [np.arange(at, self._total, len(sizes)) for at in range(len(sizes))]
        training = TrainingImages(
            on_disk(ray.get(names[0])),
            Sizes(scattered(self._total, ((at, ray.get(one)[0].array) for at, one in zip(shares, sizes, strict=True)))),
            packed_thumbnails(self._total, thumbnails),
            scattered(self._total, ((at, ray.get(one)[1]) for at, one in zip(shares, sizes, strict=True))),
        )
        bank: Bank = replace(made.bank(torch.device("cpu")), training=training, radius=max(radii))
        calibration = self._calibration(training, names[1], calibrations)
        if statistics:
            rows = torch.from_numpy(self._in_order([ray.get(one) for one in statistics]))
            bank, calibration = with_scales(replace(bank, global_part=GlobalPart.of(rows)), calibration)
        stored = to_stored(self._embedder.settings, self._embedder, bank, calibration, *include)
        write_model(Path(path), stored)
        return {
            "training_images": len(training),
            "bank": list(made.rows.shape),
            "calibration_images": 0 if calibration is None else len(calibration),
            "covering_radius": bank.radius,
            "resize": self._embedder.settings.resize,
        }

    def _in_order(self, parts: Sequence[Float32]) -> Float32:
        """(total, …): what each share has of its images, in the order of all."""
        at = (np.arange(share, self._total, len(parts)) for share in range(len(parts)))
        return scattered(self._total, zip(at, parts, strict=True))

    def _calibration(
        self, training: TrainingImages, apart: ObjectRef, parts: Sequence[ObjectRef]
    ) -> Calibration | None:
        """Of all images in their order; None where no share has a part of it.

        apart: a reference to the names of separate images. parts: references to each share's ShareCalibration.
        """
        import ray

        if not parts:
            return None
        texts: Texts = ray.get(apart)
        separate = len(texts) > 0
        names = on_disk(texts) if separate else training.names
        if separate:  # image i of them is in share i modulo the number of shares
            rows = [np.arange(share, len(names), self._shares) for share in range(len(parts))]
        else:
            rows = [np.empty(0, np.int64) if one is None else one.arrays["images"] for one in map(ray.get, parts)]
        there = [(part, at) for part, at in zip(parts, rows, strict=True) if len(at)]

        def whole(array_of: Callable[[ShareCalibration], npt.NDArray[Any]]) -> npt.NDArray[Any]:
            return scattered(len(names), ((at, array_of(ray.get(part))) for part, at in there))

        there_names = ray.get(there[0][0]).arrays
        arrays: dict[str, Any] = {name: whole(lambda one, name=name: one.arrays[name]) for name in there_names}  # type: ignore[misc]
        return Calibration(
            source=SEPARATE if separate else CROSS_FITTED,
            names=names,
            sizes=Sizes(whole(lambda one: one.sizes.array)) if separate else training.sizes,
            image_score=self._embedder.settings.image_score,
            neighbors=self._embedder.settings.neighbors,
            attention=self._embedder.settings.attention,
            **arrays,
        )


def scattered(total: int, parts: Iterable[tuple[Int64, npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    """One mapped array (total, …) of parts (k, …), each with the (k,) indices where its items belong.

    Integers become the model file's 32-bit ones. One part at a time is in memory.
    """
    out: npt.NDArray[Any] | None = None
    for at, part in parts:
        if out is None:
            out = mapped((total, *part.shape[1:]), np.int32 if part.dtype.kind == "i" else part.dtype)
        out[at] = part
    return np.empty(0) if out is None else out


def on_disk(texts: Texts) -> Texts:
    """The same texts in mapped temporary files."""
    content, ends = (mapped(array.shape, array.dtype) for array in (texts.files.content, texts.files.ends))
    content[...], ends[...] = texts.files.content, texts.files.ends
    return Texts(Files(content, ends))


def packed_thumbnails(total: int, files: dict[int, bytes]) -> Files | None:
    """``files``, by the number of their image among ``total``, as one sequence; None where all are empty."""
    if not any(files.values()):
        return None
    ends = mapped((total,), np.int64)
    for number, file in files.items():
        ends[number] = len(file)
    np.cumsum(ends, out=ends)
    return Files(np.frombuffer(bytearray(b"".join(files[number] for number in sorted(files))), np.uint8), ends)
