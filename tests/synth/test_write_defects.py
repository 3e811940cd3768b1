"""Made defects as a data set: read back, held-out images apart, the same bytes for the same seed, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import made_parts
import numpy as np
import pytest
from command import run
from conftest import write_images
from PIL import Image

from sapatchcore.data.images import read_mask
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.defects.made import KINDS, VERSION
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.synth.write_defects import write_defects

GOOD = [made_parts.bar(seed, (96, 96))[0] for seed in range(11)]
MESHES = [made_parts.mesh(seed, 64) for seed in range(5)]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_images(tmp_path / "good", np.stack(GOOD))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_read_back(tmp_path: Path) -> None:
    made = write_defects(tmp_path / "deep/set", GOOD, count=2)
    assert (made.folder, made.version, made.train) == (tmp_path / "deep/set", VERSION, 9)
    assert list(made.test) == ["good", *(kind for kind in KINDS if kind not in made.left_out)]
    assert made.test["good"] == 2  # every fifth
    assert all(count <= 2 for count in made.test.values())
    dataset = open_dataset(made.folder)
    assert (dataset.layout, dataset.name, len(dataset.train)) == ("mvtec", "set", 9)
    assert len(dataset.test) == sum(made.test.values())
    held_out = [read_image(sample.path) for sample in dataset.test if sample.is_good]
    assert [image.tobytes() for image in held_out] == [GOOD[4].tobytes(), GOOD[9].tobytes()]
    assert read_image(dataset.train[4].path).tobytes() == GOOD[5].tobytes()
    for sample in dataset.test:
        assert sample.masks is not None
        mask = read_mask(sample.masks, (96, 96))
        if not sample.is_good:
            apart = [(read_image(sample.path) != one).any(-1) for one in held_out]
            nearest = min(apart, key=lambda one: int(one.sum()))
            assert mask.any()
            assert nearest[mask].all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set"]


def test_the_set_says_what_it_is_and_shows_examples(tmp_path: Path) -> None:
    made = write_defects(tmp_path / "set", MESHES, count=2, seed=5)
    told = json.loads((made.folder / "synth.json").read_text())
    assert (told["scene"], told["version"], told["seed"]) == ("defects", VERSION, 5)
    assert set(made.left_out) == {kind for kind, group in KINDS.items() if group == "combination"}
    assert told["left_out"] == list(made.left_out)
    assert told["kinds"] == {kind: "local" for kind in made.test if kind != "good"}
    assert sorted(path.name for path in (made.folder / "test").iterdir()) == sorted(made.test)
    with Image.open(made.sheet) as sheet:
        assert made.sheet == tmp_path / "set/examples.png"
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")


def test_bytes_depend_on_the_seed_and_not_on_the_count(tmp_path: Path) -> None:
    first = contents(write_defects(tmp_path / "a", MESHES, count=1).folder)
    assert contents(write_defects(tmp_path / "b", MESHES, count=1).folder) == first
    more = contents(write_defects(tmp_path / "c", MESHES, count=2).folder)
    del first["examples.png"]
    assert first.items() < more.items()
    other = contents(write_defects(tmp_path / "d", MESHES, count=1, seed=1).folder)
    made = [name for name in first.keys() & other.keys() if name.startswith("test/") and "/good/" not in name]
    assert made
    assert all(other[name] != first[name] for name in made)


def test_one_image_held_out_serves_for_several_defects(tmp_path: Path) -> None:
    made = write_defects(tmp_path / "set", MESHES[:2], count=4)
    assert (made.train, made.test["good"], made.test["spot"]) == (1, 1, 4)
    spots = [read_image(path).tobytes() for path in (made.folder / "test/spot").iterdir()]
    assert len(set(spots)) == 4


PLAIN = [np.full((64, 64, 3), 120, np.uint8)] * 5


@pytest.mark.parametrize(
    ("images", "options", "error", "sentence"),
    [
        (GOOD[:1], {}, DataError, "Made defects need two good images or more, one of them held out. Got 1."),
        ([], {}, DataError, "Made defects need two good images or more, one of them held out. Got 0."),
        (PLAIN, {}, DataError, "The good images show no part: nothing in them stands out from one plain surface."),
        (
            [one[:20] for one in GOOD],
            {},
            DataError,
            "An image must have 32 pixels a side or more to make a defect on it.",
        ),
        ([*GOOD[:4], PLAIN[0]], {}, DataError, "The good images allow no defect: no part shows in those held out."),
        (GOOD, {"count": 0}, SettingsError, "test must be 1 or more. Got 0."),
        (GOOD, {"seed": -1}, SettingsError, "seed must be 0 or more. Got -1."),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_left(
    images: list[np.ndarray], options: dict[str, int], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        write_defects(tmp_path / "set", images, **options)
    assert str(caught.value).startswith(sentence)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(good: Path) -> None:
    before = contents(good)
    with pytest.raises(DataError, match=r"is not empty\. Name a new folder"):
        write_defects(good, GOOD)
    assert contents(good) == before


def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        assert (stage, total) == ("images", len(GOOD) + len(KINDS))
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_defects(tmp_path / "set", GOOD, count=1, progress=stop)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    write_defects(tmp_path / "set", MESHES, count=1, progress=lambda *step: seen.append(step))
    total = len(MESHES) + len(KINDS)
    assert seen == [("images", done, total) for done in range(1, total + 1)]


def test_command_says_what_was_left_out_and_what_to_type_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_images(tmp_path / "mesh", np.stack(MESHES)), tmp_path / "set"
    assert run("synth", "defects", folder, out, "--test", 2) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{out}: 4 good images to learn from, 17 to test (1 good, 2 scratch, 2 spot, ")
    assert "Left out, as these images do not allow them: moved, doubled, removed, swapped, mirrored." in text
    assert f" Examples: {out}/examples.png. Next:\n  sapatchcore evaluate {out}\n" in text


def test_command_json_and_the_category_it_made(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("synth", "defects", good, tmp_path / "one", "--test", 1, "--seed", 3, "--quiet", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["folder"], told["train"], told["test"]["scratch"]) == (str(tmp_path / "one"), 9, 1)
    assert (told["version"], told["sheet"]) == (VERSION, str(tmp_path / "one/examples.png"))
    # A data set's category does as well: its good training images are taken.
    assert run("synth", "defects", tmp_path / "one", tmp_path / "two", "--test", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"] == 8


@pytest.mark.parametrize(
    ("image", "code", "sentence"),
    [
        (PLAIN[0], 1, "sapatchcore: The good images show no part: nothing in them stands out from one plain surface."),
        (GOOD[0][:20], 1, "sapatchcore: An image must have 32 pixels a side or more to make a defect on it. Got 20×96"),
    ],
)
def test_command_with_images_that_do_not_serve(
    image: np.ndarray, code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "good", np.stack([image] * 4))
    assert run("synth", "defects", folder, tmp_path / "set") == code
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert (captured.err.count("\n"), captured.out) == (1, "")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_command_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert run("synth", "defects", tmp_path / folder, tmp_path / "set") == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert run("synth", "defects", tmp_path / "empty", tmp_path / "set", "--test", "0") in (1, 2)
    assert not (tmp_path / "set").exists()
