"""The graph's steps in PyTorch, before any exporter, against the package's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sapatchcore.data.pixels import crop_box
from sapatchcore.score.anomaly_score import anomaly_map, score_patches
from sapatchcore.score.threshold import p_values

torch = pytest.importorskip("torch")

from sapatchcore import SAPatchCore  # noqa: E402 - these need torch
from sapatchcore.data.sources import Batch  # noqa: E402
from sapatchcore.export.export import build_graph, cpu_embedder  # noqa: E402
from sapatchcore.export.graph import BankPart, Enlarge  # noqa: E402
from sapatchcore.export.metadata import OUTPUTS  # noqa: E402


@pytest.mark.parametrize("seed", range(20))
def test_maps_at_any_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    resize = tuple(int(side) for side in rng.choice([32, 64, 256], 2))
    crop = tuple(int(rng.integers(32, side + 1)) for side in resize) if seed % 3 else None
    size = tuple(int(side) for side in rng.integers(1, 900, 2))
    if seed == 0:  # 62.5 · 256 = 16 · 1000: a pixel's centre lies on the crop's edge exactly
        resize, crop, size = (256, 256), (224, 224), (1000, 1000)
    scores = rng.random((2, *rng.integers(2, 29, 2))).astype(np.float32)
    found = Enlarge(scores.shape[1:], resize, crop_box(resize, crop))(torch.from_numpy(scores), *size).numpy()
    for got, grid in zip(found, scores, strict=True):
        expected = anomaly_map(grid, size, resize, crop)
        np.testing.assert_array_equal(got == 0, expected == 0)
        np.testing.assert_allclose(got, expected, atol=3e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "none"},
        {"temperature": 0.25, "context_weight": 0.5},
        {"metric": "whitened", "context_weight": 2, "backbone": "builtin", "weights": "pretrained"},
        {"image_score": "reweighted", "neighbors": 3},
        {"resize": (80, 96), "crop": (64, 80)},
        {"resize": (210, 192), "tiles": "2x1"},
        {"backbone": "builtin", "weights": "pretrained"},
    ],
)
def test_the_whole_graph_is_predict(small: dict[str, Any], good: Any, images: Any, options: dict[str, Any]) -> None:
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.1, **options}).fit(good[:6])
    pictures = images(3, size=(100, 90), seed=6)
    expected = detector.predict(pictures)
    bank = detector.bank
    graph = build_graph(cpu_embedder(detector), bank, "float32", detector.calibration)
    with torch.inference_mode():
        found = dict(zip(OUTPUTS, graph(torch.from_numpy(pictures)), strict=False))
    assert found["neighbours"].dtype == torch.int64
    np.testing.assert_array_equal(found["neighbours"], expected.neighbours)
    np.testing.assert_array_equal(found["p_value"], expected.p_values.astype(np.float32))
    own = {
        "score": expected.scores,
        "local_score": expected.local_scores,
        "context_score": expected.context_scores,
        "patch_scores": expected.patch_scores,
        "local_patches": expected.local_patches,
        "context_patches": expected.context_patches,
        "map": np.stack(list(expected.maps)),
    }
    largest = float(expected.patch_scores.max())
    for name, value in own.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5 * largest, err_msg=name)


def test_a_score_that_is_a_calibration_score_counts_it(fitted: SAPatchCore, images: Any) -> None:
    pictures = torch.from_numpy(images(3, seed=7))
    bank, embedder = fitted.bank, cpu_embedder(fitted)
    with torch.inference_mode():
        scores = build_graph(embedder, bank, "float32", None)(pictures)[0].numpy()
        calibration = type(fitted.calibration)(**{**vars(fitted.calibration), "scores": np.repeat(scores, 4)[:10]})
        found = dict(zip(OUTPUTS, build_graph(embedder, bank, "float32", calibration)(pictures), strict=False))
    np.testing.assert_array_equal(found["score"], scores)
    np.testing.assert_array_equal(found["p_value"], p_values(scores, calibration.scores).astype(np.float32))


def test_a_large_bank_is_met_in_slices(fitted: SAPatchCore, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = images(2, seed=7)
    monkeypatch.setattr("sapatchcore.export.graph._PRODUCT", 10 * len(fitted.memory_bank))  # ten patches at a time
    graph = build_graph(cpu_embedder(fitted), fitted.bank, "float32", None)
    with torch.inference_mode():
        found = dict(zip(OUTPUTS, graph(torch.from_numpy(pictures)), strict=False))
    np.testing.assert_array_equal(found["neighbours"], fitted.predict(pictures).neighbours)


@pytest.mark.parametrize(
    ("precision", "within"), [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 0.004)]
)
def test_a_short_bank_is_compared_by_the_numbers_that_the_file_holds(precision: str, within: float) -> None:
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(0, 3, (40, 12)).astype(np.float32))
    queries = torch.from_numpy(rng.normal(0, 3, (2, 5, 12)).astype(np.float32))
    kept = BankPart(rows, precision)
    full = kept.rows()
    assert float((full - rows).abs().max()) <= within * float(rows.abs().max())
    distances = (queries[:, :, None] - full).square().sum(3)
    own = distances - kept.product(queries)
    rounding = 1.5 if precision == "int8" else 1e-3  # of a search in whole numbers
    torch.testing.assert_close(
        own, own[:, :, :1].expand_as(own), rtol=1e-3, atol=rounding
    )  # a number of the query alone
    row = distances.argmin(2)
    torch.testing.assert_close(kept.squared(queries, row), distances.amin(2))


@pytest.mark.parametrize("options", [{}, {"image_score": "reweighted", "neighbors": 3}])
def test_left_out_rows_do_not_count(small: dict[str, Any], good: Any, images: Any, options: dict[str, Any]) -> None:
    """The comparison that a calibration is taken anew with is fit's own, an image's own rows left out."""
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.1, **options}).fit(good[:3])
    embedder, bank = cpu_embedder(detector), detector.bank
    graph = build_graph(embedder, bank, "float32", None)
    pictures = images(1, size=embedder.settings.input_size, seed=6)
    patches = embedder.embed(Batch(("one",), (embedder.settings.input_size,), pictures))
    for own in (-1, 0, 2):
        expected = score_patches(patches, bank, detector.settings, torch.tensor([own]))
        found = graph.compare(patches.local, patches.context, None if own < 0 else bank.images == own)
        for value, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(value.numpy(), other, rtol=1e-4, atol=1e-5)
        assert own not in bank.images[found[-1].flatten()]


def test_few_rows_left_weigh_as_in_predict(small: dict[str, Any], good: Any) -> None:
    detector = SAPatchCore(**{**small, "coreset_ratio": 0.08, "image_score": "reweighted", "neighbors": 9}).fit(
        good[:2]
    )
    embedder, bank = cpu_embedder(detector), detector.bank
    assert 2 <= int((bank.images == 1).sum()) < 9
    patches = embedder.embed(Batch(("one",), (embedder.settings.input_size,), good[:1]))
    expected = score_patches(patches, bank, detector.settings, torch.tensor([0]))
    found = build_graph(embedder, bank, "float32", None).compare(patches.local, patches.context, bank.images == 0)
    np.testing.assert_allclose(found[0].numpy(), expected[0], rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rows_in_int8_are_searched_in_whole_numbers(scale: float) -> None:
    """By hand, in whole numbers; however large a query is, none of its numbers is cut off."""
    rng = np.random.default_rng(1)
    rows = (rng.normal(0, 1, (60, 24)) * np.linspace(0.1, 3, 24)).astype(np.float32)
    queries = (rng.normal(0, 1, (2, 7, 24)) * scale).astype(np.float32)
    kept = BankPart(torch.from_numpy(rows), "int8")
    found = kept.product(torch.from_numpy(queries)).numpy()
    column = np.abs(rows).max(0) / 127
    whole_rows = np.rint(rows / column)
    mean = (whole_rows * column).mean(0)
    scaled = (queries - mean) * column
    top = np.abs(scaled).max(2, keepdims=True)
    whole = np.rint(scaled / top * 127)
    norms = np.square(whole_rows * column - mean).sum(1)
    expected = norms - 2 * top / 127 * (whole @ whole_rows.T)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_zero_query_in_int8_is_no_division_by_zero() -> None:
    kept = BankPart(torch.ones(3, 4), "int8")
    np.testing.assert_allclose(kept.product(torch.ones(1, 1, 4)).numpy(), np.zeros((1, 1, 3)), atol=1e-6)
