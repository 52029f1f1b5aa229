from __future__ import annotations

import pytest
import torch

from gyri.nn.spatial_modulation import SpatialModulation


@pytest.mark.parametrize("shape", [(8, 12), (4, 8, 4)])
def test_it_says_nothing_at_the_start_and_then_what_is_where(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = SpatialModulation(len(shape), 3, 2)
    x = torch.randn(2, 3, *shape)
    image = torch.zeros(2, 2, *(2 * n for n in shape))
    image[:, :, : shape[0]] = 1.0
    assert torch.equal(layer(x, image), x)
    torch.nn.init.normal_(layer.said.weight)
    said = layer(x, image)
    reached = shape[0] // 2 + 1
    assert not torch.allclose(said[:, :, :reached], x[:, :, :reached])
    assert torch.equal(said[:, :, reached:], x[:, :, reached:])
