"""The U-Net: parameters, sizes, start and conditioning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from gyri.errors import UsageError
from gyri.networks.unet import ResBlock, UNet, UNetConfig, UNetEncoder, UNetEncoderConfig
from gyri.nn import normalise
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SMALL = UNetConfig(
    widths=(8, 12, 16),
    num_res_blocks=1,
    attention=(False, False, True),
    channels_per_head=8,
    norm_groups=4,
)
CHANNELS_24 = {"in_channels": 24, "out_channels": 24}
SHAPES = pytest.mark.parametrize(
    "shape", [(12, 16), (9, 7), (20, 24, 20), (10, 12, 10), (5, 6, 5), (8, 4, 8)]
)


def unet(config: UNetConfig = SMALL, shape: tuple[int, ...] = (8, 8), **spec: int) -> UNet:
    torch.manual_seed(0)
    sizes = {"in_channels": 1, "out_channels": 1, **spec}
    return UNet(config, NetworkSpec(shape=shape, **sizes))


def perturbed(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def inputs(network: UNet | UNetEncoder, batch: int = 2) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    spec = network.spec
    return (
        torch.randn(batch, spec.in_channels, *spec.shape),
        torch.rand(batch),
        torch.randn(batch, spec.condition_size),
        2 * torch.rand(batch, spec.position_size) - 1,
    )


def hand_sum(config: UNetConfig, dims: int, in_channels: int, out_channels: int) -> int:
    """Parameters of an unconditional U-Net with scale-shift and residual resampling."""
    taps, embedding = 3**dims, 4 * config.widths[0]

    def res_block(before: int, after: int) -> int:
        skip = before * after + after if before != after else 0
        convolutions = taps * before * after + after + taps * after * after + after
        return 2 * before + 2 * after + convolutions + (embedding + 1) * 2 * after + skip

    def attention(width: int) -> int:
        return 2 * width + 3 * width * (width + 1) + width * (width + 1)

    base = config.widths[0]
    total = base * embedding + embedding + embedding**2 + embedding
    total += taps * in_channels * base + base
    skips, width = [base], base
    for level, after in enumerate(config.widths):
        if level > 0:
            total += res_block(width, width)
            skips.append(width)
        for _ in range(config.num_res_blocks):
            total += res_block(width, after) + config.attention[level] * attention(after)
            skips.append(after)
            width = after
    total += 2 * res_block(width, width) + attention(width)
    for level in reversed(range(len(config.widths))):
        after = config.widths[level]
        for _ in range(config.num_res_blocks + 1):
            total += res_block(width + skips.pop(), after)
            total += config.attention[level] * attention(after)
            width = after
        total += res_block(width, width) if level > 0 else 0
    return total + 2 * base + taps * base * out_channels + out_channels


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, widths=(16, 32), attention=(True, False), num_res_blocks=2)],
)
def test_parameters_equal_a_hand_sum(config: UNetConfig, dims: int) -> None:
    network = unet(config, (8,) * dims, in_channels=2, out_channels=3)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == hand_sum(config, dims, 2, 3)


@SHAPES
@pytest.mark.parametrize("resblock_updown", [True, False])
def test_zero_at_init_on_any_grid(shape: tuple[int, ...], resblock_updown: bool) -> None:
    network = unet(replace(SMALL, resblock_updown=resblock_updown), shape, out_channels=2)
    y = network(*inputs(network))
    assert torch.equal(y, torch.zeros(2, 2, *shape))
    assert perturbed(network)(*inputs(network)).std() > 0.01


@pytest.mark.parametrize("dims", [2, 3])
def test_every_axis_is_halved(dims: int) -> None:
    network = unet(SMALL, (20, 24, 20)[:dims])
    x, level, condition, _ = inputs(network)
    embedding = network.embedding(level, condition)
    h, skips = network.encoder(x, embedding)
    assert h.shape == (2, 16, *(5, 6, 5)[:dims])
    sizes = {skip.shape[2:] for skip in skips}
    assert sizes == {s[:dims] for s in [(20, 24, 20), (10, 12, 10), (5, 6, 5)]}


def test_a_further_level_rounds_up() -> None:
    network = unet(replace(SMALL, widths=(8, 8, 8, 8), attention=(False,) * 4), (20, 24, 20))
    x, level, condition, _ = inputs(network, 1)
    h, _ = network.encoder(x, network.embedding(level, condition))
    assert h.shape[2:] == (3, 3, 3)
    assert network(x, level, condition).shape == x.shape


@pytest.mark.parametrize("shape", [(8, 8), (6, 8, 6)])
@pytest.mark.parametrize("scale_shift", [True, False])
def test_all_inputs_matter(shape: tuple[int, ...], scale_shift: bool) -> None:
    config = replace(SMALL, scale_shift=scale_shift)
    network = perturbed(unet(config, shape, condition_size=2, position_size=1))
    given = inputs(network)
    reference = network(*given)
    for changed in range(4):
        others = [*given]
        others[changed] = others[changed] + 0.3
        assert not torch.allclose(network(*others), reference, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (6, 8, 6)])
def test_items_of_a_batch_do_not_mix(shape: tuple[int, ...]) -> None:
    network = perturbed(unet(SMALL, shape, condition_size=2))
    given = inputs(network)
    alone = torch.cat([network(*(part[i : i + 1] for part in given)) for i in range(2)])
    torch.testing.assert_close(network(*given), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(9, 8), (6, 8, 5)])
@pytest.mark.parametrize("large_bytes", [0, 1 << 30])
def test_checkpointing_and_memory_format_change_no_gradient(
    shape: tuple[int, ...], large_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalise, "LARGE_BYTES", large_bytes)
    gradients = []
    for changes in ({}, {"gradient_checkpointing": True}, {"channels_last": False}):
        network = perturbed(unet(replace(SMALL, **changes), shape).double())
        x, level, condition, _ = inputs(network)
        network(x.double(), level, condition.double()).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("large_bytes", [0, 1 << 30])
def test_block_is_its_equation(
    scale_shift: bool, large_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split inputs, recomputation and in-place work change nothing."""
    monkeypatch.setattr(normalise, "LARGE_BYTES", large_bytes)
    functional = nn.functional
    config = replace(SMALL, scale_shift=scale_shift)
    block = perturbed(ResBlock(2, 12, 8, 5, config)).double()
    h, skip = (torch.randn(2, width, 6, 4, dtype=torch.double) for width in (8, 4))
    embedding = torch.randn(2, 5, dtype=torch.double)

    def norm(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(x, layer.groups, layer.weight, layer.bias)

    x = torch.cat([h, skip], 1)
    inner = block.conv_in(functional.silu(norm(block.norm_in, x)))
    modulation = block.modulation(embedding)[:, :, None, None]
    if scale_shift:
        scale, shift = modulation.chunk(2, 1)
        inner = (1 + scale) * norm(block.norm_out, inner) + shift
    else:
        inner = norm(block.norm_out, inner + modulation)
    expected = block.skip(x) + block.conv_out(functional.silu(inner))
    torch.testing.assert_close(block(embedding, h, skip), expected)


def test_dropout_is_off_in_eval() -> None:
    network = perturbed(unet(replace(SMALL, dropout=0.5)))
    given = inputs(network)
    assert not torch.equal(network(*given), network(*given))
    network.eval()
    assert torch.equal(network(*given), network(*given))


def test_bad_settings_and_inputs_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="one entry a level"):
        UNetConfig(widths=(8, 8), attention=(True,))
    with pytest.raises(ValueError, match="takes"):
        unet()(torch.zeros(2, 1, 8, 8, 8), torch.zeros(2), torch.zeros(2, 0))


@SHAPES
@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_encoder_gives_a_vector(shape: tuple[int, ...], pool: str) -> None:
    torch.manual_seed(0)
    config = UNetEncoderConfig(
        widths=SMALL.widths, attention=SMALL.attention, num_res_blocks=1, pool=pool
    )
    network = UNetEncoder(config, NetworkSpec(1, 0, shape, latent_size=5))
    given = inputs(network)
    y = network(*given)
    assert y.shape == (2, 5)
    assert not torch.allclose(y[0], y[1])


def test_registered_with_their_configs() -> None:
    assert NETWORKS["unet"].component is UNet
    assert NETWORKS["unet_encoder"].config is UNetEncoderConfig


def test_patches_that_do_not_tile_the_grid_are_refused():
    config = UNetConfig(widths=(8,), attention=(False,), patch=4)
    with pytest.raises(UsageError, match="patch=4 does not divide the grid 6x8"):
        UNet(config, NetworkSpec(1, 1, (6, 8)))


@pytest.mark.parametrize("shape", [(8, 12), (4, 8, 4)])
def test_every_voxel_of_a_patch_is_read_and_written(shape):
    config = UNetConfig(widths=(8, 8), attention=(False, False), patch=2)
    net = UNet(config, NetworkSpec(1, 2, shape))
    torch.nn.init.normal_(net.out.weight)
    x = torch.randn(2, 1, *shape, requires_grad=True)
    y = net(x, torch.rand(2), torch.zeros(2, 0))
    assert y.shape == (2, 2, *shape)
    y[0].square().sum().backward()
    assert bool((x.grad[0] != 0).all())
    assert bool((y != 0).all())


@pytest.mark.parametrize("shape", [(8, 8), (8, 4, 8)])
def test_an_input_skip_is_nothing_at_init_and_passes_any_channel(shape: tuple[int, ...]) -> None:
    spec = {"in_channels": 5, "out_channels": 3, "condition_size": 2}
    skipping = unet(replace(SMALL, input_skip=True), shape, **spec)
    assert torch.equal(skipping(*inputs(skipping)), torch.zeros(2, 3, *shape))
    with torch.no_grad():
        skipping.input_skip.gain.bias += torch.tensor([1.0, 0.0, -2.0])
    x = inputs(skipping)[0]
    passed = skipping(*inputs(skipping))
    assert torch.equal(passed[:, 0], x[:, 0])
    assert torch.equal(passed[:, 1], torch.zeros_like(x[:, 1]))
    assert torch.equal(passed[:, 2], -2 * x[:, 2])


def test_an_input_skip_learns_white_noise_beyond_the_width() -> None:
    """More channels than the last layer can pass on; the skip alone brings the error to 0."""
    config = UNetConfig(widths=(4,), attention=(False,), num_res_blocks=1, channels_per_head=4)
    errors = {}
    for input_skip in (False, True):
        network = unet(replace(config, input_skip=input_skip), (6, 6), **CHANNELS_24)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for step in range(80):
            generator = torch.Generator().manual_seed(step)
            noise = torch.randn(16, 24, 6, 6, generator=generator)
            error = (network(noise, torch.zeros(16), torch.zeros(16, 0)) - noise).square().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
        errors[input_skip] = float(error.detach())
    assert errors[False] > 0.95 * (1 - 4 / 24)
    assert errors[True] < 0.05


def test_an_input_skip_needs_the_noised_item_in_the_input() -> None:
    with pytest.raises(UsageError, match="input_skip"):
        unet(replace(SMALL, input_skip=True), in_channels=1, out_channels=2)


def test_a_raw_position_tells_slices_apart() -> None:
    network = perturbed(unet(replace(SMALL, position="raw"), position_size=6))
    x, level, condition, _ = inputs(network, 6)
    same = network(x[:1].expand(6, -1, -1, -1), level[:1].expand(6), condition, torch.eye(6))
    assert float(torch.pdist(same.detach().flatten(1)).min()) > 1e-3
