"""The image as a whole: scikit-learn's Ledoit-Wolf and Mahalanobis distance, and every place's share by loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from sapatchcore.embed.patches import covering_cell
from sapatchcore.errors import DataError
from sapatchcore.memory.pooled import Gaussian, GlobalPart, ledoit_wolf, pooled

Layers = tuple[torch.Tensor, torch.Tensor]


def layers_of(images: int, seed: int) -> Layers:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 4, 6, generator=generator) + 1, 2 * torch.randn(images, 2, 2, 3, generator=generator)


def test_statistics_by_hand() -> None:
    layers = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2), torch.tensor([4.0, 0, 4, 0]).reshape(1, 1, 2, 2)
    assert pooled(layers).tolist() == [[2, 1, 2, 2]], "means and deviations, layer by layer"


@pytest.mark.parametrize(("images", "numbers"), [(40, 12), (10, 30), (300, 48), (3, 5)])
def test_distances_are_scikit_learns(images: int, numbers: int) -> None:
    random = np.random.default_rng(images)
    good, new = random.normal(size=(images, numbers)) * np.linspace(0.1, 3, numbers), random.normal(size=(5, numbers))
    expected = LedoitWolf().fit(good)
    centred = torch.from_numpy(good - good.mean(0))
    assert ledoit_wolf(centred) == pytest.approx(expected.shrinkage_, rel=1e-9)
    found = Gaussian.of(torch.from_numpy(good)).distance(torch.from_numpy(new))
    np.testing.assert_allclose(found, np.sqrt(expected.mahalanobis(new)), rtol=1e-8)


def test_shares_are_the_formula_place_by_place_and_add_up() -> None:
    gaussian, layers, cell = Gaussian.of(pooled(layers_of(20, 0))), layers_of(2, 1), covering_cell((4, 6), (2, 3))
    x = pooled(layers)
    found = gaussian.shares(layers, x, cell)
    pull, mean = gaussian.pull(x).numpy(), gaussian.mean.numpy()
    for image in range(2):
        expected, at = np.zeros(24), 0
        for number, layer in enumerate(layers):
            values = layer[image].double().numpy()
            c, places = len(values), values[0].size
            for channel in range(c):
                f, i = values[channel].ravel(), at + channel
                of_mean = pull[image, i] * (f - mean[i])
                spread = (f - f.mean()) ** 2 - mean[i + c] ** 2
                shares = (of_mean + pull[image, i + c] * spread / (f.std() + mean[i + c])) / places
                expected += shares if number == 0 else shares[cell.numpy()] / 4  # four patches to a place of layer 3
            at += 2 * c
        np.testing.assert_allclose(found[image], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(found.sum(1), gaussian.distance(x) ** 2, rtol=1e-4)


def test_an_image_is_compared_with_those_of_other_folds() -> None:
    rows = pooled(layers_of(7, 2)).float()
    part = GlobalPart.of(rows)
    for i, value in enumerate(part.cross_fitted(torch.arange(7) % 3).tolist()):
        others = [k for k in range(7) if k % 3 != i % 3]
        assert value == pytest.approx(float(Gaussian.of(rows[others]).distance(rows[i, None].double())))
    grown = part.with_images(rows[:2])
    assert torch.equal(grown.rows[7:], rows[:2])
    assert torch.equal(grown.without_image(1).rows, torch.cat((rows[:1], rows[2:], rows[:2])))


def test_too_few_images() -> None:
    rows = pooled(layers_of(3, 0))
    with pytest.raises(DataError, match=r"^`global_part` 'pooled' needs at least 3 good images, .* Got 2\."):
        GlobalPart.of(rows[:2])
    with pytest.raises(DataError, match="Got 2"):
        GlobalPart.of(rows).without_image(0)
