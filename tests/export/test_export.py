"""The exported file gives predict's numbers, or is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for needed in ("torch", "onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")

from exporting import program_of, use  # noqa: E402 - these need the packages above

from sapatchcore import SAPatchCore  # noqa: E402
from sapatchcore.errors import ModelFileError, NotFittedError, SAPatchCoreError, SettingsError  # noqa: E402
from sapatchcore.export import export  # noqa: E402
from sapatchcore.export.export import export_model  # noqa: E402
from sapatchcore.export.metadata import METADATA, OUTPUTS, SUFFIXES  # noqa: E402
from sapatchcore.export.runtime import describe_exported, open_exported  # noqa: E402

FILES = ("model.onnx", "model.xml")
NUMBERS = (
    *("scores", "local_scores", "context_scores"),
    *("patch_scores", "local_patches", "context_patches"),
)


def assert_same(detector: SAPatchCore, path: Path, images: Any) -> None:
    ours, theirs = detector.predict(images), open_exported(path, threads=1).predict(images)
    largest = float(ours.patch_scores.max())
    for name in NUMBERS:
        expected, got = getattr(ours, name), getattr(theirs, name)
        assert (got.dtype, got.shape) == (np.float32, expected.shape), name
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * largest, err_msg=name)
    np.testing.assert_array_equal(theirs.neighbours, ours.neighbours)
    assert (theirs.neighbours.dtype, theirs.paths, theirs.sizes) == (np.int64, ours.paths, ours.sizes)
    for own, other in zip(ours.maps, theirs.maps, strict=True):
        np.testing.assert_allclose(other, own, atol=1e-4 * largest)
    np.testing.assert_array_equal(theirs.p_values, ours.p_values)
    assert [one.rejected for one in theirs.verdicts()] == [one.rejected for one in ours.verdicts()]
    assert [one.kind for one in theirs.verdicts()] == [one.kind for one in ours.verdicts()]


def odd(images: Any) -> list[Any]:
    """Images of several sizes: some in a row alike, one smaller than the network's input, one a few pixels wide."""
    sizes = [(64, 64), (100, 90), (100, 90), (33, 210), (100, 90), (500, 5)]
    return [images(1, size, seed)[0] for seed, size in enumerate(sizes, start=20)]


@pytest.mark.parametrize("name", FILES)
def test_images_of_any_size_and_number(tiny: SAPatchCore, exported: Path, images: Any, name: str) -> None:
    assert_same(tiny, exported / name, odd(images))
    assert_same(tiny, exported / name, images(5, seed=5))
    assert_same(tiny, exported / name, 255 - images(1, seed=5))  # a defect


OTHER_OPTIONS = {
    "image_score": "reweighted",
    "temperature": 0.25,
    "context_weight": 0.5,
    "metric": "whitened",
    "resize": (80, 96),
    "crop": (64, 80),
}
TILED = {"resize": (160, 208), "tiles": 160}


@pytest.mark.parametrize(
    ("options", "opset"),
    [
        ({"backbone": "test_convnext", **OTHER_OPTIONS}, 17),
        ({"backbone": "test_vit", "attention": "none", **TILED}, 20),
    ],
    ids=["convnext", "vit in tiles"],
)
def test_settings_networks_and_opsets(
    small: dict[str, Any],
    good: Any,
    images: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    opset: int,
) -> None:
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.1, **options}).fit(good[:6])
    use(program_of(detector, opset), monkeypatch)
    for name in ("m.xml", "m.onnx"):
        metadata = export_model(detector, tmp_path / name, opset=opset)
        assert_same(detector, tmp_path / name, odd(images))
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert {one.domain: one.version for one in model.opset_import}[""] == opset == metadata["opset"]


@pytest.mark.usefixtures("exporter_done")
def test_without_calibration_there_is_no_p_value(tiny: SAPatchCore, images: Any, tmp_path: Path) -> None:
    bare = SAPatchCore(**tiny.settings.model_dump())
    bare.embedder, bare._bank = tiny.embedder, tiny._bank
    metadata = export_model(bare, tmp_path / "m.onnx")
    assert "p_value" not in metadata["outputs"]
    assert metadata["calibration_scores"] == "none: the file gives no p_value and no verdicts"
    exported = open_exported(tmp_path / "m.onnx")
    assert not exported.is_calibrated
    result = exported.predict(images(2))
    np.testing.assert_allclose(result.scores, tiny.predict(images(2)).scores, rtol=1e-5)
    for ask in (lambda: exported.calibration, exported.threshold, result.verdicts):
        with pytest.raises(NotFittedError, match="no scores of good images"):
            ask()


def test_what_a_file_takes_and_gives(exported: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("images", "tensor(uint8)", ["n", "h", "w", 3])
    assert tuple(one.name for one in session.get_outputs()) == OUTPUTS
    found = dict(zip(OUTPUTS, session.run(None, {"images": np.zeros((2, 30, 40, 3), np.uint8)}), strict=True))
    assert {name: (value.shape, value.dtype.name) for name, value in found.items()} == {
        **dict.fromkeys(("score", "local_score", "context_score", "p_value", "global_score"), ((2,), "float32")),
        **dict.fromkeys(("patch_scores", "local_patches", "context_patches", "global_patches"), ((2, 8, 8), "float32")),
        "neighbours": ((2, 8, 8), "int64"),
        "map": ((2, 30, 40), "float32"),
    }
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(exported / "model.xml")
    assert [one.get_any_name() for one in model.outputs] == list(OUTPUTS)
    assert str(model.input(0).get_partial_shape()) == "[?,?,?,3]"


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_says_of_itself(exported: Path, tiny: SAPatchCore, name: str) -> None:
    metadata = describe_exported(exported / name)
    assert metadata["settings"]["backbone"] == tiny.settings.backbone
    assert {"sapatchcore", "torch", "onnx", "pillow"} <= set(metadata["versions"])
    assert (metadata["format"], metadata["kind"], metadata["model_sha256"]) == (
        2,
        SUFFIXES[Path(name).suffix],
        "ab" * 32,
    )
    assert metadata["precision"] == {"network": "float32", "bank": "float32"}
    assert metadata["calibration"]["threshold"] == tiny.predict(np.zeros((1, 64, 64, 3), np.uint8)).threshold()
    assert metadata["calibration_scores"] == "the model's own"
    found = metadata["check"]
    assert found["images"] == 16  # ten thumbnails and six made ones
    assert set(found["different"]) == set(OUTPUTS)
    of_places = found["different"].pop("global_patches")  # each the rest of large sums that nearly cancel
    assert of_places < 1e-4
    assert max(found["different"].values()) < 1e-5
    assert (found["verdicts"], found["other_verdicts"], found["other_kinds"]) == (16, 0, 0)


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_nothing_of_this_machine(exported: Path, name: str) -> None:
    content = (exported / name).read_bytes()
    for text in (str(Path(export.__file__).parent), sys.prefix, str(Path.home()) + "/", "stack_trace"):
        assert text.encode() not in content


@pytest.mark.usefixtures("exporter_done")
def test_the_same_detector_gives_the_same_file(exported: Path, tiny: SAPatchCore, tmp_path: Path) -> None:
    export_model(tiny, tmp_path / "again.onnx", source_sha256="ab" * 32)
    assert (tmp_path / "again.onnx").read_bytes() == (exported / "model.onnx").read_bytes()


def test_the_metadata_is_json(exported: Path) -> None:
    onnx = pytest.importorskip("onnx")
    entries = {one.key: one.value for one in onnx.load(exported / "model.onnx").metadata_props}
    assert set(entries) == {METADATA, "sapatchcore.seal"}
    assert json.loads(entries[METADATA])["format"] == 2


def test_what_cannot_be_exported(tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFittedError):
        export_model(SAPatchCore(), tmp_path / "m.onnx")
    for options, sentence in (
        ({"opset": 11}, r"opset must be from 17 to \d+\. Got 11\. Use 18\."),
        ({"precision": "float8"}, r"precision must be float32, float16, bfloat16, int8\. Got 'float8'\."),
        ({"bank_precision": "int4"}, r"bank_precision must be .* Did you mean 'int8'\?"),
        ({"kind": "openvno"}, r"format must be onnx or openvino\. Got 'openvno'\. Did you mean 'openvino'\?"),
        ({"kind": "openvino"}, r"name must end in \.xml for openvino\. Got m\.onnx\."),
    ):
        with pytest.raises(SettingsError, match=sentence):
            export_model(tiny, tmp_path / "m.onnx", **options)
    with pytest.raises(SettingsError, match=r"must end in \.onnx for onnx or \.xml for openvino\. Got m\.pt\."):
        export_model(tiny, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"there is no folder .*none"):
        export_model(tiny, tmp_path / "none" / "m.onnx")
    monkeypatch.setattr(export, "_LARGEST", 100_000)
    with pytest.raises(ModelFileError, match=r"one file holds up to 2 GB"):
        export_model(tiny, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_exporter_leaves_nothing(tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ModelFileError, match=r"test_resnet cannot be exported to ONNX with torch .*: no such operator"):
        export_model(tiny, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [("onnxscript", "onnx", "onnx, onnxscript and onnxruntime"), ("openvino", "xml", "onnx, onnxscript and openvino")],
)
def test_a_missing_package(
    name: str, kind: str, sentence: str, tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SAPatchCoreError, match=rf'^Exporting needs {sentence}: pip install "sapatchcore\[export\]"$'):
        export_model(tiny, tmp_path / f"m.{kind}")
    assert list(tmp_path.iterdir()) == []
