"""The comparison of both models: the same scores as the detector's, the figures and the sentences made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scripts import script

from sapatchcore import SAPatchCore
from sapatchcore.settings import settings_from
from sapatchcore.synth.write import write_dataset

UInt8 = npt.NDArray[np.uint8]


def test_scores_are_the_detectors(
    images: Callable[..., UInt8], good: UInt8, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = script("benchmarks/core/method.py")
    other = images(6, (80, 64), 1)
    built: list[tuple[str, int]] = []
    network = method.network

    def counted(settings: Any) -> Any:
        built.append((settings.backbone, settings.seed))
        return network(settings)

    monkeypatch.setattr(method, "network", counted)
    beyond = {"coreset_ratio": 0.05, "temperature": 0.5, "context_weight": 2.0}
    options = [
        {**small, "backbone": backbone, "weights": weights, "attention": attention, "seed": seed, **beyond}
        for backbone, weights in (("builtin", "pretrained"), ("resnet18", "random"))
        for seed in (0, 3)
        for attention in ("none", "self")
    ]
    found = list(method.scored(list(good), list(other), [settings_from(one) for one in options]))
    assert [settings for settings, _ in found] == [settings_from(one) for one in options]
    for one, (_, scores) in zip(options, found, strict=True):
        assert np.array_equal(SAPatchCore(**one).fit(good).predict(other).scores, scores)
    # Both models share a pass; so do all seeds, where the seed does not change the weights.
    assert built == [("builtin", 0), ("resnet18", 0), ("resnet18", 3)]


def test_it_runs_and_its_results_make_the_page(tmp_path: Path) -> None:
    write_dataset(tmp_path / "given", "kits", side=96, train=2, test={"good": 3, "missing": 3})
    output = tmp_path / "method_made.json"
    arguments = ["--quick", "--data", str(tmp_path / "given"), "--synth", "screws", "--backbones", "resnet18"]
    script("benchmarks/core/method.py").main([*arguments, "--output", str(output)])
    content = json.loads(output.read_text(encoding="utf-8"))
    runs = content["results"]["runs"]
    assert [(run["dataset"], run["attention"], run["seed"]) for run in runs] == [
        (dataset, attention, 0) for dataset in ("screws", "given") for attention in ("none", "self")
    ]
    assert list(runs[0]["per_defect"]) == ["lacking", "over-coupling", "paint", "scratch"]
    assert runs[2]["test_images"] == {"good": 2, "missing": 2}
    assert all(run["weights"] == "random" and 0 <= run["image_auroc"] <= 1 for run in runs)
    page = page_with(content)
    assert "*screws* (8 to learn from, 10 to test, made, 128×128), *given* (2 to learn from, 4 to test)." in page
    assert "### Kinds of anomaly: resnet18, random weights" in page


def page_with(content: dict[str, Any] | None) -> str:
    """docs/results.md as it would be with this method.json, or without one."""
    tables = script("benchmarks/tables.py")
    results = {name: other for name, other in tables.measured().items() if not name.startswith("method_")}
    if content is not None:
        results["method_made"] = content
    return str(tables.part("docs/results.md", "", results))


def test_page_without_the_comparison() -> None:
    page = page_with(None)
    assert "PatchCore against SA-PatchCore" not in page
    assert page.endswith("|\n")


def made_up(gains: dict[tuple[str, str], tuple[float, ...]], base: float = 0.5) -> dict[str, Any]:
    """A method.json in which SA-PatchCore's AUROC of (data set, kind) is above PatchCore's by these, one a seed."""
    runs = [
        {
            "dataset": dataset,
            "backbone": "builtin",
            "weights": "pretrained",
            "attention": attention,
            "coreset_ratio": 0.01,
            "seed": seed,
            "train_images": 20,
            "test_images": {"good": 4, **{kind: 4 for name, kind in gains if name == dataset}},
            "image_auroc": base,
            "per_defect": {
                kind: base + (gain[seed] if attention == "self" else 0)
                for (name, kind), gain in gains.items()
                if name == dataset
            },
        }
        for dataset in dict.fromkeys(name for name, _ in gains)
        for seed in range(len(next(iter(gains.values()))))
        for attention in ("none", "self")
    ]
    return {"arguments": {"side": 350, "synth": "screws,kits"}, "results": {"runs": runs}}


def test_sentences_and_rows_follow_from_the_numbers() -> None:
    content = made_up(
        {
            ("screws", "lacking"): (0.2, 0.3, 0.4),  # mean 0.3, error 0.1/√3: won
            ("screws", "over-coupling"): (0.1, 0.1, 0.1),
            ("screws", "scratch"): (-0.1, -0.1, -0.1),  # lost
            ("grid", "bent"): (-0.1, 0.1, 0.03),  # tie
        }
    )
    page = page_with(content)
    assert (
        "On co-occurrence kinds SA-PatchCore gains 0.200 ± 0.050 on average; it wins 2 of 2 kinds, loses 0, ties 0: "
        "the claimed gain holds here. On other kinds SA-PatchCore is level, at −0.045 ± 0.051 on average; it wins 0 of 2 "
        "kinds, loses 1, ties 1: the claimed parity (no loss on average) holds here. **The paper's claim, a gain on "
        "co-occurrence anomalies and parity elsewhere, holds here with builtin.**"
    ) in page
    kinds = [line for line in page.splitlines() if "| co-occurrence |" in line or "| other |" in line]
    assert kinds == [
        "| screws | lacking | co-occurrence | 0.500 ± 0.000 | 0.800 ± 0.100 | +0.300 ± 0.100 | SA-PatchCore |",
        "| screws | over-coupling | co-occurrence | 0.500 ± 0.000 | 0.600 ± 0.000 | +0.100 ± 0.000 | SA-PatchCore |",
        "| screws | scratch | other | 0.500 ± 0.000 | 0.400 ± 0.000 | −0.100 ± 0.000 | PatchCore |",
        "| grid | bent | other | 0.500 ± 0.000 | 0.510 ± 0.101 | +0.010 ± 0.101 | tie |",
    ]
    assert "| grid | builtin | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.000 ± 0.000 | tie |" in page
    assert "Seeds 0, 1, 2; coreset ratio 0.01; images resized to 256×256, " in page
    assert "Images: *screws* (20 to learn from, 16 to test, made, 350×350), " in page


@pytest.mark.parametrize(
    ("with_pairs", "elsewhere", "gain", "parity"),
    [
        ((0.2, 0.2), (-0.1, -0.1), True, False),
        ((-0.2, -0.2), (0.0, 0.0), False, True),
        ((0.2, -0.2), (0.1, 0.1), False, True),  # a gain elsewhere is no loss
    ],
)
def test_claim_can_fail(with_pairs: tuple[float, ...], elsewhere: tuple[float, ...], gain: bool, parity: bool) -> None:
    told = page_with(made_up({("kits", "extra"): with_pairs, ("screws", "paint"): elsewhere}))
    words = {True: "holds", False: "does not hold"}
    assert f"the claimed gain {words[gain]} here." in told
    assert f"the claimed parity (no loss on average) {words[parity]} here." in told
    assert "parity elsewhere, does not hold here with builtin" in told


def test_a_tie_is_within_twice_the_standard_error() -> None:
    better = script("benchmarks/figures.py").better
    # Mean 1, deviation √2·d, error d for (1 − d, 1 + d).
    assert better((0.51, 1.49)) == "SA-PatchCore"
    assert better((0.49, 1.51)) == "tie"
    assert better((-0.51, -1.49)) == "PatchCore"
    assert better((0.0, 0.0)) == better((0.3,)) == "tie"
