"""MONAI's AutoencoderKL as gyri calls it."""

from __future__ import annotations

import sys

import pytest
import torch

from gyri.errors import UnavailableError, UsageError
from gyri.networks.monai_autoencoder_kl import MonaiAutoencoderKL, MonaiAutoencoderKLConfig
from gyri.types import NetworkSpec

SMALL = {"channels": (8, 16), "norm_groups": 4, "num_res_blocks": 1, "latent_channels": 3}


def network(**settings):
    torch.manual_seed(0)
    config = MonaiAutoencoderKLConfig(**{**SMALL, **settings})
    return MonaiAutoencoderKL(config, NetworkSpec(2, 2, (8, 12, 8)))


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 2, 8, 12, 8, generator=torch.Generator().manual_seed(1))


def test_encoder_and_decoder_are_those_of_the_library(x):
    own = network()
    posterior = own.encode(x)
    mean, std = own.net.encode(x)
    assert torch.allclose(posterior.mean, mean, atol=1e-5)
    assert torch.allclose((posterior.log_variance / 2).exp(), std)
    assert torch.allclose(own.decode(mean), own.net.decode(mean), atol=1e-5)
    assert posterior.mean.shape == (2, 3, 4, 6, 4)


def test_encoding_twice_gives_the_same_where_the_library_draws(x):
    own = network()
    assert torch.equal(own.encode(x).mean, own.encode(x).mean)
    assert not torch.equal(own.net.encode_stage_2_inputs(x), own.net.encode_stage_2_inputs(x))


def test_an_item_does_not_depend_on_its_neighbours(x):
    own = network()
    assert torch.allclose(own.encode(x).mean[1:], own.encode(x[1:]).mean, atol=1e-5)


def test_checkpointing_changes_no_gradient(x):
    gradients = []
    for checkpointing in (False, True):
        own = network(gradient_checkpointing=checkpointing)
        own.decode(own.encode(x).mean).square().mean().backward()
        gradients.append([p.grad for p in own.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_the_published_brain_autoencoder_has_its_size():
    with torch.device("meta"):
        published = MonaiAutoencoderKL(
            MonaiAutoencoderKLConfig(channels=(64, 128, 128, 128), latent_channels=3),
            NetworkSpec(1, 1, (160, 224, 160)),
        )
    assert published.factor == 8
    assert sum(p.numel() for p in published.parameters()) == pytest.approx(13.8e6, rel=0.01)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="does not divide"):
        MonaiAutoencoderKLConfig(channels=(8, 12), norm_groups=8)
    with pytest.raises(UsageError, match="one entry a level"):
        MonaiAutoencoderKLConfig(channels=(32, 32), attention=(True,))


def test_without_monai_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(UnavailableError, match=r"pip install 'gyri\[latent\]'"):
        network()
