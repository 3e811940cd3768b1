"""fit, update and forget as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from conftest import write_images
from made_screws import SMALL

from sapatchcore import SAPatchCore


def test_fit_says_what_it_kept(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), "--json", *SMALL) == 0
    printed = json.loads(capsys.readouterr().out)
    # 24 images of 8×8 patches, of which 5 % are kept.
    assert printed == {
        "model": str(path),
        "training_images": 24,
        "bank": [76, 384],
        "calibration_images": 24,
        "bytes": path.stat().st_size,
        "not_inspected": 0.0,
    }
    assert run("fit", str(root / "bench"), "-o", str(path), *SMALL) == 0
    text = capsys.readouterr().out
    assert "learned from 24 images, kept 76 patches of 384 numbers" in text
    assert (
        "24 calibration scores: about 1 good part in 25 rejected (4.0%) is the least that can be promised. The " in text
    )
    assert "99 images or more can promise 1%." in text


def test_fit_without_weights_is_smaller_and_loads(root: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert run("fit", str(root / "bench"), "-o", str(path), "--no-weights", *SMALL) == 0
    assert path.stat().st_size < model.stat().st_size / 10
    assert run("predict", str(path), str(root / "bench/test/good")) == 0


def test_calibration_with_separate_images(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    separate = root / "bottle/train/good"
    path = tmp_path / "m"
    assert run("fit", str(root / "bench"), "-o", str(path), "--calibrate", str(separate), *SMALL) == 0
    assert run("info", str(path), "--json") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["calibration"]["source"], printed["calibration"]["images"]) == ("separate", 24)


def test_validation_images_are_for_the_thresholds_alone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MVTec LOCO AD's layout: what is kept apart there is not learned from, and calibrates; elsewhere nothing is."""
    source, category, path = root / "bench", tmp_path / "loco", tmp_path / "m"
    parts = {
        "train/good": "train/good",
        "validation/good": "test/good",
        "test/good": "test/good",
        "test/logical_anomalies": "test/over-coupling",
        "test/structural_anomalies": "test/scratch",
    }
    for target, origin in parts.items():
        shutil.copytree(source / origin, category / target)
    for data, expected in ((category, ("separate", 8)), (source, ("cross-fitted", 24))):
        assert run("fit", str(data), "-o", str(path), *SMALL) == 0
        assert run("info", str(path), "--json") == 0
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (printed["calibration"]["source"], printed["calibration"]["images"]) == expected
        assert printed["training_images"] == 24


def test_update_and_forget_change_a_model_file(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, more = tmp_path / "m", root / "bottle/train/good"
    path.write_bytes(model.read_bytes())
    assert run("update", str(path), str(more), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["training_images"], printed["calibration_images"]) == (48, 48)
    assert printed["bank"][0] == 76 + printed["added"]
    assert run("update", str(path), str(more)) == 1
    assert "was learned from already" in capsys.readouterr().err
    first = str(more / "000.png")
    assert run("forget", str(path), first, "-o", str(tmp_path / "other"), "--json") == 0
    less = json.loads(capsys.readouterr().out)
    assert (less["training_images"], less["calibration_images"]) == (47, 47)
    assert less["bank"][0] == printed["bank"][0] - less["removed"]
    assert run("info", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["training_images"] == 48, "-o leaves the model itself as it is"
    assert run("forget", str(tmp_path / "other"), first) == 1
    assert "is not among the 47 images that were learned from" in capsys.readouterr().err
    assert run("predict", str(tmp_path / "other"), first) == 0


def test_fit_and_info_say_what_a_crop_leaves_out(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.safetensors"
    cropped = [*SMALL[: SMALL.index("--crop")], "--crop", "32x48", *SMALL[SMALL.index("--crop") + 2 :]]
    assert run("fit", str(root / "bench"), "-o", str(path), *cropped) == 0
    line = "62% of each image, its border, is not inspected: crop 32x48 of 64x64. Use --crop none to inspect all of it."
    assert capsys.readouterr().out.splitlines().count(line) == 1
    assert run("info", str(path)) == 0
    assert f"not_inspected        {line}" in capsys.readouterr().out.splitlines()
    assert run("info", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["not_inspected"] == 1 - 32 * 48 / 64**2
    assert run("fit", str(root / "bench"), "-o", str(path), *SMALL) == 0
    assert "not inspected" not in capsys.readouterr().out
    assert run("info", str(model)) == 0
    assert "not_inspected        nothing: no crop" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("ray", [False, True])
def test_what_is_left_out_is_told_of_the_size_that_images_are_resized_to(
    ray: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the requested one, where `keep_aspect` takes the images' shape."""
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    folder, path = write_images(tmp_path / "good", images), tmp_path / "m.safetensors"
    options = ["--resize", "64", "--keep-aspect", "true", "--crop", "64x48", "--backbone", "builtin"]
    if ray:
        pytest.importorskip("ray")

        def alone(data: str, output: Path, options: dict[str, Any], **_: object) -> dict[str, Any]:
            detector = SAPatchCore(**options).fit(data)
            detector.save(output)
            counts = {"training_images": 3, "bank": list(detector.memory_bank.shape), "calibration_images": 3}
            return {**counts, "resize": detector.settings.resize}

        monkeypatch.setattr("sapatchcore.scale.fit.fit", alone)
        options += ["--ray", "local"]
    assert run("fit", str(folder), "-o", str(path), *options) == 0
    line = "50% of each image, its border, is not inspected: crop 64x48 of 64x96. Use --crop none to inspect all of it."
    assert line in capsys.readouterr().out.splitlines()
    assert run("fit", str(folder), "-o", str(path), *options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["not_inspected"] == 0.5
    assert "resize" not in printed
    assert run("info", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["not_inspected"] == 0.5
