"""The network that comes with the package: where it lies, what it takes, what it refuses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
import torch
from huggingface_hub import constants

from sapatchcore import SAPatchCore, SettingsError, WeightsError
from sapatchcore.embed import builtin
from sapatchcore.embed.builtin import TIMM_NAME, builtin_weights
from sapatchcore.embed.network import build_network

ROOT = Path(__file__).parents[2]
FILE = Path(builtin.__file__).parent / "builtin.safetensors"

Made = Callable[..., npt.NDArray[np.uint8]]


def detector(**options: Any) -> SAPatchCore:
    return SAPatchCore(**{"backbone": "builtin", "resize": 64, "crop": None, "coreset_ratio": 0.2, **options})


def test_file_is_small_and_the_one_that_its_page_describes() -> None:
    content = FILE.read_bytes()
    assert len(content) <= 12_000_000
    page = (ROOT / "docs" / "builtin-backbone.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in page
    with safetensors.safe_open(FILE, "pt") as file:
        assert file.metadata()["network"] == TIMM_NAME
        kinds = {file.get_tensor(name).dtype for name in file.keys() if file.get_tensor(name).ndim == 4}  # noqa: SIM118
    assert kinds == {torch.float16}


def test_works_without_network_or_cache(
    good: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = detector().fit(good).predict(good[:1])
    assert found.scores.shape == (1,)
    assert not list(tmp_path.iterdir())


def test_its_weights_are_not_random_ones(good: npt.NDArray[np.uint8]) -> None:
    shipped, random = detector().embed(good[:1]), detector(weights="random").embed(good[:1])
    assert shipped.shape == random.shape
    assert not np.allclose(shipped, random)
    assert np.array_equal(random, detector(backbone=TIMM_NAME, weights="random").embed(good[:1]))


@pytest.mark.parametrize("layers", [("layer1", "layer2"), ("layer2", "layer3"), ("layer1", "layer3")])
def test_it_is_timms_network_to_the_bit(layers: tuple[str, str]) -> None:
    given: dict[str, Any] = {"layers": layers, "input_size": (64, 64), "seed": 0}
    own, _ = build_network("builtin", weights="pretrained", given=None, **given)
    timms, _ = build_network(TIMM_NAME, weights="given", given=builtin_weights(layers), **given)
    pixels = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    assert list(own.state_dict()) == list(timms.state_dict())
    assert own.feature_info.channels() == timms.feature_info.channels()
    assert own.feature_info.reduction() == timms.feature_info.reduction()
    for one, other in zip(own(pixels), timms(pixels), strict=True):
        assert torch.equal(one, other)


def test_it_needs_no_timm(run_python: Callable[..., Any]) -> None:
    """To import timm takes longer than all else that a prediction does."""
    done = run_python(
        "import sys, numpy; from sapatchcore import SAPatchCore\n"
        "good = numpy.zeros((2, 64, 64, 3), numpy.uint8)\n"
        "SAPatchCore(backbone='builtin', resize=64, crop=None).fit(good).predict(good)\n"
        "print([name for name in ('timm', 'torchvision') if name in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_seed_does_not_change_it(good: npt.NDArray[np.uint8]) -> None:
    assert np.array_equal(detector(seed=0).embed(good[:1]), detector(seed=5).embed(good[:1]))


def test_finer_layers() -> None:
    images = np.zeros((1, 64, 64, 3), np.uint8)
    assert detector(layers=("layer1", "layer2")).embed(images).shape == (1, 16, 16, 64 + 128)


@pytest.mark.parametrize("inside", [True, False])
def test_model_file_is_loaded_again(inside: bool, good: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    fitted = detector().fit(good)
    fitted.save(tmp_path / "model.safetensors", include_weights=inside)
    loaded = SAPatchCore.load(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.predict(good).scores, fitted.predict(good).scores)


def test_model_file_needs_no_file_of_the_package(
    good: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = detector().fit(good)
    fitted.save(tmp_path / "model.safetensors")
    expected = fitted.predict(good[:1]).scores
    monkeypatch.setattr(builtin, "files", lambda _: tmp_path / "nowhere")
    assert np.array_equal(SAPatchCore.load(tmp_path / "model.safetensors").predict(good[:1]).scores, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": "resnet18.pth"},
            "weights must be 'pretrained' or 'random' for backbone builtin. Got 'resnet18.pth'.",
        ),
        ({"layers": ("layer3", "layer4")}, "builtin has no layer 'layer4'. Allowed: layer1, layer2, layer3."),
        ({"layers": ("layer3", "layer2")}, "layers must name the finer layer first."),
    ],
)
def test_what_it_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        detector(**options).embed(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind"])
def test_damaged_installation(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if content is not None:
        (tmp_path / "builtin.safetensors").write_bytes(content)
    monkeypatch.setattr(builtin, "files", lambda _: tmp_path)
    with pytest.raises(
        WeightsError, match=r"own network .*builtin\.safetensors cannot be read: .* Install the package again"
    ):
        builtin_weights(("layer2", "layer3"))
