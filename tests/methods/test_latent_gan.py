"""What the classic GANs share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.methods.dcgan import CrossEntropyGAN
from gyri.methods.latent_gan import ClassicGANConfig
from gyri.networks.dcgan import (
    DCGANDiscriminator,
    DCGANDiscriminatorConfig,
    DCGANGenerator,
    DCGANGeneratorConfig,
)
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Items, ItemSpec, Progress

SPEC = ItemSpec(
    1, (6, 5), position_size=1, condition=ConditionLayout(((0, 1),)), items_per_volume=3
)
START = Progress(0, 0, 0.0)


class Slices:
    volume_shape = (1, 6, 5, 3)
    slice_axis = 2

    def encode(self, volumes: Tensor) -> Items:
        position = torch.linspace(-1, 1, 3)[:, None].repeat(len(volumes), 1)
        return Items(volumes.movedim(-1, 1).flatten(0, 1), position)

    def decode(self, items: Tensor) -> Tensor:
        return items.unflatten(0, (-1, 3)).movedim(1, -1)


def build(norm: Any = "layer", **settings: Any) -> CrossEntropyGAN:
    config = ClassicGANConfig(**{"latent_size": 4, **settings})
    specs = CrossEntropyGAN.network_specs(config, SPEC)
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {
        "generator": DCGANGenerator(
            DCGANGeneratorConfig(widths=(8,), norm=norm), specs["generator"]
        ),
        "discriminator": DCGANDiscriminator(
            DCGANDiscriminatorConfig(widths=(8,), norm=norm), specs["discriminator"]
        ),
    }
    return CrossEntropyGAN(config, SPEC, networks)


def drawn(method: CrossEntropyGAN, *seeds: int) -> Tensor:
    condition = torch.zeros(len(seeds), SPEC.condition.size)
    return method.sample(Slices(), condition, SampleRng(torch.tensor(seeds)))


def test_network_specs() -> None:
    specs = CrossEntropyGAN.network_specs(ClassicGANConfig(latent_size=7), SPEC)
    g, d = specs["generator"], specs["discriminator"]
    assert (g.in_channels, g.out_channels, g.latent_size) == (0, 1, 7)
    assert (d.in_channels, d.out_channels, d.latent_size) == (1, 0, 0)
    for spec in specs.values():
        assert (spec.shape, spec.condition_size, spec.position_size) == ((6, 5), 2, 1)


def test_optimisers_and_averages() -> None:
    method = build(lr=3e-4, betas=(0.1, 0.9), final_lr=0.5)
    for adam in method.optimisers.values():
        assert (adam.lr, adam.betas, adam.final_lr) == (3e-4, (0.1, 0.9), 0.5)
    assert method.ema_half_life("generator", START) is None
    method.config = replace(method.config, ema_half_life_images=500)
    assert method.ema_half_life("generator", START) == 500
    assert method.ema_half_life("discriminator", START) is None


@pytest.mark.parametrize("items_per_call", [2, 100])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_sample_depends_on_its_seed_alone(norm: str, items_per_call: int) -> None:
    method = build(norm, items_per_call=items_per_call)
    together = drawn(method, 4, 5)
    assert together.shape == (2, 1, 6, 5, 3)
    torch.testing.assert_close(drawn(method, 5)[0], together[1])
    assert not torch.allclose(together[0], together[1], atol=1e-4)


def test_z_is_shared_by_the_items_of_a_volume_or_not() -> None:
    # Without its label the generator can tell the slices of a volume apart by z alone.
    for z_per, same in (("volume", True), ("item", False)):
        method = build(z_per=z_per)
        stem = method.networks["generator"].stem
        assert isinstance(stem, nn.Linear)
        with torch.no_grad():
            stem.weight[:, 4:] = 0
        x = drawn(method, 4)
        assert torch.allclose(x[..., 0], x[..., 2], atol=1e-6) is same


def test_sampling_while_training_leaves_batch_statistics_alone() -> None:
    method = build("batch")
    generator = method.networks["generator"]
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    drawn(method, 4, 5)
    assert generator.training
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
