"""Alpha-GAN and alpha-WGAN-GP: a GAN that rebuilds scans from codes which look like the prior's.

Rosca et al., 2017, arXiv:1706.04987 (alpha-GAN); Kwon et al., 2019, arXiv:1908.02498, equations 3
to 5 (Wasserstein critics with gradient penalties, in 3D). The encoder is deterministic; what keeps
its codes near the prior is a second critic, of codes, instead of a divergence. z_hat = E(x) is a
code, x_hat = G(z_hat) a rebuilt item, x_r = G(z_r) a drawn one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gyri.methods.latent_gan import ClassicGANConfig, LatentGAN
from gyri.methods.wgan_gp import refuse_batch_norms, slope_between
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

CRITICS = ("discriminator", "code_discriminator")


@dataclass(frozen=True, kw_only=True)
class AlphaWGANConfig(ClassicGANConfig):
    """Settings of `AlphaWGAN`. See `ClassicGANConfig`.

    Parameters
    ----------
    latent_size : length of the code.
    lr, betas : of Adam, for all networks. The published code leaves beta1 at 0.9, with which a
        critic under a gradient penalty overshoots.
    adversarial : ``wasserstein`` critics with gradient penalties, or the ``cross_entropy`` of
        alpha-GAN without.
    penalty : weight of each gradient penalty.
    reconstruction : weight of the mean absolute difference of item and rebuilt item.
    critic_steps : updates of both critics for one of encoder and generator.
    """

    latent_size: int = 1000
    betas: tuple[float, float] = (0.5, 0.9)
    adversarial: Literal["wasserstein", "cross_entropy"] = "wasserstein"
    penalty: float = 10.0
    reconstruction: float = 10.0
    critic_steps: int = 1


@METHODS.register("alpha_wgan", AlphaWGANConfig)
class AlphaWGAN(LatentGAN):
    """Alpha-WGAN-GP: an autoencoder under two critics, one of volumes and one of codes.

    Weak at the balance of its three terms: a critic of slope one pulls the more the more voxels an
    item has, while the reconstruction is a mean over them; raise `reconstruction` with the grid.
    """

    config: AlphaWGANConfig

    def __init__(
        self, config: AlphaWGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        if config.adversarial == "wasserstein":
            refuse_batch_norms("alpha_wgan", networks["discriminator"])
        repeats = config.critic_steps
        self.phases = (
            Phase("autoencoder", ("encoder", "generator"), "autoencoder"),
            *(Phase(critic, (critic,), critic, repeats=repeats) for critic in CRITICS),
        )
        adam = OptimiserConfig(lr=config.lr, betas=config.betas, final_lr=config.final_lr)
        self.optimisers = dict.fromkeys(("autoencoder", *CRITICS), adam)

    @classmethod
    def network_specs(cls, config: AlphaWGANConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """A GAN's two networks, an encoder and a critic of its codes."""
        specs = super().network_specs(config, spec)
        encoder = replace(specs["discriminator"], latent_size=config.latent_size)
        codes = replace(specs["generator"], out_channels=0)
        return {**specs, "encoder": encoder, "code_discriminator": codes}

    @classmethod
    def default_networks(cls, config: AlphaWGANConfig) -> dict[str, str]:
        """The published kinds of networks, without batch norms."""
        return {
            "encoder": "conv_encoder",
            "generator": "resize_generator",
            "discriminator": "dcgan_discriminator",
            "code_discriminator": "code_discriminator",
        }

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the averages of encoder and generator; critics have none."""
        return None if network in CRITICS else self.config.ema_half_life_images or None

    def decode(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return items (B, C, *S) of codes (B, L)."""
        return self.networks["generator"](z, condition, position).float()

    def _coded(self, batch: Batch) -> Tensor:
        encoder = self.networks["encoder"]
        return encoder(batch.x, batch.condition, batch.position).float()

    def _judged(self, critic: str, x: Tensor, batch: Batch) -> Tensor:
        """Return what a critic says (B,) of items or codes, told the batch's labels."""
        return self.networks[critic](x, batch.condition, batch.position).float()

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the autoencoder's or a critic's loss."""
        losses = {
            "autoencoder": self._autoencoder_loss,
            "discriminator": self._discriminator_loss,
            "code_discriminator": self._code_discriminator_loss,
        }
        return losses[phase](batch, rng)

    def _wanted(self, logits: Tensor) -> Tensor:
        """Loss (B,) where `logits` should be high: ``-C``, or the cross-entropy of "real"."""
        return -logits if self.config.adversarial == "wasserstein" else softplus(-logits)

    def _unwanted(self, logits: Tensor) -> Tensor:
        """Loss (B,) where `logits` should be low."""
        return logits if self.config.adversarial == "wasserstein" else softplus(logits)

    def _penalty(
        self, critic: str, pairs: list[tuple[Tensor, Tensor]], batch: Batch, rng: SampleRng
    ) -> Tensor:
        """Sum ``(|slope| - 1)^2`` (B,) over pairs of real and fake; 0 for cross-entropy."""
        if self.config.adversarial == "cross_entropy":
            return pairs[0][0].new_zeros(len(batch))
        lengths = [
            slope_between(lambda x: self._judged(critic, x, batch), real, fake, rng)
            for real, fake in pairs
        ]
        return torch.stack([(length - 1).square() for length in lengths]).sum(0)

    def _autoencoder_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``-D(x_hat) - D(x_r) - C(z_hat) + reconstruction |x - x_hat|``."""
        z = self._coded(batch)
        rebuilt = self.decode(z, batch.condition, batch.position)
        logits_rebuilt = self._judged("discriminator", rebuilt, batch)
        logits_drawn = self._judged("discriminator", self.fakes(batch, rng), batch)
        of_codes = self._wanted(self._judged("code_discriminator", z, batch))
        adversarial = self._wanted(logits_rebuilt) + self._wanted(logits_drawn)
        l1 = (batch.x - rebuilt).abs().flatten(1).mean(1)
        return Loss(
            (adversarial + of_codes + self.config.reconstruction * l1).mean(),
            {
                "l1": l1.mean().detach(),
                "adversarial": adversarial.mean().detach(),
                "codes": of_codes.mean().detach(),
            },
        )

    def _discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``D(x_hat) + D(x_r) - 2 D(x) + penalty (GP(x, x_r) + GP(x, x_hat))``."""
        real = batch.x.float()
        with torch.no_grad():
            rebuilt = self.decode(self._coded(batch), batch.condition, batch.position)
            drawn = self.fakes(batch, rng)
        of_real, of_rebuilt, of_drawn = (
            self._judged("discriminator", x, batch) for x in (real, rebuilt, drawn)
        )
        penalty = self._penalty("discriminator", [(real, drawn), (real, rebuilt)], batch, rng)
        adversarial = (
            self._unwanted(of_rebuilt) + self._unwanted(of_drawn) + 2 * self._wanted(of_real)
        )
        return Loss(
            (adversarial + self.config.penalty * penalty).mean(),
            {
                "logits_real": of_real.mean().detach(),
                "logits_rebuilt": of_rebuilt.mean().detach(),
                "logits_fake": of_drawn.mean().detach(),
                "penalty": penalty.mean().detach(),
            },
        )

    def _code_discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``C(z_hat) - C(z_r) + penalty GP(z_r, z_hat)``, of codes made anew and cut off."""
        with torch.no_grad():
            coded = self._coded(batch)
        drawn = rng.normal((self.config.latent_size,))
        of_coded, of_drawn = (self._judged("code_discriminator", z, batch) for z in (coded, drawn))
        penalty = self._penalty("code_discriminator", [(drawn, coded)], batch, rng)
        adversarial = self._unwanted(of_coded) + self._wanted(of_drawn)
        return Loss(
            (adversarial + self.config.penalty * penalty).mean(),
            {
                "logits_prior": of_drawn.mean().detach(),
                "logits_coded": of_coded.mean().detach(),
                "penalty": penalty.mean().detach(),
            },
        )

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tensor:
        """Return the code (B, L) of each item."""
        return self._coded(batch)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Decode the code of each item."""
        return self.decode(self._coded(batch), batch.condition, batch.position)

    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return the mean absolute difference (B,) of item and rebuilt item."""
        return (batch.x - self.reconstruct(batch)).abs().flatten(1).mean(1)
