"""Fully connected encoder and decoder, and the prior of a code given the condition.

As the scanner-conditioned autoencoder of brain slices was published: the flattened image and the
label in, ReLU layers, the mirrored layers out of code and label. No layer knows which voxels are
neighbours, and the number of weights grows with that of the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gyri.nn.embedding import Label
from gyri.nn.layers import zero_init
from gyri.nn.mean_image import MeanImage
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Settings of `DenseEncoder`.

    Parameters
    ----------
    hidden : sizes of the hidden layers from the image to the code; the decoder has them mirrored.
    """

    hidden: tuple[int, ...] = (512,)


@dataclass(frozen=True, kw_only=True)
class DenseDecoderConfig(DenseConfig):
    """Settings of `DenseDecoder`; see `DenseConfig`.

    Parameters
    ----------
    output : ``tanh``, as published: a sigmoid between -1 and 1, whose every hidden unit starts with
        a random image of its own; what training has not unlearned of them stays as speckle.
        ``linear`` has no bounds and starts from an empty `gyri.nn.mean_image.MeanImage`.
    """

    output: Literal["tanh", "linear"] = "tanh"


def relu_layers(sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for size, next_size in pairwise(sizes):
        layers += [nn.Linear(size, next_size), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@NETWORKS.register("dense_encoder", DenseConfig)
class DenseEncoder(nn.Module):
    """Fully connected network from an item, its condition and position to a vector."""

    def __init__(self, config: DenseConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.label = Label(spec.condition_size, spec.position_size)
        voxels = spec.in_channels * math.prod(spec.shape)
        self.layers = relu_layers([voxels + self.label.size, *config.hidden, spec.latent_size])

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """(B, C, *S), (B, D), (B, P) -> (B, latent_size)."""
        return self.layers(torch.cat([x.flatten(1), self.label(condition, position)], dim=1))


@NETWORKS.register("dense_decoder", DenseDecoderConfig)
class DenseDecoder(nn.Module):
    """Fully connected network from a code, condition and position to an item in [-1, 1]."""

    def __init__(self, config: DenseDecoderConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.label = Label(spec.condition_size, spec.position_size)
        self.item = (spec.out_channels, *spec.shape)
        sizes = [spec.latent_size + self.label.size, *config.hidden[::-1], math.prod(self.item)]
        self.layers = relu_layers(sizes)
        self.mean = None
        if config.output == "linear":
            zero_init(self.layers[-1])
            self.mean = MeanImage(self.label.size, self.item)

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """(B, L), (B, D), (B, P) -> (B, C, *S)."""
        label = self.label(condition, position)
        x = self.layers(torch.cat([z, label], dim=1)).unflatten(1, self.item)
        return x.tanh() if self.mean is None else self.mean(x, label)


@dataclass(frozen=True, kw_only=True)
class ConditionPriorConfig:
    """Settings of `ConditionPrior`.

    Parameters
    ----------
    hidden : sizes of hidden layers; without any, each level of a categorical condition has a mean
        and variance of its own and a number moves the mean along a line.
    spread : standard deviation of the levels' means at the start.
    """

    hidden: tuple[int, ...] = ()
    spread: float = 0.0


@NETWORKS.register("condition_prior", ConditionPriorConfig)
class ConditionPrior(nn.Module):
    """Mean and log-variance of a code given the condition; N(0, 1) at the start."""

    def __init__(self, config: ConditionPriorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.layers = relu_layers([spec.condition_size, *config.hidden, spec.latent_size])
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        zero_init(last)
        if config.spread:
            nn.init.normal_(last.weight[: spec.latent_size // 2], std=config.spread)

    def forward(self, condition: Tensor) -> Tensor:
        """(B, D) -> (B, latent_size): means, then logarithms of variances."""
        return self.layers(condition)
