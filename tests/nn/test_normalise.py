"""The recomputed normalisation equals its formula, in value and in all derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gyri.nn import normalise
from gyri.nn.layers import CHANNELS_LAST
from gyri.nn.normalise import NormSiLU, group_mean, normalised_silu

SHAPES = pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4)])
recomputed = normalise._RecomputedNormSiLU.apply


def example(shape: tuple[int, ...], sizes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    channels = sum(sizes)
    gain, offset = torch.randn(3, channels), torch.randn(3, channels)
    parts = [0.5 + 2 * torch.randn(3, size, *shape) for size in sizes]
    return [tensor.double().requires_grad_() for tensor in (gain, offset, *parts)]


@SHAPES
@pytest.mark.parametrize("sizes", [(8,), (5, 3), (2, 4, 2)])
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_values_and_gradients_equal_the_formula(
    shape: tuple[int, ...], sizes: tuple[int, ...], groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalise, "CHUNK_BYTES", 1)
    gain, offset, *parts = example(shape, sizes)
    ours = recomputed(groups, 1e-5, gain, offset, *parts)
    formula = normalised_silu(groups, 1e-5, gain, offset, tuple(parts))
    torch.testing.assert_close(ours, formula)
    weights = [torch.randn_like(y) for y in formula]
    inputs = [gain, offset, *parts]
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(formula, inputs, weights)
    )


@SHAPES
def test_second_derivatives(shape: tuple[int, ...]) -> None:
    inputs = example(shape, (2, 2))
    assert torch.autograd.gradgradcheck(lambda *given: recomputed(2, 1e-5, *given), inputs)


@SHAPES
def test_formula_is_group_norm_and_silu(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, *shape)
    norm = NormSiLU(8, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    plain = functional.group_norm(x, 4, norm.weight, norm.bias)
    torch.testing.assert_close(norm(x)[0], functional.silu(plain))
    modulation = torch.randn(2, 16)
    scale, shift = (part[(...,) + (None,) * len(shape)] for part in modulation.chunk(2, 1))
    expected = functional.silu((1 + scale) * plain + shift)
    torch.testing.assert_close(norm(x, modulation=modulation)[0], expected)


@SHAPES
def test_memory_format_is_kept_in_both_directions(shape: tuple[int, ...]) -> None:
    layout = CHANNELS_LAST[len(shape)]
    x = torch.randn(2, 8, *shape).contiguous(memory_format=layout).requires_grad_()
    (y,) = NormSiLU(8, 4)(x)
    assert y.is_contiguous(memory_format=layout)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=layout)


def test_constant_input_is_safe() -> None:
    x = torch.full((1, 4, 3, 3), 7.0, requires_grad=True)
    (y,) = NormSiLU(4, 2)(x)
    torch.testing.assert_close(y, torch.zeros_like(y), atol=1e-4, rtol=0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_large_mean_does_not_spoil_the_variance() -> None:
    torch.manual_seed(0)
    x = 100 + torch.randn(1, 4, 32, 32)
    (y,) = NormSiLU(4, 2)(x)
    exact = functional.silu(functional.group_norm(x.double(), 2)).float()
    torch.testing.assert_close(y, exact, atol=2e-4, rtol=1e-3)


def test_under_autocast_the_normalisation_stays_in_float32() -> None:
    x = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert NormSiLU(4, 2)(x)[0].dtype == torch.float32


def test_group_mean() -> None:
    values = torch.tensor([[1.0, 3.0, 5.0, 9.0]])
    assert group_mean(values, 2).tolist() == [[2.0, 2.0, 7.0, 7.0]]
