"""Spectral normalisation against singular values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gyri.nn.spectral import Spectral, spectrally_normalised


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (40, 2, 3, 1, 2), (1, 5, 1, 1)])
def test_the_largest_singular_value_becomes_one(shape: tuple[int, ...]) -> None:
    weight = 7 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    normalised = Spectral()(weight)
    assert torch.linalg.matrix_norm(normalised.flatten(1), 2).item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(normalised / normalised.norm(), weight / weight.norm())


def test_gradients_are_right() -> None:
    weight = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Spectral(), weight)


def test_a_pass_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = spectrally_normalised(nn.Sequential(nn.Conv2d(2, 5, 4), nn.Conv3d(1, 2, 3)))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(2, 2, 6, 6)
    first = network[0](x)
    assert torch.equal(network[0](x), first)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    for layer in network:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1)
