from __future__ import annotations

import pytest
import torch

from gyri.nn.mapping import Mapping


def build(*sizes: int) -> Mapping:
    torch.manual_seed(0)
    return Mapping(*sizes)


def test_the_length_of_z_and_of_a_label_does_not_matter() -> None:
    mapping = build(8, 4, 0, 16)
    with torch.no_grad():
        assert mapping.embed is not None
        mapping.embed.bias.zero_()
    z, condition = torch.randn(5, 8), torch.randn(5, 4)
    w = mapping(z, condition)
    assert w.shape == (5, 16)
    torch.testing.assert_close(mapping(3 * z, 9 * condition), w, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mapping(z, -condition), w)
    assert not torch.allclose(mapping(-z, condition), w)


def test_w_is_about_as_large_as_z() -> None:
    w = build(128, 0, 0, 128)(torch.randn(64, 128), torch.zeros(64, 0)).detach()
    assert 0.3 < float(w.square().mean()) < 3


def test_positions_join_the_condition() -> None:
    mapping = build(0, 3, 2, 16)
    condition = torch.randn(5, 3)
    one = mapping(None, condition, torch.zeros(5, 2))
    assert not torch.allclose(one, mapping(None, condition, torch.full((5, 2), 0.3)))
    with pytest.raises(ValueError, match="got none"):
        mapping(None, condition)
