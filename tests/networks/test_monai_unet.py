"""MONAI's DiffusionModelUNet as a denoiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from gyri.errors import UsageError
from gyri.networks.monai_unet import MonaiUNet, MonaiUNetConfig, Schedule
from gyri.sampling.preconditioning import noise_level
from gyri.sampling.schedules import VPSchedule
from gyri.types import NetworkSpec

SMALL = MonaiUNetConfig(
    channels=(8, 16),
    attention=(False, True),
    channels_per_head=(8,),
    num_res_blocks=1,
    norm_groups=4,
)
SPEC = NetworkSpec(3, 3, (6, 8, 6), condition_size=4)


def network(config=SMALL, spec=SPEC):
    torch.manual_seed(0)
    own = MonaiUNet(config, spec)
    # Many layers start at zero and would hide what is tested here.
    with torch.no_grad():
        for parameter in own.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return own.eval()


def inputs(batch=2, size=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, 6, 8, 6, generator=generator)
    return x, torch.rand(batch, generator=generator), torch.rand(batch, size, generator=generator)


@pytest.mark.parametrize("condition", ["attention", "maps", "both"])
def test_conditions_noise_and_neighbours(condition):
    own = network(replace(SMALL, condition=condition))
    x, level, given = inputs()
    made = own(x, level, given)
    assert made.shape == x.shape
    assert not torch.allclose(made, own(x, level, 1 - given), atol=1e-4)
    assert not torch.allclose(made, own(x, level + 0.3, given), atol=1e-4)
    assert torch.allclose(made[1:], own(x[1:], level[1:], given[1:]), atol=1e-5)


def test_zero_at_init_and_unconditional():
    own = MonaiUNet(SMALL, replace(SPEC, condition_size=0))
    x, level, _ = inputs()
    assert torch.equal(own(x, level, torch.zeros(2, 0)), torch.zeros_like(x))


def test_grids_that_cannot_be_halved_are_padded():
    config = replace(SMALL, channels=(8, 8, 8), attention=(False,) * 3, channels_per_head=(8,))
    spec = NetworkSpec(1, 1, (5, 6, 7))
    own, x = network(config, spec), torch.randn(1, 1, 5, 6, 7)
    made = own(x, torch.zeros(1), torch.zeros(1, 0))
    assert made.shape == x.shape
    padded = nn.functional.pad(x, (0, 1, 0, 2, 0, 3))
    again = own.net(padded, torch.zeros(1))[..., :5, :6, :7]
    assert torch.allclose(made, again, atol=1e-6)


def test_the_network_is_called_as_published():
    """Conditions beside the item and as one token; indices of the published schedule."""
    config = replace(SMALL, missing_bits=False, schedule=Schedule())
    own = network(config)
    x, _, _ = inputs()
    values = torch.tensor([[0.2, 0.9], [0.5, 0.1]])
    condition = torch.stack([values, torch.zeros(2, 2)], dim=2).flatten(1)
    schedule = VPSchedule.build("scaled_linear", 1000)
    index = torch.tensor([980, 0])
    level = noise_level(*schedule.coefficients(index))
    maps = values[..., None, None, None].expand(-1, -1, 6, 8, 6)
    expected = own.net(torch.cat([x, maps], 1), index, context=values[:, None])
    assert torch.allclose(own(x, level, condition), expected, atol=1e-4)


def test_every_index_of_the_published_schedule_is_found():
    own = network(replace(SMALL, schedule=Schedule()))
    schedule = VPSchedule.build("scaled_linear", 1000)
    index = torch.arange(1000)
    found = own.timesteps(noise_level(*schedule.coefficients(index)))
    assert torch.allclose(found, index.float(), atol=0.02)


def test_a_network_without_missing_bits_refuses_a_missing_condition():
    own = network(replace(SMALL, missing_bits=False))
    x, level, _ = inputs()
    with pytest.raises(UsageError, match="never trained with a missing condition"):
        own(x, level, torch.tensor([[0.2, 0.0, 0.0, 1.0]] * 2))


def test_positions_and_wrong_lists_are_refused():
    with pytest.raises(UsageError, match="knows no position"):
        MonaiUNet(SMALL, replace(SPEC, position_size=1))
    with pytest.raises(UsageError, match="one entry a level"):
        replace(SMALL, channels=(8, 16, 16))
    with pytest.raises(UsageError, match="does not divide"):
        replace(SMALL, norm_groups=3)


def test_the_published_brain_denoiser_has_its_size():
    config = MonaiUNetConfig(
        channels=(256, 512, 768),
        attention=(False, True, True),
        channels_per_head=(0, 512, 768),
        missing_bits=False,
    )
    with torch.device("meta"):
        own = MonaiUNet(config, NetworkSpec(3, 3, (20, 28, 20), condition_size=8))
    assert sum(p.numel() for p in own.parameters()) == pytest.approx(553e6, rel=0.01)
