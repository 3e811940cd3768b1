"""A detector of several networks: its scores are the rule's on those of each, and all of a detector works for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
import safetensors.torch
import torch
from command import run
from conftest import SMALL, changed, write_images
from made_screws import SMALL as SCREWS
from made_screws import make_screws

from sapatchcore import DataError, ModelFileError, NotFittedError, SAPatchCore, SettingsError
from sapatchcore.model_file import Stored, read_model
from sapatchcore.score.fusion import fused
from sapatchcore.score.together import CommonScale, together
from sapatchcore.settings import settings_from
from sapatchcore.together.model_file import NETWORKS, SCALE, describe_model, holds

UInt8 = npt.NDArray[np.uint8]
NAMES = ("test_resnet", "test_efficientnet")
OPTIONS: dict[str, Any] = {
    **SMALL,
    "backbone": "+".join(NAMES),
    "metric": "euclidean+whitened",
    "coreset_ratio": 0.1,
    "attention": "none",
    "image_score": "smoothed",
    "global_part": "pooled",
}


@pytest.fixture(scope="module")
def pair(good: UInt8, tmp_path_factory: pytest.TempPathFactory) -> SAPatchCore:
    """Two networks that learned ``good`` from files, which stay at hand; not to be changed."""
    return SAPatchCore(**OPTIONS).fit(write_images(tmp_path_factory.mktemp("pair") / "good", good))


@pytest.fixture
def saved(pair: SAPatchCore, tmp_path: Path) -> Path:
    pair.save(tmp_path / "pair.safetensors")
    return tmp_path / "pair.safetensors"


def test_it_is_a_detector_with_one_for_each_network(pair: SAPatchCore) -> None:
    assert isinstance(pair, SAPatchCore)
    assert [one.settings.backbone for one in pair.networks] == list(NAMES)
    assert [one.settings.metric for one in pair.networks] == ["euclidean", "whitened"]
    alone = SAPatchCore(**SMALL)
    assert type(alone) is SAPatchCore
    assert alone.networks == (alone,)


def test_each_network_is_what_it_is_alone(pair: SAPatchCore, good: UInt8) -> None:
    alone = SAPatchCore(**{**OPTIONS, "backbone": NAMES[0], "metric": "euclidean"}).fit(good)
    one = pair.networks[0]
    np.testing.assert_array_equal(one.memory_bank, alone.memory_bank)
    np.testing.assert_array_equal(one.calibration.scores, alone.calibration.scores)


def test_scores_are_the_rule_s_on_each_network_s(pair: SAPatchCore, images: Callable[..., UInt8]) -> None:
    new = images(3, seed=3)
    result, each = pair.predict(new), [one.predict(new) for one in pair.networks]
    arrays = [
        (
            *(one.scores, one.local_scores, one.context_scores),
            *(one.patch_scores, one.local_patches, one.context_patches, one.neighbours),
            *(one.global_scores, one.global_patches),
        )
        for one in each
    ]
    expected = together(arrays, pair._scale, "smoothed", [len(one.bank.rows) for one in pair.networks])
    np.testing.assert_array_equal(result.scores, expected[0])
    np.testing.assert_array_equal(result.neighbours, expected[6])
    np.testing.assert_allclose(result.patch_scores**2, result.local_patches**2 + result.context_patches**2, rtol=1e-5)
    own = np.hypot(result.local_scores, result.context_scores)
    np.testing.assert_allclose(result.scores, fused(own, result.global_scores, pair._scale.fusion), rtol=1e-5)
    weighted = [one.maps[0].max() / unit for one, unit in zip(each, pair._scale.units, strict=True)]
    assert min(weighted) * 0.9 <= result.maps[0].max() <= max(weighted) * 1.1
    rows = sum(len(one.bank.rows) for one in pair.networks)
    names, of_rows, cells = pair.provenance
    assert len(names) == 10
    assert len(of_rows) == len(cells) == rows == pair.rows
    assert result.neighbours.max() < rows


def test_separate_scores_are_those_of_predict(pair: SAPatchCore, saved: Path, images: Callable[..., UInt8]) -> None:
    """The calibration follows from those of the networks; of new images it is what predict gives, the parts about."""
    new = images(8, seed=5)
    detector = SAPatchCore.load(saved, device="cpu").calibrate(new)
    result, calibration = pair.predict(new), detector.calibration
    np.testing.assert_allclose(calibration.scores, result.scores, rtol=1e-5)
    np.testing.assert_allclose(calibration.grids, result.patch_scores, rtol=1e-5)
    np.testing.assert_allclose(calibration.peaks, [one.max() for one in result.maps], rtol=1e-5)
    np.testing.assert_allclose(calibration.global_scores, result.global_scores, rtol=1e-5)
    np.testing.assert_allclose(calibration.local, result.local_patches.max((1, 2)), rtol=0.1)


def test_a_threshold_rejects_what_it_promises(pair: SAPatchCore) -> None:
    assert len(pair.calibration) == 10
    assert (pair.calibration.scores > pair.threshold(0.2)).sum() == 1
    assert pair.threshold(0.1) == pair.calibration.scores.max()
    assert pair.calibration.scores.min() > 0


def test_the_network_that_is_farthest_explains(pair: SAPatchCore, images: Callable[..., UInt8]) -> None:
    image = images(1, seed=6)[0].copy()
    image[20:36, 24:40] = (255, 0, 0)
    (found,) = pair.explain(image, false_reject=0.1)
    (cause,) = found.causes[:1]
    peaks = {}
    for one, unit in zip(pair.networks, pair._scale.units, strict=True):
        (own,) = one.explain(image, false_reject=0.1)
        peaks[one.settings.backbone] = own.causes[0].score / unit
    assert cause.network == max(peaks, key=lambda name: peaks[name])
    assert cause.score == pytest.approx(peaks[cause.network], rel=1e-4)
    assert cause.score**2 == pytest.approx(cause.local**2 + cause.context**2, rel=1e-4)
    assert cause.drawn_from.sum() == pytest.approx(cause.context**2, rel=1e-3)
    assert found.verdict.kind == "local"
    assert cause.good.thumbnail


def test_saved_and_loaded_it_is_the_same(pair: SAPatchCore, saved: Path, images: Callable[..., UInt8]) -> None:
    new = images(2, seed=7)
    found = SAPatchCore.load(saved, device="cpu")
    assert type(found) is type(pair)
    expected, result = pair.predict(new), found.predict(new)
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.global_patches, expected.global_patches)
    assert found.settings == pair.settings
    for name in pair.calibration.array_names:
        np.testing.assert_array_equal(getattr(found.calibration, name), getattr(pair.calibration, name))
    assert found._scale == pair._scale


def test_with_another_image_score_it_is_as_fitted_with_that(
    pair: SAPatchCore, saved: Path, images: Callable[..., UInt8]
) -> None:
    names = [*pair.provenance[0]]
    found = SAPatchCore.load(saved, device="cpu", image_score="max")
    assert len(found.calibration) == len(names)
    grids = found.calibration.grids
    np.testing.assert_allclose(found.calibration.largest, grids.max((1, 2)), rtol=1e-6)
    assert found._scale == CommonScale.of([one.calibration for one in found.networks])
    assert found._scale != pair._scale
    new = images(2, seed=7)
    result = found.predict(new)
    np.testing.assert_allclose(
        np.hypot(result.local_scores, result.context_scores), result.patch_scores.max((1, 2)), rtol=1e-5
    )


def test_a_file_without_weights_finds_them_again(pair: SAPatchCore, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    pair.save(path, include_weights=False, include_thumbnails=False)
    assert SAPatchCore.load(path, device="cpu").rows == pair.rows
    with pytest.raises(SettingsError, match="weights must be one value for all networks"):
        SAPatchCore.load(path, weights="random+random+random")


def test_what_all_networks_have_alike_is_written_once(saved: Path) -> None:
    with safetensors.safe_open(saved, framework="pt") as file:
        names = set(file.keys())
    assert holds(saved, NETWORKS)
    assert {"training.name", "thumbnails", "1.bank", "together.peaks"} <= names
    assert not {"1.training.name", "1.thumbnails", "1.calibration.images"} & names


def test_info_says_what_each_network_has(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = describe_model(saved, read_model(saved))
    assert found["settings"]["backbone"] == "test_resnet+test_efficientnet"
    assert {name: one["metric"] for name, one in found["networks"].items()} == dict(
        zip(NAMES, ("euclidean", "whitened"), strict=True)
    )
    assert found["training_images"] == found["calibration"]["images"] == 10
    assert run("info", saved) == 0
    assert "\ntest_efficientnet" in capsys.readouterr().out
    assert run("info", saved, "--json") == 0
    assert json.loads(capsys.readouterr().out)["networks"].keys() == set(NAMES)


LIES: dict[str, Callable[[Stored], object]] = {
    "another network": lambda stored: stored.header[NETWORKS][1]["settings"].update(backbone="test_vit"),
    "one network": lambda stored: stored.header[NETWORKS].pop(),
    "no list": lambda stored: stored.header.update({NETWORKS: 3}),
    "no scale": lambda stored: stored.header.pop(SCALE),
    "a unit of nothing": lambda stored: stored.header[SCALE].update(units=[0, 1]),
    "a unit too few": lambda stored: stored.header[SCALE].update(units=[1.0]),
    "no fusion": lambda stored: stored.header[SCALE].update(fusion=None),
    "no bank": lambda stored: stored.more.pop("1.bank"),
    "no peaks": lambda stored: stored.more.pop("together.peaks"),
    "peaks of none": lambda stored: stored.more.update({"together.peaks": torch.zeros(0)}),
    "other images": lambda stored: stored.more.update(
        {"1.calibration.images": torch.arange(10, dtype=torch.int32).flip(0)}
    ),
    "another input": lambda stored: stored.header[NETWORKS][1]["settings"].update(resize=[96, 64]),
    "another score": lambda stored: stored.header[NETWORKS][0]["settings"].update(image_score="max"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_does_not_fit_together_is_refused(saved: Path, lie: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        SAPatchCore.load(changed(saved, LIES[lie]), device="cpu")
    assert str(saved) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_cut_or_altered_file_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for damaged in (content[:-100], content[:300] + b"x" + content[301:], b""):
        saved.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            SAPatchCore.load(saved)


def test_it_learns_on(pair: SAPatchCore, saved: Path, tmp_path: Path, images: Callable[..., UInt8]) -> None:
    detector = SAPatchCore.load(saved, device="cpu")
    more = write_images(tmp_path / "more", images(3, seed=8))
    before = detector.predict(more).scores
    detector.update(more)
    assert len(detector.provenance[0]) == len(detector.calibration) == 13
    np.testing.assert_allclose(detector.calibration.grids[:10], pair.calibration.grids, rtol=1e-6)
    own = np.hypot(*(getattr(pair.predict(more), name) for name in ("local_scores", "context_scores")))
    np.testing.assert_allclose(detector.calibration.largest[10:], own, rtol=1e-4)
    assert (detector.predict(more).scores <= before + 1e-6).all(), "what was learned is nearer than before"
    assert all(one._scale == pair._scale for one in (detector, detector.forget(more / "00.png")))
    assert len(detector.provenance[0]) == len(detector.calibration) == 12
    assert [len(one.bank.training) for one in detector.networks] == [12, 12]
    path = tmp_path / "more.safetensors"
    detector.save(path)
    np.testing.assert_array_equal(SAPatchCore.load(path).calibration.scores, detector.calibration.scores)


def test_what_fails_changes_no_network(saved: Path) -> None:
    detector = SAPatchCore.load(saved, device="cpu")
    networks = detector.networks
    with pytest.raises(DataError, match="learned from already"):
        detector.update(detector.provenance[0][3])
    second = networks[1]
    second._bank = None  # as if the second network could not go on
    with pytest.raises(NotFittedError):
        detector.forget(detector.provenance[0][3])
    assert detector.networks is networks
    assert len(networks[0].provenance[0]) == 10


def test_images_that_can_be_read_only_once(good: UInt8, pair: SAPatchCore, images: Callable[..., UInt8]) -> None:
    found = SAPatchCore(**OPTIONS).fit(iter(good))
    np.testing.assert_allclose(found.predict(good[:2]).scores, pair.predict(good[:2]).scores, rtol=1e-5)
    assert len(found.predict(iter(images(3, seed=9)))) == 3


def test_keep_aspect_is_found_once_for_all(images: Callable[..., UInt8]) -> None:
    options = {**OPTIONS, "global_part": "none", "keep_aspect": True, "temperature": "auto", "attention": "self"}
    detector = SAPatchCore(**options).fit(images(3, size=(64, 128)))
    assert detector.settings.resize == detector.networks[0].settings.resize == (64, 128)
    assert detector.settings.temperature == "auto"
    temperatures = [one.settings.temperature for one in detector.networks]
    assert all(isinstance(one, float) for one in temperatures)
    assert temperatures[0] != temperatures[1]
    assert detector.predict(images(1, size=(64, 128))).patch_scores.shape == (1, 8, 16)


def test_of_three_networks_with_grids_of_two_sizes(images: Callable[..., UInt8], tmp_path: Path) -> None:
    options = {**SMALL, "coreset_ratio": 0.1, "backbone": "test_resnet+test_vit+test_efficientnet"}
    detector = SAPatchCore(**options).fit(images(4))
    assert {one.bank.grid for one in detector.networks} == {(8, 8), (4, 4)}
    result = detector.predict(images(2, seed=1))
    assert result.patch_scores.shape == (2, 8, 8)
    detector.save(tmp_path / "three.safetensors")
    found = SAPatchCore.load(tmp_path / "three.safetensors", device="cpu").predict(images(2, seed=1))
    np.testing.assert_array_equal(found.scores, result.scores)


def test_before_fit_and_what_one_network_alone_has(pair: SAPatchCore, good: UInt8, tmp_path: Path) -> None:
    for ask in (
        lambda one: one.predict(good),
        lambda one: one.save(tmp_path / "x.safetensors"),
        lambda one: one.threshold(),
        lambda one: one.is_calibrated,
        lambda one: one.forget("x"),
    ):
        with pytest.raises(NotFittedError):
            ask(SAPatchCore(**OPTIONS))
    for ask in (lambda one: one.bank, lambda one: one.memory_bank, lambda one: one.embed(good)):
        with pytest.raises(SettingsError, match=r"networks\[0\]"):
            ask(pair)


def test_one_image_brings_no_networks_together(good: UInt8) -> None:
    options = {**OPTIONS, "global_part": "none"}
    with pytest.raises(DataError, match="at least two good images"):
        SAPatchCore(**options).fit(good[:1])
    assert len(SAPatchCore(**options).fit(good[:1], calibrate=good[1:4]).calibration) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "builtin+"}, "a name is empty"),
        ({"backbone": "+"}, "a name is empty"),
        ({"backbone": "builtin+resnet18+builtin"}, "named twice"),
        ({"backbone": "builtin+resnet18", "image_score": "reweighted"}, "one memory bank"),
        ({"backbone": "builtin+resnet18", "weights": "a.pth+b.pth+c.pth"}, "weights must be one value for all"),
        ({"backbone": "builtin", "metric": "whitened+euclidean"}, "metric must be one value for all"),
        ({"backbone": "builtin+resnet18", "metric": "whitened+euclid"}, "metric must be 'euclidean' or 'whitened'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        SAPatchCore(**options)


def test_each_network_has_its_own_of_what_is_joined() -> None:
    detector = SAPatchCore(backbone="builtin+resnet18", weights="pretrained+r18.pth")
    assert [one.settings.weights for one in detector.networks] == ["pretrained", "r18.pth"]
    assert settings_from({"backbone": "resnet18", "weights": "a+b.pth"}).weights == "a+b.pth", "a file's name"
    detector = SAPatchCore(preset="recommended", backbone="builtin+efficientnet_lite2", metric="euclidean+whitened")
    assert [one.settings.metric for one in detector.networks] == ["euclidean", "whitened"]
    again = SAPatchCore(**detector.settings.model_dump())
    assert [one.settings for one in again.networks] == [one.settings for one in detector.networks]


def test_from_the_command_line(
    tmp_path: Path, images: Callable[..., UInt8], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = write_images(tmp_path / "good", images(4)), tmp_path / "pair.safetensors"
    options = ["--resize", "64", "--crop", "none", "--coreset-ratio", "0.1", "--device", "cpu"]
    fit = ["fit", folder, "-o", model, "--backbone", "test_resnet+test_efficientnet", "--weights", "random", *options]
    assert run(*fit) == 0
    assert "kept 25 patches of 240 numbers and 25 patches of 80 numbers" in capsys.readouterr().out
    assert run("predict", model, folder, "--json", "--false-reject", "0.3") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["score"] > 0
    more = write_images(tmp_path / "more", images(2, seed=1))
    assert run("update", model, more) == 0
    assert "now learned from 6 images" in capsys.readouterr().out
    assert run("forget", model, more / "00.png") == 0
    assert "now learned from 5 images" in capsys.readouterr().out
    assert run(*fit, "--ray", "local") == 2
    assert "works for one network alone" in capsys.readouterr().err


def test_evaluated_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each cause in the report says which network found it."""
    data, model, page = (tmp_path / name for name in ("screws", "pair.safetensors", "page.html"))
    make_screws(data, seed=2, train=10, test=2)
    options = ["--backbone", "test_resnet+test_efficientnet", "--weights", "random", *SCREWS[2:], "--device", "cpu"]
    assert run("fit", data, "-o", model, *options, "--preset", "recommended") == 0
    assert run("evaluate", data, "--model", model, "-o", tmp_path / "figures.json", "--json") == 0
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert 0 <= figures["image_auroc"] <= 1
    assert figures["settings"]["backbone"] == "test_resnet+test_efficientnet"
    assert run("report", model, data, "-o", page, "--false-reject", "0.2") == 0
    text = page.read_text(encoding="utf-8")
    assert "backbone test_resnet+test_efficientnet" in text
    assert ", most by test_" in text
    capsys.readouterr()
