"""Rectified flow: a network that predicts the velocity along straight paths from noise to items.

Liu et al., 2022, arXiv:2209.03003; Lipman et al., 2022, arXiv:2210.02747; times of Esser et al.,
2024, arXiv:2403.03206. Of standardised items y and noise eps the path is ``y_t = (1 - t) y + t
eps``, clean at t = 0; the network predicts ``eps - y``, which points to the noise. (Half of the
published code predicts the opposite.) Pairing noise with items and straightening a trained flow are
left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.methods.denoising import Denoising, DenoisingConfig, Split
from gyri.registry import METHODS
from gyri.sampling.draw import DrawingConfig
from gyri.sampling.preconditioning import noise_level, over_items
from gyri.sampling.samplers import Sampler, ddim
from gyri.sampling.schedules import Level
from gyri.sampling.straight import shifted_time, straight_heun, straight_levels
from gyri.types import SampleRng

EARLIEST = 1e-3
"""Smallest time in training: before it, velocity is a difference of nearly equal numbers."""


@dataclass(frozen=True, kw_only=True)
class FlowSampling(DrawingConfig):
    """How volumes are drawn from a trained flow; may be changed after training.

    See `gyri.sampling.draw.DrawingConfig` for what is not said here.

    Parameters
    ----------
    sampler : ``heun`` (about 10 steps) or ``euler`` (25 and more).
    shift : of the sampler's times, None for that of training.
    """

    sampler: Literal["heun", "euler"] = "heun"
    num_steps: int = 13
    shift: float | None = None

    def __post_init__(self) -> None:
        """Refuse shifts that mean nothing."""
        super().__post_init__()
        if self.shift is not None:
            _refuse_shift(self.shift)

    def solver(self) -> Sampler:
        """Return the sampler that these settings name."""
        return straight_heun if self.sampler == "heun" else ddim


@dataclass(frozen=True, kw_only=True)
class FlowConfig(DenoisingConfig):
    """Settings of `Flow`; see `gyri.methods.denoising.DenoisingConfig` for what all share.

    Parameters
    ----------
    times : of training, ``logit_normal``, mostly in the middle where velocity is hardest, or
        ``uniform``.
    loc, scale : mean and standard deviation of the logit of a ``logit_normal`` time; a larger `loc`
        is more noise.
    shift : moves all times towards noise, see `gyri.sampling.straight.shifted_time`; the square
        root of how many times more voxels tell the same than in pictures of 1.
    sampling : see `FlowSampling`.
    """

    times: Literal["logit_normal", "uniform"] = "logit_normal"
    loc: float = 0.0
    scale: float = 1.0
    shift: float = 1.0
    sampling: FlowSampling = field(default_factory=FlowSampling)

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        _refuse_shift(self.shift)
        if self.scale <= 0:
            raise UsageError(f"scale is {self.scale:g}; it is a standard deviation above 0.")


def _refuse_shift(shift: float) -> None:
    if shift <= 0:
        raise UsageError(f"shift is {shift:g}; it must be above 0, and 1 changes nothing.")


@METHODS.register("flow", FlowConfig)
class Flow(Denoising):
    """Rectified flow (flow matching): straight paths from noise, sampled in few steps."""

    config: FlowConfig

    def _split(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None
    ) -> Split:
        """See `Denoising`; what is known is the noised item itself, c_out the way to t = 0."""
        mean, std = self.state["data_mean"], self.state["data_std"]
        time, a = sigma / std, over_items(alpha, x_noised)
        base = x_noised + over_items(time, x_noised) * mean
        network_input = (x_noised - a * mean) / std
        return Split(base, -over_items(sigma, x_noised), network_input, noise_level(alpha, time))

    def _canonical(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = alpha + sigma / self.state["data_std"]
        return x_noised / over_items(scale, x_noised), alpha / scale, sigma / scale

    def _draw_levels(self, rng: SampleRng) -> tuple[Tensor, Tensor]:
        if self.config.times == "uniform":
            t = rng.uniform()
        else:
            t = torch.sigmoid(self.config.loc + self.config.scale * rng.normal(()))
        t = shifted_time(t, self.config.shift).clamp_min(EARLIEST)
        return 1 - t, self.state["data_std"] * t

    def _level_at(self, quantile: float) -> Level:
        t = quantile
        if self.config.times == "logit_normal":
            logit = NormalDist(self.config.loc, self.config.scale).inv_cdf(quantile)
            t = torch.tensor(logit).sigmoid().item()
        t = max(shifted_time(t, self.config.shift), EARLIEST)
        return Level(1 - t, float(self.state["data_std"]) * t)

    def _levels(self) -> list[Level]:
        sampling = self.config.sampling
        shift = self.config.shift if sampling.shift is None else sampling.shift
        last = EARLIEST if sampling.sampler == "heun" else None
        return straight_levels(sampling.num_steps, shift, float(self.state["data_std"]), last)
