"""Samplers: from noise to a clean volume, as plain functions of a denoiser.

All of them predict the clean volume and nothing else, so guidance, clipping and lifting from items
to volumes are wrappers of the denoiser, and ``eps`` always follows from the final prediction. They
take any sequence of levels from noise to clean, whatever process it comes from; a step leads from
``levels[i]`` to ``levels[i + 1]``, so successive steps always chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor

from gyri.errors import UsageError
from gyri.sampling.schedules import Level
from gyri.types import SampleRng

Denoiser = Callable[[Tensor, Level], Tensor]
"""``denoised = denoiser(x_noised, level)``: E[x | alpha x + sigma eps = x_noised]."""

Sampler = Callable[[Denoiser, Tensor, Sequence[Level], SampleRng], Tensor]
"""``x = sampler(denoiser, x_noised at levels[0], levels, rng)``; x at ``levels[-1]``."""


def clipped(denoiser: Denoiser, bound: float) -> Denoiser:
    """Keep predictions inside ``[-bound, bound]``; 0 leaves them as they are."""
    if bound == 0:
        return denoiser
    return lambda x_noised, level: denoiser(x_noised, level).clamp(-bound, bound)


def ddim(
    denoiser: Denoiser,
    x_noised: Tensor,
    levels: Sequence[Level],
    rng: SampleRng,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al., 2020, arXiv:2010.02502, equations 12 and 16).

    Parameters
    ----------
    denoiser : see `Denoiser`.
    x_noised : (V, C, I, J, K), noise at ``levels[0]``.
    levels : from noise to clean.
    rng : one stream a volume, read only where `eta` is not 0.
    eta : 0 follows the ODE, 1 is ancestral sampling.
    """
    for here, there in pairwise(levels):
        denoised = denoiser(x_noised, here)
        eps = (x_noised - here.alpha * denoised) / here.sigma
        fresh = eta * posterior_std(here, there)
        kept = math.sqrt(max(there.sigma**2 - fresh**2, 0.0))
        x_noised = there.alpha * denoised + kept * eps
        if fresh > 0:
            x_noised = x_noised + fresh * rng.normal(x_noised.shape[1:])
    return x_noised


def posterior_std(here: Level, there: Level) -> float:
    """Standard deviation of ``x_there`` given ``x_here`` and x, for any step."""
    return there.sigma * math.sqrt(max(1 - _snr_ratio(here, there), 0.0))


def _snr_ratio(here: Level, there: Level) -> float:
    """SNR at `here` over SNR at `there`, in [0, 1]."""
    return (here.alpha * there.sigma / (here.sigma * there.alpha)) ** 2


def ancestral(
    denoiser: Denoiser, x_noised: Tensor, levels: Sequence[Level], rng: SampleRng
) -> Tensor:
    """Draw from the posterior of every step (Ho et al., 2020, arXiv:2006.11239), of any length.

    With ``r = 1 - SNR_t / SNR_s``: mean ``alpha_s ((1 - r) x_t / alpha_t + r x)``, variance
    ``r sigma_s**2``. Its variance is that of the shorter ("small") kind; a learned variance is not
    offered, as only this sampler would use it and its discrete likelihood assumes 8-bit images.
    """
    for here, there in pairwise(levels):
        denoised = denoiser(x_noised, here)
        ratio = _snr_ratio(here, there)
        # (1 - r) / alpha_t without the division, finite where alpha_t is 0
        share = here.alpha * there.sigma**2 / (here.sigma**2 * there.alpha)
        x_noised = share * x_noised + there.alpha * (1 - ratio) * denoised
        spread = posterior_std(here, there)
        if spread > 0:
            x_noised = x_noised + spread * rng.normal(x_noised.shape[1:])
    return x_noised


def dpmpp_2m(
    denoiser: Denoiser, x_noised: Tensor, levels: Sequence[Level], rng: SampleRng
) -> Tensor:
    """DPM-Solver++(2M) with data prediction (Lu et al., 2022, arXiv:2211.01095, algorithm 2).

    The first step is of first order, and so is a last step to `CLEAN`. `rng` is not read.
    """
    previous: Tensor | None = None
    last_h = math.inf
    for here, there in pairwise(levels):
        denoised = denoiser(x_noised, here)
        h = (there.log_snr - here.log_snr) / 2
        ahead = denoised
        if previous is not None and math.isfinite(h) and math.isfinite(last_h):
            half_inverse_r = h / (2 * last_h)
            ahead = (1 + half_inverse_r) * denoised - half_inverse_r * previous
        x_noised = (there.sigma / here.sigma) * x_noised - there.alpha * math.expm1(-h) * ahead
        previous, last_h = denoised, h
    return x_noised


@dataclass(frozen=True, kw_only=True)
class Churn:
    """Noise added before a step and removed again (Karras et al., 2022, algorithm 2).

    Parameters
    ----------
    amount : ``S_churn``; 0 follows the ODE.
    sigma_min, sigma_max : noise-to-signal ratios between which it acts.
    noise : ``S_noise``, factor of the fresh noise.
    """

    amount: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    noise: float = 1.0

    def gamma(self, sigma: float, num_steps: int) -> float:
        """Relative rise of `sigma` before the step."""
        if not self.sigma_min <= sigma <= self.sigma_max:
            return 0.0
        return min(self.amount / num_steps, math.sqrt(2) - 1)


def euler(
    denoiser: Denoiser,
    x_noised: Tensor,
    levels: Sequence[Level],
    rng: SampleRng,
    churn: Churn = Churn(),
    order: Literal[1, 2] = 1,
) -> Tensor:
    """EDM's sampler, of first order (Karras et al., 2022, arXiv:2206.00364, algorithm 2).

    It integrates ``dx/dsigma = (x - denoised) / sigma`` in the coordinates ``x_noised / alpha``,
    where every process is the same.

    Raises
    ------
    UsageError
        If the first level is pure noise, infinite in these coordinates.
    """
    if levels[0].alpha == 0:
        raise UsageError(
            "Heun and Euler start from a finite noise-to-signal ratio, and a schedule with zero "
            "terminal SNR has none. Set sampler to dpmpp_2m, ddim or ancestral."
        )
    num_steps = len(levels) - 1
    sigmas = [level.ratio for level in levels]
    x = x_noised / levels[0].alpha
    for sigma, sigma_next in pairwise(sigmas):
        gamma = churn.gamma(sigma, num_steps)
        if gamma > 0:
            raised = sigma * (1 + gamma)
            added = churn.noise * math.sqrt(raised**2 - sigma**2)
            x, sigma = x + added * rng.normal(x.shape[1:]), raised
        ratio = sigma_next / sigma
        denoised = denoiser(x, Level(1.0, sigma))
        # x + (sigma_next - sigma) slope, exact where sigma_next is 0
        x_next = ratio * x + (1 - ratio) * denoised
        if order == 2 and sigma_next > 0:
            slope_next = (x_next - denoiser(x_next, Level(1.0, sigma_next))) / sigma_next
            x_next = (x_next + x + (sigma_next - sigma) * slope_next) / 2
        x = x_next
    return x * levels[-1].alpha


def heun(
    denoiser: Denoiser,
    x_noised: Tensor,
    levels: Sequence[Level],
    rng: SampleRng,
    churn: Churn = Churn(),
) -> Tensor:
    """EDM's sampler, of second order except on a last step to `CLEAN`; see `euler`."""
    return euler(denoiser, x_noised, levels, rng, churn, order=2)


SamplerName = Literal["ddim", "dpmpp_2m", "ancestral", "heun", "euler"]


def make_sampler(name: SamplerName, eta: float = 0.0, churn: Churn = Churn()) -> Sampler:
    """Return the sampler called `name`; `eta` goes to ``ddim``, `churn` to ``heun`` and ``euler``.

    Raises
    ------
    UsageError
        If a setting is given that the sampler does not have.
    """
    if eta != 0 and name != "ddim":
        raise UsageError(f"eta is a setting of ddim; the sampler is {name}. Set eta to 0.")
    if churn.amount != 0 and name not in ("heun", "euler"):
        raise UsageError(f"churn is a setting of heun and euler; the sampler is {name}.")
    samplers: dict[str, Sampler] = {
        "ddim": partial(ddim, eta=eta),
        "dpmpp_2m": dpmpp_2m,
        "ancestral": ancestral,
        "heun": partial(heun, churn=churn),
        "euler": partial(euler, churn=churn),
    }
    return samplers[name]
