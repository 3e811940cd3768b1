"""metric "whitened": the matrix by hand, distances against Mahalanobis' own, and one whitening for all that a detector does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checks
import numpy as np
import pytest
import torch

from sapatchcore import SAPatchCore
from sapatchcore.data.sources import Batch
from sapatchcore.embed import adaptation
from sapatchcore.embed.whitening import Moments, Whitening, whitening_matrix
from sapatchcore.errors import ModelFileError, NotFittedError
from sapatchcore.learning.calibrate import FOLDS
from sapatchcore.model_file import read_model, write_model


@pytest.fixture(scope="module")
def options(small: dict[str, Any]) -> dict[str, Any]:
    return {**small, "coreset_ratio": 0.1, "metric": "whitened", "context_weight": 1.5}


@pytest.fixture(scope="module")
def detector(options: dict[str, Any], good: np.ndarray) -> SAPatchCore:
    return SAPatchCore(**options).fit(good)


def test_distances_are_mahalanobis() -> None:
    checks.check_whitening()


def test_by_hand() -> None:
    """Variances 9 and 1 along two diagonals: of the mean, 5, a tenth is mixed in: 8.6 and 1.4. The sum of variances stays 10."""
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    rows = torch.tensor([[3.0, 1], [3, -1], [-3, 1], [-3, -1]], dtype=torch.float64) @ turn + 100
    first, moments = Moments(2), Moments(2)
    first.add(rows[:1])
    for part in rows[1:].split(2):
        moments.add(part)
    moments = first + moments
    covariance = moments.covariance()
    torch.testing.assert_close(covariance, torch.tensor([[5.0, 4.0], [4.0, 5.0]], dtype=torch.float64))
    found, factor = whitening_matrix(covariance), 10 / (9 / 8.6 + 1 / 1.4)
    torch.testing.assert_close(
        found, factor**0.5 * turn.T @ torch.diag(torch.tensor([8.6, 1.4]).double() ** -0.5) @ turn
    )
    whitened = Moments(2)
    whitened.add(rows @ found)
    expected = factor * turn.T @ torch.diag(torch.tensor([9 / 8.6, 1 / 1.4]).double()) @ turn
    torch.testing.assert_close(whitened.covariance(), expected)


@pytest.mark.parametrize("rows", [torch.empty(0, 3), torch.full((1, 3), 7.0), torch.full((5, 3), -2.5)])
def test_patches_without_any_spread_stay_as_they_are(rows: torch.Tensor) -> None:
    moments = Moments(3)
    moments.add(rows)
    assert torch.equal(whitening_matrix(moments.covariance()), torch.eye(3, dtype=torch.float64))


def test_directions_without_spread_stay_finite() -> None:
    """More channels than rows, and one channel that is always 0."""
    moments = Moments(6)
    moments.add(torch.cat((torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 1)), 1))
    found, covariance = whitening_matrix(moments.covariance()), moments.covariance()
    usual, spread = float(covariance.trace()) / 6, torch.linalg.eigvalsh(covariance)[-2:]
    factor = float(spread.sum() / (spread / (0.9 * spread + 0.1 * usual)).sum())
    assert float(torch.linalg.eigvalsh(found).max()) == pytest.approx((factor / (0.1 * usual)) ** 0.5)


def test_patch_scores_are_the_nearest_mahalanobis_distances(
    detector: SAPatchCore, options: dict[str, Any], good: np.ndarray, images: Callable
) -> None:
    """Of the patches as the euclidean metric has them, without the package's own algebra."""
    plain = SAPatchCore(**{**options, "metric": "euclidean", "context_weight": 1})
    learned, other = (
        plain.embed(some).reshape(len(some), 64, -1).astype(np.float64) for some in (good, images(2, seed=3))
    )
    c2 = plain.embedder.network.channels[0]
    _, numbers, cells = detector.provenance
    squared = []
    for part in (slice(None, c2), slice(c2, None)):
        rows = learned[..., part].reshape(-1, learned[..., part].shape[2])
        covariance = np.cov(rows, rowvar=False, bias=True)  # each context serves as many patches as any other
        shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        away = other[:, :, None, part] - learned[numbers, cells][..., part]
        factor = np.trace(covariance) / np.trace(np.linalg.solve(shrunk, covariance))
        squared.append(factor * np.einsum("npmc,cd,npmd->npm", away, np.linalg.inv(shrunk), away))
    squared[1] *= 1.5**2  # the context's weight
    whole = squared[0] + squared[1]
    at = whole.argmin(2)[..., None]
    found = detector.predict(images(2, seed=3))
    for grid, expected in (
        (found.patch_scores, whole),
        (found.local_patches, squared[0]),
        (found.context_patches, squared[1]),
    ):
        expected = np.sqrt(np.take_along_axis(expected, at, 2)[..., 0])
        np.testing.assert_allclose(grid.reshape(expected.shape), expected, rtol=2e-4)
    np.testing.assert_allclose(found.patch_scores**2, found.local_patches**2 + found.context_patches**2, rtol=1e-5)
    np.testing.assert_allclose(found.scores**2, found.local_scores**2 + found.context_scores**2, rtol=1e-5)


def test_what_is_learned_and_embedded_is_whitened(
    detector: SAPatchCore, options: dict[str, Any], good: np.ndarray
) -> None:
    """The largest variance of a direction is far smaller, that of all channels together is what it was."""
    patches, (_, numbers, cells) = detector.embed(good), detector.provenance
    np.testing.assert_array_equal(detector.memory_bank, patches.reshape(len(good), 64, -1)[numbers, cells])
    plain = SAPatchCore(**{**options, "metric": "euclidean"}).embed(good)
    c2 = detector.embedder.network.channels[0]
    for part in (np.s_[..., :c2], np.s_[..., c2:]):
        whitened, before = (
            np.linalg.eigvalsh(np.cov(some[part].reshape(-1, some[part].shape[-1]), rowvar=False, bias=True))
            for some in (patches, plain)
        )
        assert whitened.sum() == pytest.approx(before.sum(), rel=1e-3)
        assert whitened.max() < 0.5 * before.max()
    assert not np.isclose(detector.predict(good).scores.mean(), 0)


def test_saved_and_loaded_it_scores_alike(detector: SAPatchCore, images: Callable, tmp_path: Path) -> None:
    detector.save(tmp_path / "m.safetensors", include_weights=True)
    loaded, other = SAPatchCore.load(tmp_path / "m.safetensors"), images(3, seed=4)
    np.testing.assert_array_equal(loaded.predict(other).scores, detector.predict(other).scores)
    np.testing.assert_array_equal(loaded.embed(other), detector.embed(other))


@pytest.mark.parametrize("damage", [None, torch.eye(3), torch.eye(48).double(), torch.full((48, 48), torch.nan)])
def test_a_file_whose_whitening_cannot_be_one_is_refused(
    damage: torch.Tensor | None, detector: SAPatchCore, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    detector.save(path)
    stored = read_model(path)
    assert stored.more["whitening.local"].shape == (48, 48), "as of the whole matrices above"
    more = {**stored.more, "whitening.local": damage}
    more = {name: value for name, value in more.items() if value is not None}
    write_model(path, dataclasses.replace(stored, more=more))
    with pytest.raises(ModelFileError, match="does not hold what a model of sapatchcore holds"):
        SAPatchCore.load(path)


def test_learning_on_keeps_the_whitening(options: dict[str, Any], image_folder: Path, images: Callable) -> None:
    files = sorted(image_folder.iterdir())
    detector = SAPatchCore(**options).fit(files[:8])
    whitening = detector.embedder.whitening
    other = images(1, seed=9)
    before = detector.predict(other).scores[0]
    detector.update([*files[8:], other[0]])
    assert detector.predict(other).scores[0] < before
    detector.forget(str(files[0]))
    assert detector.embedder.whitening is whitening
    assert len(detector.provenance[0]) == 10
    assert detector.explain(other, false_reject=0.2)[0].causes[0].score <= before
    # Fitted again it is taken again, from the new images.
    again = detector.fit(images(5, seed=11)).embedder.whitening
    alone = SAPatchCore(**options).fit(images(5, seed=11)).embedder.whitening
    assert torch.equal(again.local, alone.local)
    assert not torch.equal(again.local, whitening.local)


@pytest.mark.parametrize("size", [1, 3])
def test_batches_do_not_matter(size: int, detector: SAPatchCore, options: dict[str, Any], good: np.ndarray) -> None:
    found, _ = adaptation.adapted(SAPatchCore(**{**options, "batch_size": size}).embedder, good, FOLDS)
    assert torch.equal(found.whitening.local, detector.embedder.whitening.local)
    assert torch.equal(found.whitening.context, detector.embedder.whitening.context)


def test_it_is_that_of_patches_at_the_temperature_found(options: dict[str, Any], good: np.ndarray) -> None:
    auto = SAPatchCore(**{**options, "temperature": "auto"}).fit(good)
    named = SAPatchCore(**{**options, "temperature": auto.settings.temperature}).fit(good)
    assert auto.settings.temperature != 1
    assert torch.equal(auto.embedder.whitening.context, named.embedder.whitening.context)


def test_before_fit_there_is_none(options: dict[str, Any], good: np.ndarray) -> None:
    detector = SAPatchCore(**options)
    for call in (detector.embed, detector.explain):
        with pytest.raises(NotFittedError, match=r"`metric` whitened is taken from good images\. Call fit first"):
            call(good[:1])


def test_a_constant_picture_has_finite_scores(options: dict[str, Any]) -> None:
    detector = SAPatchCore(**options).fit(np.zeros((2, 64, 64, 3), np.uint8))
    batch = Batch(("grey",), ((64, 64),), np.full((1, 64, 64, 3), 99, np.uint8))
    assert np.isfinite(detector.score(batch).result.scores).all()
    assert isinstance(detector.embedder.whitening, Whitening)
