"""fit and predict end to end: against the paper's steps written naively, and each option by what it changes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import checks
import numpy as np
import pytest
import timm
import torch
from PIL import Image

import sapatchcore.embed.patches
from sapatchcore import DataError, NotFittedError, Result, SAPatchCore, SettingsError, WeightsError
from sapatchcore.model_file import read_model, write_model

LOCAL = 48  # of the numbers of a patch, those from layer 2 of the small network
PARTS = ("scores", "local_scores", "context_scores", "patch_scores", "local_patches", "context_patches", "neighbours")


def assert_same(one: Result, other: Result) -> None:
    for name in PARTS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="SA-PatchCore"),
        pytest.param({"attention": "none"}, id="PatchCore"),
        pytest.param({"image_score": "reweighted"}, id="reweighted"),
        pytest.param({"projection": None}, id="no projection"),
        pytest.param({"crop": None}, id="no crop"),
        pytest.param({"resize": (64, 64), "crop": None}, id="images' own size"),
    ],
)
def test_equals_the_paper_written_naively(options: dict[str, Any], tmp_path: Path, images: Callable) -> None:
    checks.check_pipeline(tmp_path, images(6), images(3, (64, 64), 5), **options)


def test_equals_the_paper_for_images_of_other_sizes(tmp_path: Path, images: Callable) -> None:
    checks.check_pipeline(tmp_path, images(4, (90, 70)), images(2, (50, 100), 5))


def test_every_kind_of_input_gives_the_same(image_folder: Path, good: np.ndarray, fitted: SAPatchCore) -> None:
    expected = fitted.predict(good)
    paths = sorted(image_folder.iterdir())
    given = {
        "folder": image_folder,
        "folder as text": str(image_folder),
        "paths": paths,
        "paths as text": [str(path) for path in paths],
        "stack": good,
        "arrays": list(good),
        "Pillow images": [Image.fromarray(image) for image in good],
        "tuple of a mixture": (paths[0], good[1], Image.fromarray(good[2]), *good[3:]),
        "generator": (image for image in good),
    }
    for kind, images in given.items():
        found = fitted.predict(images)
        assert_same(found, expected)
        assert len(found) == 10, kind
        if "path" in kind or "folder" in kind:
            assert found.paths == tuple(str(path) for path in paths)
        elif "mixture" not in kind:
            assert found.paths == tuple(f"image {i}" for i in range(10))


def test_one_image_in_every_form(image_folder: Path, good: np.ndarray, fitted: SAPatchCore) -> None:
    path = image_folder / "00.png"
    for one in (path, str(path), good[0], Image.fromarray(good[0]), [good[0]]):
        np.testing.assert_array_equal(fitted.predict(one).scores, fitted.predict(good[:1]).scores)


def test_fit_takes_the_same_kinds(image_folder: Path, good: np.ndarray, small: dict[str, Any]) -> None:
    banks = [SAPatchCore(**small).fit(kind).memory_bank for kind in (image_folder, good, iter(list(good)))]
    np.testing.assert_array_equal(banks[0], banks[1])
    np.testing.assert_array_equal(banks[0], banks[2])


def test_fit_on_a_category_learns_from_its_good_images(tmp_path: Path, good: np.ndarray, small: dict[str, Any]) -> None:
    for folder, images in (("train/good", good[:4]), ("test/good", good[4:6]), ("test/hole", good[6:8])):
        (tmp_path / folder).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
    detector = SAPatchCore(**small).fit(tmp_path)
    assert detector.provenance[0] == tuple(str(tmp_path / "train/good" / f"{i}.png") for i in range(4))
    np.testing.assert_array_equal(detector.memory_bank, SAPatchCore(**small).fit(good[:4]).memory_bank)


def test_a_stream_is_read_a_batch_at_a_time(good: np.ndarray, small: dict[str, Any]) -> None:
    """Endless input must not be collected first: when a batch is done, only so many more may have been taken."""
    taken = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal taken
        for image in good:
            taken += 1
            yield image

    seen = []
    detector = SAPatchCore(**{**small, "batch_size": 2, "workers": 0})
    detector.fit(stream(), progress=lambda stage, done, total: seen.append((stage, done, total, taken)))
    first = seen[0]
    assert first[:3] == ("embed", 2, None)
    assert first[3] <= 2


def test_grey_images_are_taken(fitted: SAPatchCore, good: np.ndarray) -> None:
    grey = good[0, ..., 0]
    np.testing.assert_array_equal(fitted.predict(grey).scores, fitted.predict(np.stack([grey] * 3, axis=2)).scores)


def test_images_of_different_sizes_in_one_batch(fitted: SAPatchCore, images: Callable) -> None:
    sizes = ((64, 64), (40, 90), (128, 70))
    found = fitted.predict([images(1, size, 1)[0] for size in sizes])
    assert found.sizes == sizes
    assert [one.shape for one in found.maps] == list(sizes)


def test_not_fitted(small: dict[str, Any], good: np.ndarray) -> None:
    detector = SAPatchCore(**small)
    message = r"^This detector has learned nothing yet\. Call fit with good images, or load a model file\.$"
    with pytest.raises(NotFittedError, match=message):
        detector.predict(good)
    with pytest.raises(NotFittedError, match=message):
        _ = detector.memory_bank
    with pytest.raises(NotFittedError, match=message):
        _ = detector.provenance
    assert detector.embed(good).shape == (10, 8, 8, LOCAL + 192), "embed needs no training"


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 64, 64, 3), np.uint8), iter(())])
def test_no_images(images: Any, small: dict[str, Any], fitted: SAPatchCore) -> None:
    with pytest.raises(DataError, match=r"^No image to learn from was given\. Give at least one good image\.$"):
        SAPatchCore(**small).fit(images)
    with pytest.raises(DataError, match=r"^No image to score was given\. Give at least one\.$"):
        fitted.predict(images)
    with pytest.raises(DataError, match=r"^No image to embed was given\. Give at least one\.$"):
        fitted.embed(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "images must be a folder, paths, (h, w, 3) uint8 arrays or Pillow images. Got int."),
        (None, "images must be a folder, paths, (h, w, 3) uint8 arrays or Pillow images. Got NoneType."),
        ([3], "image 0 must be a path"),
        ("no/such/folder", "The folder no/such/folder does not exist. Check the path."),
        ([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 7), np.uint8)], "image 1"),
    ],
)
def test_wrong_images(images: Any, message: str, fitted: SAPatchCore) -> None:
    with pytest.raises(DataError) as caught:
        fitted.predict(images)
    assert str(caught.value).startswith(message)


def test_a_broken_file_is_named(image_folder: Path, small: dict[str, Any]) -> None:
    (image_folder / "05.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"05\.png"):
        SAPatchCore(**small).fit(image_folder)


def test_a_failed_fit_keeps_what_was_learned(good: np.ndarray, small: dict[str, Any]) -> None:
    detector = SAPatchCore(**small).fit(good)
    before = detector.predict(good).scores
    with pytest.raises(DataError):
        detector.fit([good[0], "no such file.png"])
    np.testing.assert_array_equal(detector.predict(good).scores, before)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"backbone": "resnet81"}, SettingsError),
        ({"layers": "layer2,layer9"}, SettingsError),
        ({"weights": "no such file.pth"}, WeightsError),
    ],
)
def test_network_errors_come_with_fit(
    options: dict[str, Any], kind: type[Exception], small: dict[str, Any], good: np.ndarray
) -> None:
    detector = SAPatchCore(**{**small, **options})  # nothing is loaded before
    with pytest.raises(kind):
        detector.fit(good)


def test_a_bank_of_one_patch_cannot_be_reweighted(good: np.ndarray, small: dict[str, Any]) -> None:
    detector = SAPatchCore(**small, image_score="reweighted", coreset_ratio=1e-6).fit(good[:1])
    assert len(detector.memory_bank) == 1
    with pytest.raises(SettingsError, match=r"needs a memory bank of 2 or more patches\. Got 1: "):
        detector.predict(good)


# A single -inf in layer 3 gives way to its neighbours in max pooling.
@pytest.mark.parametrize(("layer", "number"), [(0, np.nan), (0, np.inf), (0, -np.inf), (1, np.nan), (1, np.inf)])
def test_numbers_that_are_none_are_never_scored(
    layer: int, number: float, good: np.ndarray, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = SAPatchCore(**small).fit(good)
    right = detector.embedder.network.features

    def overflowing(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = tuple(one.clone() for one in right(images))
        maps[layer][1, 3, 2, 2] = number
        return maps

    monkeypatch.setattr(detector.embedder.network, "features", overflowing)
    for use in (detector.predict, detector.embed, detector.fit):
        with pytest.raises(DataError, match="image 1"):
            use(good)


def test_bank_rows_are_patches_of_the_training_images_to_the_bit(fitted: SAPatchCore, good: np.ndarray) -> None:
    names, images, cells = fitted.provenance
    rows = fitted.embed(good).reshape(10, 64, -1)[images, cells]
    assert rows.tobytes() == fitted.memory_bank.tobytes()
    assert names == tuple(f"image {i}" for i in range(10))
    assert len(set(zip(images.tolist(), cells.tolist(), strict=True))) == len(rows) == int(0.1 * 640)


def test_training_patches_in_the_bank_have_score_zero_exactly(fitted: SAPatchCore, good: np.ndarray) -> None:
    _, images, cells = fitted.provenance
    result = fitted.predict(good)
    flat = result.patch_scores.reshape(10, 64)
    assert not flat[images, cells].any()
    np.testing.assert_array_equal(result.neighbours.reshape(10, 64)[images, cells], np.arange(len(images)))


def test_everything_kept_makes_training_images_score_zero(good: np.ndarray, small: dict[str, Any]) -> None:
    result = SAPatchCore(**small, coreset_ratio=1).fit(good[:3]).predict(good[:3])
    assert not result.scores.any()
    assert not result.maps[0].any()


def test_patch_scores_are_distances_to_the_named_row(fitted: SAPatchCore, images: Callable) -> None:
    test = images(3, seed=7)
    result = fitted.predict(test)
    difference = fitted.embed(test) - fitted.memory_bank[result.neighbours]
    np.testing.assert_allclose(np.linalg.norm(difference, axis=3), result.patch_scores, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(difference[..., :LOCAL], axis=3), result.local_patches, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(difference[..., LOCAL:], axis=3), result.context_patches, rtol=1e-5)


@pytest.mark.parametrize("image_score", ["max", "reweighted"])
def test_local_and_context_make_up_the_score(
    image_score: str, good: np.ndarray, images: Callable, small: dict[str, Any]
) -> None:
    result = SAPatchCore(**small, coreset_ratio=0.1, image_score=image_score).fit(good).predict(images(6, seed=3))
    np.testing.assert_allclose(result.local_scores**2 + result.context_scores**2, result.scores**2, rtol=1e-5)
    np.testing.assert_allclose(result.local_patches**2 + result.context_patches**2, result.patch_scores**2, rtol=1e-5)
    largest = result.patch_scores.reshape(6, -1).max(1)
    if image_score == "max":
        np.testing.assert_array_equal(result.scores, largest)
    else:
        assert (result.scores < largest).all()
        assert (result.scores > 0).all()


def test_one_image_scores_as_it_does_in_a_batch(fitted: SAPatchCore, images: Callable) -> None:
    test = images(5, seed=4)
    together = fitted.predict(test)
    alone = [fitted.predict(image) for image in test]
    np.testing.assert_allclose([one.scores[0] for one in alone], together.scores, rtol=1e-4)
    np.testing.assert_allclose([one.maps[0] for one in alone], list(together.maps), atol=1e-4 * together.scores.max())


def test_predicting_changes_nothing(fitted: SAPatchCore, good: np.ndarray, images: Callable) -> None:
    before = fitted.memory_bank.copy(), good.copy()
    first = fitted.predict(good)
    fitted.predict(images(3, seed=8))
    assert_same(fitted.predict(good), first)
    np.testing.assert_array_equal(fitted.memory_bank, before[0])
    np.testing.assert_array_equal(good, before[1])


def test_the_bank_cannot_be_written_to(fitted: SAPatchCore) -> None:
    with pytest.raises(ValueError, match="read-only"):
        fitted.memory_bank[0, 0] = 3


@pytest.mark.parametrize(("row", "column"), [(8, 12), (40, 30)])
def test_a_defect_raises_the_score_and_the_map_shows_where(
    row: int, column: int, fitted: SAPatchCore, good: np.ndarray
) -> None:
    damaged = good[0].copy()
    damaged[row : row + 14, column : column + 14] = (255, 0, 0)
    result = fitted.predict([good[0], damaged])
    assert result.scores[1] > 1.5 * result.scores[0]
    at = np.unravel_index(result.maps[1].argmax(), (64, 64))
    assert row - 6 <= at[0] <= row + 20
    assert column - 6 <= at[1] <= column + 20


def test_attention_lets_a_patch_see_the_whole_image(good: np.ndarray, small: dict[str, Any]) -> None:
    """One change in a corner moves the context of the far corner with attention; without, hardly."""
    changed = good[:1].copy()
    changed[0, :16, :16] = (255, 0, 0)
    moved = {}
    for attention in ("self", "none"):
        detector = SAPatchCore(**{**small, "resize": 256}, attention=attention)
        big = [np.asarray(Image.fromarray(image).resize((256, 256))) for image in (good[0], changed[0])]
        before, after = detector.embed(big)[:, -1, -1, LOCAL:]
        moved[attention] = float(np.abs(after - before).max() / np.abs(before).max())
    assert moved["self"] > 5 * moved["none"]


def test_progress_counts_to_the_end(good: np.ndarray, small: dict[str, Any]) -> None:
    calls: list[tuple[str, int, int | None]] = []
    detector = SAPatchCore(**small, coreset_ratio=0.2).fit(good, progress=lambda *call: calls.append(call))
    detector.predict(good, progress=lambda *call: calls.append(call))
    assert [call for call in calls if call[0] == "embed"] == [("embed", n, 10) for n in (4, 8, 10)]
    assert [call for call in calls if call[0] == "predict"] == [("predict", n, 10) for n in (4, 8, 10)]
    coreset = [call[1:] for call in calls if call[0] == "coreset"]
    assert coreset[-1] == (128, 128)
    assert coreset == sorted(coreset)


def test_callers_code_does_not_run_in_inference_mode(good: np.ndarray, small: dict[str, Any]) -> None:
    modes: list[bool] = []

    def progress(stage: str, *_: object) -> None:
        if stage != "coreset":  # called from inside the selection itself
            modes.append(torch.is_inference_mode_enabled())

    detector = SAPatchCore(**small)
    detector.fit(good, progress=progress)
    detector.predict(good, progress=progress)
    assert modes
    assert not any(modes)


@pytest.mark.parametrize("network", [{}, {"backbone": "builtin", "weights": "pretrained"}], ids=["random", "builtin"])
def test_global_state_is_left_alone(network: dict[str, Any], good: np.ndarray, small: dict[str, Any]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    SAPatchCore(**{**small, **network}).fit(good).predict(good)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before[1:]


def test_nothing_is_left_on_disk(
    good: np.ndarray, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    SAPatchCore(**small, projection=None).fit(good)
    with pytest.raises(DataError):
        SAPatchCore(**small).fit([good[0]] * 5 + ["no such file.png"])
    gc.collect()
    assert not list(tmp_path.iterdir())


def fingerprint(detector: SAPatchCore, good: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """What can be seen of a detector: its bank, its scores, its network, how it read and computed."""
    batches: list[int] = []
    workers: list[int] = []
    read = sapatchcore.embed.patches.read_batches
    choose = sapatchcore.embed.patches.choose_device
    asked: list[str] = []

    def watched(sources: Any, settings: Any, first: int) -> Iterator[Any]:
        workers.append(settings.workers)
        for batch in read(sources, settings, first):
            batches.append(len(batch.names))
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sapatchcore.embed.patches, "read_batches", watched)
        patch.setattr(sapatchcore.embed.patches, "choose_device", lambda name: (asked.append(name), choose("cpu"))[1])
        result = detector.fit(good).predict(test)
        network = detector.embedder.network
    seen: list[tuple[int, ...]] = []
    with network._network.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape))):
        layer2, _ = network.features(torch.zeros(1, *detector.settings.input_size, 3, dtype=torch.uint8))
    return {
        "bank": detector.memory_bank.shape,
        "bank's numbers": float(np.abs(detector.memory_bank.astype(np.float64)).sum()),
        "patches": [one.tolist() for one in detector.provenance[1:]],
        "scores": result.scores.tolist(),
        "map": result.maps[0].tolist(),
        "grid": result.patch_scores.shape,
        "whole": None if result.global_scores is None else result.global_scores.tolist(),
        "layers": network.layers,
        "number format": layer2.dtype,
        "seen": seen,
        "batches": batches,
        "threads": workers,
        "device": asked,
        "search": detector._bank.search,
    }


CHANGES: list[tuple[dict[str, Any], str, str]] = [
    ({"backbone": "resnet34"}, "backbone", "bank's numbers"),
    ({"preset": "recommended"}, "preset", "whole"),
    ({"weights": "checkpoint"}, "weights", "bank's numbers"),
    ({"layers": ("layer1", "layer3")}, "layers", "layers"),
    ({"attention": "none"}, "attention", "scores"),
    ({"temperature": 0.01}, "temperature", "scores"),
    ({"context_weight": 2}, "context_weight", "scores"),
    ({"metric": "whitened"}, "metric", "scores"),
    ({"resize": 72}, "resize", "scores"),
    ({"resize": (32, 64), "keep_aspect": True}, "keep_aspect", "grid"),
    ({"crop": 48}, "crop", "grid"),
    ({"resize": 192, "tiles": "2x2"}, "tiles", "seen"),
    ({"augment": "rotate"}, "augment", "bank"),
    ({"coreset_ratio": 0.2}, "coreset_ratio", "bank"),
    ({"projection": 2}, "projection", "patches"),
    ({"neighbors": 3, "image_score": "reweighted"}, "neighbors", "scores"),
    ({"image_score": "reweighted"}, "image_score", "scores"),
    ({"global_part": "pooled"}, "global_part", "whole"),
    ({"device": "auto"}, "device", "device"),
    ({"precision": "bfloat16"}, "precision", "number format"),
    ({"batch_size": 3}, "batch_size", "batches"),
    ({"workers": 0}, "workers", "threads"),
    ({"search": "int8"}, "search", "search"),
    ({"seed": 1}, "seed", "patches"),
]


@pytest.fixture(scope="module")
def plain(good: np.ndarray, images: Callable, small: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Fingerprints without the changes: one for each image score."""
    return {
        score: fingerprint(SAPatchCore(**small, coreset_ratio=0.1, image_score=score), good, images(2, seed=6))
        for score in ("max", "reweighted")
    }


def test_table_has_every_option(fitted: SAPatchCore) -> None:
    assert [name for _, name, _ in CHANGES] == list(type(fitted.settings).model_fields)


@pytest.mark.parametrize(("change", "name", "seen_in"), CHANGES, ids=[name for _, name, _ in CHANGES])
def test_every_option_changes_something(
    change: dict[str, Any],
    name: str,
    seen_in: str,
    plain: dict[str, dict[str, Any]],
    good: np.ndarray,
    images: Callable,
    small: dict[str, Any],
    tmp_path: Path,
) -> None:
    if name == "weights":
        torch.save(timm.create_model(small["backbone"]).state_dict(), tmp_path / "net.pth")
        change = {"weights": str(tmp_path / "net.pth")}
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.1, **change})
    # neighbors only matters to reweighted scores, so it is compared with these.
    before = plain["reweighted" if name == "neighbors" else "max"]
    after = fingerprint(detector, good, images(2, seed=6))
    assert after[seen_in] != before[seen_in]
    free = {"device", "batch_size", "workers"}
    if name in free:
        np.testing.assert_allclose(after["scores"], before["scores"], rtol=1e-4)


def test_neighbors_do_not_matter_to_max_scores(good: np.ndarray, images: Callable, small: dict[str, Any]) -> None:
    results = [SAPatchCore(**small, neighbors=k).fit(good).predict(images(2, seed=6)) for k in (2, 9)]
    assert_same(*results)


def altered(image: np.ndarray) -> dict[str, np.ndarray]:
    """By the first word of its note, an image made unlike ``image`` (h, w, 3) uint8 in one way."""
    whole, (height, width) = Image.fromarray(image), image.shape[:2]
    return {
        "Narrower": np.asarray(whole.resize((width // 3, height))),
        "Wider": np.asarray(whole.resize((width, height // 3))),
        "Larger": np.asarray(whole.resize((2 * width, 2 * height))),
        "Smaller": np.asarray(whole.resize((width // 2, height // 2))),
        "Darker": (image * 0.3).astype(np.uint8),
        "Brighter": (255 - (255 - image) * 0.2).astype(np.uint8),
        "Less": np.full_like(image, image.mean((0, 1)).astype(np.uint8)),
        "Without": np.repeat(image.mean(2, keepdims=True).astype(np.uint8), 3, 2),
    }


class TestNotes:
    @pytest.mark.parametrize("resize", [64, (64, 96)])
    def test_unlike_images_have_one_and_good_ones_none(
        self, small: dict[str, Any], good: np.ndarray, images: Any, resize: Any
    ) -> None:
        detector = SAPatchCore(**{**small, "resize": resize}).fit(good)
        assert detector.predict(images(20, seed=7)).notes == ((),) * 20
        for word, image in altered(good[0]).items():
            (notes,) = detector.predict([image]).notes
            assert [note.split()[0] for note in notes if note.startswith(word)] == [word]

    def test_they_outlive_the_file_and_the_way_there(
        self, fitted: SAPatchCore, good: np.ndarray, tmp_path: Path
    ) -> None:
        arrays = [*altered(good[0]).values(), good[1]]
        expected = fitted.predict(arrays).notes
        assert [bool(notes) for notes in expected] == [True] * 8 + [False]
        fitted.save(tmp_path / "m.safetensors")
        loaded = SAPatchCore.load(tmp_path / "m.safetensors", batch_size=3)
        assert loaded.predict(arrays).notes == expected
        result = loaded.predict(arrays)
        assert tuple(result.only(i).notes[0] for i in range(len(arrays))) == expected

    def test_a_colour_image_among_grey_ones(self, small: dict[str, Any], good: np.ndarray) -> None:
        grey = np.repeat(good[..., :1], 3, 3)
        detector = SAPatchCore(**small).fit(grey)
        assert detector.predict([good[0]]).notes == (("In colour: the training images are grey.",),)
        assert detector.predict([grey[0, ..., 0]]).notes == ((),)  # (h, w)

    def test_learning_widens_and_forgetting_narrows(self, small: dict[str, Any], good: np.ndarray, images: Any) -> None:
        detector, large = SAPatchCore(**small, coreset_ratio=0.2).fit(good), images(1, (128, 128), seed=3)
        assert len(detector.predict(large).notes[0]) == 1
        detector.update(large)
        assert detector.predict(large).notes == ((),)
        detector.forget("image 10")
        assert len(detector.predict(large).notes[0]) == 1

    def test_a_file_of_an_earlier_version_gives_none(
        self, fitted: SAPatchCore, good: np.ndarray, images: Any, tmp_path: Path
    ) -> None:
        fitted.save(tmp_path / "m.safetensors")
        stored = read_model(tmp_path / "m.safetensors")
        more = {name: value for name, value in stored.more.items() if name != "training.appearance"}
        write_model(tmp_path / "m.safetensors", replace(stored, more=more))
        older = SAPatchCore.load(tmp_path / "m.safetensors")
        unlike = altered(good[0])["Narrower"]
        assert older.predict([unlike]).notes == ((),)
        older.update(images(2, seed=5))  # of some images alone, ranges would make the others look unusual
        assert older.predict([unlike]).notes == ((),)
