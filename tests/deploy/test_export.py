"""The ONNX file gives predict's numbers, or is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sapatchcore import SAPatchCore
from sapatchcore.deploy import export
from sapatchcore.deploy.export import export_onnx
from sapatchcore.deploy.graph import OUTPUTS, plain_attention
from sapatchcore.deploy.runtime import METADATA, open_session, predict_onnx
from sapatchcore.embed.attention import self_attention
from sapatchcore.errors import DataError, ModelFileError, NotFittedError, SAPatchCoreError, SettingsError

for needed in ("onnx", "onnxscript"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: pip install sapatchcore[export]")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install sapatchcore[export]")
torch = pytest.importorskip("torch")

NUMBERS = (
    *("scores", "local_scores", "context_scores"),
    *("patch_scores", "local_patches", "context_patches"),
)


def assert_same(detector: SAPatchCore, path: Path, images: Any) -> None:
    ours, theirs = detector.predict(images), predict_onnx(path, images)
    for name in NUMBERS:
        expected, got = getattr(ours, name), getattr(theirs, name)
        assert (got.dtype, got.shape) == (np.float32, expected.shape), name
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(ours.patch_scores.max()), err_msg=name)
    np.testing.assert_array_equal(theirs.neighbours, ours.neighbours)
    assert theirs.neighbours.dtype == np.int64
    assert (theirs.paths, theirs.sizes, theirs.resize, theirs.crop) == (
        ours.paths,
        ours.sizes,
        ours.resize,
        ours.crop,
    )
    np.testing.assert_allclose(theirs.maps[0], ours.maps[0], atol=1e-3 * float(ours.maps[0].max()))


def learned(small: dict[str, Any], good: Any, **options: Any) -> SAPatchCore:
    return SAPatchCore(**{**small, "coreset_ratio": 0.1, **options}).fit(good[:6])


@pytest.fixture(scope="module")
def exported(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(fitted, path)
    return path


# ------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("count", [1, 3, 5])
def test_one_file_for_any_number_of_images(fitted: SAPatchCore, exported: Path, images: Any, count: int) -> None:
    assert_same(fitted, exported, images(count, seed=5))


@pytest.mark.parametrize(
    ("options", "opset"),
    [
        ({"attention": "none"}, 18),
        ({"temperature": 0.25, "context_weight": 0.5}, 18),
        ({"backbone": "builtin", "weights": "pretrained"}, 18),
        ({"image_score": "reweighted", "neighbors": 3}, 18),
        ({"attention": "none", "image_score": "reweighted"}, 17),
        ({"resize": (80, 96), "crop": (64, 80)}, 20),
    ],
)
def test_settings_and_opsets(
    small: dict[str, Any], good: Any, images: Any, tmp_path: Path, options: dict[str, Any], opset: int
) -> None:
    detector = learned(small, good, **options)
    export_onnx(detector, tmp_path / "m.onnx", opset=opset)
    assert_same(detector, tmp_path / "m.onnx", images(3, size=(100, 90), seed=6))
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert {one.domain: one.version for one in model.opset_import}[""] == opset


@pytest.mark.parametrize("backbone", ["convnext_atto", "test_vit"])
def test_other_networks(backbone: str, small: dict[str, Any], good: Any, images: Any, tmp_path: Path) -> None:
    detector = learned(small, good, backbone=backbone)
    export_onnx(detector, tmp_path / "m.onnx")
    assert_same(detector, tmp_path / "m.onnx", images(3, seed=6))


def test_a_good_image_of_a_whole_bank_has_distance_zero(small: dict[str, Any], good: Any, tmp_path: Path) -> None:
    detector = learned(small, good, coreset_ratio=1)
    export_onnx(detector, tmp_path / "m.onnx")
    far = predict_onnx(tmp_path / "m.onnx", 255 - good[:6]).scores.min()
    assert predict_onnx(tmp_path / "m.onnx", good[:6]).patch_scores.max() < 1e-4 * far


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 7, 5, 4, generator=torch.Generator().manual_seed(0)) * 3
    expected = self_attention(x)
    torch.testing.assert_close(plain_attention(x), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("sapatchcore.deploy.graph._ATTENTION", 2 * 20**2)  # two channels at a time
    torch.testing.assert_close(plain_attention(x), expected, rtol=1e-4, atol=1e-4)


def test_a_large_bank_is_met_in_slices(
    fitted: SAPatchCore, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sapatchcore.deploy.graph._PRODUCT", 10 * len(fitted.memory_bank))  # ten patches at a time
    export_onnx(fitted, tmp_path / "m.onnx")
    assert_same(fitted, tmp_path / "m.onnx", images(2, seed=7))


def test_half_precision_is_exported_in_full(small: dict[str, Any], good: Any, images: Any, tmp_path: Path) -> None:
    detector = learned(small, good, precision="bfloat16")
    export_onnx(detector, tmp_path / "m.onnx")
    ours = detector.predict(images(2, seed=6)).scores
    np.testing.assert_allclose(predict_onnx(tmp_path / "m.onnx", images(2, seed=6)).scores, ours, rtol=0.1)


# --------------------------------------------------------------------------------------------- the file


def test_inputs_outputs_and_what_the_file_says(exported: Path, fitted: SAPatchCore) -> None:
    session = runtime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == ("images", "tensor(uint8)", [64, 64, 3])
    assert tuple(one.name for one in session.get_outputs()) == OUTPUTS
    facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert facts["settings"]["backbone"] == fitted.settings.backbone
    assert {"sapatchcore", "torch", "onnx", "onnxruntime"} <= set(facts["versions"])


def test_one_file_with_the_bank_once(exported: Path, fitted: SAPatchCore) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    tensors = sum(value.nbytes for value in fitted._pipeline.network.weights.values()) + fitted.memory_bank.nbytes
    assert exported.stat().st_size < tensors + 300_000


def test_a_folder_of_images(exported: Path, fitted: SAPatchCore, image_folder: Path) -> None:
    assert_same(fitted, exported, image_folder)
    with pytest.raises(DataError, match="No image"):
        predict_onnx(exported, [])


# ------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_with_other_numbers_is_refused(
    output: str, exported: Path, fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"before")

    def program(*_: Any) -> Any:  # what the exporter gave for this detector
        return SimpleNamespace(
            model=SimpleNamespace(metadata_props={}),
            save=lambda part, **_: part.write_bytes(exported.read_bytes()),
        )

    class Wrong:
        def __init__(self, path: Path) -> None:
            self.session = open_session(path)

        def run(self, names: list[str], given: dict[str, Any]) -> list[Any]:
            values = self.session.run(names, given)
            at = OUTPUTS.index(output)
            values[at] = np.roll(values[at], 1) if output == "neighbours" else values[at] * np.float32(1.01)
            return values

    monkeypatch.setattr(export, "_program", program)
    monkeypatch.setattr(export, "open_session", Wrong)
    with pytest.raises(ModelFileError, match=rf"The ONNX file's {output} is .* away from the detector's own"):
        export_onnx(fitted, target)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_bytes() == b"before"
    monkeypatch.setattr(export, "open_session", open_session)
    export_onnx(fitted, target)  # the same without the deviation
    assert target.read_bytes() == exported.read_bytes()


def test_a_failing_exporter_leaves_nothing(
    fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ModelFileError, match=r"resnet18 cannot be exported to ONNX with torch .*: no such operator"):
        export_onnx(fitted, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", export.PACKAGES)
def test_a_missing_package(name: str, fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    sentence = r"^Exporting needs onnx, onnxscript and onnxruntime: pip install sapatchcore\[export\]$"
    with pytest.raises(SAPatchCoreError, match=sentence):
        export_onnx(fitted, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFittedError):
        export_onnx(SAPatchCore(), tmp_path / "m.onnx")
    with pytest.raises(SettingsError, match=r"opset must be from 17 to \d+\. Got 11\. Use 18\."):
        export_onnx(fitted, tmp_path / "m.onnx", opset=11)
    monkeypatch.setattr(export, "_LARGEST", 1_000_000)
    with pytest.raises(ModelFileError, match=r"one file holds up to 2 GB"):
        export_onnx(fitted, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(fitted: SAPatchCore, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"m\.onnx cannot be written: No such file or directory"):
        export_onnx(fitted, tmp_path / "none" / "m.onnx")


def test_files_that_are_no_export(exported: Path, tmp_path: Path, good: Any) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        predict_onnx(tmp_path / "m.onnx", good)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(ModelFileError, match="is cut off or no ONNX file"):
        predict_onnx(cut, good)
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ModelFileError, match="not one that sapatchcore exported"):
        predict_onnx(tmp_path / "bare.onnx", good)
    onnx.helper.set_model_props(model, {METADATA: json.dumps({"format": 99, "settings": {}})})
    onnx.save(model, tmp_path / "newer.onnx")
    with pytest.raises(ModelFileError, match="has the format 99"):
        predict_onnx(tmp_path / "newer.onnx", good)


def test_scoring_without_onnxruntime(exported: Path, good: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SAPatchCoreError, match="needs onnxruntime: pip install"):
        predict_onnx(exported, good)
