"""TNVision's YAML: what is unknown, twice or out of range is refused, with the nearest key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_run import keys

from sapatchcore.errors import SettingsError
from sapatchcore.tnvision import run as tnvision
from sapatchcore.tnvision.read import config_from, read_config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SEDE", 1, "'SEDE' is not a key at the top level. Did you mean 'SEED'?"),
        ("DATASET.datdir", "x", "'datdir' is not a key of DATASET. Did you mean 'datadir'?"),
        ("DATALOADER.bach_size", 8, "'bach_size' is not a key of DATALOADER. Did you mean 'batch_size'?"),
        ("MODEL.sampling_rate", 0.1, "'sampling_rate' is not a key of MODEL. Did you mean 'sampling_ratio'?"),
        ("TRAIN.usewandb", True, "'usewandb' is not a key of TRAIN. Did you mean 'use_wandb'?"),
        ("TEST.treshold_pixel", 1, "'treshold_pixel' is not a key of TEST. Did you mean 'threshold_pixel'?"),
        ("LOG.loginterval", 1, "'loginterval' is not a key of LOG. Did you mean 'log_interval'?"),
        ("RESULT.save_dir", "x", "'save_dir' is not a key of RESULT. Did you mean 'savedir'?"),
        ("RESUME.options", True, "'options' is not a key of RESUME. Did you mean 'option'?"),
        (
            "batch_size",
            8,
            "'batch_size' is not a key at the top level. Did you mean 'DATALOADER.batch_size'?",
        ),
        ("TRAIN.seed", 1, "'seed' is not a key of TRAIN."),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key: str, value: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"x.yaml: {message}")):
        config_from(keys((key, value)), "x.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("EXP_NAME", "../up", "EXP_NAME must be the name of one folder. Got '../up'."),
        ("TASK", "anomly", "TASK must be anomaly. Got 'anomly'. Did you mean 'anomaly'?"),
        ("METHOD", "supervised", "METHOD must be unsupervised. Got 'supervised'."),
        ("SEED", -1, "SEED must be a whole number, 0 or more. Got -1."),
        ("SEED", True, "SEED must be a whole number, 0 or more. Got True."),
        ("DATASET.mode", "tset", "DATASET.mode must be train or test. Got 'tset'. Did you mean 'test'?"),
        (
            "DATASET.resize",
            [8, 8],
            "DATASET.resize must be [height, width], each from 32 to 8192. Got [8, 8].",
        ),
        ("DATASET.target", None, "DATASET.target is missing. Add it: the name of one folder."),
        ("DATALOADER.batch_size", 0, "DATALOADER.batch_size must be a whole number from 1 to 4096. Got 0."),
        ("DATALOADER.num_workers", 1.5, "DATALOADER.num_workers must be a whole number from 0 to 256."),
        ("MODEL", 3, "MODEL must hold keys with values: backbone, pre_trained, "),
        ("MODEL.layers", ["layer2"], "MODEL.layers must be a list of two layer names. Got ['layer2']."),
        ("MODEL.sampling_ratio", 3, "MODEL.sampling_ratio must be in (0, 1]. Got 3."),
        ("MODEL.num_neighbors", 10, "MODEL.num_neighbors must be a whole number from 1 to 9. Got 10."),
        ("TRAIN.use_gpu", "yes", "TRAIN.use_gpu must be true or false. Got 'yes'."),
        ("TRAIN.beta", float("nan"), "TRAIN.beta must be a number above 0. Got nan."),
        ("TEST.threshold_image", "high", "TEST.threshold_image must be a number, 0 or more. Got 'high'."),
        ("RESULT.saveall", "a/b", "RESULT.saveall must be true, false or a folder's name. Got 'a/b'."),
        ("RESUME.opset_version", 3, "RESUME.opset_version must be a whole number, 11 or more. Got 3."),
        ("API_KEY", 123456, "API_KEY must be a text, or nothing. Got a int."),
    ],
)
def test_a_wrong_value_says_what_got_and_allowed(key: str, value: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"x.yaml: {message}")):
        config_from(keys((key, value)), "x.yaml")


def test_no_data_set_at_all() -> None:
    with pytest.raises(SettingsError, match="DATASET is missing"):
        config_from({}, "x.yaml")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("SEED: 1\nDATASET: {datadir: a, target: b}\nSEED: 2\n")
    with pytest.raises(SettingsError, match="the key SEED stands twice"):
        read_config(path)


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [1\n", "DATASET: \t{}\n"])
def test_what_is_no_yaml_of_keys_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert tnvision.main(["--yaml_config", str(tmp_path / "x.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
