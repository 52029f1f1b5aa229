"""VAE-GAN: who learns from what, and what it learns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.auto_encoding import (
    LAYOUT,
    build,
    four_volumes,
    moved_by_each_phase,
    trained,
)
from tests.methods.gan import START, a_batch
from torch import nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.vae_gan import VAEGAN, VAEGANConfig
from gyri.nn.variational import DiagonalGaussian
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ItemSpec, Loss

SPEC = ItemSpec(1, (8, 12, 8), condition=LAYOUT)
SMALL = {
    "encoder": {"widths": [8, 8]},
    "generator": {"widths": [8, 8]},
    "discriminator": {"widths": [8, 8]},
}


def a_vae_gan(spec: ItemSpec = SPEC, **settings: Any) -> VAEGAN:
    method = build({"name": "vae_gan", "latent_size": 4, **settings}, SMALL, spec)
    assert isinstance(method, VAEGAN)
    return method


def loss_of(method: VAEGAN, phase: str, batch: Batch) -> Loss:
    return method.loss(phase, batch, START, SampleRng(batch.seed))


def reached(method: VAEGAN, phase: str, batch: Batch) -> set[str]:
    """Networks to which a phase's gradient goes where nothing is frozen."""
    for network in method.networks.values():
        network.zero_grad(set_to_none=True)
    loss_of(method, phase, batch).total.backward()
    return {
        name
        for name, network in method.networks.items()
        if any(p.grad is not None for p in network.parameters())
    }


def test_registration_and_capabilities() -> None:
    assert METHODS["vae_gan"].component is VAEGAN
    assert capabilities(VAEGAN) == ["Sampler", "Reconstructor", "Autoencoder", "Scorer"]


def test_adversarial_gradients_do_not_reach_the_encoder() -> None:
    method, batch = a_vae_gan(), a_batch(SPEC)
    assert reached(method, "discriminator", batch) == {"discriminator"}
    assert "encoder" not in reached(method, "generator", batch)


@pytest.mark.parametrize("likeness", ["feature", "voxel"])
def test_each_phase_moves_its_own_network_alone(likeness: str, tmp_path: Path) -> None:
    # So the likeness, of the discriminator's features, never trains the discriminator.
    moved = moved_by_each_phase(a_vae_gan(likeness=likeness), a_batch(SPEC), tmp_path)
    assert moved == {name: {name} for name in ("encoder", "generator", "discriminator")}


def test_the_discriminators_loss_knows_no_likeness() -> None:
    batch, gradients = a_batch(SPEC), []
    for gamma in (0.0, 10.0):
        method = a_vae_gan(gamma=gamma)
        loss_of(method, "discriminator", batch).total.backward()
        gradients.append([p.grad for p in method.networks["discriminator"].parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_losses_where_the_discriminator_is_undecided() -> None:
    method, batch = a_vae_gan(beta=2.0, gamma=3.0), a_batch(SPEC)
    discriminator = method.networks["discriminator"]
    for parameter in [*discriminator.out.parameters(), *discriminator.label.parameters()]:
        nn.init.zeros_(parameter)
    assert loss_of(method, "discriminator", batch).total.item() == pytest.approx(3 * math.log(2))
    loss = loss_of(method, "generator", batch)
    unlike = float(loss.logs["unlikeness"])
    assert unlike > 0
    assert loss.total.item() == pytest.approx(2 * math.log(2) + 3 * unlike, rel=1e-5)
    loss = loss_of(method, "encoder", batch)
    expected = float(loss.logs["unlikeness"]) + 2 * float(loss.logs["kl"])
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_likeness_is_half_the_squared_distance_of_features_or_of_voxels() -> None:
    batch = a_batch(SPEC)
    rebuilt = torch.rand_like(batch.x)
    method = a_vae_gan()
    see = method.networks["discriminator"].features
    difference = see(batch.x, batch.condition) - see(rebuilt, batch.condition)
    expected = difference.square().flatten(1).sum(1) / 2
    torch.testing.assert_close(method.unlikeness(batch, rebuilt, None), expected)
    method = a_vae_gan(likeness="voxel", reconstruction={"scale": 0.5})
    expected = (batch.x - rebuilt).square().flatten(1).sum(1) / 2
    torch.testing.assert_close(method.unlikeness(batch, rebuilt, None), expected)


def test_a_generator_that_never_saturates_learns_where_the_discriminator_is_sure() -> None:
    # The slope of ln D and of ln(1 - D) at a logit of -8, as the generator's weights feel it.
    batch, slopes = a_batch(SPEC), {}
    for saturating in (False, True):
        method = a_vae_gan(gamma=0.0, saturating=saturating)
        out = method.networks["discriminator"].out
        assert out.bias is None
        method.networks["discriminator"].out = nn.Linear(out.in_features, 1)
        with torch.no_grad():
            method.networks["discriminator"].out.weight.copy_(out.weight)
            method.networks["discriminator"].out.bias.fill_(-8)
        loss_of(method, "generator", batch).total.backward()
        gradients = [p.grad for p in method.networks["generator"].parameters()]
        slopes[saturating] = torch.cat([g.flatten() for g in gradients]).norm().item()
    assert 0 < slopes[True] < 0.01 * slopes[False]


def test_the_divergence_is_that_of_the_posterior() -> None:
    method, batch = a_vae_gan(), a_batch(SPEC)
    posterior = method.posterior(batch)
    variance = posterior.log_variance.exp()
    expected = (posterior.mean**2 + variance - 1 - posterior.log_variance).sum(1).mean() / 2
    assert float(loss_of(method, "encoder", batch).logs["kl"]) == pytest.approx(expected.item())
    assert isinstance(posterior, DiagonalGaussian)
    torch.testing.assert_close(method.codes(batch), posterior.mean)


@pytest.mark.parametrize("phase", ["encoder", "generator", "discriminator"])
def test_loss_is_the_mean_of_micro_batches(phase: str) -> None:
    method, batch = a_vae_gan(), a_batch(SPEC)
    parts = [batch[slice(start, start + 2)] for start in (0, 2, 4)]
    losses = [loss_of(method, phase, part).total.item() for part in parts]
    assert loss_of(method, phase, batch).total.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_slices_work_too(tmp_path: Path) -> None:
    spec = ItemSpec(2, (8, 12))
    method = a_vae_gan(spec)
    batch = a_batch(spec)
    assert method.reconstruct(batch).shape == batch.x.shape
    assert method.score(batch, SampleRng(batch.seed)).shape == (6,)
    assert len(moved_by_each_phase(method, batch, tmp_path)) == 3


@pytest.mark.slow
def test_four_volumes_are_learnt_by_heart(tmp_path: Path) -> None:
    x = four_volumes()
    settings = {"lr": 2e-3, "final_lr": 0.02, "beta": 1e-3, "gamma": 1.0}
    method = a_vae_gan(ItemSpec(1, (8,) * 3), likeness="voxel", **settings)
    batch = a_batch(ItemSpec(1, (8,) * 3), 4)
    batch.x = x
    trained(method, x, 600, tmp_path)
    assert float((method.reconstruct(batch) - x).abs().mean()) < 0.03


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="must not be negative"):
        VAEGANConfig(beta=-1.0)
    with pytest.raises(UsageError, match="Take feature_discriminator"):
        build(
            {"name": "vae_gan", "latent_size": 4},
            {**SMALL, "discriminator": {"name": "dcgan_discriminator", "widths": [8, 8]}},
            SPEC,
        )
