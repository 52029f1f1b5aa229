"""Conditional GAN: generator and discriminator are both told what the item is.

Mirza and Osindero, 2014, arXiv:1411.1784. The label joins z in the generator. In the discriminator
it joins the image, or the logit by Miyato and Koyama's projection (2018, arXiv:1802.05637): the
discriminator network's ``condition``.
"""

from __future__ import annotations

from torch import nn

from gyri.errors import UsageError
from gyri.methods.dcgan import CrossEntropyGAN
from gyri.methods.latent_gan import ClassicGANConfig
from gyri.registry import METHODS
from gyri.types import ItemSpec


@METHODS.register("cgan", ClassicGANConfig)
class CGAN(CrossEntropyGAN):
    """Conditional GAN: DCGAN told the condition, with true labels for fakes.

    Weak at what DCGAN is weak at, and at rare conditions: fakes carry the labels of the real
    batch, so that a scanner with few subjects is seldom practised. A generator may also answer
    each label with one image; look at the spread within a condition, not at its mean alone.
    """

    def __init__(
        self, config: ClassicGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        if not spec.condition.size:
            raise UsageError(
                "cgan is conditional, and the recipe has no conditions. Name some columns in the "
                "recipe's conditions, or take method dcgan."
            )
