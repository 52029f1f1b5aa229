"""DiffuseMorph: a diffusion model of the scan whose noise estimate is the code of a deformation.

Kim, Han and Ye, 2022, arXiv:2112.05149. One network estimates the noise of a noised scan, given
template and scan; another makes the deformation of template and estimate. Both are trained
together, and the registration's gradient reaches both. A scan is registered in one pass, no noise
is drawn: the estimate for the scan itself, as if it were noised least.

As published the field is a displacement, a share of the way is the deformation of the estimate
scaled, and nothing makes the share 0 the identity or keeps any share from folding. With velocities,
the default here, both hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.atlas_registration import AtlasRegistration, AtlasRegistrationConfig
from gyri.registry import METHODS
from gyri.sampling.draw import last_levels
from gyri.sampling.preconditioning import noise_level, over_items
from gyri.sampling.samplers import ancestral, clipped
from gyri.sampling.schedules import Level, VPSchedule
from gyri.types import (
    Batch,
    ItemSpec,
    Loss,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)


@dataclass(frozen=True, kw_only=True)
class DiffuseMorphConfig(AtlasRegistrationConfig):
    """Settings of `DiffuseMorph`; the defaults are those published for volumes but for `form`.

    Parameters
    ----------
    registration_weight : weight of unlikeness and roughness together beside the squared error of
        the noise; 2 is published for slices.
    num_train_steps : T of the schedule.
    betas : variances of its first and last step, linear between; they leave 4e-5 of the signal's.
    optimiser : of both networks.
    """

    registration_weight: float = 20.0
    num_train_steps: int = 2000
    betas: tuple[float, float] = (1e-6, 1e-2)
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(lr=2e-4, betas=(0.5, 0.999))
    )

    def __post_init__(self) -> None:
        """Refuse variances that are none."""
        if not 0 < self.betas[0] <= self.betas[1] < 1 or self.num_train_steps < 1:
            raise UsageError(
                f"betas is {list(self.betas)} over {self.num_train_steps} steps; expected two "
                "rising variances between 0 and 1 over at least one step."
            )


@METHODS.register("diffusemorph", DiffuseMorphConfig)
class DiffuseMorph(AtlasRegistration):
    """Registration by the noise estimate of a diffusion model, two networks trained together."""

    config: DiffuseMorphConfig
    phases = (Phase("register", ("score", "deformation"), "registration"),)

    def __init__(
        self, config: DiffuseMorphConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        self.optimisers = {"registration": config.optimiser}
        betas = torch.linspace(*config.betas, config.num_train_steps, dtype=torch.float64)
        self.schedule = VPSchedule(torch.cumprod(1 - betas, 0))

    @classmethod
    def network_specs(cls, config: DiffuseMorphConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The score network reads noised scan, template and scan, the other template and noise."""
        cls.refuse_other_items(spec)
        return {
            "score": NetworkSpec(3 * spec.channels, spec.channels, spec.shape),
            "deformation": NetworkSpec(2 * spec.channels, 3, spec.shape),
        }

    @classmethod
    def default_networks(cls, config: DiffuseMorphConfig) -> dict[str, str]:
        """ADM's U-Net, of the published one's kind, and VoxelMorph's."""
        return {"score": "unet", "deformation": "registration_unet"}

    def noise_estimate(self, x_noised: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the estimated noise (B, C, I, J, K) of noised scans.

        Parameters
        ----------
        x_noised : (B, C, I, J, K), ``alpha x + sigma eps``.
        x : the scans, which the network is given too.
        alpha, sigma : (B,).
        """
        moving = self.template.expand_as(x)
        estimate: Tensor = self.networks["score"](
            torch.cat([x_noised, moving, x], dim=1),
            noise_level(alpha, sigma),
            x.new_zeros(len(x), 0),
        )
        return estimate.float()

    def _code(self, x: Tensor) -> Tensor:
        """Return the estimate for scans as they are, at the first step of the schedule."""
        alpha, sigma = self.schedule.coefficients(torch.zeros(len(x), dtype=torch.int64))
        return self.noise_estimate(x, x, alpha.to(x.device), sigma.to(x.device))

    def _field_of(self, code: Tensor) -> Tensor:
        """Return the field (B, 3, I', J', K') of codes (B, C, I, J, K)."""
        moving = self.template.expand_as(code)
        found: Tensor = self.networks["deformation"](torch.cat([moving, code], dim=1))
        return found.float()

    def propose(self, x: Tensor) -> Tensor:
        """Return fields (B, 3, I', J', K') to scans (B, C, I, J, K), voxels of their own grid."""
        return self._field_of(self._code(x))

    def trajectory(self, x: Tensor, eta: float) -> Tensor:
        """Return the displacement (B, 3, I, J, K) that goes the share `eta` of the way to scans.

        A velocity's is integrated over that share. A displacement's is made of the code times
        `eta`, as published; at 0 it is what the network makes of no code.
        """
        if self.form == "velocity":
            return super().trajectory(x, eta)
        return self.displacement(self._field_of(eta * self._code(x)))

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Mean over items of the noise's squared error and the weighted registration loss."""
        x, steps = batch.x, len(self.schedule)
        index = (rng.uniform() * steps).long().clamp_max(steps - 1)
        alpha, sigma = self.schedule.coefficients(index)
        eps = rng.normal(x.shape[1:])
        x_noised = over_items(alpha, x) * x + over_items(sigma, x) * eps
        estimate = self.noise_estimate(x_noised, x, alpha, sigma)
        error = (estimate - eps).square().flatten(1).mean(1)
        losses, logs = self.registration_loss(x, self._field_of(estimate))
        total = (error + self.config.registration_weight * losses).mean()
        return Loss(total, {"noise_error": error.mean().detach(), **logs})

    @torch.no_grad()
    def synthesise(
        self, x: Tensor, rng: SampleRng, strength: float = 0.1, num_steps: int = 200
    ) -> Tensor:
        """Noise the template and make it clean again as the diffusion model of scans would.

        A light touch on the template's intensities, no new brain: as published (for slices), a
        tenth of the steps is taken, from where 0.95 of the template is left.

        Parameters
        ----------
        x : scans (B, C, I, J, K) that the model is given.
        rng : one stream a scan.
        strength : share of the schedule that is gone through: 0 returns the template.
        num_steps : steps for the whole schedule; as published, every one of it.

        Returns
        -------
        Tensor
            (B, C, I, J, K) in [-1, 1] where `strength` is above 0.

        Raises
        ------
        UsageError
            If `strength` lies outside [0, 1].
        """
        levels = last_levels(self.schedule.trailing(min(num_steps, len(self.schedule))), strength)

        def denoise(x_noised: Tensor, level: Level) -> Tensor:
            alpha, sigma = (x.new_full((len(x),), value) for value in level)
            estimate = self.noise_estimate(x_noised, x, alpha, sigma)
            return (x_noised - level.sigma * estimate) / level.alpha

        first = levels[0]
        start = first.alpha * self.template + first.sigma * rng.normal(x.shape[1:])
        return ancestral(clipped(denoise, 1.0), start, levels, rng)
