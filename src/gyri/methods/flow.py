"""Rectified flow: a network that predicts the velocity along straight paths from noise to items.

Liu et al., 2022, arXiv:2209.03003; Lipman et al., 2022, arXiv:2210.02747; times of Esser et al.,
2024, arXiv:2403.03206. Of standardised items y and noise eps the path is ``y_t = (1 - t) y + t
eps``, clean at t = 0; the network predicts ``eps - y``, which points to the noise. (Half of the
published code predicts the opposite.)

Which noise goes with which item is free. ``pairing`` gives the items of a group the noise nearest
to them (minibatch optimal transport; Tong et al., 2023, arXiv:2302.00482), and a trained flow that
``needs: {teacher: RUN}`` names gives every noise the item that it flows to (reflow; Liu et al.,
section 2.2): paths then hardly cross, velocity is nearly constant along one, few calls suffice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.denoising import Denoising, DenoisingConfig, Split
from gyri.registry import METHODS
from gyri.sampling.draw import DrawingConfig
from gyri.sampling.preconditioning import noise_level, over_items
from gyri.sampling.samplers import Sampler, ddim
from gyri.sampling.schedules import Level
from gyri.sampling.straight import shifted_time, straight_heun, straight_levels
from gyri.types import Batch, ItemSpec, Method, SampleRng

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
    noise : standard deviation of the noise at t = 1, None for that of what is noised. With
        `residual` less of it may do: paths begin at the image that is given, and little noise.
    pairing : ``independent``, or ``optimal_transport``: within groups of `pairing_group` items the
        noise is dealt so that squared distances add up to the least. Where items have conditions
        this ties noise to them a little, which sampling does not repeat.
    pairing_group : items that noise is dealt among; the batch is a multiple of it.
    teacher_steps : of Heun's method that take a noise to the teacher's item; 2 calls each but one.
    shift : moves all times towards noise, see `gyri.sampling.straight.shifted_time`; the square
        root of how many times more voxels tell the same than in pictures of 1.
    sampling : see `FlowSampling`.
    """

    times: Literal["logit_normal", "uniform"] = "logit_normal"
    loc: float = 0.0
    scale: float = 1.0
    noise: float | None = None
    pairing: Literal["independent", "optimal_transport"] = "independent"
    pairing_group: int = 4
    teacher_steps: int = 5
    shift: float = 1.0
    sampling: FlowSampling = field(default_factory=FlowSampling)

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        _refuse_shift(self.shift)
        if self.scale <= 0:
            raise UsageError(f"scale is {self.scale:g}; it is a standard deviation above 0.")
        if self.noise is not None and self.noise <= 0:
            raise UsageError(f"noise is {self.noise:g}; it is a standard deviation above 0.")
        if self.pairing_group < 2 or self.teacher_steps < 1:
            raise UsageError(
                f"pairing_group is {self.pairing_group} and teacher_steps {self.teacher_steps}; "
                "they are at least 2 and 1."
            )


def _said(method: Method) -> str:
    spec = method.spec
    residual, noise = (getattr(method.config, name, None) for name in ("residual", "noise"))
    return (
        f"items {(spec.channels, *spec.shape)}, {spec.condition.size} condition numbers, images "
        f"{dict(spec.context) or 'none'}, residual {residual}, noise {noise}"
    )


def _refuse_shift(shift: float) -> None:
    if shift <= 0:
        raise UsageError(f"shift is {shift:g}; it must be above 0, and 1 changes nothing.")


@METHODS.register("flow", FlowConfig)
class Flow(Denoising):
    """Rectified flow (flow matching): straight paths from noise, sampled in few steps."""

    config: FlowConfig

    def __init__(self, config: FlowConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        self.teacher: Flow | None = None
        if config.pairing == "optimal_transport":
            self.group = config.pairing_group

    def use(self, needs: Mapping[str, Any]) -> None:
        """Take the ``teacher`` whose pairs are learned, and what `Denoising.use` takes."""
        others = {name: method for name, method in needs.items() if name != "teacher"}
        super().use(others)
        teacher = needs.get("teacher")
        if teacher is None:
            return
        if not isinstance(teacher, Flow) or self._items() != teacher._items():
            raise UsageError(
                f"needs.teacher is a {type(teacher).__name__} of {_said(teacher)}; it must be a "
                f"flow of {_said(self)}. Train one with the same view, data, conditions, "
                "method.residual and method.noise."
            )
        if self.config.pairing != "independent":
            raise UsageError("A teacher pairs noise with items itself: set pairing to independent.")
        self.teacher = teacher

    def _items(self) -> tuple[Any, ...]:
        """What two flows must share for one to learn from the other."""
        spec = self.spec
        return (
            (spec.channels, spec.shape, spec.condition, spec.position_size, dict(spec.context)),
            (self.config.residual, self.config.noise),
        )

    def calibrate(self, items: Tensor, context: Mapping[str, Tensor] | None = None) -> None:
        """Measure mean and spread; with a teacher take its own, and its weights where they fit."""
        if self.teacher is None:
            super().calibrate(items, context)
            return
        self.state |= {name: tensor.clone() for name, tensor in self.teacher.state.items()}
        weights = self.teacher.networks["denoiser"].state_dict()
        own = self.networks["denoiser"].state_dict()
        if {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in weights.items()}:
            self.networks["denoiser"].load_state_dict(weights)

    def _paired(self, batch: Batch, eps: Tensor, rng: SampleRng) -> tuple[Batch, Tensor]:
        if self.teacher is not None:
            return self._taught(self.teacher, batch, eps, rng), eps
        if self.config.pairing == "independent":
            return batch, eps
        x = self._diffused(batch.x, batch.context).flatten(1)
        order = []
        for rows in torch.arange(len(x)).split(self.group):
            # Squared distances differ from this by what no dealing changes.
            cost = -(x[rows].double() @ eps[rows].flatten(1).double().T)
            dealt = linear_sum_assignment(cost.cpu().numpy())[1]
            order.append(rows[torch.from_numpy(dealt)])
        return batch, eps[torch.cat(order).to(eps.device)]

    @torch.no_grad()
    def _taught(self, teacher: Flow, batch: Batch, eps: Tensor, rng: SampleRng) -> Batch:
        """Replace the items by those that the teacher's flow makes of `eps`."""
        spread = float(self._noise)
        levels = straight_levels(self.config.teacher_steps, self.config.shift, spread, EARLIEST)
        images = self._images(batch.context)

        def denoiser(x_noised: Tensor, level: Level) -> Tensor:
            return teacher.denoise(x_noised, level, batch.condition, batch.position, images)

        made = straight_heun(denoiser, spread * eps, levels, rng)
        if self.config.residual is not None:
            made = made + batch.context[self.config.residual]
        return replace(batch, x=made)

    @property
    def _noise(self) -> Tensor | float:
        """Standard deviation of the noise at t = 1."""
        return self.state["data_std"] if self.config.noise is None else self.config.noise

    def _split(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None
    ) -> Split:
        """See `Denoising`; what is known is the noised item itself, c_out the way to t = 0."""
        mean, std = self.state["data_mean"], self.state["data_std"]
        time, a = sigma / self._noise, over_items(alpha, x_noised)
        base = x_noised + over_items(time, x_noised) * mean
        network_input = (x_noised - a * mean) / std
        return Split(base, -over_items(sigma, x_noised), network_input, noise_level(alpha, time))

    def _canonical(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = alpha + sigma / self._noise
        return x_noised / over_items(scale, x_noised), alpha / scale, sigma / scale

    def _draw_levels(self, rng: SampleRng) -> tuple[Tensor, Tensor]:
        if self.config.times == "uniform":
            t = rng.uniform()
        else:
            t = torch.sigmoid(self.config.loc + self.config.scale * rng.normal(()))
        t = shifted_time(t, self.config.shift).clamp_min(EARLIEST)
        return 1 - t, self._noise * t

    def _level_at(self, quantile: float) -> Level:
        t = quantile
        if self.config.times == "logit_normal":
            logit = NormalDist(self.config.loc, self.config.scale).inv_cdf(quantile)
            t = torch.tensor(logit).sigmoid().item()
        t = max(shifted_time(t, self.config.shift), EARLIEST)
        return Level(1 - t, float(self._noise) * t)

    def _levels(self) -> list[Level]:
        sampling = self.config.sampling
        shift = self.config.shift if sampling.shift is None else sampling.shift
        last = EARLIEST if sampling.sampler == "heun" else None
        return straight_levels(sampling.num_steps, shift, float(self._noise), last)
