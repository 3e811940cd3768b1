"""What is kept of the images that were learned from, beside their patches in the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.images import thumbnail
from sapatchcore.data.packed import Files, Packed, Sizes, Texts
from sapatchcore.data.pixels import Appearance, Size
from sapatchcore.data.sources import Batch
from sapatchcore.data.statistics import ImageStatistics

# Names of tensors in the model file.
NAMES, _SIZES, _THUMBNAILS, _APPEARANCE = "training.name", "training.size", "thumbnails", "training.appearance"
_END = ".end"  # of a tensor that says where each part of another ends


@dataclass(frozen=True)
class TrainingImage:
    """What is kept of an image that was learned from.

    name: its path, or "image 3". size: (H, W), its own. thumbnail: a JPEG file of what the network saw of it, or b"".
    appearance: its brightness, contrast and colour; None where an earlier version, which kept none, learned it.
    """

    name: str
    size: Size
    thumbnail: bytes = b""
    appearance: Appearance | None = None


@dataclass(frozen=True, eq=False)
class TrainingImages(Packed[TrainingImage]):
    """n of them in a few arrays. thumbnails: None where none is kept. appearance: (n, 3) float32; None where it is not kept of
    all."""

    names: Texts
    sizes: Sizes
    thumbnails: Files | None = None
    appearance: npt.NDArray[np.float32] | None = None

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
        )

    def __len__(self) -> int:
        return len(self.names)

    def _item(self, index: int) -> TrainingImage:
        picture = b"" if self.thumbnails is None else self.thumbnails[index]
        looks = None
        if self.appearance is not None:
            brightness, contrast, colour = self.appearance[index].tolist()
            looks = brightness, contrast, colour
        return TrainingImage(self.names[index], self.sizes[index], picture, looks)

    def tensors(self, thumbnails: bool) -> dict[str, torch.Tensor]:
        """What the model file holds of them. thumbnails: their pictures among it."""
        tensors = {**files_to_tensors(NAMES, self.names.files), _SIZES: torch.from_numpy(self.sizes.array)}
        if thumbnails and self.thumbnails is not None:
            tensors |= files_to_tensors(_THUMBNAILS, self.thumbnails)
        if self.appearance is not None:
            tensors[_APPEARANCE] = torch.from_numpy(self.appearance)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> TrainingImages:
        """From what ``tensors`` gave. Raises KeyError, ValueError where something is missing or does not fit together."""
        pictures = files_from_tensors(_THUMBNAILS, tensors) if _THUMBNAILS in tensors else None
        looks = tensors[_APPEARANCE].numpy() if _APPEARANCE in tensors else None
        images = cls(Texts(files_from_tensors(NAMES, tensors)), Sizes(tensors[_SIZES].numpy()), pictures, looks)
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


def files_to_tensors(name: str, files: Files) -> dict[str, torch.Tensor]:
    """The items' bytes one after another, and where each ends."""
    return {name: torch.from_numpy(files.content), name + _END: torch.from_numpy(files.ends)}


def files_from_tensors(name: str, tensors: Mapping[str, torch.Tensor]) -> Files:
    """From what ``files_to_tensors`` gave."""
    return Files(tensors[name].numpy(), tensors[name + _END].numpy())


def training_images(batch: Batch) -> list[TrainingImage]:
    """What is kept of each image of a batch: name, size, appearance, and a thumbnail of what the network sees."""
    looks = batch.appearance or (None,) * len(batch.names)
    images = zip(batch.names, batch.sizes, batch.pixels, looks, strict=True)
    return [TrainingImage(name, size, thumbnail(pixels), look) for name, size, pixels, look in images]


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
