"""Variational autoencoder, conditional where the recipe has conditions.

Kingma & Welling, 2013, arXiv:1312.6114; Sohn et al., 2015 (conditional); Higgins et al., 2017
(beta); Kingma et al., 2016, arXiv:1606.04934, appendix C.8 (free bits). The reconstruction error is
summed over voxels and the divergence over the code, both of one item: a mean over voxels would
weigh the divergence by their number, and the code would collapse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.variational import DiagonalGaussian, log_cosh
from gyri.registry import METHODS
from gyri.sampling.latent import ZPer, decode_latents, draw_latents
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

ACTIVE_NATS = 0.01
"""A dimension of the code whose divergence is below says nothing about the item."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """How far a reconstruction is from its item, of residuals t in units of `scale`.

    Parameters
    ----------
    loss : ``mse`` is ``t^2 / 2``, ``l1`` is ``|t|``, ``logcosh`` is ``ln(cosh(a t)) / a``. At equal
        `scale` and ``a = 1`` they are close for small residuals to none (l1), and equal
        (mse, logcosh).
    sharpness : a of ``logcosh``; try 1, 10, 100.
    scale : residual in units of the prepared range (1 from darkest to brightest) that counts as 1.
    """

    loss: Literal["mse", "l1", "logcosh"] = "mse"
    sharpness: float = 1.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a scale or sharpness of which no loss can be made."""
        if self.scale <= 0 or self.sharpness <= 0:
            raise UsageError(
                f"reconstruction has scale {self.scale:g} and sharpness {self.sharpness:g}; both "
                "must be above 0."
            )

    def error(self, x: Tensor, rebuilt: Tensor) -> Tensor:
        """Return the error (B,) of items (B, C, *S) in [-1, 1], summed over voxels."""
        residual = (x - rebuilt.float()) / (2 * self.scale)
        if self.loss == "mse":
            of_voxel = residual.square() / 2
        elif self.loss == "l1":
            of_voxel = residual.abs()
        else:
            of_voxel = log_cosh(residual, self.sharpness)
        return of_voxel.flatten(1).sum(1)


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Settings of `VAE`.

    Parameters
    ----------
    latent_size : length of the code.
    reconstruction : see `ReconstructionConfig`.
    beta : weight of the divergence.
    kl_warmup : share of the horizon over which `beta` rises from 0.
    free_bits : nats of divergence a dimension of an item's code that cost nothing.
    prior : ``standard``, or ``learned``: a Gaussian of its own for each condition.
    z_per : ``volume`` gives all items of a sampled volume one code (slices then differ by their
        position alone), ``item`` gives each its own, as published for single slices.
    items_per_call : most items that are decoded at once; bounds memory.
    """

    latent_size: int = 256
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    beta: float = 1.0
    kl_warmup: float = 0.0
    free_bits: float = 0.0
    prior: Literal["standard", "learned"] = "standard"
    z_per: ZPer = "volume"
    optimiser: OptimiserConfig = OptimiserConfig(lr=3e-4)
    items_per_call: int = 64

    def __post_init__(self) -> None:
        """Refuse weights and shares out of range."""
        if self.latent_size < 1 or self.beta < 0 or self.free_bits < 0:
            raise UsageError(
                f"latent_size is {self.latent_size}, beta {self.beta:g} and free_bits "
                f"{self.free_bits:g}; give a latent_size of at least 1 and no negative weights."
            )
        if not 0 <= self.kl_warmup <= 1:
            raise UsageError(f"kl_warmup is {self.kl_warmup:g}; it is a share from 0 to 1.")

    def weight(self, progress: Progress) -> float:
        """Return the weight of the divergence now."""
        risen = progress.fraction / self.kl_warmup if self.kl_warmup else 1.0
        return self.beta * min(risen, 1.0)

    def charged(self, kl: Tensor) -> Tensor:
        """Sum the divergence (B, L) of each item's code above its free bits, (B,)."""
        return kl.clamp_min(self.free_bits).sum(1)


@METHODS.register("vae", VAEConfig)
class VAE(Method):
    """Variational autoencoder: fast and stable, blurred; conditional where there are conditions."""

    config: VAEConfig

    def __init__(self, config: VAEConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        self.phases = (Phase("autoencoder", tuple(networks), "autoencoder"),)
        self.optimisers = {"autoencoder": config.optimiser}

    @classmethod
    def network_specs(cls, config: VAEConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """An encoder to means and log-variances, a decoder, and the prior where it is learned."""
        seen = NetworkSpec(0, 0, spec.shape, spec.condition.size, spec.position_size)
        twice = 2 * config.latent_size
        specs = {
            "encoder": replace(seen, in_channels=spec.channels, latent_size=twice),
            "decoder": replace(seen, out_channels=spec.channels, latent_size=config.latent_size),
        }
        if config.prior == "learned":
            if not spec.condition.size:
                raise UsageError(
                    "prior is learned, for each condition, and the recipe has no conditions. Name "
                    "some, or set prior to standard."
                )
            specs["prior"] = replace(seen, position_size=0, latent_size=twice)
        return specs

    @classmethod
    def default_networks(cls, config: VAEConfig) -> dict[str, str]:
        """Convolutional networks; the published ones are ``dense_encoder`` and its mirror."""
        networks = {"encoder": "conv_encoder", "decoder": "conv_decoder"}
        return networks | ({"prior": "condition_prior"} if config.prior == "learned" else {})

    def posterior(self, batch: Batch) -> DiagonalGaussian:
        """Return the posterior of the code of each item."""
        encoder = self.networks["encoder"]
        return DiagonalGaussian.of(encoder(batch.x, batch.condition, batch.position))

    def prior(self, condition: Tensor) -> DiagonalGaussian:
        """Return the prior of the code for each condition (B, D)."""
        if self.config.prior == "learned":
            return DiagonalGaussian.of(self.networks["prior"](condition))
        zeros = condition.new_zeros(len(condition), self.config.latent_size)
        return DiagonalGaussian(zeros, zeros)

    def decode(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return items (B, C, *S) of codes (B, L)."""
        return self.networks["decoder"](z, condition, position).float()

    def _terms(self, batch: Batch, rng: SampleRng) -> tuple[Tensor, Tensor]:
        """Return the reconstruction error (B,) and the divergence (B, L)."""
        posterior = self.posterior(batch)
        z = posterior.at(rng.normal((self.config.latent_size,)))
        rebuilt = self.decode(z, batch.condition, batch.position)
        error = self.config.reconstruction.error(batch.x, rebuilt)
        return error, posterior.kl(self.prior(batch.condition))

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the negative ELBO of the batch, its divergence weighted."""
        error, kl = self._terms(batch, rng)
        total = (error + self.config.weight(progress) * self.config.charged(kl)).mean()
        logs = {
            "reconstruction": error.mean().detach(),
            "kl": kl.sum(1).mean().detach(),
            "active": (kl > ACTIVE_NATS).float().mean().detach(),
        }
        return Loss(total, logs)

    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return the negative ELBO (B,) with one draw of the code."""
        error, kl = self._terms(batch, rng)
        return error + self.config.beta * kl.sum(1)

    def private_refusal(self) -> str | None:
        """Nothing is measured on TRAIN and items do not meet."""
        return None

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tensor:
        """Return the posterior's mean (B, L)."""
        return self.posterior(batch).mean

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Decode the posterior's mean."""
        return self.decode(self.codes(batch), batch.condition, batch.position)

    @torch.no_grad()
    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Decode codes drawn from the prior; the decoder's mean is shown, without noise.

        Parameters
        ----------
        lift : how items sit in a volume.
        condition : (V, D).
        rng : one stream a volume.

        Returns
        -------
        Tensor
            (V, C, I, J, K).
        """
        config, count = self.config, self.spec.items_per_volume
        noise = draw_latents(rng, config.latent_size, count, config.z_per)
        z = self.prior(condition.repeat_interleave(count, dim=0)).at(noise)
        return decode_latents(self.decode, z, lift, condition, config.items_per_call)
