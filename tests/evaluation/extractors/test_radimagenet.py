from __future__ import annotations

import pytest
import torch
from tests.evaluation.pretrained import randomised

from gyri.evaluation.extractors.radimagenet import RadImageNet


@pytest.fixture(scope="module")
def network() -> RadImageNet:
    return randomised(RadImageNet())


def test_it_has_the_parameters_of_keras_resnet50(network):
    """23 587 712 in Keras' summary of ResNet50 without its head, statistics included."""
    statistics = sum(b.numel() for n, b in network.named_buffers() if "running" in n)
    assert sum(p.numel() for p in network.parameters()) + statistics == 23_587_712


def test_red_is_last_and_each_mean_is_subtracted_from_its_colour(network):
    red = torch.tensor([1.0, 0.0, 0.5]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = torch.tensor([0.5 - 0.406, 0.0 - 0.456, 1.0 - 0.485])
    torch.testing.assert_close(network.prepare(red)[0, :, 0, 0], expected)


def test_blocks_stride_in_their_first_convolution(network):
    assert network.layer2[0].conv1.stride == (2, 2)
    assert network.layer2[0].conv2.stride == (1, 1)
    assert network.layer2[0].bn1.eps == 1.001e-5


def test_features_and_company(network):
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = network(images), network(images[2:])
    assert together.shape == (3, network.num_features)
    torch.testing.assert_close(alone[0], together[2], rtol=1e-4, atol=1e-6)
