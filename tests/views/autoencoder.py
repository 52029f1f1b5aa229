"""An autoencoder that no one trained, whose codes still differ from scan to scan."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from gyri.methods.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from gyri.methods.vqgan import VQGAN, VQGANConfig
from gyri.networks.monai_autoencoder_kl import MonaiAutoencoderKL, MonaiAutoencoderKLConfig
from gyri.networks.monai_vqvae import MonaiVQVAE, MonaiVQVAEConfig
from gyri.types import Grid, ItemSpec


def autoencoder(channels: int, grid: Grid, codebook: bool = False):
    """Return a trained run's stand-in: factor 4, 4 channels, random weights."""
    spec = ItemSpec(channels, grid.shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if codebook:
            config = VQGANConfig()
            network = MonaiVQVAE(
                MonaiVQVAEConfig(channels=(8, 8), num_res_layers=1, num_codes=32, code_size=4),
                VQGAN.network_specs(config, spec)["autoencoder"],
            )
            method = VQGAN(config, spec, {"autoencoder": network.eval()})
        else:
            config = AutoencoderKLConfig()
            network = MonaiAutoencoderKL(
                MonaiAutoencoderKLConfig(channels=(4, 8, 8), num_res_blocks=1, norm_groups=4),
                AutoencoderKL.network_specs(config, spec)["autoencoder"],
            )
            method = AutoencoderKL(config, spec, {"autoencoder": network.eval()})
    view = SimpleNamespace(item_channels=channels, item_shape=grid.shape)
    return SimpleNamespace(method=method, view=view)
