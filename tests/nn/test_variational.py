from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gyri.nn.variational import DiagonalGaussian, log_cosh


def gaussian(mean, std):
    return DiagonalGaussian(torch.tensor([mean]), 2 * torch.tensor([std]).log())


def test_divergence_of_equals_is_zero():
    p = gaussian([0.3, -2.0], [0.5, 3.0])
    assert p.kl(p).abs().max() < 1e-6


def test_divergence_is_that_of_many_draws():
    p, q = gaussian([0.5, -1.0], [0.7, 1.5]), gaussian([0.0, 0.4], [1.0, 0.8])
    z = p.at(torch.randn(1_000_000, 2, generator=torch.Generator().manual_seed(0)))

    def log_density(g, z):
        return torch.distributions.Normal(g.mean, (g.log_variance / 2).exp()).log_prob(z)

    drawn = (log_density(p, z) - log_density(q, z)).mean(0)
    assert torch.allclose(p.kl(q)[0], drawn, atol=0.01)


def test_parameters_are_kept_where_exponentials_are_finite():
    extreme = DiagonalGaussian.of(torch.tensor([[0.0, 1.0, -1e4, 1e4]]))
    assert torch.isfinite(extreme.kl(DiagonalGaussian.standard(extreme))).all()


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 100.0])
def test_log_cosh_is_even_exact_and_finite(sharpness):
    t = torch.linspace(-300, 300, 6001, dtype=torch.float64) / sharpness
    exact = np.log(np.cosh(sharpness * t.numpy())) / sharpness
    assert np.allclose(log_cosh(t, sharpness).numpy(), exact, atol=1e-10)
    assert torch.equal(log_cosh(t, sharpness), log_cosh(-t, sharpness))
    assert math.isfinite(log_cosh(torch.tensor(1e4), sharpness).item())


def test_slope_of_log_cosh_is_tanh():
    t = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_cosh(t, 2.0).sum(), t)
    assert torch.allclose(slope, torch.tanh(2 * t), atol=1e-12)


def test_log_cosh_of_unit_sharpness_is_nearly_half_the_square():
    one = log_cosh(torch.tensor(1.0)).item()
    assert one == pytest.approx(0.434, abs=1e-3)
    assert 0.87 * 0.5 - 0.003 < one < 0.5
