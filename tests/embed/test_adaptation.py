"""What is taken from good images: which of them are looked at; temperature "auto" by three loops, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sapatchcore import SAPatchCore
from sapatchcore.embed import adaptation
from sapatchcore.embed.adaptation import adapted, examples_of, products_deviation, size_like
from sapatchcore.embed.patches import Embedder, to_patches
from sapatchcore.errors import DataError, NotFittedError
from sapatchcore.model_file import describe, read_model
from sapatchcore.settings import settings_from


@pytest.fixture
def auto(small: dict[str, Any]) -> dict[str, Any]:
    return {**small, "coreset_ratio": 0.1, "temperature": "auto"}


def test_by_loops() -> None:
    layer3 = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    pooled = F.max_pool2d(layer3, 3, 1, 1)
    expected = []
    for image in pooled:
        channels = []
        for channel in image:
            x = channel.flatten().tolist()
            rows = []  # of each position: the mean square of how far its products are from their mean
            for one in x:
                products = [one * other for other in x]
                mean = sum(products) / len(products)
                rows.append(sum((product - mean) ** 2 for product in products) / len(products))
            channels.append(math.sqrt(sum(rows) / len(rows)))
        expected.append(sum(channels) / len(channels))
    torch.testing.assert_close(products_deviation(layer3), torch.tensor(expected, dtype=torch.float64))


def test_by_hand() -> None:
    layer3 = torch.tensor([1.0, 1, 1, 3, 3, 3]).reshape(1, 1, 1, 6)
    pooled = F.max_pool2d(layer3, 3, 1, 1).flatten()  # 1 1 3 3 3 3
    mean, deviation = 7 / 3, math.sqrt(8) / 3
    assert pooled.tolist() == [1, 1, 3, 3, 3, 3]
    assert pooled.mean().item() == pytest.approx(mean)
    rms = math.sqrt((1 + 1 + 9 * 4) / 6)
    assert products_deviation(layer3).item() == pytest.approx(rms * deviation)
    assert products_deviation(torch.ones(1, 2, 3, 3)).item() == 0


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_a_network_of_another_scale_attends_alike(scale: float) -> None:
    layer2, layer3 = torch.zeros(1, 1, 8, 8), torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    contexts = [
        to_patches(layer2, layer3 * by, "self", float(products_deviation(layer3 * by))).context / by
        for by in (1, scale)
    ]
    torch.testing.assert_close(contexts[0], contexts[1])
    assert not torch.allclose(to_patches(layer2, layer3 * scale, "self").context / scale, contexts[0], rtol=0.01)


def test_the_detector_uses_and_keeps_the_number(
    auto: dict[str, Any], good: np.ndarray, images: Any, tmp_path: Path
) -> None:
    detector = SAPatchCore(**auto)
    assert detector.settings.temperature == "auto"
    detector.fit(good)
    number = detector.settings.temperature
    layer3 = torch.cat([detector.embedder.network.features(torch.from_numpy(good[i : i + 4]))[1] for i in (0, 4, 8)])
    assert number == float(f"{float(products_deviation(layer3).mean()):.3g}")
    assert detector.settings.requested == {"temperature": "auto"}
    assert detector.embedder.settings is detector.settings
    other = images(3, seed=5)
    scores = detector.predict(other).scores
    named = SAPatchCore(**{**auto, "temperature": number}).fit(good)
    assert named.settings.requested == {}
    assert np.array_equal(named.predict(other).scores, scores)
    assert not np.array_equal(SAPatchCore(**{**auto, "temperature": 1}).fit(good).predict(other).scores, scores)

    path = tmp_path / "auto.safetensors"
    detector.save(path)
    found = describe(path, read_model(path))
    assert found["temperature"] == f"auto → {number}"
    assert found["settings"]["temperature"] == number
    loaded = SAPatchCore.load(path)
    assert loaded.settings.requested == {"temperature": "auto"}
    assert np.array_equal(loaded.predict(other).scores, scores)
    loaded.update(other[:1])
    assert loaded.settings.temperature == number, "what was learned stays as it was"
    # Fitted again it is found again, from the new images.
    brighter = np.clip(good.astype(int) * 2 - 128, 0, 255).astype(np.uint8)
    assert loaded.fit(brighter).settings.temperature == SAPatchCore(**auto).fit(brighter).settings.temperature != number


def test_images_are_read_once_and_none_is_lost(
    auto: dict[str, Any], good: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "EXAMPLES", 4)
    handed = 0

    def once() -> Iterator[np.ndarray]:
        nonlocal handed
        for image in good:
            handed += 1
            yield image

    found = SAPatchCore(**auto).fit(once())
    named = SAPatchCore(**{**auto, "temperature": found.settings.temperature}).fit(good)
    assert handed == len(good)
    assert found.provenance[0] == named.provenance[0] == tuple(f"image {i}" for i in range(len(good)))
    assert np.array_equal(found.memory_bank, named.memory_bank)
    assert found.settings.temperature == SAPatchCore(**auto).fit(good[:4]).settings.temperature
    spread = good[[0, 2, 5, 7]]  # of a sequence; of an iterator the first
    assert SAPatchCore(**auto).fit(good).settings.temperature == SAPatchCore(**auto).fit(spread).settings.temperature


@pytest.mark.parametrize(("total", "last"), [(0, None), (1, 0), (64, 63), (65, 63), (1000, 984)])
def test_examples_are_spread_over_a_sequence(total: int, last: int | None) -> None:
    sources = [f"{number}.png" for number in range(total)]
    examples, handed_on = examples_of(sources, 64)
    numbers = [number for number, _ in examples]
    assert [source for _, source in examples] == [sources[number] for number in numbers]
    assert len(set(numbers)) == min(total, 64)
    assert (numbers[-1] if numbers else None) == last
    assert handed_on is sources
    steps = np.diff(numbers)
    assert not len(steps) or steps.max() - steps.min() <= 1


def test_of_an_iterator_the_first_are_held_and_handed_on() -> None:
    taken: list[int] = []
    examples, handed_on = examples_of((str(taken.append(number) or number) for number in range(100)), 256)
    assert len(taken) == 64
    assert examples == [(number, str(number)) for number in range(64)]
    assert list(handed_on) == [str(number) for number in range(100)]


def test_an_example_that_cannot_be_read_has_its_number_among_all(
    auto: dict[str, Any], good: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "EXAMPLES", 2)
    images = [*good[:8]]
    images[4] = np.zeros((4, 4, 7), np.uint8)
    with pytest.raises(DataError, match="image 4"):
        SAPatchCore(**auto).fit(images)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_do_not_matter(auto: dict[str, Any], good: np.ndarray, size: int) -> None:
    found, _ = adapted(Embedder(settings_from({**auto, "batch_size": size})), good)
    assert found.settings.temperature == SAPatchCore(**auto).fit(good).settings.temperature


def test_a_fit_that_fails_leaves_the_detector_as_it_was(auto: dict[str, Any], good: np.ndarray) -> None:
    detector = SAPatchCore(**auto).fit(good)
    before, scores = detector.settings, detector.predict(good[:2]).scores
    with pytest.raises(DataError, match="image 3"):
        detector.fit([*(255 - good[:3]), np.zeros((4, 4, 7), np.uint8)])
    assert detector.settings is before
    assert np.array_equal(detector.predict(good[:2]).scores, scores)
    with pytest.raises(DataError, match="No image to learn from"):
        SAPatchCore(**auto).fit([])


def test_before_fit_it_is_no_number(auto: dict[str, Any], good: np.ndarray) -> None:
    detector = SAPatchCore(**auto)
    for call in (detector.embed, detector.explain):
        with pytest.raises(NotFittedError, match=r"temperature auto is taken from good images\. Call fit first"):
            call(good[:1])


def test_without_attention_it_has_no_effect(auto: dict[str, Any], good: np.ndarray) -> None:
    plain = SAPatchCore(**{**auto, "attention": "none"})
    plain.embed(good[:1])  # nothing to find
    plain.fit(good)
    assert plain.settings.temperature == 1.0
    named = SAPatchCore(**{**auto, "attention": "none", "temperature": 1}).fit(good)
    assert np.array_equal(plain.memory_bank, named.memory_bank)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.0, 0.0), 1.0), ((3.0, 3.0), 1.0), ((0.0, math.nan), 1.0), ((0.0, 1e9), 1e6), ((0.0, 1e-9), 1e-6)],
)
def test_layers_without_spread_or_beyond_all_bounds(
    values: tuple[float, float], expected: float, auto: dict[str, Any]
) -> None:
    """The number is always one that the setting takes; infinity and NaN are for the embedding itself to refuse."""

    class Made:
        def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            layer3 = torch.full((len(images), 1, 4, 8), values[0])
            layer3[..., 4:] = values[1]
            return torch.zeros(len(images), 1, 8, 16), layer3

    embedder = Embedder(settings_from(auto))
    embedder._network = Made()  # type: ignore[assignment]
    found, _ = adapted(embedder, [np.zeros((64, 64, 3), np.uint8)])
    assert found.settings.temperature == expected
    settings_from({"temperature": found.settings.temperature})


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((100, 100), (64, 64)),
        ((200, 100), (128, 64)),
        ((100, 149), (64, 96)),
        ((900, 100), (256, 64)),  # at most 4 times as long
        ((101, 100), (64, 64)),
    ],
)
def test_size_like_by_hand(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert size_like(np.zeros((*image, 3), np.uint8), 64) == expected


def test_the_input_has_the_first_image_s_shape(small: dict[str, Any], tmp_path: Path) -> None:
    tall = np.random.default_rng(0).integers(0, 256, (6, 130, 64, 3), np.uint8)
    detector = SAPatchCore(**{**small, "resize": (64, 64), "keep_aspect": True, "coreset_ratio": 0.1})
    detector.fit(tall)
    assert detector.settings.resize == (128, 64)
    assert detector.bank.grid == (16, 8)
    detector.save(tmp_path / "m.safetensors")
    again = SAPatchCore.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(tall[:2]).scores, detector.predict(tall[:2]).scores)
    detector.fit(np.ascontiguousarray(tall[:, :64]))
    assert detector.settings.resize == (64, 64), "another fit takes the shape anew"


def test_for_the_shape_one_image_is_held(small: dict[str, Any]) -> None:
    taken: list[int] = []
    tall = np.zeros((130, 64, 3), np.uint8)
    settings = settings_from({**small, "resize": (64, 64), "keep_aspect": True})
    found, handed_on = adapted(Embedder(settings), (taken.append(number) or tall for number in range(9)))
    assert found.settings.resize == (128, 64)
    assert taken == [0]
    assert len(list(handed_on)) == 9
