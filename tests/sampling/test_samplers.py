from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.runtime.streams import SampleRng
from gyri.sampling.samplers import (
    Churn,
    Sampler,
    ancestral,
    clipped,
    ddim,
    dpmpp_2m,
    euler,
    heun,
    make_sampler,
    posterior_std,
)
from gyri.sampling.schedules import CLEAN, Level, VPSchedule, karras_levels

from .oracle import MEAN, STD, exact_flow, gaussian_denoiser, noise

ODE = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "euler": euler, "heun": heun}


def one_stream() -> SampleRng:
    return SampleRng(torch.tensor([7]))


def moments(sampler: Sampler, levels: list[Level]) -> tuple[float, float]:
    """Mean and standard deviation that an ODE sampler gives: it is affine in the first noise."""
    start = levels[0].sigma * torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    low, high = sampler(gaussian_denoiser(), start, levels, one_stream()).flatten().tolist()
    return low, high - low


def error(sampler: Sampler, levels: list[Level]) -> float:
    mean, std = moments(sampler, levels)
    return abs(mean - MEAN) + abs(std - STD)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_gaussian_oracle_on_a_schedule(name: str, sampler: Sampler) -> None:
    schedule = VPSchedule.build(name, 1000)
    errors = [error(sampler, schedule.trailing(n)) for n in (5, 10, 20, 50, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_gaussian_oracle_from_zero_terminal_snr(sampler: Sampler) -> None:
    schedule = VPSchedule.build("linear", 1000, zero_terminal_snr=True)
    errors = [error(sampler, schedule.trailing(n)) for n in (5, 10, 20, 50, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.005


@pytest.mark.parametrize("sampler", [euler, heun])
def test_gaussian_oracle_on_karras_levels(sampler: Sampler) -> None:
    errors = [error(sampler, karras_levels(n)) for n in (5, 10, 20, 50, 500)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_gaussian_oracle_with_step_noise(eta: float) -> None:
    schedule = VPSchedule.build("linear", 1000)
    x = noise(1, 1, 30, 30, 30)
    errors = []
    for n in (5, 20, 100, 400):
        sampled = ddim(gaussian_denoiser(), x, schedule.trailing(n), one_stream(), eta=eta)
        errors.append(abs(float(sampled.std()) - STD))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02
    assert float(sampled.mean()) == pytest.approx(MEAN, abs=0.02)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_ancestral_sampling_is_right_for_any_number_of_steps(name: str) -> None:
    # A posterior step of the wrong length inflates the variance (MONAI: 0.94 at 50 steps).
    schedule = VPSchedule.build(name, 1000)
    x = noise(1, 1, 30, 30, 30)
    errors = []
    for n in (5, 10, 20, 50, 500):
        sampled = ancestral(gaussian_denoiser(), x, schedule.trailing(n), one_stream())
        errors.append(abs(float(sampled.std()) - STD))
        assert float(sampled.std()) < STD + 0.01
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_ancestral_sampling_is_ddim_at_full_randomness() -> None:
    for zero in (False, True):
        levels = VPSchedule.build("linear", 1000, zero_terminal_snr=zero).trailing(25)
        x = noise(1, 1, 4, 4, 4)
        one = ancestral(gaussian_denoiser(), x, levels, one_stream())
        other = ddim(gaussian_denoiser(), x, levels, one_stream(), eta=1.0)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_posterior_variance_is_the_papers_for_neighbouring_steps() -> None:
    schedule = VPSchedule.build("linear", 1000)
    for t in (1, 500, 999):
        abar, before = schedule.alpha_bar[t], schedule.alpha_bar[t - 1]
        tilde = (1 - abar / before) * (1 - before) / (1 - abar)
        assert posterior_std(schedule.level(t), schedule.level(t - 1)) ** 2 == pytest.approx(
            float(tilde), rel=1e-9
        )


def log_uniform(n: int) -> list[Level]:
    """n steps, even in log-SNR, between noise and a level where the ODE is still smooth."""
    ratios = torch.logspace(1, -1, n + 1, dtype=torch.float64).tolist()
    return [Level(1 / math.hypot(1, r), r / math.hypot(1, r)) for r in ratios]


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(ddim, 1), (euler, 1), (heun, 2), (dpmpp_2m, 2)],
    ids=["ddim", "euler", "heun", "dpmpp_2m"],
)
def test_order_of_convergence(sampler: Sampler, order: int) -> None:
    x = noise(1, 1, 3, 3, 3).double() * 2

    def global_error(n: int) -> float:
        levels = log_uniform(n)
        sampled = sampler(gaussian_denoiser(), x, levels, one_stream())
        return float((sampled - exact_flow(x, levels[0], levels[-1])).abs().max())

    slope = math.log2(global_error(80) / global_error(160))
    assert slope == pytest.approx(order, abs=0.2)


def test_edm_orders_at_the_published_number_of_steps() -> None:
    # 18 and 36 steps of the toy in the EDM notes: Heun gains far more than Euler.
    errors = {name: [error(ODE[name], karras_levels(n)) for n in (18, 36)] for name in ODE}
    assert errors["heun"][0] < errors["euler"][0] / 2
    assert errors["heun"][1] < errors["euler"][1] / 4


def test_euler_and_ddim_are_the_same_step_in_other_coordinates() -> None:
    levels = VPSchedule.build("cosine", 1000).trailing(13)
    x = noise(2, 1, 3, 4, 5)
    one = ddim(gaussian_denoiser(), x, levels, one_stream())
    torch.testing.assert_close(
        euler(gaussian_denoiser(), x.double(), levels, one_stream()).float(),
        one,
        rtol=1e-4,
        atol=1e-4,
    )


def test_ddim_inverts_and_returns() -> None:
    levels = VPSchedule.build("linear", 1000).trailing(500)[:-1]
    x = MEAN + STD * noise(1, 1, 4, 4, 4).double()
    inverted = ddim(gaussian_denoiser(), x, levels[::-1], one_stream())
    back = ddim(gaussian_denoiser(), inverted, levels, one_stream())
    assert float((back - x).abs().max()) < 0.02
    assert float(inverted.std()) == pytest.approx(1.0, abs=0.2)


def test_churn_keeps_the_distribution() -> None:
    x = 80 * noise(1, 1, 40, 40, 40)
    churn = Churn(amount=40, sigma_min=0.05, sigma_max=50)
    sampled = heun(gaussian_denoiser(), x, karras_levels(60), one_stream(), churn)
    still = heun(gaussian_denoiser(), x, karras_levels(60), one_stream())
    assert float(sampled.std()) == pytest.approx(STD, abs=0.02)
    assert float(sampled.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float((sampled - still).abs().mean()) > 0.1


def test_clipping_changes_the_noise_that_is_carried_on() -> None:
    here, there = Level(0.6, 0.8), Level(0.8, 0.6)
    x = torch.full((1, 1, 2, 2, 2), 3.0)

    def far(x_noised: Tensor, level: Level) -> Tensor:
        return torch.full_like(x_noised, 4.0)

    step = ddim(clipped(far, 1.0), x, [here, there], one_stream())
    eps = (3.0 - 0.6 * 1.0) / 0.8
    torch.testing.assert_close(step, torch.full_like(x, 0.8 * 1.0 + 0.6 * eps))
    torch.testing.assert_close(clipped(far, 0.0)(x, here), torch.full_like(x, 4.0))


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "ancestral", "heun", "euler"])
def test_a_sample_depends_on_its_own_stream_alone(name: str) -> None:
    sampler = make_sampler(
        name,
        eta=0.5 if name == "ddim" else 0.0,
        churn=Churn(amount=10 if name in ("heun", "euler") else 0),
    )
    levels = karras_levels(8)
    together = SampleRng(torch.tensor([3, 4, 5]))
    alone = SampleRng(torch.tensor([4]))
    three = sampler(gaussian_denoiser(), together.normal((1, 3, 3, 3)), levels, together)
    one = sampler(gaussian_denoiser(), alone.normal((1, 3, 3, 3)), levels, alone)
    assert torch.equal(three[1:2], one)


def test_settings_that_a_sampler_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="eta is a setting of ddim"):
        make_sampler("heun", eta=1.0)
    with pytest.raises(UsageError, match="churn"):
        make_sampler("ddim", churn=Churn(amount=1.0))
    with pytest.raises(UsageError, match="zero terminal SNR"):
        heun(gaussian_denoiser(), noise(1, 1, 2, 2, 2), [Level(0.0, 1.0), CLEAN], one_stream())


def test_rank_limited_network_on_stacked_channels() -> None:
    """A narrow last layer ruins eps-prediction of channel stacks and spares x0-prediction.

    176 slices of standard deviation 0.5, correlated over 6 slices, are denoised by the best linear
    network whose output has 128 directions, 100 DDIM steps, linear schedule.
    """
    from gyri.sampling.preconditioning import SCALINGS

    depth, rank = 176, 128
    distance = torch.arange(depth, dtype=torch.float64)
    covariance = 0.25 * torch.exp(-((distance[:, None] - distance) ** 2) / (2 * 6.0**2))
    variance = torch.linalg.eigvalsh(covariance).clamp_min(0)
    levels = VPSchedule.build("linear", 1000).trailing(100)

    def final_std(prediction: str) -> float:
        def denoiser(x_noised: Tensor, level: Level) -> Tensor:
            alpha, sigma = (torch.tensor([c], dtype=torch.float64) for c in level)
            scaling = SCALINGS[prediction](alpha, sigma, 0.5)
            total = alpha**2 * variance + sigma**2
            gain = (alpha * variance / total - scaling.c_skip) / scaling.c_out
            reached = (gain**2 * total).argsort(descending=True)[:rank]
            network = torch.zeros_like(gain)
            network[reached] = gain[reached]
            return (scaling.c_skip + scaling.c_out * network) * x_noised

        # The sampler is linear and diagonal here, so unit noise shows each direction's growth.
        growth = ddim(denoiser, torch.ones(1, depth, dtype=torch.float64), levels, one_stream())
        return float(growth.square().mean().sqrt())

    result = {name: final_std(name) for name in SCALINGS}
    assert result["eps"] > 50
    assert result["v"] == pytest.approx(0.57, abs=0.1)
    assert result["x0"] == pytest.approx(0.493, abs=0.01)
    assert result["edm"] < 0.6


def test_karras_spacing_keeps_fine_detail_that_trailing_spacing_loses() -> None:
    schedule = VPSchedule.build("cosine", 1000)
    start = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1)

    def kept(levels: list[Level]) -> float:
        x = dpmpp_2m(gaussian_denoiser(std=0.05), start, levels, one_stream()).flatten()
        return float(x[1] - x[0]) / 0.05

    assert kept(schedule.trailing(25)) < 0.6
    assert kept(schedule.karras(25)) == pytest.approx(1.0, abs=0.05)
