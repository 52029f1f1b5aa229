"""What GANs of a latent code share: two networks trained in turn, and the sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Settings of every `LatentGAN`'s generator.

    Parameters
    ----------
    latent_size : length of z.
    z_per : ``volume`` gives all items of a sampled volume one z (slices then differ by their
        position alone), ``item`` gives each its own.
    items_per_call : most items that the generator makes at once; bounds memory.
    """

    latent_size: int = 100
    z_per: ZPer = "volume"
    items_per_call: int = 64


@dataclass(frozen=True, kw_only=True)
class ClassicGANConfig(LatentConfig):
    """Settings of every `ClassicGAN`; the defaults are DCGAN's. See `LatentConfig`.

    Parameters
    ----------
    lr, betas : of Adam, for both networks.
    final_lr : fraction of `lr` left at the end of a cosine over the horizon; 1 keeps it constant,
        as published.
    ema_half_life_images : half-life of the generator's average in images; 0, as published, for
        none.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    final_lr: float = 1.0
    ema_half_life_images: float = 0.0


class LatentGAN(Method):
    """A generator of z and a discriminator, trained in turn.

    A fake takes condition and position of the real item in its place of the batch.
    """

    config: Any
    phases: tuple[Phase, ...] = (
        Phase("discriminator", ("discriminator",), "discriminator"),
        Phase("generator", ("generator",), "generator"),
    )

    @classmethod
    def network_specs(cls, config: Any, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The generator writes items of z; the discriminator writes one logit an item."""
        seen = NetworkSpec(0, 0, spec.shape, spec.condition.size, spec.position_size)
        return {
            "generator": replace(seen, out_channels=spec.channels, latent_size=config.latent_size),
            "discriminator": replace(seen, in_channels=spec.channels),
        }

    def fakes(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Make items (B, C, *S) of the batch's conditions and positions."""
        z = rng.normal((self.config.latent_size,))
        return self.networks["generator"](z, batch.condition, batch.position).float()

    @torch.no_grad()
    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Sample volumes (V, C, I, J, K); batch norms use their running statistics.

        Parameters
        ----------
        lift : how items sit in a volume; also says where they lie.
        condition : (V, D).
        rng : one stream a volume; draws its z or those of its items.
        """
        config, generator = self.config, self.networks["generator"]
        z = draw_latents(rng, config.latent_size, self.spec.items_per_volume, config.z_per)
        training = generator.training
        generator.eval()
        try:
            return decode_latents(generator, z, lift, condition, config.items_per_call)
        finally:
            generator.train(training)


class ClassicGAN(LatentGAN):
    """An Adam for each network and no augmentation.

    Subclasses write `discriminator_loss` and `generator_loss`.
    """

    config: ClassicGANConfig

    def __init__(
        self, config: ClassicGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        adam = OptimiserConfig(lr=config.lr, betas=config.betas, final_lr=config.final_lr)
        self.optimisers = {"discriminator": adam, "generator": adam}

    @classmethod
    def default_networks(cls, config: ClassicGANConfig) -> dict[str, str]:
        """DCGAN's networks."""
        return {"generator": "dcgan_generator", "discriminator": "dcgan_discriminator"}

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the generator's average; the discriminator has none."""
        return (self.config.ema_half_life_images or None) if network == "generator" else None

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the discriminator's or the generator's loss."""
        losses = {"discriminator": self.discriminator_loss, "generator": self.generator_loss}
        return losses[phase](batch, rng)

    def discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """Return the loss of the discriminator's phase."""
        raise NotImplementedError

    def generator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """Return the loss of the generator's phase."""
        raise NotImplementedError

    def logits(self, x: Tensor, batch: Batch) -> Tensor:
        """Return what the discriminator says (B,) of `x`, told the batch's labels."""
        return self.networks["discriminator"](x, batch.condition, batch.position).float()
