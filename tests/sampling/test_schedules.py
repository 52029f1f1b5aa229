from __future__ import annotations

import math

import pytest
import torch

from gyri.errors import UsageError
from gyri.sampling.preconditioning import noise_level
from gyri.sampling.schedules import (
    CLEAN,
    VPSchedule,
    cosine_betas,
    karras_levels,
    linear_betas,
    log_snr_alpha_bar,
    trailing_indices,
)


@pytest.mark.parametrize("name", ["linear", "cosine", "log_snr"])
@pytest.mark.parametrize("num_steps", [100, 250, 1000, 2000])
def test_schedules_reach_noise_for_every_number_of_steps(name: str, num_steps: int) -> None:
    # MONAI's linear schedule, not rescaled, leaves abar = 0.08 at T = 250.
    schedule = VPSchedule.build(name, num_steps)
    assert float(schedule.alpha_bar[-1]) < 1e-4
    assert bool((schedule.alpha_bar.diff() < 0).all())


def test_linear_schedule_is_that_of_ddpm_at_a_thousand_steps() -> None:
    betas = linear_betas(1000)
    assert float(betas[0]) == pytest.approx(1e-4, rel=1e-12)
    assert float(betas[-1]) == pytest.approx(0.02, rel=1e-12)
    assert float(VPSchedule.build("linear", 1000).alpha_bar[-1]) == pytest.approx(4.04e-5, rel=1e-2)


def test_cosine_schedule_follows_its_definition_up_to_the_cap() -> None:
    betas = cosine_betas(1000)
    alpha_bar = torch.cumprod(1 - betas, 0)
    u = (torch.arange(1, 1001, dtype=torch.float64) / 1000 + 0.008) / 1.008
    closed = torch.cos(u * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(alpha_bar[:-1], closed[:-1], rtol=1e-10, atol=1e-14)
    assert float(betas.max()) == 0.999


@pytest.mark.parametrize("num_steps", [2, 256, 1000])
def test_log_snr_schedule_follows_its_definition(num_steps: int) -> None:
    schedule = VPSchedule.build("log_snr", num_steps)
    # lambda at tenths of the way, from the published formula worked out by hand
    for u, log_snr in ((0.0, 20.0), (0.1, 3.68), (0.5, 0.0), (0.9, -3.68), (1.0, -20.0)):
        assert schedule.at(u).log_snr == pytest.approx(log_snr, abs=5e-3)
    u = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    b = math.atan(math.exp(-10))
    log_snr = -2 * torch.tan((math.atan(math.exp(10)) - b) * u + b).log()
    torch.testing.assert_close(schedule.alpha_bar, log_snr.sigmoid(), rtol=1e-9, atol=1e-14)


def test_log_snr_schedule_takes_other_ends() -> None:
    alpha_bar = log_snr_alpha_bar(11, log_snr_min=-6.0, log_snr_max=9.0)
    ends = (alpha_bar / (1 - alpha_bar)).log()[[0, -1]].tolist()
    assert ends == pytest.approx([9.0, -6.0], abs=1e-9)


def test_networks_are_told_the_log_snr_of_every_step() -> None:
    schedule = VPSchedule.build("log_snr", 256)
    told = noise_level(*schedule.coefficients(torch.arange(256)))
    expected = [-schedule.level(index).log_snr / 8 for index in range(256)]
    torch.testing.assert_close(told, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert bool((told.diff() > 0).all())


@pytest.mark.parametrize("name", ["linear", "cosine", "log_snr"])
@pytest.mark.parametrize("num_steps", [1000, 300, 50, 7, 1])
def test_respaced_betas_reproduce_alpha_bar(name: str, num_steps: int) -> None:
    schedule = VPSchedule.build(name, 1000)
    levels = schedule.trailing(num_steps)
    assert len(levels) == num_steps + 1
    assert levels[-1] == CLEAN
    kept = torch.tensor([level.alpha**2 for level in reversed(levels)], dtype=torch.float64)
    betas = 1 - kept[1:] / kept[:-1]
    rebuilt = torch.cumprod(1 - betas, 0)
    original = schedule.alpha_bar[sorted(trailing_indices(1000, num_steps))]
    torch.testing.assert_close(rebuilt, original, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_steps", [1000, 999, 50, 3, 1])
def test_trailing_indices_start_at_the_last_and_never_repeat(num_steps: int) -> None:
    indices = trailing_indices(1000, num_steps)
    assert indices[0] == 999
    assert len(set(indices)) == num_steps
    assert indices == sorted(indices, reverse=True)


def test_leading_levels_end_at_the_first_index_as_the_brain_ldm_was_sampled() -> None:
    schedule = VPSchedule.build("scaled_linear", 1000)
    levels = schedule.leading(50)
    assert levels[:-1] == [schedule.level(i) for i in range(980, -1, -20)]
    assert levels[-1] == CLEAN
    with pytest.raises(UsageError, match="between 1 and the 1000"):
        schedule.leading(1001)


def test_scaled_linear_schedule_is_that_of_the_brain_ldm() -> None:
    roots = [0.0015**0.5 + i / 999 * (0.0205**0.5 - 0.0015**0.5) for i in range(1000)]
    expected = math.prod(1 - root**2 for root in roots)
    assert float(VPSchedule.build("scaled_linear", 1000).alpha_bar[-1]) == pytest.approx(expected)
    with pytest.raises(UsageError, match="scaled_linear schedule needs more than 20"):
        VPSchedule.build("scaled_linear", 20)


def test_more_steps_than_the_schedule_has_are_refused() -> None:
    with pytest.raises(UsageError, match="between 1 and the 100"):
        VPSchedule.build("cosine", 100).trailing(101)


@pytest.mark.parametrize("name", ["linear", "cosine", "log_snr"])
def test_zero_terminal_snr_ends_in_noise_and_keeps_the_first_step(name: str) -> None:
    plain = VPSchedule.build(name, 1000)
    zero = VPSchedule.build(name, 1000, zero_terminal_snr=True)
    assert float(zero.alpha_bar[-1]) == 0.0
    assert float(zero.alpha_bar[0]) == pytest.approx(float(plain.alpha_bar[0]), abs=1e-14)
    assert zero.level(-1).log_snr == -math.inf
    assert zero.trailing(10)[0].alpha == 0.0


def test_shift_moves_the_log_snr_of_every_step() -> None:
    plain = VPSchedule.build("linear", 1000)
    moved = VPSchedule.build("linear", 1000, log_snr_shift=-math.log(7))
    for index in (0, 300, 999):
        before, after = plain.level(index).log_snr, moved.level(index).log_snr
        assert after - before == pytest.approx(-math.log(7), abs=1e-9)


def test_a_schedule_that_does_not_reach_noise_is_refused_unless_chosen() -> None:
    with pytest.raises(UsageError, match="zero_terminal_snr"):
        VPSchedule.build("linear", 1000, log_snr_shift=4.0)
    chosen = VPSchedule.build("linear", 1000, log_snr_shift=4.0, max_terminal=0.1)
    assert float(chosen.alpha_bar[-1]) > 1e-3
    VPSchedule.build("linear", 1000, log_snr_shift=4.0, zero_terminal_snr=True)


def test_too_short_linear_schedule_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 20"):
        VPSchedule.build("linear", 20)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_continuous_time_meets_the_discrete_steps(zero_terminal_snr: bool) -> None:
    schedule = VPSchedule.build("linear", 1000, zero_terminal_snr=zero_terminal_snr)
    for index in (0, 1, 500, 999):
        discrete, continuous = schedule.level(index), schedule.at(index / 999)
        assert continuous == pytest.approx(discrete, abs=1e-10)
    between = [schedule.at(u / 4321) for u in range(4322)]
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-12) for level in between)
    sigmas = [level.sigma for level in between]
    assert sigmas == sorted(sigmas)


def test_coefficients_of_a_batch_are_the_levels() -> None:
    schedule = VPSchedule.build("cosine", 100)
    alpha, sigma = schedule.coefficients(torch.tensor([0, 40, 99]))
    assert alpha.dtype == torch.float32
    for row, index in enumerate((0, 40, 99)):
        level = schedule.level(index)
        assert (float(alpha[row]), float(sigma[row])) == pytest.approx(level, rel=1e-6)


def test_karras_levels_run_from_sigma_max_to_sigma_min() -> None:
    levels = karras_levels(18)
    assert levels[0].sigma == pytest.approx(80)
    assert levels[-2].sigma == pytest.approx(0.002)
    assert levels[-1] == CLEAN
    # equation 5 at the middle, by hand
    root = [80 ** (1 / 7), 0.002 ** (1 / 7)]
    assert levels[5].sigma == pytest.approx((root[0] + 5 / 17 * (root[1] - root[0])) ** 7)
    with pytest.raises(UsageError, match="sigma_min"):
        karras_levels(10, sigma_min=2.0, sigma_max=1.0)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", ["linear", "cosine", "log_snr"])
def test_karras_spacing_of_a_schedule_starts_at_its_noise(
    name: str, zero_terminal_snr: bool
) -> None:
    schedule = VPSchedule.build(name, 1000, zero_terminal_snr=zero_terminal_snr)
    levels = schedule.karras(20)
    assert len(levels) == 21
    assert levels[0] == schedule.level(-1)
    assert levels[1].ratio == pytest.approx(80)
    assert levels[-2].ratio == pytest.approx(max(schedule.level(0).ratio, 0.002))
    assert levels[-1] == CLEAN
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in levels)
    narrow = schedule.karras(20, sigma_max=math.inf if not zero_terminal_snr else 50.0)
    assert narrow[0].ratio == pytest.approx(schedule.level(-1).ratio)
