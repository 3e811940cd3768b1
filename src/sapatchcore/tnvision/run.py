"""TNVision's run line: one YAML file in, a folder of results out.

``python main.py --task_type anomaly --model_type unsupervised --model_name sapatchcore --yaml_config FILE``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sapatchcore.atomic import write_json
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import LAYOUT_FOLDERS, Dataset
from sapatchcore.detector import SAPatchCore
from sapatchcore.errors import DataError, ModelFileError, SAPatchCoreError, SettingsError, did_you_mean
from sapatchcore.export.export import export_model, kind_of, require_packages
from sapatchcore.export.onnx_file import LOWEST_OPSET, check_opset
from sapatchcore.export.runtime import open_exported
from sapatchcore.tnvision.config import Config
from sapatchcore.tnvision.read import read_config
from sapatchcore.tnvision.results import (
    ADVICE,
    find_thresholds,
    log_to_wandb,
    save_onnx_pictures,
    save_pictures,
    save_training_images,
    scores_of,
)
from sapatchcore.verify.evaluate import evaluate

RUN_LINE = {"task_type": "anomaly", "model_type": "unsupervised", "model_name": "sapatchcore"}
OPTIONS = (*RUN_LINE, "yaml_config")
MVTEC = (
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw"),
    *("tile", "toothbrush", "transistor", "wood", "zipper"),
)
LOCO = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
ONNX_PICTURES = ("saveallonnx", "save_test_img_onnx")

_log = logging.getLogger("sapatchcore.tnvision")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the line; returns 0 done, 1 the work failed, 2 wrong use. An error is one line on stderr."""
    try:
        config = read_config(_yaml_config(arguments))
        config.settings()
        run(config)
    except (SAPatchCoreError, OSError) as error:
        print(_sentence(error), file=sys.stderr)
        return error.exit_code if isinstance(error, SAPatchCoreError) else 1
    return 0


def run(config: Config) -> Path:
    """Learn, or load; test; write. Returns the folder of the results.

    Raises SAPatchCoreError: before any work where the data set or what the YAML asks for is missing. An error during the
    work stands in the log, too.
    """
    _check_onnx(config)
    dataset = _dataset(config)
    folder = config.folder()
    folder.mkdir(parents=True, exist_ok=True)
    handlers = _start_log(folder / "log.txt")
    try:
        _work(config, dataset, folder)
    except BaseException as error:
        _log.removeHandler(handlers[1])  # the screen shows it by itself
        _log.error("%s", _sentence(error))
        raise
    finally:
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()
    return folder


def _work(config: Config, dataset: Dataset, folder: Path) -> None:
    _log.info("%s: %d training and %d test images", dataset.name, len(dataset.train), len(dataset.test))
    if dataset.note:
        _log.info("%s", dataset.note)
    if config.TRAIN.visualize_aug:
        save_training_images(config, dataset, folder)
        _log.info("Training images as the network sees them are in %s", folder / "visualize_aug")
    detector = _detector(config, dataset)
    onnx_file, onnx_pictures = folder / config.RESUME.onnxmodel, _onnx_pictures(config)
    if config.TRAIN.export_to_onnx:
        opset = config.RESUME.opset_version
        if opset < LOWEST_OPSET:
            _log.warning("RESUME.opset_version %d cannot be written any more; %d is.", opset, LOWEST_OPSET)
        export_model(detector, onnx_file, opset=max(opset, LOWEST_OPSET))
        _log.info("The ONNX file is %s", onnx_file)
    elif onnx_pictures:
        _log.info("RESULT.%s: TRAIN.export_to_onnx is false, so no pictures are made.", onnx_pictures[0])
    if not dataset.test:
        _log.info("There are no test images, so there are no scores.")
        return

    evaluation = evaluate(detector, dataset, progress=_Lines(config.LOG.eval_interval), beta=config.TRAIN.beta)
    thresholds = find_thresholds(config, dataset, evaluation)
    scores = scores_of(config, dataset, evaluation, thresholds)
    write_json(folder / "best_score.json", scores, ADVICE)
    for name, value in scores.items():
        if name.startswith("eval_"):
            _log.info("%s: %s", name.removeprefix("eval_"), "undefined" if value is None else f"{value:.4f}")
    _log.info("Thresholds come from %s.", thresholds.source)
    for name, reason in evaluation.reasons.items():
        _log.info("%s is undefined: %s", name, reason)
    save_pictures(config, dataset, evaluation, thresholds, folder)
    if config.TRAIN.export_to_onnx and onnx_pictures:
        exported = open_exported(onnx_file)
        result = exported.predict([sample.path for sample in dataset.test], _Lines(config.LOG.eval_interval))
        save_onnx_pictures(config, dataset, result, thresholds, folder)
    if config.TRAIN.use_wandb:
        _log.info("%s", log_to_wandb(config, folder, scores))
    _log.info("Results are in %s", folder)


def _yaml_config(arguments: Sequence[str] | None) -> Path:
    parser = argparse.ArgumentParser(
        prog="main.py", description="Learn and test one category, as a YAML file says.", allow_abbrev=False
    )
    for name in OPTIONS:
        parser.add_argument(f"--{name}", default=RUN_LINE.get(name), help=RUN_LINE.get(name, "the YAML file"))
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        near = did_you_mean(unknown[0].split("=")[0], [f"--{name}" for name in OPTIONS])
        raise SettingsError(f"{unknown[0]!r} is not an option.{near} Allowed: --{', --'.join(OPTIONS)}.")
    for name, allowed in RUN_LINE.items():
        value = getattr(given, name)
        if value != allowed:
            raise SettingsError(f"--{name} must be {allowed}. Got {value!r}.{did_you_mean(value, [allowed])}")
    if given.yaml_config is None:
        raise SettingsError(
            "--yaml_config is missing. Name a file, such as configs/anomaly/unsupervised/sapatchcore/bottle.yaml."
        )
    return Path(given.yaml_config)


def _dataset(config: Config) -> Dataset:
    folder, target = config.DATASET.datadir / config.DATASET.target, config.DATASET.target
    if folder.is_dir():
        return open_dataset(folder)
    layout, origin = "mvtec", "your own images need the same layout"
    if target in MVTEC:
        origin = "MVTec AD is at https://www.mvtec.com/company/research/datasets/mvtec-ad"
    elif target in LOCO:
        layout = "loco"
        origin = "MVTec LOCO AD is at https://www.mvtec.com/company/research/datasets/mvtec-loco-ad"
    elif target.replace("-", "_").lower() == "cad_sd":
        layout = "cad_sd"
        origin = "CAD-SD is linked from https://github.com/IshidaKengo/SA-PatchCore, its authors' repository"
    raise DataError(
        f"The data set's folder {folder} does not exist. Expected in it: {LAYOUT_FOLDERS[layout]}. Check "
        f"DATASET.datadir and DATASET.target; {origin}."
    )


def _detector(config: Config, dataset: Dataset) -> SAPatchCore:
    """The detector, learned and saved, or loaded where the YAML says so."""
    path, settings = config.model_file(), config.settings()
    if path.name != Path(config.RESUME.bestmodel).name:
        _log.info("RESUME.bestmodel %s is a .safetensors file here: %s", config.RESUME.bestmodel, path.name)
    if config.DATASET.mode == "test" and not path.is_file():
        raise ModelFileError(f"The saved model {path} does not exist. Learn it first: DATASET.mode train.")
    if config.RESUME.option and not path.is_file():
        _log.info("RESUME.option: there is no saved model %s yet, so it is learned.", path)
    elif config.RESUME.option or config.DATASET.mode == "test":
        here = ("device", "batch_size", "workers", "neighbors", "image_score")
        detector = SAPatchCore.load(path, **{name: getattr(settings, name) for name in here})
        _check_same(config, detector)
        _log.info("Loaded %s", path)
        return detector
    paths = [sample.path for sample in dataset.train]
    size, steps = config.DATALOADER.batch_size, config.TRAIN.num_training_steps
    if steps and steps * size < len(paths):
        _log.warning(
            "TRAIN.num_training_steps: only the first %d of %d training images are learned from.",
            steps * size,
            len(paths),
        )
        paths = paths[: steps * size]
    detector = SAPatchCore(**settings.model_dump())
    detector.fit(paths, progress=_Lines(config.LOG.log_interval * size))
    detector.save(path)
    _log.info("Saved %s", path)
    return detector


def _check_same(config: Config, detector: SAPatchCore) -> None:
    """A loaded model keeps what it was learned with; a YAML that says otherwise is refused."""
    wanted, settings = config.settings(), detector.settings
    keys = {
        "backbone": "MODEL.backbone",
        "weights": "MODEL.pre_trained",
        "layers": "MODEL.layers",
        "attention": "The attention (model_name sapatchcore)",
        "resize": "DATASET.resize",
        "crop": "The crop (DATASET.resize)",
        "coreset_ratio": "MODEL.sampling_ratio",
        "seed": "SEED",
    }
    for name, key in keys.items():
        asked, has = getattr(wanted, name), getattr(settings, name)
        if asked != has:
            raise SettingsError(
                f"{key} must be what the saved model was learned with, {has!r}. Got {asked!r}. Change the "
                "YAML, or learn again: RESUME.option false, DATASET.mode train."
            )


def _onnx_pictures(config: Config) -> list[str]:
    return [key for key in ONNX_PICTURES if getattr(config.RESULT, key)]


def _check_onnx(config: Config) -> None:
    """Raises SAPatchCoreError, before any work, where ONNX is asked for that cannot be had."""
    if config.TRAIN.export_to_onnx:
        check_opset(max(config.RESUME.opset_version, LOWEST_OPSET))
        kind_of(Path(config.RESUME.onnxmodel), "onnx")
        require_packages("onnx")
        return
    # A name alone is what TNVision's files have, whether pictures are wanted or not; true means them.
    pictures = [key for key in ONNX_PICTURES if getattr(config.RESULT, key) is True]
    if pictures:
        raise SettingsError(
            f"RESULT.{pictures[0]} needs the ONNX file. Set TRAIN.export_to_onnx to true, or this key to false."
        )


def _sentence(error: BaseException) -> str:
    if isinstance(error, SAPatchCoreError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{error.filename or 'A file'} cannot be used: {error.strerror or error}."
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _start_log(path: Path) -> tuple[logging.Handler, ...]:
    handlers = (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stdout))
    _log.setLevel(logging.INFO)
    _log.propagate = False
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        _log.addHandler(handler)
    return handlers


class _Lines:
    """Progress as lines of the log: one every ``every`` images, ten for the coreset, one at the end."""

    def __init__(self, every: int) -> None:
        self._every, self._stage, self._said = every, "", 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """done of ``total`` items of ``stage``; ``total`` None where nobody knows it."""
        if stage != self._stage:
            self._stage, self._said = stage, 0
        every = self._every if stage != "coreset" or total is None else max(1, total // 10)
        if done - self._said >= every or (done == total and done > self._said):
            self._said = done
            _log.info("%s %d%s", stage, done, "" if total is None else f"/{total}")
