"""Noise levels and the schedules that order them.

One convention serves every diffusion and flow: a noised volume is ``x_noised = alpha * x + sigma *
eps``, and a `Level` is the pair ``(alpha, sigma)``. Variance-preserving processes have ``alpha**2 +
sigma**2 == 1``, EDM has ``alpha == 1``, rectified flow ``alpha == 1 - sigma``. Discrete time runs
over the indices ``0 .. T-1`` from almost clean to noise; continuous time ``u`` in [0, 1] runs the
same way, ``u = index / (T - 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gyri.errors import UsageError


class Level(NamedTuple):
    """How much of a noised volume is volume (`alpha`) and how much is noise (`sigma`)."""

    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """``ln(alpha**2 / sigma**2)``; infinite where one of them is 0."""
        if self.alpha == 0:
            return -math.inf
        return math.inf if self.sigma == 0 else 2 * math.log(self.alpha / self.sigma)

    @property
    def ratio(self) -> float:
        """``sigma / alpha``, EDM's sigma; infinite for pure noise."""
        return math.inf if self.alpha == 0 else self.sigma / self.alpha

    @classmethod
    def variance_preserving(cls, ratio: float) -> Level:
        """Level of that `ratio` with ``alpha**2 + sigma**2 == 1``."""
        return cls(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


CLEAN = Level(1.0, 0.0)
"""Where every sampler ends."""


def linear_betas(num_steps: int) -> Tensor:
    """Variances of ADM's linear schedule, rescaled so that the end is noise for every T.

    ``beta`` runs from ``1e-4 * 1000 / T`` to ``0.02 * 1000 / T`` (Dhariwal and Nichol, 2021,
    arXiv:2105.05233). Returns (T,) float64.

    Raises
    ------
    UsageError
        If `num_steps` is 20 or less, where the last beta reaches 1.
    """
    scale = _scale("linear", num_steps)
    return torch.linspace(1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64)


def cosine_betas(num_steps: int) -> Tensor:
    """Variances of the cosine schedule, capped at 0.999 (Nichol and Dhariwal, arXiv:2102.09672).

    They follow from ``abar(u) = cos(pi/2 * (u + 0.008) / 1.008)**2``. Returns (T,) float64.
    """
    u = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp_max(0.999)


def _scale(name: str, num_steps: int) -> float:
    """Return by how much the variances of 1000 steps grow where there are fewer."""
    if num_steps <= 20:
        raise UsageError(
            f"The {name} schedule needs more than 20 training steps, got {num_steps}. "
            "Raise num_train_steps or take the cosine schedule."
        )
    return 1000 / num_steps


def scaled_linear_betas(num_steps: int) -> Tensor:
    """Variances whose square roots rise evenly (Rombach et al., 2022, arXiv:2112.10752).

    From 0.0015 to 0.0205, those of the published brain LDM (Pinaya et al., 2022, arXiv:2209.07162),
    rescaled for other T than its 1000. Returns (T,) float64.

    Raises
    ------
    UsageError
        If `num_steps` is 20 or less, where the last beta reaches 1.
    """
    scale = _scale("scaled_linear", num_steps)
    first, last = math.sqrt(0.0015 * scale), math.sqrt(0.0205 * scale)
    return torch.linspace(first, last, num_steps, dtype=torch.float64) ** 2


def from_betas(betas: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    """Return the schedule ``abar`` (T,) of the variances that `betas` gives for T steps."""
    return lambda num_steps: torch.cumprod(1 - betas(num_steps), 0)


def log_snr_alpha_bar(
    num_steps: int, log_snr_min: float = -20.0, log_snr_max: float = 20.0
) -> Tensor:
    """``abar`` of the cosine schedule between two log-SNRs (Ho and Salimans, arXiv:2207.12598).

    ``lambda(u) = -2 ln tan(a u + b)`` with ``b = arctan exp(-log_snr_max / 2)`` and ``a = arctan
    exp(-log_snr_min / 2) - b``; ``abar = sigmoid(lambda)``, that is ``cos(a u + b)**2``. The angle
    ``atan2(sigma, alpha)`` is linear in u, so `VPSchedule.at` is exact between the steps for any
    T. Unlike `cosine_betas` it starts almost without noise, at ``sigma = 5e-5``. Video diffusion
    (Ho et al., 2022, arXiv:2204.03458) trains on it and conditions its network on lambda, as
    networks here are whatever the schedule: `gyri.sampling.preconditioning.noise_level` is
    ``-lambda / 8``, its clip at 20 being the ends of this schedule.

    Parameters
    ----------
    num_steps : T; ``u = index / (T - 1)``.
    log_snr_min, log_snr_max : lambda at the last and the first step.

    Returns
    -------
    Tensor
        (T,) float64.
    """
    first, last = (math.atan(math.exp(-end / 2)) for end in (log_snr_max, log_snr_min))
    return torch.linspace(first, last, num_steps, dtype=torch.float64).cos() ** 2


ALPHA_BARS: dict[str, Callable[[int], Tensor]] = {
    "linear": from_betas(linear_betas),
    "cosine": from_betas(cosine_betas),
    "log_snr": log_snr_alpha_bar,
    "scaled_linear": from_betas(scaled_linear_betas),
}
ScheduleName = Literal["linear", "cosine", "log_snr", "scaled_linear"]


def zero_terminal(alpha_bar: Tensor) -> Tensor:
    """Rescale ``abar`` (T,) so that the last step is pure noise and the first stays as it is.

    Lin et al., 2023, arXiv:2305.08891, algorithm 1.
    """
    root = alpha_bar.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)) ** 2


def shifted(alpha_bar: Tensor, log_snr_shift: float) -> Tensor:
    """Add `log_snr_shift` to the log-SNR of every step of ``abar`` (T,).

    Items whose voxels predict each other (``r`` correlated channels or neighbours) are still
    recognisable at noise that hides natural images; ``-ln r`` moves the schedule to where their
    structure is decided (Hoogeboom et al., 2023, arXiv:2301.11093).
    """
    scaled = alpha_bar * math.exp(log_snr_shift)
    return scaled / (scaled + 1 - alpha_bar)


@dataclass(frozen=True)
class VPSchedule:
    """A variance-preserving schedule of T steps.

    Parameters
    ----------
    alpha_bar : (T,) float64, falling; ``alpha = sqrt(alpha_bar)``, ``sigma = sqrt(1 - alpha_bar)``.
    """

    alpha_bar: Tensor

    @classmethod
    def build(
        cls,
        name: ScheduleName,
        num_steps: int,
        *,
        zero_terminal_snr: bool = False,
        log_snr_shift: float = 0.0,
        max_terminal: float = 1e-3,
    ) -> VPSchedule:
        """Build a named schedule and check that it ends in noise.

        Parameters
        ----------
        name : ``linear``, ``scaled_linear``, ``cosine`` or ``log_snr``.
        num_steps : T.
        zero_terminal_snr : make the last step pure noise.
        log_snr_shift : added to the log-SNR of every step, before `zero_terminal_snr`.
        max_terminal : largest ``abar`` allowed at the last step; sampling starts from pure noise,
            so what is left there is a difference between training and sampling.

        Raises
        ------
        UsageError
            If the schedule does not reach noise.
        """
        alpha_bar = shifted(ALPHA_BARS[name](num_steps), log_snr_shift)
        if zero_terminal_snr:
            alpha_bar = zero_terminal(alpha_bar)
        terminal = float(alpha_bar[-1])
        if terminal > max_terminal:
            raise UsageError(
                f"The {name} schedule of {num_steps} steps with log-SNR shift {log_snr_shift:g} "
                f"ends at abar = {terminal:.2g}, above {max_terminal:g}: training would never see "
                "the noise that sampling starts from. Set zero_terminal_snr, lower the shift, or "
                "raise max_terminal if this is what you want."
            )
        return cls(alpha_bar)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def coefficients(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` (B,) float32 at the indices (B,) int64."""
        alpha_bar = self.alpha_bar.to(index.device)[index]
        return alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()

    def level(self, index: int) -> Level:
        """Level at an index, to double precision."""
        alpha_bar = float(self.alpha_bar[index])
        return Level(math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))

    def at(self, u: float) -> Level:
        """Level at continuous time `u` in [0, 1]: the angle ``atan2(sigma, alpha)``, interpolated.

        The angle stays finite at zero terminal SNR, and a level between two steps is variance
        preserving too.
        """
        place = u * (len(self) - 1)
        before = min(int(place), len(self) - 2)
        low, high = (math.atan2(*reversed(self.level(i))) for i in (before, before + 1))
        angle = low + (place - before) * (high - low)
        return Level(math.cos(angle), math.sin(angle))

    def trailing(self, num_steps: int) -> list[Level]:
        """`num_steps` levels from index T-1 down, then `CLEAN`.

        "Trailing" spacing always starts at the last index, as zero terminal SNR requires; the
        network is asked at levels it was trained at.

        Raises
        ------
        UsageError
            If more steps are asked for than there are.
        """
        return [self.level(i) for i in trailing_indices(len(self), num_steps)] + [CLEAN]

    def leading(self, num_steps: int) -> list[Level]:
        """`num_steps` levels a constant number of indices apart that end at index 0, then `CLEAN`.

        As published with many latent diffusions. It starts below the last index, at a level that
        is not quite noise; `trailing` and `karras` do not.
        """
        _refuse_more_steps(len(self), num_steps)
        stride = len(self) // num_steps
        return [self.level(i * stride) for i in reversed(range(num_steps))] + [CLEAN]

    def karras(
        self, num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
    ) -> list[Level]:
        """`num_steps` levels whose ``sigma / alpha`` follow `karras_levels`, then `CLEAN`.

        The first is the schedule's last step, even where that is noisier than `sigma_max`; the last
        is no cleaner than the schedule's first step. Trailing spacing ends at a coarse level and
        loses what is finer: of detail with standard deviation 0.05, 25 steps of ``dpmpp_2m`` on the
        cosine schedule keep 0.55 with it and 1.02 with this spacing.
        """
        noisiest = self.level(-1)
        sigma_min = max(sigma_min, self.level(0).ratio)
        first = [noisiest] if noisiest.ratio > sigma_max else []
        rest = num_steps - len(first)
        spaced = karras_levels(rest, sigma_min, min(sigma_max, noisiest.ratio), rho)[:-1]
        return [*first, *(Level.variance_preserving(level.sigma) for level in spaced), CLEAN]


def trailing_indices(num_train_steps: int, num_steps: int) -> list[int]:
    """Return `num_steps` indices, falling evenly from ``num_train_steps - 1``."""
    _refuse_more_steps(num_train_steps, num_steps)
    stride = num_train_steps / num_steps
    return [round(num_train_steps - i * stride) - 1 for i in range(num_steps)]


def _refuse_more_steps(num_train_steps: int, num_steps: int) -> None:
    if not 1 <= num_steps <= num_train_steps:
        raise UsageError(
            f"sampling.num_steps is {num_steps}; it must lie between 1 and the "
            f"{num_train_steps} steps of the schedule."
        )


def karras_levels(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[Level]:
    """`num_steps` levels with ``alpha == 1`` from `sigma_max` to `sigma_min`, then `CLEAN`.

    Karras et al., 2022, arXiv:2206.00364, equation 5.
    """
    if not 0 < sigma_min < sigma_max:
        raise UsageError(
            f"sigma_min {sigma_min:g} and sigma_max {sigma_max:g} must be positive and rising."
        )
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    place = [i / max(num_steps - 1, 1) for i in range(num_steps)]
    return [Level(1.0, (ends[0] + p * (ends[1] - ends[0])) ** rho) for p in place] + [CLEAN]
