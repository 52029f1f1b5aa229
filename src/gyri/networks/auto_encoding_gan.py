"""What auto-encoding GANs need beside DCGAN's networks and a convolutional encoder.

A generator that doubles by repeating voxels (Kwon et al., 2019, arXiv:1908.02498; Odena et al.,
2016, "Deconvolution and checkerboard artifacts"), a discriminator that gives one of its layers away
(Larsen et al., 2016, arXiv:1512.09300), and a discriminator of codes (Rosca et al., 2017,
arXiv:1706.04987). Written from the papers' facts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.networks.dcgan import (
    SLOPE,
    DCGANDiscriminator,
    DCGANDiscriminatorConfig,
    DCGANGenerator,
    DCGANGeneratorConfig,
)
from gyri.nn.embedding import Label
from gyri.nn.layers import conv, upsample_convolve
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec


def refuse_indivisible(shape: tuple[int, ...], doublings: int, what: str) -> None:
    """Refuse a grid to which so many doublings do not lead.

    Raises
    ------
    UsageError
        If an axis of `shape`, of `what`, is no multiple of ``2**doublings``.
    """
    factor = 2**doublings
    if any(size % factor for size in shape):
        raise UsageError(
            f"{what} of shape {shape} cannot be reached by {doublings} doublings: every axis must "
            f"be a multiple of {factor}. Prepare another grid, or give fewer widths."
        )


class ResizeConvolution(nn.Module):
    """Repeats every voxel along every axis, then a convolution of kernel 3."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.convolution = conv(dims, in_channels, out_channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *2S)."""
        return upsample_convolve(self.convolution, x, torch.Size(2 * n for n in x.shape[2:]))


@NETWORKS.register("resize_generator", DCGANGeneratorConfig)
class ResizeGenerator(DCGANGenerator):
    """DCGAN's generator with repeated voxels and convolutions: no pattern of the stride's period.

    The smallest grid is the item's shape halved once a width, and must be whole.
    """

    def __init__(self, config: DCGANGeneratorConfig, spec: NetworkSpec) -> None:
        refuse_indivisible(spec.shape, len(config.widths), "Items")
        super().__init__(config, spec)

    def doubling(self, dims: int, width: int, next_width: int, bias: bool) -> nn.Module:
        """Return what doubles the grid."""
        return ResizeConvolution(dims, width, next_width, bias)


@dataclass(frozen=True, kw_only=True)
class FeatureDiscriminatorConfig(DCGANDiscriminatorConfig):
    """Settings of `FeatureDiscriminator`; see `DCGANDiscriminatorConfig`.

    Parameters
    ----------
    feature_stage : halvings after which the features are taken. The first has no norm; later ones
        under a ``layer`` or ``instance`` norm no longer know how bright an item is, so that items
        are rebuilt alike up to brightness and contrast.
    """

    feature_stage: int = 1

    def __post_init__(self) -> None:
        """Refuse a stage that is not there."""
        super().__post_init__()
        if not 1 <= self.feature_stage <= len(self.widths):
            raise UsageError(
                f"feature_stage is {self.feature_stage}; the discriminator has "
                f"{len(self.widths)} stages, counted from 1, one for each of its widths."
            )


@NETWORKS.register("feature_discriminator", FeatureDiscriminatorConfig)
class FeatureDiscriminator(DCGANDiscriminator):
    """DCGAN's discriminator that also tells how it sees an item: VAE-GAN's measure of likeness."""

    def __init__(self, config: FeatureDiscriminatorConfig, spec: NetworkSpec) -> None:
        super().__init__(config, spec)
        layers = list(self.layers)
        activations = [n for n, layer in enumerate(layers) if isinstance(layer, nn.LeakyReLU)]
        self.cut = activations[config.feature_stage - 1] + 1

    def features(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return the features (B, W, *S') of items (B, C, *S) after `feature_stage` halvings."""
        h, _ = self.read_in(x, condition, position)
        return self.layers[: self.cut](h)

    def logits_and_features(
        self, x: Tensor, condition: Tensor, position: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B,), higher for real items, and `features`, of one pass."""
        h, label = self.read_in(x, condition, position)
        features = self.layers[: self.cut](h)
        return self.read_out(self.layers[self.cut :](features), label), features


@dataclass(frozen=True, kw_only=True)
class CodeDiscriminatorConfig:
    """Settings of `CodeDiscriminator`; the defaults are the published ones.

    Parameters
    ----------
    hidden : sizes of the hidden layers.
    """

    hidden: tuple[int, ...] = (4096, 4096)


@NETWORKS.register("code_discriminator", CodeDiscriminatorConfig)
class CodeDiscriminator(nn.Module):
    """Fully connected critic of codes, told condition and position; without any norm."""

    def __init__(self, config: CodeDiscriminatorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.label = Label(spec.condition_size, spec.position_size)
        layers: list[nn.Module] = []
        size = spec.latent_size + self.label.size
        for width in config.hidden:
            layers += [nn.Linear(size, width), nn.LeakyReLU(SLOPE)]
            size = width
        self.layers = nn.Sequential(*layers, nn.Linear(size, 1))

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return logits (B,), higher for draws from the prior, of codes (B, L)."""
        return self.layers(torch.cat([z, self.label(condition, position)], dim=1))[:, 0]
