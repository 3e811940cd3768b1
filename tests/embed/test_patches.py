"""Pooling, pairing of the two grids, and the paper's concatenation."""

from __future__ import annotations

import checks
import pytest
import torch
import torch.nn.functional as F

from sapatchcore.embed.patches import covering_cell, to_patches


def _maps(n: int, fine: tuple[int, int], coarse: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(n, 3, *fine, generator=generator).relu() * 3,
        torch.randn(n, 5, *coarse, generator=generator).relu() * 3,
    )


@pytest.mark.parametrize("mode", ["self", "none"])
@pytest.mark.parametrize(
    ("fine", "coarse"),
    [
        ((8, 8), (4, 4)),
        ((28, 28), (14, 14)),
        ((25, 25), (13, 13)),
        ((6, 10), (3, 5)),
        ((7, 5), (7, 5)),
        ((1, 2), (1, 1)),
    ],
)
def test_rows_are_the_authors_concatenation(fine: tuple[int, int], coarse: tuple[int, int], mode: str) -> None:
    checks.check_patches(*_maps(2, fine, coarse), mode)


def test_shapes() -> None:
    found = to_patches(*_maps(2, (6, 10), (3, 5)), "self")
    assert found.local.shape == (2, 60, 3)
    assert found.context.shape == (2, 15, 5)
    assert found.cell.shape == (60,)
    assert found.grid == (6, 10)
    assert found.rows().shape == (2, 60, 8)
    assert found.local.dtype == found.context.dtype == torch.float32


def test_zeros_beyond_the_border_count() -> None:
    # Of the 9 cells under a corner's kernel 4 lie inside, under an edge's 6.
    found = to_patches(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2), "self")
    local = found.local.reshape(4, 4)
    torch.testing.assert_close(local[0, 0], torch.tensor(4 / 9))
    torch.testing.assert_close(local[0, 1], torch.tensor(6 / 9))
    torch.testing.assert_close(local[1, 1], torch.tensor(1.0))
    # Max pooling has no such border, and attention over one value is that value.
    torch.testing.assert_close(found.context, torch.ones(1, 4, 1))


@pytest.mark.parametrize("temperature", [0.25, 9.0])
def test_temperature_divides_the_products(temperature: float) -> None:
    layer2, layer3 = _maps(1, (10, 12), (5, 6))
    found = to_patches(layer2, layer3, "self", temperature).context[0]
    values = torch.nn.functional.max_pool2d(layer3.float(), 3, 1, 1)[0].flatten(1)
    for channel, row in enumerate(values):
        for place, x in enumerate(row):
            weights = torch.softmax(x * row / temperature, 0)
            torch.testing.assert_close(found[place, channel], (weights * row).sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["self", "none"])
def test_context_weight_multiplies_the_context_alone(attention: str) -> None:
    layers = _maps(2, (8, 8), (4, 4))
    one, other = (to_patches(*layers, attention, 1.0, weight) for weight in (1.0, 4.0))
    assert torch.equal(one.local, other.local)
    assert torch.equal(one.context * 4, other.context)


def test_layer_3_is_averaged_without_attention() -> None:
    found = to_patches(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2), "none")
    torch.testing.assert_close(found.context, torch.full((1, 4, 1), 4 / 9))


def test_local_part_ignores_layer_3_and_the_other_way() -> None:
    layer2, layer3 = _maps(1, (8, 8), (4, 4))
    one, other = to_patches(layer2, layer3, "self"), to_patches(layer2, layer3 + 1, "self")
    assert torch.equal(one.local, other.local)
    assert not torch.equal(one.context, other.context)
    other = to_patches(layer2 + 1, layer3, "self")
    assert torch.equal(one.context, other.context)
    assert not torch.equal(one.local, other.local)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype: torch.dtype) -> None:
    layer2, layer3 = (layer.to(dtype) for layer in _maps(1, (8, 8), (4, 4)))
    half, full = to_patches(layer2, layer3, "self"), to_patches(layer2.float(), layer3.float(), "self")
    assert torch.equal(half.rows(), full.rows())


def test_channels_last_input_gives_the_same_rows() -> None:
    layer2, layer3 = _maps(2, (8, 8), (4, 4))
    last = to_patches(
        layer2.to(memory_format=torch.channels_last), layer3.to(memory_format=torch.channels_last), "self"
    )
    torch.testing.assert_close(last.rows(), to_patches(layer2, layer3, "self").rows(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fine", "coarse"),
    [
        ((28, 28), (14, 14)),
        ((25, 25), (13, 13)),
        ((6, 10), (3, 5)),
        ((32, 40), (16, 20)),
        ((9, 7), (4, 3)),
        ((5, 5), (5, 5)),
        ((4, 4), (1, 1)),
    ],
)
def test_covering_cell_is_nearest_upsampling(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    values = torch.randn(1, 1, *coarse, generator=torch.Generator().manual_seed(0))
    upsampled = F.interpolate(values, size=fine, mode="nearest")
    assert torch.equal(values.flatten()[covering_cell(fine, coarse)], upsampled.flatten())


def test_each_coarse_cell_serves_its_two_by_two() -> None:
    assert covering_cell((4, 4), (2, 2)).reshape(4, 4).tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [2, 2, 3, 3],
    ]
