"""VAE-GAN: an autoencoder whose decoder is a GAN's generator.

Larsen et al., 2016, arXiv:1512.09300, algorithm 1. An item x is encoded to q(z | x), a rebuilt item
G(z_q) is compared with it in a layer of the discriminator, and the discriminator tells x from both
G(z_q) and G(z_p), z_p of the prior. Three networks have a phase each, so that no gradient goes
where it does not belong: the encoder never learns from the discriminator's verdict, and the
discriminator never makes its layer easy to match.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gyri.errors import UsageError
from gyri.methods.gaussian_autoencoder import ReconstructionConfig
from gyri.methods.latent_gan import ClassicGANConfig, LatentGAN
from gyri.networks.auto_encoding_gan import FeatureDiscriminator
from gyri.nn.variational import DiagonalGaussian
from gyri.registry import METHODS
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
class VAEGANConfig(ClassicGANConfig):
    """Settings of `VAEGAN`. See `ClassicGANConfig`.

    Parameters
    ----------
    likeness : how a rebuilt item is compared with its own. ``feature``, as published: half the
        squared distance of the discriminator's features, summed. ``voxel``: `reconstruction`, as
        3D ports have it.
    reconstruction : see `gyri.methods.gaussian_autoencoder.ReconstructionConfig`.
    beta : weight of the divergence beside the likeness, in the encoder's loss.
    gamma : weight of the likeness beside the adversarial terms, in the generator's loss. The
        authors' code has 1e-5 for features.
    saturating : the generator minimises ``ln(1 - D)``, as the authors write, instead of
        ``-ln D``, which has a slope where the discriminator is sure.
    """

    latent_size: int = 128
    lr: float = 1e-4
    likeness: Literal["feature", "voxel"] = "feature"
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    beta: float = 1.0
    gamma: float = 1e-5
    saturating: bool = False

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        if self.beta < 0 or self.gamma < 0:
            raise UsageError(
                f"beta is {self.beta:g} and gamma {self.gamma:g}; weights must not be negative."
            )


@METHODS.register("vae_gan", VAEGANConfig)
class VAEGAN(LatentGAN):
    """VAE-GAN: an autoencoder that compares items as a discriminator sees them.

    Weak where codes of the prior lie off the codes of scans: the likeness outweighs the divergence,
    and samples are then worse than reconstructions. Log both.
    """

    config: VAEGANConfig
    phases = (
        Phase("encoder", ("encoder",), "encoder"),
        Phase("generator", ("generator",), "generator"),
        Phase("discriminator", ("discriminator",), "discriminator"),
    )

    def __init__(
        self, config: VAEGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        if not isinstance(networks["discriminator"], FeatureDiscriminator):
            raise UsageError(
                f"networks.discriminator of vae_gan is a {type(networks['discriminator']).__name__}"
                ", which gives none of its layers away. Take feature_discriminator."
            )
        adam = OptimiserConfig(lr=config.lr, betas=config.betas, final_lr=config.final_lr)
        self.optimisers = dict.fromkeys(("encoder", "generator", "discriminator"), adam)

    @classmethod
    def network_specs(cls, config: VAEGANConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """A GAN's two networks, and an encoder to means and log-variances."""
        specs = super().network_specs(config, spec)
        encoder = replace(specs["discriminator"], latent_size=2 * config.latent_size)
        return {**specs, "encoder": encoder}

    @classmethod
    def default_networks(cls, config: VAEGANConfig) -> dict[str, str]:
        """A convolutional encoder and the published kinds of generator and discriminator."""
        return {
            "encoder": "conv_encoder",
            "generator": "resize_generator",
            "discriminator": "feature_discriminator",
        }

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the averages of encoder and generator; the discriminator has none."""
        return (self.config.ema_half_life_images or None) if network != "discriminator" else None

    def posterior(self, batch: Batch) -> DiagonalGaussian:
        """Return the posterior of the code of each item."""
        encoder = self.networks["encoder"]
        return DiagonalGaussian.of(encoder(batch.x, batch.condition, batch.position))

    def _coded(self, batch: Batch, rng: SampleRng) -> tuple[Tensor, DiagonalGaussian]:
        """Return a draw from each item's posterior, and the posterior."""
        posterior = self.posterior(batch)
        return posterior.at(rng.normal((self.config.latent_size,))), posterior

    def decode(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return items (B, C, *S) of codes (B, L)."""
        return self.networks["generator"](z, condition, position).float()

    def _decoded(self, z: Tensor, batch: Batch) -> Tensor:
        return self.decode(z, batch.condition, batch.position)

    @property
    def _discriminator(self) -> FeatureDiscriminator:
        discriminator = self.networks["discriminator"]
        assert isinstance(discriminator, FeatureDiscriminator)
        return discriminator

    def _seen(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the discriminator's logits (B,) and features of `x`."""
        judge = self._discriminator.logits_and_features
        logits, features = judge(x, batch.condition, batch.position)
        return logits.float(), features.float()

    def unlikeness(self, batch: Batch, rebuilt: Tensor, features: Tensor | None) -> Tensor:
        """Return how far rebuilt items are from the batch's, (B,).

        Parameters
        ----------
        features : of `rebuilt` where they are already known.
        """
        if self.config.likeness == "voxel":
            return self.config.reconstruction.error(batch.x, rebuilt)
        see = self._discriminator.features
        with torch.no_grad():
            wanted = see(batch.x, batch.condition, batch.position).float()
        if features is None:
            features = see(rebuilt, batch.condition, batch.position).float()
        return (features - wanted).square().flatten(1).sum(1) / 2

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the loss of one network's phase; the loop keeps the others as they are."""
        losses = {
            "encoder": self._encoder_loss,
            "generator": self._generator_loss,
            "discriminator": self._discriminator_loss,
        }
        return losses[phase](batch, rng)

    def _encoder_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``unlikeness + beta KL(q(z | x) || N(0, 1))``, summed over the code."""
        z, posterior = self._coded(batch, rng)
        error = self.unlikeness(batch, self._decoded(z, batch), None)
        kl = posterior.kl(DiagonalGaussian.standard(posterior)).sum(1)
        return Loss(
            (error + self.config.beta * kl).mean(),
            {"unlikeness": error.mean().detach(), "kl": kl.mean().detach()},
        )

    def _generator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``gamma unlikeness - ln D(G(z_q)) - ln D(G(z_p))``; codes carry no gradient."""
        with torch.no_grad():
            z, _ = self._coded(batch, rng)
        rebuilt = self._decoded(z, batch)
        logits_rebuilt, features = self._seen(rebuilt, batch)
        logits_drawn, _ = self._seen(self.fakes(batch, rng), batch)
        error = self.unlikeness(batch, rebuilt, features)
        adversarial = self._blame(logits_rebuilt) + self._blame(logits_drawn)
        l1 = (rebuilt - batch.x).abs().flatten(1).mean(1)
        return Loss(
            (self.config.gamma * error + adversarial).mean(),
            {
                "unlikeness": error.mean().detach(),
                "adversarial": adversarial.mean().detach(),
                "l1": l1.mean().detach(),
            },
        )

    def _blame(self, logits: Tensor) -> Tensor:
        """Loss (B,) of the generator at the discriminator's logits of its items."""
        return -softplus(logits) if self.config.saturating else softplus(-logits)

    def _discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``-ln D(x) - ln(1 - D(G(z_q))) - ln(1 - D(G(z_p)))``."""
        with torch.no_grad():
            z, _ = self._coded(batch, rng)
            rebuilt, drawn = self._decoded(z, batch), self.fakes(batch, rng)
        of_real, of_rebuilt, of_drawn = (
            self._seen(x, batch)[0] for x in (batch.x.float(), rebuilt, drawn)
        )
        total = (softplus(-of_real) + softplus(of_rebuilt) + softplus(of_drawn)).mean()
        return Loss(
            total,
            {
                "logits_real": of_real.mean().detach(),
                "logits_rebuilt": of_rebuilt.mean().detach(),
                "logits_fake": of_drawn.mean().detach(),
            },
        )

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tensor:
        """Return the posterior's mean (B, L)."""
        return self.posterior(batch).mean

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Decode the posterior's mean."""
        return self._decoded(self.codes(batch), batch)

    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return the reconstruction error (B,) of voxels, whatever `likeness` trains with."""
        return self.config.reconstruction.error(batch.x, self.reconstruct(batch))
