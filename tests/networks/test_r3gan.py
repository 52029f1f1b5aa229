"""R3GAN's networks against the published parameter counts and laws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gyri.errors import UsageError
from gyri.networks.r3gan import (
    CIFAR_10,
    FFHQ_256,
    R3GANDiscriminator,
    R3GANGenerator,
    R3GANNetworkConfig,
    ResidualBlock,
)
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SMALL = R3GANNetworkConfig(widths=(16, 16, 8), group_size=8, condition_width=4)
SHAPES = pytest.mark.parametrize("shape", [(16, 16), (12, 20), (8, 12, 8)])


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def generator(
    config: R3GANNetworkConfig, shape: tuple[int, ...], channels: int = 1, **sizes: int
) -> R3GANGenerator:
    torch.manual_seed(0)
    return R3GANGenerator(config, NetworkSpec(0, channels, shape, **{"latent_size": 64, **sizes}))


def discriminator(
    config: R3GANNetworkConfig, shape: tuple[int, ...], channels: int = 1, **sizes: int
) -> R3GANDiscriminator:
    torch.manual_seed(0)
    return R3GANDiscriminator(config, NetworkSpec(channels, 0, shape, **sizes))


def perturbed(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize(
    ("config", "size", "channels", "labels", "in_generator", "in_discriminator"),
    [
        (FFHQ_256, 256, 3, 0, 23_057_952, 23_009_568),
        (CIFAR_10, 32, 3, 10, 20_781_952, 21_280_512),
        (replace(FFHQ_256, widths=FFHQ_256.widths[:-1]), 128, 1, 0, 22_909_632, 22_861_248),
        (replace(FFHQ_256, widths=FFHQ_256.widths[:-1]), 128, 1, 176, 22_970_048, 23_585_472),
    ],
)
def test_published_parameter_counts(
    config: R3GANNetworkConfig,
    size: int,
    channels: int,
    labels: int,
    in_generator: int,
    in_discriminator: int,
) -> None:
    shape = (size, size)
    with torch.device("meta"):
        g = R3GANGenerator(config, NetworkSpec(0, channels, shape, labels, 0, 64))
        d = R3GANDiscriminator(config, NetworkSpec(channels, 0, shape, labels))
    assert parameters(g) == in_generator
    assert parameters(d) == in_discriminator


@pytest.mark.parametrize("channels_last", [True, False])
@SHAPES
def test_generator_is_linear_in_z_at_init(shape: tuple[int, ...], channels_last: bool) -> None:
    g = generator(replace(SMALL, channels_last=channels_last), shape)
    z, nothing = torch.randn(2, 64), torch.zeros(2, 0)
    assert g(z, nothing).shape == (2, 1, *shape)
    torch.testing.assert_close(g(2 * z, nothing), 2 * g(z, nothing))
    assert not torch.allclose(perturbed(g)(2 * z, nothing), 2 * g(z, nothing), rtol=1e-2)


@pytest.mark.parametrize("channels_last", [True, False])
@SHAPES
def test_discriminator_is_linear_in_x_at_init(shape: tuple[int, ...], channels_last: bool) -> None:
    d = discriminator(replace(SMALL, channels_last=channels_last), shape, 2)
    x, y, nothing = torch.randn(3, 2, *shape), torch.randn(3, 2, *shape), torch.zeros(3, 0)
    assert d(x, nothing).shape == (3,)
    torch.testing.assert_close(
        d(2 * x + y, nothing), 2 * d(x, nothing) + d(y, nothing), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_block_init(dims: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(dims, 64, 16, total_blocks=16)
    gain = math.sqrt(2 / 1.04) * 16**-0.25
    assert block.expand.weight.std().item() == pytest.approx(gain / 8, rel=0.05)
    fan_in = 16 * 3**dims
    assert block.grouped.weight.std().item() == pytest.approx(gain / math.sqrt(fan_in), rel=0.05)
    assert not block.contract.weight.any()
    assert block.contract.bias is None
    assert not block.expand.bias.any()
    x = torch.randn(1, 64, *[4] * dims)
    assert torch.equal(block(x), x)


def test_block_is_the_published_equation_after_training() -> None:
    """Bias-free convolutions and biased activations, as published, give the same block."""
    block = perturbed(ResidualBlock(2, 8, 4, total_blocks=2))
    x = torch.randn(2, 8, 5, 5)
    conv2d, lrelu = nn.functional.conv2d, nn.functional.leaky_relu
    h = lrelu(conv2d(x, block.expand.weight) + block.expand.bias[:, None, None], 0.2)
    h = conv2d(h, block.grouped.weight, padding=1, groups=4) + block.grouped.bias[:, None, None]
    expected = x + conv2d(lrelu(h, 0.2), block.contract.weight)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 4)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_gradients(shape: tuple[int, ...], checkpointing: bool) -> None:
    config = R3GANNetworkConfig(
        widths=(4, 2), group_size=2, num_blocks=1, gradient_checkpointing=checkpointing
    )
    d = perturbed(discriminator(config, shape, condition_size=2)).double()
    x = torch.randn(2, 1, *shape, dtype=torch.double, requires_grad=True)
    condition = torch.randn(2, 2, dtype=torch.double)
    assert torch.autograd.gradgradcheck(lambda x: d(x, condition), x)


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 4)])
def test_checkpointing_changes_no_penalty_gradient(shape: tuple[int, ...]) -> None:
    gradients = []
    for checkpointing in (False, True):
        config = replace(SMALL, gradient_checkpointing=checkpointing)
        d = perturbed(discriminator(config, shape))
        torch.manual_seed(3)
        x = torch.randn(2, 1, *shape, requires_grad=True)
        logits = d(x, torch.zeros(2, 0)).sum()
        (slope,) = torch.autograd.grad(logits, x, create_graph=True)
        (logits + slope.square().sum()).backward()
        gradients.append([parameter.grad for parameter in d.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("position", ["fourier", "raw"])
@pytest.mark.parametrize("hidden", [0, 8])
@SHAPES
def test_condition_and_position_matter(shape: tuple[int, ...], position: str, hidden: int) -> None:
    config = replace(SMALL, position=position, condition_hidden=hidden)
    sizes = {"condition_size": 3, "position_size": 1}
    g = perturbed(generator(config, shape, **sizes))
    d = perturbed(discriminator(config, shape, **sizes))
    z, condition, place = torch.randn(2, 64), torch.randn(2, 3), torch.rand(2, 1)
    x = g(z, condition, place)
    for network, given in ((g, z), (d, x)):
        reference = network(given, condition, place)
        assert not torch.allclose(network(given, condition + 0.2, place), reference)
        assert not torch.allclose(network(given, condition, place - 0.2), reference)


def test_discriminator_projects() -> None:
    """Without a hidden layer the logit is linear in the condition and has no other term."""
    d = perturbed(discriminator(SMALL, (8, 8), condition_size=3))
    x, condition = torch.randn(2, 1, 8, 8), torch.randn(2, 3)
    torch.testing.assert_close(d(x, 3 * condition), 3 * d(x, condition))
    assert not d(x, torch.zeros(2, 3)).any()
    curved = replace(SMALL, condition_hidden=8)
    d = perturbed(discriminator(curved, (8, 8), condition_size=3))
    assert not torch.allclose(d(x, 3 * condition), 3 * d(x, condition), rtol=1e-2)


def test_basis_follows_the_shape() -> None:
    g = generator(replace(SMALL, widths=(16, 16, 8, 8)), (40, 48, 40))
    assert g.basis.shape == (16, 5, 6, 5)


def test_shapes_that_do_not_halve_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        generator(SMALL, (16, 18))
    with pytest.raises(UsageError, match="group_size"):
        R3GANNetworkConfig(widths=(12, 9), group_size=16)


def test_missing_position_is_refused() -> None:
    g = generator(SMALL, (8, 8), position_size=1)
    with pytest.raises(ValueError, match="position"):
        g(torch.randn(2, 64), torch.zeros(2, 0))


def test_registered_with_their_config() -> None:
    assert NETWORKS["r3gan_generator"].config is R3GANNetworkConfig
    assert NETWORKS["r3gan_discriminator"].component is R3GANDiscriminator
