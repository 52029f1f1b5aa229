"""R3GAN: a relativistic pairing loss with zero-centred penalties on reals and fakes.

Huang et al., 2024, arXiv:2501.05441, after Jolicoeur-Martineau, 2018, arXiv:1807.00734 (RpGAN) and
Mescheder et al., 2018, arXiv:1801.04406 (R1, R2). Every real item is paired with the fake that
shares its place in the batch, its condition and its position.

Of the published augmentations (ADA's pipeline) those are kept that mean something in MRI: integer
translation and affine intensity, with a probability that follows a schedule. Rotation, anisotropic
scaling and cutout are not here yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gyri.methods.latent_gan import LatentConfig, LatentGAN
from gyri.registry import METHODS
from gyri.sampling.preconditioning import over_items
from gyri.types import (
    Batch,
    ItemSpec,
    Loss,
    OptimiserConfig,
    Progress,
    SampleRng,
)


@dataclass(frozen=True, kw_only=True)
class R3GANConfig(LatentConfig):
    """Settings of `R3GAN`; the defaults are FFHQ-64's, with its horizon scaled to the run's.

    See `gyri.methods.latent_gan.LatentConfig` for ``z_per`` and ``items_per_call``.

    Every pair (begin, end) is joined by half a cosine over the horizon.

    Parameters
    ----------
    latent_size : length of z.
    gamma : weight of the penalties, none for `scaled_gamma` of the item's shape; it falls to
        `gamma_end` times that. Sweep it in factors of 4.
    lr, beta2 : of Adam, for both networks; its beta1 is 0.
    ema_half_life : half-life of the generator's average as a share of the horizon's images; it
        rises from 0. FFHQ-64: 0.5 of 20 million.
    augment : probability of each augmentation at the end; it rises from 0.
    translate : largest shift as a share of an axis.
    intensity : standard deviation of brightness and of log2 contrast.
    """

    latent_size: int = 64
    gamma: float | None = None
    gamma_end: float = 0.1
    lr: tuple[float, float] = (2e-4, 5e-5)
    beta2: tuple[float, float] = (0.9, 0.99)
    ema_half_life: float = 0.025
    augment: float = 0.5
    translate: float = 0.125
    intensity: float = 0.2


def scaled_gamma(shape: tuple[int, ...]) -> float:
    """First guess of gamma: FFHQ-64's 2, in proportion to the number of voxels."""
    return 2.0 * math.prod(shape) / 64**2


def half_cosine(begin: float, end: float, fraction: float) -> float:
    """From `begin` to `end` as `fraction` goes from 0 to 1, then constant."""
    return begin + (1 - math.cos(math.pi * min(fraction, 1.0))) / 2 * (end - begin)


def squared_norm(gradient: Tensor) -> Tensor:
    """Squared length (B,) of gradients (B, C, *S): the sum over all axes but the first."""
    return gradient.square().flatten(1).sum(1)


def translated(x: Tensor, shift: Tensor) -> Tensor:
    """Shift items by whole voxels, their border repeated.

    Parameters
    ----------
    x : (B, C, *S).
    shift : (B, len(S)) int64, in voxels.
    """
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        source = torch.arange(size, device=x.device) - shift[:, axis - 2, None]
        along = [len(x), *[1] * (x.ndim - 1)]
        along[axis] = size
        x = x.gather(axis, source.clamp(0, size - 1).reshape(along).expand(x.shape))
    return x


def augmented(
    x: Tensor, rng: SampleRng, probability: float, translate: float, intensity: float
) -> Tensor:
    """Augment items (B, C, *S), differentiably; each kind fires with `probability`.

    Contrast leaves the background, -1, where it is; brightness moves it too.
    """
    if probability == 0:
        return x
    fires = (rng.uniform((3,)) < probability).to(x)
    sizes = torch.tensor(x.shape[2:], device=x.device)
    place = (2 * rng.uniform((len(sizes),)) - 1) * translate * sizes
    x = translated(x, (place.round() * fires[:, :1]).long())
    draw = rng.normal((2,)) * intensity
    contrast = over_items(2 ** (draw[:, 0] * fires[:, 1]), x)
    brightness = over_items(draw[:, 1] * fires[:, 2], x)
    return (x + 1) * contrast - 1 + brightness


@METHODS.register("r3gan", R3GANConfig)
class R3GAN(LatentGAN):
    """R3GAN: relativistic pairing loss with R1 and R2 at every discriminator step."""

    config: R3GANConfig

    def __init__(self, config: R3GANConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        adam = OptimiserConfig(lr=config.lr[0], betas=(0.0, config.beta2[0]), eps=1e-8)
        self.optimisers = {"discriminator": adam, "generator": adam}
        self.gamma = scaled_gamma(spec.shape) if config.gamma is None else config.gamma

    @classmethod
    def default_networks(cls, config: R3GANConfig) -> dict[str, str]:
        """The networks of the paper."""
        return {"generator": "r3gan_generator", "discriminator": "r3gan_discriminator"}

    def hyperparameters(self, optimiser: str, progress: Progress) -> dict[str, Any]:
        """Learning rate and betas on their cosines."""
        return {
            "lr": half_cosine(*self.config.lr, progress.fraction),
            "betas": (0.0, half_cosine(*self.config.beta2, progress.fraction)),
        }

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the generator's average; the discriminator has none."""
        if network != "generator" or self.config.ema_half_life == 0:
            return None
        horizon = progress.images_seen / progress.fraction if progress.fraction > 0 else 0.0
        return max(half_cosine(0.0, self.config.ema_half_life * horizon, progress.fraction), 1e-8)

    def _logits(self, x: Tensor, batch: Batch, progress: Progress, rng: SampleRng) -> Tensor:
        config = self.config
        probability = half_cosine(0.0, config.augment, progress.fraction)
        x = augmented(x, rng, probability, config.translate, config.intensity)
        return self.networks["discriminator"](x, batch.condition, batch.position).float()

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the discriminator's or the generator's loss on pairs of real and fake."""
        losses = {"discriminator": self._discriminator_loss, "generator": self._generator_loss}
        return losses[phase](batch, progress, rng)

    def _discriminator_loss(self, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """``softplus(-(D(x) - D(fake))) + gamma / 2 (R1 + R2)``.

        The penalties are taken with respect to items before augmentation, in float32.
        """
        with torch.no_grad():
            fake = self.fakes(batch, rng)
        real = batch.x.detach().float().requires_grad_()
        fake = fake.requires_grad_()
        logits_real = self._logits(real, batch, progress, rng)
        logits_fake = self._logits(fake, batch, progress, rng)
        (slope_real,) = torch.autograd.grad(logits_real.sum(), real, create_graph=True)
        (slope_fake,) = torch.autograd.grad(logits_fake.sum(), fake, create_graph=True)
        r1, r2 = squared_norm(slope_real), squared_norm(slope_fake)
        gamma = half_cosine(self.gamma, self.gamma * self.config.gamma_end, progress.fraction)
        adversarial = softplus(-(logits_real - logits_fake))
        total = (adversarial + gamma / 2 * (r1 + r2)).mean()
        return Loss(
            total,
            {
                "adversarial": adversarial.mean().detach(),
                "r1": r1.mean().detach(),
                "r2": r2.mean().detach(),
                "logits_real": logits_real.mean().detach(),
                "logits_fake": logits_fake.mean().detach(),
            },
        )

    def _generator_loss(self, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """``softplus(D(x) - D(fake))``: reals carry no gradient but set the slope."""
        fake = self.fakes(batch, rng)
        with torch.no_grad():
            logits_real = self._logits(batch.x.float(), batch, progress, rng)
        logits_fake = self._logits(fake, batch, progress, rng)
        adversarial = softplus(logits_real - logits_fake).mean()
        return Loss(adversarial, {"adversarial": adversarial.detach()})
