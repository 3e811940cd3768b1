"""update and forget end to end: what the bank promises, what scores of good images are kept, and nothing half done."""

from __future__ import annotations

import copy
import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checks
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import write_images
from scipy.spatial.distance import cdist

from sapatchcore import DataError, ModelFileError, NotFittedError, SAPatchCore
from sapatchcore.memory.bank import Bank
from sapatchcore.score.calibration import Calibration

UInt8 = npt.NDArray[np.uint8]


@pytest.fixture
def half(good: UInt8, small: dict[str, Any]) -> SAPatchCore:
    """A detector that learned the first five of ``good``, as arrays."""
    return SAPatchCore(**small, coreset_ratio=0.1).fit(good[:5])


@pytest.fixture
def from_files(image_folder: Path, small: dict[str, Any]) -> SAPatchCore:
    """A detector that learned all files of ``image_folder``."""
    return SAPatchCore(**small, coreset_ratio=0.1).fit(image_folder)


@pytest.fixture
def more_files(tmp_path: Path, images: Callable[..., UInt8]) -> list[Path]:
    """Five more textures as files, in a folder of their own."""
    return sorted(write_images(tmp_path / "more", images(5, seed=1)).iterdir())


def bank_of(detector: SAPatchCore) -> Bank:
    assert detector._bank is not None
    return detector._bank


def state(detector: SAPatchCore) -> dict[str, Any]:
    """All that a detector has learned, to the bit."""
    bank = bank_of(detector)
    found: dict[str, Any] = {"training": bank.training, "radius": (bank.radius, bank.loosened), "grid": bank.grid}
    for name in ("rows", "images", "cells"):
        found[name] = getattr(bank, name).numpy().tobytes()
    calibration = detector._calibration
    for field in dataclasses.fields(Calibration) if calibration is not None else ():
        value = getattr(calibration, field.name)
        found["calibration " + field.name] = value.tobytes() if isinstance(value, np.ndarray) else value
    return found


def scored_alone(detector: SAPatchCore, images: Any) -> list[float]:
    """The score of each training image against the bank without its own rows, by a bank that never had them."""
    bank, found = bank_of(detector), []
    for number, image in enumerate(images):
        other = copy.copy(detector)
        keep = bank.images != number
        other._bank = dataclasses.replace(bank, rows=bank.rows[keep], images=bank.images[keep], cells=bank.cells[keep])
        found.append(float(other.predict(image).scores[0]))
    return found


def reach(detector: SAPatchCore, images: UInt8) -> float:
    """The largest distance from one of the images' patches to the bank, in float64, in the projection of the choice."""
    rows, dimensions = detector.embed(images), detector.settings.projection
    one, other = (torch.from_numpy(part) for part in (rows.reshape(-1, rows.shape[3]), detector.memory_bank.copy()))
    return float(cdist(checks.projected(one, dimensions), checks.projected(other, dimensions)).min(1).max())


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="SA-PatchCore"),
        pytest.param({"attention": "none", "projection": None}, id="PatchCore"),
        pytest.param({"crop": (48, 56), "batch_size": 3}, id="cropped"),
        pytest.param({"coreset_ratio": 0.9}, id="a bank as large as a fold's patches"),
        pytest.param({"image_score": "reweighted"}, id="reweighted"),
        pytest.param(
            {"metric": "whitened", "context_weight": 2, "coreset_ratio": 0.9}, id="whitened by the others alone"
        ),
    ],
)
def test_fit_scores_every_training_image_by_a_bank_of_the_other_folds(
    options: dict[str, Any], good: UInt8, small: dict[str, Any]
) -> None:
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.1, **options}).fit(good)
    checks.check_cross_fitted(detector, good)
    assert detector.calibration.source == "cross-fitted"
    assert detector.calibration.names == detector.provenance[0]
    np.testing.assert_array_equal(detector.calibration.images, np.arange(10))
    assert detector.covering_radius == pytest.approx(reach(detector, good), abs=1e-4)


def test_fewer_images_than_folds(good: UInt8, small: dict[str, Any]) -> None:
    """Each then is a fold of its own."""
    detector = SAPatchCore(**small, coreset_ratio=0.2).fit(good[:3])
    checks.check_cross_fitted(detector, good[:3])


def test_earlier_versions_scores_are_without_the_own_rows(good: UInt8, small: dict[str, Any]) -> None:
    detector = checks.left_out(SAPatchCore(**small, coreset_ratio=0.1).fit(good), good)
    checks.check_left_out(detector, good)
    reweighted = SAPatchCore(**small, coreset_ratio=0.1, image_score="reweighted").fit(good)
    scores = checks.left_out(reweighted, good).calibration.scores
    np.testing.assert_allclose(scores, scored_alone(reweighted, good), rtol=1e-3)


@pytest.mark.parametrize(("learned", "ratio"), [(2, 0.07), (4, 0.05)])
def test_batches_do_not_show_in_a_small_bank_s_calibration(
    learned: int, ratio: float, good: UInt8, small: dict[str, Any]
) -> None:
    """8 and 12 rows: without the own ones, one image has fewer than the nine neighbours, and another has more of them."""
    options = {**small, "coreset_ratio": ratio, "image_score": "reweighted"}
    one, other = (SAPatchCore(**{**options, "batch_size": size}).fit(good[:learned]).calibration for size in (1, 10))
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3)


def test_pictures_are_kept_of_the_images_with_rows(good: UInt8, small: dict[str, Any]) -> None:
    bank = bank_of(SAPatchCore(**small, coreset_ratio=0.01).fit(good))
    with_rows = set(bank.images.tolist())
    assert 0 < len(with_rows) < 10
    assert {i for i, image in enumerate(bank.training) if image.thumbnail} == with_rows


def test_all_that_was_ever_learned_lies_within_the_radius(half: SAPatchCore, good: UInt8, images: Callable) -> None:
    radius, before = bank_of(half).radius, half.memory_bank.copy()
    new = np.concatenate((good[5:], images(3, seed=5), 255 - good[:2]))
    half.update(new)
    assert bank_of(half).radius == radius
    assert reach(half, good[:5]) <= radius + 1e-4
    assert reach(half, new) <= radius + 1e-4
    np.testing.assert_array_equal(half.memory_bank[: len(before)], before)
    assert len(half.memory_bank) > len(before), "what is upside down is new"
    names, owners, cells = half.provenance
    assert names == tuple(f"image {i}" for i in range(15))
    rows = half.embed(np.concatenate((good[:5], new))).reshape(15, 64, -1)[owners, cells]
    np.testing.assert_allclose(half.memory_bank, rows, rtol=1e-4, atol=1e-5)


def test_two_halves_score_as_all_at_once_within_the_radii(good: UInt8, images: Callable, small: dict[str, Any]) -> None:
    """A patch score lies between the distance to all that was learned and that plus the radius, for either bank."""
    test = np.concatenate((good[:2], images(4, seed=3)))
    options = {**small, "coreset_ratio": 0.1, "projection": None}  # so that the radius is of the patches themselves
    half, whole = SAPatchCore(**options).fit(good[:5]).update(good[5:]), SAPatchCore(**options).fit(good)
    every = whole.embed(good).reshape(640, -1).astype(np.float64)
    nearest = cdist(whole.embed(test).reshape(-1, every.shape[1]).astype(np.float64), every).min(1).reshape(6, 8, 8)
    scores = []
    for detector in (half, whole):
        result = detector.predict(test)
        assert (result.patch_scores >= nearest - 1e-3).all()
        assert (result.patch_scores <= nearest + detector.covering_radius + 1e-3).all()
        scores.append(result.scores)
    radius = max(half.covering_radius, whole.covering_radius)
    # Close in fact, too: far closer than the radii promise.
    np.testing.assert_allclose(*scores, rtol=0, atol=0.3 * radius)


def test_one_at_a_time_adds_no_more_than_what_is_new(half: SAPatchCore, good: UInt8) -> None:
    half.update(good[5:])
    rows = len(half.memory_bank)
    half.update(good[7])
    assert len(half.memory_bank) <= rows + 1, "it was learned; at most a patch on the radius itself is rounded up"
    assert half.provenance[0][-1] == "image 10"


def test_everything_is_kept_where_everything_was_kept(good: UInt8, small: dict[str, Any]) -> None:
    """A covering radius of 0: all patches of a new image join."""
    detector = SAPatchCore(**small, coreset_ratio=1).fit(good[:4])
    assert bank_of(detector).radius == 0
    detector.update(good[4:6])
    assert len(detector.memory_bank) == 6 * 64
    assert reach(detector, good[4:6]) == pytest.approx(0, abs=1e-4)


def test_what_is_like_new_good_images_scores_lower(half: SAPatchCore, good: UInt8) -> None:
    """Six of them are learned; the other four then score lower, and none higher."""
    upside_down = 255 - good
    before = half.predict(upside_down[6:]).scores
    half.update(upside_down[:6])
    after = half.predict(upside_down[6:]).scores
    assert (after <= before + 1e-4).all()
    assert np.median(after) < 0.95 * np.median(before)


def test_pictures_are_kept_of_new_images_with_rows(small: dict[str, Any], good: UInt8) -> None:
    """As of those that were learned first: the model file holds no picture that no explanation shows."""
    detector = SAPatchCore(**small, coreset_ratio=0.01).fit(good)
    noise = np.random.default_rng(0).integers(0, 256, good[0].shape, dtype=np.uint8)
    detector.update([*good[:2], noise])
    bank = bank_of(detector)
    with_rows = set(bank.images.tolist())
    assert 12 in with_rows
    assert 10 not in with_rows
    assert {i for i, image in enumerate(bank.training) if image.thumbnail} == with_rows


@pytest.mark.parametrize("source", ["cross-fitted", "left out"])
def test_old_scores_stay_and_new_images_have_those_of_the_bank_before(
    source: str, half: SAPatchCore, good: UInt8, images: Callable
) -> None:
    if source == "left out":
        checks.left_out(half, good[:5])
    before = half.calibration
    new = np.concatenate((good[5:], images(2, seed=8)))
    expected, owners = half.predict(new), half.provenance[1]
    half.update(new)
    after = half.calibration
    assert (before.source, after.source) == (source, source)
    assert after.names == half.provenance[0]
    np.testing.assert_array_equal(after.images, np.arange(12))
    for name in ("scores", "local", "context", "peaks", "grids", "rows"):
        np.testing.assert_array_equal(getattr(after, name)[:5], getattr(before, name), err_msg=name)
    np.testing.assert_allclose(after.scores[5:], expected.scores, rtol=1e-5)
    np.testing.assert_allclose(after.grids[5:], expected.patch_scores, rtol=1e-5)
    np.testing.assert_allclose(after.local[5:], expected.local_patches.max((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(after.peaks[5:], [one.max() for one in expected.maps], rtol=1e-5)
    rows = expected.neighbours
    np.testing.assert_array_equal(after.rows[5:], owners[rows] if source == "cross-fitted" else rows)


@pytest.mark.parametrize("seed", range(3))
def test_no_accepted_good_image_is_rejected_after_update(seed: int, images: Callable, small: dict[str, Any]) -> None:
    """Scores only fall as the bank grows, and no threshold falls with what was learned."""
    learned, more, other = (images(count, seed=100 * seed + count) for count in (12, 5, 40))
    detector = SAPatchCore(**small, coreset_ratio=0.05).fit(learned)
    rates = (1 / 13, 0.1, 0.2)  # of 12 images and of 17 the same places from the top: the first, the first, the second
    before, limits = detector.predict(other).scores, [detector.threshold(rate) for rate in rates[:1]]
    accepted = before <= limits[0]
    detector.update(more)
    after = detector.predict(other).scores
    assert (after <= before * (1 + 1e-5)).all()
    assert detector.threshold(rates[0]) >= limits[0]
    assert not (after[accepted] > detector.threshold(rates[0])).any()


def test_files_of_before_are_not_looked_for(
    from_files: SAPatchCore, image_folder: Path, more_files: list[Path]
) -> None:
    """Nothing of before is read, and its scores stay as they were."""
    before = from_files.calibration
    for file in image_folder.iterdir():
        file.write_bytes(b"no image")
    from_files.update(more_files)
    after = from_files.calibration
    assert len(after) == 15
    for name in ("scores", "local", "context", "peaks", "grids", "rows"):
        np.testing.assert_array_equal(getattr(after, name)[:10], getattr(before, name), err_msg=name)


def test_separate_images_files_are_looked_for_where_wanted(
    good: UInt8, more_files: list[Path], small: dict[str, Any]
) -> None:
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good[:3], calibrate=more_files)
    before = detector.calibration
    detector.update(good[3:4], rescore=False)
    np.testing.assert_array_equal(detector.calibration.scores, before.scores)
    calls: list[tuple[str, int, int | None]] = []
    detector.update(255 - good[4:6], progress=lambda *call: calls.append(call))
    np.testing.assert_allclose(detector.calibration.scores, detector.predict(more_files).scores, rtol=1e-5)
    assert [call for call in calls if call[0] == "calibrate"] == [("calibrate", 4, 5), ("calibrate", 5, 5)]
    more_files[0].write_bytes(b"no image")
    kept = state(detector)
    with pytest.raises(DataError, match=r"00\.png"):
        detector.update(good[6:7])
    assert state(detector) == kept


def test_images_after_a_single_one_are_calibrated(good: UInt8, small: dict[str, Any]) -> None:
    """One image makes no folds; the new ones are scored by the bank that it made."""
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good[0])
    assert not detector.is_calibrated
    new = np.concatenate((255 - good[:1], good[1:3]))
    expected = detector.predict(new).scores
    detector.update(new)
    assert detector.calibration.names == ("image 1", "image 2", "image 3")
    np.testing.assert_allclose(detector.calibration.scores, expected, rtol=1e-5)


def test_separate_images_stay_the_measure(good: UInt8, images: Callable, small: dict[str, Any]) -> None:
    detector = SAPatchCore(**small, coreset_ratio=0.1).fit(good[:5], calibrate=images(4, seed=2))
    calibration = detector.calibration
    assert (calibration.source, calibration.names) == ("separate", tuple(f"image {i}" for i in range(4)))
    assert calibration.images.tolist() == [-1] * 4
    np.testing.assert_allclose(calibration.scores, detector.predict(images(4, seed=2)).scores, rtol=1e-5)
    detector.update(good[5:])
    assert detector.calibration is calibration
    assert (detector.predict(images(4, seed=2)).scores <= calibration.scores + 1e-4).all()
    detector.update(255 - good[:1], calibrate=images(3, seed=4))
    assert len(detector.calibration) == 3
    np.testing.assert_array_equal(detector.calibration.scores, detector.predict(images(3, seed=4)).scores)
    assert detector.calibration.source == "separate"


def test_separate_images_may_take_the_place_of_those_left_out(half: SAPatchCore, good: UInt8, images: Callable) -> None:
    half.update(good[5:], calibrate=images(3, seed=4))
    assert (half.calibration.source, len(half.calibration)) == ("separate", 3)
    np.testing.assert_array_equal(half.calibration.scores, half.predict(images(3, seed=4)).scores)


def test_progress_of_update(half: SAPatchCore, good: UInt8) -> None:
    calls: list[tuple[str, int, int | None]] = []
    half.update(good[5:], progress=lambda *call: calls.append(call))
    assert calls == [("embed", 4, 5), ("embed", 5, 5)]


@pytest.mark.parametrize("place", [0, 3, 5])  # in the first batch, at its end, in the second
def test_known_images_are_refused_and_nothing_changes(
    place: int, from_files: SAPatchCore, image_folder: Path, more_files: list[Path]
) -> None:
    before = state(from_files)
    learned = image_folder / "04.png"
    with pytest.raises(DataError) as caught:
        from_files.update([*more_files[:place], learned, *more_files[place:]])
    assert str(caught.value) == f"{learned} was learned from already. Leave it out, or forget it first."
    assert state(from_files) == before
    from_files.forget(learned)
    from_files.update([learned])
    assert from_files.provenance[0][-1] == str(learned)


@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("broken", ["no image", "missing", "calibration"])
def test_an_image_that_cannot_be_read_changes_nothing(
    place: int, broken: str, from_files: SAPatchCore, more_files: list[Path], tmp_path: Path
) -> None:
    before = state(from_files)
    bad = tmp_path / "bad.png"
    if broken != "missing":
        bad.write_bytes(b"no image")
    given = [*more_files[:place], bad, *more_files[place:]]
    learned, separate = (more_files, given) if broken == "calibration" else (given, None)
    with pytest.raises(DataError, match=r"bad\.png"):
        from_files.update(learned, calibrate=separate)
    assert state(from_files) == before
    from_files.update(more_files)
    assert len(from_files.provenance[0]) == 15


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 64, 64, 3), np.uint8), iter(())])
def test_nothing_to_learn_from(images: Any, half: SAPatchCore) -> None:
    before = state(half)
    with pytest.raises(DataError, match=r"^No image to learn from was given\. Give at least one good image\.$"):
        half.update(images)
    assert state(half) == before


def test_not_fitted(small: dict[str, Any], good: UInt8) -> None:
    for use in (lambda one: one.update(good), lambda one: one.forget("image 0"), lambda one: one.calibrate(good)):
        with pytest.raises(NotFittedError, match="has learned nothing yet"):
            use(SAPatchCore(**small))


def test_arrays_get_the_names_that_follow(half: SAPatchCore, good: UInt8, image_folder: Path) -> None:
    half.update(good[5:7])
    half.update([image_folder / "07.png", good[8]])
    expected = [f"image {i}" for i in range(7)] + [str(image_folder / "07.png"), "image 8"]
    assert half.provenance[0] == half.calibration.names == tuple(expected)


@pytest.mark.parametrize("forgotten", ["image 1", "image 4"])
def test_arrays_can_be_learned_after_one_was_forgotten(forgotten: str, half: SAPatchCore, good: UInt8) -> None:
    """Their names must not be those of others that are still known."""
    half.forget(forgotten)
    half.update(good[5:8])
    names = half.provenance[0]
    assert len(names) == len(set(names)) == 7


@pytest.mark.parametrize("number", [0, 4, 9])
def test_with_files_at_hand_scores_are_exact(
    number: int, from_files: SAPatchCore, image_folder: Path, good: UInt8
) -> None:
    """As if the image had never been there, and only its rows were missing."""
    checks.left_out(from_files, good)
    before, names = bank_of(from_files), list(from_files.provenance[0])
    assert (before.images == number).any(), "make other images"
    from_files.forget(image_folder / f"{number:02}.png")
    others = np.delete(good, number, axis=0)
    del names[number]
    assert from_files.provenance[0] == from_files.calibration.names == tuple(names)
    np.testing.assert_array_equal(from_files.calibration.images, np.arange(9))
    checks.check_left_out(from_files, others)
    after = bank_of(from_files)
    assert len(after.rows) == int((before.images != number).sum())
    assert reach(from_files, others) <= after.radius + after.loosened + 1e-4


@pytest.mark.parametrize("at_hand", [True, False])
def test_cross_fitted_scores_after_forget(
    at_hand: bool, from_files: SAPatchCore, image_folder: Path, good: UInt8
) -> None:
    """What was not measured from the forgotten image stays to the bit. The rest: without its own rows, where its file is at
    hand; else raised by the radius within which every patch that was ever learned has a row."""
    number, before = 3, from_files.calibration
    if not at_hand:
        for file in image_folder.iterdir():
            file.unlink()
    from_files.forget(image_folder / f"{number:02}.png")
    after, rest = from_files.calibration, np.delete(np.arange(10), number)
    assert (after.source, after.names) == ("cross-fitted", from_files.provenance[0])
    np.testing.assert_array_equal(after.images, np.arange(9))
    touched = before.rows[rest] == number  # (9, h, w)
    grew = touched.any((1, 2))
    assert grew.any()
    assert not grew.all()
    for name in ("scores", "local", "context", "peaks", "grids"):
        np.testing.assert_array_equal(getattr(after, name)[~grew], getattr(before, name)[rest][~grew], err_msg=name)
    if at_hand:
        exact = checks.left_out_grids(from_files, good[rest])
        np.testing.assert_allclose(after.grids[grew], exact[grew], rtol=0, atol=1e-4 * exact.max())
    else:
        raised = from_files.covering_radius * touched[grew]
        np.testing.assert_allclose(after.grids[grew], before.grids[rest][grew] + raised, rtol=1e-6)
        np.testing.assert_array_equal(after.scores[grew], after.grids[grew].max((1, 2)))
        assert (after.peaks[grew] > before.peaks[rest][grew]).all()
    assert after.rows.max() < 9
    new = np.where(before.rows > number, before.rows - 1, before.rows)[rest]
    np.testing.assert_array_equal(after.rows[~grew], new[~grew])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_without_files_scores_are_upper_bounds(rounds: int, good: UInt8, small: dict[str, Any]) -> None:
    """Images that were not measured from its rows keep their scores to the bit."""
    detector, numbers = checks.left_out(SAPatchCore(**small, coreset_ratio=0.1).fit(good), good), list(range(10))
    for number in (3, 0, 8)[:rounds]:
        before, bank = detector.calibration, bank_of(detector)
        place = numbers.index(number)
        detector.forget(f"image {number}")
        numbers.remove(number)
        after = detector.calibration
        assert after.names == detector.provenance[0] == tuple(f"image {i}" for i in numbers)
        np.testing.assert_array_equal(after.images, np.arange(len(numbers)))
        rest = [i for i in range(len(before)) if i != place]
        touched = np.array([bool((bank.images[before.rows[i].ravel()] == place).any()) for i in rest])
        assert touched.any()
        kept = [i for i, was in zip(rest, touched, strict=True) if not was]
        for name in ("scores", "local", "context", "peaks", "grids"):
            found = getattr(after, name)
            np.testing.assert_array_equal(found[~touched], getattr(before, name)[kept], err_msg=name)
            assert (found >= getattr(before, name)[rest] * (1 - 1e-6)).all(), name
    exact = checks.left_out_grids(detector, good[numbers])
    tolerance = 1e-4 * exact.max()
    assert (after.grids >= exact - tolerance).all()
    assert (after.scores >= exact.max((1, 2)) - tolerance).all()
    own = bank_of(detector).images[after.rows.reshape(len(numbers), -1)].numpy()
    assert not (own == np.arange(len(numbers))[:, None]).any(), "no image is measured from its own rows"
    # The map's largest value is of the raised patch scores, and so no smaller than that of the exact ones.
    calibration = dataclasses.replace(after, grids=exact.astype(np.float32))
    result = dataclasses.replace(detector.predict(good[numbers]), patch_scores=calibration.grids)
    assert (after.peaks >= np.array([values.max() for values in result.maps]) - tolerance).all()


@pytest.mark.parametrize("image_score", ["max", "reweighted"])
@pytest.mark.parametrize("number", [0, 2, 6])
def test_kept_scores_are_upper_bounds_after_forget(
    image_score: str, number: int, images: Callable, small: dict[str, Any]
) -> None:
    textures = images(8, seed=0)
    detector = SAPatchCore(**small, coreset_ratio=0.05, image_score=image_score).fit(textures)
    checks.left_out(detector, textures).forget(f"image {number}")
    exact = np.array(scored_alone(detector, np.delete(textures, number, axis=0)))
    assert (detector.calibration.scores >= exact - 1e-4).all()


def test_verdicts_of_good_images_stay_on_the_careful_side(good: UInt8, images: Callable, small: dict[str, Any]) -> None:
    """With raised scores no image is rejected that exact ones would accept."""
    detector = checks.left_out(SAPatchCore(**small, coreset_ratio=0.1).fit(good), good)
    detector.forget("image 4")
    exact = checks.left_out_grids(detector, np.delete(good, 4, axis=0)).max((1, 2))
    test = images(8, seed=3)
    result = detector.predict(test)
    for one in result.verdicts(0.2):
        if one.rejected:
            assert one.score > sorted(exact)[-2] - 1e-4


def test_twins_are_bounded_without_each_other(good: UInt8, small: dict[str, Any]) -> None:
    """Each lay at 0 from the other; without it, nothing that is multiplied grows from 0."""
    twins = [good[0], good[0], good[1]]
    detector = checks.left_out(SAPatchCore(**small, coreset_ratio=1).fit(twins), twins)
    assert detector.calibration.scores[:2].max() < 1e-3
    detector.forget("image 0")
    exact = checks.left_out_grids(detector, good[:2])
    assert (detector.calibration.grids >= exact - 1e-3).all()
    assert (detector.calibration.scores >= exact.max((1, 2)) - 1e-3).all()


def test_an_image_without_rows_is_forgotten(good: UInt8, small: dict[str, Any]) -> None:
    detector = checks.left_out(SAPatchCore(**small, coreset_ratio=0.01).fit(good), good)
    before, calibration = bank_of(detector), detector.calibration
    number = min(set(range(10)) - set(before.images.tolist()))
    detector.forget(f"image {number}")
    np.testing.assert_array_equal(detector.memory_bank, before.rows.numpy())
    assert bank_of(detector).loosened == 0
    rest = np.delete(np.arange(10), number)
    for name in ("scores", "local", "context", "peaks", "grids", "rows"):
        np.testing.assert_array_equal(
            getattr(detector.calibration, name), getattr(calibration, name)[rest], err_msg=name
        )
    names, owners, cells = detector.provenance
    rows = detector.embed(good[rest]).reshape(9, 64, -1)[owners, cells]
    np.testing.assert_allclose(rows, detector.memory_bank, rtol=1e-4, atol=1e-5)
    assert names == tuple(f"image {i}" for i in rest)


def test_the_last_image_of_the_list_is_forgotten(from_files: SAPatchCore, image_folder: Path, good: UInt8) -> None:
    checks.left_out(from_files, good).forget(str(image_folder / "09.png"))
    assert len(from_files.provenance[0]) == 9
    checks.check_left_out(from_files, good[:9])


def test_down_to_one_image(from_files: SAPatchCore, image_folder: Path, good: UInt8) -> None:
    """Two images have each other; one has none, and leaves no calibration; the last cannot be forgotten."""
    checks.left_out(from_files, good)
    for number in range(8):
        from_files.forget(image_folder / f"{number:02}.png")
    checks.check_left_out(from_files, good[8:])
    assert len(from_files.calibration) == 2
    from_files.forget(image_folder / "08.png")
    assert not from_files.is_calibrated
    assert from_files.predict(good[:2]).calibration is None
    before = state(from_files)
    last = image_folder / "09.png"
    message = r"^All \d+ patches of the memory bank come from .*09\.png: without it nothing is known\."
    with pytest.raises(DataError, match=message):
        from_files.forget(last)
    assert state(from_files) == before
    assert (from_files.predict(good[9:]).scores < from_files.predict(255 - good[:1]).scores).all()
    from_files.update([image_folder / "00.png", image_folder / "01.png"])
    assert from_files.is_calibrated


def test_unknown_names(half: SAPatchCore) -> None:
    before = state(half)
    for name in ("image 5", "other.png", ""):
        with pytest.raises(DataError) as caught:
            half.forget(name)
        assert str(caught.value) == (
            f"{name} is not among the 5 images that were learned from. Name it as it was then, for example image 0."
        )
    assert state(half) == before


def test_a_calibration_file_that_became_unreadable_changes_nothing(from_files: SAPatchCore, image_folder: Path) -> None:
    before = state(from_files)
    for number in range(1, 10):
        (image_folder / f"{number:02}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"\d\d\.png"):
        from_files.forget(image_folder / "00.png")
    assert state(from_files) == before


def test_some_files_at_hand(from_files: SAPatchCore, image_folder: Path, good: UInt8) -> None:
    """Those are exact, the others bounds."""
    checks.left_out(from_files, good)
    gone = {1, 2, 3}
    for number in gone:
        (image_folder / f"{number:02}.png").unlink()
    calls: list[tuple[str, int, int | None]] = []
    from_files.forget(image_folder / "04.png", progress=lambda *call: calls.append(call))
    rest = [i for i in range(10) if i != 4]
    exact = checks.left_out_grids(from_files, good[rest])
    tolerance = 1e-4 * exact.max()
    for i, number in enumerate(rest):
        grid = from_files.calibration.grids[i]
        assert (grid >= exact[i] - tolerance).all()
        if number not in gone:
            np.testing.assert_allclose(grid, exact[i], rtol=0, atol=tolerance)
    assert {call[0] for call in calls} == {"calibrate"}
    assert calls[-1][1] == calls[-1][2]


@pytest.mark.parametrize("image_score", ["max", "reweighted"])
@pytest.mark.parametrize("learned", [3, 2])
def test_separate_images_are_scored_anew(
    image_score: str, learned: int, good: UInt8, more_files: list[Path], small: dict[str, Any]
) -> None:
    """Images that were not learned from have no own rows: they are compared with all that are left."""
    detector = SAPatchCore(**small, coreset_ratio=0.1, image_score=image_score)
    detector.fit(good[:learned], calibrate=more_files).forget("image 0")
    calibration = detector.calibration
    assert (calibration.source, len(calibration)) == ("separate", 5)
    result = detector.predict(more_files)
    np.testing.assert_allclose(calibration.scores, result.scores, rtol=1e-4)
    np.testing.assert_allclose(calibration.grids, result.patch_scores, rtol=0, atol=1e-4 * calibration.grids.max())


def test_forget_and_learn_again(from_files: SAPatchCore, image_folder: Path, good: UInt8) -> None:
    """The promises hold through any order of both."""
    checks.left_out(from_files, good)
    for name in ("03.png", "07.png"):
        from_files.forget(image_folder / name)
    from_files.update([image_folder / "03.png"])
    from_files.forget(image_folder / "00.png")
    names = [Path(name).stem for name in from_files.provenance[0]]
    assert names == ["01", "02", "04", "05", "06", "08", "09", "03"]
    now = good[[int(name) for name in names]]
    bank = bank_of(from_files)
    assert reach(from_files, now) <= bank.radius + bank.loosened + 1e-4
    exact = checks.left_out_grids(from_files, now)
    assert (from_files.calibration.grids >= exact - 1e-4 * exact.max()).all()
    assert from_files.calibration.names == from_files.provenance[0]


def test_a_loaded_detector_learns_on_as_the_saved_one(
    from_files: SAPatchCore, more_files: list[Path], image_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    from_files.save(path)
    loaded = SAPatchCore.load(path, device="cpu")
    assert state(loaded) == state(from_files)
    for detector in (loaded, from_files):
        detector.update(more_files).forget(image_folder / "02.png")
    assert state(loaded) == state(from_files)
    loaded.save(path)
    assert state(SAPatchCore.load(path, device="cpu")) == state(from_files)


def test_arrays_go_on_after_loading(half: SAPatchCore, good: UInt8, tmp_path: Path) -> None:
    half.save(tmp_path / "m", include_thumbnails=False)
    loaded = SAPatchCore.load(tmp_path / "m", device="cpu").update(good[5:7])
    assert loaded.provenance[0] == tuple(f"image {i}" for i in range(7))
    training = bank_of(loaded).training
    assert not any(image.thumbnail for image in training[:5])
    loaded.save(tmp_path / "m")
    assert bank_of(SAPatchCore.load(tmp_path / "m", device="cpu")).training == training


def test_a_full_disk_keeps_the_old_model(
    from_files: SAPatchCore, more_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """update, then save to the same path: the file is the old model until it is the new one."""
    path = tmp_path / "model" / "m.safetensors"
    path.parent.mkdir()
    from_files.save(path)
    before, old = path.read_bytes(), state(from_files)
    from_files.update(more_files)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ModelFileError, match=r"No space left on device\. What was there before is unchanged\."):
        from_files.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["m.safetensors"]
    assert state(SAPatchCore.load(path, device="cpu")) == old
    from_files.save(path)
    assert state(SAPatchCore.load(path, device="cpu")) == state(from_files) != old
