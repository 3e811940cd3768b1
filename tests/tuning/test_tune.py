"""Settings chosen from good images alone: what a candidate is measured by, which one is taken, and what is kept of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from conftest import LIGHT, write_images
from made_parts import bar
from PIL import Image

from sapatchcore import DataError, MissingPackageError, SAPatchCore, SettingsError
from sapatchcore.datasets.samples import GOOD
from sapatchcore.embed.patches import Embedder
from sapatchcore.score.metrics import auroc
from sapatchcore.settings import settings_from
from sapatchcore.tuning import judge as judging
from sapatchcore.tuning import tune as tuning
from sapatchcore.tuning.judge import FOLDS, Candidate, judge
from sapatchcore.tuning.made_images import MadeImages, Networks, Remembered
from sapatchcore.tuning.tuning import Tuning, called, tuning_in

OPTIONS: dict[str, Any] = {
    "preset": "recommended",
    "backbone": "builtin",
    "resize": (64, 64),
    "batch_size": 4,
    "device": "cpu",
}


def bars(count: int, side: int = 160) -> np.ndarray:
    return np.stack([bar(seed, (side, side))[0] for seed in range(count)])


@pytest.fixture(scope="module")
def parts() -> np.ndarray:
    return bars(12)


@pytest.fixture(scope="module")
def made(parts: np.ndarray) -> MadeImages:
    return MadeImages(list(parts), seed=0)


@pytest.fixture(scope="module")
def measured(made: MadeImages) -> Candidate:
    return judge(SAPatchCore, OPTIONS, made, Networks())


def candidate(quality: float, milliseconds: float, **options: Any) -> Candidate:
    return Candidate({**OPTIONS, **options}, {"local": quality}, {}, 0.01, 0.5, 0.01, 0.1, milliseconds)


def test_every_good_image_has_defects_of_both_groups(made: MadeImages) -> None:
    pictures = made.at((64, 64))
    assert all(image.shape == (64, 64, 3) for image in pictures.images)
    assert pictures.kinds.count(GOOD) == 12
    for number in range(12):
        groups = {
            judging.KINDS[kind]
            for kind, source in zip(pictures.kinds, pictures.sources, strict=True)
            if source == number and kind != GOOD
        }
        assert groups == {"local", "combination"}
    assert made.at((64, 64)) is pictures
    assert len(made.shown) == 16
    for good, defect in made.shown:
        assert (good != defect.image).any(2)[defect.mask].all()


def test_a_network_sees_an_image_once() -> None:
    asked = []
    network = Embedder(settings_from(OPTIONS)).network
    seen = SimpleNamespace(
        features=lambda images: (asked.append(len(images)), network.features(images))[1],
        device=network.device,
        channels=3,
    )
    remembered = Remembered(seen)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first = remembered.features(images[:2])
    again = remembered.features(images[[2, 0, 1]])
    assert asked == [2, 1]
    for layer, other, true in zip(first, again, network.features(images), strict=True):
        assert torch.equal(layer, other[1:])
        torch.testing.assert_close(other[[1, 2, 0]], true, rtol=2e-3, atol=1e-3)
    remembered.remembers = False
    remembered.features(images)
    assert asked == [2, 1, 3]
    assert remembered.channels == 3


def test_a_candidate_is_measured_as_the_detector_would_do_it(made: MadeImages, measured: Candidate) -> None:
    """Each fold by hand, by a detector with a network of its own."""
    pictures = made.at((64, 64))
    areas: dict[str, list[float]] = {"local": [], "combination": []}
    found, rejected = [], []
    for fold in range(FOLDS):
        learned = [i for i, s in enumerate(pictures.sources) if s % FOLDS != fold and pictures.kinds[i] == GOOD]
        tested = [i for i, s in enumerate(pictures.sources) if s % FOLDS == fold]
        detector = SAPatchCore(**OPTIONS).fit([pictures.images[i] for i in learned])
        result = detector.predict([pictures.images[i] for i in tested])
        groups = np.array([judging.KINDS.get(pictures.kinds[i], GOOD) for i in tested])
        above = result.scores > detector.threshold(1 / 9)
        found += above[groups != GOOD].tolist()
        rejected += above[groups == GOOD].tolist()
        for group, values in areas.items():
            here = (groups == group) | (groups == GOOD)
            values.append(auroc(groups[here] != GOOD, result.scores[here]))
    for group, values in areas.items():
        assert measured.groups[group] == pytest.approx(np.mean(values), abs=0.02)  # features of float16
    assert measured.found == pytest.approx(np.mean(found), abs=0.05)
    assert measured.rejected == pytest.approx(np.mean(rejected), abs=0.1)
    assert measured.rate == pytest.approx(1 / 9)
    assert measured.quality == pytest.approx(np.mean([*measured.groups.values()]))
    assert set(measured.kinds) == set(pictures.kinds) - {GOOD}
    assert measured.milliseconds > 0


def test_the_standard_error_is_hanley_and_mcneils() -> None:
    assert judging._standard_error(1.0, 10, 10) == 0
    # By hand for one image each: A(1 − A).
    assert judging._standard_error(0.5, 1, 1) == pytest.approx(0.5)
    # Q1 = A/(2 − A) = 2/3, Q2 = 2A²/(1 + A) = 0.7111, A = 0.8: 0.16 + 4·(0.0267) + 1·(0.0711) over 2·5.
    assert judging._standard_error(0.8, 2, 5) == pytest.approx(
        math.sqrt((0.16 + 4 * (2 / 3 - 0.64) + (1.28 / 1.8 - 0.64)) / 10)
    )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[dict[str, Any]], tuple[float, float]]], None]:
    """Candidates that are worth what a function says: quality and milliseconds."""

    def give(worth: Callable[[dict[str, Any]], tuple[float, float]]) -> None:
        def judged(_: object, options: dict[str, Any], *__: object) -> Candidate:
            return replace(candidate(*worth(options)), options=options)

        monkeypatch.setattr(tuning, "judge", judged)

    return give


def tuned(parts: np.ndarray, names: list[str], **more: Any) -> tuple[SAPatchCore, list[str]]:
    seen: list[str] = []
    found = SAPatchCore.tune(
        parts, backbones=names, report=lambda one: seen.append(called(one.options)), batch_size=4, device="cpu", **more
    )
    return found, seen


def test_the_search_goes_on_about_the_best(parts: np.ndarray, scripted: Callable) -> None:
    def worth(options: dict[str, Any]) -> tuple[float, float]:
        settings = settings_from(options)
        better = 0.1 * (settings.metric == "euclidean") + 0.2 * (settings.global_part == "none")
        return 0.6 + better, 30.0

    scripted(worth)
    found, seen = tuned(parts, ["builtin"])
    assert seen == [
        "builtin 160",
        "builtin 160, metric euclidean",
        "builtin 160, metric euclidean, global_part none",
        "builtin 160, metric euclidean, image_score max",
        "builtin 160, metric euclidean, attention self",
        "builtin 160, metric euclidean, coreset_ratio 0.1",
    ]
    assert (found.settings.metric, found.settings.global_part) == ("euclidean", "none")
    assert called(found.tuning.best.options) == seen[2]
    assert found.settings.preset == "recommended"


def test_larger_inputs_are_tried_as_far_as_images_go_and_it_pays(scripted: Callable) -> None:
    def worth(options: dict[str, Any]) -> tuple[float, float]:
        side = settings_from(options).resize[0]
        return 0.5 + side / 2000 * (side < 700), float(side)

    scripted(worth)
    _, seen = tuned(bars(10, side=800), ["builtin"], budget_ms=300)
    assert [name for name in seen if "," not in name] == ["builtin 256", "builtin 384", "builtin 512", "builtin 768"]
    _, seen = tuned(bars(10, side=400), ["builtin"], budget_ms=300)
    assert [name for name in seen if "," not in name] == ["builtin 256", "builtin 384"]


def test_the_two_best_networks_are_tried_together(parts: np.ndarray, scripted: Callable) -> None:
    def worth(options: dict[str, Any]) -> tuple[float, float]:
        return {"builtin": 0.8, "efficientnet_lite0": 0.6, "efficientnet_lite2": 0.7}.get(
            options["backbone"], 0.5
        ), 10.0

    scripted(worth)
    found, seen = tuned(parts, ["builtin", "efficientnet_lite0", "efficientnet_lite2"])
    assert seen[-1].startswith("builtin+efficientnet_lite2 160")
    assert found.settings.backbone == "builtin"


@pytest.mark.parametrize(
    ("budget", "best"),
    [
        pytest.param(None, "image_score max", id="the best; of what lies within a tie the faster"),
        pytest.param(30.0, "metric euclidean", id="the best that is fast enough"),
    ],
)
def test_the_best_that_is_fast_enough_is_taken(
    budget: float | None, best: str, parts: np.ndarray, scripted: Callable
) -> None:
    def worth(options: dict[str, Any]) -> tuple[float, float]:
        settings = settings_from(options)
        if settings.image_score == "max":
            return 0.897, 40.0
        if settings.global_part == "none":
            return 0.9, 50.0
        return (0.8, 20.0) if settings.metric == "euclidean" else (0.7, 10.0)

    scripted(worth)
    found, _ = tuned(parts, ["builtin"], budget_ms=budget)
    assert called(found.tuning.best.options).endswith(best)


def test_no_candidate_that_is_fast_enough_is_a_sentence(parts: np.ndarray, scripted: Callable) -> None:
    scripted(lambda _: (0.9, 20.0))
    with pytest.raises(
        SettingsError, match=r"No candidate takes 5 ms .* the fastest, builtin 160.*, takes 20\. Allow more"
    ):
        tuned(parts, ["builtin"], budget_ms=5)


def test_it_ends_in_time_and_when_interrupted(
    parts: np.ndarray, scripted: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(lambda _: (0.9, 20.0))
    found, seen = tuned(parts, ["builtin"], minutes=1e-9)
    assert len(seen) == 1  # one is always judged
    assert "for want of time" in found.tuning.paragraph()
    calls: list[object] = []

    def interrupted(*_: object) -> Candidate:
        calls.append(_)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return replace(candidate(0.5 + 0.1 * len(calls), 9.0), options=calls[-1][1])  # type: ignore[index]

    monkeypatch.setattr(tuning, "judge", interrupted)
    found, seen = tuned(parts, ["builtin"])
    assert len(seen) == 2
    assert called(found.tuning.best.options) == seen[1]
    assert "interrupted" in found.tuning.paragraph()
    calls[:] = [None, None]
    with pytest.raises(KeyboardInterrupt):  # there is nothing yet to choose from
        tuned(parts, ["builtin"])


def test_what_was_chosen_is_kept_in_the_model_file(
    parts: np.ndarray, scripted: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(lambda options: (0.9 if settings_from(options).metric == "euclidean" else 0.8, 20.0))
    found, _ = tuned(parts, ["builtin"], minutes=5)
    path = tmp_path / "m.safetensors"
    found.save(path)
    loaded = SAPatchCore.load(path, device="cpu")
    assert loaded.tuning.to_dict() == json.loads(json.dumps(found.tuning.to_dict()))
    assert Tuning.from_dict(loaded.tuning.to_dict()) == loaded.tuning
    np.testing.assert_allclose(loaded.predict(parts[:2]).scores, found.predict(parts[:2]).scores, rtol=1e-5)
    assert run("info", path) == 0
    assert capsys.readouterr().out.count("Settings were chosen among") == 1
    assert run("info", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["tuning"]["chosen"] == found.tuning.chosen
    plain = SAPatchCore(**LIGHT).fit(parts)
    plain.save(path)
    assert plain.tuning is None
    assert tuning_in(path) is None


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        pytest.param(9, {}, r"needs at least 10 good images.*Got 9\. Give more", id="nine images"),
        pytest.param(10, {"minutes": 0}, "minutes and budget_ms must be above 0", id="no time"),
        pytest.param(10, {"budget_ms": -1}, "minutes and budget_ms must be above 0", id="a budget below 0"),
        pytest.param(10, {"resize": 64}, "tune chooses resize", id="an option that is chosen"),
        pytest.param(10, {"metrik": "x"}, "metrik", id="an unknown option"),
        pytest.param(10, {"backbones": ["no_such"]}, "no_such", id="an unknown network"),
    ],
)
def test_wrong_use_is_a_sentence(images: int, options: dict[str, Any], message: str, parts: np.ndarray) -> None:
    with pytest.raises((DataError, SettingsError), match=message):
        SAPatchCore.tune(parts[:images], **{"backbones": ["builtin"], **options})


def test_networks_whose_package_is_missing_are_no_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_is_there(name: str) -> Path:
        if name == "efficientnet_lite2":
            return Path("weights.pth")
        raise MissingPackageError(name)

    monkeypatch.setattr(tuning, "packaged_file", one_is_there)
    assert tuning.available() == ["builtin", "efficientnet_lite2"]


def test_plain_images_are_a_sentence() -> None:
    with pytest.raises(DataError, match="show no part"):
        SAPatchCore.tune(np.full((10, 64, 64, 3), 90, np.uint8), backbones=["builtin"])


def test_the_command_writes_model_sheet_and_plot(
    parts: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out = write_images(tmp_path / "good", parts[:10]), tmp_path / "part.safetensors"
    assert run("tune", good, "-o", out, "--backbones", "builtin", "--minutes", "0.001", "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "chosen" in said
    assert "no measure of how many real defects" in said
    assert SAPatchCore.load(out).tuning.images == 10
    assert Image.open(tmp_path / "part.defects.png").format == "PNG"
    assert (tmp_path / "part.tuning.svg").read_text(encoding="utf-8").startswith("<svg")
    assert run("tune", good, "-o", tmp_path / "no" / "m.safetensors") == 1
    assert "does not exist" in capsys.readouterr().err
    assert run("tune", good, "-o", out, "--resize", "64") == 2
    assert "No such option: --resize" in capsys.readouterr().err
