"""Every option: its default, its range at both ends, what a wrong value says, and the forms in which text may come."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from sapatchcore import SAPatchCore, SettingsError
from sapatchcore.settings import Settings, settings_from

DEFAULTS: dict[str, Any] = {
    "backbone": "wide_resnet50_2.tv_in1k",
    "preset": "paper",
    "weights": "pretrained",
    "layers": ("layer2", "layer3"),
    "attention": "self",
    "temperature": 1.0,
    "context_weight": 1.0,
    "metric": "euclidean",
    "resize": (256, 256),
    "keep_aspect": False,
    "crop": (224, 224),
    "tiles": None,
    "augment": "none",
    "coreset_ratio": 0.01,
    "projection": 128,
    "neighbors": 9,
    "image_score": "max",
    "global_part": "none",
    "device": "auto",
    "precision": "float32",
    "batch_size": 8,
    "workers": 2,
    "search": "exact",
    "seed": 0,
}

ONE_OR_TWO = "resize must be one or two numbers of pixels from 32 to 8192. Got {}. For example 256, or 256x320."
CROP = (
    "crop must be one or two numbers of pixels from 32 to the resized size, or none. Got {}. "
    "Use none to inspect the whole image."
)
TILES = (
    "tiles must be ROWSxCOLUMNS, each from 1 to 16, one number of pixels from 160 to 8192, or none. Got {}. For example "
    "2x2, or 512."
)
WHOLE = "{} must be a whole number from {}. Got {}."


def test_defaults_are_the_papers() -> None:
    assert settings_from({}).model_dump() == DEFAULTS


def test_signature_shows_every_option_keyword_only() -> None:
    parameters = inspect.signature(SAPatchCore).parameters
    assert {name: one.default for name, one in parameters.items()} == DEFAULTS
    assert {one.kind for one in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert {name: one.annotation for name, one in parameters.items()} == {
        name: field.annotation for name, field in Settings.model_fields.items()
    }


def test_class_stores_what_the_settings_hold() -> None:
    assert SAPatchCore(seed=4, resize=64, crop=None).settings == settings_from({"seed": 4, "resize": 64, "crop": None})


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_option_says_what_it_means_and_allows(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description is not None
    assert field.description.endswith(".")
    assert field.json_schema_extra["allowed"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("backbone", "resnet18", "resnet18"),
        ("weights", "random", "random"),
        ("weights", "folder/net.pth", "folder/net.pth"),
        ("layers", ("blocks.2", "blocks.4"), ("blocks.2", "blocks.4")),
        ("layers", ["layer1", "layer2"], ("layer1", "layer2")),
        ("layers", "layer1, layer3", ("layer1", "layer3")),
        ("attention", "none", "none"),
        ("temperature", "0.25", 0.25),
        ("temperature", "auto", "auto"),
        ("context_weight", 2, 2.0),
        ("metric", "whitened", "whitened"),
        ("resize", 224, (224, 224)),
        ("resize", "256", (256, 256)),
        ("resize", "256x320", (256, 320)),
        ("resize", " 256 X 320 ", (256, 320)),
        ("resize", "256×320", (256, 320)),
        ("resize", "256,320", (256, 320)),
        ("resize", [256, 320], (256, 320)),
        ("resize", [256], (256, 256)),
        ("resize", (8192, 8192), (8192, 8192)),
        ("crop", 32, (32, 32)),
        ("crop", None, None),
        ("crop", "none", None),
        ("crop", "None", None),
        ("crop", "256", (256, 256)),
        ("crop", "128x256", (128, 256)),
        ("tiles", "1x1", (1, 1)),
        ("tiles", " 1 X 3 ", (1, 3)),
        ("tiles", [3, 1], (3, 1)),
        ("tiles", 160, 160),
        ("tiles", "192", 192),
        ("tiles", "none", None),
        ("coreset_ratio", 1, 1.0),
        ("coreset_ratio", 1e-9, 1e-9),
        ("coreset_ratio", "0.1", 0.1),
        ("projection", 1, 1),
        ("projection", 4096, 4096),
        ("projection", None, None),
        ("projection", "none", None),
        ("projection", "64", 64),
        ("neighbors", 1, 1),
        ("neighbors", 9, 9),
        ("image_score", "reweighted", "reweighted"),
        ("device", "cpu", "cpu"),
        ("device", "cuda", "cuda"),
        ("device", "cuda:11", "cuda:11"),
        ("device", "mps", "mps"),
        ("precision", "bfloat16", "bfloat16"),
        ("precision", "float16", "float16"),
        ("batch_size", 1, 1),
        ("batch_size", 4096, 4096),
        ("workers", 0, 0),
        ("workers", 256, 256),
        ("search", "int8", "int8"),
        ("search", "faiss", "faiss"),
        ("seed", 0, 0),
        ("seed", 2**63 - 1, 2**63 - 1),
    ],
)
def test_valid_values(name: str, value: object, expected: object) -> None:
    assert getattr(settings_from({name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backbone", 3, "backbone must be a timm model name, or 'builtin'. Got 3."),
        ("weights", None, "weights must be 'pretrained', 'random' or the path of a checkpoint file. Got None."),
        ("layers", "layer2", "layers must be two layer names. Got 'layer2'. For example layer2,layer3."),
        ("layers", ("a", "b", "c"), "layers must be two layer names. Got ('a', 'b', 'c')."),
        ("layers", 3, "layers must be two layer names. Got 3."),
        ("attention", "sefl", "attention must be 'self' or 'none'. Got 'sefl'. Did you mean 'self'?"),
        ("temperature", 0, "temperature must be above 0, up to 1000000, or 'auto'. Got 0. Use 1 for the paper's."),
        (
            "temperature",
            "atuo",
            "temperature must be above 0, up to 1000000, or 'auto'. Got 'atuo'. Did you mean 'auto'? Use 1 for the paper's.",
        ),
        (
            "temperature",
            float("nan"),
            "temperature must be above 0, up to 1000000, or 'auto'. Got nan. Use 1 for the paper's.",
        ),
        (
            "context_weight",
            float("nan"),
            "context_weight must be above 0, up to 1000000. Got nan. Use 1 for the paper's.",
        ),
        ("attention", None, "attention must be 'self' or 'none'. Got None."),
        (
            "metric",
            "whitend",
            "metric must be 'euclidean' or 'whitened'. Got 'whitend'. Did you mean 'whitened'?",
        ),
        ("resize", 31, ONE_OR_TWO.format(31)),
        ("resize", 8193, ONE_OR_TWO.format(8193)),
        ("resize", None, ONE_OR_TWO.format(None)),
        ("resize", "none", ONE_OR_TWO.format("'none'")),
        ("resize", "256x", ONE_OR_TWO.format("'256x'")),
        ("resize", "-256", ONE_OR_TWO.format("'-256'")),
        ("resize", "²²²", ONE_OR_TWO.format("'²²²'")),
        ("resize", (256, 320, 3), ONE_OR_TWO.format("(256, 320, 3)")),
        ("resize", True, ONE_OR_TWO.format(True)),
        ("resize", (256, 31), ONE_OR_TWO.format("(256, 31)")),
        ("crop", 31, CROP.format(31)),
        ("crop", "all", CROP.format("'all'")),
        ("tiles", 159, TILES.format(159)),
        ("tiles", 8193, TILES.format(8193)),
        ("tiles", 0, TILES.format(0)),
        ("tiles", True, TILES.format(True)),
        ("tiles", "2", TILES.format("'2'")),
        ("tiles", "2x", TILES.format("'2x'")),
        ("tiles", "0x2", TILES.format("'0x2'")),
        ("tiles", "17x2", TILES.format("'17x2'")),
        ("tiles", (2, 2, 2), TILES.format("(2, 2, 2)")),
        ("tiles", "many", TILES.format("'many'")),
        ("coreset_ratio", 3, "coreset_ratio must be in (0, 1]. Got 3. Use 0.1 for 10 %."),
        ("coreset_ratio", 0, "coreset_ratio must be in (0, 1]. Got 0. Use 0.1 for 10 %."),
        ("coreset_ratio", -0.1, "coreset_ratio must be in (0, 1]. Got -0.1. Use 0.1 for 10 %."),
        ("coreset_ratio", float("nan"), "coreset_ratio must be in (0, 1]. Got nan. Use 0.1 for 10 %."),
        ("coreset_ratio", "10%", "coreset_ratio must be in (0, 1]. Got '10%'. Use 0.1 for 10 %."),
        ("projection", 0, WHOLE.format("projection", "1 to 4096, or none", 0)),
        ("projection", 4097, WHOLE.format("projection", "1 to 4096, or none", 4097)),
        ("neighbors", 0, WHOLE.format("neighbors", "1 to 9", 0)),
        ("neighbors", 10, WHOLE.format("neighbors", "1 to 9", 10)),
        ("neighbors", 2.5, WHOLE.format("neighbors", "1 to 9", 2.5)),
        (
            "image_score",
            "maxx",
            "image_score must be 'max', 'reweighted' or 'smoothed'. Got 'maxx'. Did you mean 'max'?",
        ),
        ("device", "gpu", "device must be 'auto', 'cpu', 'cuda', 'cuda:0' (1, …) or 'mps'. Got 'gpu'."),
        ("device", "cuda:", "device must be 'auto', 'cpu', 'cuda', 'cuda:0' (1, …) or 'mps'. Got 'cuda:'."),
        ("device", "cpu\n", "device must be 'auto', 'cpu', 'cuda', 'cuda:0' (1, …) or 'mps'. Got 'cpu\\n'."),
        ("precision", "float31", "precision must be 'float32', 'bfloat16' or 'float16'. Got 'float31'."),
        ("batch_size", 0, WHOLE.format("batch_size", "1 to 4096", 0)),
        ("batch_size", 4097, WHOLE.format("batch_size", "1 to 4096", 4097)),
        ("search", "flat", "search must be 'exact', 'float16', 'int8' or 'faiss'. Got 'flat'."),
        ("workers", -1, WHOLE.format("workers", "0 to 256", -1)),
        ("workers", 257, WHOLE.format("workers", "0 to 256", 257)),
        ("seed", -1, "seed must be a whole number, 0 or more. Got -1."),
        ("seed", 2**63, f"seed must be a whole number, 0 or more. Got {2**63}."),
    ],
)
def test_values_outside_the_range(name: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SAPatchCore(**{name: value})
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "near"),
    [("coreset_ration", "coreset_ratio"), ("backbon", "backbone"), ("neighbours", "neighbors"), ("Seed", "seed")],
)
def test_unknown_option_names_the_near_one(name: str, near: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^'{name}' is not an option\. Did you mean '{near}'\? Allowed: backbone, "
    ):
        SAPatchCore(**{name: 1})


def test_unknown_option_without_a_near_name_lists_all() -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from({"zzz": 1})
    assert str(caught.value) == f"'zzz' is not an option. Allowed: {', '.join(DEFAULTS)}."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"resize": 200},
            "crop must not exceed resize. Got crop 224x224 and resize 200x200. Use crop none to inspect the whole image.",
        ),
        ({"resize": "300x200", "crop": 224}, "crop must not exceed resize. Got crop 224x224 and resize 300x200."),
        (
            {"tiles": "4x2"},
            "tiles 4x2 need an input of at least 256x192 pixels, since neighbours overlap. Got an input of 224x224. "
            "Use fewer tiles, or a larger `resize` or `crop`.",
        ),
        (
            {"tiles": 224},
            "tiles must be smaller than the input. Got tiles of 224 pixels and an input of 224x224. Use smaller tiles",
        ),
        (
            {"resize": 2048, "crop": None, "tiles": 160},
            "tiles must be so large that 16 a side do. Got tiles of 160 pixels, of which neighbours share 128, and an input of "
            "2048x2048. Use larger tiles.",
        ),
        ({"layers": "layer2,layer2"}, "layers must be two different layers. Got 'layer2' twice."),
        (
            {"image_score": "reweighted", "neighbors": 1},
            "neighbors must be from 2 to 9 for image_score 'reweighted'. Got 1: every image's weight would be 0.",
        ),
    ],
)
def test_options_that_do_not_fit_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(options)
    assert str(caught.value).startswith(message)


def test_settings_are_read_only() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings_from({}).seed = 3  # type: ignore[misc]


def test_input_size_is_the_crop_or_the_resized_size() -> None:
    assert settings_from({}).input_size == (224, 224)
    assert settings_from({"resize": "64x96", "crop": None}).input_size == (64, 96)


@pytest.mark.parametrize("tiles", [None, 512, (2, 3)])
def test_tiles_come_back_from_json(tiles: object) -> None:
    settings = settings_from({"resize": 1024, "crop": None, "tiles": tiles})
    assert settings_from(settings.model_dump(mode="json")).tiles == tiles


def test_json_form_gives_the_same_settings_back() -> None:
    settings = settings_from({"resize": "64x96", "crop": None, "projection": "none", "layers": "a,b"})
    assert settings_from(settings.model_dump(mode="json")) == settings


def test_a_preset_gives_defaults_and_what_is_given_wins() -> None:
    found = settings_from({"preset": "recommended", "backbone": "builtin"})
    beyond = {name: value for name, value in found.model_dump().items() if value != DEFAULTS[name]}
    assert beyond == {
        "preset": "recommended",
        "backbone": "builtin",
        "attention": "none",
        "temperature": "auto",
        "keep_aspect": True,
        "crop": None,
        "metric": "whitened",
        "image_score": "smoothed",
        "global_part": "pooled",
    }
    given = {"preset": "recommended", "backbone": "builtin", "attention": "self", "crop": 224, "global_part": "none"}
    own = settings_from(given)
    assert (own.attention, own.crop, own.global_part) == ("self", (224, 224), "none")
    assert settings_from(found.model_dump()) == found, "as a model file has it"
    assert settings_from({"preset": "paper"}).model_dump() == DEFAULTS
    with pytest.raises(
        SettingsError, match=r"^preset must be 'paper' or 'recommended'\. Got 'recomended'\. Did you mean"
    ):
        settings_from({"preset": "recomended"})
