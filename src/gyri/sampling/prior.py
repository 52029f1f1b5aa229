"""What a linear model already knows, as the starting point of a denoiser.

A Gaussian fitted to TRAIN has a denoiser in closed form: the strongest directions of the subjects,
and around them a locally stationary texture. A network that is given its answer and corrects it
samples the Gaussian before its first step, and spends its training on what the Gaussian lacks. The
texture matters: taken as white, the residual of principal components is mistaken for noise, and
the network spends its training on telling the two apart.

A Gaussian fitted with a subject knows that subject, and sampling never meets such knowledge. So the
subjects are dealt to folds: training uses, for each subject, the directions found in the other
folds, and the residual and the expected error of a level are measured on held-out subjects.
Sampling uses the directions of all of TRAIN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.nn.gaussian import LowRankGaussian
from gyri.nn.stationary import StationaryGaussian
from gyri.runtime.seeding import derive_seed
from gyri.sampling.preconditioning import noise_level

RATIOS = torch.logspace(-3, 3, 25)
"""Ratios sigma / alpha at which the held-out error is measured; in between it is interpolated."""
NUM_MEASURED = 24
"""Subjects that the held-out error is measured on."""
CONSTANT = 1e-3
"""Range over TRAIN, of [-1, 1], below which a voxel counts as the same in everybody."""


@dataclass(frozen=True)
class GaussianPrior:
    """A Gaussian of all TRAIN subjects and one for each fold left out.

    The directions are as many volumes, made of TRAIN: as much of TRAIN as they hold is part of
    every checkpoint.

    Parameters
    ----------
    full : directions of all subjects; the items are flattened to (d,).
    folds : directions without one fold each.
    fold_of : (N,) int64, the fold of each TRAIN row.
    residual : what a held-out subject has outside the directions.
    error : (len(RATIOS),) standard deviation of a varying voxel's held-out error at `RATIOS`.
    """

    full: LowRankGaussian
    folds: tuple[LowRankGaussian, ...]
    fold_of: Tensor
    residual: StationaryGaussian
    error: Tensor

    @classmethod
    def fit(cls, x: Tensor, components: int, num_folds: int = 5) -> GaussianPrior:
        """Fit to the items `x` (N, C, *S) in [-1, 1] and measure the held-out error.

        Raises
        ------
        UsageError
            If the subjects outside a fold span too few directions.
        """
        n = len(x)
        kept = n - math.ceil(n / num_folds)
        if components > kept - 2:
            raise UsageError(
                f"prior_components is {components}; {n} TRAIN subjects without one of {num_folds} "
                f"folds span {kept - 1} directions, and one must be left for the residual. Set "
                f"prior_components to {max(kept // 2, 0)} or less."
            )
        varies = x.amax(0) - x.amin(0) > CONSTANT
        flat = torch.where(varies, x, x.mean(0)).flatten(1)
        fold_of = torch.arange(n, device=x.device) % num_folds
        folds = tuple(
            LowRankGaussian.fit(flat[fold_of != fold], components) for fold in range(num_folds)
        )
        residual = torch.empty_like(flat)
        for fold, gaussian in enumerate(folds):
            own = fold_of == fold
            centred = (flat[own] - gaussian.mean) * varies.flatten()
            residual[own] = centred - (centred @ gaussian.basis) @ gaussian.basis.T
        prior = cls(
            LowRankGaussian.fit(flat, components),
            folds,
            fold_of,
            StationaryGaussian.fit(residual.reshape(x.shape)),
            torch.zeros(len(RATIOS), device=x.device),
        )
        return replace(prior, error=prior._held_out_error(x))

    @property
    def varies(self) -> Tensor:
        """(C, *S) bool: voxels that are not the same in everybody."""
        return self.residual.amplitude > 0

    def _held_out_error(self, x: Tensor) -> Tensor:
        """Root mean square (len(RATIOS),) over some subjects, with drawn noise."""
        generator = torch.Generator().manual_seed(derive_seed(0, "held-out error"))
        subject = torch.randperm(len(x), generator=generator)[:NUM_MEASURED].to(x.device)
        energy = x.new_zeros(len(RATIOS))
        for row in subject.split(1):
            eps = torch.randn(x[row].shape, generator=generator).to(x)
            for i, ratio in enumerate(RATIOS.tolist()):
                alpha, sigma = x.new_ones(1), x.new_full((1,), ratio)
                denoised = self.denoise(x[row] + ratio * eps, alpha, sigma, row)
                energy[i] += (denoised - x[row])[:, self.varies].square().mean()
        return (energy / len(subject)).sqrt()

    def denoise(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None = None
    ) -> Tensor:
        """Return E[x | x_noised] (B, C, *S) under the Gaussian, float32.

        Parameters
        ----------
        x_noised : (B, C, *S).
        alpha, sigma : (B,).
        subject : (B,) TRAIN rows, each denoised with the directions found without its fold; None
            for the directions of all subjects.
        """
        # In half precision the projections lose more than the network can put right.
        with torch.autocast(x_noised.device.type, enabled=False):
            flat = x_noised.float().flatten(1)
            if subject is None:
                known, rest = self._split(self.full, flat, alpha, sigma)
            else:
                known, rest = torch.empty_like(flat), torch.empty_like(flat)
                fold_of = self.fold_of[subject.to(self.fold_of.device)]
                for fold in fold_of.unique().tolist():
                    rows = fold_of == fold
                    known[rows], rest[rows] = self._split(
                        self.folds[fold], flat[rows], alpha[rows], sigma[rows]
                    )
            rest = rest.reshape(x_noised.shape)
            return known.reshape(x_noised.shape) + self.residual.denoise(rest, alpha, sigma)

    def _split(
        self, gaussian: LowRankGaussian, flat: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean along the directions, and the noised rest outside them, both (B, d)."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        centred = (flat - alpha * gaussian.mean) * self.varies.flatten()
        coefficients = centred @ gaussian.basis
        energy = alpha**2 * gaussian.variance + sigma**2
        gain = alpha * gaussian.variance / energy.clamp_min(1e-20)
        known = gaussian.mean + (gain * coefficients) @ gaussian.basis.T
        return known, centred - coefficients @ gaussian.basis.T

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
        plain = {f"{prefix}.fold_of": self.fold_of, f"{prefix}.error": self.error}
        plain |= self.full.tensors(f"{prefix}.full") | self.residual.tensors(f"{prefix}.residual")
        for fold, gaussian in enumerate(self.folds):
            plain |= gaussian.tensors(f"{prefix}.fold{fold}")
        return plain

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> GaussianPrior:
        """Inverse of `tensors`."""
        fold_of = tensors[f"{prefix}.fold_of"]
        return cls(
            LowRankGaussian.from_tensors(tensors, f"{prefix}.full"),
            tuple(
                LowRankGaussian.from_tensors(tensors, f"{prefix}.fold{fold}")
                for fold in range(int(fold_of.max()) + 1)
            ),
            fold_of,
            StationaryGaussian.from_tensors(tensors, f"{prefix}.residual"),
            tensors[f"{prefix}.error"],
        )
