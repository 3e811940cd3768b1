"""Turned copies: pixels by hand, what is turned how, and where a cell of a copy was in its image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import made_images

from sapatchcore.data.copies import TURNS, cell_before, in_words, learned_from, turned_by, turns_of
from sapatchcore.data.sources import Batch
from sapatchcore.embed.patches import Embedder
from sapatchcore.settings import settings_from

HALF_AND_MIRRORED = (180, 360, 540)


@pytest.mark.parametrize(
    ("turn", "rows", "words"),
    [
        (0, ["abc", "def"], ""),
        (90, ["cf", "be", "ad"], "turned by 90°"),
        (180, ["fed", "cba"], "turned by 180°"),
        (270, ["da", "eb", "fc"], "turned by 270°"),
        (360, ["cba", "fed"], "mirrored"),
        (450, ["ad", "be", "cf"], "mirrored and turned by 90°"),
        (540, ["def", "abc"], "mirrored and turned by 180°"),
        (630, ["fc", "eb", "da"], "mirrored and turned by 270°"),
    ],
)
def test_a_turn_by_hand(turn: int, rows: list[str], words: str) -> None:
    image = np.array([list("abc"), list("def")])
    found = turned_by(image, turn)
    assert ["".join(row) for row in found] == rows
    assert found.flags["C_CONTIGUOUS"]
    assert in_words(turn) == words


@pytest.mark.parametrize("turn", [0, *TURNS])
def test_a_cell_is_found_again_in_the_image(turn: int) -> None:
    for cell in np.ndindex(4, 4):
        image = np.zeros((4, 4), np.uint8)
        image[cell] = 1
        copy: Any = np.unravel_index(int(turned_by(image, turn).argmax()), (4, 4))
        assert cell_before((int(copy[0]), int(copy[1])), (4, 4), turn) == cell


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((300, 300), 64, TURNS),
        ((310, 320), 64, TURNS),  # within 1/32 of its side
        ((309, 320), 64, HALF_AND_MIRRORED),
        ((300, 400), 64, HALF_AND_MIRRORED),  # stretched to a square: a quarter turn would show another part
        ((300, 300), "64x96", HALF_AND_MIRRORED),
    ],
)
def test_quarter_turns_need_squares(size: tuple[int, int], resize: Any, expected: tuple[int, ...]) -> None:
    assert turns_of(size, settings_from({"resize": resize, "crop": None})) == expected


class Unseen(Embedder):
    """An embedder whose network looks at nothing."""

    def embed(self, _: Batch) -> Any:
        return None


def test_every_image_comes_with_its_copies() -> None:
    images, done = made_images(3, (48, 48)), list[tuple[str, int, int | None]]()
    settings = settings_from({"resize": 48, "crop": None, "augment": "rotate", "batch_size": 2, "workers": 0})

    def progress(stage: str, count: int, total: int | None) -> None:
        done.append((stage, count, total))

    batches = [batch for batch, _ in Unseen(settings).learned(images, progress, 3, first=5)]
    assert {len(batch.names) for batch in batches} == {2}  # no more than batch_size go through the network together
    names = [name for batch in batches for name in batch.names]
    turns = [turn for batch in batches for turn in batch.turns]
    assert names == [f"image {number}" for number in (5, 6, 7) for _ in range(8)]
    assert turns == 3 * [0, *TURNS]
    pixels: npt.NDArray[np.uint8] = np.concatenate([batch.pixels for batch in batches])
    for number, (turn, found) in enumerate(zip(turns, pixels, strict=True)):
        np.testing.assert_array_equal(found, turned_by(images[number // 8], turn))
    assert {look for batch in batches[:4] for look in batch.appearance} == {batches[0].appearance[0]}
    assert done[-1] == ("embed", 3, 3), "images, not copies"
    assert [count for _, count, _ in done] == [1] * 4 + [2] * 4 + [3] * 4


def test_off_by_default() -> None:
    ((batch, _),) = Unseen(settings_from({"workers": 0})).learned(made_images(2), None, 2)
    assert (batch.names, batch.turns) == (("image 0", "image 1"), ())


def test_what_was_learned_from_in_words() -> None:
    assert learned_from(["", ""]) == "2 images"
    assert learned_from(["", *["mirrored"] * 7]) == "1 image and 7 turned copies of them"
