"""TNVision's run line: every key is read, refused where wrong, and does something."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from sapatchcore.data.images import read_image, read_mask
from sapatchcore.errors import DataError, SAPatchCoreError, SettingsError
from sapatchcore.tnvision import results
from sapatchcore.tnvision import run as tnvision
from sapatchcore.tnvision.config import Config, Section
from sapatchcore.tnvision.read import config_from, read_config
from sapatchcore.tnvision.results import log_to_wandb
from sapatchcore.verify.metrics import auroc, best_f1
from sapatchcore.verify.pixels import pixel_metrics

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/anomaly/unsupervised/sapatchcore"
RUN_LINE = "--task_type anomaly --model_type unsupervised --model_name sapatchcore --yaml_config"

DOTTED = [
    f"{top}.{key}" if isinstance(field.annotation, type) and issubclass(field.annotation, Section) else top
    for top, field in Config.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {"": None})
]


def keys(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The smallest YAML, with some keys set: ("TRAIN.beta", 2)."""
    values: dict[str, Any] = {"DATASET": {"datadir": "datasets", "target": "bottle"}}
    for dotted, value in changes:
        *top, key = dotted.split(".")
        place = values.setdefault(top[0], {}) if top else values
        place[key] = value
    return values


# ---------------------------------------------------------------------------------------- the files


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


# ------------------------------------------------------------------------------ keys that are refused


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


def test_a_key_is_never_shown() -> None:
    assert "s3cret-key" not in repr(config_from(keys(("API_KEY", "s3cret-key")), "x.yaml"))


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [1\n", "DATASET: \t{}\n"])
def test_what_is_no_yaml_of_keys_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert tnvision.main(["--yaml_config", str(tmp_path / "x.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --------------------------------------------------------------------------- keys that become settings


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


# ------------------------------------------------------------------------------------- the run line


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
    assert tnvision.main(["--yaml_config", str(_write(tmp_path, values))]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / target} does not exist." in error
    assert link in error
    assert layout in error
    assert error.count("\n") == 1
    assert not (tmp_path / "anomaly").exists()


def test_main_py_is_the_same_line(tmp_path: Path) -> None:
    values = keys(("DATASET.datadir", str(tmp_path)))
    line = [sys.executable, "main.py", *RUN_LINE.split(), str(_write(tmp_path, values))]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "does not exist" in done.stderr


# ---------------------------------------------------------------- what a run does, with a made-up detector


class Brightness:
    """A stand-in for the detector: the anomaly map is the brightness, the image score its largest value."""

    made: ClassVar[list[Brightness]] = []

    def __init__(self, **options: Any) -> None:
        self.settings = SimpleNamespace(**options)
        self.learned: list[Path] = []
        Brightness.made.append(self)

    def fit(self, paths: list[Path], progress: Callable[[str, int, int | None], None] | None = None) -> None:
        self.learned = list(paths)
        for done in range(1, len(paths) + 1):
            if progress:
                progress("learn", done, len(paths))

    def save(self, path: Path) -> None:
        values = {name: getattr(self.settings, name) for name in vars(self.settings)}
        path.write_text(json.dumps(values))

    @classmethod
    def load(cls, path: Path, **here: Any) -> Brightness:
        options = json.loads(path.read_text())
        return cls(
            **{
                **options,
                "layers": tuple(options["layers"]),
                "resize": tuple(options["resize"]),
                **here,
            }
        )


def _evaluate(
    _: Brightness, dataset: Any, progress: Callable[[str, int, int | None], None], beta: float
) -> SimpleNamespace:
    maps = [read_image(one.path)[:, :, 0].astype(np.float32) for one in dataset.test]
    scores = np.array([one.max() for one in maps], np.float32)
    for done in range(1, len(maps) + 1):
        progress("test", done, len(maps))
    defective = [not one.is_good for one in dataset.test]
    known = [(one, seen) for one, seen in zip(dataset.test, maps, strict=True) if one.masks is not None]
    masks = [read_mask(one.masks, (32, 32)) for one, _ in known]
    return SimpleNamespace(
        result=SimpleNamespace(
            scores=scores,
            maps=maps,
            sizes=[(32, 32)] * len(maps),
            paths=tuple(str(one.path) for one in dataset.test),
        ),
        image_auroc=auroc(defective, scores),
        image_threshold=best_f1(defective, scores, beta)[1],
        pixel=pixel_metrics(masks, [seen for _, seen in known], beta=beta),
        reasons={},
        to_dict=lambda: {"made": "up"},
    )


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Five good training images; good test images as bright as 10 and 60, defects as 50, 200 and 250."""

    def image(path: str, grey: int, spot: int | None = None) -> None:
        pixels = np.full((32, 32), grey, np.uint8)
        if spot is not None:
            pixels[:8, :8] = spot
        (tmp_path / "parts" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "parts" / path)

    for number in range(5):
        image(f"train/good/{number}.png", 10 + number)
    image("test/good/0.png", 5, 10)
    image("test/good/1.png", 5, 60)
    for name, grey in (("dim", 50), ("mid", 200), ("hot", 250)):
        image(f"test/spot/{name}.png", 5, grey)
        image(f"ground_truth/spot/{name}_mask.png", 0, 255)
    return tmp_path / "parts"


@pytest.fixture
def run(parts: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the smallest YAML with some keys set on `parts`; the folder of the results."""
    monkeypatch.setattr(tnvision, "evaluate", _evaluate)
    monkeypatch.setattr(tnvision, "SAPatchCore", Brightness)
    Brightness.made.clear()

    def one(*changes: tuple[str, Any]) -> Path:
        fixed = [
            ("DATASET.datadir", str(parts.parent)),
            ("DATASET.target", "parts"),
            ("DATASET.resize", [64, 64]),
        ]
        result = ("RESULT.savedir", str(parts.parent / "out"))
        return tnvision.run(config_from(keys(*fixed, result, *changes), "x.yaml"))

    return one


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


# ------------------------------------------------------------------------------------- the real thing


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
    line = [*RUN_LINE.split(), str(_write(tmp_path, values))]
    assert tnvision.main(line) == 0, capsys.readouterr().err
    folder = tmp_path / "out/anomaly/unsupervised/parts/SAPatchCore-resnet18"
    first = json.loads((folder / "best_score.json").read_text())
    assert 0 <= first["eval_AUROC-image"] <= 1
    assert (folder / "best_model.safetensors").stat().st_size > 0
    assert len(list(folder.glob("top_k/*.png"))) == 2

    values["DATASET"]["mode"] = "test"
    _write(tmp_path, values)
    assert tnvision.main(line) == 0, capsys.readouterr().err
    again = json.loads((folder / "best_score.json").read_text())
    for name in first:
        if name.startswith("eval_"):
            assert again[name] == first[name], name


def test_the_onnx_file_end_to_end(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")
    values = keys(
        ("DATASET.datadir", str(parts.parent)),
        ("DATASET.target", "parts"),
        ("DATASET.resize", [64, 64]),
        ("MODEL.backbone", "resnet18"),
        ("MODEL.pre_trained", False),
        ("TRAIN.use_gpu", False),
        ("TRAIN.export_to_onnx", True),
        ("RESULT.savedir", str(tmp_path / "out")),
        ("RESULT.saveall", True),
        ("RESULT.saveallonnx", True),
        ("RESULT.save_test_img_onnx", "blind"),
        ("RESUME.onnxmodel", "mine.onnx"),
    )
    assert tnvision.main([*RUN_LINE.split(), str(_write(tmp_path, values))]) == 0, capsys.readouterr().err
    folder = tmp_path / "out/anomaly/unsupervised/parts/SAPatchCore-resnet18"
    names = {"best_model.safetensors", "best_score.json", "blind", "log.txt", "mine.onnx", "saveall", "saveallonnx"}
    assert {path.name for path in folder.iterdir()} == names
    pictures = sorted(path.name for path in (folder / "saveall").iterdir())
    assert len(pictures) == 5
    for name in pictures:
        own = np.asarray(Image.open(folder / "saveall" / name)).astype(int)
        theirs = np.asarray(Image.open(folder / "saveallonnx" / name)).astype(int)
        assert np.abs(own - theirs).mean() < 1, name
        assert np.asarray(Image.open(folder / "blind" / name)).shape[1] == own.shape[1] - 32  # without the truth


def _write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
