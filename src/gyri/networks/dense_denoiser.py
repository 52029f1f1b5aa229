"""Fully connected denoiser of short vectors, such as coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gyri.nn.embedding import Label, timestep_embedding
from gyri.nn.layers import zero_init
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class DenseDenoiserConfig:
    """Settings of `DenseDenoiser`.

    Parameters
    ----------
    width : of the hidden layers.
    num_blocks : residual blocks of two layers.
    dropout : share of hidden units left out in training; short vectors of few subjects are soon
        known by heart.
    """

    width: int = 128
    num_blocks: int = 2
    dropout: float = 0.1


@NETWORKS.register("dense_denoiser", DenseDenoiserConfig)
class DenseDenoiser(nn.Module):
    """Residual layers over a flattened item, its noise level, condition and position.

    The output is zero at the start.
    """

    def __init__(self, config: DenseDenoiserConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.label = Label(spec.condition_size, spec.position_size)
        self.item = (spec.out_channels, *spec.shape)
        self.width = config.width
        voxels = math.prod(spec.shape)
        known = spec.in_channels * voxels + self.label.size + config.width
        self.first = nn.Linear(known, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(config.width),
                nn.Linear(config.width, 2 * config.width),
                nn.SiLU(),
                nn.Dropout(config.dropout),
                nn.Linear(2 * config.width, config.width),
            )
            for _ in range(config.num_blocks)
        )
        self.last = nn.Sequential(
            nn.LayerNorm(config.width),
            zero_init(nn.Linear(config.width, spec.out_channels * voxels)),
        )

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None = None
    ) -> Tensor:
        """(B, C, *S), (B,), (B, D), (B, P) -> (B, C', *S)."""
        level = timestep_embedding(noise_level, self.width)
        known = torch.cat([x.flatten(1), level, self.label(condition, position)], dim=1)
        hidden = self.first(known)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden).unflatten(1, self.item)
