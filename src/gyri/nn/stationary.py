"""A locally stationary Gaussian field: a texture's spectrum and where it is strong.

Priestley, 1965, J. R. Stat. Soc. B 27:204 (fields whose spectrum changes slowly in space). Wherever
the amplitude changes slowly against the correlation length, the posterior mean is Wiener's filter
for the amplitude of the place; between a few amplitudes its answer is interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL_QUANTILES = (0.05, 0.35, 0.65, 0.95)
"""Of the amplitude: where Wiener's filter is computed."""
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class StationaryGaussian:
    """A zero-mean field ``amplitude * w``, with `w` stationary within each channel.

    Parameters
    ----------
    amplitude : (C, *S) standard deviation, 0 where the field is always 0.
    spectrum : (C, *S') mean power of `w` by frequency, as ``rfftn`` with ``norm="ortho"`` orders
        it.
    levels : (L,) amplitudes of the filters, rising.
    """

    amplitude: Tensor
    spectrum: Tensor
    levels: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> StationaryGaussian:
        """Fit to the draws `x` (N, C, *S), each of mean zero."""
        axes = tuple(range(2, x.ndim))
        variance = x.square().mean(0)
        present = variance > 0
        if not present.any():
            return cls(variance, _power(x, axes), x.new_ones(1))
        average = AVERAGE[len(axes)]
        around = average(present.float()[:, None], 3, 1, 1)[:, 0].clamp_min(1e-6)
        amplitude = (average(variance[:, None], 3, 1, 1)[:, 0] / around).sqrt() * present
        # `quantile` takes 16 million values at most; every so many do as well.
        some = amplitude[present]
        some = some[:: 1 + len(some) // 2**20]
        quantiles = torch.tensor(LEVEL_QUANTILES, device=x.device)
        levels = some.quantile(quantiles).clamp_min(some.max() * 1e-3).unique()
        # What is fainter than the lowest level is filtered as that level.
        white = x * (present / amplitude.clamp_min(levels[0]))
        share = present.float().flatten(1).mean(1).clamp_min(1e-6)
        return cls(amplitude, _power(white, axes) / share.reshape(-1, *(1 for _ in axes)), levels)

    def denoise(self, x_noised: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x | x_noised] (B, C, *S) for ``x_noised = alpha x + sigma eps``.

        Parameters
        ----------
        x_noised : (B, C, *S), float32.
        alpha, sigma : (B,).
        """
        axes = tuple(range(2, x_noised.ndim))
        shape = (-1, *(1 for _ in x_noised.shape[1:]))
        alpha, noise = alpha.reshape(shape), sigma.reshape(shape) ** 2
        frequencies = torch.fft.rfftn(x_noised, dim=axes, norm="ortho")
        denoised = torch.zeros_like(x_noised)
        for level, share in zip(self.levels, self._shares):
            power = level**2 * self.spectrum
            gain = alpha * power / (alpha**2 * power + noise).clamp_min(1e-20)
            denoised += share * torch.fft.irfftn(
                frequencies * gain, s=x_noised.shape[2:], dim=axes, norm="ortho"
            )
        return denoised

    @cached_property
    def _shares(self) -> list[Tensor]:
        """Weight (C, *S) of each level at each voxel, linear in the logarithm of the amplitude."""
        log_levels = self.levels.log()
        place = self.amplitude.clamp(self.levels[0], self.levels[-1]).log()
        present = self.amplitude > 0
        shares = []
        for i, here in enumerate(log_levels):
            share = present.float()
            if i > 0:
                below = log_levels[i - 1]
                share = share * ((place - below) / (here - below)).clamp(0, 1)
            if i + 1 < len(log_levels):
                above = log_levels[i + 1]
                share = share * ((above - place) / (above - here)).clamp(0, 1)
            shares.append(share)
        return shares

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors by name, for a method's `state`."""
        return {f"{prefix}.{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> StationaryGaussian:
        """Inverse of `tensors`."""
        return cls(**{name: tensors[f"{prefix}.{name}"] for name in cls.__dataclass_fields__})


def _power(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mean over draws of the power (C, *S') at each frequency, one draw at a time."""
    total = 0.0
    for one in x:
        total = total + torch.fft.rfftn(one[None], dim=axes, norm="ortho")[0].abs().square()
    return torch.as_tensor(total) / len(x)
