"""WGAN-GP against closed forms: linear critics, and Gaussians whose distance is known."""

from __future__ import annotations

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
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.wgan_gp import WGANGP, WGANGPConfig
from gyri.registry import METHODS
from gyri.types import Batch, ConditionLayout, ItemSpec

SPEC = ItemSpec(1, (8, 6), position_size=1, condition=ConditionLayout(((0, 2),)))
PLAIN = ItemSpec(1, (8, 8))


def a_wgan(spec: ItemSpec = SPEC, **settings: Any) -> WGANGP:
    method = build(WGANGP, WGANGPConfig(**{"latent_size": 4, **settings}), spec)
    assert isinstance(method, WGANGP)
    return method


class Linear(nn.Module):
    """``C(x) = w . x`` with a slope of the given length."""

    def __init__(self, spec: ItemSpec, length: float) -> None:
        super().__init__()
        w = torch.randn(spec.channels, *spec.shape, generator=torch.Generator().manual_seed(3))
        self.w = nn.Parameter(length * w / w.norm())

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return (x * self.w).flatten(1).sum(1)


def test_registration_and_phases() -> None:
    assert METHODS["wgan_gp"].component is WGANGP
    assert capabilities(WGANGP) == ["Sampler"]
    method = a_wgan()
    assert [(phase.name, phase.repeats) for phase in method.phases] == [
        ("discriminator", 5),
        ("generator", 1),
    ]
    assert a_wgan(critic_steps=2).phases[0].repeats == 2
    assert WGANGP.phases[0].repeats == 1
    adam = method.optimisers["discriminator"]
    assert (adam.lr, adam.betas) == (1e-4, (0.5, 0.9))


@pytest.mark.parametrize("length", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(
    "spec", [ItemSpec(1, (4, 4)), ItemSpec(2, (16, 12)), ItemSpec(1, (8,) * 3)]
)
def test_penalty_of_a_linear_critic(spec: ItemSpec, length: float) -> None:
    # Over all axes of an item: for a given slope the number of voxels does not matter.
    method, batch = a_wgan(spec, penalty=7.0), a_batch(spec)
    method.networks["discriminator"] = Linear(spec, length)
    loss = loss_of(method, "discriminator", batch)
    penalty = float(loss.logs["penalty"])
    assert float(loss.logs["slope"]) == pytest.approx(length, rel=1e-5)
    assert penalty == pytest.approx((length - 1) ** 2, rel=1e-4, abs=1e-9)
    distance = float(loss.logs["distance"])
    assert loss.total.item() == pytest.approx(7.0 * penalty - distance, rel=1e-5)


def test_a_flat_critic_has_finite_gradients() -> None:
    method, batch = a_wgan(PLAIN), a_batch(PLAIN)
    critic = method.networks["discriminator"] = Linear(PLAIN, 0.0)
    loss = loss_of(method, "discriminator", batch)
    assert float(loss.logs["penalty"]) == pytest.approx(1.0, abs=1e-5)
    loss.total.backward()
    assert critic.w.grad is not None
    assert bool(torch.isfinite(critic.w.grad).all())


class Shifted(nn.Module):
    """Makes draws from N(shift, 1), of no parameters."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return z[:, :1, None, None] + self.shift


class Curve(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
        )
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return self.out(self.layers(x))[:, 0]


@pytest.mark.parametrize("shift", [1.5, -3.0])
def test_the_critic_finds_the_distance_of_two_gaussians(shift: float) -> None:
    spec = ItemSpec(1, (1, 1))
    torch.manual_seed(0)
    method = WGANGP(
        WGANGPConfig(latent_size=1), spec, {"generator": Shifted(shift), "discriminator": Curve()}
    )
    adam = torch.optim.Adam(method.networks["discriminator"].parameters(), 3e-3, (0.5, 0.9))
    found = []
    for step in range(250):
        rows = torch.arange(64)
        x = torch.randn(64, 1, 1, 1)
        batch = Batch(x, torch.zeros(64, 0), None, rows, rows + 64 * step)
        loss = loss_of(method, "discriminator", batch)
        adam.zero_grad()
        loss.total.backward()
        adam.step()
        found.append(float(loss.logs["distance"]))
    # A slope s earns s |shift| and costs 10 (s - 1)^2: the best is a little above 1.
    best = abs(shift) * (1 + abs(shift) / (2 * 10))
    assert sum(found[-100:]) / 100 == pytest.approx(best, rel=0.06)


@pytest.mark.parametrize("spec", [SPEC, PLAIN, ItemSpec(1, (5, 8, 6), 1)])
def test_each_phase_reaches_its_own_network(spec: ItemSpec) -> None:
    assert_phases_reach_their_own_network(a_wgan(spec), a_batch(spec))


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_loss_is_the_mean_of_micro_batches(phase: str) -> None:
    method, batch = a_wgan(), a_batch(SPEC)
    parts = [batch[slice(start, start + 2)] for start in (0, 2, 4)]
    losses = [loss_of(method, phase, part).total.item() for part in parts]
    assert loss_of(method, phase, batch).total.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_one_image_is_learnt_by_heart(tmp_path: Path) -> None:
    grid = torch.linspace(-1, 1, 8)
    image = 0.8 * torch.cos(3 * grid[:, None] + grid[None])[None, None]
    method = a_wgan(PLAIN, lr=3e-3, final_lr=0.0, critic_steps=2)
    x = generated(method, Repeated(image), 150, tmp_path, torch.zeros(16, 0))
    assert float((x - image).square().mean()) < 0.1 * float(image.var())


def test_batch_norms_are_refused_in_the_critic_alone() -> None:
    config = WGANGPConfig(latent_size=4)
    build(WGANGP, config, PLAIN, generator={"norm": "batch"})
    with pytest.raises(UsageError, match=r"networks\.discriminator\.norm"):
        build(WGANGP, config, PLAIN, discriminator={"norm": "batch"})
