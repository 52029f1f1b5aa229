"""CycleGAN's networks: published sizes, odd grids, what an item sees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.networks.cyclegan import (
    InstanceNorm,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    ResnetGenerator,
    ResnetGeneratorConfig,
    padded_to_multiple,
)
from gyri.types import NetworkSpec

SMALL = ResnetGeneratorConfig(width=4, num_blocks=1)


def generator(
    shape: tuple[int, ...], config: ResnetGeneratorConfig = SMALL, position_size: int = 0
) -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(config, NetworkSpec(1, 1, shape, position_size=position_size))


def discriminator(shape: tuple[int, ...], *widths: int) -> PatchDiscriminator:
    torch.manual_seed(0)
    config = PatchDiscriminatorConfig(widths=widths or (64, 128, 256, 512))
    return PatchDiscriminator(config, NetworkSpec(1, 0, shape))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_published_parameter_counts() -> None:
    published = ResnetGeneratorConfig()
    assert count(generator((256, 256), published)) == 11_365_633
    assert count(generator((256, 256), published, position_size=1)) == 11_365_633
    assert count(discriminator((256, 256))) == 2_762_689


def test_weights_are_drawn_with_the_published_spread() -> None:
    network = generator((32, 32), ResnetGeneratorConfig(width=16, num_blocks=2))
    weights = [p for p in network.parameters() if p.ndim > 1]
    assert torch.cat([w.flatten() for w in weights]).std().item() == pytest.approx(0.02, rel=0.02)
    assert all(float(p.detach().abs().max()) == 0 for p in network.parameters() if p.ndim == 1)


@pytest.mark.parametrize("shape", [(18, 21), (20, 24), (9, 10, 11)])
def test_grids_of_any_size_survive(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 1, *shape).clamp(-1, 1)
    y = generator(shape)(x)
    assert y.shape == x.shape
    assert float(y.detach().abs().max()) < 1


def test_padding_mirrors_the_end_and_nothing_else() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    padded = padded_to_multiple(x, 4)
    assert padded.shape == (1, 1, 8, 8)
    assert torch.equal(padded[..., :5, :6], x)
    assert torch.equal(padded[..., 5:, :6], x[..., [3, 2, 1], :])
    assert torch.equal(padded[..., :5, 6:], x[..., [4, 3]])
    assert padded_to_multiple(x[..., :4, :4], 4).shape == (1, 1, 4, 4)


def test_an_item_is_normalised_by_itself_in_training_as_in_use() -> None:
    x = 3 * torch.randn(3, 2, 8, 9) + 5
    norm = InstanceNorm()
    y = norm(x)
    assert float(y.mean((2, 3)).abs().max()) < 1e-5
    torch.testing.assert_close(y.var((2, 3), unbiased=False), torch.ones(3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(y[1:2], norm.eval()(x[1:2]))
    for network in (generator((20, 24)), discriminator((20, 24), 4, 8)):
        x = torch.randn(4, 1, 20, 24)
        together = network(x)
        torch.testing.assert_close(together[2:3], network.eval()(x[2:3]))
        assert not [*network.buffers()]


def test_no_items_at_all_give_no_items_and_gradients_of_zero() -> None:
    for shape in ((20, 24), (12, 12, 12)):
        for network in (generator(shape), discriminator(shape, 4, 8)):
            y = network(torch.zeros(0, 1, *shape))
            assert len(y) == 0
            y.sum().backward()
            assert all(float(p.grad.abs().sum()) == 0 for p in network.parameters())


def test_patches_of_70_pixels_by_default() -> None:
    network = discriminator((128, 128)).eval()
    # Without norms, which look at the whole item, a logit depends on its patch alone.
    layers = nn.Sequential(*[m for m in network.layers if not isinstance(m, InstanceNorm)])
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    y = layers(x)
    assert y.shape == network(x).shape == (1, 1, 14, 14)
    (slope,) = torch.autograd.grad(y[0, 0, 7, 7], x)
    reached = slope[0, 0].abs().sum(1).nonzero()[:, 0]
    assert int(reached.max() - reached.min()) + 1 == 70
    assert discriminator((20, 24), 4, 8)(torch.zeros(2, 1, 20, 24)).shape == (2, 1, 8, 10)


def told(network: ResnetGenerator, at: float) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(1, 1, 20, 24)
    return network(x, torch.tensor([[at]]))


def test_position_is_seen_where_it_is_asked_for() -> None:
    blind = generator((20, 24), position_size=1)
    assert torch.equal(told(blind, -1.0), told(blind, 1.0))
    config = ResnetGeneratorConfig(width=4, num_blocks=1, position="fourier")
    seeing = generator((20, 24), config, position_size=1)
    gap = (told(seeing, -1.0) - told(seeing, 1.0)).abs().max()
    assert float(gap.detach()) > 1e-4
    with pytest.raises(ValueError, match="got none"):
        seeing(torch.zeros(1, 1, 20, 24))


def test_a_residual_generator_starts_as_the_identity_and_keeps_the_range() -> None:
    x = torch.rand(2, 1, 20, 24) * 2 - 1
    network = generator((20, 24), ResnetGeneratorConfig(width=8, num_blocks=1, residual=True))
    assert torch.equal(network(x), x)
    with torch.no_grad():
        network.out.bias.fill_(1.0)
    assert network(x).max() == 1


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        config = ResnetGeneratorConfig(width=4, num_blocks=2, gradient_checkpointing=checkpointing)
        network = generator((8, 9, 10), config)
        torch.manual_seed(2)
        network(torch.randn(2, 1, 8, 9, 10)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(kept, recomputed) for kept, recomputed in zip(*gradients))


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="axis of 6 voxels"):
        generator((6, 20))
    with pytest.raises(UsageError, match="fewer `widths`"):
        discriminator((20, 24))
    with pytest.raises(UsageError, match="at least one"):
        PatchDiscriminatorConfig(widths=())
