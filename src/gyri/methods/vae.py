"""Variational autoencoder, conditional where the recipe has conditions.

Kingma & Welling, 2013, arXiv:1312.6114; Sohn et al., 2015 (conditional); Higgins et al., 2017
(beta); Kingma et al., 2016, arXiv:1606.04934, appendix C.8 (free bits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.methods.gaussian_autoencoder import CodeConfig, GaussianAutoencoder
from gyri.nn.variational import DiagonalGaussian
from gyri.registry import METHODS
from gyri.types import Batch, ItemSpec, Loss, NetworkSpec, Progress, SampleRng

ACTIVE_NATS = 0.01
"""A dimension of the code whose divergence is below says nothing about the item."""


@dataclass(frozen=True, kw_only=True)
class VAEConfig(CodeConfig):
    """Settings of `VAE`; see `gyri.methods.gaussian_autoencoder.CodeConfig`.

    Parameters
    ----------
    kl_warmup : share of the horizon over which `beta` rises from 0.
    free_bits : nats of divergence a dimension of an item's code that cost nothing.
    prior : ``standard``, or ``learned``: a Gaussian of its own for each condition.
    """

    kl_warmup: float = 0.0
    free_bits: float = 0.0
    prior: Literal["standard", "learned"] = "standard"

    def __post_init__(self) -> None:
        """Refuse free bits and shares out of range."""
        super().__post_init__()
        if self.free_bits < 0:
            raise UsageError(f"free_bits is {self.free_bits:g}; it must not be negative.")
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
class VAE(GaussianAutoencoder):
    """Variational autoencoder: fast and stable, blurred; conditional where there are conditions."""

    config: VAEConfig

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

    def prior_of_volumes(self, condition: Tensor, rng: SampleRng) -> DiagonalGaussian:
        """Return the prior for each condition."""
        return self.prior(condition)
