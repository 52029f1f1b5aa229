from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.nn.gaussian import LowRankGaussian
from gyri.sampling.prior import RATIOS, GaussianPrior

from .oracle import noise

N, D, Q = 60, 40, 6


@pytest.fixture(scope="module")
def x() -> Tensor:
    return noise(N, Q) @ noise(Q, D, seed=1) * 0.4 + 0.1 * noise(N, D, seed=2) - 0.3


@pytest.fixture(scope="module")
def prior(x: Tensor) -> GaussianPrior:
    return GaussianPrior.fit(x, Q)


def brute_force(g: LowRankGaussian, x_noised: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x | x_noised] by the d x d covariance."""
    mean, basis = g.mean.double(), g.basis.double()
    identity = torch.eye(len(mean), dtype=torch.float64)
    covariance = basis @ torch.diag(g.variance.double()) @ basis.T
    covariance += g.residual_variance.double() * (identity - basis @ basis.T)
    rows = []
    for y, a, s in zip(x_noised.double(), alpha.double(), sigma.double(), strict=True):
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * identity)
        rows.append(mean + gain @ (y - a * mean))
    return torch.stack(rows).float()


ALPHA, SIGMA = torch.tensor([0.99, 0.7, 0.1]), torch.tensor([0.14, 0.71, 0.995])


def test_denoiser_is_the_posterior_mean(x: Tensor, prior: GaussianPrior) -> None:
    plain = LowRankGaussian.fit(x, Q)
    x_noised = noise(3, D, seed=3)
    expected = brute_force(plain, x_noised, ALPHA, SIGMA)
    torch.testing.assert_close(
        prior.denoise(x_noised, ALPHA, SIGMA), expected, rtol=1e-4, atol=1e-4
    )


def test_training_denoises_each_subject_without_its_fold(x: Tensor, prior: GaussianPrior) -> None:
    x_noised, subject = noise(3, D, seed=3), torch.tensor([0, 17, 58])
    denoised = prior.denoise(x_noised, ALPHA, SIGMA, subject)
    for row, name in enumerate(subject.tolist()):
        others = LowRankGaussian.fit(x[prior.fold_of != prior.fold_of[name]], Q)
        one = slice(row, row + 1)
        expected = brute_force(others, x_noised[one], ALPHA[one], SIGMA[one])
        torch.testing.assert_close(denoised[one], expected, rtol=1e-4, atol=1e-4)


def test_held_out_error_agrees_with_drawn_noise(x: Tensor, prior: GaussianPrior) -> None:
    subject = torch.arange(N).repeat(40)
    for ratio in (0.03, 0.3, 3.0):
        alpha = torch.ones(len(subject))
        sigma = torch.full((len(subject),), ratio)
        clean = x[subject]
        x_noised = clean + ratio * noise(*clean.shape, seed=4)
        drawn = (clean - prior.denoise(x_noised, alpha, sigma, subject)).square().mean().sqrt()
        assert float(prior.error_at(alpha[:1], sigma[:1])) == pytest.approx(float(drawn), rel=0.03)


def test_held_out_error_is_larger_than_that_of_subjects_it_knows(
    x: Tensor, prior: GaussianPrior
) -> None:
    alpha, sigma = torch.ones(N), torch.full((N,), 0.3)
    x_noised = x + 0.3 * noise(N, D, seed=5)
    known = (x - prior.denoise(x_noised, alpha, sigma)).square().mean().sqrt()
    assert float(prior.error_at(alpha[:1], sigma[:1])) > float(known)


def test_error_is_exact_on_its_grid_and_constant_beyond(prior: GaussianPrior) -> None:
    torch.testing.assert_close(
        prior.error_at(torch.ones(len(RATIOS)), RATIOS), prior.error, rtol=1e-4, atol=1e-7
    )
    noisiest = prior.error_at(torch.tensor([0.0]), torch.tensor([1.0]))
    torch.testing.assert_close(noisiest, prior.error[-1:])
    assert bool((prior.error.diff() > -1e-6).all())


def test_tensors_bring_the_prior_back(x: Tensor, prior: GaussianPrior) -> None:
    again = GaussianPrior.from_tensors(prior.tensors("p"), "p")
    x_noised, subject = noise(3, D, seed=3), torch.tensor([0, 17, 58])
    for who in (None, subject):
        assert torch.equal(
            again.denoise(x_noised, ALPHA, SIGMA, who), prior.denoise(x_noised, ALPHA, SIGMA, who)
        )


def test_too_many_components_are_refused(x: Tensor) -> None:
    with pytest.raises(UsageError, match="Set prior_components to 24 or less"):
        GaussianPrior.fit(x, 47)
