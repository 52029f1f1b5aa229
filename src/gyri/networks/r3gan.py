"""R3GAN's generator and discriminator, for slices and volumes.

Huang et al., 2024, arXiv:2501.05441, section 4: grouped inverted bottlenecks without any
normalisation, initialised as Zhang et al., 2019, arXiv:1901.09321 (Fixup). Written from the
paper's facts. Images may have any number of channels and any shape that is a base shape times
``2**(stages - 1)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gyri.errors import UsageError
from gyri.nn.embedding import FourierFeatures, PositionKind, given
from gyri.nn.layers import CONVOLUTIONS, conv, memory_format, over_space, runner
from gyri.nn.resample import SmoothDownsample, SmoothUpsample
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SLOPE = 0.2
EXPANSION = 2
CONVOLUTIONS_PER_BLOCK = 3


@dataclass(frozen=True, kw_only=True)
class R3GANNetworkConfig:
    """Settings of `R3GANGenerator` and `R3GANDiscriminator`.

    Parameters
    ----------
    widths : channels of each stage, from the smallest grid up, in both networks; one doubling
        between two stages.
    num_blocks : residual blocks a stage.
    group_size : channels of a group in the grouped convolutions, which have twice the width.
    condition_width : length of the generator's embedding of condition and position.
    condition_hidden : width of a two-layer MLP before the linear embedding, 0 for none. Without
        it the discriminator's logit is linear in each covariate.
    position : how coordinates enter: ``fourier`` features, so that neighbours are alike and every
        component has unit variance, or the ``raw`` numbers: with the slice view's one-hot
        ``index``, the published slice id.
    gradient_checkpointing : keep only the blocks' inputs for the backward pass. It does not lower
        the peak of a discriminator step, as the penalties' second derivatives keep what was
        recomputed; narrow stages at high resolution do.
    channels_last : memory format of all activations.
    """

    widths: tuple[int, ...] = (256, 256, 128, 64)
    num_blocks: int = 2
    group_size: int = 16
    condition_width: int = 64
    condition_hidden: int = 0
    position: PositionKind = "fourier"
    gradient_checkpointing: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse widths that do not split into groups."""
        wrong = [width for width in self.widths if EXPANSION * width % self.group_size]
        if wrong or not self.widths:
            raise UsageError(
                f"widths {wrong} do not fit group_size {self.group_size}: twice a width must be "
                "a multiple of it. Change one of them."
            )


CIFAR_10 = R3GANNetworkConfig(widths=(768,) * 4)
FFHQ_64 = R3GANNetworkConfig(widths=(768, 768, 768, 768, 384))
FFHQ_256 = R3GANNetworkConfig(widths=(768, 768, 768, 768, 384, 192, 96))


def fan_in_init(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw weights from N(0, gain^2 / fan_in) and set the bias, if any, to zero."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))
    if bias is not None:
        assert isinstance(bias, Tensor)
        nn.init.zeros_(bias)
    return module


def linear(in_size: int, out_size: int, gain: float = 1.0) -> nn.Module:
    """Return a bias-free linear layer."""
    return fan_in_init(nn.Linear(in_size, out_size, bias=False), gain)


def pointwise(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Return a bias-free 1x1 convolution, none where the width stays."""
    if in_channels == out_channels:
        return nn.Identity()
    return fan_in_init(conv(dims, in_channels, out_channels, 1, bias=False))


class ResidualBlock(nn.Module):
    """``x + contract(lrelu(grouped(lrelu(expand(x)))))``; the identity at init.

    The published block has its biases in the two activations. A bias before an activation is a
    bias of the convolution before it, and is kept there.

    Parameters
    ----------
    dims : spatial axes.
    width : C of x (B, C, *S).
    group_size : channels of a group of the middle convolution.
    total_blocks : residual blocks L of the whole network; activations keep their variance over
        depth with the gain ``sqrt(2 / (1 + slope^2)) L^(-1 / (2m - 2))``, m = 3 convolutions.
    """

    def __init__(self, dims: int, width: int, group_size: int, total_blocks: int) -> None:
        super().__init__()
        expanded = EXPANSION * width
        depth_exponent = -1 / (2 * CONVOLUTIONS_PER_BLOCK - 2)
        gain = math.sqrt(2 / (1 + SLOPE**2)) * total_blocks**depth_exponent
        self.expand = fan_in_init(conv(dims, width, expanded, 1), gain)
        self.grouped = fan_in_init(
            conv(dims, expanded, expanded, groups=expanded // group_size), gain
        )
        self.contract = fan_in_init(conv(dims, expanded, width, 1, bias=False), gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)."""
        h = leaky_relu(self.expand(x), SLOPE, inplace=True)
        h = leaky_relu(self.grouped(h), SLOPE, inplace=True)
        return x + self.contract(h)


def blocks(dims: int, width: int, config: R3GANNetworkConfig) -> list[nn.Module]:
    """Return the residual blocks of one stage."""
    total = config.num_blocks * len(config.widths)
    return [ResidualBlock(dims, width, config.group_size, total) for _ in range(config.num_blocks)]


def base_shape(shape: tuple[int, ...], config: R3GANNetworkConfig) -> tuple[int, ...]:
    """Return the smallest grid, from which doublings lead to `shape`.

    Raises
    ------
    UsageError
        If an axis cannot be halved that often.
    """
    factor = 2 ** (len(config.widths) - 1)
    if any(size % factor for size in shape):
        raise UsageError(
            f"Items of shape {shape} cannot be halved {len(config.widths) - 1} times, as the "
            f"{len(config.widths)} widths of the R3GAN network ask for: every axis must be a "
            f"multiple of {factor}. Prepare another grid, or give fewer widths."
        )
    return tuple(size // factor for size in shape)


class LabelEmbedding(nn.Module):
    """Linear embedding of condition and position, bias-free so that zeros mean nothing.

    Parameters
    ----------
    spec : for the lengths D and P.
    out_size : length of the embedding.
    gain : of its weights.
    config : see `R3GANNetworkConfig`.
    """

    def __init__(
        self, spec: NetworkSpec, out_size: int, gain: float, config: R3GANNetworkConfig
    ) -> None:
        super().__init__()
        self.features: FourierFeatures | None = None
        size = spec.position_size
        if spec.position_size and config.position == "fourier":
            self.features = FourierFeatures(spec.position_size)
            size = self.features.out_size
        self.position_size = spec.position_size
        size += spec.condition_size
        hidden = config.condition_hidden
        self.mlp: nn.Module = nn.Identity()
        if hidden:
            self.mlp = nn.Sequential(
                nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
            )
        self.linear = linear(hidden or size, out_size, gain)

    def forward(self, condition: Tensor, position: Tensor | None) -> Tensor:
        """(B, D) and (B, P) -> (B, out_size)."""
        label = condition
        if self.position_size:
            position = given(position)
            coordinates = position if self.features is None else self.features(position)
            label = torch.cat([condition, coordinates], dim=1)
        return self.linear(self.mlp(label))


def has_label(spec: NetworkSpec) -> bool:
    """Whether the network is told anything besides image or z."""
    return spec.condition_size + spec.position_size > 0


@NETWORKS.register("r3gan_generator", R3GANNetworkConfig)
class R3GANGenerator(nn.Module):
    """R3GAN's generator; linear in z at init, its output is not bounded."""

    def __init__(self, config: R3GANNetworkConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, widths = len(spec.shape), config.widths
        self.memory_format = memory_format(dims, config.channels_last)
        self.label: LabelEmbedding | None = None
        in_size = spec.latent_size
        if has_label(spec):
            self.label = LabelEmbedding(spec, config.condition_width, 1.0, config)
            in_size += config.condition_width
        self.basis = nn.Parameter(torch.randn(widths[0], *base_shape(spec.shape, config)))
        self.amplitude = linear(in_size, widths[0])
        layers = blocks(dims, widths[0], config)
        for width, next_width in pairwise(widths):
            layers += [pointwise(dims, width, next_width), SmoothUpsample(dims)]
            layers += blocks(dims, next_width, config)
        self.layers = nn.ModuleList(layers)
        self.out = fan_in_init(conv(dims, widths[-1], spec.out_channels, 1, bias=False))
        self.run = runner(config.gradient_checkpointing)

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
            (B, C, *S).
        """
        if self.label is not None:
            z = torch.cat([z, self.label(condition, position)], dim=1)
        x = over_space(self.amplitude(z), self.basis[None]) * self.basis
        x = x.to(memory_format=self.memory_format)
        for layer in self.layers:
            x = self.run(layer, x)
        return self.out(x)


@NETWORKS.register("r3gan_discriminator", R3GANNetworkConfig)
class R3GANDiscriminator(nn.Module):
    """R3GAN's discriminator; linear in x at init, conditioned by projection alone."""

    def __init__(self, config: R3GANNetworkConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, widths = len(spec.shape), config.widths[::-1]
        self.memory_format = memory_format(dims, config.channels_last)
        self.stem = fan_in_init(conv(dims, spec.in_channels, widths[0], 1, bias=False))
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += blocks(dims, width, config)
            layers += [SmoothDownsample(dims), pointwise(dims, width, next_width)]
        self.layers = nn.ModuleList([*layers, *blocks(dims, widths[-1], config)])
        width = widths[-1]
        base = base_shape(spec.shape, config)
        self.collect = fan_in_init(
            CONVOLUTIONS[dims](width, width, base, groups=width, bias=False)  # type: ignore[arg-type]
        )
        self.label: LabelEmbedding | None = None
        if has_label(spec):
            self.label = LabelEmbedding(spec, width, 1 / math.sqrt(width), config)
        self.out = linear(width, 1 if self.label is None else width)
        self.run = runner(config.gradient_checkpointing)

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
        h = self.stem(x).to(memory_format=self.memory_format)
        for layer in self.layers:
            h = self.run(layer, h)
        features = self.out(self.collect(h).flatten(1))
        if self.label is None:
            return features[:, 0]
        return (features * self.label(condition, position)).sum(1)
