"""The exported file gives predict's numbers, or is not written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

for needed in ("torch", "onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")

from exporting import given, program_of  # noqa: E402 - these need the packages above

from sapatchcore import SAPatchCore  # noqa: E402
from sapatchcore.errors import ModelFileError, NotFittedError, SAPatchCoreError, SettingsError  # noqa: E402
from sapatchcore.export import (  # noqa: E402
    check,
    export,
    openvino_file,
)
from sapatchcore.export.export import export_model  # noqa: E402
from sapatchcore.export.metadata import METADATA, OUTPUTS  # noqa: E402
from sapatchcore.export.runtime import describe_exported, open_exported  # noqa: E402
from sapatchcore.export.sessions import Session  # noqa: E402

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


@pytest.fixture(scope="module")
def program(fitted: SAPatchCore) -> Any:
    return program_of(fitted)


@pytest.fixture(scope="module")
def files(fitted: SAPatchCore, program: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the detector ``fitted`` as ONNX and OpenVINO."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        given(program, patch)
        for name in FILES:
            export_model(fitted, folder / name, source_sha256="ab" * 32)
    return folder


# ------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", FILES)
def test_images_of_any_size_and_number(fitted: SAPatchCore, files: Path, images: Any, name: str) -> None:
    assert_same(fitted, files / name, odd(images))
    assert_same(fitted, files / name, images(5, seed=5))
    assert_same(fitted, files / name, 255 - images(1, seed=5))  # a defect


@pytest.mark.parametrize(
    ("options", "opset"),
    [
        ({"attention": "none", "image_score": "reweighted"}, 17),
        ({"temperature": 0.25, "context_weight": 0.5, "resize": (80, 96), "crop": (64, 80)}, 20),
        ({"backbone": "convnext_atto"}, 18),
        ({"backbone": "test_vit"}, 18),
    ],
)
def test_settings_networks_and_opsets(
    small: dict[str, Any], good: Any, images: Any, tmp_path: Path, options: dict[str, Any], opset: int
) -> None:
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.1, **options}).fit(good[:6])
    facts = export_model(detector, tmp_path / "m.onnx", opset=opset)
    assert_same(detector, tmp_path / "m.onnx", odd(images))
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert {one.domain: one.version for one in model.opset_import}[""] == opset == facts["opset"]


def test_without_calibration_there_is_no_p_value(
    fitted: SAPatchCore, program: Any, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    bare = SAPatchCore(**fitted.settings.model_dump())
    bare.embedder, bare._bank = fitted.embedder, fitted._bank
    facts = export_model(bare, tmp_path / "m.onnx")
    assert "p_value" not in facts["outputs"]
    assert facts["calibration_scores"] == "none: the file gives no p_value and no verdicts"
    exported = open_exported(tmp_path / "m.onnx")
    assert not exported.is_calibrated
    result = exported.predict(images(2))
    np.testing.assert_allclose(result.scores, fitted.predict(images(2)).scores, rtol=1e-5)
    for ask in (lambda: exported.calibration, exported.threshold, result.verdicts):
        with pytest.raises(NotFittedError, match="no scores of good images"):
            ask()


# --------------------------------------------------------------------------------------------- the file


def test_what_a_file_takes_and_gives(files: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(files / "model.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("images", "tensor(uint8)", ["n", "h", "w", 3])
    assert tuple(one.name for one in session.get_outputs()) == OUTPUTS
    found = dict(zip(OUTPUTS, session.run(None, {"images": np.zeros((2, 30, 40, 3), np.uint8)}), strict=True))
    assert {name: (value.shape, value.dtype.name) for name, value in found.items()} == {
        **dict.fromkeys(("score", "local_score", "context_score", "p_value"), ((2,), "float32")),
        **dict.fromkeys(("patch_scores", "local_patches", "context_patches"), ((2, 8, 8), "float32")),
        "neighbours": ((2, 8, 8), "int64"),
        "map": ((2, 30, 40), "float32"),
    }
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(files / "model.xml")
    assert [one.get_any_name() for one in model.outputs] == list(OUTPUTS)
    assert str(model.input(0).get_partial_shape()) == "[?,?,?,3]"


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_says_of_itself(files: Path, fitted: SAPatchCore, name: str) -> None:
    facts = describe_exported(files / name)
    assert facts["settings"]["backbone"] == fitted.settings.backbone
    assert {"sapatchcore", "torch", "onnx", "pillow"} <= set(facts["versions"])
    assert (facts["format"], facts["kind"], facts["model_sha256"]) == (2, SUFFIX_KINDS[Path(name).suffix], "ab" * 32)
    assert facts["precision"] == {"network": "float32", "bank": "float32"}
    assert facts["calibration"]["threshold"] == fitted.predict(np.zeros((1, 64, 64, 3), np.uint8)).threshold()
    assert facts["calibration_scores"] == "the model's own"
    found = facts["check"]
    assert found["images"] == 16  # ten thumbnails and six made ones
    assert set(found["different"]) == set(OUTPUTS)
    assert max(found["different"].values()) < 1e-5
    assert (found["verdicts"], found["other_verdicts"], found["other_kinds"]) == (16, 0, 0)


SUFFIX_KINDS = {".onnx": "onnx", ".xml": "openvino"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_nothing_of_this_machine(files: Path, name: str) -> None:
    content = (files / name).read_bytes()
    for text in (str(Path(export.__file__).parent), sys.prefix, str(Path.home()) + "/", "stack_trace"):
        assert text.encode() not in content


def test_the_bank_and_the_network_are_in_the_file_once(files: Path, fitted: SAPatchCore) -> None:
    tensors = sum(value.nbytes for value in fitted.embedder.network.weights.values()) + fitted.memory_bank.nbytes
    assert (files / "model.onnx").stat().st_size < tensors + 700_000
    assert (files / "model.bin").stat().st_size < tensors + 400_000
    assert sorted(path.name for path in files.iterdir()) == ["model.bin", "model.onnx", "model.xml"]


def test_the_same_detector_gives_the_same_file(
    files: Path, fitted: SAPatchCore, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    export_model(fitted, tmp_path / "again.onnx", source_sha256="ab" * 32)
    assert (tmp_path / "again.onnx").read_bytes() == (files / "model.onnx").read_bytes()


# ------------------------------------------------------------------------------------------- the check


class Wrong:
    """A session whose ``output`` is a little off."""

    def __init__(self, output: str, factor: float) -> None:
        self.output, self.factor = output, factor

    def __call__(self, *args: Any, **options: Any) -> Session:
        found = SESSION(*args, **options)

        def run(images: Any) -> Any:
            values = found.run(images)
            value = values[self.output]
            values[self.output] = np.roll(value, 1) if self.output == "neighbours" else value * np.float32(self.factor)
            return values

        return Session(run, found.metadata, found.runtime)


SESSION = export.onnx_session


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_with_other_numbers_is_not_written(
    output: str, fitted: SAPatchCore, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    target = tmp_path / "m.onnx"
    target.write_bytes(b"before")
    monkeypatch.setattr(export, "onnx_session", Wrong(output, 1.002))
    with pytest.raises(ModelFileError, match=rf"The file's {output} of .* is .* away from the detector's own"):
        export_model(fitted, target)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_bytes() == b"before"


def test_differences_within_the_tolerance_are_written_and_told(
    fitted: SAPatchCore, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    monkeypatch.setattr(export, "onnx_session", Wrong("map", 1.0005))
    found = export_model(fitted, tmp_path / "m.onnx")["check"]
    assert 4e-4 < found["different"]["map"] < 6e-4


def checker(fitted: SAPatchCore) -> check.Check:
    known = fitted.calibration
    return check.Check(export._on_cpu(fitted), fitted.bank, known, known)


def outputs_of(fitted: SAPatchCore, image: Any) -> Any:
    """What a file that agrees to the last digit gives."""
    result = fitted.predict(image)
    return {
        "score": result.scores,
        "local_score": result.local_scores,
        "context_score": result.context_scores,
        "patch_scores": result.patch_scores,
        "local_patches": result.local_patches,
        "context_patches": result.context_patches,
        "neighbours": result.neighbours,
        "map": np.stack(list(result.maps)),
        "p_value": result.p_values.astype(np.float32),
    }


def test_a_verdict_that_tips_is_found_however_small_the_difference(fitted: SAPatchCore, good: Any) -> None:
    """A score within the tolerance, but on the other side of the threshold."""
    image, session = 255 - good[:1], Session(lambda _: values, None, "a runtime")
    values = outputs_of(fitted, image)
    one = checker(fitted)
    assert one.compare(session, list(image), "one", strict=True).other_verdicts == 0
    # Calibration scores just below and above what the two say.
    score = float(values["score"][0])
    known = fitted.calibration
    for factor, own_p, other_p in ((0.9998, 1 / 11, 1.0), (1.0002, 1.0, 1 / 11)):
        near = np.full_like(known.scores, score * factor)
        one._known = one._of_file = type(known)(**{**vars(known), "scores": near})
        values = outputs_of(fitted, image)
        values["score"] = values["score"] * np.float32(factor**2)  # 4e-4 away
        values["p_value"] = np.float32([own_p])
        with pytest.raises(ModelFileError, match=r"verdict on a 64×64 .* is another"):
            one.compare(session, list(image), "one", strict=True)
        assert one.compare(session, list(image), "one", strict=False).other_verdicts == 1
        values["p_value"] = np.float32([other_p])
        with pytest.raises(ModelFileError, match=r"The file's p_value of a 64×64 "):
            one.compare(session, list(image), "one", strict=True)


def test_an_image_on_the_threshold_itself_may_go_either_way(fitted: SAPatchCore, good: Any) -> None:
    image = 255 - good[:1]
    values = outputs_of(fitted, image)
    score, known, one = float(values["score"][0]), fitted.calibration, checker(fitted)
    one._known = one._of_file = type(known)(**{**vars(known), "scores": np.full_like(known.scores, score)})
    for factor, p in ((1 + 2e-7, 1 / 11), (1 - 2e-7, 1.0)):
        values = {**values, "score": np.float32([score * factor]), "p_value": np.float32([p])}
        found = one.compare(Session(lambda _: values, None, "a runtime"), list(image), "one", strict=True)  # noqa: B023
        assert (found.on_the_line, found.other_verdicts, found.verdicts) == (1, 0, 1)


def test_images_to_check_on(
    fitted: SAPatchCore, program: Any, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    found = export_model(fitted, tmp_path / "m.onnx", check=image_folder)["check"]
    assert found["source"] == "10 images of good and 6 made images of odd sizes"
    assert found["images"] == 16
    (image_folder / "05.png").write_bytes(b"no image")
    with pytest.raises(SAPatchCoreError, match=r"05\.png"):
        export_model(fitted, tmp_path / "other.onnx", check=image_folder)
    assert not (tmp_path / "other.onnx").exists()


# ------------------------------------------------------------------------------------------ precisions


@pytest.fixture(scope="module")
def by_files(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> SAPatchCore:
    """Learned from files, so that they are at hand later; with a network that can be brought to int8."""
    from conftest import made_images

    folder = tmp_path_factory.mktemp("parts") / "good"
    folder.mkdir()
    for number, image in enumerate(made_images(12, (80, 72))):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    options = {**small, "backbone": "builtin", "weights": "pretrained", "coreset_ratio": 0.2}
    return SAPatchCore(**options).fit(folder)


@pytest.fixture(scope="module")
def its_program(by_files: SAPatchCore) -> Any:
    return program_of(by_files)


@pytest.mark.parametrize(
    ("name", "precision", "within", "share"),
    [
        ("m.onnx", "float16", 2e-3, 0.6),
        ("m.onnx", "bfloat16", 2e-2, 0.6),
        ("m.onnx", "int8", 0.3, 0.45),
        ("m.xml", "float16", 2e-3, 0.6),
        ("m.xml", "int8", 0.3, 0.45),
    ],
)
def test_shorter_networks_are_measured_and_calibrated_anew(
    by_files: SAPatchCore,
    its_program: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: str,
    within: float,
    share: float,
) -> None:
    if precision == "int8" and name == "m.xml":
        pytest.importorskip("nncf", reason="nncf is not installed: install the extra export")
    given(its_program, monkeypatch)
    export_model(by_files, tmp_path / f"full{Path(name).suffix}")
    facts = export_model(by_files, tmp_path / name, precision=precision)
    assert facts["precision"] == {"network": precision, "bank": "float32"}
    assert facts["calibration_scores"] == "taken anew with this file"
    found = facts["check"]
    assert found["images"] == 12  # thumbnails alone
    assert 1e-6 < found["different"]["score"] < within
    size = {one: sum(file.stat().st_size for file in tmp_path.glob(f"{one}.*")) for one in ("full", "m")}
    assert size["m"] < share * size["full"] + 400_000
    exported = open_exported(tmp_path / name, threads=1)
    # Its thresholds are those of its own scores, from the good images without their own rows.
    known, own = exported.calibration, by_files.calibration
    assert 0 < np.abs(known.scores - own.scores).max() < within * own.scores.max()
    defect = np.random.default_rng(0).integers(0, 256, (80, 72, 3), dtype=np.uint8)
    result = exported.predict([defect])
    assert result.verdicts()[0].rejected
    values = exported._session.run(defect[None])
    assert values["score"][0] == result.scores[0]
    full = export._session(SUFFIX_KINDS[Path(name).suffix], _reread(tmp_path / name))
    p = full.run(defect[None])["p_value"]
    np.testing.assert_array_equal(p, result.p_values.astype(np.float32))


def _reread(path: Path) -> Any:
    if path.suffix == ".onnx":
        return pytest.importorskip("onnx").load(path)
    return pytest.importorskip("openvino").Core().read_model(path)


def test_a_short_network_without_the_calibration_images_says_so(
    fitted: SAPatchCore, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    facts = export_model(fitted, tmp_path / "m.onnx", precision="float16")
    assert "10 of its 10 images are not at hand" in facts["calibration_scores"]
    np.testing.assert_array_equal(open_exported(tmp_path / "m.onnx").calibration.scores, fitted.calibration.scores)


def test_int8_needs_good_images(
    fitted: SAPatchCore, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(program, monkeypatch)
    fitted.save(tmp_path / "m.safetensors", include_thumbnails=False)
    with pytest.raises(ModelFileError, match="int8 needs good images"):
        export_model(SAPatchCore.load(tmp_path / "m.safetensors"), tmp_path / "m.onnx", precision="int8")


# ------------------------------------------------------------------------------------------- what fails


def test_what_cannot_be_exported(fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            export_model(fitted, tmp_path / "m.onnx", **options)
    with pytest.raises(SettingsError, match=r"must end in \.onnx for onnx or \.xml for openvino\. Got m\.pt\."):
        export_model(fitted, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"there is no folder .*none"):
        export_model(fitted, tmp_path / "none" / "m.onnx")
    monkeypatch.setattr(export, "_LARGEST", 1_000_000)
    with pytest.raises(ModelFileError, match=r"one file holds up to 2 GB"):
        export_model(fitted, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_exporter_leaves_nothing(
    fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ModelFileError, match=r"resnet18 cannot be exported to ONNX with torch .*: no such operator"):
        export_model(fitted, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [("onnxscript", "onnx", "onnx, onnxscript and onnxruntime"), ("openvino", "xml", "onnx, onnxscript and openvino")],
)
def test_a_missing_package(
    name: str, kind: str, sentence: str, fitted: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SAPatchCoreError, match=rf'^Exporting needs {sentence}: pip install "sapatchcore\[export\]"$'):
        export_model(fitted, tmp_path / f"m.{kind}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["m.xml", "m.bin"])
@pytest.mark.parametrize("before", [True, False])
def test_both_of_openvinos_files_or_none(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, before: bool
) -> None:
    if before:
        shutil.copy(files / "model.xml", tmp_path / "m.xml")
        shutil.copy(files / "model.bin", tmp_path / "m.bin")
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == failing and self.suffix == ".part":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ModelFileError, match=r"m\.xml cannot be written: No space left on device"):
        openvino_file.write_both(tmp_path / "m.xml", b"new", b"newer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there
    monkeypatch.undo()
    openvino_file.write_both(tmp_path / "m.xml", b"new", b"newer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"m.xml": b"new", "m.bin": b"newer"}


def test_the_metadata_is_json(files: Path) -> None:
    onnx = pytest.importorskip("onnx")
    entries = {one.key: one.value for one in onnx.load(files / "model.onnx").metadata_props}
    assert set(entries) == {METADATA, "sapatchcore.seal"}
    assert json.loads(entries[METADATA])["format"] == 2
