"""Autoencoder to a small grid of Gaussian codes, the first stage of latent diffusion.

Rombach et al., 2022, arXiv:2112.10752; in 3D Pinaya et al., 2022, arXiv:2209.07162. An autoencoder
with a trace of a divergence, which keeps codes near the origin: it makes no new brains, a model of
its codes does (`gyri.views.latent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from gyri.errors import UsageError
from gyri.methods.grid_autoencoder import Coded, GridAutoencoder, GridAutoencoderConfig
from gyri.networks.monai_autoencoder_kl import MonaiAutoencoderKL
from gyri.nn.variational import DiagonalGaussian
from gyri.registry import METHODS
from gyri.types import SampleRng


@dataclass(frozen=True, kw_only=True)
class AutoencoderKLConfig(GridAutoencoderConfig):
    """Settings of `AutoencoderKL`; see `gyri.methods.grid_autoencoder.GridAutoencoderConfig`.

    Parameters
    ----------
    kl : weight of the divergence, summed over a code (in nats) and averaged over items, beside an
        error that is averaged over voxels; so the published 1e-7 is meant.
    """

    kl: float = 1e-7

    def __post_init__(self) -> None:
        """Refuse a weight below 0."""
        super().__post_init__()
        if self.kl < 0:
            raise UsageError(f"kl is {self.kl:g}; a weight is at least 0.")


@METHODS.register("autoencoder_kl", AutoencoderKLConfig)
class AutoencoderKL(GridAutoencoder):
    """Autoencoder to a grid of Gaussian codes; the first stage of latent diffusion."""

    config: AutoencoderKLConfig

    @classmethod
    def default_networks(cls, config: AutoencoderKLConfig) -> dict[str, str]:
        """MONAI's AutoencoderKL, and PatchGAN's discriminator where there is one."""
        networks = {"autoencoder": "monai_autoencoder_kl"}
        return networks | ({"discriminator": "patch_discriminator"} if config.adversarial else {})

    def posterior(self, seen: Tensor) -> DiagonalGaussian:
        """Return the Gaussian of each voxel of the code of items as the networks see them."""
        return cast(MonaiAutoencoderKL, self.networks["autoencoder"]).encode(seen)

    def _coded(self, seen: Tensor, rng: SampleRng) -> Coded:
        """Draw from the posterior, each item from its own stream."""
        posterior = self.posterior(seen)
        z = posterior.at(rng.normal(posterior.mean.shape[1:]))
        kl = posterior.kl(DiagonalGaussian.standard(posterior)).flatten(1).sum(1)
        return Coded(z, self.config.kl * kl, {"kl": kl.mean().detach()}, {})

    def _encoded(self, seen: Tensor) -> Tensor:
        """Return the posterior's mean."""
        return self.posterior(seen).mean
