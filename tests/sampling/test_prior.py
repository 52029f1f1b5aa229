from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.sampling.prior import RATIOS, GaussianPrior

from .oracle import noise

N, Q = 60, 6
SHAPE = (1, 4, 5, 4)
D = 80
ALPHA, SIGMA = torch.tensor([0.99, 0.7, 0.1]), torch.tensor([0.14, 0.71, 0.995])


@pytest.fixture(scope="module")
def x() -> Tensor:
    flat = noise(N, Q) @ noise(Q, D, seed=1) * 0.4 + 0.1 * noise(N, D, seed=2) - 0.3
    return flat.reshape(N, *SHAPE)


@pytest.fixture(scope="module")
def prior(x: Tensor) -> GaussianPrior:
    return GaussianPrior.fit(x, Q)


def known_at(prior: GaussianPrior, x: Tensor, subject: Tensor | None, ratio: float) -> float:
    """Root mean square of the error for drawn noise."""
    alpha, sigma = torch.ones(len(x)), torch.full((len(x),), ratio)
    x_noised = x + ratio * noise(*x.shape, seed=4)
    return float((x - prior.denoise(x_noised, alpha, sigma, subject)).square().mean().sqrt())


def test_without_noise_the_answer_is_the_item(x: Tensor, prior: GaussianPrior) -> None:
    ones = torch.ones(N)
    torch.testing.assert_close(prior.denoise(x, ones, 0 * ones), x, rtol=1e-4, atol=1e-4)


def test_in_pure_noise_the_answer_is_the_mean(x: Tensor, prior: GaussianPrior) -> None:
    x_noised, ones = noise(3, *SHAPE, seed=3), torch.ones(3)
    mean = x.mean(0).expand(3, *SHAPE)
    denoised = prior.denoise(x_noised, 0 * ones, ones)
    torch.testing.assert_close(denoised, mean, rtol=1e-4, atol=1e-4)


def test_along_the_directions_the_gain_is_that_of_their_variance(prior: GaussianPrior) -> None:
    basis = prior.full.basis.T.reshape(Q, *SHAPE)
    mean = prior.full.mean.reshape(SHAPE)
    alpha, sigma = torch.full((Q,), 0.8), torch.full((Q,), 0.6)
    denoised = prior.denoise(alpha[0] * mean + basis, alpha, sigma) - mean
    variance = prior.full.variance
    gain = 0.8 * variance / (0.64 * variance + 0.36)
    torch.testing.assert_close((denoised * basis).flatten(1).sum(1), gain, rtol=1e-3, atol=1e-3)


def test_training_denoises_each_subject_without_its_fold(x: Tensor) -> None:
    """Another subject in the same fold's place leaves a subject's answer as it was."""
    subject = torch.tensor([7])
    one = torch.ones(1)
    x_noised = noise(1, *SHAPE, seed=3)
    changed = x.clone()
    changed[2] += 5
    before = GaussianPrior.fit(x, Q)
    after = GaussianPrior.fit(changed, Q)
    assert before.fold_of[2] == before.fold_of[7]
    fold = int(before.fold_of[7])
    assert torch.equal(before.folds[fold].basis, after.folds[fold].basis)
    assert not torch.equal(before.full.basis, after.full.basis)
    own = before.denoise(x_noised, one, 0.3 * one, subject)
    assert not torch.equal(own, before.denoise(x_noised, one, 0.3 * one))


@pytest.mark.parametrize("ratio", [RATIOS[8].item(), RATIOS[12].item()])
def test_held_out_error_agrees_with_drawn_noise(
    x: Tensor, prior: GaussianPrior, ratio: float
) -> None:
    one = torch.ones(1)
    error = float(prior.error_at(one, ratio * one))
    assert error == pytest.approx(known_at(prior, x, torch.arange(N), ratio), rel=0.1)
    assert error > known_at(prior, x, None, ratio)


def test_texture_is_told_from_noise() -> None:
    """Fine noise on a smooth texture goes, though no direction describes the texture."""
    x = noise(N, 1, 16, 16)
    for axis in (2, 3):
        for _ in range(2):
            x = (x + x.roll(1, axis) + x.roll(-1, axis)) / 3
    prior = GaussianPrior.fit(x, 2)
    ratio = float(x.std())
    white = (0.5**0.5) * ratio
    assert known_at(prior, x, torch.arange(N), ratio) < 0.7 * white


def test_voxels_that_never_vary_stay_as_they_are(x: Tensor) -> None:
    x = x.clone()
    x[..., 0] = -1
    prior = GaussianPrior.fit(x, Q)
    assert not prior.varies[..., 0].any()
    denoised = prior.denoise(noise(3, *SHAPE), ALPHA, SIGMA, torch.arange(3))
    torch.testing.assert_close(denoised[..., 0], torch.full_like(denoised[..., 0], -1))


def test_error_is_exact_on_its_grid_and_constant_beyond(prior: GaussianPrior) -> None:
    torch.testing.assert_close(
        prior.error_at(torch.ones(len(RATIOS)), RATIOS), prior.error, rtol=1e-4, atol=1e-7
    )
    noisiest = prior.error_at(torch.tensor([0.0]), torch.tensor([1.0]))
    torch.testing.assert_close(noisiest, prior.error[-1:])


def test_tensors_bring_the_prior_back(prior: GaussianPrior) -> None:
    again = GaussianPrior.from_tensors(prior.tensors("p"), "p")
    x_noised, subject = noise(3, *SHAPE, seed=3), torch.tensor([0, 17, 58])
    for who in (None, subject):
        assert torch.equal(
            again.denoise(x_noised, ALPHA, SIGMA, who), prior.denoise(x_noised, ALPHA, SIGMA, who)
        )


def test_too_many_components_are_refused(x: Tensor) -> None:
    with pytest.raises(UsageError, match="Set prior_components to 24 or less"):
        GaussianPrior.fit(x, 47)
