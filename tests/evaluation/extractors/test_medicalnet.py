from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.evaluation.pretrained import randomised
from torch import nn

from gyri.evaluation.extractors.medicalnet import medicalnet, znz0


@pytest.mark.parametrize("depth", [50, 101])
def test_names_and_shapes_are_those_that_monai_loads_the_published_files_into(depth):
    resnet = pytest.importorskip("monai.networks.nets.resnet")
    with torch.device("meta"):
        ours = medicalnet(depth).state_dict()
        theirs = getattr(resnet, f"resnet{depth}")(
            spatial_dims=3,
            n_input_channels=1,
            feed_forward=False,
            shortcut_type="B",
            bias_downsample=False,
        ).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_the_last_stages_dilate_and_do_not_stride():
    with torch.device("meta"):
        network = medicalnet(50)
    dilations = [network.get_submodule(f"layer{n}")[1].conv2.dilation[0] for n in (1, 2, 3, 4)]
    assert dilations == [1, 1, 2, 4]
    network.layer4.to_empty(device="cpu")
    made = randomised(network.layer4)(torch.zeros(1, 1024, 5, 6, 5))
    assert made.shape == (1, 2048, 5, 6, 5)
    assert not any(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv3d))


def test_any_grid_gives_2048_features_and_company_changes_none():
    network = randomised(medicalnet(50))
    volumes = torch.randn(2, 1, 20, 24, 20)
    with torch.inference_mode():
        together, alone = network(volumes), network(volumes[1:])
    assert together.shape == (2, 2048)
    assert together.std(1).min() > 1e-3
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-6)


def test_znz0_is_standardised_inside_and_zero_outside():
    rng = np.random.default_rng(0)
    image = (3 + 2 * rng.standard_normal((6, 7, 8))).astype(np.float32)
    mask = rng.random(image.shape) < 0.6
    out = znz0(image, mask)
    assert (out[~mask] == 0).all()
    assert out[mask].mean() == pytest.approx(0, abs=1e-6)
    assert out[mask].std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(znz0(5 * image + 1, mask), out, atol=1e-4)


def test_znz0_of_nothing_is_zero():
    image = np.ones((3, 3, 3), np.float32)
    assert not znz0(image, np.zeros_like(image, bool)).any()
    assert not znz0(image, np.ones_like(image, bool)).any()
