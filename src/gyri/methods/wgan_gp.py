"""WGAN-GP: a critic of slope one estimates how far the fakes are from the reals.

Gulrajani et al., 2017, arXiv:1704.00028, algorithm 1, after Arjovsky et al., 2017,
arXiv:1701.07875. The discriminator is the critic: its "logits" C are no odds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gyri.errors import UsageError
from gyri.methods.latent_gan import ClassicGAN, ClassicGANConfig
from gyri.registry import METHODS
from gyri.sampling.preconditioning import over_items
from gyri.types import Batch, ItemSpec, Loss, SampleRng

EPS = 1e-12
"""Inside the root: its slope at 0 is infinite."""


@dataclass(frozen=True, kw_only=True)
class WGANGPConfig(ClassicGANConfig):
    """Settings of `WGANGP`; the defaults are the published ones. See `ClassicGANConfig`.

    Parameters
    ----------
    critic_steps : updates of the critic for one of the generator.
    penalty : weight of the gradient penalty.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.9)
    critic_steps: int = 5
    penalty: float = 10.0


def slope(logits: Tensor, x: Tensor) -> Tensor:
    """Length (B,) of the gradient of `logits` (B,) by `x` (B, C, *S), over all axes of an item."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return (gradient.square().flatten(1).sum(1) + EPS).sqrt()


def slope_between(
    judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, rng: SampleRng
) -> Tensor:
    """Length (B,) of the critic's slope at a random place between each real and its fake.

    Parameters
    ----------
    judge : (B, ...) -> (B,).
    real, fake : (B, ...), items or codes.
    rng : one draw an item.
    """
    alpha = over_items(rng.uniform(), real)
    between = (real + alpha * (fake - real)).requires_grad_()
    return slope(judge(between), between)


def refuse_batch_norms(method: str, critic: nn.Module) -> None:
    """Refuse a critic whose slope at an item depends on other items.

    Raises
    ------
    UsageError
        If `critic`, the discriminator of `method`, has batch norms.
    """
    if any(isinstance(layer, _BatchNorm) for layer in critic.modules()):
        raise UsageError(
            f"The discriminator of {method} has batch norms, which make an item's slope depend "
            "on the others, while the penalty is an item's own. Set "
            "networks.discriminator.norm to layer, instance or none."
        )


@METHODS.register("wgan_gp", WGANGPConfig)
class WGANGP(ClassicGAN):
    """WGAN-GP: Wasserstein critic with a gradient penalty, five steps for one of the generator.

    Weak at speed: a step of the generator costs five of the critic, each with second derivatives,
    and at the published learning rate it needs tens of thousands of them for fine texture. The
    distance is the critic's, so that its value says nothing across networks or grids.
    """

    config: WGANGPConfig

    def __init__(
        self, config: WGANGPConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        critic, generator = self.phases
        self.phases = (replace(critic, repeats=config.critic_steps), generator)
        refuse_batch_norms("wgan_gp", networks["discriminator"])

    def discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``C(fake) - C(x) + penalty (|slope| - 1)^2``, the slope between a real and its fake."""
        with torch.no_grad():
            fake = self.fakes(batch, rng)
        real = batch.x.float()
        logits_real, logits_fake = self.logits(real, batch), self.logits(fake, batch)
        length = slope_between(lambda x: self.logits(x, batch), real, fake, rng)
        penalty = (length - 1).square().mean()
        distance = (logits_real - logits_fake).mean()
        return Loss(
            self.config.penalty * penalty - distance,
            {
                "distance": distance.detach(),
                "penalty": penalty.detach(),
                "slope": length.mean().detach(),
            },
        )

    def generator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``-C(fake)``."""
        return Loss(-self.logits(self.fakes(batch, rng), batch).mean())
