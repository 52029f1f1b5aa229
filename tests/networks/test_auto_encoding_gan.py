"""Networks of auto-encoding GANs against the published parameter counts, and by what they do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv3d, interpolate

from gyri.errors import UsageError
from gyri.networks.auto_encoding_gan import (
    CodeDiscriminator,
    CodeDiscriminatorConfig,
    FeatureDiscriminator,
    FeatureDiscriminatorConfig,
    ResizeConvolution,
    ResizeGenerator,
)
from gyri.networks.dcgan import (
    DCGANDiscriminator,
    DCGANDiscriminatorConfig,
    DCGANGeneratorConfig,
)
from gyri.types import NetworkSpec

CUBE = (64, 64, 64)
NOTHING = torch.zeros(2, 0)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_parameter_counts() -> None:
    # A layer norm has a batch norm's gains and biases. The published convolutions before a norm
    # also have biases that the norm takes away, 961 of them, and the published critic of codes
    # has two batch norms.
    with torch.device("meta"):
        g = ResizeGenerator(DCGANGeneratorConfig(), NetworkSpec(0, 1, CUBE, latent_size=1000))
        d = DCGANDiscriminator(
            DCGANDiscriminatorConfig(widths=(512, 256, 128, 64)), NetworkSpec(1, 0, CUBE)
        )
        c = CodeDiscriminator(CodeDiscriminatorConfig(), NetworkSpec(0, 0, CUBE, latent_size=1000))
    assert parameters(g) == 37_416_512
    assert parameters(d) == 11_049_665 - 961
    assert parameters(c) == 20_901_889 - 2 * 2 * 4096


def test_a_resize_convolution_repeats_voxels_and_convolves() -> None:
    torch.manual_seed(0)
    layer = ResizeConvolution(3, 3, 2, bias=True)
    x = torch.randn(2, 3, 4, 5, 3)
    kernel = layer.convolution
    plain = conv3d(interpolate(x, scale_factor=2), kernel.weight, kernel.bias, padding=1)
    torch.testing.assert_close(layer(x), plain)


@pytest.mark.parametrize("shape", [(40, 48, 40), (16, 24)])
def test_the_generator_halves_any_grid_that_divides(shape: tuple[int, ...]) -> None:
    spec = NetworkSpec(0, 2, shape, 3, 1, latent_size=4)
    g = ResizeGenerator(DCGANGeneratorConfig(widths=(8, 4, 4)), spec)
    x = g(torch.randn(2, 4), torch.rand(2, 3), torch.rand(2, 1))
    assert x.shape == (2, 2, *shape)
    assert g.base == (8, *(size // 8 for size in shape))


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match=r"4 doublings: .* multiple of 16"):
        ResizeGenerator(DCGANGeneratorConfig(), NetworkSpec(0, 1, (40, 48, 40), latent_size=4))


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_features_are_those_of_their_stage(stage: int, norm: str) -> None:
    config = FeatureDiscriminatorConfig(
        widths=(12, 8, 4), norm=norm, feature_stage=stage, condition="projection"
    )
    d = FeatureDiscriminator(config, NetworkSpec(1, 0, (16, 8, 24), 3, 0))
    x, condition = torch.randn(2, 1, 16, 8, 24), torch.rand(2, 3)
    logits, features = d.logits_and_features(x, condition)
    assert features.shape[1:] == ((4, 8, 12)[stage - 1], *(n // 2**stage for n in (16, 8, 24)))
    torch.testing.assert_close(logits, d(x, condition))
    torch.testing.assert_close(features, d.features(x, condition))


def test_a_stage_that_is_not_there_is_refused() -> None:
    for stage in (0, 3):
        with pytest.raises(UsageError, match="has 2 stages"):
            FeatureDiscriminatorConfig(widths=(8, 4), feature_stage=stage)


def test_the_critic_of_codes_is_told_the_condition() -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(0, 0, (4, 4), 2, 1, latent_size=3)
    c = CodeDiscriminator(CodeDiscriminatorConfig(hidden=(8,)), spec)
    z, condition, position = torch.randn(2, 3), torch.rand(2, 2), torch.rand(2, 1)
    of_both = c(z, condition, position)
    assert of_both.shape == (2,)
    torch.testing.assert_close(c(z[1:], condition[1:], position[1:]), of_both[1:])
    assert not torch.equal(c(z, condition + 1, position), of_both)
    assert not torch.equal(c(z, condition, position - 0.5), of_both)
