"""DCGAN: the unconditional GAN with the cross-entropy of logits and a non-saturating generator.

Goodfellow et al., 2014, arXiv:1406.2661; networks and settings of Radford et al., 2016,
arXiv:1511.06434.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import softplus

from gyri.errors import UsageError
from gyri.methods.latent_gan import ClassicGAN, ClassicGANConfig
from gyri.registry import METHODS
from gyri.types import Batch, ItemSpec, Loss, SampleRng


class CrossEntropyGAN(ClassicGAN):
    """``max_D E log D(x) + E log(1 - D(G(z)))``, and ``max_G E log D(G(z))``."""

    def discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """Cross-entropy of reals and of fakes, each a forward pass of its own; ln 2 each at D = 0.

        Apart they must go where the discriminator has batch norms.
        """
        with torch.no_grad():
            fake = self.fakes(batch, rng)
        logits_real = self.logits(batch.x.float(), batch)
        logits_fake = self.logits(fake, batch)
        real, fakes = softplus(-logits_real).mean(), softplus(logits_fake).mean()
        return Loss(
            real + fakes,
            {
                "real": real.detach(),
                "fake": fakes.detach(),
                "logits_real": logits_real.mean().detach(),
                "logits_fake": logits_fake.mean().detach(),
            },
        )

    def generator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """Cross-entropy of fakes that are called real."""
        return Loss(softplus(-self.logits(self.fakes(batch, rng), batch)).mean())


@METHODS.register("dcgan", ClassicGANConfig)
class DCGAN(CrossEntropyGAN):
    """DCGAN: unconditional, non-saturating cross-entropy.

    Weak at variety: nothing in its loss asks for all modes, and on some hundred subjects the
    discriminator soon knows them by heart, so that generator and discriminator circle instead of
    settling. Its transposed convolutions leave a pattern of the stride's period in flat tissue.
    """

    def __init__(
        self, config: ClassicGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        if spec.condition.size:
            raise UsageError(
                "dcgan is unconditional, and the recipe has conditions. Take method cgan, which "
                "is dcgan with conditions, or leave the recipe's conditions out."
            )
