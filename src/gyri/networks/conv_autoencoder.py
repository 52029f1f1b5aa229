"""Convolutional encoder and decoder of an autoencoder with a code without space.

Stages of one strided convolution each, for slices and volumes; condition and position are added
as a bias at every stage. Grids are halved rounding up and cut back, so any size will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gyri.errors import UsageError
from gyri.nn.embedding import ConditionEmbedding, Label
from gyri.nn.layers import conv, group_norm, over_space, upsample_convolve, zero_init
from gyri.nn.mean_image import MeanImage
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class ConvAutoencoderConfig:
    """Settings of `ConvEncoder` and `ConvDecoder`.

    Parameters
    ----------
    widths : channels of each stage from the image to the code, one halving a stage; the decoder
        has them mirrored.
    condition_width : length of the embedding of condition and position.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    condition_width: int = 64

    def __post_init__(self) -> None:
        """Refuse a network without stages."""
        if not self.widths:
            raise UsageError("widths is empty; give the channels of at least one stage.")


def grids(shape: Sequence[int], stages: int) -> list[tuple[int, ...]]:
    """Return the grids from `shape` down, each half of the one before it, rounded up."""
    found = [tuple(shape)]
    for _ in range(stages):
        found.append(tuple((size + 1) // 2 for size in found[-1]))
    return found


class Stage(nn.Module):
    """A convolution, group normalisation, the label's bias and SiLU."""

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, condition_width: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = group_norm(convolution.out_channels, GROUPS)
        self.of_label = nn.Linear(condition_width, convolution.out_channels)

    def forward(self, x: Tensor, label: Tensor, grid: torch.Size | None = None) -> Tensor:
        """(B, C, *S) and (B, W) -> (B, C', *S'), upsampled to `grid` first where it is given."""
        x = self.convolution(x) if grid is None else upsample_convolve(self.convolution, x, grid)
        return silu(self.norm(x) + over_space(self.of_label(label), x))


@NETWORKS.register("conv_encoder", ConvAutoencoderConfig)
class ConvEncoder(nn.Module):
    """Strided convolutions from an item, its condition and position to a vector."""

    def __init__(self, config: ConvAutoencoderConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, width = len(spec.shape), config.condition_width
        self.label = ConditionEmbedding(spec.condition_size, spec.position_size, width)
        sizes = [spec.in_channels, *config.widths]
        self.stages = nn.ModuleList(
            Stage(conv(dims, a, b, stride=2), width) for a, b in pairwise(sizes)
        )
        base = grids(spec.shape, len(config.widths))[-1]
        self.out = nn.Linear(sizes[-1] * math.prod(base), spec.latent_size)

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """(B, C, *S), (B, D), (B, P) -> (B, latent_size)."""
        label = self.label(condition, position)
        for stage in self.stages:
            x = stage(x, label)
        return self.out(x.flatten(1))


@NETWORKS.register("conv_decoder", ConvAutoencoderConfig)
class ConvDecoder(nn.Module):
    """Doublings and convolutions from code, condition and position to what differs from a mean."""

    def __init__(self, config: ConvAutoencoderConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, width = len(spec.shape), config.condition_width
        self.features = Label(spec.condition_size, spec.position_size)
        widths = config.widths[::-1]
        self.label = ConditionEmbedding(spec.condition_size, spec.position_size, width)
        *finer, base = [torch.Size(grid) for grid in grids(spec.shape, len(widths))]
        self.grids: list[torch.Size] = finer[::-1]
        self.base = (widths[0], *base)
        self.spread = nn.Linear(spec.latent_size, math.prod(self.base))
        sizes = [*widths, widths[-1]]
        self.stages = nn.ModuleList(Stage(conv(dims, a, b), width) for a, b in pairwise(sizes))
        self.out = zero_init(conv(dims, widths[-1], spec.out_channels, 1))
        self.mean = MeanImage(self.features.size, (spec.out_channels, *spec.shape))

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """(B, L), (B, D), (B, P) -> (B, C, *S)."""
        label = self.label(condition, position)
        x = self.spread(z).unflatten(1, self.base)
        for stage, grid in zip(self.stages, self.grids, strict=True):
            x = stage(x, label, grid)
        return self.mean(self.out(x), self.features(condition, position))
