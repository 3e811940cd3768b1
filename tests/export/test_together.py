"""Several networks as one graph: the file gives the detector's own scores, in both runtimes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, made_images, write_images

from sapatchcore import ModelFileError, SAPatchCore, SettingsError
from sapatchcore.export import onnx_file
from sapatchcore.export.export import cpu_embedder, export_model, together_graph
from sapatchcore.export.runtime import Session, open_exported

OPTIONS: dict[str, Any] = {
    **SMALL,
    "backbone": "test_resnet+test_vit",  # a grid of 8×8 and one of 4×4
    "metric": "whitened+euclidean",
    "coreset_ratio": 0.1,
    "attention": "none",
    "image_score": "smoothed",
    "global_part": "pooled",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SAPatchCore:
    """Two networks that learned ten textures; not to be changed."""
    return SAPatchCore(**OPTIONS).fit(write_images(tmp_path_factory.mktemp("pair") / "good", made_images(10)))


@pytest.fixture(scope="module")
def program(pair: SAPatchCore) -> Any:
    """What PyTorch's exporter makes of it."""
    for needed in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")
    networks = [(cpu_embedder(one), one.bank) for one in pair.networks]
    graph, _ = together_graph(pair, networks, pair.calibration)
    return onnx_file.onnx_model(graph, opset=onnx_file.OPSET, backbone=pair.settings.backbone)


@pytest.mark.parametrize("name", ["pair.onnx", "pair.xml"])
def test_a_file_gives_the_detector_s_scores(
    name: str, pair: SAPatchCore, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "onnx_model", lambda *_, **__: onnx_file.copied(program))
    said = export_model(pair, tmp_path / name)
    assert said["check"]["images"] > 6
    assert said["check"]["verdicts"] == said["check"]["images"]
    assert max(said["check"]["different"].values()) <= 1e-3
    assert said["bank"] == [[64, 240], [16, 128]]
    assert said["grid"] == [8, 8]
    assert said["settings"]["backbone"] == "test_resnet+test_vit"
    found, images = open_exported(tmp_path / name), made_images(3, (70, 90), seed=5)
    assert found.threshold(0.2) == pytest.approx(pair.threshold(0.2))
    result, expected = found.predict(images), pair.predict(images)
    for each in ("scores", "patch_scores", "local_patches", "context_scores", "global_scores"):
        np.testing.assert_allclose(getattr(result, each), getattr(expected, each), rtol=1e-3, err_msg=each)
    np.testing.assert_array_equal(result.neighbours, expected.neighbours)
    np.testing.assert_allclose(result.maps[0], expected.maps[0], rtol=1e-3, atol=1e-4)
    assert [one.kind for one in result.verdicts(0.2)] == [one.kind for one in expected.verdicts(0.2)]


def session_of(graph: Any, check: Any) -> Session:
    """The graph itself, by PyTorch, in a runtime's place."""

    @torch.inference_mode()
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = graph(torch.from_numpy(np.ascontiguousarray(images)))
        return {name: one.numpy() for name, one in zip((*graph.outputs, *graph.inner), found, strict=True)}

    assert set(check.asks) == set(graph.inner)
    return Session(run, None, "PyTorch")


def test_the_graph_of_three_networks_and_the_check_that_a_wrong_one_fails() -> None:
    options = {
        **SMALL,
        "coreset_ratio": 0.1,
        "backbone": "test_vit+test_resnet+test_efficientnet",
        "temperature": "auto",
    }
    detector = SAPatchCore(**options).fit(made_images(6))
    networks = [(cpu_embedder(one), one.bank) for one in detector.networks]
    graph, check = together_graph(detector, networks, detector.calibration)
    images = list(made_images(2, (50, 70), seed=3))
    found = check.compare(session_of(graph, check), images, "made", strict=True)
    assert found.images == found.verdicts == 2
    assert max(found.different.values()) < 1e-4
    graph._scale = replace(detector.scale, units=(*detector.scale.units[:2], 1.01 * detector.scale.units[2]))
    with pytest.raises(ModelFileError, match="away from the detector's own"):
        check.compare(session_of(graph, check), images, "made", strict=True)


def test_shorter_numbers_are_refused(pair: SAPatchCore, tmp_path: Path) -> None:
    for option in ("precision", "bank_precision"):
        with pytest.raises(SettingsError, match="one network alone"):
            export_model(pair, tmp_path / "pair.onnx", **{option: "int8"})
    assert not list(tmp_path.iterdir())
