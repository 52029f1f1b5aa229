"""MONAI's ``VQVAE`` around a codebook of gyri's.

van den Oord et al., 2017, arXiv:1711.00937; in 3D Tudosiu et al., 2022, arXiv:2209.03177. Encoder
and decoder are MONAI's. Its quantiser is not used: it moves the codes whenever a batch passes, in
the discriminator's phase too and once a micro-batch, where codes must move once a step.
`gyri.nn.quantise.Quantiser` takes its place. No layer normalises, so that a piece of a code can be
decoded alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.layers import memory_format, runner
from gyri.nn.monai import monai_nets
from gyri.nn.quantise import Quantiser
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

DOWN = (2, 4, 1, 1)
UP = (2, 4, 1, 1, 0)
"""Stride, kernel, dilation and padding (of the output too) of every halving and doubling."""


@dataclass(frozen=True, kw_only=True)
class MonaiVQVAEConfig:
    """Settings of `MonaiVQVAE`.

    Parameters
    ----------
    channels : after each halving, from the first; as many halvings.
    num_res_layers : residual units after each halving and before each doubling.
    num_codes : codes of the codebook.
    code_size : channels of a code.
    decay : weight of the past in the codes' moving averages.
    gradient_checkpointing : keep only the blocks' inputs for the backward pass.
    channels_last : memory format of all activations; faster on CPU and with tensor cores.
    """

    channels: tuple[int, ...] = (64, 128)
    num_res_layers: int = 2
    num_codes: int = 1024
    code_size: int = 8
    decay: float = 0.99
    gradient_checkpointing: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse networks without a halving and codebooks without a choice."""
        if not self.channels or self.num_codes < 2:
            raise UsageError(
                f"channels has {len(self.channels)} halvings and num_codes is {self.num_codes}. "
                "Give at least one halving and two codes."
            )


@NETWORKS.register("monai_vqvae", MonaiVQVAEConfig)
class MonaiVQVAE(nn.Module):
    """MONAI's VQVAE: strided convolutions and residual units, with a codebook of gyri's.

    Attributes
    ----------
    factor : voxels of an item along each axis for one of its code.
    latent_channels : channels of the code.
    quantiser : the codebook.
    """

    def __init__(self, config: MonaiVQVAEConfig, spec: NetworkSpec) -> None:
        super().__init__()
        levels = len(config.channels)
        self.factor = 2**levels
        self.latent_channels = config.code_size
        net = monai_nets("monai_vqvae").VQVAE(
            spatial_dims=len(spec.shape),
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            channels=config.channels,
            num_res_layers=config.num_res_layers,
            num_res_channels=config.channels,
            downsample_parameters=(DOWN,) * levels,
            upsample_parameters=(UP,) * levels,
            num_embeddings=config.num_codes,
            embedding_dim=config.code_size,
        )
        self.encoder, self.decoder = net.encoder, net.decoder
        self.quantiser = Quantiser(config.code_size, config.num_codes, config.decay, True)
        self.run = runner(config.gradient_checkpointing)
        self.format = memory_format(len(spec.shape), config.channels_last)

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *S), S multiples of `factor` -> features before quantisation (B, C', *S')."""
        h = x.to(memory_format=self.format)
        for block in self.encoder.blocks:
            h = self.run(block, h)
        return h.float()

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, C', *S') -> (B, C, *S' factor)."""
        h = z.to(memory_format=self.format)
        for block in self.decoder.blocks:
            h = self.run(block, h)
        return h
