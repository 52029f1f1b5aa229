from __future__ import annotations

import pytest
import torch

from gyri.evaluation.extractors.resnet import Bottleneck, Layout, ResNet

DEPTHS = (1, 1, 1, 1)


def strided_convolutions(block: Bottleneck) -> list[str]:
    return [name for name in ("conv1", "conv2", "conv3") if getattr(block, name).stride[0] == 2]


@pytest.mark.parametrize(("strides_first", "expected"), [(True, "conv1"), (False, "conv2")])
def test_a_block_strides_once_where_its_layout_says(strides_first, expected):
    layout = Layout(2, 3, DEPTHS, (1, 2, 2, 2), strides_first=strides_first)
    block = Bottleneck(layout, 8, 4, 2, 1).eval()
    assert strided_convolutions(block) == [expected]
    assert block(torch.rand(1, 8, 9, 12)).shape == (1, 16, 5, 6)


def test_dilation_keeps_the_grid_and_widens_the_view():
    layout = Layout(3, 1, DEPTHS, (1, 1, 1, 1))
    block = Bottleneck(layout, 16, 4, 1, 4).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.constant_(module.weight, 0.1)
    x = torch.zeros(1, 16, 17, 17, 17)
    x[..., 8, 8, 8] = 1.0
    seen = block(x)[0, 0].nonzero()
    assert (seen.min().item(), seen.max().item()) == (4, 12)


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_averages_over_the_last_grid(dims):
    network = ResNet(Layout(dims, 1, DEPTHS, (1, 2, 2, 2))).eval()
    grids: list[torch.Tensor] = []
    network.layer4.register_forward_hook(lambda module, given, made: grids.append(made))
    with torch.inference_mode():
        features = network(torch.rand(2, 1, *(33,) * dims))
    assert grids[0].shape == (2, 2048, *(2,) * dims)
    torch.testing.assert_close(features, grids[0].mean(tuple(range(2, dims + 2))))
