"""TNVision's keys: every file has them, the document explains them, and each becomes what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from made_run import keys

from sapatchcore.tnvision import run as tnvision
from sapatchcore.tnvision.config import Config, Section
from sapatchcore.tnvision.read import config_from, read_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/anomaly/unsupervised/sapatchcore"

DOTTED = [
    f"{top}.{key}" if isinstance(field.annotation, type) and issubclass(field.annotation, Section) else top
    for top, field in Config.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {"": None})
]


def test_there_is_a_file_for_every_category() -> None:
    names = {*tnvision.MVTEC, *tnvision.LOCO, "cad_sd"}
    assert len(names) == 21
    assert {path.stem for path in CONFIGS.iterdir()} == names


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_has_every_key_and_tnvisions_values(path: Path) -> None:
    values, config = yaml.safe_load(path.read_text()), read_config(path)
    given = [f"{top}.{key}" for top in values if isinstance(values[top], dict) for key in values[top]]
    assert sorted(given + [top for top in values if not isinstance(values[top], dict)]) == sorted(DOTTED)
    assert config.DATASET.target == path.stem
    settings = config.settings()
    assert (settings.backbone, settings.layers) == ("wide_resnet50_2.tv_in1k", ("layer2", "layer3"))
    assert (settings.resize, settings.crop, settings.coreset_ratio) == ((224, 224), None, 0.1)
    assert (settings.neighbors, settings.image_score) == (9, "reweighted")
    root = "datasets/mvtec_loco_ad" if path.stem in tnvision.LOCO else "datasets/mvtec_ad"
    assert config.DATASET.datadir == Path("datasets" if path.stem == "cad_sd" else root)
    assert config.TRAIN.export_to_onnx is False


def test_the_document_explains_every_key() -> None:
    text = (ROOT / "docs/tnvision.md").read_text()
    assert [dotted for dotted in DOTTED if f"| `{dotted}` |" not in text] == []


def test_a_key_is_never_shown() -> None:
    assert "s3cret-key" not in repr(config_from(keys(("API_KEY", "s3cret-key")), "x.yaml"))


@pytest.mark.parametrize(
    ("key", "value", "setting", "expected"),
    [
        ("SEED", 7, "seed", 7),
        ("DATASET.resize", [64, 96], "resize", (64, 96)),
        ("DATALOADER.batch_size", 3, "batch_size", 3),
        ("DATALOADER.num_workers", 0, "workers", 0),
        ("MODEL.backbone", "wide_resnet50_2", "backbone", "wide_resnet50_2"),
        ("MODEL.pre_trained", True, "weights", "pretrained"),
        ("MODEL.pre_trained", False, "weights", "random"),
        ("MODEL.pre_trained", "a/b.pth", "weights", "a/b.pth"),
        ("MODEL.layers", ["layer1", "layer2"], "layers", ("layer1", "layer2")),
        ("MODEL.sampling_ratio", 0.25, "coreset_ratio", 0.25),
        ("MODEL.num_neighbors", 5, "neighbors", 5),
        ("MODEL.num_neighbors", 5, "image_score", "reweighted"),
        ("MODEL.num_neighbors", 1, "image_score", "max"),
        ("TRAIN.use_gpu", True, "device", "auto"),
        ("TRAIN.use_gpu", False, "device", "cpu"),
    ],
)
def test_a_key_becomes_a_setting(key: str, value: Any, setting: str, expected: Any) -> None:
    assert getattr(config_from(keys((key, value)), "x").settings(), setting) == expected


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ([], "saved_model/anomaly/unsupervised/bottle/SAPatchCore-wide_resnet50_2.tv_in1k"),
        (
            [("RESULT.savedir", "out"), ("EXP_NAME", "A")],
            "out/anomaly/unsupervised/bottle/A-wide_resnet50_2.tv_in1k",
        ),
        (
            [("MODEL.backbone", "hf_hub:me/net")],
            "saved_model/anomaly/unsupervised/bottle/SAPatchCore-hf_hub_me_net",
        ),
    ],
)
def test_where_results_go(changes: list[tuple[str, Any]], folder: str) -> None:
    assert config_from(keys(*changes), "x").folder() == Path(folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("best_model.safetensors", "best_model.safetensors"),
        ("best_model.pt", "best_model.safetensors"),
        ("best.model", "best.model.safetensors"),
    ],
)
def test_the_models_file_is_no_pickle(name: str, file: str) -> None:
    assert config_from(keys(("RESUME.bestmodel", name)), "x").model_file().name == file
