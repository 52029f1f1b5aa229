"""DCGAN's generator and discriminator, for slices and volumes of any size.

Radford et al., 2016, arXiv:1511.06434: convolutions of kernel 4 and stride 2 all the way, init
N(0, 0.02). Conditions enter as in Mirza and Osindero, 2014, arXiv:1411.1784, through an embedding,
or by the projection of Miyato and Koyama, 2018, arXiv:1802.05637. Written from the papers' facts.

The generator starts at a grid of ``ceil(size / 2**len(widths))`` and crops what it has made to the
item's shape; the discriminator pads the item to that grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.errors import UsageError
from gyri.nn.embedding import ConditionEmbedding, PositionKind
from gyri.nn.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
    memory_format,
    over_space,
)
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SLOPE = 0.2
STD = 0.02

Norm = Literal["batch", "instance", "layer", "none"]


@dataclass(frozen=True, kw_only=True)
class DCGANGeneratorConfig:
    """Settings of `DCGANGenerator`; the widths are the published ones for 64x64.

    Parameters
    ----------
    widths : channels of each grid, from the smallest up; every width is followed by a doubling.
    norm : after all convolutions but the image's. ``batch``, as published, takes its statistics
        from the micro-batch of one process, so that items are no longer independent: micro-batches
        and processes change the result, and it must stay out of a critic with a penalty an item.
        The others are an item's own: ``layer`` over all its features, ``instance`` over each
        channel, which takes a channel's mean away, ``none`` with biases instead.
    condition_width : length of the embedding of condition and position.
    position : how coordinates enter, see `gyri.nn.embedding.ConditionEmbedding`.
    channels_last : memory format of all activations.
    """

    widths: tuple[int, ...] = (512, 256, 128, 64)
    norm: Norm = "layer"
    condition_width: int = 64
    position: PositionKind = "fourier"
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse to have no stage at all."""
        if not self.widths:
            raise UsageError("widths is empty; a DCGAN network needs one width a doubling.")


@dataclass(frozen=True, kw_only=True)
class DCGANDiscriminatorConfig(DCGANGeneratorConfig):
    """Settings of `DCGANDiscriminator`.

    Parameters
    ----------
    norm : see `DCGANGeneratorConfig`; the first convolution has none.
    condition : ``concatenate`` joins the embedding of condition and position to the image, as
        constant maps; ``projection`` adds the product of the embedding with the mean features to
        the logit.
    condition_width : number of those maps; a projection has the smallest grid's width instead.
    """

    condition: Literal["concatenate", "projection"] = "concatenate"
    condition_width: int = 8


def base_shape(shape: tuple[int, ...], config: DCGANGeneratorConfig) -> tuple[int, ...]:
    """Return the smallest grid, which the doublings bring to `shape` or a little above.

    Raises
    ------
    UsageError
        If it is a single voxel and each channel is normalised by itself: nothing would be left.
    """
    factor = 2 ** len(config.widths)
    base = tuple(-(-size // factor) for size in shape)
    if config.norm == "instance" and math.prod(base) == 1:
        raise UsageError(
            f"Items of shape {shape} are one voxel after {len(config.widths)} halvings, and an "
            "instance norm leaves nothing of one voxel. Give fewer widths, or norm: layer."
        )
    return base


def fitted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Crop x (B, C, *S) around its centre to `shape`, or pad it there with zeros; either undoes
    the other.
    """
    margins: list[int] = []
    for have, want in zip(x.shape[:1:-1], shape[::-1]):
        before = math.trunc((want - have) / 2)
        margins += [before, want - have - before]
    return functional.pad(x, margins)


def normalisation(kind: Norm, dims: int, channels: int) -> nn.Module:
    """Return a normalisation with a gain and a bias a channel."""
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return BATCH_NORMS[dims](channels)
    return nn.GroupNorm(channels if kind == "instance" else 1, channels)


def initialised(module: nn.Module) -> nn.Module:
    """Draw kernels from N(0, 0.02), gains from N(1, 0.02), and set biases to zero."""
    for layer in module.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, Tensor):
            nn.init.normal_(weight, mean=1.0 if weight.ndim == 1 else 0.0, std=STD)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
    return module


def label_embedding(
    config: DCGANGeneratorConfig, spec: NetworkSpec, width: int
) -> ConditionEmbedding | None:
    """Return the embedding of condition and position, None where there is neither."""
    if spec.condition_size + spec.position_size == 0:
        return None
    return ConditionEmbedding(spec.condition_size, spec.position_size, width, config.position)


@NETWORKS.register("dcgan_generator", DCGANGeneratorConfig)
class DCGANGenerator(nn.Module):
    """DCGAN's generator: transposed convolutions from z to an item within [-1, 1]."""

    def __init__(self, config: DCGANGeneratorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, widths = len(spec.shape), config.widths
        bias = config.norm == "none"
        self.memory_format = memory_format(dims, config.channels_last)
        self.shape = spec.shape
        self.base = (widths[0], *base_shape(spec.shape, config))
        self.label = label_embedding(config, spec, config.condition_width)
        in_size = spec.latent_size + (config.condition_width if self.label else 0)
        self.stem = initialised(nn.Linear(in_size, math.prod(self.base), bias=bias))
        layers: list[nn.Module] = []
        for width, next_width in pairwise([*widths, spec.out_channels]):
            double = self.doubling(dims, width, next_width, bias)
            layers += [normalisation(config.norm, dims, width), nn.ReLU(), double]
        self.layers = initialised(nn.Sequential(*layers))

    def doubling(self, dims: int, width: int, next_width: int, bias: bool) -> nn.Module:
        """Return what doubles the grid: a transposed convolution of kernel 4."""
        return TRANSPOSED_CONVOLUTIONS[dims](width, next_width, 4, 2, 1, bias=bias)

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return items.

        Parameters
        ----------
        z : (B, Z) standard normal.
        condition : (B, D), D may be 0.
        position : (B, P), or None where the network was made for none.

        Returns
        -------
        Tensor
            (B, C, *S) in [-1, 1].
        """
        if self.label is not None:
            z = torch.cat([z, self.label(condition, position)], dim=1)
        h = self.stem(z).unflatten(1, self.base).contiguous(memory_format=self.memory_format)
        return torch.tanh(fitted(self.layers(h), self.shape))


@NETWORKS.register("dcgan_discriminator", DCGANDiscriminatorConfig)
class DCGANDiscriminator(nn.Module):
    """DCGAN's discriminator: strided convolutions to one logit; without a norm, a plain critic."""

    def __init__(self, config: DCGANDiscriminatorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, widths = len(spec.shape), config.widths[::-1]
        bias = config.norm == "none"
        self.memory_format = memory_format(dims, config.channels_last)
        self.projects = config.condition == "projection"
        base = base_shape(spec.shape, config)
        self.padded = tuple(size * 2 ** len(widths) for size in base)
        label_width = widths[-1] if self.projects else config.condition_width
        self.label = label_embedding(config, spec, label_width)
        maps = label_width if self.label and not self.projects else 0
        layers: list[nn.Module] = []
        for width, next_width in pairwise([spec.in_channels + maps, *widths]):
            layers.append(CONVOLUTIONS[dims](width, next_width, 4, 2, 1, bias=bias))
            if len(layers) > 1:
                layers.append(normalisation(config.norm, dims, next_width))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers: nn.Sequential = nn.Sequential(*layers)
        initialised(self.layers)
        self.out = initialised(nn.Linear(widths[-1] * math.prod(base), 1, bias=bias))

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return logits, higher for real items.

        Parameters
        ----------
        x : (B, C, *S).
        condition : (B, D), D may be 0.
        position : (B, P), or None where the network was made for none.

        Returns
        -------
        Tensor
            (B,).
        """
        h, label = self.read_in(x, condition, position)
        return self.read_out(self.layers(h), label)

    def read_in(
        self, x: Tensor, condition: Tensor, position: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the first layer sees, and the embedding of the label."""
        h = fitted(x, self.padded)
        label = None if self.label is None else self.label(condition, position)
        if label is not None and not self.projects:
            maps = over_space(label, h).expand(-1, -1, *self.padded)
            h = torch.cat([h, maps.to(h.dtype)], dim=1)
        return h.contiguous(memory_format=self.memory_format), label

    def read_out(self, features: Tensor, label: Tensor | None) -> Tensor:
        """Return the logits (B,) of the last layer's features."""
        logits = self.out(features.flatten(1))[:, 0]
        if label is not None and self.projects:
            logits = logits + (label * features.flatten(2).mean(2)).sum(1)
        return logits
