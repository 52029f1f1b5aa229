from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.methods.r3gan import (
    R3GAN,
    R3GANConfig,
    augmented,
    half_cosine,
    scaled_gamma,
    squared_norm,
    translated,
)
from gyri.networks.r3gan import R3GANDiscriminator, R3GANGenerator, R3GANNetworkConfig
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, Items, ItemSpec, Progress

START, END = Progress(0, 0, 0.0), Progress(1000, 64_000, 1.0)
LAYOUT = ConditionLayout(((0, 1),))
LN2 = math.log(2)


class Generator(nn.Module):
    def __init__(self, latent: int, channels: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out = (channels, *shape)
        self.of_z = nn.Linear(latent, math.prod(self.out), bias=False)

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        x = self.of_z(z).unflatten(1, self.out)
        told = condition.sum(1) if condition.shape[1] else z.new_zeros(len(z))
        if position is not None:
            told = told + 10 * position[:, 0]
        return x + told.reshape(-1, *[1] * len(self.out))


class Linear(nn.Module):
    """``D(x) = w . x + b``."""

    def __init__(self, channels: int, shape: tuple[int, ...], scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.w = nn.Parameter(scale * torch.randn(channels, *shape))
        self.b = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return (x * self.w).flatten(1).sum(1) + self.b


class Curved(Linear):
    """A critic with a slope that changes, and that reads the condition."""

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return torch.tanh(super().forward(x, condition, position)) * (1 + condition.sum(1))


def build(
    discriminator: nn.Module | None = None, shape: tuple[int, ...] = (4, 5, 6), **settings: Any
) -> R3GAN:
    torch.manual_seed(0)
    settings = {"latent_size": 8, "augment": 0.0, **settings}
    networks = {
        "generator": Generator(8, 1, shape),
        "discriminator": discriminator or Curved(1, shape, 0.2),
    }
    return R3GAN(R3GANConfig(**settings), ItemSpec(1, shape, condition=LAYOUT), networks)


def a_batch(size: int = 6, shape: tuple[int, ...] = (4, 5, 6)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        x=torch.randn(size, 1, *shape, generator=generator),
        condition=torch.randn(size, LAYOUT.size, generator=generator),
        position=None,
        subject=torch.arange(size),
        seed=torch.arange(size) + 7,
    )


def rearranged(batch: Batch, order: Tensor) -> Batch:
    return Batch(
        batch.x[order], batch.condition[order], None, batch.subject[order], batch.seed[order]
    )


def test_registration_and_phases() -> None:
    assert METHODS["r3gan"].component is R3GAN
    assert capabilities(R3GAN) == ["Sampler"]
    names = [(phase.name, phase.networks, phase.every, phase.repeats) for phase in R3GAN.phases]
    assert names == [
        ("discriminator", ("discriminator",), 1, 1),
        ("generator", ("generator",), 1, 1),
    ]


def test_constant_discriminator_gives_ln_2_and_no_penalty() -> None:
    method = build(Linear(1, (4, 5, 6), scale=0.0))
    batch = a_batch()
    for phase in ("discriminator", "generator"):
        loss = method.loss(phase, batch, START, SampleRng(batch.seed))
        assert loss.total.item() == pytest.approx(LN2, abs=1e-6)
        assert float(loss.logs["adversarial"]) == pytest.approx(LN2, abs=1e-6)
    logs = method.loss("discriminator", batch, START, SampleRng(batch.seed)).logs
    assert (float(logs["r1"]), float(logs["r2"])) == (0.0, 0.0)


def test_a_constant_added_to_the_discriminator_changes_nothing() -> None:
    batch = a_batch()
    results = []
    for constant in (0.0, 5.0):
        discriminator = Linear(1, (4, 5, 6), scale=0.1)
        with torch.no_grad():
            discriminator.b.fill_(constant)
        method = build(discriminator)
        loss = method.loss("discriminator", batch, START, SampleRng(batch.seed)).total
        (gradient,) = torch.autograd.grad(loss, discriminator.w)
        ours = method.loss("generator", batch, START, SampleRng(batch.seed)).total
        results.append((loss.detach(), gradient, ours.detach()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)])
def test_penalties_of_a_linear_discriminator_are_its_squared_norm(shape: tuple[int, ...]) -> None:
    # Summed over every axis: averaging the last one would divide by its length.
    discriminator = Linear(1, shape)
    method = build(discriminator, shape, gamma=3.0)
    batch = a_batch(shape=shape)
    loss = method.loss("discriminator", batch, START, SampleRng(batch.seed))
    norm = discriminator.w.square().sum().item()
    assert float(loss.logs["r1"]) == pytest.approx(norm, rel=1e-5)
    assert float(loss.logs["r2"]) == pytest.approx(norm, rel=1e-5)
    expected = float(loss.logs["adversarial"]) + 3.0 / 2 * 2 * norm
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_penalties_train_the_discriminator() -> None:
    # d/dw of gamma / 2 (R1 + R2) = 2 gamma w where D = w . x
    discriminator = Linear(1, (4, 5, 6))
    batch = a_batch()
    gradients = []
    for gamma in (0.0, 1.5):
        method = build(discriminator, gamma=gamma)
        total = method.loss("discriminator", batch, START, SampleRng(batch.seed)).total
        gradients.append(torch.autograd.grad(total, discriminator.w)[0])
    torch.testing.assert_close(gradients[1] - gradients[0], 2 * 1.5 * discriminator.w.detach())


def test_double_backward_is_right() -> None:
    w = torch.randn(6, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def penalty(x: Tensor, w: Tensor) -> Tensor:
        logits = torch.tanh(translated(x, torch.tensor([[1], [0], [-1]])).flatten(1) @ w)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return squared_norm(slope)

    assert torch.autograd.gradcheck(penalty, (x, w))


def test_pairs_may_be_reordered_together_but_not_apart() -> None:
    method, batch = build(), a_batch()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for phase in ("discriminator", "generator"):
        plain = method.loss(phase, batch, START, SampleRng(batch.seed)).total.item()
        moved = rearranged(batch, order)
        together = method.loss(phase, moved, START, SampleRng(moved.seed)).total.item()
        apart = method.loss(phase, batch, START, SampleRng(batch.seed[order])).total.item()
        assert together == pytest.approx(plain, rel=1e-5)
        assert apart != pytest.approx(plain, rel=1e-5)


def test_loss_is_the_mean_of_micro_batches() -> None:
    method, batch = build(augment=1.0), a_batch()
    for phase in ("discriminator", "generator"):
        whole = method.loss(phase, batch, END, SampleRng(batch.seed)).total.item()
        parts = [batch[slice(start, start + 3)] for start in (0, 3)]
        losses = [method.loss(phase, p, END, SampleRng(p.seed)).total.item() for p in parts]
        assert whole == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_each_phase_reaches_its_own_network() -> None:
    method, batch = build(augment=0.7), a_batch()
    generator, discriminator = (
        list(method.networks[name].parameters()) for name in ("generator", "discriminator")
    )
    total = method.loss("discriminator", batch, END, SampleRng(batch.seed)).total
    reached = torch.autograd.grad(total, generator + discriminator, allow_unused=True)
    assert reached[0] is None
    assert float(reached[1].abs().sum()) > 0
    total = method.loss("generator", batch, END, SampleRng(batch.seed)).total
    (slope,) = torch.autograd.grad(total, generator)
    assert float(slope.abs().sum()) > 0


def test_schedules_follow_the_horizon() -> None:
    method = build()
    middle = Progress(500, 32_000, 0.5)
    assert method.hyperparameters("generator", START) == {"lr": 2e-4, "betas": (0.0, 0.9)}
    end = method.hyperparameters("discriminator", END)
    assert end["lr"] == pytest.approx(5e-5)
    assert end["betas"] == pytest.approx((0.0, 0.99))
    assert method.hyperparameters("generator", middle)["lr"] == pytest.approx(1.25e-4)
    assert method.ema_half_life("generator", END) == pytest.approx(0.025 * 64_000)
    assert method.ema_half_life("generator", middle) == pytest.approx(0.0125 * 64_000)
    assert method.ema_half_life("generator", START) == pytest.approx(0, abs=1e-6)
    assert method.ema_half_life("discriminator", END) is None
    assert half_cosine(2.0, 1.0, 7.0) == 1.0


def test_gamma_falls_and_scales_with_voxels() -> None:
    assert scaled_gamma((64, 64)) == 2.0
    assert build().gamma == pytest.approx(2 * 4 * 5 * 6 / 4096)
    discriminator = Linear(1, (4, 5, 6))
    method, batch = build(discriminator, gamma=4.0), a_batch()
    norm = discriminator.w.square().sum().item()
    for progress, gamma in ((START, 4.0), (END, 0.4)):
        loss = method.loss("discriminator", batch, progress, SampleRng(batch.seed))
        penalty = (loss.total - loss.logs["adversarial"]).item()
        assert penalty == pytest.approx(gamma * norm, rel=1e-4)


def test_translation_is_by_whole_voxels_and_repeats_the_border() -> None:
    x = torch.arange(5.0).reshape(1, 1, 5, 1).repeat(3, 2, 1, 4)
    moved = translated(x, torch.tensor([[2, 0], [-1, 3], [0, 0]]))
    assert moved[0, 1, :, 0].tolist() == [0, 0, 0, 1, 2]
    assert moved[1, 0, :, 2].tolist() == [1, 2, 3, 4, 4]
    assert torch.equal(moved[2], x[2])


def test_augmentation_fires_with_its_probability() -> None:
    num = 600
    x = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)).expand(num, 1, 6, 6)
    for probability in (0.0, 0.2, 1.0):
        moved = augmented(x, SampleRng(torch.arange(num)), probability, 0.0, 0.2)
        changed = (moved - x).abs() > 1e-5
        share = float(changed.flatten(1).any(1).float().mean())
        assert share == pytest.approx(1 - (1 - probability) ** 2, abs=0.05)


def test_contrast_leaves_the_background_where_it_is() -> None:
    x = torch.full((200, 1, 4, 4), -1.0)
    moved = augmented(x, SampleRng(torch.arange(200)), 0.5, 0.2, 0.2)
    still = (moved == -1).flatten(1).all(1)
    assert float(still.float().mean()) == pytest.approx(0.5, abs=0.1)


def test_penalties_see_the_unaugmented_item() -> None:
    # Contrast multiplies the slope: R1 of an augmented linear critic is not ||w||^2.
    discriminator = Linear(1, (4, 5, 6))
    method, batch = build(discriminator, augment=1.0, translate=0.0), a_batch()
    logs = method.loss("discriminator", batch, END, SampleRng(batch.seed)).logs
    norm = discriminator.w.square().sum().item()
    assert float(logs["r1"]) != pytest.approx(norm, rel=1e-3)
    assert float(logs["r1"]) == pytest.approx(norm, rel=0.6)


class Slices:
    volume_shape = (1, 4, 5, 3)

    def encode(self, volumes: Tensor) -> Items:
        position = torch.linspace(-1, 1, 3)[:, None].repeat(len(volumes), 1)
        return Items(volumes.movedim(-1, 1).flatten(0, 1), position)

    def decode(self, items: Tensor) -> Tensor:
        return items.unflatten(0, (-1, 3)).movedim(1, -1)


@pytest.mark.parametrize("items_per_call", [2, 100])
def test_z_is_shared_by_the_items_of_a_volume_or_not(items_per_call: int) -> None:
    spec = ItemSpec(1, (4, 5), position_size=1, items_per_volume=3)
    torch.manual_seed(0)
    networks = {"generator": Generator(8, 1, (4, 5)), "discriminator": Linear(1, (4, 5))}
    for z_per, same in (("volume", True), ("item", False)):
        config = R3GANConfig(latent_size=8, z_per=z_per, items_per_call=items_per_call)
        method = R3GAN(config, spec, networks)
        x = method.sample(Slices(), torch.zeros(2, 0), SampleRng(torch.tensor([4, 5])))
        assert x.shape == (2, 1, 4, 5, 3)
        # the stand-in adds ten times the position
        texture = x - 10 * torch.linspace(-1, 1, 3)
        assert torch.allclose(texture[..., 0], texture[..., 2], atol=1e-4) is same
        alone = method.sample(Slices(), torch.zeros(1, 0), SampleRng(torch.tensor([5])))
        torch.testing.assert_close(alone[0], x[1])


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_checkpointing_changes_no_gradient_of_a_volume_at_all(phase: str) -> None:
    """Narrow where the grid is large; the penalties' second derivatives included."""
    spec = ItemSpec(1, (8, 16, 8), condition=LAYOUT)
    seed = torch.arange(2)
    gradients = []
    for checkpointing in (False, True):
        settings = R3GANNetworkConfig(
            widths=(16, 8, 4), group_size=4, gradient_checkpointing=checkpointing
        )
        specs = R3GAN.network_specs(R3GANConfig(), spec)
        torch.manual_seed(0)
        networks: dict[str, nn.Module] = {
            "generator": R3GANGenerator(settings, specs["generator"]),
            "discriminator": R3GANDiscriminator(settings, specs["discriminator"]),
        }
        with torch.no_grad():  # residual branches are nothing at init
            for parameter in networks[phase].parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        x, condition = torch.randn(2, 1, *spec.shape), torch.rand(2, LAYOUT.size)
        batch = Batch(x, condition, None, seed, seed)
        method = R3GAN(R3GANConfig(), spec, networks)
        method.loss(phase, batch, Progress(1, 2, 0.5), SampleRng(seed)).total.backward()
        gradients.append([p.grad for p in networks[phase].parameters()])
    assert all(torch.equal(kept, recomputed) for kept, recomputed in zip(*gradients))
