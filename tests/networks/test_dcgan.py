"""DCGAN's networks against the published parameter counts, for any size and label."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.networks.dcgan import (
    DCGANDiscriminator,
    DCGANDiscriminatorConfig,
    DCGANGenerator,
    DCGANGeneratorConfig,
    fitted,
)
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SHAPES = pytest.mark.parametrize("shape", [(16, 16), (13, 9), (10, 12, 9)])
NORMS = pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
NOTHING = torch.zeros(3, 0)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def generator(
    shape: tuple[int, ...], channels: int = 1, sizes: tuple[int, int] = (0, 0), **settings: Any
) -> DCGANGenerator:
    torch.manual_seed(0)
    config = DCGANGeneratorConfig(**{"widths": (8, 6), **settings})
    return DCGANGenerator(config, NetworkSpec(0, channels, shape, *sizes, latent_size=5))


def discriminator(
    shape: tuple[int, ...], channels: int = 1, sizes: tuple[int, int] = (0, 0), **settings: Any
) -> DCGANDiscriminator:
    torch.manual_seed(0)
    config = DCGANDiscriminatorConfig(**{"widths": (8, 6), **settings})
    return DCGANDiscriminator(config, NetworkSpec(channels, 0, shape, *sizes))


@pytest.mark.parametrize(("channels", "more"), [(1, 0), (3, 2 * 64 * 16)])
def test_published_parameter_counts(channels: int, more: int) -> None:
    with torch.device("meta"):
        g = DCGANGenerator(
            DCGANGeneratorConfig(norm="batch"),
            NetworkSpec(0, channels, (64, 64), latent_size=100),
        )
        d = DCGANDiscriminator(
            DCGANDiscriminatorConfig(norm="batch"), NetworkSpec(channels, 0, (64, 64))
        )
    assert parameters(g) == 3_574_656 + more
    assert parameters(d) == 2_763_520 + more


@NORMS
@pytest.mark.parametrize("channels", [1, 3])
@SHAPES
def test_any_shape_and_number_of_channels(shape: tuple[int, ...], channels: int, norm: str) -> None:
    g = generator(shape, channels, norm=norm)
    x = g(torch.randn(3, 5), NOTHING)
    assert x.shape == (3, channels, *shape)
    assert float(x.detach().abs().max()) < 1
    logits = discriminator(shape, channels, norm=norm)(x, NOTHING)
    assert logits.shape == (3,)
    logits.sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in g.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in g.parameters())


@SHAPES
def test_every_voxel_reaches_the_discriminator(shape: tuple[int, ...]) -> None:
    x = torch.randn(1, 2, *shape, requires_grad=True)
    (slope,) = torch.autograd.grad(discriminator(shape, 2)(x, NOTHING[:1]).sum(), x)
    assert slope.all()


def test_crop_and_pad_undo_each_other_around_the_centre() -> None:
    x = torch.arange(1.0, 31).reshape(1, 1, 5, 6)
    padded = fitted(x, (8, 8))
    assert torch.equal(padded[:, :, 1:6, 1:7], x)
    assert float(padded.sum()) == float(x.sum())
    assert torch.equal(fitted(padded, (5, 6)), x)
    assert torch.equal(fitted(torch.arange(9.0)[None, None], (3,))[0, 0], torch.arange(3.0, 6))


def test_init_is_the_published_one() -> None:
    g = generator((64, 64), widths=(64, 64, 64), norm="batch")
    d = discriminator((64, 64), widths=(64, 64, 64), norm="batch")
    for network in (g, d):
        for layer in network.modules():
            weight = getattr(layer, "weight", None)
            if not isinstance(weight, Tensor):
                continue
            mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
            tolerance = 4 / math.sqrt(weight.numel())
            assert weight.mean().item() == pytest.approx(mean, abs=0.02 * tolerance)
            assert weight.std().item() == pytest.approx(0.02, rel=tolerance)
            bias = getattr(layer, "bias", None)
            assert (bias is not None) is (mean == 1.0)
            assert bias is None or not bias.any()


@pytest.mark.parametrize("norm", ["instance", "layer", "none"])
@pytest.mark.parametrize("condition", ["concatenate", "projection"])
def test_items_are_independent_without_batch_norms(norm: str, condition: str) -> None:
    sizes, shape = (2, 1), (13, 9)
    labels = torch.randn(3, 2), torch.rand(3, 1)
    g = generator(shape, sizes=sizes, norm=norm)
    d = discriminator(shape, sizes=sizes, norm=norm, condition=condition)
    z, x = torch.randn(3, 5), torch.randn(3, 1, *shape)
    for network, given in ((g, z), (d, x)):
        together = network(given, *labels)
        alone = network(given[1:2], *(label[1:2] for label in labels))
        torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-4)


def test_batch_norms_couple_items() -> None:
    g = generator((13, 9), norm="batch")
    z = torch.randn(3, 5)
    together, fewer = g(z, NOTHING)[:2], g(z[:2], NOTHING[:2])
    assert not torch.allclose(together, fewer, rtol=1e-3)
    g.eval()
    torch.testing.assert_close(g(z, NOTHING)[:2], g(z[:2], NOTHING[:2]))


@pytest.mark.parametrize("position", ["fourier", "raw"])
@pytest.mark.parametrize("condition", ["concatenate", "projection"])
@SHAPES
def test_condition_and_position_matter(
    shape: tuple[int, ...], condition: str, position: str
) -> None:
    sizes = (3, 1)
    g = generator(shape, sizes=sizes, position=position)
    d = discriminator(shape, sizes=sizes, condition=condition, position=position)
    z, of, place = torch.randn(2, 5), torch.randn(2, 3), torch.rand(2, 1)
    x = torch.randn(2, 1, *shape)
    for network, given in ((g, z), (d, x)):
        reference = network(given, of, place)
        assert not torch.equal(network(given, of + 1, place), reference)
        assert not torch.equal(network(given, of, place - 0.5), reference)
        with pytest.raises(ValueError, match="position"):
            network(given, of)


def test_projection_is_the_product_of_label_and_mean_features() -> None:
    d = discriminator((16, 16), sizes=(3, 0), condition="projection")
    x, condition = torch.randn(2, 1, 16, 16), torch.randn(2, 3)
    features = d.layers(x)
    label = d.label
    assert label is not None
    product = (label(condition) * features.mean((2, 3))).sum(1)
    unconditional = d.out(features.flatten(1))[:, 0]
    torch.testing.assert_close(d(x, condition), unconditional + product)


@pytest.mark.parametrize("shape", [(8, 6), (4, 6, 5)])
@pytest.mark.parametrize("condition", ["concatenate", "projection"])
@pytest.mark.parametrize("norm", ["instance", "layer", "none"])
def test_gradients_of_gradients(shape: tuple[int, ...], condition: str, norm: str) -> None:
    d = discriminator(shape, sizes=(2, 0), widths=(3, 2), norm=norm, condition=condition).double()
    with torch.no_grad():
        for parameter in d.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    x = torch.randn(1, 1, *shape, dtype=torch.double, requires_grad=True)
    of = torch.randn(1, 2, dtype=torch.double)
    assert torch.autograd.gradgradcheck(lambda x: d(x, of), x)


def test_memory_format_changes_no_number() -> None:
    z = torch.randn(2, 5)
    for shape in ((13, 9), (10, 12, 9)):
        plain, last = (generator(shape, channels_last=value) for value in (False, True))
        torch.testing.assert_close(plain(z, NOTHING[:2]), last(z, NOTHING[:2]))
        x = plain(z, NOTHING[:2]).detach()
        judges = [discriminator(shape, channels_last=value) for value in (False, True)]
        torch.testing.assert_close(*(judge(x, NOTHING[:2]) for judge in judges))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="fewer widths, or norm: layer"):
        generator((4, 4), norm="instance")
    assert generator((4, 4), norm="layer").base == (8, 1, 1)
    with pytest.raises(UsageError, match="widths is empty"):
        generator((4, 4), widths=())


def test_registered_with_their_config() -> None:
    assert NETWORKS["dcgan_generator"].config is DCGANGeneratorConfig
    assert NETWORKS["dcgan_discriminator"].config is DCGANDiscriminatorConfig
    assert NETWORKS["dcgan_discriminator"].component is DCGANDiscriminator
