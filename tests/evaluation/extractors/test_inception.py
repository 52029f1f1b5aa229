"""Inception-v3 of the FID, by closed forms and by its own description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.evaluation.pretrained import randomised
from torch import nn
from torch.nn import functional

from gyri.evaluation.extractors.inception import (
    InceptionV3,
    average_pool,
    maximum_pool,
    resize_clean,
    resize_tf,
)
from gyri.evaluation.metrics.frechet import frechet_distance


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    return randomised(InceptionV3(), gain=2.0)


def test_it_has_the_published_number_of_parameters(network):
    """21 802 784 is Inception-v3's count without head; 23 851 784 - 2 049 000 in Keras' table."""
    kernels = sum(p.numel() for n, p in network.named_parameters() if n.endswith("conv.weight"))
    shifts = sum(p.numel() for n, p in network.named_parameters() if n.endswith("bn.bias"))
    statistics = sum(b.numel() for n, b in network.named_buffers() if "running" in n)
    assert kernels + shifts + statistics == 21_802_784


def test_grids_and_channels_of_the_blocks(network):
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(
            lambda module, given, made, name=name: shapes.update({name: tuple(made.shape[1:])})
        )
    with torch.inference_mode():
        features = network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert features.shape == (1, network.num_features)
    assert shapes["Conv2d_4a_3x3"] == (192, 71, 71)
    assert shapes["Mixed_5b"] == (256, 35, 35)
    assert shapes["Mixed_6e"] == (768, 17, 17)
    assert shapes["Mixed_7a"] == (1280, 8, 8)
    assert shapes["Mixed_7c"] == (2048, 8, 8)


def test_the_average_does_not_count_padding_and_the_last_block_takes_the_maximum(network):
    x = torch.rand(1, 2, 4, 5)
    pooled = average_pool(x)
    torch.testing.assert_close(pooled[..., 0, 0], x[..., :2, :2].mean((2, 3)))
    torch.testing.assert_close(pooled[..., 1, 1], x[..., :3, :3].mean((2, 3)))
    torch.testing.assert_close(average_pool(torch.ones(1, 1, 3, 3)), torch.ones(1, 1, 3, 3))
    pools = {
        name: chain[0]
        for name, module in network.named_children()
        for chain in getattr(module, "chains", [])
        if callable(chain[0])
    }
    assert pools["Mixed_7c"] is maximum_pool
    assert {pools[name] for name in ("Mixed_5b", "Mixed_6e", "Mixed_7b")} == {average_pool}


def test_branches_are_joined_in_the_published_order(network):
    block = network.Mixed_7b
    x = torch.rand(1, 1280, 8, 8)
    inner = block.branch3x3_1(x)
    with torch.inference_mode():
        made = block(x)
        torch.testing.assert_close(made[:, :320], block.branch1x1(x))
        torch.testing.assert_close(made[:, 320:704], block.branch3x3_2a(inner))
        torch.testing.assert_close(made[:, 704:1088], block.branch3x3_2b(inner))
        torch.testing.assert_close(made[:, -192:], block.branch_pool(average_pool(x)))


def test_tensorflow_resizes_from_the_corner():
    ramp = torch.arange(64.0).expand(1, 1, 48, 64)
    resized = resize_tf(ramp, 299)[0, 0, 0]
    expected = (torch.arange(299) * 64 / 299).clamp_max(63)
    torch.testing.assert_close(resized, expected, atol=1e-4, rtol=0)
    half_pixel = functional.interpolate(ramp, (299, 299), mode="bilinear")[0, 0, 0]
    assert (half_pixel - resized).abs().max() > 0.3


def test_tensorflow_does_not_smooth_what_it_shrinks_and_clean_does():
    checks = (torch.arange(600) % 2).float().expand(1, 1, 600, 600) * 255
    assert resize_tf(checks, 300).std() < 1e-3  # every second column: one colour
    assert resize_tf(checks, 300).mean() == 0
    assert resize_clean(checks, 300).mean() == pytest.approx(127.5, abs=1)


def test_clean_keeps_constants_is_not_rounded_and_takes_channels_one_by_one():
    x = torch.rand(2, 3, 40, 50) * 255
    resized = resize_clean(x, 99)
    torch.testing.assert_close(resized[1:, 2:], resize_clean(x[1:, 2:], 99))
    assert (resized != resized.round()).float().mean() > 0.9
    torch.testing.assert_close(
        resize_clean(torch.full((1, 1, 9, 9), 77.0)), torch.tensor(77.0).expand(1, 1, 299, 299)
    )


def test_input_is_scaled_as_in_the_graph_and_nothing_but_uint8_is_taken():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 8, 8)
    for resize in ("tf", "clean"):
        prepared = InceptionV3(resize).prepare(images)
        assert prepared.shape == (3, 3, 299, 299)
        np.testing.assert_allclose(prepared.mean((1, 2, 3)), [-1, 0, 127 / 128], atol=1e-5)
    with pytest.raises(TypeError, match="takes uint8"):
        InceptionV3().prepare(torch.rand(1, 3, 8, 8))


class Some(nn.Module):
    """Our network, cut to its first features; remembers what it gave."""

    def __init__(self, network: InceptionV3, num_features: int) -> None:
        super().__init__()
        self.network, self.num_features, self.given = network, num_features, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network(images)[:, : self.num_features]
        self.given.append(features.double().numpy())
        return features


@pytest.mark.parametrize(
    ("num", "num_features"), [(4, 48), pytest.param(8, 2048, marks=pytest.mark.slow)]
)
def test_torchmetrics_gives_our_distance_with_our_network(network, num, num_features):
    from torchmetrics.image.fid import FrechetInceptionDistance

    some = Some(network, num_features)
    fid = FrechetInceptionDistance(feature=some)
    rng = torch.Generator().manual_seed(1)
    for brightest, real in ((255, True), (160, False)):
        coarse = torch.rand(num, 3, 4, 4, generator=rng) * brightest
        images = functional.interpolate(coarse, (32, 32), mode="nearest")
        fid.update(images.to(torch.uint8), real=real)
    ours = frechet_distance(*some.given)
    assert ours > 0.1
    assert float(fid.compute()) == pytest.approx(ours, rel=1e-5)
