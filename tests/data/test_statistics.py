"""Ranges of training images, their margins by hand, and a sentence for each way to be unlike them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sapatchcore.data.pixels import Appearance, Size
from sapatchcore.data.statistics import ImageStatistics

# Two images: 100 and 120 pixels on the longer side, width / height 1 and 0.5, in grey.
GREY = ImageStatistics.of(
    np.array([(100, 100), (120, 60)]), np.array([(100.0, 30.0, 0.0), (120.0, 60.0, 0.5)], np.float32)
)
COLOURED = ImageStatistics.of(np.array([(100, 100)]), np.array([(100.0, 30.0, 20.0)], np.float32))
USUAL: Appearance = (110.0, 40.0, 0.2)


def notes(of: ImageStatistics, size: Size, appearance: Appearance) -> tuple[str, ...]:
    (found,) = of.notes([size], [appearance])
    return found


def test_ranges_by_hand() -> None:
    assert GREY.to_dict() == {
        "side": [100, 120],
        "shape": [0.5, 1],
        "brightness": [100, 120],
        "contrast": [30, 60],
        "colour": [0, 0.5],
    }


@pytest.mark.parametrize(
    ("inside", "outside", "word"),
    [
        ((80, 80), (79, 79), "Smaller"),  # 100 / 1.25
        ((150, 75), (151, 75), "Larger"),  # 120 · 1.25
        ((110, 50), (110, 49), "Narrower"),  # 0.5 / 1.1 = 0.4545
        ((100, 110), (100, 111), "Wider"),  # 1 · 1.1
    ],
)
def test_size_and_shape_to_the_pixel(inside: Size, outside: Size, word: str) -> None:
    assert notes(GREY, inside, USUAL) == ()
    (said,) = notes(GREY, outside, USUAL)
    assert said.startswith(f"{word} than the training images: ")


@pytest.mark.parametrize(
    ("column", "inside", "outside", "word"),
    [
        (0, 84.0, 83.9, "Darker than"),  # 100 − 16: half of the range would be 10
        (0, 136.0, 136.1, "Brighter than"),
        (1, 16.0, 15.9, "Less contrast than"),  # 30 / 1.5 − 4
        (1, 94.0, 94.1, "More contrast than"),  # 60 · 1.5 + 4
        (2, 3.9, 4.0, "In colour: "),
    ],
)
def test_brightness_contrast_and_colour_to_the_level(column: int, inside: float, outside: float, word: str) -> None:
    values = list(USUAL)
    values[column] = inside
    assert notes(GREY, (100, 100), tuple(values)) == ()  # type: ignore[arg-type]
    values[column] = outside
    (said,) = notes(GREY, (100, 100), tuple(values))  # type: ignore[arg-type]
    assert said.startswith(word)


def test_a_wide_range_of_brightness_has_a_wide_margin() -> None:
    wide = ImageStatistics((9, 9), (1, 1), (60, 160), (30, 60), (0, 0))
    assert notes(wide, (9, 9), (10.0, 40.0, 0.0)) == ()  # half of 100 beyond 60
    assert notes(wide, (9, 9), (9.0, 40.0, 0.0)) != ()


def test_grey_among_coloured_ones() -> None:
    assert notes(COLOURED, (100, 100), (100.0, 30.0, 1.0)) == ()
    assert notes(COLOURED, (100, 100), (100.0, 30.0, 0.9)) == ("Without colour: the training images have colour.",)


def test_of_a_mixed_set_neither_is_unusual() -> None:
    mixed = ImageStatistics((9, 9), (1, 1), (100, 120), (30, 60), (0, 20))
    assert notes(mixed, (9, 9), (110.0, 40.0, 0.0)) == notes(mixed, (9, 9), (110.0, 40.0, 30.0)) == ()


def test_sentences_say_both_numbers() -> None:
    assert notes(GREY, (600, 100), (20.4, 5.1, 0.0)) == (
        "Larger than the training images: the longer side has 600 pixels, theirs 100 to 120.",
        "Narrower than the training images: width / height is 0.17, theirs 0.50 to 1.00.",
        "Darker than the training images: mean brightness 8%, theirs 39% to 47%.",
        "Less contrast than the training images: brightness deviates by 2%, theirs 12% to 24%.",
    )
    assert notes(COLOURED, (200, 200), (100.0, 30.0, 20.0)) == (
        "Larger than the training images: the longer side has 200 pixels, theirs 100.",
    )


def test_training_images_themselves_have_none() -> None:
    rng = np.random.default_rng(0)
    sizes, looks = rng.integers(1, 3000, (50, 2)), rng.uniform(0, 255, (50, 3)).astype(np.float32)
    whole = ImageStatistics.of(sizes, looks)
    images = [(int(h), int(w)) for h, w in sizes], [(float(a), float(b), float(c)) for a, b, c in looks]
    assert whole.notes(*images) == ((),) * 50


def test_json_brings_it_back() -> None:
    assert ImageStatistics.from_dict(json.loads(json.dumps(GREY.to_dict()))) == GREY


@pytest.mark.parametrize(
    "wrong", [[2, 1], [1], [1, 2, 3], [-1, 1], [0, float("inf")], [float("nan")] * 2, ["x", 1], None]
)
def test_what_is_no_range_is_refused(wrong: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        ImageStatistics.from_dict({**GREY.to_dict(), "side": wrong})
