"""Made data sets: read back by the package's own readers, the same bytes for the same seed, whole or not there."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image

from sapatchcore.data.images import read_mask
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.synth import screws, write
from sapatchcore.synth.write import find_scene, write_dataset

SMALL = {"side": 64, "train": 3, "test": {"good": 2, "scratch": 1, "paint": 1, "over-coupling": 2, "lacking": 1}}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["mvtec", "cad_sd"])
def test_it_is_read_back(layout: str, tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "deep/set", "screws", layout=layout, **SMALL)
    assert made == write.Written(tmp_path / "deep/set", "screws", screws.VERSION, layout, 64, 3, SMALL["test"])
    dataset = open_dataset(made.folder)
    assert (dataset.layout, dataset.name, len(dataset.train)) == (layout, "set", 3)
    assert [sample.label for sample in dataset.test].count("over-coupling") == 2
    assert len(dataset.test) == 7
    for sample in (*dataset.train, *dataset.test):
        assert sample.path.suffix == (".png" if layout == "mvtec" else ".jpg")
        assert read_image(sample.path).shape == (64, 64, 3)
        assert sample.masks is not None
        assert read_mask(sample.masks, (64, 64)).any() != sample.is_good
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set"]


def test_png_holds_the_very_pixels_and_the_mask(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", "screws", **SMALL)
    picture, mask = screws.render("lacking", 64, np.random.default_rng([0, 1, 4, 0]))
    assert np.array_equal(read_image(tmp_path / "set/test/lacking/000.png"), picture)
    assert np.array_equal(read_mask((tmp_path / "set/ground_truth/lacking/000_mask.png",), (64, 64)), mask)


@pytest.mark.parametrize(("scene", "side"), [("screws", 64), ("kits", 96)])
def test_the_set_says_what_it_is(scene: str, side: int, tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", scene, side=side, train=1, test={"good": 1}, seed=5)
    told = json.loads((tmp_path / "set/synth.json").read_text())
    assert told == {"scene": scene, "version": find_scene(scene).VERSION, "side": side, "seed": 5}


@pytest.mark.parametrize("layout", ["mvtec", "cad_sd"])
def test_bytes_depend_on_the_seed_and_not_on_the_counts(layout: str, tmp_path: Path) -> None:
    first = contents(write_dataset(tmp_path / "a", "screws", layout=layout, **SMALL).folder)
    assert contents(write_dataset(tmp_path / "b", "screws", layout=layout, **SMALL).folder) == first
    more = {**SMALL, "train": 5, "test": {"lacking": 3, "good": 2, "scratch": 1, "paint": 1, "over-coupling": 2}}
    larger = contents(write_dataset(tmp_path / "c", "screws", layout=layout, **more).folder)
    assert first.items() < larger.items()
    assert len(larger) == len(first) + 2 + 2 * 2
    other = contents(write_dataset(tmp_path / "d", "screws", layout=layout, seed=1, **SMALL).folder)
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first if "mask" not in name)
    assert len(set(first.values())) == len(first)  # no image twice, train and test included


def test_kinds_that_are_not_asked_for_have_no_folder(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", "screws", side=64, train=1, test={"good": 1, "paint": 1})
    assert sorted(path.name for path in (tmp_path / "set/test").iterdir()) == ["good", "paint"]
    assert {sample.label for sample in open_dataset(tmp_path / "set").test} == {"good", "paint"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layout": "mvtek"}, "layout must be mvtec or cad_sd. Got 'mvtek'. Did you mean 'mvtec'?"),
        ({"train": 0}, "train must be 1 or more. Got 0."),
        ({"seed": -1}, "seed must be 0 or more. Got -1."),
        ({"side": 63}, "side must be 64 or more"),
        ({"test": {"good": 1, "pant": 1}}, "Did you mean 'paint'?"),
        ({"test": {"good": -1}}, "test must be 0 or more of each kind. Got -1 of good."),
        ({"test": {"good": 0}}, "test must ask for at least one image. Got 0."),
    ],
)
def test_what_cannot_be_made_is_refused(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        write_dataset(tmp_path / "set", "screws", **{**SMALL, **change})
    assert sentence in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_scene_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"The scene must be screws or kits\. Got 'screw'\. Did you mean 'screws'\?"
    ):
        write_dataset(tmp_path / "set", "screw")


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty\. Name a new folder"):
        write_dataset(tmp_path, "screws", **SMALL)
    with pytest.raises(DataError, match=r"mine is a file\. Name a new folder\."):
        write_dataset(tmp_path / "mine", "screws", **SMALL)
    with pytest.raises(DataError, match=r"mine/set cannot be written: Not a directory\. Name another folder\."):
        write_dataset(tmp_path / "mine/set", "screws", **SMALL)
    assert contents(tmp_path) == {"mine": b"mine"}


def test_an_empty_folder_is_filled_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = write_dataset(Path(), "screws", **SMALL)
    assert made.folder.name == "here"
    assert sorted(path.name for path in Path().iterdir()) == ["ground_truth", "synth.json", "test", "train"]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_nothing(
    error: BaseException, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, written = Path.write_bytes, []

    def fail_late(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 5:
            raise error
        return before(path, data)

    if exists:
        (tmp_path / "set").mkdir()
    monkeypatch.setattr(Path, "write_bytes", fail_late)
    expected = DataError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_dataset(tmp_path / "set", "screws", **SMALL)
    assert not list(tmp_path.rglob("*.*"))
    assert (tmp_path / "set").exists() == exists
    if expected is DataError:
        assert str(caught.value) == f"{tmp_path}/set cannot be written: No space left on device. Name another folder."


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    write_dataset(tmp_path / "set", "screws", **SMALL, progress=lambda *step: seen.append(step))
    assert seen == [("images", done, 10) for done in range(1, 11)]


@pytest.mark.parametrize(("scene", "side"), [("screws", 64), ("kits", 96)])
def test_command_says_what_to_type_next(
    scene: str, side: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert run("synth", scene, str(out), "--side", str(side), "--train", "2", "--test", "1") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{out}: 2 good images to learn from, 5 to test (1 good, 1 ")
    assert f"{side}×{side} pixels ({scene}, version {find_scene(scene).VERSION})" in text
    assert text.endswith(f"Next:\n  sapatchcore evaluate {out}\n")
    assert len(open_dataset(out).test) == 5


def test_command_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--side", "64", "--train", "2", "--test", "1", "--layout", "cad_sd", "--seed", "3", "--quiet"]
    assert run("synth", "screws", str(tmp_path / "set"), *small, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "set"),
        "scene": "screws",
        "version": screws.VERSION,
        "layout": "cad_sd",
        "side": 64,
        "train": 2,
        "test": dict.fromkeys(screws.KINDS, 1),
    }
    assert run("synth", "screws", str(tmp_path / "set"), *small) == 1
    assert capsys.readouterr().err == (
        f"sapatchcore: {tmp_path}/set is not empty. Name a new folder, or empty this one first.\n"
    )


def test_command_with_a_wrong_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("synth", "screws", str(tmp_path / "set"), "--train", "0") == 2
    assert capsys.readouterr().err == "sapatchcore: train must be 1 or more. Got 0.\n"


@pytest.mark.parametrize("shape", [(1, 2, 3), (5, 7, 3), (64, 33, 3), (6, 2), (40, 41)])
def test_png_as_pillow_reads_it(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(write.png(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB" if len(shape) == 3 else "L")
        assert np.array_equal(np.asarray(image), pixels)
