from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from gyri.nn.equalised import (
    EqualConv,
    EqualLinear,
    activate,
    convolve,
    unit_mean_square,
)
from gyri.nn.resample import SmoothDownsample, SmoothUpsample, binomial_kernel

SHAPES = [(10, 12), (8, 10, 12)]


def draws(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3])
def test_doubling_is_upsampling_then_correlating(shape: tuple[int, ...], size: int) -> None:
    dims = len(shape)
    x, weight = draws(2, 3, *shape), draws(4, 3, *[size] * dims)
    merged = convolve(x, weight, "double")
    apart = convolve(SmoothUpsample(dims)(x), weight, "same")
    assert merged.shape[2:] == tuple(2 * n for n in shape)
    inside = (..., *[slice(2, -2)] * dims)
    torch.testing.assert_close(merged[inside], apart[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3])
def test_halving_is_filtering_then_correlating(shape: tuple[int, ...], size: int) -> None:
    dims = len(shape)
    x, weight = draws(2, 3, *shape), draws(4, 3, *[size] * dims)
    merged = convolve(x, weight, "half")
    assert merged.shape[2:] == tuple(n // 2 for n in shape)
    # Correlation and filter commute away from the border.
    apart = SmoothDownsample(dims)(convolve(x, weight, "same"))
    inside = (..., *[slice(1, -1)] * dims)
    torch.testing.assert_close(merged[inside], apart[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_keeps_its_value_up_and_down(shape: tuple[int, ...]) -> None:
    # A gain of 2^2 in three dimensions would halve it at every doubling.
    dims = len(shape)
    centre = torch.zeros(1, 1, *[3] * dims)
    centre[(0, 0, *[1] * dims)] = 1.0
    x = torch.full((1, 1, *shape), 0.7)
    up = convolve(x, centre, "double")
    inside = (..., *[slice(3, -3)] * dims)
    torch.testing.assert_close(up[inside], torch.full_like(up[inside], 0.7))
    down = convolve(up, centre, "half")
    assert down.shape == x.shape
    torch.testing.assert_close(down[inside], torch.full_like(down[inside], 0.7))


def test_linear_interpolation_is_the_filter_that_doubles() -> None:
    x = draws(1, 1, 6, 8, 10)
    linear = interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
    inside = (..., *[slice(1, -1)] * 3)
    torch.testing.assert_close(SmoothUpsample(3)(x)[inside], linear[inside])


def test_smoothing_a_single_tap_gives_the_filter() -> None:
    one = torch.zeros(1, 1, 4, 4, 4)
    one[0, 0, 2, 2, 2] = 1.0
    said = convolve(one, torch.ones(1, 1, 1, 1, 1), "double")[0, 0, 3:7, 3:7, 3:7]
    assert torch.allclose(said, 8 * binomial_kernel(3))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("grid", ["same", "half", "double", "double_transposed"])
def test_convolutions_keep_the_size_of_smooth_features(dims: int, grid: str) -> None:
    torch.manual_seed(0)
    layer = EqualConv(dims, 64, 64, grid=grid, bias=False)  # type: ignore[arg-type]
    # Features that do not vary in space: halving and doubling leave them as they are.
    x = torch.randn(2, 64, *[1] * dims).expand(2, 64, *[12] * dims)
    inside = (..., *[slice(2, -2)] * dims)
    assert float(layer(x)[inside].detach().std()) == pytest.approx(1.0, rel=0.35)


def test_weights_are_of_unit_variance_whatever_they_learn() -> None:
    torch.manual_seed(0)
    assert float(EqualConv(3, 16, 64).weight.detach().std()) == pytest.approx(1.0, rel=0.05)
    slow = EqualLinear(400, 300, bias=2.0, lr_multiplier=0.01)
    assert float(slow.weight.detach().std()) == pytest.approx(100.0, rel=0.05)
    assert float(slow(torch.randn(64, 400)).detach().std()) == pytest.approx(1.0, rel=0.1)
    # Adam's steps on weights a hundred times as large move the map by a hundredth.
    plain = nn.Linear(400, 300)
    x = torch.randn(4, 400)
    slow(x).sum().backward()
    plain(x).sum().backward()
    assert slow.weight.grad is not None
    assert plain.weight.grad is not None
    ratio = slow.weight.grad / plain.weight.grad
    assert torch.allclose(ratio, torch.tensor(0.01 / math.sqrt(400)), rtol=1e-3)


def test_activation_and_normalisation_keep_the_mean_square() -> None:
    x = draws(100_000)
    assert activate(x).square().mean() == pytest.approx(2 * (1 + 0.04) / 2, rel=0.02)
    assert activate(x, 0.5).square().mean() == pytest.approx(0.25 * 1.04, rel=0.02)
    z = unit_mean_square(7 * draws(3, 50))
    assert torch.allclose(z.square().mean(1), torch.ones(3))
