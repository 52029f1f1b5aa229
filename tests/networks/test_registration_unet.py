from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.networks.registration_unet import RegistrationUNet, RegistrationUNetConfig
from gyri.types import NetworkSpec

SMALL = {"down": (4, 6, 8), "last": (5,)}


def build(shape=(9, 12, 7), **settings):
    torch.manual_seed(0)
    return RegistrationUNet(
        RegistrationUNetConfig(**{**SMALL, **settings}), NetworkSpec(2, len(shape), shape)
    )


@pytest.mark.parametrize(
    ("halvings", "up", "expected"),
    [(0, (8, 8, 6, 4), (9, 12, 7)), (1, (8, 8, 6), (5, 6, 4)), (2, (8, 8), (3, 3, 2))],
)
def test_the_field_lies_on_the_halved_grid(halvings, up, expected):
    field = build(halvings=halvings, up=up)(torch.randn(2, 2, 9, 12, 7))
    assert field.shape == (2, 3, *expected)


def test_slices_have_two_components():
    assert build((9, 12), up=(8, 8, 6))(torch.randn(1, 2, 9, 12)).shape == (1, 2, 5, 6)


def test_training_starts_at_the_identity_and_reaches_all_weights():
    network = build(up=(8, 8, 6))
    field = network(torch.randn(2, 2, 9, 12, 7))
    assert 0 < field.abs().max() < 1e-3
    field.square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_both_images_and_far_voxels_are_seen():
    network, x = build(up=(8, 8, 6)), torch.randn(1, 2, 9, 12, 7)
    field = network(x)
    for channel in range(2):
        changed = x.clone()
        changed[:, channel, 0, 0, 0] += 5
        difference = (network(changed) - field).abs().sum(1)
        assert difference[0, 0, 0, 0] > 0
        # Three halvings: a change in one corner reaches beyond what convolutions of 3 would.
        assert difference[0, 3:].max() > 0


def test_items_do_not_touch_each_other():
    network, x = build(up=(8, 8, 6)), torch.randn(3, 2, 9, 12, 7)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), atol=1e-8, rtol=1e-4)


def test_the_published_widths():
    config = RegistrationUNetConfig()
    network = RegistrationUNet(config, NetworkSpec(2, 3, (16, 16, 16)))
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
    inputs = [m.in_channels for m in convolutions]
    assert inputs == [2, 16, 32, 32, 32, 64, 64, 48, 32, 32, 16]


@pytest.mark.parametrize("settings", [{"up": (8, 8)}, {"up": (8,), "halvings": 3}])
def test_a_way_up_that_does_not_lead_to_the_output_is_refused(settings):
    with pytest.raises(UsageError, match="Give up .* widths"):
        build(**settings)
