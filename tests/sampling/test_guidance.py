from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from gyri.runtime.streams import SampleRng
from gyri.sampling.guidance import classifier_free, classifier_guided
from gyri.sampling.samplers import ddim
from gyri.sampling.schedules import CLEAN, Level, VPSchedule

from .oracle import gaussian_denoiser, noise

LEVEL = Level(0.8, 0.6)


class Counted:
    """A model that remembers how it was called."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.sizes: list[int] = []

    def __call__(self, x_noised: Tensor, level: Level, condition: Tensor) -> Tensor:
        self.sizes.append(len(x_noised))
        with torch.no_grad():
            return torch.tanh(x_noised) + self.layer(condition)[:, :, None, None]


def test_classifier_free_guidance_at_one_and_zero_is_the_model_bit_for_bit() -> None:
    model = Counted()
    x = noise(5, 1, 4, 4)
    condition, null = noise(5, 3, seed=1), torch.zeros(5, 3)
    at_one = classifier_free(model, x, LEVEL, condition, null, 1.0)
    at_zero = classifier_free(model, x, LEVEL, condition, null, 0.0)
    assert torch.equal(at_one, model(x, LEVEL, condition))
    assert torch.equal(at_zero, model(x, LEVEL, null))
    assert model.sizes == [5] * 4


def test_classifier_free_guidance_extrapolates_in_one_call() -> None:
    model = Counted()
    x = noise(5, 1, 4, 4)
    condition, null = noise(5, 3, seed=1), torch.zeros(5, 3)
    guided = classifier_free(model, x, LEVEL, condition, null, 2.5)
    assert model.sizes == [10]
    given, free = model(x, LEVEL, condition), model(x, LEVEL, null)
    torch.testing.assert_close(guided, free + 2.5 * (given - free))


def two_classes(x_noised: Tensor, level: Level) -> Tensor:
    """``log p(y = 1 | x_noised)`` of x ~ N(-1, 0.25) or N(1, 0.25), both as likely."""
    spread = (level.alpha**2 * 0.25 + level.sigma**2) ** 0.5
    low = Normal(-level.alpha, spread).log_prob(x_noised)
    high = Normal(level.alpha, spread).log_prob(x_noised)
    return (high - torch.logaddexp(low, high)).flatten(1).sum(1)


def mixture_denoiser(x_noised: Tensor, level: Level) -> Tensor:
    p = torch.exp(two_classes(x_noised.reshape(-1, 1), level)).reshape(x_noised.shape)
    low, high = gaussian_denoiser(-1.0, 0.5), gaussian_denoiser(1.0, 0.5)
    return (1 - p) * low(x_noised, level) + p * high(x_noised, level)


@pytest.mark.parametrize("level", [LEVEL, Level(1.0, 0.7), Level(0.1, 0.995)])
def test_exact_classifier_turns_a_mixture_into_its_class(level: Level) -> None:
    x = noise(6, 1, 1, 1) * 2
    guided = classifier_guided(mixture_denoiser(x, level), x, level, two_classes, 1.0)
    torch.testing.assert_close(guided, gaussian_denoiser(1.0, 0.5)(x, level), rtol=1e-4, atol=1e-4)


def test_classifier_guidance_moves_the_mean_by_the_closed_form() -> None:
    # N(0, s^2) guided by log p(y | x) = b x + const becomes N(scale b s^2, s^2).
    s, b, scale = 0.5, 0.8, 1.5

    def log_prob(x_noised: Tensor, level: Level) -> Tensor:
        # E[exp(b x) | x_noised] for a Gaussian x: slope b alpha s^2 / (alpha^2 s^2 + sigma^2)
        slope = b * level.alpha * s**2 / (level.alpha**2 * s**2 + level.sigma**2)
        return slope * x_noised.flatten(1).sum(1)

    plain = gaussian_denoiser(0.0, s)

    def denoiser(x_noised: Tensor, level: Level) -> Tensor:
        return classifier_guided(plain(x_noised, level), x_noised, level, log_prob, scale)

    schedule = VPSchedule.build("linear", 1000)
    sampled = ddim(
        denoiser, noise(1, 1, 20, 20, 20), schedule.trailing(500), SampleRng(torch.tensor([0]))
    )
    assert float(sampled.mean()) == pytest.approx(scale * b * s**2, abs=0.02)
    assert float(sampled.std()) == pytest.approx(s, abs=0.02)


def test_pure_noise_is_not_guided() -> None:
    x = noise(2, 1, 2, 2)
    guided = classifier_guided(x, x, Level(0.0, 1.0), two_classes, 3.0)
    assert torch.equal(guided, x)
    assert torch.equal(classifier_guided(x, x, CLEAN, two_classes, 0.0), x)
