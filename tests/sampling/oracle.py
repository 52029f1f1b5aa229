"""The exact denoiser of a Gaussian, which every sampler must turn back into that Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gyri.sampling.schedules import Level

MEAN, STD = 0.3, 0.5


def gaussian_denoiser(mean: float = MEAN, std: float = STD) -> Callable[[Tensor, Level], Tensor]:
    def denoiser(x_noised: Tensor, level: Level) -> Tensor:
        gain = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
        return mean + gain * (x_noised - level.alpha * mean)

    return denoiser


def exact_flow(
    x: Tensor, here: Level, there: Level, mean: float = MEAN, std: float = STD
) -> Tensor:
    """Endpoint of the probability-flow ODE: a Gaussian keeps its standard scores."""

    def spread(level: Level) -> float:
        return math.hypot(level.alpha * std, level.sigma)

    score = (x - here.alpha * mean) / spread(here)
    return there.alpha * mean + spread(there) * score


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
