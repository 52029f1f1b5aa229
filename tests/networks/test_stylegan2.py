from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.networks.stylegan2 import (
    StyleGAN2Generator,
    StyleGAN2GeneratorConfig,
    default_widths,
    grids,
)
from gyri.types import NetworkSpec

SHAPES = [(12, 16), (8, 12, 8)]


def build(shape: tuple[int, ...] = (12, 16), **settings: Any) -> StyleGAN2Generator:
    torch.manual_seed(0)
    settings = {"widths": (16, 8), "w_size": 16, "mapping_layers": 2, **settings}
    spec = NetworkSpec(0, 2, shape, condition_size=3, position_size=1, latent_size=8)
    return StyleGAN2Generator(StyleGAN2GeneratorConfig(**settings), spec)


def inputs(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 8), torch.randn(count, 3), torch.rand(count, 1)


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("channels", "labels", "expected"), [(3, 0, 24_767_458), (1, 0, 24_762_452), (1, 3, 25_026_644)]
)
def test_the_published_network_has_the_published_size(
    channels: int, labels: int, expected: int
) -> None:
    spec = NetworkSpec(0, channels, (256, 256), labels, 0, latent_size=512)
    with torch.device("meta"):
        generator = StyleGAN2Generator(StyleGAN2GeneratorConfig(), spec)
    assert parameters(generator) == expected
    assert generator.num_layers == 14
    if not labels:
        assert parameters(generator.mapping) == 2_101_248


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("style", ["modulation", "adain"])
@pytest.mark.parametrize("form", ["skip", "residual", "plain"])
@pytest.mark.parametrize("upsampling", ["filtered", "transposed"])
def test_every_form_makes_items_and_every_weight_learns(
    shape: tuple[int, ...], style: str, form: str, upsampling: str
) -> None:
    generator = build(shape, style=style, form=form, upsampling=upsampling, attention=(1,))
    assert generator.num_layers == 4
    noise = torch.randn(3, generator.noise_size)
    items = generator(*inputs(), noise)
    assert items.shape == (3, 2, *shape)
    items.square().mean().backward()
    still = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    # What comes behind a gamma of 0.
    assert all("attention" in name for name in still)
    assert set(still) == {f"stages.1.attention.{n}" for n in ("query", "key", "value", "out")}


def test_noise_has_no_say_at_init_and_constant_maps_are_everybody_s() -> None:
    generator = build()
    z = inputs()
    one, other = torch.randn(2, 3, generator.noise_size).unbind(0)
    assert torch.equal(generator(*z, one), generator(*z, other))
    for module in generator.modules():
        if hasattr(module, "strength"):
            torch.nn.init.ones_(module.strength)
    assert not torch.allclose(generator(*z, one), generator(*z, other))
    constant = generator.constant_noise.expand(3, -1)
    torch.testing.assert_close(generator(*z), generator(*z, constant))
    silent = build(noise=False)
    assert silent.noise_size == 0
    assert silent(*z).shape == (3, 2, 12, 16)


def test_synthesis_of_a_mapped_z_is_the_generator() -> None:
    generator = build()
    z, condition, position = inputs()
    w = generator.map(z, condition, position)
    assert w.shape == (3, 16)
    torch.testing.assert_close(generator.synthesise(w), generator(z, condition, position))
    layers = w[:, None].repeat(1, 4, 1)
    torch.testing.assert_close(generator.synthesise(layers), generator.synthesise(w))


def test_each_layer_has_a_style_of_its_own() -> None:
    generator = build()
    layers = generator.map(*inputs())[:, None].repeat(1, 4, 1)
    base = generator.synthesise(layers)
    for layer in range(generator.num_layers):
        other = layers.clone()
        other[:, layer] += 1.0
        assert not torch.allclose(generator.synthesise(other), base, atol=1e-3), layer


def test_features_of_a_stage_can_be_read_and_changed() -> None:
    generator = build()
    w = generator.map(*inputs())
    base = generator.synthesise(w)
    seen = []
    hook = generator.stages[0].register_forward_hook(lambda _, __, y: seen.append(y) or y * 0)
    assert not torch.allclose(generator.synthesise(w), base)
    hook.remove()
    assert [tuple(y.shape) for y in seen] == [(3, 16, 6, 8)]


def test_an_item_does_not_depend_on_its_batch() -> None:
    generator = build(style="adain", attention=(0,))
    z, condition, position = inputs(4)
    together = generator(z, condition, position)
    alone = generator(z[1:2], condition[1:2], position[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_checkpointing_gives_the_same_second_derivatives(shape: tuple[int, ...]) -> None:
    found = []
    for checkpointing in (False, True):
        generator = build(shape, gradient_checkpointing=checkpointing)
        w = generator.map(*inputs())
        items = generator.synthesise(w)
        (slope,) = torch.autograd.grad(items.square().sum(), w, create_graph=True)
        slope.square().sum().backward()
        found.append([p.grad for p in generator.parameters()])
    for one, other in zip(*found, strict=True):
        if one is None:
            assert other is None
        else:
            torch.testing.assert_close(one, other)


def test_widths_follow_the_shape() -> None:
    assert default_widths((256, 256)) == (512, 512, 512, 512, 256, 128, 64)
    assert default_widths((128, 128, 128)) == (128, 128, 128, 64, 32, 16)
    assert len(default_widths((40, 48))) == 4
    assert len(default_widths((20, 24, 20))) == 3
    assert grids((40, 48, 40), 3) == [(10, 12, 10), (20, 24, 20), (40, 48, 40)]


def test_shapes_that_do_not_halve_are_refused() -> None:
    with pytest.raises(UsageError, match="even numbers"):
        default_widths((181, 217, 181))
    with pytest.raises(UsageError, match="multiple of 4"):
        build((12, 18), widths=(8, 8, 8))
    with pytest.raises(UsageError, match="0 to 1"):
        build(attention=(2,))
