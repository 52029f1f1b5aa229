from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig, draw_volumes, first_noise, guided
from gyri.sampling.lifted import lifted
from gyri.sampling.samplers import dpmpp_2m
from gyri.sampling.schedules import Level, VPSchedule
from gyri.types import ConditionLayout, Items

from .oracle import MEAN, STD, gaussian_denoiser, noise

LEVELS = VPSchedule.build("linear", 1000).trailing(30)
PLAIN = SamplingConfig(clip=0)


class Whole:
    """One item a volume."""

    volume_shape = (1, 4, 5, 6)
    slice_axis: int | None = None
    lifts = True

    def encode(self, volumes: Tensor) -> Items:
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        return items


class Slabs:
    """Overlapping slabs of two slices along K, averaged where they overlap."""

    volume_shape = (1, 4, 5, 6)
    slice_axis: int | None = None
    lifts = True

    def encode(self, volumes: Tensor) -> Items:
        slabs = torch.stack([volumes[:, 0, ..., k : k + 2].movedim(-1, 1) for k in range(5)], 1)
        return Items(slabs.flatten(0, 1), torch.linspace(-1, 1, 5)[:, None].repeat(len(volumes), 1))

    def decode(self, items: Tensor) -> Tensor:
        slabs = items.unflatten(0, (-1, 5))
        volume, count = torch.zeros(len(slabs), 1, 4, 5, 6), torch.zeros(6)
        for k in range(5):
            volume[..., k : k + 2] += slabs[:, k].movedim(1, -1)[:, None]
            count[k : k + 2] += 1
        return volume / count


def oracle(x_noised: Tensor, level: Level, condition: Tensor, position: Tensor | None) -> Tensor:
    return gaussian_denoiser()(x_noised, level)


def test_lifted_by_the_identity_is_plain_sampling() -> None:
    rng = SampleRng(torch.tensor([1, 2, 3]))
    drawn = draw_volumes(oracle, Whole(), torch.zeros(3, 0), LEVELS, PLAIN, rng)
    rng = SampleRng(torch.tensor([1, 2, 3]))
    x = LEVELS[0].sigma * rng.normal(Whole.volume_shape)
    assert torch.equal(drawn, dpmpp_2m(gaussian_denoiser(), x, LEVELS, rng))


def test_overlapping_items_of_one_gaussian_give_that_gaussian() -> None:
    seeds = torch.arange(100)
    drawn = draw_volumes(
        oracle, Slabs(), torch.zeros(100, 0), LEVELS, replace(PLAIN, num_steps=30), SampleRng(seeds)
    )
    whole = draw_volumes(oracle, Whole(), torch.zeros(100, 0), LEVELS, PLAIN, SampleRng(seeds))
    torch.testing.assert_close(drawn, whole, rtol=1e-4, atol=1e-4)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("items_per_call", [1, 4, 1000])
def test_items_meet_their_own_volumes_condition_and_position(items_per_call: int) -> None:
    sizes: list[int] = []

    def told(x: Tensor, level: Level, condition: Tensor, position: Tensor | None) -> Tensor:
        assert position is not None
        sizes.append(len(x))
        return (10 * condition[:, :1] + position)[:, :, None, None].expand(x.shape)

    condition = torch.tensor([[1.0], [2.0]])
    denoised = lifted(told, Slabs(), condition, items_per_call)(noise(2, 1, 4, 5, 6), LEVELS[0])
    at = torch.linspace(-1, 1, 5)
    mixed = torch.cat([at[:1], (at[1:] + at[:-1]) / 2, at[-1:]])
    for row in (0, 1):
        torch.testing.assert_close(denoised[row, 0, 0, 0], 10 * condition[row] + mixed)
    assert max(sizes) <= items_per_call
    assert sum(sizes) == 10


def test_a_volume_depends_on_its_seed_and_not_on_its_company() -> None:
    def conditional(x: Tensor, level: Level, condition: Tensor, position: Tensor | None) -> Tensor:
        return gaussian_denoiser()(x, level) + 0.1 * condition[:, :1, None, None]

    condition = noise(5, 2)
    config = SamplingConfig(clip=0, sampler="ancestral", items_per_call=7)
    seeds = torch.tensor([11, 12, 13, 14, 15])
    five = draw_volumes(conditional, Slabs(), condition, LEVELS, config, SampleRng(seeds))
    one = draw_volumes(conditional, Slabs(), condition[3:4], LEVELS, config, SampleRng(seeds[3:4]))
    torch.testing.assert_close(five[3:4], one, rtol=1e-6, atol=1e-6)


class SideClassifier:
    """``log p(class | x) = +-4 mean(x)``; the class is in the condition's first column."""

    def target(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        return condition[:, :2].argmax(1), condition[:, :2].sum(1) > 0

    def log_prob(
        self, x_noised: Tensor, level: Level, target: Tensor, position: Tensor | None
    ) -> Tensor:
        return 4 * (2 * target - 1) * x_noised.flatten(1).sum(1) * level.alpha


def test_classifier_guidance_leaves_missing_targets_alone() -> None:
    layout = ConditionLayout(((0, 2),))
    condition = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    config = SamplingConfig(classifier_scale=0.5, clip=0)
    model = guided(oracle, layout, config, SideClassifier())
    x = noise(1, 1, 3, 3, 3).expand(3, 1, 3, 3, 3)
    plain = gaussian_denoiser()(x, LEVELS[5])
    moved = (model(x, LEVELS[5], condition, None) - plain).flatten(1).mean(1)
    assert moved[0] < 0 < moved[1]
    assert float(moved[2]) == 0.0


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="no classifier"):
        guided(oracle, ConditionLayout(), SamplingConfig(classifier_scale=1.0))
    with pytest.raises(UsageError, match="at least 1"):
        SamplingConfig(num_steps=0)
    with pytest.raises(UsageError, match="eta"):
        SamplingConfig(sampler="heun", eta=0.5)


class Slices:
    """Slices along J."""

    volume_shape = (1, 20, 6, 20)
    slice_axis = 1
    lifts = True

    def encode(self, volumes: Tensor) -> Items:
        return Items(volumes.movedim(3, 1).flatten(0, 1))

    def decode(self, items: Tensor) -> Tensor:
        return items.unflatten(0, (-1, 6)).movedim(1, 3)


def correlations(shared: float) -> Tensor:
    """Between the slices of drawn volumes, (6, 6)."""
    rng = SampleRng(torch.arange(8))
    config = replace(PLAIN, shared_noise=shared)
    drawn = draw_volumes(oracle, Slices(), torch.zeros(8, 0), LEVELS, config, rng)
    return torch.corrcoef(drawn[:, 0].movedim(2, 0).flatten(1))


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_slices_share_as_much_of_the_noise_as_asked_for(shared: float) -> None:
    expected = shared + (1 - shared) * torch.eye(6)
    assert torch.allclose(correlations(shared), expected, atol=0.08)


def test_shared_noise_leaves_every_slice_its_distribution() -> None:
    noise_of = first_noise(Slices(), 0.6, SampleRng(torch.arange(8)))
    assert abs(float(noise_of.std()) - 1) < 0.02
    of_slice = noise_of[:, 0].movedim(2, 1).flatten(0, 1)
    neighbours = (of_slice[:, 1:] * of_slice[:, :-1]).mean()
    assert abs(float(neighbours)) < 0.02


@pytest.mark.parametrize(
    "settings", [{"sampler": "ancestral"}, {"sampler": "ddim", "eta": 0.5}, {"shared_noise": 1.0}]
)
def test_shared_noise_that_cannot_last_is_refused(settings: dict) -> None:
    with pytest.raises(UsageError, match="shared_noise"):
        SamplingConfig(**{"shared_noise": 0.5, **settings})


def test_churn_does_not_go_with_shared_noise() -> None:
    with pytest.raises(UsageError, match="shared_noise"):
        SamplingConfig(shared_noise=0.5, sampler="heun", churn=10)


def test_shared_noise_needs_items_that_are_slices() -> None:
    with pytest.raises(UsageError, match="slice view"):
        first_noise(Whole(), 0.5, SampleRng(torch.arange(2)))
