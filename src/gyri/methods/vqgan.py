"""Autoencoder to a small grid of codes from a codebook, with an adversary where one is wanted.

van den Oord et al., 2017, arXiv:1711.00937 (VQ-VAE); Esser et al., 2021, arXiv:2012.09841 (VQGAN);
in 3D Khader et al., 2023, arXiv:2211.03364 (Medical Diffusion). Codes follow the features by moving
averages, once a step, whatever the micro-batches. A code that hardly any voxel takes starts again
at a feature that is far from its own code (Dhariwal et al., 2020, arXiv:2005.00341, restart at
any). Gradients pass the quantisation as if it were not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.methods.grid_autoencoder import Coded, GridAutoencoder, GridAutoencoderConfig
from gyri.networks.monai_vqvae import MonaiVQVAE
from gyri.nn.quantise import Quantised, perplexity
from gyri.registry import METHODS
from gyri.types import SampleRng

CALIBRATION_ITEMS = 64
CANDIDATES = 16
"""Features of an item that codes may start again at."""
DRAWS = 8
"""Voxels among which a candidate is the farthest from its code."""


@dataclass(frozen=True, kw_only=True)
class VQGANConfig(GridAutoencoderConfig):
    """Settings of `VQGAN`; see `gyri.methods.grid_autoencoder.GridAutoencoderConfig`.

    Parameters
    ----------
    commitment : weight of the mean squared distance of features to their codes.
    restart : a code starts again when its share of the voxels falls below this part of an even
        share; 0 for never.
    """

    commitment: float = 0.25
    restart: float = 0.02

    def __post_init__(self) -> None:
        """Refuse a weight below 0 and codes that always start again."""
        super().__post_init__()
        if self.commitment < 0 or not 0 <= self.restart < 1:
            raise UsageError(
                f"commitment is {self.commitment:g} and restart {self.restart:g}; give a weight of "
                "at least 0 and a part of an even share from 0 to below 1."
            )


@METHODS.register("vqgan", VQGANConfig)
class VQGAN(GridAutoencoder):
    """Autoencoder to a grid of codes from a codebook; the first stage of latent diffusion."""

    config: VQGANConfig

    @classmethod
    def default_networks(cls, config: VQGANConfig) -> dict[str, str]:
        """MONAI's VQVAE, and PatchGAN's discriminator where there is one."""
        networks = {"autoencoder": "monai_vqvae"}
        return networks | ({"discriminator": "patch_discriminator"} if config.adversarial else {})

    @property
    def _network(self) -> MonaiVQVAE:
        return cast(MonaiVQVAE, self.networks["autoencoder"])

    @torch.no_grad()
    def calibrate(self, items: Tensor, context: Mapping[str, Tensor] | None = None) -> None:
        """Take the first codes from features of TRAIN items."""
        few = items[:CALIBRATION_ITEMS].split(1)
        features = torch.cat([self._encoded(self._seen(item)) for item in few])
        self._network.quantiser.start(features)

    def _encoded(self, seen: Tensor) -> Tensor:
        """Return the features before quantisation, which are continuous."""
        return self._network.encode(seen)

    def _decodable(self, z: Tensor) -> Tensor:
        return self._network.quantiser(z).features

    def _coded(self, seen: Tensor, rng: SampleRng) -> Coded:
        """Quantise; the statistics say which features took which code."""
        h = self._encoded(seen)
        quantised = self._network.quantiser(h)
        commitment = quantised.commitment
        logs = {
            "commitment": commitment.mean().detach(),
            "perplexity": perplexity(quantised.counts),
        }
        statistics = {"counts": quantised.counts, "sums": quantised.sums}
        if self.config.restart:
            statistics |= self._candidates(h.detach(), quantised, rng)
        penalty = self.config.commitment * commitment
        return Coded(quantised.features, penalty, logs, statistics)

    def _candidates(self, h: Tensor, quantised: Quantised, rng: SampleRng) -> dict[str, Tensor]:
        """Draw features that codes may start again at, each for one code; sums over items.

        Of a few random voxels the one that lies farthest from its code, so that what the codebook
        lacks is offered and not the background.
        """
        num_codes = len(quantised.counts)
        features = h.flatten(2)
        apart = (h - quantised.features.detach()).square().sum(1).flatten(1)
        draws = rng.uniform((CANDIDATES, DRAWS + 1))
        voxels = (draws[..., 1:] * apart.shape[1]).long()
        far = apart.gather(1, voxels.flatten(1)).unflatten(1, (CANDIDATES, DRAWS)).argmax(2)
        chosen = voxels.gather(2, far[..., None])[..., 0]
        offered = features.gather(2, chosen[:, None].expand(-1, h.shape[1], -1)).transpose(1, 2)
        code = (draws[..., 0] * num_codes).long().flatten()
        sums = torch.zeros_like(quantised.sums).index_add(0, code, offered.flatten(0, 1).double())
        return {"offered": sums, "offers": torch.bincount(code, minlength=num_codes)}

    @torch.no_grad()
    def after_step(self, phase: str, statistics: dict[str, Tensor]) -> None:
        """Move the codes, and let those that no one takes start again."""
        if phase != "autoencoder":
            return
        quantiser = self._network.quantiser
        quantiser.update(statistics["counts"], statistics["sums"])
        if self.config.restart:
            offers = statistics["offers"]
            unused = quantiser.share < self.config.restart / len(quantiser.share)
            at = statistics["offered"] / offers.clamp_min(1)[:, None]
            quantiser.restart(unused & (offers > 0), at)
