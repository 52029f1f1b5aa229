from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.gaussian_autoencoder import ReconstructionConfig
from gyri.methods.vae import VAE, VAEConfig
from gyri.networks.conv_autoencoder import ConvAutoencoderConfig, ConvDecoder, ConvEncoder
from gyri.networks.dense import (
    ConditionPrior,
    ConditionPriorConfig,
    DenseConfig,
    DenseDecoder,
    DenseDecoderConfig,
    DenseEncoder,
)
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, ItemSpec, Progress

NOW = Progress(0, 0, 0.0)
LEVELS = ConditionLayout(((0, 2),))
UNIT = ReconstructionConfig(scale=0.5)
"""Residuals of [-1, 1] as they are: the negative ELBO of noise of variance 1, less a constant."""


class LinearEncoder(nn.Module):
    def __init__(self, voxels, latent):
        super().__init__()
        self.mean = nn.Linear(voxels, latent)
        self.log_variance = nn.Parameter(torch.zeros(latent))

    def forward(self, x, condition, position):
        mean = self.mean(x.flatten(1))
        return torch.cat([mean, self.log_variance.expand_as(mean)], dim=1)


class LinearDecoder(nn.Module):
    def __init__(self, voxels, latent, shape):
        super().__init__()
        self.shape, self.linear = shape, nn.Linear(latent, voxels)

    def forward(self, z, condition, position):
        return self.linear(z).unflatten(1, self.shape)


def batch_of(x, condition=None, first=0):
    count = len(x)
    condition = torch.zeros(count, 0) if condition is None else condition
    rows = torch.arange(count)
    return Batch(x, condition, None, rows, first + rows)


def descend(method, batch_at, steps, lr=1e-2):
    optimiser = torch.optim.Adam(
        [p for n in method.networks.values() for p in n.parameters()], lr=lr
    )
    for step in range(steps):
        batch = batch_at(step)
        loss = method.loss("autoencoder", batch, NOW, SampleRng(batch.seed))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()


def dense(spec, config, hidden=(32,)):
    specs = VAE.network_specs(config, spec)
    networks = {
        "encoder": DenseEncoder(DenseConfig(hidden=hidden), specs["encoder"]),
        "decoder": DenseDecoder(DenseDecoderConfig(hidden=hidden), specs["decoder"]),
    }
    if "prior" in specs:
        networks["prior"] = ConditionPrior(ConditionPriorConfig(), specs["prior"])
    return VAE(config, spec, networks)


def test_a_linear_autoencoder_reaches_the_likelihood_of_probabilistic_pca():
    torch.manual_seed(0)
    voxels, latent, count = 6, 2, 400
    loading = torch.randn(voxels, latent) * 2
    x = (torch.randn(count, latent) @ loading.T + torch.randn(count, voxels)).reshape(-1, 1, 2, 3)
    spec = ItemSpec(1, (2, 3))
    config = VAEConfig(latent_size=latent, reconstruction=UNIT)
    method = VAE(
        config,
        spec,
        {
            "encoder": LinearEncoder(voxels, latent),
            "decoder": LinearDecoder(voxels, latent, (1, 2, 3)),
        },
    )
    for steps, lr in ((500, 2e-2), (300, 2e-3)):
        descend(
            method, lambda step: batch_of(x.roll(-64 * step, 0)[:64], first=64 * step), steps, lr
        )
    values = np.linalg.eigvalsh(np.cov(x.flatten(1).T.numpy(), bias=True))
    # Maximum likelihood with the noise's variance known to be 1 (Tipping and Bishop, 1999).
    kept = np.maximum(values, 1.0)
    kept[:-latent] = 1.0
    exact = 0.5 * (np.log(kept) + values / kept).sum() + voxels / 2 * math.log(2 * math.pi)
    with torch.no_grad():
        batches = [batch_of(x, first=k * count) for k in range(4)]
        losses = [method.loss("", batch, NOW, SampleRng(batch.seed)).total for batch in batches]
    found = torch.stack(losses).mean()
    found = float(found) + voxels / 2 * math.log(2 * math.pi)
    assert exact - 0.05 < found < exact + 0.15


def test_eight_items_are_overfitted_without_divergence():
    torch.manual_seed(0)
    x = torch.rand(8, 1, 6, 6) * 1.6 - 0.8
    method = dense(ItemSpec(1, (6, 6)), VAEConfig(latent_size=8, beta=0.0), (64,))
    descend(method, lambda step: batch_of(x, first=8 * step), 400, lr=5e-3)
    error = (method.reconstruct(batch_of(x)) - x).square().mean()
    assert error < 0.01 * x.var()


def test_the_label_decides_what_is_decoded_from_one_code():
    torch.manual_seed(0)
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(8, 1)
    x = torch.where(labels[:, :1] > 0, 0.5, -0.5).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    x = x + 0.05 * torch.randn(x.shape)
    spec = ItemSpec(1, (4, 4), condition=LEVELS)
    method = dense(spec, VAEConfig(latent_size=2, prior="learned"))
    descend(method, lambda step: batch_of(x, labels, 16 * step), 300)
    z = torch.zeros(1, 2)
    found = [method.decode(z, labels[k : k + 1], None).mean().item() for k in (0, 1)]
    assert found == pytest.approx([0.5, -0.5], abs=0.05)


def test_error_is_summed_over_voxels_in_units_of_the_range():
    x, rebuilt = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    # Half of the range, five times the scale of 0.1.
    assert torch.allclose(ReconstructionConfig(loss="mse").error(x, rebuilt), torch.tensor(112.5))
    assert torch.allclose(ReconstructionConfig(loss="l1").error(x, rebuilt), torch.tensor(45.0))
    sharp = ReconstructionConfig(loss="logcosh", sharpness=100.0).error(x, rebuilt)
    assert torch.allclose(sharp, torch.tensor(45.0), rtol=2e-3)


def test_weight_of_the_divergence_rises_over_the_warm_up():
    config = VAEConfig(beta=2.0, kl_warmup=0.5)
    weights = [config.weight(Progress(0, 0, fraction)) for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert weights == [0.0, 1.0, 2.0, 2.0]


def test_free_bits_cost_nothing():
    config = VAEConfig(latent_size=2, free_bits=0.5)
    assert config.charged(torch.tensor([[0.1, 2.0]])).item() == pytest.approx(2.5)


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7)])
def test_networks_take_any_size_and_number_of_axes(shape):
    spec = ItemSpec(2, shape, condition=LEVELS)
    config = VAEConfig(latent_size=3)
    specs = VAE.network_specs(config, spec)
    own = ConvAutoencoderConfig(widths=(8, 8))
    networks = {
        "encoder": ConvEncoder(own, specs["encoder"]),
        "decoder": ConvDecoder(own, specs["decoder"]),
    }
    method = VAE(config, spec, networks)
    x = torch.zeros(2, 2, *shape)
    rebuilt = method.reconstruct(batch_of(x, torch.zeros(2, 3)))
    assert rebuilt.shape == x.shape
    assert rebuilt.abs().max() <= 1


@pytest.mark.parametrize(("hidden", "count"), [((512,), 41_066_748), ((1024, 512), 82_747_644)])
def test_published_networks_have_their_size(hidden, count):
    # Four scanners; the missing bit of ours is one input more, in encoder and decoder.
    spec = ItemSpec(1, (218, 182), condition=ConditionLayout(((0, 4),)))
    with torch.device("meta"):
        method = dense(spec, VAEConfig(latent_size=256), hidden)
    ours = sum(p.numel() for n in method.networks.values() for p in n.parameters())
    assert ours - 2 * hidden[0] + (hidden[0] - hidden[-1]) == count


def test_what_it_can_do_is_what_it_says():
    assert capabilities(VAE) == ["Sampler", "Reconstructor", "Autoencoder", "Scorer"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"beta": -1.0}, "no negative"),
        ({"kl_warmup": 2.0}, "share from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, words):
    with pytest.raises(UsageError, match=words):
        VAEConfig(**wrong)
    with pytest.raises(UsageError, match="above 0"):
        ReconstructionConfig(scale=0.0)


def test_a_learned_prior_needs_conditions():
    with pytest.raises(UsageError, match="no conditions"):
        VAE.network_specs(VAEConfig(prior="learned"), ItemSpec(1, (4, 4)))
