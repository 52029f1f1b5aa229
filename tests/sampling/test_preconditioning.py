from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gyri.sampling.preconditioning import (
    SCALINGS,
    edm_scaling,
    eps_scaling,
    min_snr_weight,
    noise_level,
    over_items,
    v_scaling,
    x0_scaling,
)
from gyri.sampling.schedules import VPSchedule

from .oracle import noise


def coefficients() -> tuple[Tensor, Tensor]:
    return VPSchedule.build("cosine", 1000).coefficients(torch.tensor([20, 300, 600, 900]))


def test_true_targets_give_the_clean_item_back() -> None:
    alpha, sigma = coefficients()
    x, eps = noise(4, 1, 3, 4, 5), noise(4, 1, 3, 4, 5, seed=1)
    a, s = over_items(alpha, x), over_items(sigma, x)
    x_noised = a * x + s * eps
    targets = {"eps": eps, "x0": x, "v": a * eps - s * x}
    for name, target in targets.items():
        scaling = SCALINGS[name](alpha, sigma, 0.5)
        denoised = over_items(scaling.c_skip, x) * x_noised + over_items(scaling.c_out, x) * target
        torch.testing.assert_close(denoised, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("other", ["eps", "v", "edm"])
def test_round_trip_between_parameterisations(other: str) -> None:
    alpha, sigma = (c.double() for c in coefficients())
    x_noised, denoised = noise(4, 2, 3, 3).double(), noise(4, 2, 3, 3, seed=1).double()
    scaling = SCALINGS[other](alpha, sigma, 0.5)
    skip, out = over_items(scaling.c_skip, x_noised), over_items(scaling.c_out, x_noised)
    predicted = (denoised - skip * x_noised) / out
    torch.testing.assert_close(skip * x_noised + out * predicted, denoised, rtol=1e-5, atol=1e-5)


def test_min_snr_weights_are_the_published_ones() -> None:
    alpha, sigma = coefficients()
    snr = (alpha / sigma) ** 2
    published = {
        "eps": snr.clamp_max(5) / snr,
        "x0": snr.clamp_max(5),
        "v": snr.clamp_max(5) / (snr + 1),
    }
    for scaling, name in ((eps_scaling, "eps"), (x0_scaling, "x0"), (v_scaling, "v")):
        weight = min_snr_weight(alpha, sigma, scaling(alpha, sigma, 0.5).c_out)
        torch.testing.assert_close(weight, published[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma_data", [0.2, 0.5, 1.7])
@pytest.mark.parametrize("level", [0.01, 0.3, 1.0, 20.0])
def test_edm_input_and_target_have_unit_variance(sigma_data: float, level: float) -> None:
    x = sigma_data * noise(2, 1, 30, 30, 30)
    eps = noise(2, 1, 30, 30, 30, seed=1)
    alpha, sigma = torch.ones(2), torch.full((2,), level)
    x_noised = x + level * eps
    c_skip, c_out, c_in = (over_items(c, x) for c in edm_scaling(alpha, sigma, sigma_data))
    target = (x - c_skip * x_noised) / c_out
    assert float((c_in * x_noised).std()) == pytest.approx(1.0, abs=0.02)
    assert float(target.std()) == pytest.approx(1.0, abs=0.02)


def test_edm_of_unit_variance_data_is_v_with_the_sign_turned() -> None:
    alpha, sigma = coefficients()
    edm, v = edm_scaling(alpha, sigma, 1.0), v_scaling(alpha, sigma, 1.0)
    torch.testing.assert_close(edm.c_skip, v.c_skip)
    torch.testing.assert_close(edm.c_out, -v.c_out)


def test_coefficients_multiply_items_and_not_channels() -> None:
    # Two items of one channel in 3D: a rank-4 shape would broadcast the batch over channels.
    x = torch.ones(2, 1, 3, 4, 5)
    scaled = over_items(torch.tensor([2.0, 3.0]), x) * x
    assert scaled.shape == x.shape
    assert bool((scaled[0] == 2).all())
    assert bool((scaled[1] == 3).all())


def test_noise_level_is_that_of_edm_and_finite_everywhere() -> None:
    sigma = torch.tensor([0.002, 1.0, 80.0])
    torch.testing.assert_close(noise_level(torch.ones(3), sigma), sigma.log() / 4)
    # the same ratio in a variance-preserving process
    total = (1 + sigma**2).sqrt()
    torch.testing.assert_close(noise_level(1 / total, sigma / total), sigma.log() / 4)
    ends = noise_level(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(ends, torch.tensor([2.5, -2.5]))
    assert math.isfinite(float(ends.sum()))
