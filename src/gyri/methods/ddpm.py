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
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.registry import METHODS
from gyri.sampling.draw import (
    Classifier,
    SamplingConfig,
    draw_volumes,
    edit_volumes,
    guided,
    last_levels,
)
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
from gyri.types import (
    Batch,
    ItemSpec,
    Lift,
    Loss,
    Method,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)

logger = logging.getLogger(__name__)

SCORE_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where in the distribution of training levels `DDPM.score` asks the network."""


@dataclass(frozen=True, kw_only=True)
class DDPMConfig:
    """Settings of `DDPM`.

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
    condition_dropout : probability that a column is made missing in training, for each column and
        once more for all together.
    optimiser : of the denoiser.
    ema_half_life_images : half-life of the moving average of the weights that sampling uses, 0 for
        none; in the beginning it is at most `ema_ramp` times the images seen.
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
    condition_dropout: float = 0.1
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(lr=2e-4, warmup_steps=100, clip_norm=1.0)
    )
    ema_half_life_images: float = 20_000
    ema_ramp: float = 0.05
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
            self._refuse_with_edm("spacing trailing", self.sampling.spacing == "trailing", "karras")
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
class DDPM(Method):
    """Denoising diffusion: guided diffusion and EDM, with an optional linear prior."""

    config: DDPMConfig
    phases = (Phase("denoise", ("denoiser",), "denoiser"),)

    def __init__(self, config: DDPMConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        self.optimisers = {"denoiser": config.optimiser}
        self.state = {"data_mean": torch.tensor(0.0), "data_std": torch.tensor(0.5)}
        self.classifier: Classifier | None = None
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
        """The denoiser reads noised items (and the prior's answer) and writes clean ones."""
        if config.prior == "gaussian" and spec.items_per_volume != 1:
            raise UsageError(
                f"prior gaussian needs a view with one item a volume, as it fits one Gaussian to "
                f"whole volumes; this view makes {spec.items_per_volume}. Set prior to none, or "
                "take the volume, stack or wavelet view."
            )
        return {
            "denoiser": NetworkSpec(
                in_channels=spec.channels * (2 if config.prior == "gaussian" else 1),
                out_channels=spec.channels,
                shape=spec.shape,
                condition_size=spec.condition.size,
                position_size=spec.position_size,
            )
        }

    @classmethod
    def default_networks(cls, config: DDPMConfig) -> dict[str, str]:
        """ADM's U-Net."""
        return {"denoiser": "unet"}

    def calibrate(self, items: Tensor) -> None:
        """Measure the items' mean and spread, and fit the prior to them."""
        self.state["data_mean"] = items.mean(dtype=torch.float64).float()
        self.state["data_std"] = items.std()
        if self.config.prior == "gaussian":
            if self.spec.num_train and len(items) != self.spec.num_train:
                raise UsageError(
                    f"prior gaussian is fitted to one item of each of the {self.spec.num_train} "
                    f"TRAIN subjects in their order; calibrate was given {len(items)} items."
                )
            prior = GaussianPrior.fit(items, self.config.prior_components)
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

    def use(self, needs: Mapping[str, Any]) -> None:
        """Take the ``classifier`` for classifier guidance."""
        unknown = set(needs) - {"classifier"}
        if unknown:
            raise UsageError(f"ddpm needs at most a classifier; got {', '.join(sorted(unknown))}.")
        self.classifier = needs.get("classifier")

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life with its ramp; None where the recipe sets 0."""
        if self.config.ema_half_life_images == 0:
            return None
        ramped = self.config.ema_ramp * progress.images_seen
        return max(min(self.config.ema_half_life_images, ramped), 1e-8)

    # --- the denoiser -------------------------------------------------------------------------

    def _scaling(self, alpha: Tensor, sigma: Tensor) -> Scaling:
        return SCALINGS[self.config.prediction](alpha, sigma, float(self.state["data_std"]))

    def _skip(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split the denoiser into what is known and what the network adds.

        Returns ``(base, c_out, network_input)`` with ``denoised = base + c_out F(network_input)``;
        `base` and `network_input` shaped as items, `c_out` broadcastable to them.
        """
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
        return base, c_out, network_input

    def _canonical(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scale a noised item to the process that the network was trained on."""
        scale = alpha if self.config.prediction == "edm" else (alpha**2 + sigma**2).sqrt()
        return x_noised / over_items(scale, x_noised), alpha / scale, sigma / scale

    def denoise(
        self,
        x_noised: Tensor,
        level: Level,
        condition: Tensor,
        position: Tensor | None = None,
    ) -> Tensor:
        """Return the predicted clean items.

        Parameters
        ----------
        x_noised : (B, C, *S), ``alpha x + sigma eps`` of any process.
        level : its ``alpha`` and ``sigma``.
        condition : (B, D).
        position : (B, P) or None.
        """
        alpha = x_noised.new_full((len(x_noised),), level.alpha)
        sigma = x_noised.new_full((len(x_noised),), level.sigma)
        x_noised, alpha, sigma = self._canonical(x_noised, alpha, sigma)
        base, c_out, network_input = self._skip(x_noised, alpha, sigma, None)
        network = self.networks["denoiser"]
        output = network(network_input, noise_level(alpha, sigma), condition, position)
        return base + c_out * output

    # --- training -----------------------------------------------------------------------------

    def _draw_levels(self, rng: SampleRng) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` (B,) of a training batch."""
        if self.schedule is None:
            sigma = (self.config.p_mean + self.config.p_std * rng.normal(())).exp()
            return torch.ones_like(sigma), sigma
        index = (rng.uniform() * len(self.schedule)).long().clamp_max(len(self.schedule) - 1)
        return self.schedule.coefficients(index)

    def _errors(
        self,
        batch: Batch,
        condition: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        eps: Tensor,
        subject: Tensor | None,
    ) -> Tensor:
        """Mean squared error (B,) of the network's own target, weighted."""
        x = batch.x
        x_noised = over_items(alpha, x) * x + over_items(sigma, x) * eps
        base, c_out, network_input = self._skip(x_noised, alpha, sigma, subject)
        network = self.networks["denoiser"]
        output = network(network_input, noise_level(alpha, sigma), condition, batch.position)
        # c_out is 0 where nothing is to be predicted; there base is x.
        free = (c_out != 0).expand_as(x)
        target = torch.where(free, (x - base) / c_out, 0.0)
        error = ((output.float() - target) * free).square().flatten(1).sum(1)
        error = error / free[0].sum()
        if self.config.loss_weighting == "min_snr":
            error = error * min_snr_weight(
                alpha, sigma, self._scaling(alpha, sigma).c_out, self.config.min_snr_gamma
            )
        return error

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Mean over items of the weighted squared error; every draw is from the item's stream."""
        alpha, sigma = self._draw_levels(rng)
        eps = rng.normal(batch.x.shape[1:])
        condition = self._drop(batch.condition, rng)
        error = self._errors(batch, condition, alpha, sigma, eps, batch.subject)
        return Loss(error.mean())

    def _drop(self, condition: Tensor, rng: SampleRng) -> Tensor:
        columns = len(self.spec.condition.slices)
        if columns == 0:
            return condition
        gone = rng.uniform((columns + 1,)) < self.config.condition_dropout
        return self.spec.condition.drop(condition, gone[:, :columns] | gone[:, columns:])

    # --- use ----------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Denoising loss (B,) averaged over fixed levels, `SCORE_QUANTILES` of those in training.

        A TRAIN subject is scored as anyone else would be, with the prior of all subjects.
        """
        total = torch.zeros(len(batch), device=batch.x.device)
        for quantile in SCORE_QUANTILES:
            level = self._level_at(quantile)
            alpha = total.new_full((len(batch),), level.alpha)
            sigma = total.new_full((len(batch),), level.sigma)
            eps = rng.normal(batch.x.shape[1:])
            total += self._errors(batch, batch.condition, alpha, sigma, eps, None)
        return total / len(SCORE_QUANTILES)

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
        return self.schedule.karras(config.num_steps, *ends)

    @torch.no_grad()
    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Sample volumes (V, C, I, J, K), all items of a volume jointly.

        Parameters
        ----------
        lift : how items sit in a volume.
        condition : (V, D).
        rng : one stream a volume; draws the first noise and the sampler's own.
        """
        config = self.config.sampling
        denoiser = guided(self.denoise, self.spec.condition, config, self.classifier)
        return draw_volumes(denoiser, lift, condition, self._levels(), config, rng)

    @torch.no_grad()
    def edit(
        self, lift: Lift, volumes: Tensor, condition: Tensor, strength: float, rng: SampleRng
    ) -> Tensor:
        """Noise `volumes` to one of the sampler's levels and sample from there (`edit_volumes`).

        Parameters
        ----------
        volumes : (V, C, I, J, K) in [-1, 1].
        condition : (V, D).
        strength : share of the sampler's steps, see `last_levels`.
        rng : one stream a volume.
        """
        config = self.config.sampling
        denoiser = guided(self.denoise, self.spec.condition, config, self.classifier)
        levels = last_levels(self._levels(), strength)
        return edit_volumes(denoiser, lift, volumes, condition, levels, config, rng)
