"""TNVision's YAML keys, each once with its range, default and meaning; and what the detector gets from them.

``read.py`` reads a file into these; ``docs/tnvision.md`` explains every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StrictBool

from sapatchcore.settings import Settings, Size, settings_from


def _no_bool(value: object) -> object:
    """Pydantic would read true as 1."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


def _plain_name(value: object) -> object:
    """One folder's name: what leads elsewhere is refused."""
    if not isinstance(value, str) or value.strip() in ("", ".", "..") or "/" in value or "\\" in value:
        raise ValueError("not the name of one folder")
    return value


def _mode(value: object) -> object:
    """TNVision's own files say true, and learn."""
    return {True: "train", False: "test"}[value] if isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Name = Annotated[str, BeforeValidator(_plain_name)]
FolderOrBool = StrictBool | Name  # true: the default folder; a name: that folder; false: none


def _key(default: object, allowed: str, meaning: str) -> Any:
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed})


class Section(BaseModel):
    """A group of keys, checked and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetKeys(Section):
    """Where the images are, and what is done with them."""

    datadir: Path = _key(..., "the path of a folder", "Folder of the data sets.")
    target: Name = _key(..., "the name of one folder", "The category: its folder in datadir.")
    mode: Annotated[Literal["train", "test"], BeforeValidator(_mode)] = _key(
        "train", "train or test", "train, or true: learn, then test; test, or false: test a saved model."
    )
    resize: Size = _key((224, 224), "[height, width], each from 32 to 8192", "Size of what the network sees; no crop.")


class DataloaderKeys(Section):
    """How images are read."""

    batch_size: Annotated[Whole, Field(ge=1, le=4096)] = _key(8, "a whole number from 1 to 4096", "Images at a time.")
    num_workers: Annotated[Whole, Field(ge=0, le=256)] = _key(2, "a whole number from 0 to 256", "Reading threads.")


class ModelKeys(Section):
    """The network and the memory bank."""

    backbone: Annotated[str, Field(min_length=1)] = _key(
        "wide_resnet50_2.tv_in1k", "a timm model name, or builtin", "The network."
    )
    pre_trained: StrictBool | Annotated[str, Field(min_length=1)] = _key(
        True, "true, false or the path of a checkpoint file", "Pretrained, random or a checkpoint's weights."
    )
    layers: tuple[str, str] = _key(("layer2", "layer3"), "a list of two layer names", "Layers, the finer first.")
    sampling_ratio: Annotated[Number, Field(gt=0, le=1)] = _key(0.1, "in (0, 1]", "Share of patches that is kept.")
    num_neighbors: Annotated[Whole, Field(ge=1, le=9)] = _key(
        9, "a whole number from 1 to 9", "Neighbours that weigh the image score; 1 leaves it unweighted."
    )


class TrainKeys(Section):
    """How to learn, and what to write besides the scores."""

    num_training_steps: Annotated[Whole, Field(ge=0)] = _key(
        0, "a whole number, 0 or more", "Batches that are learned from, at most; 0 for all."
    )
    use_gpu: StrictBool = _key(True, "true or false", "The GPU where there is one, or the CPU.")
    use_wandb: StrictBool = _key(False, "true or false", "Log the scores to Weights & Biases.")
    top_k: Annotated[Whole, Field(ge=0)] = _key(
        0, "a whole number, 0 or more", "Pictures of this many test images, those with the highest scores."
    )
    compute_threshold: StrictBool = _key(True, "true or false", "Thresholds of the best F-beta on the test labels.")
    beta: Annotated[Number, Field(gt=0)] = _key(1.0, "a number above 0", "Weight of recall in F-beta.")
    visualize_aug: StrictBool = _key(False, "true or false", "Save training images as the network sees them.")
    num_sample: Annotated[Whole, Field(ge=0)] = _key(2, "a whole number, 0 or more", "How many of these.")
    export_to_onnx: StrictBool = _key(False, "true or false", "Export the model as an ONNX file.")


class TestKeys(Section):
    """Thresholds that are used as they are, unless TRAIN.compute_threshold is true."""

    threshold_pixel: Annotated[Number, Field(ge=0)] | None = _key(None, "a number, 0 or more", "Of the anomaly maps.")
    threshold_image: Annotated[Number, Field(ge=0)] | None = _key(None, "a number, 0 or more", "Of the image scores.")


class LogKeys(Section):
    """How often the log says how far the work is."""

    log_interval: Annotated[Whole, Field(ge=1)] = _key(1, "a whole number, 1 or more", "Batches to learn from, a line.")
    eval_interval: Annotated[Whole, Field(ge=1)] = _key(10, "a whole number, 1 or more", "Test images, a line.")


class ResultKeys(Section):
    """Where results go, and which pictures."""

    savedir: Path = _key(Path("saved_model"), "the path of a folder", "Folder of all results.")
    saveall: FolderOrBool = _key(False, "true, false or a folder's name", "All test images with their ground truth.")
    save_test_img: FolderOrBool = _key(False, "true, false or a folder's name", "All test images, without it.")
    saveallonnx: FolderOrBool = _key(False, "true, false or a folder's name", "As saveall, by the ONNX model.")
    save_test_img_onnx: FolderOrBool = _key(
        False, "true, false or a folder's name", "As save_test_img, by the ONNX model."
    )


class ResumeKeys(Section):
    """The saved model and the ONNX file."""

    option: StrictBool = _key(False, "true or false", "Load bestmodel in place of learning, where it exists.")
    opset_version: Annotated[Whole, Field(ge=11)] = _key(17, "a whole number, 11 or more", "Opset of the ONNX file.")
    bestmodel: Annotated[str, Field(min_length=1)] = _key(
        "best_model.safetensors", "a file name", "The model's file in the results' folder."
    )
    onnxmodel: Annotated[str, Field(min_length=1)] = _key("model.onnx", "a file name", "The ONNX file there.")


class Config(Section):
    """One YAML file. Made by `config_from`, which raises SettingsError in the keys' own words."""

    EXP_NAME: Name = _key("SAPatchCore", "the name of one folder", "Name of the experiment, of its results' folder.")
    TASK: Literal["anomaly"] = _key("anomaly", "anomaly", "The kind of task.")
    METHOD: Literal["unsupervised"] = _key("unsupervised", "unsupervised", "The kind of learning.")
    API_KEY: SecretStr = _key(
        SecretStr(""), "a text, or nothing", "Key of Weights & Biases; without one it logs offline."
    )
    SEED: Annotated[Whole, Field(ge=0, lt=2**63)] = _key(0, "a whole number, 0 or more", "Seed of all that is random.")
    DATASET: DatasetKeys
    DATALOADER: DataloaderKeys = DataloaderKeys()
    MODEL: ModelKeys = ModelKeys()
    TRAIN: TrainKeys = TrainKeys()
    TEST: TestKeys = TestKeys()
    LOG: LogKeys = LogKeys()
    RESULT: ResultKeys = ResultKeys()
    RESUME: ResumeKeys = ResumeKeys()

    def settings(self) -> Settings:
        """The detector's settings. Raises SettingsError where keys do not fit each other."""
        weights = self.MODEL.pre_trained
        named = {True: "pretrained", False: "random"}
        return settings_from(
            {
                "backbone": self.MODEL.backbone,
                "weights": weights if isinstance(weights, str) else named[weights],
                "layers": self.MODEL.layers,
                "resize": self.DATASET.resize,
                "crop": None,
                "coreset_ratio": self.MODEL.sampling_ratio,
                "neighbors": self.MODEL.num_neighbors,
                "image_score": "max" if self.MODEL.num_neighbors == 1 else "reweighted",
                "device": "auto" if self.TRAIN.use_gpu else "cpu",
                "batch_size": self.DATALOADER.batch_size,
                "workers": self.DATALOADER.num_workers,
                "seed": self.SEED,
            }
        )

    def folder(self) -> Path:
        """Where the results go: ``<savedir>/anomaly/unsupervised/<target>/<EXP_NAME>-<backbone>``."""
        backbone = self.MODEL.backbone.replace("/", "_").replace("\\", "_").replace(":", "_")
        return self.RESULT.savedir / self.TASK / self.METHOD / self.DATASET.target / f"{self.EXP_NAME}-{backbone}"

    def model_file(self) -> Path:
        """The saved model: bestmodel in `folder`. TNVision's pickles (``.pt``) become ``.safetensors``."""
        path = self.folder() / self.RESUME.bestmodel
        if path.suffix in (".pt", ".pth", ".ckpt", ".pkl"):
            return path.with_suffix(".safetensors")
        return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")
