from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gyri.nn.modulated import AdaIN, AdaptiveConv, ModulatedConv, NoiseInput, StyledConv

SHAPES = [(6, 8), (4, 6, 8)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def modulated_weights(layer: ModulatedConv, w: Tensor) -> Tensor:
    """Weights of each item (B, C_out, C_in, k, ...), by the formulas of the paper."""
    style = layer.style(w)
    weight = layer.weight * style.reshape(len(w), 1, -1, *[1] * (layer.weight.ndim - 2))
    norm = weight.flatten(2).square().sum(2).add(1e-8).sqrt()
    return weight / norm.reshape(*norm.shape, *[1] * (weight.ndim - 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_weighing_channels_is_modulating_weights(shape: tuple[int, ...]) -> None:
    layer = ModulatedConv(len(shape), 5, 7, 9)
    x, w = torch.randn(3, 5, *shape), torch.randn(3, 9)
    weights = modulated_weights(layer, w)
    assert torch.allclose(weights.flatten(2).norm(dim=2), torch.ones(3, 7))
    convolve = functional.conv2d if len(shape) == 2 else functional.conv3d
    fused = convolve(x.reshape(1, 15, *shape), weights.flatten(0, 1), padding=1, groups=3)
    torch.testing.assert_close(layer(x, w), fused.unflatten(1, (3, 7))[0], rtol=1e-4, atol=1e-5)


def test_demodulation_is_one_over_the_norm() -> None:
    layer = ModulatedConv(2, 5, 7, 9)
    w = torch.randn(3, 9)
    style = layer.style(w)
    weights = modulated_weights(layer, w)
    found = (
        layer.demodulation(style)[:, :, None, None, None]
        * layer.weight
        * style[:, None, :, None, None]
    )
    torch.testing.assert_close(found, weights)


@pytest.mark.parametrize("grid", ["same", "double", "double_transposed"])
def test_a_larger_style_changes_only_what_is_not_demodulated(grid: str) -> None:
    for demodulate in (True, False):
        layer = ModulatedConv(2, 5, 7, 9, grid=grid, demodulate=demodulate)  # type: ignore[arg-type]
        x, w = torch.randn(3, 5, 6, 8), torch.randn(3, 9)
        before = layer(x, w)
        with torch.no_grad():
            layer.style.weight.mul_(3.0)
            layer.style.bias.mul_(3.0)
        expected = before if demodulate else 3 * before
        torch.testing.assert_close(layer(x, w), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("grid", ["same", "double", "double_transposed"])
def test_demodulated_features_keep_their_size(dims: int, grid: str) -> None:
    # Of white features; the filter that doubles takes some of their variance.
    layer = ModulatedConv(dims, 32, 32, 8, grid=grid)  # type: ignore[arg-type]
    y = layer(torch.randn(2, 32, *[10] * dims), torch.randn(2, 8))
    deviation = float(y[(..., *[slice(2, -2)] * dims)].detach().std())
    assert (0.4 if grid == "double" else 0.85) < deviation < 1.3


@pytest.mark.parametrize("shape", SHAPES)
def test_adain_gives_each_channel_the_mean_and_deviation_of_the_style(
    shape: tuple[int, ...],
) -> None:
    layer = AdaIN(5, 9)
    x, w = 3 * torch.randn(2, 5, *shape) + 7, torch.randn(2, 9)
    scale, shift = layer.style(w).chunk(2, dim=1)
    y = layer(x, w).flatten(2)
    torch.testing.assert_close(y.mean(2), shift, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(y.std(2, unbiased=False), scale.abs(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer(4 * x - 2, w), layer(x, w), rtol=1e-3, atol=1e-3)
    at_zero = layer.style(torch.zeros(1, 9))
    assert at_zero.tolist() == [[1.0] * 5 + [0.0] * 5]


@pytest.mark.parametrize("kind", [StyledConv, AdaptiveConv])
def test_noise_enters_with_what_is_learned_and_not_at_init(kind: type) -> None:
    layer = kind(2, 3, 4, 9)
    x, w = torch.randn(2, 3, 6, 8), torch.randn(2, 9)
    one, other = torch.randn(2, 2, 1, 6, 8).unbind(0)
    assert torch.equal(layer(x, w, one), layer(x, w, other))
    torch.nn.init.ones_(layer.noise.strength)
    assert not torch.allclose(layer(x, w, one), layer(x, w, other))
    assert not any("noise" in name for name, _ in kind(2, 3, 4, 9, noise=False).named_parameters())


def test_noise_is_added_after_demodulation() -> None:
    noise = NoiseInput(1)
    torch.nn.init.constant_(noise.strength, 0.5)
    x, one = torch.randn(2, 3, 6, 8), torch.randn(1, 1, 6, 8)
    assert torch.equal(noise(x, one), x + 0.5 * one)
