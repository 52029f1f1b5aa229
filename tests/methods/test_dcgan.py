"""DCGAN's losses against their closed forms, and what one image takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.gan import (
    Repeated,
    a_batch,
    assert_phases_reach_their_own_network,
    build,
    generated,
    loss_of,
)
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.dcgan import DCGAN
from gyri.methods.latent_gan import ClassicGANConfig, LatentGAN
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, ItemSpec

LN2 = math.log(2)
SPEC = ItemSpec(1, (16, 12), position_size=1)


def a_dcgan(spec: ItemSpec = SPEC, norm: str = "layer", **settings: Any) -> LatentGAN:
    config = ClassicGANConfig(**{"latent_size": 4, **settings})
    return build(DCGAN, config, spec, {"norm": norm}, {"norm": norm})


def test_registration() -> None:
    assert METHODS["dcgan"].component is DCGAN
    assert capabilities(DCGAN) == ["Sampler"]
    adam = a_dcgan().optimisers["generator"]
    assert (adam.lr, adam.betas) == (2e-4, (0.5, 0.999))


@pytest.mark.parametrize("spec", [SPEC, ItemSpec(2, (8, 12, 8))])
def test_the_first_loss_is_ln_2_a_term(spec: ItemSpec) -> None:
    method, batch = a_dcgan(spec), a_batch(spec)
    loss = loss_of(method, "discriminator", batch)
    for term in ("real", "fake"):
        assert float(loss.logs[term]) == pytest.approx(LN2, abs=0.2)
    assert loss.total.item() == pytest.approx(2 * LN2, abs=0.2)
    assert loss_of(method, "generator", batch).total.item() == pytest.approx(LN2, abs=0.2)


def test_losses_are_the_cross_entropies_of_their_targets() -> None:
    method, batch = a_dcgan(norm="batch"), a_batch(SPEC)
    discriminator = method.networks["discriminator"]
    with torch.no_grad():  # a discriminator that has an opinion
        for parameter in discriminator.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    label = (batch.condition, batch.position)
    fake = method.networks["generator"](SampleRng(batch.seed).normal((4,)), *label).detach()
    # Real and fake apart: their batch statistics are not mixed.
    real_logits, fake_logits = (discriminator(x, *label) for x in (batch.x, fake))
    ones, zeros = torch.ones(6), torch.zeros(6)
    expected = binary_cross_entropy_with_logits(real_logits, ones)
    expected = expected + binary_cross_entropy_with_logits(fake_logits, zeros)
    torch.testing.assert_close(loss_of(method, "discriminator", batch).total, expected)
    # Non-saturating: not log(1 - D), whose slope vanishes where D is sure.
    total = loss_of(method, "generator", batch).total
    torch.testing.assert_close(total, binary_cross_entropy_with_logits(fake_logits, ones))
    assert not torch.allclose(total, -softplus(fake_logits).mean())


def test_each_phase_reaches_its_own_network() -> None:
    assert_phases_reach_their_own_network(a_dcgan(), a_batch(SPEC))


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_loss_is_the_mean_of_micro_batches(phase: str) -> None:
    method, batch = a_dcgan(), a_batch(SPEC)
    parts = [batch[slice(start, start + 3)] for start in (0, 3)]
    losses = [loss_of(method, phase, part).total.item() for part in parts]
    assert loss_of(method, phase, batch).total.item() == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_one_image_is_learnt_by_heart(tmp_path: Path) -> None:
    spec = ItemSpec(1, (8, 8))
    grid = torch.linspace(-1, 1, 8)
    image = 0.8 * torch.cos(3 * grid[:, None] + grid[None])[None, None]
    method = a_dcgan(spec, "none", lr=1e-3, ema_half_life_images=400)
    x = generated(method, Repeated(image), 300, tmp_path, torch.zeros(16, 0))
    assert float((x - image).square().mean()) < 0.15 * float(image.var())


def test_conditions_are_refused() -> None:
    spec = ItemSpec(1, (8, 8), condition=ConditionLayout(((0, 2),)))
    with pytest.raises(UsageError, match="method cgan"):
        a_dcgan(spec)
