"""TNVision's run line: what it refuses, learns, loads, exports and logs."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import RUN_LINE, Brightness, keys, write_yaml
from PIL import Image

from sapatchcore.errors import SAPatchCoreError, SettingsError
from sapatchcore.tnvision import run as tnvision

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/anomaly/unsupervised/sapatchcore"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("--task_type anomly --yaml_config x", 2, "--task_type must be anomaly. Got 'anomly'. Did you mean"),
        (
            "--model_type supervised --yaml_config x",
            2,
            "--model_type must be unsupervised. Got 'supervised'.",
        ),
        ("--model_name patchcore --yaml_config x", 2, "--model_name must be sapatchcore. Got 'patchcore'."),
        ("--yaml_confg x", 2, "'--yaml_confg' is not an option. Did you mean '--yaml_config'?"),
        (RUN_LINE.removesuffix(" --yaml_config"), 2, "--yaml_config is missing."),
        (f"{RUN_LINE} {CONFIGS}/botle.yaml", 2, "does not exist. Did you mean 'bottle.yaml'?"),
    ],
)
def test_a_wrong_run_line(line: str, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tnvision.main(line.split()) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "link", "layout"),
    [
        ("bottle", "https://www.mvtec.com/company/research/datasets/mvtec-ad", "train/good, test/good"),
        (
            "pushpins",
            "https://www.mvtec.com/company/research/datasets/mvtec-loco-ad",
            "test/logical_anomalies",
        ),
        ("cad_sd", "https://github.com/IshidaKengo/SA-PatchCore", "train/0_good"),
        ("my_parts", "your own images need the same layout", "train/good, test/good"),
    ],
)
def test_a_missing_data_set_says_where_to_get_it(
    target: str, link: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = keys(("DATASET.datadir", str(tmp_path)), ("DATASET.target", target), ("RESULT.savedir", str(tmp_path)))
    assert tnvision.main(["--yaml_config", str(write_yaml(tmp_path, values))]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / target} does not exist." in error
    assert link in error
    assert layout in error
    assert error.count("\n") == 1
    assert not (tmp_path / "anomaly").exists()


def test_main_py_is_the_same_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = keys(("DATASET.datadir", str(tmp_path)))
    monkeypatch.setattr(sys, "argv", ["main.py", *RUN_LINE.split(), str(write_yaml(tmp_path, values))])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert (done.value.code, error.count("\n")) == (1, 1)
    assert "does not exist" in error


def test_a_run_writes_scores_model_and_log(run: Callable[..., Path]) -> None:
    folder = run()
    scores = json.loads((folder / "best_score.json").read_text())
    # Defects 50, 200, 250 against good 10, 60: five of six pairs are in order.
    assert scores["eval_AUROC-image"] == pytest.approx(5 / 6)
    assert scores["eval_Threshold-image"] == 50  # F1 of 3 found and 1 false alarm, 6/7, beats 4/5 at 200
    assert scores["eval_Threshold-pixel"] == 50
    assert scores["decisions"] == {
        "defects_found": 3,
        "defects_missed": 0,
        "false_alarms": 1,
        "good_passed": 1,
    }
    assert "optimistic" in scores["thresholds_from"]
    areas = [scores[f"eval_{name}"] for name in ("AUROC-image", "AUROC-pixel", "AUPRO-pixel")]
    assert scores["best_score"] == pytest.approx(np.mean(areas))
    assert scores["evaluation"] == {"made": "up"}
    assert sorted(path.name for path in folder.iterdir()) == [
        "best_model.safetensors",
        "best_score.json",
        "log.txt",
    ]
    assert "5 training and 5 test images" in (folder / "log.txt").read_text()


@pytest.mark.parametrize(("steps", "learned"), [(0, 5), (1, 2), (2, 4), (3, 5), (5000, 5)])
def test_training_steps_are_batches(run: Callable[..., Path], steps: int, learned: int) -> None:
    folder = run(("TRAIN.num_training_steps", steps), ("DATALOADER.batch_size", 2))
    assert len(Brightness.made[0].learned) == learned
    assert ("only the first" in (folder / "log.txt").read_text()) == (learned < 5)


@pytest.mark.parametrize(
    ("key", "value", "lines"),
    [
        ("LOG.log_interval", 1, ["learn 2/5", "learn 4/5", "learn 5/5"]),
        ("LOG.log_interval", 2, ["learn 4/5", "learn 5/5"]),
        ("LOG.eval_interval", 2, ["test 2/5", "test 4/5", "test 5/5"]),
        ("LOG.eval_interval", 9, ["test 5/5"]),
    ],
)
def test_intervals_of_the_log(run: Callable[..., Path], key: str, value: int, lines: list[str]) -> None:
    log = (run((key, value), ("DATALOADER.batch_size", 2)) / "log.txt").read_text()
    assert re.findall(rf"{lines[0].split()[0]} \d/\d", log) == lines


def test_a_saved_model_is_tested_without_learning(run: Callable[..., Path]) -> None:
    folder = run(("RESUME.bestmodel", "mine.pt"))
    (folder / "best_score.json").unlink()
    for key, value in (("RESUME.option", True), ("DATASET.mode", "test")):
        Brightness.made.clear()
        run((key, value), ("RESUME.bestmodel", "mine.pt"))
        assert [one.learned for one in Brightness.made] == [[]]
        assert (folder / "best_score.json").is_file()
    run(
        *(("DATASET.mode", "test"), ("RESUME.bestmodel", "mine.pt"), ("MODEL.num_neighbors", 1)),
        *(("DATALOADER.batch_size", 3), ("DATALOADER.num_workers", 0)),
    )
    here = Brightness.made[-1].settings
    assert (here.neighbors, here.image_score, here.batch_size, here.workers) == (1, "max", 3, 0)
    with pytest.raises(
        SettingsError, match=r"MODEL\.sampling_ratio must be what the saved model was learned with, 0\.1"
    ):
        run(("RESUME.option", True), ("RESUME.bestmodel", "mine.pt"), ("MODEL.sampling_ratio", 0.5))
    with pytest.raises(SAPatchCoreError, match=r"other\.safetensors does not exist\. Learn it first"):
        run(("DATASET.mode", "test"), ("RESUME.bestmodel", "other.safetensors"))


def test_nothing_to_resume_is_learned(run: Callable[..., Path]) -> None:
    """As TNVision's own files have it: mode true, option true, on the first run."""
    folder = run(("RESUME.option", True), ("DATASET.mode", True))
    assert len(Brightness.made[-1].learned) > 0
    assert "there is no saved model" in (folder / "log.txt").read_text()
    run(("RESUME.option", True), ("DATASET.mode", False))
    assert Brightness.made[-1].learned == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.pre_trained", False),
        ("MODEL.layers", ["layer1", "layer2"]),
        ("DATASET.resize", [64, 96]),
        ("MODEL.sampling_ratio", 0.5),
        ("SEED", 1),
    ],
)
def test_a_saved_model_that_was_learned_otherwise_is_refused(run: Callable[..., Path], key: str, value: Any) -> None:
    run()
    with pytest.raises(SettingsError, match=rf"{key} must be what the saved model was learned with"):
        run(("DATASET.mode", "test"), (key, value))


def test_onnx_that_cannot_be_had_is_refused_before_any_work(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("RESULT.saveallonnx", "RESULT.save_test_img_onnx"):
        with pytest.raises(SettingsError, match=rf"{key} needs the ONNX file. Set TRAIN.export_to_onnx to true"):
            run((key, True))
    with pytest.raises(SettingsError, match=r"opset must be from 17 to \d+\. Got 99\."):
        run(("TRAIN.export_to_onnx", True), ("RESUME.opset_version", 99))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SAPatchCoreError, match=r'pip install "sapatchcore\[export\]"') as error:
        run(("TRAIN.export_to_onnx", True))
    assert error.value.exit_code == 1
    assert Brightness.made == []


def test_onnx_export_gets_file_and_opset(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, int]] = []
    monkeypatch.setattr(tnvision, "require_packages", lambda _: None)
    monkeypatch.setattr(tnvision, "export_model", lambda _, path, opset: calls.append((path, opset)))
    onnx = [("TRAIN.export_to_onnx", True), ("RESUME.onnxmodel", "m.onnx"), ("RESUME.opset_version", 18)]
    folder = run(*onnx)
    assert calls == [(folder / "m.onnx", 18)]
    run(*onnx[:-1], ("RESUME.opset_version", 13))  # what TNVision's own files ask for
    assert calls[-1] == (folder / "m.onnx", 17)
    assert "RESUME.opset_version 13 cannot be written any more; 17 is." in (folder / "log.txt").read_text()
    run(("RESULT.saveallonnx", "saveallonnx"))  # as in TNVision's files, with or without an export
    assert "RESULT.saveallonnx: TRAIN.export_to_onnx is false, so no pictures" in (folder / "log.txt").read_text()
    assert not (folder / "saveallonnx").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SAPatchCoreError("The disk\nis full."), "The disk is full."),
        (OSError(28, "No space left on device", "x.png"), "x.png cannot be used: No space left on device."),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (KeyboardInterrupt(), "Interrupted."),
    ],
)
def test_an_error_stands_in_the_log(
    run: Callable[..., Path],
    error: BaseException,
    line: str,
    parts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(tnvision, "evaluate", fail)
    with pytest.raises(type(error)):
        run()
    (log,) = (parts.parent / "out").rglob("log.txt")
    assert log.read_text().splitlines()[-1].endswith(f" {line}")
    assert line not in capsys.readouterr().out  # main says it, on stderr


def test_the_run_line_end_to_end(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = keys(
        ("DATASET.datadir", str(parts.parent)),
        ("DATASET.target", "parts"),
        ("DATASET.resize", [64, 64]),
        ("MODEL.backbone", "resnet18"),
        ("MODEL.pre_trained", False),
        ("TRAIN.use_gpu", False),
        ("TRAIN.top_k", 2),
        ("RESULT.savedir", str(tmp_path / "out")),
    )
    line = [*RUN_LINE.split(), str(write_yaml(tmp_path, values))]
    assert tnvision.main(line) == 0, capsys.readouterr().err
    folder = tmp_path / "out/anomaly/unsupervised/parts/SAPatchCore-resnet18"
    first = json.loads((folder / "best_score.json").read_text())
    assert 0 <= first["eval_AUROC-image"] <= 1
    assert (folder / "best_model.safetensors").stat().st_size > 0
    assert len(list(folder.glob("top_k/*.png"))) == 2

    values["DATASET"]["mode"] = "test"
    write_yaml(tmp_path, values)
    assert tnvision.main(line) == 0, capsys.readouterr().err
    again = json.loads((folder / "best_score.json").read_text())
    for name in first:
        if name.startswith("eval_"):
            assert again[name] == first[name], name


def test_the_onnx_file_end_to_end(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for needed in ("onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: install the extra export")
    values = keys(
        ("DATASET.datadir", str(parts.parent)),
        ("DATASET.target", "parts"),
        ("DATASET.resize", [64, 64]),
        ("MODEL.backbone", "test_vit"),
        ("MODEL.pre_trained", False),
        ("TRAIN.use_gpu", False),
        ("TRAIN.export_to_onnx", True),
        ("RESULT.savedir", str(tmp_path / "out")),
        ("RESULT.saveall", True),
        ("RESULT.saveallonnx", True),
        ("RESULT.save_test_img_onnx", "blind"),
        ("RESUME.onnxmodel", "mine.onnx"),
        ("RESUME.opset_version", 20),
    )
    assert tnvision.main([*RUN_LINE.split(), str(write_yaml(tmp_path, values))]) == 0, capsys.readouterr().err
    folder = tmp_path / "out/anomaly/unsupervised/parts/SAPatchCore-test_vit"
    names = {"best_model.safetensors", "best_score.json", "blind", "log.txt", "mine.onnx", "saveall", "saveallonnx"}
    assert {path.name for path in folder.iterdir()} == names
    pictures = sorted(path.name for path in (folder / "saveall").iterdir())
    assert len(pictures) == 5
    model = onnx.load(folder / "mine.onnx")
    assert {one.domain: one.version for one in model.opset_import}[""] == 20
    for name in pictures:
        own = np.asarray(Image.open(folder / "saveall" / name)).astype(int)
        theirs = np.asarray(Image.open(folder / "saveallonnx" / name)).astype(int)
        assert np.abs(own - theirs).mean() < 1, name
        assert np.asarray(Image.open(folder / "blind" / name)).shape[1] == own.shape[1] - 32  # without the truth
