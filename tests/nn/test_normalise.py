"""The recomputed step equals its formula, in value and in all derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gyri.nn import normalise
from gyri.nn.layers import CHANNELS_LAST, DOUBLING, SAME, Convolution
from gyri.nn.normalise import NormSiLU, group_mean, plain

SHAPES = pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4)])
recomputed = normalise._Recomputed.apply


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalise, "LARGE_BYTES", 0)


def example(
    shape: tuple[int, ...], sizes: tuple[int, ...], convolution: Convolution = SAME
) -> list[Tensor]:
    """Gain, offset, weight, bias and parts."""
    torch.manual_seed(0)
    channels = sum(sizes)
    gain, offset = torch.randn(3, channels), torch.randn(3, channels)
    weight = torch.randn(2, channels, *[3] * len(shape))
    if convolution.transposed:
        weight = torch.randn(channels, 2, *[4] * len(shape))
    parts = [0.5 + 2 * torch.randn(3, size, *shape) for size in sizes]
    tensors = [gain, offset, weight, torch.randn(2), *parts]
    return [tensor.double().requires_grad_() for tensor in tensors]


@SHAPES
@pytest.mark.parametrize("convolution", [SAME, DOUBLING], ids=["same", "doubling"])
@pytest.mark.parametrize("sizes", [(8,), (5, 3), (2, 4, 2)])
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_values_and_gradients_equal_the_formula(
    shape: tuple[int, ...],
    convolution: Convolution,
    sizes: tuple[int, ...],
    groups: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(normalise, "CHUNK_BYTES", 1)
    inputs = example(shape, sizes, convolution)
    ours = recomputed(groups, 1e-5, convolution, *inputs)
    formula = plain(groups, 1e-5, convolution, *inputs)
    torch.testing.assert_close(ours, formula)
    grad = torch.randn_like(formula)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(formula, inputs, grad)
    )


@SHAPES
def test_second_derivatives(shape: tuple[int, ...]) -> None:
    inputs = example(shape, (1, 3))
    assert torch.autograd.gradgradcheck(lambda *given: recomputed(2, 1e-5, SAME, *given), inputs)


@SHAPES
def test_frozen_weights_get_no_gradient(shape: tuple[int, ...]) -> None:
    inputs = example(shape, (4,))
    for tensor in inputs[:4]:
        tensor.requires_grad_(False)
    recomputed(2, 1e-5, SAME, *inputs).sum().backward()
    assert [tensor.grad is None for tensor in inputs] == [True] * 4 + [False]


@SHAPES
@pytest.mark.parametrize("modulated", [False, True])
def test_module_is_group_norm_and_silu(shape: tuple[int, ...], modulated: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, *shape)
    norm = NormSiLU(8, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = functional.group_norm(x, 4, norm.weight, norm.bias)
    modulation = torch.randn(2, 16) if modulated else None
    if modulation is not None:
        scale, shift = (part[(...,) + (None,) * len(shape)] for part in modulation.chunk(2, 1))
        expected = (1 + scale) * expected + shift
    expected = functional.silu(expected)
    torch.testing.assert_close(norm(x, modulation), expected)
    weight = torch.randn(5, 8, *[3] * len(shape))
    dense = [part.clone(memory_format=torch.contiguous_format) for part in x.split([6, 2], dim=1)]
    for parts in (dense, x.split([6, 2], dim=1), [x]):
        convolved = norm.then(SAME, weight, None, *parts, modulation=modulation)
        torch.testing.assert_close(convolved, SAME([expected], weight, None), atol=1e-4, rtol=1e-4)


@SHAPES
def test_memory_format_is_kept_in_both_directions(shape: tuple[int, ...]) -> None:
    layout = CHANNELS_LAST[len(shape)]
    x = torch.randn(2, 8, *shape).contiguous(memory_format=layout).requires_grad_()
    y = NormSiLU(8, 4).then(SAME, torch.randn(8, 8, *[3] * len(shape)), None, x)
    assert y.is_contiguous(memory_format=layout)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=layout)


def test_constant_input_is_safe() -> None:
    x = torch.full((1, 4, 3, 3), 7.0, requires_grad=True)
    y = NormSiLU(4, 2).then(SAME, torch.ones(1, 4, 3, 3), None, x)
    torch.testing.assert_close(y, torch.zeros_like(y), atol=1e-3, rtol=0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_large_mean_does_not_spoil_the_variance() -> None:
    torch.manual_seed(0)
    x = 100 + torch.randn(1, 4, 32, 32)
    weight = torch.randn(2, 4, 3, 3)
    y = NormSiLU(4, 2).then(SAME, weight, None, x)
    exact = functional.silu(functional.group_norm(x.double(), 2))
    torch.testing.assert_close(y.double(), SAME([exact], weight.double(), None), atol=1e-3, rtol=0)


def test_under_autocast_the_plain_form_runs() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = NormSiLU(4, 2).then(SAME, torch.randn(2, 4, 3, 3), None, x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None


def test_group_mean() -> None:
    values = torch.tensor([[1.0, 3.0, 5.0, 9.0]])
    assert group_mean(values, 2).tolist() == [[2.0, 2.0, 7.0, 7.0]]
