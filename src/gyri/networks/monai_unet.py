"""MONAI's ``DiffusionModelUNet`` as a denoiser.

Rombach et al., 2022, arXiv:2112.10752; in 3D Pinaya et al., 2022, arXiv:2209.07162. The network is
MONAI's; training and sampling are gyri's. Of MONAI's schedulers, that of DDPM cannot skip steps,
that of DDIM chains its steps wrongly since 1.6, and that of rectified flow has no state; they are
not used.

Time: the network's sinusoids take a number of the order of 0 to 1000. By default that is a thousand
times gyri's noise level ``ln(sigma / alpha) / 4``, which means the same for every process; with a
`schedule` it is the index of that noise level in it, as published weights know it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.errors import UsageError
from gyri.nn.embedding import STEPS_PER_UNIT
from gyri.nn.layers import over_space
from gyri.nn.monai import monai_nets
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

LOG_SNR_LIMIT = 20.0
"""Of a noise level: no schedule's ends lie beyond."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A published schedule whose variances' square roots rise evenly.

    Parameters
    ----------
    first, last : variances at its ends.
    num_steps : indices, from almost clean to noise.
    """

    first: float = 0.0015
    last: float = 0.0205
    num_steps: int = 1000

    def noise_levels(self) -> Tensor:
        """Return the noise level at each index, (num_steps,), rising."""
        roots = torch.linspace(
            math.sqrt(self.first), math.sqrt(self.last), self.num_steps, dtype=torch.float64
        )
        alpha_bar = torch.cumprod(1 - roots**2, 0)
        log_snr = (alpha_bar / (1 - alpha_bar)).log()
        return -log_snr.clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT) / 8


@dataclass(frozen=True, kw_only=True)
class MonaiUNetConfig:
    """Settings of `MonaiUNet`.

    Parameters
    ----------
    channels : of each level, from full resolution down; one halving between two levels.
    num_res_blocks : residual blocks a level on the way down; one more on the way up.
    attention : for each level, whether attention follows every block. The middle has it.
    channels_per_head : of the attention, for each level, or one number for all.
    norm_groups : groups of all normalisations; it must divide every entry of `channels`.
    resblock_updown : resample inside residual blocks.
    upcast_attention : attention in float32 under autocast.
    condition : how it enters: as the one token of a cross-``attention``, as constant ``maps``
        beside the noised item, or as ``both``, as published.
    missing_bits : the network is told which conditions are missing. False where all are numbers
        and none is ever missing, as published.
    schedule : see the module; none by default.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    num_res_blocks: int = 2
    attention: tuple[bool, ...] = (False, True, True)
    channels_per_head: tuple[int, ...] = (64,)
    norm_groups: int = 32
    resblock_updown: bool = True
    upcast_attention: bool = False
    condition: Literal["attention", "maps", "both"] = "both"
    missing_bits: bool = True
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Refuse lists of different length and groups that do not divide."""
        levels = len(self.channels)
        if not levels or len(self.attention) != levels:
            raise UsageError(
                f"channels has {levels} levels and attention {len(self.attention)}. Give both one "
                "entry a level, from full resolution down."
            )
        if len(self.channels_per_head) not in (1, levels):
            raise UsageError(
                f"channels_per_head has {len(self.channels_per_head)} entries and channels "
                f"{levels}. Give one, or one a level."
            )
        if any(width % self.norm_groups for width in self.channels):
            raise UsageError(
                f"norm_groups={self.norm_groups} does not divide channels={list(self.channels)}. "
                "Choose a common divisor."
            )


@NETWORKS.register("monai_unet", MonaiUNetConfig)
class MonaiUNet(nn.Module):
    """MONAI's DiffusionModelUNet as a denoiser; conditions as a token, as maps, or both."""

    levels: Tensor

    def __init__(self, config: MonaiUNetConfig, spec: NetworkSpec) -> None:
        super().__init__()
        if spec.position_size:
            raise UsageError(
                "monai_unet knows no position, and this view's items have one. Take the network "
                "unet, or a view of whole volumes (volume, latent)."
            )
        self.config, self.spec = config, spec
        size = spec.condition_size if config.missing_bits else spec.condition_size // 2
        attends = bool(size) and config.condition != "maps"
        maps = size if config.condition != "attention" else 0
        heads = config.channels_per_head
        self.net = monai_nets("monai_unet").DiffusionModelUNet(
            spatial_dims=len(spec.shape),
            in_channels=spec.in_channels + maps,
            out_channels=spec.out_channels,
            num_res_blocks=config.num_res_blocks,
            channels=config.channels,
            attention_levels=config.attention,
            norm_num_groups=config.norm_groups,
            resblock_updown=config.resblock_updown,
            num_head_channels=heads if len(heads) > 1 else heads * len(config.channels),
            with_conditioning=attends,
            cross_attention_dim=size if attends else None,
            upcast_attention=config.upcast_attention,
        )
        self.attends, self.maps = attends, bool(maps)
        self.multiple = 2 ** (len(config.channels) - 1)
        levels = torch.empty(0) if config.schedule is None else config.schedule.noise_levels()
        self.register_buffer("levels", levels.float(), persistent=False)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Tensor,
        position: Tensor | None = None,
    ) -> Tensor:
        """Return the denoiser's raw output; zero at init.

        Parameters
        ----------
        x : (B, C_in, *S), of any size: zeros are put behind it until it can be halved.
        noise_level : (B,).
        condition : (B, D), D may be 0.
        position : None.

        Returns
        -------
        Tensor
            (B, C_out, *S).

        Raises
        ------
        UsageError
            If a condition is missing and the network knows no missing ones.
        """
        short = [-size % self.multiple for size in x.shape[2:]]
        h = functional.pad(x, [n for size in reversed(short) for n in (0, size)])
        values = self._values(condition).to(x.dtype)
        if self.maps:
            maps = over_space(values, h).expand(-1, -1, *h.shape[2:])
            h = torch.cat([h, maps], dim=1)
        context = values[:, None] if self.attends else None
        made = self.net(h, self.timesteps(noise_level), context=context)
        return made[(..., *(slice(size) for size in x.shape[2:]))]

    def timesteps(self, noise_level: Tensor) -> Tensor:
        """Return what the network's sinusoids are given, (B,); see the module."""
        if not len(self.levels):
            return STEPS_PER_UNIT * noise_level.float()
        after = torch.searchsorted(self.levels, noise_level.float().contiguous())
        after = after.clamp(1, len(self.levels) - 1)
        low, high = self.levels[after - 1], self.levels[after]
        share = ((noise_level - low) / (high - low)).clamp(0, 1)
        return after - 1 + share

    def _values(self, condition: Tensor) -> Tensor:
        """Return the condition as the network takes it."""
        if self.config.missing_bits:
            return condition
        values, missing = condition[:, ::2], condition[:, 1::2]
        if bool((missing > 0).any()):
            raise UsageError(
                "This network was never trained with a missing condition. Give all of them, and "
                "take a guidance_scale of 1."
            )
        return values
