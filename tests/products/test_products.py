"""Several products in one model: each image gets the scores, thresholds and reasons of its own product's model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
import torch
from command import run
from conftest import SMALL, changed, made_images, write_images

from sapatchcore import DataError, ModelFileError, NotFittedError, SAPatchCore, SettingsError
from sapatchcore.memory.pooled import Gaussian, GlobalPart, pooled
from sapatchcore.memory.training import TrainingImage
from sapatchcore.model_file import Stored
from sapatchcore.open_model import open_model
from sapatchcore.products.products import Products
from sapatchcore.products.telling import MARGIN, Telling
from sapatchcore.records.record import ReceivedImage, records_of
from sapatchcore.score.drift import drift
from sapatchcore.server.served import load as serve

UInt8 = npt.NDArray[np.uint8]
OPTIONS: dict[str, Any] = {**SMALL, "coreset_ratio": 0.1, "preset": "recommended", "metric": "whitened"}
ALONE: dict[str, Any] = {**OPTIONS, "keep_aspect": False}


def noise(count: int, seed: int) -> UInt8:
    """(count, 64, 64, 3) uint8, a product unlike the waves of ``made_images``."""
    return np.random.default_rng(seed).integers(60, 200, (count, 64, 64, 3), dtype=np.uint8)


GOOD = {"waves": made_images(7), "light": 255 - made_images(6, seed=1) // 2, "noise": noise(5, 0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of files for each product."""
    root = tmp_path_factory.mktemp("products")
    for name, images in GOOD.items():
        write_images(root / name, images)
    return root


@pytest.fixture(scope="module")
def three(folder: Path) -> Products:
    """A model of three products, of files; not to be changed."""
    return SAPatchCore.fit_products({name: folder / name for name in GOOD}, **OPTIONS)


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, SAPatchCore]:
    """A model for each product."""
    return {name: SAPatchCore(**ALONE).fit(folder / name) for name in GOOD}


@pytest.fixture
def saved(three: Products, tmp_path: Path) -> Path:
    three.save(tmp_path / "three.safetensors")
    return tmp_path / "three.safetensors"


def some() -> tuple[list[UInt8], list[str]]:
    """New images of all products, mixed, more than a batch; and whose they are."""
    images = [*made_images(3, seed=5), *(255 - made_images(3, seed=6) // 2), *noise(3, 7)]
    return [images[i] for i in (0, 3, 6, 1, 7, 4, 8, 2, 5)], ["waves", "light", "noise"] * 1 + [
        *("waves", "noise", "light", "noise", "waves", "light")
    ]


def test_every_image_is_its_own_products(three: Products, alone: dict[str, SAPatchCore]) -> None:
    images, names = some()
    result = three.predict(images)
    assert result.products == tuple(names)
    assert not any(result.unlike)
    assert result.paths == tuple(f"image {number}" for number in range(9))
    expected = [alone[name].predict(image) for image, name in zip(images, names, strict=True)]
    for field in ("scores", "local_scores", "global_scores", "patch_scores", "global_patches"):
        np.testing.assert_allclose(
            getattr(result, field), np.concatenate([getattr(one, field) for one in expected]), rtol=2e-4, atol=1e-5
        )
    np.testing.assert_array_equal(result.p_values, np.concatenate([one.p_values for one in expected]))
    np.testing.assert_allclose(result.maps[4], expected[4].maps[0], rtol=1e-3)


def test_every_product_has_its_own_thresholds(three: Products, alone: dict[str, SAPatchCore]) -> None:
    images, names = some()
    images[4] = images[4].copy()
    images[4][20:40, 20:40] = 0  # a defect
    result = three.predict(images)
    verdicts = result.verdicts(0.2)
    for name in GOOD:
        assert three.product(name).threshold(0.2) == alone[name].threshold(0.2) == result.of(name).threshold(0.2)
    assert [one.threshold for one in verdicts] == [alone[name].threshold(0.2) for name in names]
    assert verdicts[4].rejected
    assert result.regions(4, 0.2)[0].box == result.only(4).regions(0, 0.2)[0].box
    assert result.only(4).pixel_threshold(0.2) == alone["noise"].pixel_threshold(0.2)
    assert result.only(4).products == ("noise",)
    assert result.rate() == pytest.approx(1 / 6)  # what five images can promise
    with pytest.raises(
        SettingsError, match=r"of 3 products, light, noise, waves, .* Ask one of them: result.of\('light'\)"
    ):
        result.threshold(0.2)
    with pytest.raises(
        DataError, match=r"No image was taken for 'bolts'\. Those here were taken for light, noise, waves"
    ):
        result.of("bolts")


def test_an_explanation_is_the_products(three: Products, alone: dict[str, SAPatchCore]) -> None:
    images, names = some()
    for found, image, name in zip(three.explain(images, false_reject=0.2), images, names, strict=True):
        (expected,) = alone[name].explain(image, false_reject=0.2)
        assert found.causes[0].good.image == expected.causes[0].good.image
        assert name in found.causes[0].good.image
        assert found.verdict.threshold == expected.verdict.threshold


def test_an_image_unlike_every_product_gets_a_note(three: Products) -> None:
    odd = np.zeros((64, 64, 3), np.uint8)
    odd[::2] = 255
    result = three.predict([GOOD["waves"][0], odd])
    assert result.unlike == (False, True)
    assert result.notes[0] == ()
    assert result.notes[1][0] == (
        f"Unlike every product of this model: it was taken for the nearest, {result.products[1]}, and its score means little."
    )
    assert result.only(1).notes == (result.notes[1],)


class Known:
    """Of a bank what tells its product. rows: (k, d) float32."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.global_part, self.training = GlobalPart(rows), [TrainingImage(str(i), (1, 1)) for i in range(len(rows))]


def test_telling_by_the_covariance_within_products() -> None:
    """Two products that differ along the first axis, whose images differ along the second: that axis counts little."""
    spread = torch.tensor([[0.0, y] for y in (-20, -10, 0, 10, 20)]) + torch.tensor(
        [[x, 0.0] for x in (1, -1, 0, 1, -1)]
    )
    banks: Any = [Known(spread), Known(torch.tensor([10.0, 0.0]) + spread)]
    telling = Telling.of(banks)
    product, unlike = telling.told(torch.tensor([[1.0, 28], [9, -28], [4, 0], [6, 30], [-25, 0]], dtype=torch.float64))
    assert product.tolist() == [0, 1, 0, 1, 0]
    assert unlike.tolist() == [False, False, False, False, True]
    within = Gaussian.of(torch.cat((spread, spread)).double())
    np.testing.assert_allclose(telling.means, [[0, 0], [10, 0]], atol=1e-6)
    between = float(within.distance(torch.tensor([[10.0, 0.0]], dtype=torch.float64)))
    own = []
    for i in range(5):
        others = np.arange(5) != i
        mean = spread[others].mean(0)
        fitted = Gaussian.of(torch.cat(2 * [spread[others] - mean]).double())
        own.append(float(fitted.distance((spread[i : i + 1] - mean).double())))
    np.testing.assert_allclose(telling.limits, 2 * [max(between / 2, MARGIN * max(own))], rtol=1e-6)
    assert telling.is_of(banks)
    assert not telling.is_of(banks[::-1])


def test_every_product_weighs_the_same_in_telling() -> None:
    rng = torch.Generator().manual_seed(0)
    few, many = torch.randn(5, 3, generator=rng), 3 * torch.randn(40, 3, generator=rng)
    banks: Any = [Known(few), Known(many)]
    twice: Any = [Known(torch.cat((few, few))), Known(many)]
    at = torch.randn(4, 3, generator=rng).double()
    found = [Telling.of(some).within.distance(at) for some in (banks, twice)]
    np.testing.assert_allclose(found[0], found[1], rtol=0.1)  # the shrinkage alone differs


def test_the_network_sees_each_image_once(three: Products) -> None:
    images, _ = some()
    seen = []
    network = three.product("waves").embedder.network._network
    with network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))):
        three.predict(images)
    assert sum(seen) == len(images)
    assert len({id(three.product(name).embedder.network) for name in GOOD}) == 1


def test_the_product_is_told_by_the_statistics_of_the_layers(three: Products) -> None:
    (batch, patches), *_ = three.product("noise").embedder.patches(list(made_images(2, seed=5)))
    assert patches.layers is not None
    product, _ = three.telling.told(pooled(patches.layers))
    assert product.tolist() == [0, 0]
    assert len(batch.names) == 2


def test_the_file_is_the_model(three: Products, saved: Path, alone: dict[str, SAPatchCore], tmp_path: Path) -> None:
    images, _ = some()
    again: Any = SAPatchCore.load(saved, device="cpu", batch_size=2)
    assert again.names == three.names == tuple(GOOD)
    expected, found = three.predict(images), again.predict(images)
    assert found.products == expected.products
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-4)
    np.testing.assert_array_equal(found.p_values, expected.p_values)
    assert len({id(again.product(name).embedder.network) for name in GOOD}) == 1
    with safetensors.safe_open(saved, framework="pt") as file:
        names = set(file.keys())
    assert {"1.bank", "2.bank", "1.training.name", "2.global.rows"} <= names
    assert not any(name.startswith(("1.weights", "2.weights")) for name in names)
    three.save(tmp_path / "small.safetensors", include_weights=False, include_thumbnails=False)
    assert isinstance(SAPatchCore.load(tmp_path / "small.safetensors", device="cpu"), Products)
    again.product("light").save(tmp_path / "light.safetensors")  # an ordinary model again
    light = SAPatchCore.load(tmp_path / "light.safetensors")
    np.testing.assert_array_equal(light.memory_bank, alone["light"].memory_bank)


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored.header.update(products=["waves", "light"]),
        lambda stored: stored.header.update(products=["waves", "waves", "light"]),
        lambda stored: stored.header.update(products=[1, 2, 3]),
        lambda stored: stored.header.update(products=None),
        lambda stored: stored.header.pop("each"),
        lambda stored: stored.header["each"][1]["settings"].update(resize=[96, 96]),
        lambda stored: stored.header["each"][1].update(weights_sha256="0"),
        lambda stored: [one["settings"].update(global_part="none") for one in stored.header["each"]],
        lambda stored: stored.more.pop("1.bank"),
        lambda stored: stored.more.pop("2.global.rows"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(saved: Path, change: Callable[[Stored], object]) -> None:
    with pytest.raises(ModelFileError, match="does not hold what a model of"):
        SAPatchCore.load(changed(saved, change))


def test_update_and_forget_are_of_one_product(saved: Path, folder: Path, tmp_path: Path) -> None:
    model: Any = SAPatchCore.load(saved, device="cpu")
    telling, before = model.telling, model.product("waves").memory_bank
    model.update("noise", write_images(tmp_path / "more", noise(3, 9)))
    assert len(model.product("noise").bank.training) == 8
    assert model.telling is not telling
    assert len(model.telling.parts[2].rows) == 8
    model.forget("noise", folder / "noise" / "00.png")
    assert len(model.telling.parts[2].rows) == 7
    np.testing.assert_array_equal(model.product("waves").memory_bank, before)
    with pytest.raises(DataError, match=r"'bolts' is none of this model's products\. Allowed: waves, light, noise"):
        model.update("bolts", noise(1, 1))


@pytest.mark.parametrize(
    ("products", "options", "error", "message"),
    [
        ({"waves": GOOD["waves"]}, {}, DataError, "needs at least two. Got 1. For one use fit"),
        (
            {"waves": GOOD["waves"], "noise": noise(2, 1)},
            {},
            DataError,
            "Product noise: to tell it from others takes at least",
        ),
        ({"waves": GOOD["waves"], "noise": ["no.png"] * 3}, {}, DataError, "Product noise: .*no.png does not exist"),
        (GOOD, {"global_part": "none"}, SettingsError, "`global_part` none leaves nothing to tell products by"),
        (
            GOOD,
            {"backbone": "builtin+test_resnet", "metric": "euclidean"},
            SettingsError,
            "works for one network alone",
        ),
        (
            {"waves": GOOD["waves"], "wide": made_images(3, (64, 128))},
            {"keep_aspect": True},
            SettingsError,
            "waves needs 64x64, wide 64x128. Leave `keep_aspect` out",
        ),
    ],
)
def test_what_cannot_be_learned_is_said(
    products: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SAPatchCore.fit_products(products, **{**OPTIONS, **options})


def test_images_of_any_shape_share_one_input() -> None:
    wide = np.random.default_rng(3).integers(60, 200, (4, 64, 128, 3), dtype=np.uint8)
    model = SAPatchCore.fit_products({"waves": GOOD["waves"], "wide": wide[:3]}, **OPTIONS)
    assert model.settings.resize == (64, 64)
    result = model.predict([wide[3], GOOD["waves"][0]])
    assert result.products == ("wide", "waves")
    assert result.maps[0].shape == (64, 128)


def test_calibration_by_product() -> None:
    more = noise(9, 11)
    model = SAPatchCore.fit_products(GOOD, calibrate={"noise": more}, **OPTIONS)
    assert {name: len(model.product(name).calibration) for name in GOOD} == {"waves": 7, "light": 6, "noise": 9}
    assert len(model.calibration) == 6  # what the smallest can promise, all can
    assert model.is_calibrated
    mixed = np.array([1 / 7, 3 / 8, 4 / 10, 1.0])  # of six, seven and nine scores
    expected = drift(np.array([1, 3, 3, 7]) / 7, 6, seed=model.settings.seed)  # on the coarsest scale, rounded up
    np.testing.assert_allclose(model.drift(mixed).log_capital, expected.log_capital)
    with pytest.raises(DataError, match="calibrate names products that are not learned: bolts"):
        SAPatchCore.fit_products(GOOD, calibrate={"bolts": more}, **OPTIONS)
    with pytest.raises(SettingsError, match=r"Ask one of them: detector.product\('waves'\).threshold\(0.2\)"):
        model.threshold(0.2)


def test_one_product_without_scores_leaves_no_verdicts() -> None:
    model = SAPatchCore.fit_products({**GOOD}, **OPTIONS)
    model.product("light")._calibration = None
    assert not model.is_calibrated
    result = model.predict([GOOD["waves"][0], GOOD["light"][0]])
    with pytest.raises(NotFittedError):
        result.verdicts(0.2)
    assert len(result.only(0).verdicts(0.2)) == 1


FLAGS = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "all.safetensors"
    assert run("fit", folder, "-o", model, "--products", *FLAGS) == 0
    said = capsys.readouterr().out
    assert f"{model}, noise: learned from 5 images, kept" in said
    assert "about 1 good part in 6 rejected" in said
    images = [folder / "noise" / "01.png", folder / "waves" / "02.png"]
    assert run("predict", model, *images, "--json", "--quiet") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["product"] for line in lines] == ["noise", "waves"]
    assert [line["false_reject"] for line in lines] == pytest.approx([1 / 6, 1 / 6])
    assert run("predict", model, *images, "--maps", tmp_path / "maps") == 0
    head, first, _ = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (head[-3], first[-3]) == ("product", "noise")
    assert run("info", model) == 0
    assert "product light" in capsys.readouterr().out
    assert run("info", model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["products"]["noise"]["training_images"] == 5
    assert run("update", model, write_images(tmp_path / "more", noise(2, 9)), "--product", "noise") == 0
    assert "now learned from 7 images" in capsys.readouterr().out
    assert run("forget", model, folder / "noise" / "00.png", "--product", "noise", "--json") == 0
    assert json.loads(capsys.readouterr().out)["training_images"] == 6
    again: Any = SAPatchCore.load(model)
    assert len(again.product("waves").bank.training) == 7
    assert run("export", model, "-o", tmp_path / "noise.onnx", "--product", "noise", "--quiet") == 0
    assert (tmp_path / "noise.onnx").is_file()


def test_commands_about_one_product_ask_for_its_name(
    saved: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fitted: SAPatchCore
) -> None:
    for command in (
        ("update", saved, folder / "noise"),
        ("forget", saved, "image 0"),
        ("export", saved, "-o", tmp_path / "x.onnx"),
    ):
        assert run(*command) == 2
        assert "holds several products: waves, light, noise. Name one with --product." in capsys.readouterr().err
    assert run("forget", saved, "image 0", "--product", "bolts") == 1
    assert "'bolts' is none of this model's products. Allowed: waves, light, noise." in capsys.readouterr().err
    fitted.save(tmp_path / "one.safetensors")
    assert run("forget", tmp_path / "one.safetensors", "image 0", "--product", "noise") == 2
    assert "holds one product, without a name. Leave --product out." in capsys.readouterr().err
    assert run("fit", folder, "-o", tmp_path / "y.safetensors", "--products", "--calibrate", folder) == 2
    assert run("fit", folder / "noise" / "00.png", "-o", tmp_path / "y.safetensors", "--products") == 1
    assert "name one that holds a folder for each product" in capsys.readouterr().err


def test_evaluation_is_of_one_product(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    write_images(tmp_path / "test" / "good", noise(2, 20))
    write_images(tmp_path / "test" / "spot", made_images(2))
    (tmp_path / "train").mkdir()
    write_images(tmp_path / "train" / "good", noise(2, 21))
    out = tmp_path / "figures.json"
    assert run("evaluate", tmp_path, "--model", saved, "--product", "noise", "-o", out, "--quiet") == 0
    assert json.loads(out.read_text(encoding="utf-8"))["image_auroc"] == 1


def test_a_server_serves_it(saved: Path) -> None:
    served = serve("all", saved, {"device": "cpu"})
    images, names = some()
    result, explain = served.score(
        [str(number) for number in range(9)],
        [(64, 64)] * 9,
        [(0.0, 0.0, 0.0)] * 9,
        [served.prepare(one) for one in images],
    )
    assert explain is None
    assert result.only(4).products == ("noise",)  # type: ignore[attr-defined]
    received = ReceivedImage("4.png", b"", "0" * 64, "image/png", images[4])
    how: dict[str, Any] = {"model": "all", "model_hash": served.hash, "keep": "none", "source": "api"}
    (record,) = records_of(result.only(4), result.only(4).verdicts(0.2), [received], false_reject=0.2, **how)
    assert record.product == "noise"
    (plain,) = records_of(result.of("noise").only(0), None, [received], false_reject=None, **how)  # type: ignore[attr-defined]
    assert plain.product is None
    assert result.only(4).verdicts(0.2)[0].threshold == result.of("noise").threshold(0.2)  # type: ignore[attr-defined]
    assert names[4] == "noise"
    assert not served.can_learn
    assert served.calibration_images == 5
    options: dict[str, Any] = dict.fromkeys(("precision", "batch_size", "workers", "weights"))
    assert isinstance(open_model(saved, device="cpu", **options), Products)
