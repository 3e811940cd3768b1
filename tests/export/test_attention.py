"""The attention of the graph, which sums at a few anchors, against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sapatchcore.export import attention
from sapatchcore.export.attention import anchored_attention


def plain(x: Any) -> Any:
    """The definition, in float64."""
    rows = x.flatten(2).double()
    weights = torch.softmax(rows[:, :, :, None] * rows[:, :, None, :], dim=3)
    return (weights @ rows[:, :, :, None])[:, :, :, 0].reshape(x.shape)


@pytest.mark.parametrize("scale", [0.01, 1, 3, 6, 12, 30, 100])
@pytest.mark.parametrize("shift", [0, -0.5, -1])
def test_attention_by_anchors_is_the_definition(scale: float, shift: float) -> None:
    x = (torch.rand(2, 9, 6, 7, generator=torch.Generator().manual_seed(0)) + shift) * scale
    expected = plain(x)
    difference = (anchored_attention(x) - expected).abs().max() / expected.abs().max()
    assert difference < 5e-6


def test_attention_of_one_value_is_that_value() -> None:
    np.testing.assert_array_equal(anchored_attention(torch.full((1, 2, 3, 3), 2.5)).numpy(), np.full((1, 2, 3, 3), 2.5))


def test_slices_of_channels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 7, 5, 4, generator=torch.Generator().manual_seed(0)) * 3
    expected = anchored_attention(x)
    monkeypatch.setattr(attention, "_NUMBERS", 2 * 20**2)  # two channels at a time
    torch.testing.assert_close(anchored_attention(x), expected, rtol=1e-5, atol=1e-5)
