"""What a linear model already knows, as the starting point of a denoiser.

The exact denoiser of a low-rank Gaussian fitted to TRAIN is a closed form. A network that is given
its answer and corrects it samples the Gaussian before its first step, and spends its training on
what the Gaussian lacks.

A Gaussian fitted with a subject knows that subject, and sampling never meets such knowledge. So the
subjects are dealt to folds: training uses, for each subject, the Gaussian of the other folds, and
the expected error of a level is measured on held-out subjects too. Sampling uses all of TRAIN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.nn.gaussian import LowRankGaussian
from gyri.sampling.preconditioning import noise_level

RATIOS = torch.logspace(-3, 3, 25)
"""Ratios sigma / alpha at which the held-out error is measured; in between it is interpolated."""


@dataclass(frozen=True)
class GaussianPrior:
    """A Gaussian of all TRAIN subjects and one for each fold left out.

    The Gaussians of the folds live in the span of TRAIN, so they are kept as coordinates in its
    principal directions: N - 1 numbers a direction, however large the volumes are. The directions
    themselves are N - 1 volumes; as much of TRAIN as they hold is part of every checkpoint.

    Parameters
    ----------
    mean : (d,), of TRAIN.
    span : (d, r), orthonormal: all principal directions of TRAIN, strongest first.
    full : Gaussian of all subjects, in coordinates (r,).
    folds : Gaussians without one fold each, in coordinates (r,).
    fold_of : (N,) int64, the fold of each TRAIN row.
    error : (len(RATIOS),) standard deviation of a voxel's held-out error at `RATIOS`.
    """

    mean: Tensor
    span: Tensor
    full: LowRankGaussian
    folds: tuple[LowRankGaussian, ...]
    fold_of: Tensor
    error: Tensor

    @classmethod
    def fit(cls, x: Tensor, components: int, num_folds: int = 5) -> GaussianPrior:
        """Fit to the rows of `x` (N, d) and measure the held-out error.

        Raises
        ------
        UsageError
            If the subjects outside a fold span too few directions.
        """
        n, d = x.shape
        kept = n - math.ceil(n / num_folds)
        if components > kept - 2:
            raise UsageError(
                f"prior_components is {components}; {n} TRAIN subjects without one of {num_folds} "
                f"folds span {kept - 1} directions, and one must be left for the residual. Set "
                f"prior_components to {max(kept // 2, 0)} or less."
            )
        whole = LowRankGaussian.fit(x, n - 1)
        coordinates = whole.project(x)
        fold_of = torch.arange(n, device=x.device) % num_folds
        prior = cls(
            whole.mean,
            whole.basis,
            _fit_coordinates(coordinates, components, d),
            tuple(
                _fit_coordinates(coordinates[fold_of != fold], components, d)
                for fold in range(num_folds)
            ),
            fold_of,
            torch.zeros(len(RATIOS), device=x.device),
        )
        outside = d - whole.num_components
        energy = torch.zeros_like(prior.error)
        for fold, gaussian in enumerate(prior.folds):
            energy += prior._held_out_error(coordinates[fold_of == fold], gaussian, outside)
        return replace(prior, error=(energy / (n * d)).sqrt())

    def _held_out_error(self, held_out: Tensor, gaussian: LowRankGaussian, outside: int) -> Tensor:
        """Sum over held-out subjects and voxels of the expected squared error at `RATIOS`.

        The denoiser is linear, so the expectation over noise is a closed form: with gain k along a
        direction and deviation c from the mean, ``((1 - k) c)**2 + (k ratio)**2``.
        """
        ratio = RATIOS.to(held_out)[:, None]

        def gain(variance: Tensor) -> Tensor:
            return variance / (variance + ratio**2)

        known = gaussian.project(held_out)
        rest = (held_out - gaussian.mean).square().sum() - known.square().sum()
        k = gain(gaussian.variance)
        k_rest = gain(gaussian.residual_variance[None])[:, 0]
        others = outside + held_out.shape[1] - gaussian.num_components
        along = ((1 - k) ** 2 * known.square().sum(0) + len(held_out) * (k * ratio) ** 2).sum(1)
        across = (1 - k_rest) ** 2 * rest + len(held_out) * others * (k_rest * ratio[:, 0]) ** 2
        return along + across

    def denoise(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None = None
    ) -> Tensor:
        """Return E[x | x_noised] (B, d) under the Gaussian.

        Parameters
        ----------
        x_noised : (B, d).
        alpha, sigma : (B,).
        subject : (B,) TRAIN rows, each denoised by the Gaussian that was fitted without its fold;
            None for the Gaussian of all subjects.
        """
        # In half precision the projections lose more than the network can put right.
        with torch.autocast(x_noised.device.type, enabled=False):
            return self._posterior_mean(x_noised.float(), alpha, sigma, subject)

    def _posterior_mean(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None
    ) -> Tensor:
        centred = x_noised - alpha[:, None] * self.mean
        coordinates = centred @ self.span
        if subject is None:
            denoised, gain = _denoise(self.full, coordinates, alpha, sigma)
        else:
            fold_of = self.fold_of[subject.to(self.fold_of.device)]
            denoised, gain = torch.empty_like(coordinates), torch.empty_like(alpha)
            for fold in fold_of.unique().tolist():
                rows = fold_of == fold
                denoised[rows], gain[rows] = _denoise(
                    self.folds[fold], coordinates[rows], alpha[rows], sigma[rows]
                )
        # Outside the span of TRAIN only the residual variance is left.
        gain = gain[:, None]
        return self.mean + gain * centred + (denoised - gain * coordinates) @ self.span.T

    def error_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Standard deviation (B,) of the held-out error at the levels (B,), interpolated."""
        ratios = RATIOS.to(self.error)
        grid = noise_level(torch.ones_like(ratios), ratios)
        place = (noise_level(alpha, sigma) - grid[0]) / (grid[-1] - grid[0]) * (len(grid) - 1)
        place = place.clamp(0, len(grid) - 1)
        below = place.floor().long().clamp_max(len(grid) - 2)
        log_error = self.error.clamp_min(1e-8).log()
        return torch.lerp(log_error[below], log_error[below + 1], place - below).exp()

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors by name, for a method's `state`."""
        plain = {
            f"{prefix}.{name}": getattr(self, name) for name in ("mean", "span", "fold_of", "error")
        }
        plain |= self.full.tensors(f"{prefix}.full")
        for fold, gaussian in enumerate(self.folds):
            plain |= gaussian.tensors(f"{prefix}.fold{fold}")
        return plain

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> GaussianPrior:
        """Inverse of `tensors`."""
        fold_of = tensors[f"{prefix}.fold_of"]
        return cls(
            tensors[f"{prefix}.mean"],
            tensors[f"{prefix}.span"],
            LowRankGaussian.from_tensors(tensors, f"{prefix}.full"),
            tuple(
                LowRankGaussian.from_tensors(tensors, f"{prefix}.fold{fold}")
                for fold in range(int(fold_of.max()) + 1)
            ),
            fold_of,
            tensors[f"{prefix}.error"],
        )


def _fit_coordinates(coordinates: Tensor, components: int, d: int) -> LowRankGaussian:
    """Fit to coordinates (n, r) what a fit to the (n, d) points themselves would have found."""
    fitted = LowRankGaussian.fit(coordinates, components)
    left = coordinates.shape[1] - fitted.num_components
    residual = fitted.residual_variance * left / max(d - fitted.num_components, 1)
    return LowRankGaussian(fitted.mean, fitted.basis, fitted.variance, residual)


def _denoise(
    gaussian: LowRankGaussian, coordinates: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Posterior mean (B, r) of the coordinates, and the gain (B,) in all other directions."""
    variance = gaussian.residual_variance
    gain = alpha * variance / (alpha**2 * variance + sigma**2).clamp_min(1e-20)
    return gaussian.denoise(coordinates, alpha, sigma), gain
