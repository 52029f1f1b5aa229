"""The U-Net of sets of slices: order, distances, fillers, start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gyri.errors import UsageError
from gyri.networks.unet_slice_set import RelativePlace, UNetSliceSet, UNetSliceSetConfig
from gyri.types import NetworkSpec

SMALL = UNetSliceSetConfig(
    widths=(8, 12),
    attention=(False, True),
    set_attention=(True, True),
    num_res_blocks=1,
    channels_per_head=4,
    norm_groups=4,
)
SPEC = NetworkSpec(in_channels=3, out_channels=2, shape=(6, 5), condition_size=2)


def perturbed(config=SMALL, spec=SPEC):
    torch.manual_seed(0)
    network = UNetSliceSet(config, spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def inputs(index=((7, 3, 12, 4, 9), (0, 1, 2, 30, 31)), spec=SPEC):
    torch.manual_seed(1)
    index = torch.tensor(index)
    batch, length = index.shape
    return {
        "x": torch.randn(batch, length, spec.in_channels, *spec.shape),
        "noise_level": torch.rand(batch),
        "condition": torch.randn(batch, spec.condition_size),
        "index": index,
        "valid": torch.ones(batch, length, dtype=torch.bool),
    }


@pytest.mark.parametrize("shape", [(6, 5), (9, 7), (4, 1)])
@pytest.mark.parametrize("resblock_updown", [True, False])
def test_zero_at_init_on_any_grid(shape, resblock_updown):
    spec = replace(SPEC, shape=shape)
    network = UNetSliceSet(replace(SMALL, resblock_updown=resblock_updown), spec)
    y = network(**inputs(spec=spec))
    assert y.shape == (2, 5, 2, *shape)
    assert not y.any()


def test_the_order_of_the_slices_does_not_matter():
    network, given = perturbed(), inputs()
    y = network(**given)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = {**given, "x": given["x"][:, order], "index": given["index"][:, order]}
    torch.testing.assert_close(network(**turned), y[:, order], rtol=1e-4, atol=1e-5)
    # Indices left as they were are other distances.
    assert not torch.allclose(
        network(**{**given, "x": given["x"][:, order]}), y[:, order], atol=1e-3
    )


def test_a_shifted_set_gives_the_same():
    network, given = perturbed(), inputs()
    y = network(**given)
    shifted = {**given, "index": given["index"] + 17}
    torch.testing.assert_close(network(**shifted), y, rtol=1e-4, atol=1e-5)
    stretched = {**given, "index": 2 * given["index"]}
    assert not torch.allclose(network(**stretched), y, atol=1e-3)


def test_positions_are_what_tells_a_shift():
    spec = replace(SPEC, position_size=1)
    network, given = perturbed(spec=spec), inputs(spec=spec)
    position = given["index"][:, :, None] / 40
    assert not torch.allclose(
        network(**given, position=position), network(**given, position=position + 0.3), atol=1e-3
    )


def test_distances_have_a_sign():
    place = RelativePlace(2, 8)
    torch.manual_seed(0)
    for parameter in place.parameters():
        torch.nn.init.normal_(parameter)
    score, value = place(torch.tensor([[3, 8]]))
    assert score.shape == (1, 2, 2, 2)
    assert value.shape == (1, 2, 2, 2, 4)
    assert not torch.allclose(score[0, :, 0, 1], score[0, :, 1, 0])
    assert torch.equal(score[0, :, 0, 0], score[0, :, 1, 1])


def test_fillers_tell_nobody_anything():
    network, given = perturbed(), inputs()
    given["valid"][:, 3:] = False
    y = network(**given)
    other = given["x"].clone()
    other[:, 3:] = 100
    index = given["index"].clone()
    index[:, 3:] = 0
    changed = network(**{**given, "x": other, "index": index})
    assert torch.equal(changed[:, :3], y[:, :3])
    fewer = {**given, **{name: given[name][:, :3] for name in ("x", "index", "valid")}}
    torch.testing.assert_close(network(**fewer), y[:, :3], rtol=1e-4, atol=1e-5)


def test_slices_of_one_set_see_each_other_and_no_other_set():
    network, given = perturbed(), inputs()
    y = network(**given)
    other = given["x"].clone()
    other[0, 4] += 1
    changed = network(**{**given, "x": other})
    assert (changed[0, :4] - y[0, :4]).abs().flatten(1).amax(1).min() > 1e-4
    assert torch.allclose(changed[1], y[1], atol=1e-6)


def test_volumes_are_refused():
    with pytest.raises(UsageError, match="slices of two axes"):
        UNetSliceSet(SMALL, replace(SPEC, shape=(4, 5, 6)))
    with pytest.raises(UsageError, match="set_attention 1"):
        replace(SMALL, set_attention=(True,))
