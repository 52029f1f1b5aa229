"""What autoencoders with a Gaussian code share: their settings, their decoder and the sampler.

Kingma & Welling, 2013, arXiv:1312.6114. The reconstruction error is summed over voxels and the
divergence over the code, both of one item: a mean over voxels would weigh the divergence by their
number, and the code would collapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.variational import DiagonalGaussian, log_cosh
from gyri.sampling.latent import ZPer, decode_latents, draw_latents
from gyri.types import Batch, ItemSpec, Lift, Method, OptimiserConfig, Phase, SampleRng


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
class CodeConfig:
    """Settings of every `GaussianAutoencoder`.

    Parameters
    ----------
    latent_size : length of the code.
    reconstruction : see `ReconstructionConfig`.
    beta : weight of the divergence.
    z_per : ``volume`` gives all items of a sampled volume one code (slices then differ by their
        position alone), ``item`` gives each its own, as published for single slices.
    items_per_call : most items that are decoded at once; bounds memory.
    """

    latent_size: int = 256
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    beta: float = 1.0
    z_per: ZPer = "volume"
    optimiser: OptimiserConfig = OptimiserConfig(lr=3e-4)
    items_per_call: int = 64

    def __post_init__(self) -> None:
        """Refuse a code of nothing and a negative weight."""
        if self.latent_size < 1 or self.beta < 0:
            raise UsageError(
                f"latent_size is {self.latent_size} and beta {self.beta:g}; give a latent_size of "
                "at least 1 and no negative weight."
            )


class GaussianAutoencoder(Method):
    """All networks trained together; a decoder of codes whose prior is Gaussian, given the labels.

    Subclasses write `codes`, `prior_of_volumes` and the loss.
    """

    config: Any

    def __init__(self, config: CodeConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        self.phases = (Phase("autoencoder", tuple(networks), "autoencoder"),)
        self.optimisers = {"autoencoder": config.optimiser}

    def decode(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return items (B, C, *S) of codes (B, L)."""
        return self.networks["decoder"](z, condition, position).float()

    def codes(self, batch: Batch) -> Tensor:
        """Return the posterior's mean (B, L)."""
        raise NotImplementedError

    def prior_of_volumes(self, condition: Tensor, rng: SampleRng) -> DiagonalGaussian:
        """Return the Gaussian (V, L) from which the codes of each volume are drawn."""
        raise NotImplementedError

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
        prior = self.prior_of_volumes(condition, rng).repeat(count)
        z = prior.at(draw_latents(rng, config.latent_size, count, config.z_per))
        return decode_latents(self.decode, z, lift, condition, config.items_per_call)
