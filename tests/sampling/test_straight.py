from __future__ import annotations

import math

import pytest
import torch

from gyri.runtime.streams import SampleRng
from gyri.sampling.samplers import Sampler, ddim
from gyri.sampling.schedules import CLEAN
from gyri.sampling.straight import shifted_time, straight_heun, straight_levels

from .oracle import MEAN, STD, exact_flow, gaussian_denoiser, noise


def one_stream() -> SampleRng:
    return SampleRng(torch.tensor([7]))


def moments(sampler: Sampler, num_steps: int, last: float | None) -> tuple[float, float]:
    """Mean and standard deviation that an ODE sampler gives: it is affine in the first noise."""
    start = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    levels = straight_levels(num_steps, last=last)
    low, high = sampler(gaussian_denoiser(), start, levels, one_stream()).flatten().tolist()
    return low, high - low


@pytest.mark.parametrize(
    ("sampler", "num_steps", "std"),
    [
        (ddim, 5, 0.340),
        (ddim, 10, 0.422),
        (ddim, 20, 0.463),
        (ddim, 50, 0.486),
        (straight_heun, 5, 0.507),
        (straight_heun, 10, 0.500),
    ],
)
def test_few_steps_keep_as_much_variance_as_other_packages_do(
    sampler: Sampler, num_steps: int, std: float
) -> None:
    """Of a Gaussian of 0.5, as measured with the flow schedulers of MONAI and diffusers."""
    mean, kept = moments(sampler, num_steps, last=1e-3)
    assert mean == pytest.approx(MEAN, abs=1e-6)
    assert kept == pytest.approx(std, abs=0.0025)


def test_even_steps_suit_euler_and_a_short_last_one_suits_heun() -> None:
    def error(sampler: Sampler, last: float | None) -> float:
        return abs(moments(sampler, 5, last)[1] - STD)

    assert error(ddim, None) < error(ddim, 1e-3)
    assert error(straight_heun, 1e-3) < error(straight_heun, None) / 5


@pytest.mark.parametrize("sampler", [ddim, straight_heun])
def test_the_endpoint_is_the_mean_and_a_multiple_of_the_noise(sampler: Sampler) -> None:
    z = noise(1, 1, 4, 4, 4).double()
    x = sampler(gaussian_denoiser(), z, straight_levels(2000), one_stream())
    torch.testing.assert_close(x, MEAN + STD * z, rtol=0, atol=3e-3)


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (straight_heun, 2)])
def test_order_of_convergence(sampler: Sampler, order: int) -> None:
    x = noise(1, 1, 3, 3, 3).double()

    def global_error(n: int) -> float:
        levels = straight_levels(2 * n)[: n + 1]  # from noise half of the way
        sampled = sampler(gaussian_denoiser(), x, levels, one_stream())
        return float((sampled - exact_flow(x, levels[0], levels[-1])).abs().max())

    slope = math.log2(global_error(40) / global_error(80))
    assert slope == pytest.approx(order, abs=0.2)


def test_euler_follows_the_velocity() -> None:
    """``x + (t' - t) (eps - x0)`` is what `ddim` does on these levels."""
    levels = straight_levels(3)
    x = noise(2, 1, 2, 3, 4)
    v = x - gaussian_denoiser()(x, levels[0])
    by_hand = x + (levels[1].sigma - 1.0) * v
    torch.testing.assert_close(
        ddim(gaussian_denoiser(), x, levels[:2], one_stream()), by_hand, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("last", [None, 1e-3])
def test_levels_run_from_pure_noise_to_clean(last: float | None) -> None:
    levels = straight_levels(4, shift=3.0, spread=0.4, last=last)
    assert levels[0] == (0.0, 0.4)
    assert levels[-1] == CLEAN
    assert len(levels) == 5
    assert all(level.alpha + level.sigma / 0.4 == pytest.approx(1.0) for level in levels)
    assert [level.sigma for level in levels] == sorted((l.sigma for l in levels), reverse=True)
    assert levels[-2].sigma == pytest.approx(0.4 * shifted_time(last or 0.25, 3.0))
    assert straight_levels(1, last=last) == [(0.0, 1.0), CLEAN]


def test_the_shift_multiplies_the_ratio_of_noise_to_signal() -> None:
    t = torch.tensor([0.0, 0.2, 0.5, 1.0])
    moved = shifted_time(t, 2.0)
    torch.testing.assert_close(moved[1:3] / (1 - moved[1:3]), 2 * t[1:3] / (1 - t[1:3]))
    assert moved[[0, -1]].tolist() == [0.0, 1.0]
    torch.testing.assert_close(shifted_time(t, 1.0), t)
