"""MONAI's ``AutoencoderKL``: items to a small grid of Gaussian codes and back.

Rombach et al., 2022, arXiv:2112.10752; in 3D Pinaya et al., 2022, arXiv:2209.07162. The class is
MONAI's. Of it this wrapper calls the encoder, its two heads and the decoder, and neither its
``forward`` nor ``encode_stage_2_inputs``: both draw noise from the global generator, and the first
returns a standard deviation where a log-variance is needed. Group norms see one item at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.layers import memory_format, runner
from gyri.nn.monai import monai_nets
from gyri.nn.variational import LOG_VARIANCE_RANGE, DiagonalGaussian
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class MonaiAutoencoderKLConfig:
    """Settings of `MonaiAutoencoderKL`.

    Parameters
    ----------
    channels : of each level, from full resolution down; one halving between two levels.
    latent_channels : channels of the code.
    num_res_blocks : residual blocks a level, on the way down as on the way up.
    attention : for each level, whether self-attention follows every block; empty for none.
    middle_attention : attention between two blocks at the coarsest level.
    norm_groups : groups of all normalisations; it must divide every entry of `channels`.
    gradient_checkpointing : keep only the blocks' inputs for the backward pass.
    channels_last : memory format of all activations; faster on CPU and with tensor cores.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    latent_channels: int = 4
    num_res_blocks: int = 2
    attention: tuple[bool, ...] = ()
    middle_attention: bool = False
    norm_groups: int = 32
    gradient_checkpointing: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse lists of different length and groups that do not divide."""
        if not self.channels or len(self.attention) not in (0, len(self.channels)):
            raise UsageError(
                f"channels has {len(self.channels)} levels and attention {len(self.attention)}. "
                "Give both one entry a level, or leave attention out."
            )
        if any(width % self.norm_groups for width in self.channels):
            raise UsageError(
                f"norm_groups={self.norm_groups} does not divide channels="
                f"{list(self.channels)}. Choose a common divisor."
            )


@NETWORKS.register("monai_autoencoder_kl", MonaiAutoencoderKLConfig)
class MonaiAutoencoderKL(nn.Module):
    """MONAI's AutoencoderKL: residual blocks, halvings, a Gaussian for every voxel of the code.

    Attributes
    ----------
    factor : voxels of an item along each axis for one of its code.
    latent_channels : channels of the code.
    """

    def __init__(self, config: MonaiAutoencoderKLConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.factor = 2 ** (len(config.channels) - 1)
        self.latent_channels = config.latent_channels
        self.net = monai_nets("monai_autoencoder_kl").AutoencoderKL(
            spatial_dims=len(spec.shape),
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            num_res_blocks=config.num_res_blocks,
            channels=config.channels,
            attention_levels=config.attention or (False,) * len(config.channels),
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            with_encoder_nonlocal_attn=config.middle_attention,
            with_decoder_nonlocal_attn=config.middle_attention,
        )
        self.run = runner(config.gradient_checkpointing)
        self.format = memory_format(len(spec.shape), config.channels_last)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """(B, C, *S), S multiples of `factor` -> Gaussians of codes (B, C', *S / factor)."""
        h = x.to(memory_format=self.format)
        for block in self.net.encoder.blocks:
            h = self.run(block, h)
        mean, log_variance = self.net.quant_conv_mu(h), self.net.quant_conv_log_sigma(h)
        return DiagonalGaussian(mean.float(), log_variance.float().clamp(*LOG_VARIANCE_RANGE))

    def decode(self, z: Tensor) -> Tensor:
        """(B, C', *S') -> (B, C, *S' factor)."""
        h = self.net.post_quant_conv(z).to(memory_format=self.format)
        for block in self.net.decoder.blocks:
            h = self.run(block, h)
        return h
