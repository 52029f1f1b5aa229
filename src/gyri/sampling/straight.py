"""Straight paths between noise and clean volumes, on which rectified flow samples.

At time t in [0, 1] a noised volume is ``(1 - t) x + t spread eps``; at 1 it is pure noise, so the
coordinates ``x_noised / alpha`` of EDM's samplers are infinite there. Euler's method along the
straight path is `gyri.sampling.samplers.ddim` on these levels, term by term.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from torch import Tensor

from gyri.sampling.samplers import Denoiser
from gyri.sampling.schedules import CLEAN, Level
from gyri.types import SampleRng

Time = TypeVar("Time", float, Tensor)


def shifted_time(t: Time, shift: float) -> Time:
    """Move times in [0, 1] towards noise: ``shift t / (1 + (shift - 1) t)``; 1 leaves them.

    Esser et al., 2024, arXiv:2403.03206, equation 23: items of ``shift**2`` times as many voxels
    that predict each other lose as much at the shifted time as the smaller ones did.
    """
    return shift * t / (1 + (shift - 1) * t)


def straight_levels(
    num_steps: int, shift: float = 1.0, spread: float = 1.0, last: float | None = None
) -> list[Level]:
    """Return `num_steps` levels from pure noise on, then `CLEAN`.

    Parameters
    ----------
    shift : see `shifted_time`; times are evenly spaced before it.
    spread : standard deviation of the pure noise.
    last : time of the last level before `CLEAN`; None for a last step as long as the others. Give a
        small one to `straight_heun`, whose last step is of first order: of a Gaussian with standard
        deviation 0.5, 5 of its steps keep 0.505 with 0.001, and 0.458 with None.
    """
    stride = 1 / num_steps if last is None else (1 - last) / max(num_steps - 1, 1)
    times = [shifted_time(1 - i * stride, shift) for i in range(num_steps)]
    return [Level(1 - t, spread * t) for t in times] + [CLEAN]


def straight_heun(
    denoiser: Denoiser, x_noised: Tensor, levels: Sequence[Level], rng: SampleRng
) -> Tensor:
    """Heun's method for ``dx = denoised dalpha + eps dsigma``; of first order to `CLEAN`.

    On the levels of `straight_levels` the slope is rectified flow's velocity (Liu et al., 2022,
    arXiv:2209.03003). It takes any other levels as straight between neighbours. `rng` is not read.
    """
    for here, there in pairwise(levels):
        denoised = denoiser(x_noised, here)
        eps = (x_noised - here.alpha * denoised) / here.sigma
        ahead = there.alpha * denoised + there.sigma * eps
        if there.sigma > 0:
            denoised_there = denoiser(ahead, there)
            eps_there = (ahead - there.alpha * denoised_there) / there.sigma
            up, down = (there.alpha - here.alpha) / 2, (there.sigma - here.sigma) / 2
            ahead = x_noised + up * (denoised + denoised_there) + down * (eps + eps_there)
        x_noised = ahead
    return x_noised
