"""Exported files on the line: opened, refused, scored, without PyTorch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

for needed in ("torch", "onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")

from command import run  # noqa: E402
from damage import damaged  # noqa: E402 - these need the packages above

from sapatchcore import SAPatchCore  # noqa: E402
from sapatchcore.errors import DataError, ModelFileError, SAPatchCoreError, SettingsError  # noqa: E402
from sapatchcore.export import runtime  # noqa: E402
from sapatchcore.export.metadata import CHECKSUM, METADATA, ZEROS, files_of, with_checksum  # noqa: E402
from sapatchcore.export.runtime import full_size_batches, open_exported  # noqa: E402

FILES = ("model.onnx", "model.xml")
DAMAGED = 500


def copied(exported: Path, name: str, to: Path) -> Path:
    """The file, and what belongs to it."""
    for file in files_of(exported / name):
        (to / file.name).write_bytes(file.read_bytes())
    return to / name


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.bin"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_cut_and_flipped_files_are_refused(exported: Path, tmp_path: Path, name: str, share: float) -> None:
    opened = "model.xml" if name == "model.bin" else name
    path = copied(exported, opened, tmp_path)
    content = (tmp_path / name).read_bytes()
    position = int(share * len(content))
    (tmp_path / name).write_bytes(content[:position])
    with pytest.raises(ModelFileError, match=r"cut off|checksum does not fit|has no checksum"):
        open_exported(path)
    (tmp_path / name).write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
    with pytest.raises(ModelFileError, match=r"altered after it was written|has no checksum"):
        open_exported(path)


def test_files_of_two_exports_are_refused(exported: Path, tmp_path: Path) -> None:
    path = copied(exported, "model.xml", tmp_path)
    weights = bytearray((tmp_path / "model.bin").read_bytes())
    weights[-1] ^= 1  # of another export, alike but for this
    (tmp_path / "model.bin").write_bytes(weights)
    with pytest.raises(ModelFileError, match=r"model\.xml and model\.bin do not belong together"):
        open_exported(path)


def test_files_that_are_no_export(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"m\.onnx does not exist"):
        open_exported(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"must end in \.onnx or \.xml"):
        open_exported(exported / "model.safetensors")
    (tmp_path / "m.onnx").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="has no checksum"):
        open_exported(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ("no JSON", "was not exported by sapatchcore"),
        ("[]", "was not exported by sapatchcore"),
        (json.dumps({"format": 99, "settings": {}}), "has the format 99; this version of sapatchcore reads 2"),
        (json.dumps({"format": 2, "settings": {}}), "is damaged: its metadata is not whole"),
    ],
)
def test_metadata_of_others(exported: Path, tmp_path: Path, metadata: str, sentence: str) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported / "model.onnx")
    onnx.helper.set_model_props(model, {METADATA: metadata, CHECKSUM: ZEROS})
    (tmp_path / "m.onnx").write_bytes(with_checksum(model.SerializeToString(), ".onnx"))
    with pytest.raises(ModelFileError, match=sentence):
        open_exported(tmp_path / "m.onnx")


@pytest.mark.parametrize(("name", "package"), [("model.onnx", "onnxruntime"), ("model.xml", "openvino")])
def test_without_the_runtime(exported: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SAPatchCoreError, match=rf'needs {package}: pip install "sapatchcore\[edge'):
        open_exported(exported / name)


def test_options_on_the_line(exported: Path) -> None:
    with pytest.raises(SettingsError, match=r"threads must be 1 or more\. Got 0"):
        open_exported(exported / "model.onnx", threads=0)
    with pytest.raises(SettingsError, match=r"batch_size must be"):
        open_exported(exported / "model.onnx", batch_size=0)
    model = open_exported(exported / "model.onnx", batch_size=3, workers=0)
    assert (model.settings.batch_size, model.settings.workers) == (3, 0)


@pytest.mark.parametrize("name", FILES)
def test_every_damaged_file_is_refused(name: str, exported: Path, tmp_path: Path) -> None:
    """Of OpenVINO's two files one is damaged, in turns. The runtime never sees such bytes: it might not survive them."""
    path = copied(exported, name, tmp_path)
    assert open_exported(path).is_calibrated
    files = files_of(path)
    whole = {file.name: file.read_bytes() for file in files}
    made = [damaged(content, -(-DAMAGED // len(files)), seed=4) for content in whole.values()]
    for number in range(DAMAGED):
        file = files[number % len(files)]
        what, content = next(made[number % len(files)])
        file.write_bytes(content)
        with pytest.raises(ModelFileError) as error:
            open_exported(path)
        sentence = str(error.value)
        assert path.name in sentence, f"{file.name}: {what}"
        assert sentence.endswith("."), sentence
        assert sentence.isprintable(), sentence
        assert len(sentence) < 1000, sentence
        file.write_bytes(whole[file.name])
    assert open_exported(path).is_calibrated
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(whole), "something was written"


@pytest.mark.parametrize("missing", ["model.xml", "model.bin"])
def test_one_of_two_files_is_refused(missing: str, exported: Path, tmp_path: Path) -> None:
    path = copied(exported, "model.xml", tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelFileError, match=rf"{missing} does not exist"):
        open_exported(path)


def test_what_goes_together(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(8, 8)] * 5 + [(8, 9), (9, 8), (9, 8), (8, 8)]
    sources = [images(1, size, seed)[0] for seed, size in enumerate(sizes)]

    def shapes() -> list[tuple[int, ...]]:
        return [batch.pixels.shape[:3] for batch in full_size_batches(sources, batch_size=4, workers=1)]

    assert shapes() == [(4, 8, 8), (1, 8, 8), (1, 8, 9), (2, 9, 8), (1, 8, 8)]
    monkeypatch.setattr(runtime, "PIXELS", 128)  # two images of 8 × 8
    assert shapes()[:3] == [(2, 8, 8), (2, 8, 8), (1, 8, 8)]
    names = [name for batch in full_size_batches(sources, batch_size=4, workers=2) for name in batch.names]
    assert names == [f"image {number}" for number in range(9)]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_progress_and_errors(
    exported: Path, tiny: SAPatchCore, image_folder: Path, name: str, tmp_path: Path
) -> None:
    said: list[tuple[str, int, int | None]] = []
    model = open_exported(exported / name, threads=1)
    result = model.predict(image_folder, lambda *args: said.append(args))
    np.testing.assert_allclose(result.scores, tiny.predict(image_folder).scores, rtol=1e-5, atol=1e-5)
    assert said[-1] == ("predict", 10, 10)
    assert result.calibration is model.calibration
    assert model.threshold(0.1) == tiny.threshold(0.1)
    assert model.pixel_threshold(0.1) == tiny.pixel_threshold(0.1)
    p = np.random.default_rng(0).integers(1, 12, 50) / 11
    assert model.drift(p).log_capital.tolist() == tiny.drift(p).log_capital.tolist()
    with pytest.raises(DataError, match="No image"):
        model.predict([])
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"bad\.png"):
        model.predict(tmp_path / "bad.png")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("options", [[], ["--json"], ["--false-reject", "0.2", "--json"]])
def test_predict_prints_the_same(
    exported: Path,
    image_folder: Path,
    name: str,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    Image.fromarray(np.full((50, 70, 3), 255, np.uint8)).save(image_folder / "defect.png")
    lines = {}
    for model in ("model.safetensors", name):
        maps = ["--maps", str(tmp_path / model), "--map-format", "npy"]
        assert run("predict", str(exported / model), str(image_folder), "-q", *maps, *options) == 0
        lines[model] = capsys.readouterr().out.splitlines()
        assert len(list((tmp_path / model).rglob("*.npy"))) == 11
    for ours, theirs in zip(*lines.values(), strict=True):
        if "--json" not in options:
            ours_cells, theirs_cells = ours.split("\t"), theirs.split("\t")
            assert (ours_cells[:2], ours_cells[6:]) == (
                theirs_cells[:2],
                theirs_cells[6:],
            )  # scores differ in the last digit
            continue
        own, other = json.loads(ours), json.loads(theirs)
        assert own.keys() == other.keys()
        for key in ("path", "rejected", "p_value", "threshold", "false_reject", "kind", "reason"):
            assert own[key] == other[key], key
        assert [region["box"] for region in own["regions"]] == [region["box"] for region in other["regions"]]
        np.testing.assert_allclose(other["score"], own["score"], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(np.load(other["map"]), np.load(own["map"]), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--precision", "float16"], "--precision float16"),
        (["--weights", "x.pth"], "--weights x.pth"),
        (["--search", "int8"], "--search int8"),
        (["--device", "cuda"], "--device cuda"),
        (["--device", "cuda:1", "--precision", "bfloat16"], "--precision bfloat16, --device cuda:1"),
    ],
)
def test_options_that_an_exported_model_cannot_follow(
    exported: Path, image_folder: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", str(exported / "model.onnx"), str(image_folder), *options) == 2
    assert f"{named} cannot be had with an exported model" in capsys.readouterr().err


def test_commands_that_need_the_model_file_say_so(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", str(exported / "model.onnx"), "-o", str(tmp_path / "m.onnx")) == 1
    assert "is an exported model, which predict, watch and info take" in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_info_describes_it(exported: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", str(exported / name), "--json") == 0
    metadata = json.loads(capsys.readouterr().out)
    assert metadata["bytes"] == sum(file.stat().st_size for file in files_of(exported / name))
    assert metadata["check"]["other_verdicts"] == 0
    assert "scores" not in metadata["calibration"]
    assert metadata["calibration"]["images"] == 10
    assert run("info", str(exported / name)) == 0
    assert "other_verdicts" in capsys.readouterr().out


@pytest.mark.usefixtures("exporter_done")
def test_export_on_the_command_line(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(exported / "model.safetensors"), "-q", "-o"]
    assert run(*command, str(tmp_path / "m.onnx")) == 0
    assert "16 verdicts compared, none of them another" in capsys.readouterr().out
    assert run(*command, str(tmp_path / "m.xml"), "--bank-precision", "float16", "--json") == 0
    assert json.loads(capsys.readouterr().out)["precision"] == {"network": "float32", "bank": "float16"}
    assert run(*command, str(tmp_path / "m.txt")) == 2
    assert "must end in .onnx for onnx or .xml for openvino" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.onnx", "m.xml"]


WITHOUT_TORCH = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "kornia", "scipy", "safetensors", "einops", "huggingface_hub"):
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refused())
sys.argv = ["sapatchcore", *sys.argv[1:]]
from sapatchcore.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["predict", "info"])
def test_without_pytorch(
    exported: Path, image_folder: Path, run_python: Callable[..., Any], name: str, command: str, tmp_path: Path
) -> None:
    more = [str(image_folder), "--maps", str(tmp_path / "maps"), "--json"] if command == "predict" else []
    done = run_python(WITHOUT_TORCH, command, str(exported / name), *more)
    assert done.returncode == 0, done.stderr
    if command == "predict":
        assert len(done.stdout.splitlines()) == 10
        assert {"rejected", "kind", "regions", "map"} <= set(json.loads(done.stdout.splitlines()[0]))


@pytest.mark.parametrize("name", FILES)
def test_notes_are_the_detectors(name: str, exported: Path, tiny: SAPatchCore, good: np.ndarray) -> None:
    whole = Image.fromarray(good[0])
    images = [
        good[0],
        np.asarray(whole.resize((21, 64))),
        np.asarray(whole.resize((200, 200))),
        (good[0] * 0.2).astype(np.uint8),
        np.full((64, 64), 128, np.uint8),
    ]
    expected = tiny.predict(images).notes
    assert [bool(notes) for notes in expected] == [False, True, True, True, True]
    assert open_exported(exported / name).predict(images).notes == expected


@pytest.mark.parametrize("stored", [{}, {"side": [1, 2]}, [], {"side": "x"}])
def test_ranges_that_are_none_are_refused(exported: Path, tmp_path: Path, stored: Any) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported / "model.onnx")
    (text,) = (one.value for one in model.metadata_props if one.key == METADATA)
    for statistics, refused in ((stored, True), (None, False)):
        metadata = json.dumps({**json.loads(text), "training_statistics": statistics})
        onnx.helper.set_model_props(model, {METADATA: metadata, CHECKSUM: ZEROS})
        (tmp_path / "m.onnx").write_bytes(with_checksum(model.SerializeToString(), ".onnx"))
        if refused:
            with pytest.raises(ModelFileError, match="does not hold what an exported model holds"):
                open_exported(tmp_path / "m.onnx")
        else:
            assert open_exported(tmp_path / "m.onnx").predict(np.zeros((640, 64), np.uint8)).notes == ((),)
