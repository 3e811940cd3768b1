"""What a TNVision run writes: scores, thresholds, pictures, and a run of Weights & Biases."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_run import keys
from PIL import Image

from sapatchcore.errors import DataError
from sapatchcore.tnvision import results
from sapatchcore.tnvision.read import config_from
from sapatchcore.tnvision.results import log_to_wandb


def test_beta_weighs_recall(run: Callable[..., Path]) -> None:
    scores = json.loads((run(("TRAIN.beta", 0.1)) / "best_score.json").read_text())
    assert (scores["eval_Threshold-image"], scores["beta"]) == (200, 0.1)  # precision counts: no false alarm
    assert scores["eval_Threshold-pixel"] == 200
    assert "eval_F0.1-pixel" in scores
    assert "eval_F1-pixel" not in scores  # it is another figure


@pytest.mark.parametrize("beta", [1, 0.1])
def test_without_ground_truth_pixel_scores_are_undefined(run: Callable[..., Path], parts: Path, beta: float) -> None:
    shutil.rmtree(parts / "ground_truth")
    scores = json.loads((run(("TRAIN.beta", beta)) / "best_score.json").read_text())
    assert (scores["eval_AUROC-pixel"], scores["eval_Threshold-pixel"]) == (None, None)
    assert scores["best_score"] == scores["eval_AUROC-image"] == pytest.approx(5 / 6)


def test_the_yamls_thresholds_are_used_as_they_are(run: Callable[..., Path]) -> None:
    fixed = [("TRAIN.compute_threshold", False), ("TEST.threshold_image", 220), ("TEST.threshold_pixel", 100)]
    scores = json.loads((run(*fixed) / "best_score.json").read_text())
    assert (scores["eval_Threshold-image"], scores["eval_Threshold-pixel"]) == (220, 100)
    assert scores["decisions"]["defects_missed"] == 2
    assert scores["thresholds_from"] == "the YAML's TEST"
    open_ended = json.loads((run(("TRAIN.compute_threshold", False)) / "best_score.json").read_text())
    assert open_ended["eval_Threshold-image"] is None
    assert "decisions" not in open_ended


@pytest.mark.parametrize(
    ("key", "value", "files"),
    [
        ("TRAIN.top_k", 2, ["top_k/001_spot_hot.png", "top_k/002_spot_mid.png"]),
        (
            "RESULT.saveall",
            True,
            [f"saveall/result_{name}.png" for name in ("good_0", "good_1", "spot_dim", "spot_hot", "spot_mid")],
        ),
        (
            "RESULT.save_test_img",
            "seen",
            [f"seen/result_{name}.png" for name in ("good_0", "good_1", "spot_dim", "spot_hot", "spot_mid")],
        ),
        ("TRAIN.visualize_aug", True, ["visualize_aug/1.png", "visualize_aug/2.png"]),
    ],
)
def test_pictures(run: Callable[..., Path], key: str, value: Any, files: list[str]) -> None:
    folder = run((key, value))
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    if key == "TRAIN.visualize_aug":
        assert len(found) == 2
        assert {Image.open(folder / path).size for path in found} == {(64, 64)}
    else:
        assert found == files


def test_a_picture_shows_image_heat_defect_and_truth(run: Callable[..., Path]) -> None:
    folder = run(("RESULT.saveall", True), ("RESULT.save_test_img", True))
    full = np.asarray(Image.open(folder / "saveall/result_spot_hot.png"))
    assert full.shape == (32, 4 * 32, 3)
    assert full[0, 0].tolist() == [250, 250, 250]
    assert full[0, 64].tolist() == [252, 125, 125]  # half red above the threshold
    assert full[0, 96].tolist() == [125, 225, 125]  # half green, the truth
    assert full[20, 64].tolist() == [5, 5, 5]
    assert np.asarray(Image.open(folder / "save_test_img/result_spot_hot.png")).shape == (32, 3 * 32, 3)


def test_one_pixel_of_a_large_image_is_seen() -> None:
    image, values, truth = (
        np.full((1000, 900, 3), 10, np.uint8),
        np.zeros((1000, 900), np.float32),
        np.zeros((1000, 900), bool),
    )
    values[900, 123] = 1
    truth[3, 4] = True
    *_, above, marked = results._panels(image, values, 0.5, truth)
    assert np.argwhere((above != 10).any(2)).tolist() == [[360, 49]]  # of 400 × 360
    assert np.argwhere((marked != 10).any(2)).tolist() == [[1, 1]]
    assert above[360, 49].tolist() == [132, 5, 5]
    assert marked[1, 1].tolist() == [5, 105, 5]


@pytest.mark.parametrize(("truth", "encoded"), [(True, 10), (False, 7)])
def test_an_image_is_read_once_and_each_picture_encoded_once(
    truth: bool, encoded: int, run: Callable[..., Path], parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a defect has no mask, its pictures with and without ground truth are the same one; good images need none."""
    if not truth:
        shutil.rmtree(parts / "ground_truth")
    read, made, read_one, make_one = [], [], results.read_image, results._png
    monkeypatch.setattr(results, "read_image", lambda path: (read.append(path), read_one(path))[1])
    monkeypatch.setattr(results, "_png", lambda pixels: (made.append(pixels), make_one(pixels))[1])
    folder = run(("RESULT.saveall", True), ("RESULT.save_test_img", True), ("TRAIN.top_k", 2))
    assert len(list(folder.rglob("*.png"))) == 12
    assert len(read) == len(set(read)) == 5
    assert len(made) == encoded


def test_a_result_that_cannot_be_written(run: Callable[..., Path], parts: Path) -> None:
    (run() / "saveall").write_text("no folder")
    with pytest.raises(
        DataError,
        match=r"saveall/result_.*\.png cannot be written: .*\. Free space, or name another folder in RESULT\.savedir\.",
    ):
        run(("RESULT.saveall", True))
    assert not list(parts.parent.rglob("*.part"))


def test_num_sample_and_seed_of_the_training_images(run: Callable[..., Path]) -> None:
    assert len(list(run(("TRAIN.visualize_aug", True), ("TRAIN.num_sample", 99)).glob("visualize_aug/*"))) == 5


def test_without_wandb_a_run_goes_on(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = run(("TRAIN.use_wandb", True))
    assert "wandb is not installed" in (folder / "log.txt").read_text()
    assert (folder / "best_score.json").is_file()


@pytest.mark.parametrize(("key", "mode"), [("", "offline"), ("s3cret-key", "online")])
def test_wandb_needs_no_key(key: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    module = _wandb(calls)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_API_KEY", "another")  # of whoever is logged in: the YAML alone decides
    config = config_from(keys(("API_KEY", key or None), ("EXP_NAME", "A")), "x")
    said = log_to_wandb(config, tmp_path, {"eval_AUROC-image": 0.5, "eval_F1-pixel": None})
    (options,) = [one for one in calls if "mode" in one]
    assert (options["mode"], options["project"]) == (mode, "A")
    assert options["settings"].get("api_key") == (key or None)
    assert "s3cret-key" not in json.dumps(options["config"])
    assert calls[-1] == {"eval_AUROC-image": 0.5}
    assert mode in said
    assert "s3cret-key" not in said


def test_wandb_that_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _wandb([])
    monkeypatch.setattr(module, "init", lambda **_: 1 / 0)
    monkeypatch.setitem(sys.modules, "wandb", module)
    said = log_to_wandb(config_from(keys(), "x"), tmp_path, {"eval_AUROC-image": 0.5})
    assert said.startswith("TRAIN.use_wandb: wandb failed, and nothing more is logged to it: ZeroDivisionError")


def _wandb(calls: list[Any]) -> ModuleType:
    """A stand-in that keeps the options of ``init`` and what was logged."""
    module: Any = ModuleType("wandb")

    def init(**options: Any) -> SimpleNamespace:
        calls.append(options)
        return SimpleNamespace(log=calls.append, define_metric=lambda *_, **__: None, finish=lambda **_: None)

    module.init, module.Settings = init, dict
    return module  # type: ignore[no-any-return]
