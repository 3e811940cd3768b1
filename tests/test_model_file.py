"""The model file: whole or refused, and never half written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import timm
import torch
from conftest import SMALL

from sapatchcore import ModelFileError, NotFittedError, SAPatchCore, SettingsError, model_file
from sapatchcore.model_file import FORMAT, Stored, describe, has_weights, read_model, write_model
from sapatchcore.score.calibration import Calibration


def stored(seed: int = 0, rows: int = 7) -> Stored:
    generator = torch.Generator().manual_seed(seed)
    return Stored(
        header={"settings": {"seed": seed}, "note": "ä é", "grid": [2, 3]},
        bank=torch.randn(rows, 5, generator=generator),
        images=torch.arange(rows) % 2,
        cells=torch.arange(rows) % 6,
        weights={"layer2.weight": torch.randn(3, 4, generator=generator), "n": torch.tensor(3)},
        more={
            "training.size": torch.tensor([[480, 640], [33, 47]], dtype=torch.int32),
            "thumbnails": torch.arange(20, dtype=torch.uint8),
            "thumbnails.end": torch.tensor([0, 20]),
            "calibration.scores": torch.randn(2, generator=generator),
            "calibration.rows": torch.arange(12, dtype=torch.int32).reshape(2, 2, 3),
        },
    )


def assert_same(found: Stored, expected: Stored) -> None:
    assert {**found.header, "format": FORMAT} == {**expected.header, "format": FORMAT}
    for name in ("bank", "images", "cells"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert (found.weights is None) == (expected.weights is None)
    for name, value in (expected.weights or {}).items():
        assert torch.equal(found.weights[name], value)  # type: ignore[index]
    assert found.more.keys() == expected.more.keys()
    for name, value in expected.more.items():
        assert found.more[name].dtype == value.dtype
        assert torch.equal(found.more[name], value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_model(path, stored())
    return path


def test_read_back(model: Path) -> None:
    assert_same(read_model(model), stored())


def test_read_back_without_weights(tmp_path: Path) -> None:
    one = stored()
    for more in ({}, one.more):
        bare = Stored(one.header, one.bank, one.images, one.cells, None, more)
        write_model(tmp_path / "m.safetensors", bare)
        assert_same(read_model(tmp_path / "m.safetensors"), bare)


def test_has_weights(model: Path, tmp_path: Path) -> None:
    one = stored()
    write_model(tmp_path / "bare", Stored(one.header, one.bank, one.images, one.cells, None, one.more))
    assert has_weights(model)
    assert not has_weights(tmp_path / "bare")


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    """Weights that are a part of another tensor, and a tensor in another order than its memory."""
    one, whole = stored(), torch.arange(24.0).reshape(4, 6)
    more = {"turned": whole.T, "none": torch.zeros(0, 3)}
    shared = Stored(one.header, whole, torch.arange(4), torch.arange(4), {"w": whole[3]}, more)
    write_model(tmp_path / "m", shared)
    assert_same(read_model(tmp_path / "m"), shared)


def test_any_safetensors_reader_can_open_it(model: Path) -> None:
    with safetensors.safe_open(model, framework="np") as file:
        own = {"bank", "bank.image", "bank.cell", "weights.layer2.weight", "weights.n"}
        assert set(file.keys()) == own | set(stored().more)
        header = json.loads(file.metadata()["sapatchcore"])
    assert header["format"] == FORMAT
    assert header["note"] == "ä é"


def test_same_content_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / name, stored())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have file modes")
def test_readable_as_the_umask_says(model: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert model.stat().st_mode & 0o777 == 0o666 & ~mask


def _refused_or_same(path: Path, expected: Stored | None = None) -> bool:
    """True if refused with a sentence, or read as the very same content (a blank more between words, say)."""
    try:
        found = read_model(path)
    except ModelFileError as error:
        return str(error).startswith(str(path)) and str(error).endswith(".")
    assert_same(found, expected or stored())
    return True


def test_every_flipped_byte_is_noticed(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    places = {*range(24), *np.random.default_rng(0).integers(0, len(content), 150).tolist()}
    altered = tmp_path / "altered.safetensors"
    for place in sorted(places):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= mask
            altered.write_bytes(damaged)
            assert _refused_or_same(altered), f"byte {place} of {len(content)} changed by {mask:#x}"


def test_every_cut_is_noticed(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in {0, 1, 7, 8, 9, len(content) - 1, *np.random.default_rng(1).integers(0, len(content), 60).tolist()}:
        cut.write_bytes(content[:length])
        assert _refused_or_same(cut), f"cut to {length} of {len(content)} bytes"
    cut.write_bytes(content + b"\0")
    assert _refused_or_same(cut)


def test_whole_pages_of_zeros_are_noticed(model: Path) -> None:
    """What a disk leaves after a power cut: the right length, the end empty."""
    content = model.read_bytes()
    model.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert _refused_or_same(model)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x02}q\x00.", os.urandom(500), b"\xff" * 100])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"\({len(content)} bytes\) is cut off or no model file: "):
        read_model(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_safetensors_are_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file({"bank": torch.zeros(2, 2)}, path, metadata=metadata)
    with pytest.raises(ModelFileError, match=r"is a safetensors file, but not a model of sapatchcore\."):
        read_model(path)


@pytest.mark.parametrize("text", ["no json", "[]", "3", '"text"', "null", "{}", '{"sha256": 1}'])
def test_header_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"bank": torch.zeros(2, 2)}, path, metadata={"sapatchcore": text})
    with pytest.raises(ModelFileError, match="is damaged: its header cannot be read"):
        read_model(path)


@pytest.mark.parametrize("version", [FORMAT + 1, 99, "2", None, 1.5])
def test_newer_format_is_refused(version: object, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    text = json.dumps({"format": version})
    safetensors.torch.save_file({"bank": torch.zeros(2, 2)}, path, metadata={"sapatchcore": text})
    with pytest.raises(ModelFileError, match=rf"has the format {version}; .* Update sapatchcore\.$"):
        read_model(path)


@pytest.mark.parametrize("version", [0, 1])
def test_older_format_is_refused(version: int, tmp_path: Path) -> None:
    """What was written before: no scores of good images."""
    path = tmp_path / "m.safetensors"
    text = json.dumps({"format": version, "settings": {}, "training_images": ["a.png"], "grid": [2, 3]})
    tensors = {"bank": torch.zeros(2, 2), "bank.image": torch.zeros(2), "bank.cell": torch.zeros(2)}
    safetensors.torch.save_file(tensors, path, metadata={"sapatchcore": text})
    for read in (read_model, SAPatchCore.load):
        with pytest.raises(ModelFileError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} has the format {version}, of an earlier version; this version reads 2 to 4. Fit it anew with "
            "`sapatchcore fit`."
        )


@pytest.mark.parametrize("separate", [False, True])
def test_format_2_scores_to_the_bit(separate: bool, good: Any, fitted: SAPatchCore, tmp_path: Path) -> None:
    """Its names of images stand in the header, its calibration's sizes among the tensors."""
    detector = SAPatchCore(**SMALL, coreset_ratio=0.1).fit(good, calibrate=good[:5]) if separate else fitted
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    detector.save(new)
    stored = read_model(new)
    tensors = {"bank": stored.bank, "bank.image": stored.images.int(), "bank.cell": stored.cells.int(), **stored.more}
    tensors |= {f"weights.{name}": value.clone() for name, value in (stored.weights or {}).items()}
    for name in ("training.name", "training.name.end", "calibration.name", "calibration.name.end"):
        tensors.pop(name, None)
    calibration = detector.calibration
    tensors["calibration.sizes"] = torch.tensor(calibration.sizes, dtype=torch.int32)
    header = {**stored.header, "format": 2, "training_images": list(detector.provenance[0])}
    header["calibration"] = {**header["calibration"], "names": list(calibration.names)}
    checksum = model_file._checksum(header, tensors)
    safetensors.torch.save_file(tensors, old, metadata={"sapatchcore": json.dumps({**header, "sha256": checksum})})
    one, other = SAPatchCore.load(new), SAPatchCore.load(old)
    assert other.provenance[0] == one.provenance[0]
    assert tuple(other.calibration.names) == tuple(one.calibration.names)
    before, after = one.predict(good[:3]), other.predict(good[:3])
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.p_values, before.p_values)
    assert after.verdicts(0.2) == before.verdicts(0.2)


def test_this_format_is_4(model: Path) -> None:
    assert read_model(model).header["format"] == FORMAT == 4


@pytest.mark.parametrize(
    "left_out", ["bank", "bank.image", "bank.cell", "weights.n", "thumbnails", "thumbnails.end", "calibration.rows"]
)
def test_missing_tensor_is_noticed(left_out: str, model: Path) -> None:
    with safetensors.safe_open(model, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != left_out}  # noqa: SIM118
    safetensors.torch.save_file(tensors, model, metadata=metadata)
    with pytest.raises(ModelFileError, match="was altered after it was written"):
        read_model(model)


def test_altered_settings_are_noticed(model: Path) -> None:
    content = model.read_bytes()
    changed = content.replace(rb"\"seed\": 0", rb"\"seed\": 1")
    assert changed != content
    model.write_bytes(changed)
    with pytest.raises(ModelFileError, match="its checksum does not fit"):
        read_model(model)


@pytest.mark.parametrize("name", sorted(stored().more))
def test_altered_tensors_are_noticed(name: str, model: Path) -> None:
    """A calibration that was made milder, another picture: whoever writes the file anew lacks the seal."""
    with safetensors.safe_open(model, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, model, metadata=metadata)
    assert_same(read_model(model), stored())
    tensors[name] = tensors[name] + 1
    safetensors.torch.save_file(tensors, model, metadata=metadata)
    with pytest.raises(ModelFileError, match="was altered after it was written: its checksum does not fit"):
        read_model(model)
    tensors[name] = tensors[name] - 1
    tensors["more"] = torch.zeros(1)
    safetensors.torch.save_file(tensors, model, metadata=metadata)
    with pytest.raises(ModelFileError, match="its checksum does not fit"):
        read_model(model)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(
            ModelFileError, match=r"does not exist\. Check the path, or make one with `sapatchcore fit`\.$"
        ):
            read_model(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", ["save_file", "fsync", "replace"])
def test_interrupted_save_leaves_the_old_file(
    error: Any, step: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise error

    target = {"save_file": model_file.safetensors.torch, "fsync": os, "replace": Path}[step]
    monkeypatch.setattr(target, step, fail)
    kind = ModelFileError if isinstance(error, OSError) else error
    with pytest.raises(kind) as caught:
        write_model(model, stored(seed=1))
    monkeypatch.undo()
    if kind is ModelFileError:
        assert str(caught.value).startswith(f"{model} cannot be written (0 MB): ")
        assert "What was there before is unchanged." in str(caught.value)
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


FULL = """
import resource, sys, torch
from pathlib import Path
from sapatchcore import ModelFileError
from sapatchcore.model_file import Stored, write_model
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
big = Stored({}, torch.randn(1000, 1000), torch.arange(1000), torch.arange(1000), None)
try:
    write_model(Path(sys.argv[1]), big)
except ModelFileError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems limit a file's size, which plays a full disk here")
def test_full_disk_leaves_the_old_file(model: Path, run_python: Callable) -> None:
    before = model.read_bytes()
    done = run_python(FULL, str(model))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{model} cannot be written (4 MB): ")
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot be written: No such file or directory\. Choose a folder"):
        write_model(tmp_path / "no" / "m.safetensors", stored())


def test_target_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelFileError, match=r"m cannot be written"):
        write_model(tmp_path / "m", stored())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("include_weights", [True, False])
def test_saved_and_loaded_scores_to_the_bit(
    include_weights: bool, fitted: SAPatchCore, good: np.ndarray, images: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    fitted.save(path, include_weights=include_weights)
    loaded = SAPatchCore.load(path, device="cpu")
    test = np.concatenate((good[:3], images(5, seed=9)))
    one, other = fitted.predict(test), loaded.predict(test)
    for name in ("scores", "local_scores", "context_scores", "patch_scores", "neighbours"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.maps[4], other.maps[4])
    np.testing.assert_array_equal(loaded.memory_bank, fitted.memory_bank)
    assert loaded.settings == fitted.settings
    assert loaded.provenance[0] == fitted.provenance[0]
    np.testing.assert_array_equal(loaded.provenance[1], fitted.provenance[1])
    np.testing.assert_array_equal(loaded.provenance[2], fitted.provenance[2])


@pytest.fixture
def smallest(good: np.ndarray, small: dict[str, Any], tmp_path: Path) -> Path:
    """A whole detector's file without its weights: calibration, sizes and thumbnails are most of it."""
    path = tmp_path / "detector.safetensors"
    SAPatchCore(**small, coreset_ratio=0.02).fit(good[:3]).save(path, include_weights=False)
    return path


def test_damage_to_a_whole_detector_is_noticed(smallest: Path) -> None:
    content = smallest.read_bytes()
    assert len(content) < 100_000
    expected = read_model(smallest)
    assert {"thumbnails", "calibration.grids", "training.size"} <= set(expected.more)
    rng = np.random.default_rng(0)
    for place in rng.integers(8, len(content), 120).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        smallest.write_bytes(damaged)
        assert _refused_or_same(smallest, expected), f"byte {place} of {len(content)}"
    for length in rng.integers(0, len(content), 60).tolist():
        smallest.write_bytes(content[:length])
        assert _refused_or_same(smallest, expected), f"cut to {length} of {len(content)} bytes"
        with pytest.raises(ModelFileError):
            SAPatchCore.load(smallest)


@pytest.mark.parametrize("image_score", ["max", "reweighted"])
def test_calibration_and_training_images_come_back(
    image_score: str, good: np.ndarray, images: Callable, small: dict[str, Any], tmp_path: Path
) -> None:
    """To the bit, with images of several sizes."""
    learned = [*good[:3], images(1, (50, 90), 3)[0]]
    detector = SAPatchCore(**small, coreset_ratio=0.1, image_score=image_score, neighbors=4).fit(learned)
    detector.save(tmp_path / "m")
    loaded = SAPatchCore.load(tmp_path / "m", device="cpu")
    one, other = detector._bank, loaded._bank
    assert one is not None
    assert other is not None
    assert other.training == one.training
    assert [image.size for image in other.training] == [(64, 64)] * 3 + [(50, 90)]
    assert (other.grid, other.radius, other.loosened) == (one.grid, one.radius, one.loosened)
    assert one.radius > 0
    for field in dataclasses.fields(Calibration):
        found, expected = getattr(loaded.calibration, field.name), getattr(detector.calibration, field.name)
        if isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        else:
            assert found == expected
    assert loaded.predict(good).verdicts() == detector.predict(good).verdicts()


def test_no_calibration_comes_back_as_none(good: np.ndarray, small: dict[str, Any], tmp_path: Path) -> None:
    SAPatchCore(**small).fit(good[:1]).save(tmp_path / "m")
    assert not [name for name in read_model(tmp_path / "m").more if name.startswith("calibration")]
    assert not SAPatchCore.load(tmp_path / "m").is_calibrated


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, True),
        ({"batch_size": 3, "workers": 0}, True),
        ({"image_score": "max"}, True),
        ({"neighbors": 5}, False),
        ({"image_score": "reweighted", "neighbors": 9}, True),
    ],
)
def test_other_reweighted_scores_leave_a_model_without_calibration(
    options: dict[str, Any], kept: bool, good: np.ndarray, small: dict[str, Any], tmp_path: Path
) -> None:
    SAPatchCore(**small, coreset_ratio=0.1, image_score="reweighted").fit(good[:4]).save(tmp_path / "m")
    assert SAPatchCore.load(tmp_path / "m", **options).is_calibrated == kept


def test_other_neighbours_do_not_matter_to_max_scores(fitted: SAPatchCore, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    assert SAPatchCore.load(tmp_path / "m", neighbors=2).is_calibrated
    assert not SAPatchCore.load(tmp_path / "m", image_score="reweighted").is_calibrated


def test_thumbnails_left_out(fitted: SAPatchCore, good: np.ndarray, tmp_path: Path) -> None:
    """The file is smaller by them, and an explanation names the good patch without showing it."""
    fitted.save(tmp_path / "with")
    fitted.save(tmp_path / "without", include_thumbnails=False)
    pictures = sum(len(image.thumbnail) for image in fitted._bank.training)  # type: ignore[union-attr]
    saved = (tmp_path / "with").stat().st_size - (tmp_path / "without").stat().st_size
    assert pictures <= saved < pictures + 1000
    assert not {"thumbnails", "thumbnails.end"} & set(read_model(tmp_path / "without").more)
    loaded = SAPatchCore.load(tmp_path / "without", device="cpu")
    for one, other in zip(loaded.explain(good[:2]), fitted.explain(good[:2]), strict=True):
        assert one.causes[0].good == dataclasses.replace(other.causes[0].good, thumbnail=b"")
        assert other.causes[0].good.thumbnail


def test_what_people_are_told_of_a_file(fitted: SAPatchCore, good: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "m"
    fitted.save(path)
    described = describe(path, read_model(path))
    json.dumps(described)
    assert described["bank"] == "64 patches of 240 numbers"
    assert described["training_images"] == 10
    assert described["calibration"] == {"source": "cross-fitted", "images": 10, "image_score": "max", "neighbors": 9}
    assert described["covering_radius"] == {"chosen": fitted._bank.radius, "loosened": 0.0}  # type: ignore[union-attr]
    assert described["format"] == FORMAT
    assert SAPatchCore.load(path, device="cpu").fit(good[:1], calibrate=good[1:4]).calibration.source == "separate"


def test_loaded_and_saved_again_is_the_same_file(fitted: SAPatchCore, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a")
    SAPatchCore.load(tmp_path / "a", device="cpu").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_same_seed_same_file(good: np.ndarray, small: dict[str, Any], fitted: SAPatchCore, tmp_path: Path) -> None:
    again = SAPatchCore(**small, coreset_ratio=0.1).fit(good)
    assert again.memory_bank.tobytes() == fitted.memory_bank.tobytes()
    fitted.save(tmp_path / "a")
    again.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_left_out_are_checked(good: np.ndarray, small: dict[str, Any], tmp_path: Path) -> None:
    checkpoints = []
    for seed in (1, 2):
        network = SAPatchCore(**{**small, "seed": seed}).embedder.network
        checkpoints.append(dict(network.weights))
    for number, cut in enumerate(checkpoints):
        whole = timm.create_model(small["backbone"]).state_dict()
        torch.save({**whole, **cut}, tmp_path / f"{number}.pth")
    path = tmp_path / "m.safetensors"
    SAPatchCore(**{**small, "weights": str(tmp_path / "0.pth")}).fit(good[:3]).save(path, include_weights=False)
    assert path.stat().st_size < 1_000_000
    SAPatchCore.load(path)
    with pytest.raises(
        ModelFileError, match=r"holds no network weights, and those found here \(.*1\.pth\) are not the ones"
    ):
        SAPatchCore.load(path, weights=str(tmp_path / "1.pth"))


def test_model_file_needs_nothing_else(good: np.ndarray, small: dict[str, Any], tmp_path: Path) -> None:
    """With its weights inside, the checkpoint that they came from may be gone."""
    network = dict(SAPatchCore(**small).embedder.network.weights)
    checkpoint = tmp_path / "net.pth"
    torch.save({**timm.create_model(small["backbone"]).state_dict(), **network}, checkpoint)
    detector = SAPatchCore(**{**small, "weights": str(checkpoint)}).fit(good[:3])
    detector.save(tmp_path / "m")
    checkpoint.unlink()
    loaded = SAPatchCore.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(loaded.predict(good).scores, detector.predict(good).scores)


def test_a_file_written_over_in_place_changes_nothing(fitted: SAPatchCore, good: np.ndarray, tmp_path: Path) -> None:
    """As ``cp`` does it: a mapped file would end the process, or put other numbers into the bank."""
    file = tmp_path / "m"
    fitted.save(file)
    loaded, content = SAPatchCore.load(file, device="cpu"), file.read_bytes()
    expected = fitted.predict(good).scores
    for written in (content[::-1], b""):
        with file.open("r+b") as opened:
            opened.write(written)
            opened.truncate(len(written))
        np.testing.assert_array_equal(loaded.predict(good).scores, expected)


def test_what_may_change_at_load(fitted: SAPatchCore, good: np.ndarray, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    loaded = SAPatchCore.load(
        tmp_path / "m",
        device="cpu",
        batch_size=3,
        workers=0,
        precision="bfloat16",
        image_score="reweighted",
        neighbors=3,
        search="float16",
    )
    assert loaded.settings.search == "float16"
    assert (loaded.settings.batch_size, loaded.settings.workers, loaded.settings.precision) == (3, 0, "bfloat16")
    assert loaded.predict(good[:2]).scores.shape == (2,)
    assert SAPatchCore.load(tmp_path / "m").settings.device == "auto"


@pytest.mark.parametrize(
    "name", ["backbone", "layers", "resize", "crop", "attention", "seed", "coreset_ratio", "projection"]
)
def test_what_may_not_change_at_load(name: str, fitted: SAPatchCore, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    with pytest.raises(
        SettingsError, match=rf"^{name} cannot change after fit\. Allowed at load: batch_size, device, "
    ):
        SAPatchCore.load(tmp_path / "m", **{name: getattr(fitted.settings, name)})


def test_unknown_option_at_load(fitted: SAPatchCore, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    with pytest.raises(SettingsError, match=r"'devise' is not an option\. Did you mean 'device'\?"):
        SAPatchCore.load(tmp_path / "m", devise="cpu")


def test_save_before_fit(small: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="has learned nothing yet"):
        SAPatchCore(**small).save(tmp_path / "m")
    assert not list(tmp_path.iterdir())
