"""Alpha-WGAN-GP: signs, penalties, and who learns from what."""

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
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.alpha_wgan import AlphaWGAN
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ItemSpec, Loss

SPEC = ItemSpec(1, (8, 12, 8), condition=LAYOUT)
SMALL = {
    "encoder": {"widths": [8, 8]},
    "generator": {"widths": [8, 8]},
    "discriminator": {"widths": [8, 8]},
    "code_discriminator": {"hidden": [16]},
}
PHASES = ("autoencoder", "discriminator", "code_discriminator")


def an_alpha_wgan(spec: ItemSpec = SPEC, **settings: Any) -> AlphaWGAN:
    method = build({"name": "alpha_wgan", "latent_size": 4, **settings}, SMALL, spec)
    assert isinstance(method, AlphaWGAN)
    return method


def loss_of(method: AlphaWGAN, phase: str, batch: Batch) -> Loss:
    return method.loss(phase, batch, START, SampleRng(batch.seed))


class Linear(nn.Module):
    """``w . x`` with a slope of the given length."""

    def __init__(self, shape: tuple[int, ...], length: float) -> None:
        super().__init__()
        w = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        self.w = nn.Parameter(length * w / w.norm())

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return (x * self.w).flatten(1).sum(1)


class Shifted(nn.Module):
    """Encodes an item as its first voxels, moved."""

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return x.flatten(1)[:, :4] + 3.0


def test_registration_and_phases() -> None:
    assert METHODS["alpha_wgan"].component is AlphaWGAN
    assert capabilities(AlphaWGAN) == ["Sampler", "Reconstructor", "Autoencoder", "Scorer"]
    method = an_alpha_wgan(critic_steps=3)
    assert [(phase.name, phase.repeats) for phase in method.phases] == [
        ("autoencoder", 1),
        ("discriminator", 3),
        ("code_discriminator", 3),
    ]
    assert method.optimisers["discriminator"].betas[0] <= 0.5


@pytest.mark.parametrize("adversarial", ["wasserstein", "cross_entropy"])
def test_each_phase_moves_its_own_networks_alone(adversarial: str, tmp_path: Path) -> None:
    method = an_alpha_wgan(adversarial=adversarial)
    assert moved_by_each_phase(method, a_batch(SPEC), tmp_path) == {
        "autoencoder": {"encoder", "generator"},
        "discriminator": {"discriminator"},
        "code_discriminator": {"code_discriminator"},
    }


@pytest.mark.parametrize("length", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("spec", [ItemSpec(1, (4, 4)), ItemSpec(1, (8, 12, 8))])
def test_penalties_of_linear_critics(spec: ItemSpec, length: float) -> None:
    # Two pairs for the critic of items, one for that of codes; the number of voxels is no matter.
    method, batch = an_alpha_wgan(spec, penalty=7.0), a_batch(spec)
    method.networks["discriminator"] = Linear((spec.channels, *spec.shape), length)
    method.networks["code_discriminator"] = Linear((4,), length)
    loss = loss_of(method, "discriminator", batch)
    assert float(loss.logs["penalty"]) == pytest.approx(2 * (length - 1) ** 2, rel=1e-3, abs=1e-9)
    logs = {name: float(value) for name, value in loss.logs.items()}
    adversarial = logs["logits_rebuilt"] + logs["logits_fake"] - 2 * logs["logits_real"]
    assert loss.total.item() == pytest.approx(adversarial + 7 * logs["penalty"], rel=1e-4, abs=1e-5)
    loss = loss_of(method, "code_discriminator", batch)
    assert float(loss.logs["penalty"]) == pytest.approx((length - 1) ** 2, rel=1e-3, abs=1e-9)
    adversarial = float(loss.logs["logits_coded"]) - float(loss.logs["logits_prior"])
    expected = adversarial + 7 * float(loss.logs["penalty"])
    assert loss.total.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_autoencoder_wants_high_verdicts_and_likeness() -> None:
    method, batch = an_alpha_wgan(reconstruction=5.0), a_batch(SPEC)
    loss = loss_of(method, "autoencoder", batch)
    rng = SampleRng(batch.seed)
    z = method.networks["encoder"](batch.x, batch.condition)
    rebuilt = method.decode(z, batch.condition, None)
    judge, judge_codes = (method.networks[n] for n in ("discriminator", "code_discriminator"))
    l1 = (rebuilt - batch.x).abs().mean()
    drawn = method.decode(rng.normal((4,)), batch.condition, None)
    expected = 5 * l1 - judge_codes(z, batch.condition).mean()
    expected = expected - sum(judge(x, batch.condition).mean() for x in (rebuilt, drawn))
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-4)
    assert float(loss.logs["l1"]) == pytest.approx(l1.item(), rel=1e-5)


def test_the_critic_of_codes_learns_from_codes_and_the_encoder_not_from_it() -> None:
    # A linear critic's gradient by w is mean(z_hat) - mean(z_r), beside the penalty's, along w.
    method, batch = an_alpha_wgan(penalty=0.0), a_batch(SPEC, 512)
    method.networks["encoder"] = Shifted()
    critic = method.networks["code_discriminator"] = Linear((4,), 1.0)
    loss_of(method, "code_discriminator", batch).total.backward()
    coded = batch.x.flatten(1)[:, :4].mean(0) + 3
    drawn = SampleRng(batch.seed).normal((4,)).mean(0)
    torch.testing.assert_close(critic.w.grad, coded - drawn, rtol=1e-4, atol=1e-5)
    assert float(critic.w.grad.min()) > 2
    method = an_alpha_wgan()
    loss_of(method, "code_discriminator", a_batch(SPEC)).total.backward()
    assert all(p.grad is None for p in method.networks["encoder"].parameters())


def test_the_best_critic_of_codes_is_higher_on_the_prior() -> None:
    torch.manual_seed(0)
    method = an_alpha_wgan()
    method.networks["encoder"] = Shifted()
    adam = torch.optim.Adam(method.networks["code_discriminator"].parameters(), 1e-2, (0.5, 0.9))
    for step in range(60):
        batch = a_batch(SPEC, 32)
        batch.seed = batch.seed + 32 * step
        loss = loss_of(method, "code_discriminator", batch)
        adam.zero_grad()
        loss.total.backward()
        adam.step()
    assert float(loss.logs["logits_prior"]) > float(loss.logs["logits_coded"]) + 3
    # The autoencoder is then pulled towards the prior: its loss falls where C is higher.
    judge = method.networks["code_discriminator"]
    assert method._wanted(judge(torch.zeros(1, 4), batch.condition[:1])) < method._wanted(
        judge(torch.full((1, 4), 3.0), batch.condition[:1])
    )


def test_cross_entropy_where_both_critics_are_undecided() -> None:
    method, batch = an_alpha_wgan(adversarial="cross_entropy", reconstruction=0.0), a_batch(SPEC)
    for critic, shape in (("discriminator", (1, *SPEC.shape)), ("code_discriminator", (4,))):
        method.networks[critic] = Linear(shape, 0.0)
    totals = [loss_of(method, phase, batch).total.item() for phase in PHASES]
    assert totals == pytest.approx([3 * math.log(2), 4 * math.log(2), 2 * math.log(2)])


@pytest.mark.parametrize("phase", PHASES)
def test_loss_is_the_mean_of_micro_batches(phase: str) -> None:
    method, batch = an_alpha_wgan(), a_batch(SPEC)
    parts = [batch[slice(start, start + 2)] for start in (0, 2, 4)]
    losses = [loss_of(method, phase, part).total.item() for part in parts]
    assert loss_of(method, phase, batch).total.item() == pytest.approx(sum(losses) / 3, rel=1e-4)


def test_slices_are_encoded_and_scored() -> None:
    spec = ItemSpec(2, (8, 12))
    method, batch = an_alpha_wgan(spec), a_batch(spec)
    rebuilt = method.reconstruct(batch)
    torch.testing.assert_close(method.decode(method.codes(batch), batch.condition, None), rebuilt)
    error = method.score(batch, SampleRng(batch.seed))
    torch.testing.assert_close(error, (rebuilt - batch.x).abs().mean((1, 2, 3)))


@pytest.mark.slow
def test_four_volumes_are_learnt_by_heart(tmp_path: Path) -> None:
    x = four_volumes()
    spec = ItemSpec(1, (8,) * 3)
    method = an_alpha_wgan(spec, lr=2e-3, final_lr=0.02, reconstruction=100.0)
    batch = a_batch(spec, 4)
    batch.x = x
    trained(method, x, 600, tmp_path)
    assert float((method.reconstruct(batch) - x).abs().mean()) < 0.03


def test_batch_norms_are_refused_in_a_critic_with_a_penalty() -> None:
    networks = {**SMALL, "discriminator": {"widths": [8, 8], "norm": "batch"}}
    settings = {"name": "alpha_wgan", "latent_size": 4}
    with pytest.raises(UsageError, match="alpha_wgan has batch norms"):
        build(settings, networks, SPEC)
    build({**settings, "adversarial": "cross_entropy"}, networks, SPEC)
