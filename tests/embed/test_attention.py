"""Self-attention of layer 3 against three loops, against a value worked by hand, and its memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import checks
import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapatchcore.embed import attention
from sapatchcore.embed.attention import self_attention


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pooled(*shape: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(_random(*shape).relu(), 3, stride=1, padding=1)


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(_random(2, 3, 7, 7), id="random"),
        pytest.param(_pooled(2, 3, 9, 9), id="max-pooled: few distinct values"),
        pytest.param(torch.full((1, 2, 5, 5), 0.7), id="constant"),
        pytest.param(torch.zeros(1, 2, 4, 4), id="zero"),
        pytest.param(torch.arange(64.0).reshape(1, 1, 8, 8) / 20, id="all distinct"),
        pytest.param(torch.full((2, 3, 1, 1), -1.5), id="one position"),
        pytest.param(-_random(1, 4, 6, 6).abs() * 3, id="negative"),
        pytest.param(_random(1, 3, 6, 6).clamp(0), id="many zeros"),
        pytest.param(_random(1, 3, 8, 8) * 20, id="up to 50 in size"),
        pytest.param(_random(1, 3, 8, 8) * 1e-4, id="tiny"),
        pytest.param(_random(2, 3, 3, 11), id="wide"),
        pytest.param(_random(2, 3, 13, 2), id="tall"),
        pytest.param(_random(2, 6, 5, 4).to(memory_format=torch.channels_last), id="channels last"),
        pytest.param(_random(4, 5, 6, 6)[::2, :, 1:, ::2], id="a view with gaps"),
        pytest.param(torch.cat((_random(1, 2, 9, 9), _pooled(1, 2, 9, 9))), id="rows of every width"),
    ],
)
def test_equals_loops(x: torch.Tensor) -> None:
    checks.check_attention(x)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 2),
    c=st.integers(1, 3),
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    scale=st.sampled_from([0.1, 1.0, 7.0]),
    decimals=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_equals_loops_for_any_shape(n: int, c: int, h: int, w: int, scale: float, decimals: int, seed: int) -> None:
    checks.check_attention((_random(n, c, h, w, seed=seed) * scale).round(decimals=decimals))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_formats_are_computed_in_float32(dtype: torch.dtype) -> None:
    checks.check_attention(_random(1, 3, 5, 5).to(dtype))


def test_two_positions_by_hand() -> None:
    # x = [0, a] with a = √(ln 3), so that a·a = ln 3.
    # Position 0: products 0·0 and 0·a, weights ½ and ½, out = a/2.
    # Position 1: products a·0 = 0 and a·a = ln 3, weights 1/(1+3) and 3/(1+3), out = ¾·a.
    a = math.sqrt(math.log(3))
    out = self_attention(torch.tensor([0, a]).reshape(1, 1, 1, 2))
    np.testing.assert_allclose(out.flatten().numpy(), [a / 2, 3 * a / 4], rtol=1e-6)


def test_channels_do_not_mix() -> None:
    x = _random(1, 4, 5, 5)
    alone = torch.cat([self_attention(x[:, i : i + 1]) for i in range(4)], dim=1)
    torch.testing.assert_close(self_attention(x), alone, rtol=1e-6, atol=1e-6)


def test_images_do_not_mix() -> None:
    x = _random(3, 2, 5, 5)
    alone = torch.cat([self_attention(one[None]) for one in x])
    torch.testing.assert_close(self_attention(x), alone, rtol=1e-6, atol=1e-6)


def test_positions_have_no_meaning() -> None:
    """Permuted positions give the permuted result: there is no positional encoding."""
    x = _random(2, 3, 6, 7)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(1))
    permuted = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(
        self_attention(permuted).flatten(2), self_attention(x).flatten(2)[:, :, order], rtol=1e-5, atol=1e-6
    )


def test_output_stays_within_the_channels_values() -> None:
    x = _random(2, 3, 8, 8) * 10
    out = self_attention(x).flatten(2)
    assert (out <= x.flatten(2).amax(2, keepdim=True) + 1e-4).all()
    assert (out >= x.flatten(2).amin(2, keepdim=True) - 1e-4).all()


def test_input_is_not_changed() -> None:
    x = _random(1, 3, 6, 6)
    before = x.clone()
    self_attention(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("limit", [1, 7, 100, 1 << 24])
def test_sliced_form_of_other_devices_equals_loops(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_attend", attention._attend_sliced)
    monkeypatch.setattr(attention, "_SLICE", limit)
    checks.check_attention(_random(2, 3, 5, 4))
    checks.check_attention(_pooled(1, 3, 6, 6))


def test_sliced_form_equals_fused_form() -> None:
    queries, keys = _random(5, 20), _random(5, 37, seed=1)
    torch.testing.assert_close(
        attention._attend_sliced(queries, keys), attention._attend_fused(queries, keys), rtol=1e-5, atol=1e-6
    )


def test_sliced_form_never_stores_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = []
    softmax = torch.softmax

    def counted(x: torch.Tensor, dim: int) -> torch.Tensor:
        stored.append(x.numel())
        return softmax(x, dim=dim)

    monkeypatch.setattr(attention.torch, "softmax", counted)
    monkeypatch.setattr(attention, "_SLICE", 500)
    attention._attend_sliced(_random(6, 30), _random(6, 40))
    assert len(stored) == 6 * 3  # 12 queries with 40 keys each at a time
    assert max(stored) <= 500


MEMORY = """
import resource, torch
from sapatchcore.embed.attention import self_attention
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
x = torch.rand(1, 8, 64, 64, generator=torch.Generator().manual_seed(0)) * 4
assert all(len(channel.unique()) > 4000 for channel in x[0])
self_attention(x[:, :, :8, :8])
before = peak()
self_attention(x)
contiguous = peak()
self_attention(x.to(memory_format=torch.channels_last))
print(contiguous - before, peak() - before)
"""


def test_no_matrix_of_all_pairs_is_stored(run_python: Callable) -> None:
    """4096 distinct values in each of 8 channels: the authors' form would store 512 MB of weights, twice."""
    done = run_python(MEMORY)
    assert done.returncode == 0, done.stderr
    contiguous, channels_last = map(float, done.stdout.split())
    assert contiguous < 150, f"{contiguous:.0f} MB more for a contiguous map"
    assert channels_last < 150, f"{channels_last:.0f} MB more for a channels-last map"


def test_oracles_agree() -> None:
    x = _random(2, 2, 4, 5).double()
    np.testing.assert_allclose(
        oracle.attention_by_matrix(x).numpy(), oracle.attention_by_loops(x.numpy()), rtol=1e-12, atol=1e-12
    )
