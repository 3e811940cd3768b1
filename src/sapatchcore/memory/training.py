"""What is kept of the images that were learned from, beside their patches in the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.copies import TURNS
from sapatchcore.data.images import thumbnail
from sapatchcore.data.packed import Files, Packed, Sizes, Texts
from sapatchcore.data.pixels import Appearance, Size
from sapatchcore.data.sources import Batch
from sapatchcore.data.statistics import ImageStatistics

# Names of tensors in the model file.
NAMES, _SIZES, _THUMBNAILS, _APPEARANCE = "training.name", "training.size", "thumbnails", "training.appearance"
_TURNS = "training.turn"
_END = ".end"  # of a tensor that says where each part of another ends


@dataclass(frozen=True)
class TrainingImage:
    """What is kept of an image that was learned from.

    name: its path, or "image 3". size: (H, W), its own. thumbnail: a JPEG file of what the network saw of it, or b"".
    appearance: its brightness, contrast and colour; None where an earlier version, which kept none, learned it. turn: 0, or of a
    copy how it was turned, a number of data/copies.py; name, size and appearance are then those of the image that it was made
    from, and it follows that image and its other copies.
    """

    name: str
    size: Size
    thumbnail: bytes = b""
    appearance: Appearance | None = None
    turn: int = 0


@dataclass(frozen=True, eq=False)
class TrainingImages(Packed[TrainingImage]):
    """n of them in a few arrays. thumbnails: None where none is kept. appearance: (n, 3) float32; None where it is not kept of
    all. turns: (n,) int32; None where none is a copy."""

    names: Texts
    sizes: Sizes
    thumbnails: Files | None = None
    appearance: npt.NDArray[np.float32] | None = None
    turns: npt.NDArray[np.int32] | None = None

    @classmethod
    def of(cls, images: Sequence[TrainingImage]) -> TrainingImages:
        """The same images, packed; the same object where they are packed already."""
        if isinstance(images, TrainingImages):
            return images
        pictures = [image.thumbnail for image in images]
        return cls(
            Texts.of(image.name for image in images),
            Sizes.of(image.size for image in images),
            Files.of(pictures) if any(pictures) else None,
            packed_appearance([image.appearance for image in images]),
            packed_turns(images),
        )

    def __len__(self) -> int:
        return len(self.names)

    def _item(self, index: int) -> TrainingImage:
        picture = b"" if self.thumbnails is None else self.thumbnails[index]
        looks = None
        if self.appearance is not None:
            brightness, contrast, colour = self.appearance[index].tolist()
            looks = brightness, contrast, colour
        turn = 0 if self.turns is None else int(self.turns[index])
        return TrainingImage(self.names[index], self.sizes[index], picture, looks, turn)

    def tensors(self, thumbnails: bool) -> dict[str, torch.Tensor]:
        """What the model file holds of them. thumbnails: their pictures among it."""
        tensors = {**files_to_tensors(NAMES, self.names.files), _SIZES: torch.from_numpy(self.sizes.array)}
        if thumbnails and self.thumbnails is not None:
            tensors |= files_to_tensors(_THUMBNAILS, self.thumbnails)
        if self.appearance is not None:
            tensors[_APPEARANCE] = torch.from_numpy(self.appearance)
        if self.turns is not None:
            tensors[_TURNS] = torch.from_numpy(self.turns)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> TrainingImages:
        """From what ``tensors`` gave. Raises KeyError, ValueError where something is missing or does not fit together."""
        pictures = files_from_tensors(_THUMBNAILS, tensors) if _THUMBNAILS in tensors else None
        looks = tensors[_APPEARANCE].numpy() if _APPEARANCE in tensors else None
        turns = tensors[_TURNS].numpy() if _TURNS in tensors else None
        images = cls(Texts(files_from_tensors(NAMES, tensors)), Sizes(tensors[_SIZES].numpy()), pictures, looks, turns)
        images.check()
        return images

    def check(self) -> None:
        """Raises ValueError where the parts do not fit together."""
        parts = (self.names, self.sizes, *(() if self.thumbnails is None else (self.thumbnails,)))
        for part in parts:
            part.check()
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"names, sizes and pictures of {', '.join(str(len(part)) for part in parts)} images")
        looks = self.appearance
        if looks is not None and not (
            looks.shape == (len(self), 3) and looks.dtype == np.float32 and np.isfinite(looks).all()
        ):
            raise ValueError(f"appearances of the shape {looks.shape} and {looks.dtype}")
        turns = self.turns
        if turns is not None and not (
            turns.shape == (len(self),)
            and turns.dtype == np.int32
            and np.isin(turns, (0, *TURNS)).all()
            and not turns[0]
        ):
            raise ValueError(f"turns of the shape {turns.shape} and {turns.dtype}, or of a copy without its image")


def files_to_tensors(name: str, files: Files) -> dict[str, torch.Tensor]:
    """The items' bytes one after another, and where each ends."""
    return {name: torch.from_numpy(files.content), name + _END: torch.from_numpy(files.ends)}


def files_from_tensors(name: str, tensors: Mapping[str, torch.Tensor]) -> Files:
    """From what ``files_to_tensors`` gave."""
    return Files(tensors[name].numpy(), tensors[name + _END].numpy())


def counted(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many images a model file was made from, and how many turned copies of them, where there are any."""
    copies = int(tensors[_TURNS].count_nonzero()) if _TURNS in tensors else 0
    found = {"training_images": len(tensors[_SIZES]) - copies}
    return {**found, "turned_copies": copies} if copies else found


def training_images(batch: Batch) -> list[TrainingImage]:
    """What is kept of each image of a batch: name, size, appearance, and a thumbnail of what the network sees."""
    looks, turns = batch.appearance or (None,) * len(batch.names), batch.turns or (0,) * len(batch.names)
    images = zip(batch.names, batch.sizes, batch.pixels, looks, turns, strict=True)
    return [TrainingImage(name, size, thumbnail(pixels), look, turn) for name, size, pixels, look, turn in images]


def packed_turns(images: Sequence[TrainingImage]) -> npt.NDArray[np.int32] | None:
    """(n,) int32; None where none is a copy."""
    if isinstance(images, TrainingImages):
        return images.turns
    turns = np.array([image.turn for image in images], np.int32)
    return turns if turns.any() else None


def made_from(images: Sequence[TrainingImage], numbers: torch.Tensor) -> torch.Tensor:
    """(m,) int64: of each training image among ``numbers`` (m,) the number of the one that it was made from, itself where it is
    no copy."""
    turns = packed_turns(images)
    if turns is None:
        return numbers
    own = np.maximum.accumulate(np.where(turns == 0, np.arange(len(turns)), 0))
    return torch.from_numpy(own)[numbers]


def packed_appearance(looks: Sequence[Appearance | None]) -> npt.NDArray[np.float32] | None:
    """(n, 3) float32; None where one is missing: ranges of some images would make the others look unusual."""
    return None if None in looks else np.array(looks, np.float32).reshape(-1, 3)


def statistics(training: Sequence[TrainingImage]) -> ImageStatistics | None:
    """What the training images had; None where there is none, or their appearance is not kept."""
    if isinstance(training, TrainingImages):
        sizes, looks = training.sizes.array, training.appearance
    else:
        sizes = np.array([image.size for image in training])
        looks = packed_appearance([image.appearance for image in training])
    return None if looks is None or not len(looks) else ImageStatistics.of(sizes, looks)


def pictured(training: Sequence[TrainingImage], rows: torch.Tensor) -> tuple[TrainingImage, ...]:
    """The training images, with pictures of those alone that one of ``rows`` (m,) int64 of the bank came from."""
    used = set(rows.tolist())
    return tuple(image if number in used else replace(image, thumbnail=b"") for number, image in enumerate(training))
