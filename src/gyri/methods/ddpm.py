"""Denoising diffusion: DDPM, guided diffusion and EDM, one denoiser with its choices.

Ho et al., 2020, arXiv:2006.11239; Dhariwal and Nichol, 2021, arXiv:2105.05233 (guided diffusion);
Karras et al., 2022, arXiv:2206.00364 (EDM). The network is trained on noised items and never sees
a volume; sampling lifts it to volumes (`gyri.sampling.lifted`).

A learned variance is left out on purpose: only ancestral sampling would read it, and its discrete
likelihood assumes 8-bit images, which intensities of MRI are not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.denoising import Denoising, DenoisingConfig, Split
from gyri.registry import METHODS
from gyri.sampling.draw import SamplingConfig
from gyri.sampling.preconditioning import (
    SCALINGS,
    Prediction,
    Scaling,
    min_snr_weight,
    noise_level,
    over_items,
)
from gyri.sampling.prior import GaussianPrior
from gyri.sampling.schedules import Level, ScheduleName, VPSchedule, karras_levels
from gyri.types import ItemSpec, NetworkSpec, SampleRng

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DDPMConfig(DenoisingConfig):
    """Settings of `DDPM`; see `gyri.methods.denoising.DenoisingConfig` for what all share.

    Parameters
    ----------
    prediction : what the network predicts: ``eps``, ``x0``, ``v``, or ``edm`` (preconditioned for
        unit variance, noise levels log-normal instead of a schedule). For items with many
        correlated channels (stacks) take ``x0``: a narrow network cannot reproduce white noise.
    schedule, num_train_steps : variance-preserving schedule and its T; not used by ``edm``.
    zero_terminal_snr : make the schedule's last step pure noise; not with ``eps``.
    logsnr_shift : added to the log-SNR of the schedule; ``-ln r`` where r voxels or channels tell
        the same. With ``edm``, raise `p_mean` by half of ``ln r`` instead.
    max_terminal : largest ``abar`` allowed at the schedule's end.
    p_mean, p_std : of ``ln sigma`` in training with ``edm``.
    loss_weighting : ``none`` weights the network's own target equally at all levels, ``min_snr``
        as Hang et al.; `min_snr_gamma` is its gamma.
    prior : ``gaussian`` gives the network the answer of a Gaussian fitted to TRAIN
        (`prior_components` directions and a texture) and lets it predict the correction; for views
        with one item a volume, with prediction ``x0`` or ``edm``.
    sampling : see `SamplingConfig`.
    """

    prediction: Prediction = "v"
    schedule: ScheduleName = "cosine"
    num_train_steps: int = 1000
    zero_terminal_snr: bool = False
    logsnr_shift: float = 0.0
    max_terminal: float = 1e-3
    p_mean: float = -1.2
    p_std: float = 1.2
    loss_weighting: Literal["none", "min_snr"] = "none"
    min_snr_gamma: float = 5.0
    prior: Literal["none", "gaussian"] = "none"
    prior_components: int = 20
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot work together, each with what to do."""
        if self.prediction == "eps" and self.zero_terminal_snr:
            raise UsageError(
                "prediction eps is undefined at zero terminal SNR: the noise says nothing of the "
                "volume. Set prediction to v or x0, or zero_terminal_snr to false."
            )
        if self.prediction == "edm":
            self._refuse_with_edm("zero_terminal_snr", self.zero_terminal_snr, "leave it out")
            self._refuse_with_edm("logsnr_shift", self.logsnr_shift, "set p_mean")
            spacing = self.sampling.spacing
            self._refuse_with_edm(f"spacing {spacing}", spacing != "karras", "karras")
            self._refuse_with_edm("loss_weighting", self.loss_weighting != "none", "set it to none")
        if self.prior == "gaussian" and self.prediction not in ("x0", "edm"):
            raise UsageError(
                f"prior gaussian corrects a prediction of the clean volume; prediction is "
                f"{self.prediction}. Set it to x0 or edm."
            )
        if self.prior == "gaussian" and self.loss_weighting != "none":
            raise UsageError(
                "prior gaussian brings its own weights (unit variance at every level). "
                "Set loss_weighting to none."
            )

    def _refuse_with_edm(self, name: str, given: object, advice: str) -> None:
        if given:
            raise UsageError(
                f"{name} belongs to a variance-preserving schedule, and prediction edm has none: "
                f"{advice}, or choose another prediction."
            )


@METHODS.register("ddpm", DDPMConfig)
class DDPM(Denoising):
    """Denoising diffusion: guided diffusion and EDM, with an optional linear prior."""

    config: DDPMConfig

    def __init__(self, config: DDPMConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        self._prior: GaussianPrior | None = None
        self.schedule: VPSchedule | None = None
        if config.prediction != "edm":
            self.schedule = VPSchedule.build(
                config.schedule,
                config.num_train_steps,
                zero_terminal_snr=config.zero_terminal_snr,
                log_snr_shift=config.logsnr_shift,
                max_terminal=config.max_terminal,
            )
            last = self.schedule.level(-1)
            logger.info("schedule ends at abar = %.2g", last.alpha**2)

    @classmethod
    def network_specs(cls, config: DDPMConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The denoiser reads noised items, the prior's answer and the images given."""
        specs = super().network_specs(config, spec)
        if config.prior == "none":
            return specs
        if spec.items_per_volume != 1:
            raise UsageError(
                f"prior gaussian needs a view with one item a volume, as it fits one Gaussian to "
                f"whole volumes; this view makes {spec.items_per_volume}. Set prior to none, or "
                "take the volume, stack or wavelet view."
            )
        own = specs["denoiser"]
        return {"denoiser": replace(own, in_channels=own.in_channels + spec.channels)}

    def calibrate(self, items: Tensor, context: Mapping[str, Tensor] | None = None) -> None:
        """Measure the mean and spread of items or residuals, and fit the prior to them."""
        super().calibrate(items, context)
        if self.config.prior == "gaussian":
            if self.spec.num_train and len(items) != self.spec.num_train:
                raise UsageError(
                    f"prior gaussian is fitted to one item of each of the {self.spec.num_train} "
                    f"TRAIN subjects in their order; calibrate was given {len(items)} items."
                )
            diffused = self._diffused(items, context or {})
            prior = GaussianPrior.fit(diffused, self.config.prior_components)
            self.state |= prior.tensors("prior")
            self._prior = None

    @property
    def prior(self) -> GaussianPrior | None:
        """The linear prior as `state` holds it, None where the recipe has none."""
        if self.config.prior == "none":
            return None
        error = self.state.get("prior.error")
        if error is None:
            raise UsageError("The Gaussian prior is not fitted: call calibrate with TRAIN items.")
        if self._prior is None or self._prior.error is not error:
            self._prior = GaussianPrior.from_tensors(self.state, "prior")
        return self._prior

    def private_refusal(self) -> str | None:
        """The prior is fitted to TRAIN without noise; the loss alone is a mean over items."""
        if self.config.prior == "none":
            return None
        return "its Gaussian prior is fitted to TRAIN without noise; set method.prior to none"

    # --- the denoiser -------------------------------------------------------------------------

    def _scaling(self, alpha: Tensor, sigma: Tensor) -> Scaling:
        return SCALINGS[self.config.prediction](alpha, sigma, float(self.state["data_std"]))

    def _split(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None
    ) -> Split:
        """See `Denoising`; with a prior, its answer is what is known, and the network reads it."""
        prior = self.prior
        scaling = self._scaling(alpha, sigma)
        c_skip, c_out, c_in = (over_items(c, x_noised) for c in scaling)
        if self.config.prediction == "edm":
            # EDM's coefficients take the data to be centred.
            centre = self.state["data_mean"]
            x_noised_centred = x_noised - over_items(alpha, x_noised) * centre
            base, network_input = centre + c_skip * x_noised_centred, c_in * x_noised_centred
        else:
            base, network_input = c_skip * x_noised, c_in * x_noised
        if prior is not None:
            base = prior.denoise(x_noised, alpha, sigma, subject)
            # Voxels that are the same in all of TRAIN are known, at every level.
            c_out = over_items(prior.error_at(alpha, sigma), x_noised) * prior.varies
            network_input = torch.cat([network_input, base], dim=1)
        return Split(base, c_out, network_input, noise_level(alpha, sigma))

    def _canonical(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = alpha if self.config.prediction == "edm" else (alpha**2 + sigma**2).sqrt()
        return x_noised / over_items(scale, x_noised), alpha / scale, sigma / scale

    def _loss_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor | None:
        if self.config.loss_weighting == "none":
            return None
        c_out = self._scaling(alpha, sigma).c_out
        return min_snr_weight(alpha, sigma, c_out, self.config.min_snr_gamma)

    # --- levels -------------------------------------------------------------------------------

    def _draw_levels(self, rng: SampleRng) -> tuple[Tensor, Tensor]:
        if self.schedule is None:
            sigma = (self.config.p_mean + self.config.p_std * rng.normal(())).exp()
            return torch.ones_like(sigma), sigma
        index = (rng.uniform() * len(self.schedule)).long().clamp_max(len(self.schedule) - 1)
        return self.schedule.coefficients(index)

    def _level_at(self, quantile: float) -> Level:
        if self.schedule is not None:
            return self.schedule.at(quantile)
        log_sigma = NormalDist(self.config.p_mean, self.config.p_std).inv_cdf(quantile)
        return Level(1.0, torch.tensor(log_sigma).exp().item())

    def _levels(self) -> list[Level]:
        config = self.config.sampling
        ends = config.sigma_min, config.sigma_max, config.rho
        if self.schedule is None:
            return karras_levels(config.num_steps, *ends)
        if config.spacing == "trailing":
            return self.schedule.trailing(config.num_steps)
        if config.spacing == "leading":
            return self.schedule.leading(config.num_steps)
        return self.schedule.karras(config.num_steps, *ends)
