"""Packed sequences are what the tuples of the same items are."""

from __future__ import annotations

import numpy as np
import pytest

from sapatchcore.data.packed import Files, Packed, Sizes, Texts
from sapatchcore.memory.training import TrainingImage, TrainingImages

NAMES = ("a.png", "", "ä é/中.png", "a.png", "not text: \udc80")
SIZES = ((480, 640), (1, 2), (33, 47), (0, 0), (70000, 3))
PICTURES = (b"", b"\xff\xd8", b"", b"\x00", b"JPEG")
IMAGES = tuple(map(TrainingImage, NAMES, SIZES, PICTURES))


@pytest.mark.parametrize(
    ("packed", "items"),
    [
        (Files.of(PICTURES), PICTURES),
        (Texts.of(NAMES), NAMES),
        (Sizes.of(SIZES), SIZES),
        (TrainingImages.of(IMAGES), IMAGES),
    ],
    ids=["files", "texts", "sizes", "images"],
)
def test_it_is_the_sequence_of_its_items(packed: Packed[object], items: tuple[object, ...]) -> None:
    assert len(packed) == len(items)
    assert tuple(packed) == items
    assert packed == items
    assert items == packed
    assert packed != items[:-1]
    assert packed != (*items[:-1], "another")
    assert packed != "text"
    assert [packed[i] for i in range(-5, 5)] == [items[i] for i in range(-5, 5)]
    for some in (slice(2), slice(1, None), slice(None, None, -2), slice(4, 1), slice(-2, 9)):
        assert packed[some] == items[some]
    for outside in (5, -6):
        with pytest.raises(IndexError):
            packed[outside]
    assert items[2] in packed
    assert packed.index(items[4]) == 4  # type: ignore[arg-type]
    assert type(packed).of(packed) == items  # type: ignore[attr-defined]
    packed.check()  # type: ignore[attr-defined]


def test_nothing_packed() -> None:
    for empty in (Files.of([]), Texts.of([]), Sizes.of([]), TrainingImages.of([])):
        assert (len(empty), tuple(empty), empty) == (0, (), ())
        empty.check()


def test_images_without_pictures() -> None:
    images = tuple(TrainingImage(name, size) for name, size in zip(NAMES, SIZES, strict=True))
    packed = TrainingImages.of(images)
    assert packed.thumbnails is None
    assert packed == images


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        ([1, 2, 3], [1, 2]),
        ([1, 2, 3], [1, 4]),
        ([1, 2, 3], [2, 1, 3]),
        ([1, 2, 3], [-1, 3]),
        ([1, 2, 3], []),
        ([1, 2, 3], [[3]]),
        ([[1, 2, 3]], [3]),
    ],
)
def test_ends_that_are_none(content: list[int], ends: list[int]) -> None:
    with pytest.raises(ValueError, match="items"):
        Files(np.array(content, np.uint8), np.array(ends, np.int64)).check()


def test_other_kinds_of_arrays_are_refused() -> None:
    ends, content = np.array([2], np.int64), np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match="int8 that end at int64"):
        Files(content.view(np.int8), ends).check()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8 that end at float64"):
        Files(content, ends.astype(float)).check()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decode"):
        Texts(Files(content + 255, ends)).check()
    for sizes in (np.zeros(4, int), np.zeros((4, 3), int), np.zeros((4, 2))):
        with pytest.raises(ValueError, match="sizes of the shape"):
            Sizes(sizes).check()  # type: ignore[arg-type]


def test_parts_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="names, sizes and pictures of 5, 4 images"):
        TrainingImages(Texts.of(NAMES), Sizes.of(SIZES[:4])).check()
    with pytest.raises(ValueError, match="5, 5, 3 images"):
        TrainingImages(Texts.of(NAMES), Sizes.of(SIZES), Files.of(PICTURES[:3])).check()
