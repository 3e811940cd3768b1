"""What is kept of the images that were learned from, beside their patches in the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sapatchcore.data.images import thumbnail
from sapatchcore.data.packed import Files, Packed, Sizes, Texts
from sapatchcore.data.pixels import Size
from sapatchcore.data.sources import Batch

# Names of tensors in the model file.
NAMES, _SIZES, _THUMBNAILS = "training.name", "training.size", "thumbnails"
_END = ".end"  # of a tensor that says where each part of another ends


@dataclass(frozen=True)
class TrainingImage:
    """What is kept of an image that was learned from.

    name: its path, or "image 3". size: (H, W), its own. thumbnail: a JPEG file of what the network saw of it, or b"".
    """

    name: str
    size: Size
    thumbnail: bytes = b""


@dataclass(frozen=True, eq=False)
class TrainingImages(Packed[TrainingImage]):
    """n of them in a few arrays. thumbnails: None where none is kept."""

    names: Texts
    sizes: Sizes
    thumbnails: Files | None = None

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
        )

    def __len__(self) -> int:
        return len(self.names)

    def _item(self, index: int) -> TrainingImage:
        picture = b"" if self.thumbnails is None else self.thumbnails[index]
        return TrainingImage(self.names[index], self.sizes[index], picture)

    def tensors(self, thumbnails: bool) -> dict[str, torch.Tensor]:
        """What the model file holds of them. thumbnails: their pictures among it."""
        tensors = {**files_to_tensors(NAMES, self.names.files), _SIZES: torch.from_numpy(self.sizes.array)}
        if thumbnails and self.thumbnails is not None:
            tensors |= files_to_tensors(_THUMBNAILS, self.thumbnails)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> TrainingImages:
        """From what ``tensors`` gave. Raises KeyError, ValueError where something is missing or does not fit together."""
        pictures = files_from_tensors(_THUMBNAILS, tensors) if _THUMBNAILS in tensors else None
        images = cls(Texts(files_from_tensors(NAMES, tensors)), Sizes(tensors[_SIZES].numpy()), pictures)
        images.check()
        return images

    def check(self) -> None:
        """Raises ValueError where the parts do not fit together."""
        parts = (self.names, self.sizes, *(() if self.thumbnails is None else (self.thumbnails,)))
        for part in parts:
            part.check()
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"names, sizes and pictures of {', '.join(str(len(part)) for part in parts)} images")


def files_to_tensors(name: str, files: Files) -> dict[str, torch.Tensor]:
    """The items' bytes one after another, and where each ends."""
    return {name: torch.from_numpy(files.content), name + _END: torch.from_numpy(files.ends)}


def files_from_tensors(name: str, tensors: Mapping[str, torch.Tensor]) -> Files:
    """From what ``files_to_tensors`` gave."""
    return Files(tensors[name].numpy(), tensors[name + _END].numpy())


def training_images(batch: Batch) -> list[TrainingImage]:
    """What is kept of each image of a batch: its name, its size and a thumbnail of what the network sees."""
    images = zip(batch.names, batch.sizes, batch.pixels, strict=True)
    return [TrainingImage(name, size, thumbnail(pixels)) for name, size, pixels in images]


def pictured(training: Sequence[TrainingImage], rows: torch.Tensor) -> tuple[TrainingImage, ...]:
    """The training images, with pictures of those alone that one of ``rows`` (m,) int64 of the bank came from."""
    used = set(rows.tolist())
    return tuple(image if number in used else replace(image, thumbnail=b"") for number, image in enumerate(training))
