"""The camera does what its options say, and moves the generator on by the scene's size alone."""

from __future__ import annotations

import numpy as np
import pytest

from sapatchcore.synth.camera import photograph


def taken(scene: np.ndarray, *, vignette: float = 0.0, blur: float = 0.0, noise: float = 0.0) -> np.ndarray:
    picture = photograph(scene, np.random.default_rng(0), vignette=vignette, blur=blur, noise=noise)
    assert picture.shape == scene.shape
    assert picture.dtype == np.uint8
    return picture.astype(np.float64)


def flat(level: float, height: int = 120, width: int = 161) -> np.ndarray:
    return np.full((height, width, 3), level, np.float32)


def test_nothing_asked_for_leaves_the_scene() -> None:
    scene = np.random.default_rng(1).random((33, 20, 3), dtype=np.float32)
    assert np.abs(taken(scene) - scene * 255).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("level", "stored"), [(-0.3, 0), (1.7, 255)])
def test_what_lies_outside_is_clipped(level: float, stored: int) -> None:
    assert (taken(flat(level)) == stored).all()


def test_vignette_takes_light_from_the_corners() -> None:
    picture = taken(flat(0.8), vignette=0.3)[..., 1] / (0.8 * 255)
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    # Its centre lies up to 12 % of half a side off the middle, so that no corner is exactly at 0.7.
    assert corners.mean() == pytest.approx(0.7, abs=0.02)
    assert (np.abs(corners - 0.7) < 0.3 * 0.27).all()
    assert picture[60, 80] > 0.99


@pytest.mark.parametrize("sigma", [0.4, 0.7, 1.3])
def test_blur_has_the_deviation_asked_for(sigma: float) -> None:
    place = np.arange(31) - 15
    line = flat(0.0, 31, 31)
    line[15] = 0.9  # its profile is the kernel
    profile = taken(line, blur=sigma)[:, 15, 0]
    profile /= profile.sum()
    assert (profile * place**2).sum() == pytest.approx(sigma**2, rel=0.03)


def test_noise_has_the_deviation_asked_for_and_less_in_the_dark() -> None:
    bright, dark = taken(flat(0.9), noise=3.0), taken(flat(0.1), noise=3.0)
    assert bright[..., 1].std() == pytest.approx(3.0 * 0.955, rel=0.05)
    assert dark[..., 1].std() < 0.7 * bright[..., 1].std()
    grey = np.corrcoef(bright[..., 0].ravel(), bright[..., 2].ravel())[0, 1]
    assert 0.8 < grey < 0.97  # mostly one noise for all channels, and a little colour


def test_the_generator_moves_on_by_the_size_alone() -> None:
    after = []
    for level, noise in ((0.2, 1.0), (0.9, 4.0)):
        random = np.random.default_rng(3)
        photograph(flat(level), random, vignette=0.2, blur=0.5, noise=noise)
        after.append(random.random())
    assert after[0] == after[1]
