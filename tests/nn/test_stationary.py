from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gyri.nn.stationary import StationaryGaussian

SHAPES = [(2, 12), (1, 10, 12), (2, 6, 8, 7)]
ALPHA, SIGMA = torch.tensor([1.0, 0.8, 0.3]), torch.tensor([0.2, 0.6, 0.95])


def fields(num: int, *shape: int, correlated: bool = True) -> Tensor:
    """White noise averaged along the last axis: its covariance is known."""
    x = torch.randn(num, *shape, generator=torch.Generator().manual_seed(0))
    return (x + x.roll(1, -1) + x.roll(-1, -1)) / 3 if correlated else x


@pytest.mark.parametrize("shape", SHAPES)
def test_white_field_has_a_flat_spectrum_and_is_shrunk_alike_everywhere(shape):
    gaussian = StationaryGaussian.fit(0.5 * fields(3000, *shape, correlated=False))
    torch.testing.assert_close(
        gaussian.amplitude, torch.full_like(gaussian.amplitude, 0.5), rtol=0.05, atol=0
    )
    assert gaussian.spectrum.min() > 0.85
    assert gaussian.spectrum.max() < 1.15
    x_noised = fields(3, *shape)
    gain = (ALPHA * 0.25 / (ALPHA**2 * 0.25 + SIGMA**2)).reshape(3, *(1 for _ in shape))
    denoised = gaussian.denoise(x_noised, ALPHA, SIGMA)
    torch.testing.assert_close(denoised, gain * x_noised, rtol=0.15, atol=0.03)


def test_stationary_field_is_denoised_by_its_posterior_mean():
    size = 16
    gaussian = StationaryGaussian.fit(fields(20_000, 1, size))
    band = torch.eye(size) + torch.eye(size).roll(1, 0) + torch.eye(size).roll(-1, 0)
    covariance = band @ band.T / 9
    x_noised = fields(3, 1, size) + 0.3
    denoised = gaussian.denoise(x_noised, ALPHA, SIGMA)
    for row, (a, s) in enumerate(zip(ALPHA, SIGMA)):
        marginal = a**2 * covariance + s**2 * torch.eye(size)
        want = a * covariance @ torch.linalg.solve(marginal, x_noised[row, 0])
        torch.testing.assert_close(denoised[row, 0], want, atol=0.02, rtol=0.05)


def test_each_place_is_shrunk_by_its_own_amplitude():
    amplitude = torch.tensor([0.2, 1.0]).repeat_interleave(20)
    gaussian = StationaryGaussian.fit(amplitude * fields(4000, 1, 40, correlated=False))
    x_noised = fields(200, 1, 40, correlated=False)
    ones = torch.ones(200)
    denoised = gaussian.denoise(x_noised, ones, 0.5 * ones)
    slope = (denoised * x_noised).mean((0, 1)) / x_noised.square().mean((0, 1))
    weak, strong = slope[2:18].mean(), slope[22:38].mean()
    assert float(weak) == pytest.approx(0.04 / 0.29, abs=0.03)
    assert float(strong) == pytest.approx(1.0 / 1.25, abs=0.05)


def test_where_nothing_varies_nothing_is_added():
    x = fields(50, 1, 8, 8)
    x[..., 4:] = 0
    gaussian = StationaryGaussian.fit(x)
    ones = torch.ones(2)
    assert gaussian.denoise(fields(2, 1, 8, 8), ones, ones)[..., 4:].abs().max() == 0
    nothing = StationaryGaussian.fit(torch.zeros(5, 1, 8, 8))
    assert nothing.denoise(fields(2, 1, 8, 8), ones, ones).abs().max() == 0


def test_tensors_round_trip():
    gaussian = StationaryGaussian.fit(fields(50, 1, 8, 8))
    again = StationaryGaussian.from_tensors(gaussian.tensors("p"), "p")
    x = fields(3, 1, 8, 8)
    assert torch.equal(again.denoise(x, ALPHA, SIGMA), gaussian.denoise(x, ALPHA, SIGMA))
