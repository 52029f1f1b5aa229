"""The factorised U-Net: parameters, sizes, start, and what slices know of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from gyri.errors import UsageError
from gyri.networks.unet_factorised import (
    MAX_OFFSET,
    DepthAttention,
    LinearAttention,
    RelativeBias,
    UNetFactorised,
    UNetFactorisedConfig,
    rotate,
)
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SMALL = UNetFactorisedConfig(
    widths=(8, 12, 16),
    attention=(True, True, True),
    depth_attention=(True, True, True),
    heads=2,
    channels_per_head=4,
    norm_groups=4,
)
BLIND = replace(SMALL, depth_attention=(False, False, False))
SHAPE = (6, 5, 4)


def factorised(
    config: UNetFactorisedConfig = SMALL, shape: tuple[int, ...] = SHAPE, **spec: int
) -> UNetFactorised:
    torch.manual_seed(0)
    sizes = {"in_channels": 3, "out_channels": 3, **spec}
    return UNetFactorised(config, NetworkSpec(shape=shape, **sizes))


def perturbed(network: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def inputs(network: UNetFactorised, batch: int = 2) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    spec = network.spec
    return (
        torch.randn(batch, spec.in_channels, *spec.shape),
        torch.rand(batch),
        torch.randn(batch, spec.condition_size),
        2 * torch.rand(batch, spec.position_size) - 1,
    )


def hand_sum(config: UNetFactorisedConfig, in_channels: int, out_channels: int) -> int:
    """Parameters of an unconditional network with scale-shift and strided convolutions."""
    base, embedding = config.widths[0], 4 * config.widths[0]
    hidden = config.heads * config.channels_per_head

    def res_block(before: int, after: int) -> int:
        skip = before * after + after if before != after else 0
        convolutions = 9 * before * after + after + 9 * after * after + after
        return 2 * before + 2 * after + convolutions + (embedding + 1) * 2 * after + skip

    def attention(width: int, inner: int) -> int:
        return 2 * width + 3 * inner * (width + 1) + width * (inner + 1)

    def level(number: int, before: int, after: int) -> int:
        factors = config.attention[number] + config.depth_attention[number]
        blocks = res_block(before, after) + (config.num_res_blocks - 1) * res_block(after, after)
        return blocks + factors * attention(after, hidden)

    total = base * embedding + embedding + embedding**2 + embedding
    total += 49 * in_channels * base + base
    if any(config.depth_attention):
        total += config.heads * (2 * MAX_OFFSET + 1)
    total += config.depth_attention[0] * attention(base, hidden)
    above = [base, *config.widths[:-1]]
    for number, width in enumerate(config.widths):
        total += level(number, above[number], width) + level(number, 2 * width, above[number])
    total += sum(2 * (9 * width * width + width) for width in config.widths[:-1])
    width = config.widths[-1]
    total += 2 * res_block(width, width) + attention(width, width)
    total += config.depth_attention[-1] * attention(width, hidden)
    return total + res_block(2 * base, base) + base * out_channels + out_channels


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        BLIND,
        replace(SMALL, attention=(False, True, False), num_res_blocks=1),
        UNetFactorisedConfig(
            widths=(16, 48), attention=(True, False), depth_attention=(False, True), heads=3
        ),
    ],
)
def test_parameters_equal_a_hand_sum(config: UNetFactorisedConfig) -> None:
    network = factorised(config, in_channels=2)
    assert sum(parameter.numel() for parameter in network.parameters()) == hand_sum(config, 2, 3)


@pytest.mark.parametrize("shape", [(9, 7, 5), (8, 12, 3), (5, 6, 1)])
@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
@pytest.mark.parametrize("resblock_updown", [True, False])
def test_zero_at_init_on_any_grid(
    shape: tuple[int, ...], plane: Any, resblock_updown: bool
) -> None:
    config = replace(SMALL, plane=plane, resblock_updown=resblock_updown)
    network = factorised(config, shape, out_channels=2)
    assert torch.equal(network(*inputs(network)), torch.zeros(2, 2, *shape))
    assert perturbed(network)(*inputs(network)).std() > 0.01


def test_depth_is_never_resampled() -> None:
    network, seen = factorised(SMALL, (12, 10, 7)), []
    network.trunk.middle.register_forward_hook(lambda module, args, y: seen.append(y.shape))
    network(*inputs(network))
    assert seen == [(2 * 7, 16, 3, 3)]


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 2), ("coronal", 3)])
def test_a_plane_is_the_axial_network_of_turned_volumes(plane: Any, axis: int) -> None:
    network = perturbed(factorised(replace(SMALL, plane=plane)))
    x, *others = inputs(network)
    turned = x.movedim(axis, 4)
    axial = factorised(SMALL, tuple(turned.shape[2:]))
    axial.load_state_dict(network.state_dict())
    expected = axial(turned, *others).movedim(4, axis)
    torch.testing.assert_close(network(x, *others), expected)


def test_without_depth_attention_slices_do_not_see_each_other() -> None:
    network = perturbed(factorised(BLIND, condition_size=2))
    x, *others = inputs(network)
    order = torch.tensor([2, 0, 3, 1])
    y = network(x, *others)
    torch.testing.assert_close(network(x[..., order], *others), y[..., order])
    changed = x.clone()
    changed[..., 1] += 1
    moved = (network(changed, *others) - y).detach().abs().amax((0, 1, 2, 3))
    assert bool(moved[1] > 1e-3)
    assert float(moved[[0, 2, 3]].max()) < 1e-5


@pytest.mark.parametrize("level", [0, 1, 2])
def test_depth_attention_of_any_level_lets_slices_see_each_other(level: int) -> None:
    switches = tuple(number == level for number in range(3))
    network = perturbed(factorised(replace(SMALL, depth_attention=switches)))
    x, *others = inputs(network)
    y, changed = network(x, *others), x.clone()
    changed[..., 1] += 1
    assert bool(((network(changed, *others) - y).abs().amax((0, 1, 2, 3)) > 1e-4).all())
    order = torch.tensor([2, 0, 3, 1])
    assert not torch.allclose(network(x[..., order], *others), y[..., order], atol=1e-4)


def test_relative_bias_is_shift_equivariant_and_ends_at_its_range() -> None:
    bias = perturbed(RelativeBias(3))(MAX_OFFSET + 8)
    assert torch.equal(bias[:, 1:, 1:], bias[:, :-1, :-1])
    assert bool((bias[:, 0, MAX_OFFSET:] == bias[:, 0, MAX_OFFSET, None]).all())
    row = bias[:, MAX_OFFSET + 7]
    assert bool((row[:, :8] == row[:, :1]).all())
    inside = bias[0, 0, : MAX_OFFSET + 1].tolist()
    assert len(set(inside)) == MAX_OFFSET + 1
    assert not torch.equal(bias, bias.transpose(1, 2))


def test_rotation_keeps_lengths_and_tells_distances_alone() -> None:
    query, key = torch.randn(2, 8, dtype=torch.double)
    queries, keys = (rotate(token.expand(12, 8)) for token in (query, key))
    torch.testing.assert_close(queries.norm(dim=1), query.norm().expand(12))
    scores = queries @ keys.T
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[0, 0], query @ key)
    assert float(scores[0].std()) > 0.01


def norm(layer: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """(B, C, N) normalised by hand."""
    grouped = x.unflatten(1, (layer.num_groups, -1))
    mean = grouped.mean((2, 3), keepdim=True)
    variance = grouped.var((2, 3), unbiased=False, keepdim=True)
    y = ((grouped - mean) / (variance + layer.eps).sqrt()).flatten(1, 2)
    return y * layer.weight[:, None] + layer.bias[:, None]


def test_linear_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    module = perturbed(LinearAttention(6, 2, 4, 3)).double()
    x = torch.randn(3, 6, 4, 5, dtype=torch.double)
    tokens = norm(module.norm, x.flatten(2)).transpose(1, 2)
    query, key, value = module.query_key_value(tokens).chunk(3, dim=2)
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = query[..., head].softmax(2) @ key[..., head].softmax(1).transpose(1, 2)
        torch.testing.assert_close(weights.sum(2), torch.ones(3, 20, dtype=torch.double))
        mixed.append(weights @ value[..., head])
    expected = x + module.out(torch.cat(mixed, 2)).transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(module(x), expected)


def test_depth_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    batch, depth = 2, 5
    module = perturbed(DepthAttention(6, 2, 4, 3)).double()
    bias = perturbed(RelativeBias(2)).double()(depth)
    x = torch.randn(batch * depth, 6, 2, 3, dtype=torch.double)
    tokens = norm(module.norm, x.flatten(2)).transpose(1, 2)
    query, key, value = (
        part.unflatten(0, (batch, depth)) for part in module.query_key_value(tokens).chunk(3, 2)
    )
    mixed = torch.empty_like(query)
    for item in range(batch):
        for pixel in range(6):
            for head, columns in enumerate((slice(0, 4), slice(4, 8))):
                q, k = (rotate(part[item, :, pixel, columns]) for part in (query, key))
                weights = (q @ k.T / 2 + bias[head]).softmax(1)
                mixed[item, :, pixel, columns] = weights @ value[item, :, pixel, columns]
    expected = x + module.out(mixed.flatten(0, 1)).transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(module(x, bias), expected)


def test_checkpointing_and_memory_format_change_no_gradient() -> None:
    gradients = []
    for changes in ({}, {"gradient_checkpointing": True}, {"channels_last": False}):
        network = perturbed(factorised(replace(SMALL, **changes), (9, 7, 4)).double())
        x, level, condition, _ = inputs(network)
        network(x.double(), level, condition.double()).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(gradient is not None for gradient in gradients[0])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-5)


def test_all_inputs_matter() -> None:
    network = perturbed(factorised(condition_size=2, position_size=1))
    given = inputs(network)
    reference = network(*given)
    for changed in range(4):
        others = [*given]
        others[changed] = others[changed] + 0.3
        assert not torch.allclose(network(*others), reference, atol=1e-4)


def test_items_of_a_batch_do_not_mix() -> None:
    network = perturbed(factorised(condition_size=2))
    given = inputs(network)
    alone = torch.cat([network(*(part[i : i + 1] for part in given)) for i in range(2)])
    torch.testing.assert_close(network(*given), alone, atol=1e-5, rtol=1e-4)


def test_patches_lie_within_slices() -> None:
    network = perturbed(factorised(replace(BLIND, patch=2), (8, 6, 3)))
    x, *others = inputs(network)
    x.requires_grad_(True)
    y = network(x, *others)
    assert y.shape == x.shape
    y[0, ..., 1].square().sum().backward()
    assert bool((x.grad[0, ..., 1] != 0).all())
    assert bool((x.grad[..., [0, 2]] == 0).all())
    with pytest.raises(UsageError, match="patch=2 does not divide the grid 6x5"):
        factorised(replace(SMALL, patch=2))


def test_autocast_to_bfloat16_stays_near_float32() -> None:
    network = perturbed(factorised())
    given = inputs(network)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(*given).float()
    error = (low - network(*given)).std() / network(*given).std()
    assert 0 < float(error.detach()) < 0.05


def test_what_does_not_fit_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="three axes.*items of 8x6.*network unet"):
        factorised(shape=(8, 6))
    with pytest.raises(UsageError, match="depth_attention 2"):
        replace(SMALL, depth_attention=(True, False))
    with pytest.raises(UsageError, match="Make it even"):
        replace(SMALL, channels_per_head=5)
    with pytest.raises(ValueError, match="takes"):
        factorised()(torch.zeros(2, 3, 6, 5), torch.zeros(2), torch.zeros(2, 0))


def test_registered_with_its_config_and_published_size() -> None:
    entry = NETWORKS["unet_factorised"]
    assert (entry.component, entry.config) == (UNetFactorised, UNetFactorisedConfig)
    with torch.device("meta"):
        network = UNetFactorised(UNetFactorisedConfig(), NetworkSpec(3, 3, (128, 128, 32)))
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == hand_sum(UNetFactorisedConfig(), 3, 3)
