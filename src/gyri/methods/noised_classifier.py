"""A classifier of noised items, for classifier guidance.

Dhariwal and Nichol, 2021, arXiv:2105.05233, section 4: the encoder half of a U-Net, trained on
noised items at all levels. A classifier of clean items gives gradients that mean nothing at noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.registry import METHODS
from gyri.sampling.preconditioning import noise_level, over_items
from gyri.sampling.schedules import Level, ScheduleName, VPSchedule
from gyri.types import (
    Batch,
    ItemSpec,
    Loss,
    Method,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)


@dataclass(frozen=True, kw_only=True)
class NoisedClassifierConfig:
    """Settings of `NoisedClassifier`.

    Parameters
    ----------
    column : which column of the condition is the target, counted from 0; a categorical one.
    schedule, num_train_steps, zero_terminal_snr, logsnr_shift, max_terminal : as in the ``ddpm``
        that is to be guided. Any process may be guided: a noised item is first scaled to unit
        variance preserving form, where levels of all processes agree.
    optimiser : of the classifier.
    """

    column: int = 0
    schedule: ScheduleName = "cosine"
    num_train_steps: int = 1000
    zero_terminal_snr: bool = False
    logsnr_shift: float = 0.0
    max_terminal: float = 1e-3
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(lr=3e-4, weight_decay=0.05)
    )


def _target_slice(config: NoisedClassifierConfig, spec: ItemSpec) -> slice:
    """Where the target's one-hot code lies in a condition vector."""
    return slice(*spec.condition.levels(config.column, "A classifier needs classes"))


@METHODS.register("noised_classifier", NoisedClassifierConfig)
class NoisedClassifier(Method):
    """Classifier of noised items, for classifier guidance."""

    config: NoisedClassifierConfig
    phases = (Phase("classify", ("classifier",), "classifier"),)

    def __init__(
        self, config: NoisedClassifierConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        self.optimisers = {"classifier": config.optimiser}
        self.target_slice = _target_slice(config, spec)
        self.schedule = VPSchedule.build(
            config.schedule,
            config.num_train_steps,
            zero_terminal_snr=config.zero_terminal_snr,
            log_snr_shift=config.logsnr_shift,
            max_terminal=config.max_terminal,
        )

    @classmethod
    def network_specs(
        cls, config: NoisedClassifierConfig, spec: ItemSpec
    ) -> dict[str, NetworkSpec]:
        """The classifier reads noised items, never the condition, and writes one logit a level."""
        target = _target_slice(config, spec)
        return {
            "classifier": NetworkSpec(
                in_channels=spec.channels,
                out_channels=0,
                shape=spec.shape,
                position_size=spec.position_size,
                latent_size=target.stop - target.start,
            )
        }

    @classmethod
    def default_networks(cls, config: NoisedClassifierConfig) -> dict[str, str]:
        """The encoder half of ADM's U-Net."""
        return {"classifier": "unet_encoder"}

    def target(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> class (B,) int64, and False (B,) where the column is missing."""
        code = condition[:, self.target_slice]
        return code.argmax(1), code.sum(1) > 0

    def _log_probabilities(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, position: Tensor | None
    ) -> Tensor:
        network = self.networks["classifier"]
        no_condition = x_noised.new_zeros(len(x_noised), 0)
        logits = network(x_noised, noise_level(alpha, sigma), no_condition, position)
        return functional.log_softmax(logits.float(), dim=1)

    def log_prob(
        self, x_noised: Tensor, level: Level, target: Tensor, position: Tensor | None = None
    ) -> Tensor:
        """Return ``log p(target | x_noised)`` (B,), differentiable in `x_noised`.

        Parameters
        ----------
        x_noised : (B, C, *S), ``alpha x + sigma eps`` of any process.
        level : its ``alpha`` and ``sigma``.
        target : (B,) classes.
        position : (B, P) or None.
        """
        scale = (level.alpha**2 + level.sigma**2) ** 0.5
        alpha = x_noised.new_full((len(x_noised),), level.alpha / scale)
        sigma = x_noised.new_full((len(x_noised),), level.sigma / scale)
        every = self._log_probabilities(x_noised / scale, alpha, sigma, position)
        return every.gather(1, target[:, None])[:, 0]

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Cross-entropy at a uniformly drawn step; items without a target count as 0."""
        index = (rng.uniform() * len(self.schedule)).long().clamp_max(len(self.schedule) - 1)
        alpha, sigma = self.schedule.coefficients(index)
        x = batch.x
        eps = rng.normal(x.shape[1:])
        x_noised = over_items(alpha, x) * x + over_items(sigma, x) * eps
        target, known = self.target(batch.condition)
        every = self._log_probabilities(x_noised, alpha, sigma, batch.position)
        nll = torch.where(known, -every.gather(1, target[:, None])[:, 0], 0.0)
        right = (every.argmax(1) == target) & known
        return Loss(
            nll.mean(), {"cross_entropy": nll.mean().detach(), "accuracy": right.float().mean()}
        )
