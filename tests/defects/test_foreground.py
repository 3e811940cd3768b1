"""The part is told from its ground on what is drawn here: bars at any angle, textures, trays; and refused where there is none."""

from __future__ import annotations

import made_parts
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from sapatchcore.defects.foreground import Foreground
from sapatchcore.defects.subject import (
    Subject,
    depth_of,
    describe_piece,
    ground_colour,
    is_chiral,
    long_axis,
    shrunk,
)
from sapatchcore.errors import DataError

Bool = npt.NDArray[np.bool_]


def agreement(subject: Subject, truth: Bool) -> float:
    """Intersection over union of the part that was found and the one that was drawn."""
    height, width = subject.part.shape
    drawn = np.asarray(Image.fromarray(truth).resize((width, height), Image.Resampling.NEAREST))
    return float((subject.part & drawn).sum() / (subject.part | drawn).sum())


@pytest.mark.parametrize("size", [(64, 64), (160, 160), (96, 200), (400, 300)])
def test_a_bar_is_found_at_any_angle_place_and_size(size: tuple[int, int]) -> None:
    made = [made_parts.bar(seed, size) for seed in range(6)]
    foreground = Foreground.of([image for image, _ in made])
    for image, truth in made:
        subject = foreground.find(image)
        assert agreement(subject, truth) > 0.85
        assert (subject.count, subject.carries) == (1, False)
        assert not (subject.calm & subject.part).any()
        assert subject.calm.mean() > 0.5


def test_images_may_differ_in_size() -> None:
    made = [made_parts.bar(seed, size) for seed, size in enumerate([(160, 160), (96, 200), (240, 120)])]
    foreground = Foreground.of([image for image, _ in made])
    assert min(agreement(foreground.find(image), truth) for image, truth in made) > 0.85


@pytest.mark.parametrize("colour", [(226, 206, 60), (200, 200, 200)])
def test_a_shadow_is_no_part(colour: tuple[int, int, int]) -> None:
    made = []
    for seed in range(6):
        y, x = np.mgrid[:160, :160]
        row, column = 80 + np.random.default_rng(seed).integers(-8, 9, 2)
        truth = np.hypot(y - row, x - column) < 30
        shade = 1 - 0.4 * ndimage.gaussian_filter((np.hypot(y - row - 7, x - column - 10) < 30).astype(float), 4)
        scene = np.where(truth[..., None], (120, 70, 60), np.array(colour) * shade[..., None])
        made.append((made_parts.photographed(scene, np.random.default_rng(seed)), truth))
    foreground = Foreground.of([image for image, _ in made])
    assert min(agreement(foreground.find(image), truth) for image, truth in made) > 0.85


def test_a_part_that_fills_most_of_the_image_carries_nothing() -> None:
    y, x = np.mgrid[:160, :160]
    truth = np.hypot(y - 80, x - 80) < 72
    rings = 90 + 40 * np.sin(np.hypot(y - 80, x - 80) / 5)
    scene = np.where(truth[..., None], np.repeat(rings[..., None], 3, -1), 230)
    images = [made_parts.photographed(scene, np.random.default_rng(seed)) for seed in range(6)]
    subject = Foreground.of(images).find(images[0])
    assert agreement(subject, truth) > 0.9
    assert (subject.count, subject.carries) == (1, False)


@pytest.mark.parametrize("draw", [made_parts.mesh, made_parts.casting])
def test_all_of_a_texture_is_the_part(draw: object) -> None:
    assert callable(draw)
    images = [draw(seed) for seed in range(6)]
    foreground = Foreground.of(images)
    assert foreground.flood is None
    assert len(foreground.seen) == 0
    for image in images:
        subject = foreground.find(image)
        assert subject.part.mean() > 0.98
        assert subject.count == 0
        assert not subject.calm.any()


def test_a_mesh_has_lines_and_a_casting_has_none() -> None:
    for draw, expected in ((made_parts.mesh, True), (made_parts.casting, False)):
        images = [draw(seed) for seed in range(4)]
        foreground = Foreground.of(images)
        assert [foreground.find(image).is_ordered for image in images] == [expected] * 4


def test_pieces_of_a_tray_are_found_and_its_walls_are_none() -> None:
    made = [made_parts.tray(seed) for seed in range(6)]
    foreground = Foreground.of([image for image, _ in made])
    assert foreground.aligned
    assert len(foreground.seen) == 6 * len(made_parts.PIECES)
    for image, middles in made:
        subject = foreground.find(image)
        assert (subject.count, subject.carries) == (3, True)
        scale = image.shape[0] / subject.part.shape[0]
        numbers = {
            name: subject.pieces[int(row / scale), int(column / scale)] for name, (row, column) in middles.items()
        }
        assert set(numbers.values()) == {1, 2, 3}
        assert subject.chiral == {numbers["hook"]}
        for name, number in numbers.items():
            x, y, _, *colour = describe_piece(subject, number)
            assert np.hypot(x - middles[name][1] / 256, y - middles[name][0] / 256) < 0.05
            assert np.abs(np.array(colour) - made_parts.PIECES[name]).max() < 30


def test_what_the_border_cuts_is_no_piece_where_others_stand_free() -> None:
    images = []
    for seed in range(6):
        image, _ = made_parts.bar(seed, angle=0.1 * seed)
        image[:10, 40:80] = 60
        images.append(image)
    foreground = Foreground.of(images)
    subject = foreground.find(images[0])
    assert subject.count == 1
    assert not subject.pieces[0].any()


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_a_plain_surface_shows_no_part(noise: float) -> None:
    rng = np.random.default_rng(0)
    plain = [np.clip(128 + noise * rng.standard_normal((160, 160, 3)), 0, 255).astype(np.uint8) for _ in range(4)]
    slope = np.repeat(np.linspace(90, 160, 160).astype(np.uint8)[None, :, None].repeat(160, 0), 3, -1)
    for images in (plain, [slope] * 4):
        with pytest.raises(DataError, match="The good images show no part: nothing in them stands out from one plain"):
            Foreground.of(images)


def test_what_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(DataError, match="There are no good images to make defects on"):
        Foreground.of([])
    small = np.zeros((31, 200, 3), np.uint8)
    sentence = r"An image must have 32 pixels a side or more to make a defect on it\. Got 31×200 \(h×w\)\."
    with pytest.raises(DataError, match=sentence):
        Foreground.of([small])
    with pytest.raises(DataError, match=sentence):
        shrunk(small)


def test_an_image_without_the_part_shows_none() -> None:
    foreground = Foreground.of([made_parts.bar(seed)[0] for seed in range(4)])
    empty = np.full((160, 160, 3), made_parts.GROUND, np.uint8)
    assert not foreground.find(empty).part.any()


def test_the_ground_goes_on_beneath_the_part() -> None:
    small = np.full((20, 20, 3), 80, np.float32)
    calm = np.ones((20, 20), np.bool_)
    small[6:14, 6:14], calm[6:14, 6:14] = 255, False
    assert np.allclose(ground_colour(small, calm), 80, atol=0.01)
    assert np.allclose(ground_colour(small, np.zeros_like(calm)), small.mean((0, 1)))


def test_depth_is_the_way_to_the_edge_and_the_image_is_none() -> None:
    mask = np.zeros((5, 7), np.bool_)
    mask[1:4, 1:6] = True
    assert depth_of(mask)[2].tolist() == [0, 1, 2, 2, 2, 1, 0]
    assert depth_of(np.ones((5, 7), np.bool_)).min() == 7


def test_the_long_axis_and_what_has_one() -> None:
    mask = np.zeros((60, 60), np.bool_)
    mask[28:32, 5:55] = True
    assert long_axis(mask) == (pytest.approx(0, abs=1e-9), True)
    angle, is_long = long_axis(mask.T)
    assert is_long
    assert abs(np.cos(angle)) < 1e-9
    y, x = np.mgrid[:60, :60]
    assert not long_axis(np.hypot(y - 30, x - 30) < 20)[1]


@pytest.mark.parametrize("angle", [0, 30, 77])
def test_a_hook_is_chiral_and_a_bar_a_disc_and_a_t_are_not(angle: int) -> None:
    def turned(mask: Bool) -> Bool:
        return np.asarray(Image.fromarray(mask.astype(np.uint8)).rotate(angle)) > 0

    hook, straight, tee = (np.zeros((80, 80), np.bool_) for _ in range(3))
    hook[20:55, 30:38] = hook[47:55, 30:52] = True
    straight[36:44, 20:60] = True
    tee[20:28, 20:60] = tee[20:60, 36:44] = True
    y, x = np.mgrid[:80, :80]
    found = [is_chiral(turned(mask)) for mask in (hook, straight, tee, np.hypot(y - 40, x - 40) < 15)]
    assert found == [True, False, False, False]
