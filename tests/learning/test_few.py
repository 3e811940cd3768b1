"""Few good images with turned copies: none of them is scored by itself, and all of a detector goes on working."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command import run
from conftest import SMALL, made_images, write_images

from sapatchcore import SAPatchCore, SettingsError
from sapatchcore.data.copies import TURNS, turned_by
from sapatchcore.scale.fit import fit as fit_on_ray
from sapatchcore.score.explain import cell_box

UInt8 = npt.NDArray[np.uint8]
OPTIONS: dict[str, Any] = {**SMALL, "coreset_ratio": 0.1, "augment": "rotate"}
RECOMMENDED: dict[str, Any] = {**SMALL, "preset": "recommended", "coreset_ratio": 0.1}


@pytest.fixture
def three(tmp_path: Path, good: UInt8) -> SAPatchCore:
    """A detector that learned three files with their copies."""
    return SAPatchCore(**OPTIONS, global_part="pooled").fit(write_images(tmp_path / "three", good[:3]))


def test_what_lies_another_way_round_is_known(good: UInt8) -> None:
    way = turned_by(good[0], 450)
    plain = SAPatchCore(**{**OPTIONS, "coreset_ratio": 1, "augment": "none"}).fit(good[:2])
    known = SAPatchCore(**{**OPTIONS, "coreset_ratio": 1}).fit(good[:2])
    assert plain.predict(way).scores[0] > 0.01
    assert known.predict(way).scores[0] < 1e-4


def test_no_image_is_scored_by_itself_or_its_copies() -> None:
    """Every image is one colour, and so are its copies: scored by these, it would score 0."""
    images = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (40, 90, 140, 190, 240, 15)])
    detector = SAPatchCore(**OPTIONS, global_part="pooled").fit(images)
    calibration = detector.calibration
    assert calibration.images.tolist() == [0, 8, 16, 24, 32, 40]  # images as they came alone are scored
    assert calibration.names == tuple(f"image {number}" for number in range(6))
    assert calibration.largest is not None
    assert calibration.global_scores is not None
    assert calibration.largest.min() > 0.01
    assert calibration.global_scores.min() > 0.01
    fold = np.arange(48) // 8 % 5
    own = fold[calibration.images][:, None, None] == fold[calibration.rows]
    assert not own.any()  # nor by one of its fold


def test_the_scores_are_those_of_the_other_images(good: UInt8) -> None:
    """With all patches kept, an image's score is that by a bank of the others."""
    options = {**OPTIONS, "coreset_ratio": 1}
    scores = SAPatchCore(**options).fit(good[:3]).calibration.scores
    for number in range(3):
        others = SAPatchCore(**options).fit(np.delete(good[:3], number, 0))
        np.testing.assert_allclose(others.predict(good[number]).scores[0], scores[number], rtol=1e-5)


def test_one_image_promises_nothing(tmp_path: Path, good: UInt8, capsys: pytest.CaptureFixture[str]) -> None:
    folder, model = write_images(tmp_path / "one", good[:1]), tmp_path / "one.safetensors"
    flags = [part for name, value in RECOMMENDED.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert run("fit", folder, "-o", model, *flags, "--augment", "rotate") == 0
    said = capsys.readouterr().out
    assert "learned from 1 image and 7 turned copies of them" in said
    assert "No calibration: one image alone cannot be scored by others." in said
    assert "Too few images" not in said  # the copies show how the image as a whole differs
    assert run("predict", model, folder) == 0
    assert run("info", model) == 0
    assert "turned_copies        7" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2])
def test_the_preset_takes_fewer_images_than_its_global_part(
    count: int, tmp_path: Path, good: UInt8, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = write_images(tmp_path / "few", good[:count]), tmp_path / "few.safetensors"
    flags = [part for name, value in RECOMMENDED.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert run("fit", folder, "-o", model, *flags) == 0
    assert "Too few images to know how good ones differ as a whole" in capsys.readouterr().out
    detector = SAPatchCore.load(model)
    assert detector.settings.global_part == "none"
    assert detector.predict(good[:1]).global_scores is None
    assert detector.is_calibrated == (count > 1)
    assert SAPatchCore(**RECOMMENDED).fit(iter(good[:3])).settings.global_part == "pooled"


def test_quarter_turns_are_left_out_of_longer_images() -> None:
    options = {**OPTIONS, "keep_aspect": True}
    detector = SAPatchCore(**options).fit(made_images(2, (64, 96)))
    assert detector.turns == 2 * ("", "turned by 180°", "mirrored", "mirrored and turned by 180°")


def test_the_file_has_the_copies(three: SAPatchCore, good: UInt8, tmp_path: Path) -> None:
    three.save(tmp_path / "three.safetensors")
    again = SAPatchCore.load(tmp_path / "three.safetensors")
    assert again.turns == three.turns
    assert [turn == "" for turn in again.turns] == 3 * ([True] + 7 * [False])
    names = again.provenance[0]
    assert all(names[8 * number : 8 * number + 8] == 8 * (names[8 * number],) for number in range(3))
    np.testing.assert_array_equal(again.predict(good[:2]).scores, three.predict(good[:2]).scores)
    np.testing.assert_array_equal(again.calibration.scores, three.calibration.scores)


def test_update_adds_copies(three: SAPatchCore, tmp_path: Path, good: UInt8) -> None:
    before = three.predict(good[3:5]).scores
    three.update(write_images(tmp_path / "more", good[3:5]))
    assert len(three.turns) == 40
    assert three.calibration.images.tolist() == [0, 8, 16, 24, 32]
    assert [Path(name).name for name in three.calibration.names] == ["00.png", "01.png", "02.png", "00.png", "01.png"]
    # New images join with the scores that the bank of before gave their patches.
    again = SAPatchCore(**OPTIONS, global_part="pooled").fit(tmp_path / "three").predict(good[3:5])
    np.testing.assert_array_equal(before, again.scores)
    np.testing.assert_allclose(three.calibration.largest[3:], np.hypot(again.local_scores, again.context_scores))
    away = turned_by(good[3], 90)
    assert three.predict(away).scores[0] < SAPatchCore(**OPTIONS).fit(good[:3]).predict(away).scores[0]


def test_forgetting_an_image_forgets_its_copies(three: SAPatchCore, tmp_path: Path) -> None:
    files = sorted((tmp_path / "three").iterdir())
    three.forget(files[1])
    assert set(three.provenance[0]) == {str(files[0]), str(files[2])}
    assert three.turns == 2 * ("", *three.turns[1:8])
    assert three.provenance[1].max() < 16
    calibration = three.calibration
    assert calibration.images.tolist() == [0, 8]
    assert three.bank.global_part is not None
    assert len(three.bank.global_part.rows) == 16
    # The files are at hand: every score is by the rows that are left and not its own.
    for index, number in enumerate(calibration.images.tolist()):
        own = three.bank.groups == number
        others = three.bank.rows[~own]
        patches = three.embed(files[0] if number == 0 else files[2]).reshape(-1, others.shape[1])
        nearest = np.linalg.norm(patches[:, None] - others.numpy()[None], axis=2).min(1)
        assert calibration.largest is not None
        np.testing.assert_allclose(calibration.largest[index], nearest.max(), rtol=1e-4)


def test_an_explanation_names_the_image_and_the_turn(good: UInt8) -> None:
    detector = SAPatchCore(**OPTIONS).fit(good[:3])
    found = detector.explain(turned_by(good[1], 90), false_reject=0.25)[0].causes[0].good
    rows, numbers, cells = detector.provenance
    seen = set()
    for row, number in enumerate(numbers.tolist()):
        image = detector.bank.training[number]
        from sapatchcore.score.explain import good_patch

        patch = good_patch(detector.bank, row, detector.settings)
        assert patch.image == rows[number] == f"image {number // 8}"
        assert (patch.turned == "") == (number % 8 == 0)
        # The patch of the copy, turned back, lies in the box of the image.
        marked = np.zeros((8, 8), np.uint8)
        marked[divmod(int(cells[row]), 8)] = 1
        back = {0: 0, 90: 270, 180: 180, 270: 90}.get(image.turn, image.turn)  # mirrored ones are their own inverse
        cell: Any = np.unravel_index(int(turned_by(marked, back).argmax()), (8, 8))
        assert patch.box == cell_box((int(cell[0]), int(cell[1])), (8, 8), (64, 64), (64, 64), None)
        seen.add(image.turn)
    assert found.image in rows
    assert len(seen) > 4


def test_networks_together(good: UInt8, tmp_path: Path) -> None:
    pair = {**OPTIONS, "backbone": "test_resnet+test_efficientnet"}
    detector = SAPatchCore(**pair).fit(good[:3])
    detector.save(tmp_path / "pair.safetensors")
    again = SAPatchCore.load(tmp_path / "pair.safetensors")
    assert len(again.turns) == 24
    assert len(again.calibration) == 3
    np.testing.assert_array_equal(again.predict(good[:2]).scores, detector.predict(good[:2]).scores)
    assert len(again.forget("image 1").turns) == 16


def test_fit_on_ray_takes_no_copies(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="`augment` rotate is for few images"):
        fit_on_ray("good", tmp_path / "x.safetensors", OPTIONS, address="local")


def test_a_copy_without_its_image_is_no_model(three: SAPatchCore) -> None:
    from sapatchcore.memory.training import TrainingImages

    packed = TrainingImages.of(three.bank.training)
    packed.check()
    assert packed.turns is not None
    for turns in (packed.turns[::-1], np.full(24, 45, np.int32), packed.turns[:-1]):
        with pytest.raises(ValueError, match="turns of the shape"):
            TrainingImages(packed.names, packed.sizes, packed.thumbnails, packed.appearance, turns).check()
    assert TURNS[-1] == packed.turns.max()
