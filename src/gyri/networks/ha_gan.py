"""HA-GAN's networks: a coarse map of features, and heads that make all of it or a slab of it.

Sun et al., 2022, arXiv:2008.01910, sections III-A to III-C. Written from the paper's facts. Slabs
are cut from the last axis of an item: of a volume (I, J, K) that is K, foot to head, so that a slab
is a stack of axial slices, as published.

Mended: the published high-resolution head normalises what it makes of a crop, by statistics that a
whole volume does not have, and pads a crop with zeros where the volume goes on. Here the features
are normalised before they are cropped, the head has no norm, and a crop brings one row of its
neighbours on either side; a slab then is what the whole volume has there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gyri.errors import UsageError
from gyri.networks.auto_encoding_gan import refuse_indivisible
from gyri.nn.embedding import Label
from gyri.nn.layers import CONVOLUTIONS, conv, group_norm, upsample_convolve
from gyri.nn.spectral import spectrally_normalised
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

GROUPS = 8
SLOPE = 0.2
HALO = 1
"""Rows of features that a crop brings from either side, whatever the number of doublings."""


def block(convolution: nn.Module, channels: int) -> nn.Sequential:
    """Return a convolution, group normalisation and ReLU."""
    return nn.Sequential(convolution, group_norm(channels, GROUPS), nn.ReLU())


def kaiming(network: nn.Module) -> None:
    """Draw kernels so that ReLU layers keep the mean square; a head without norms needs it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert isinstance(module.bias, Tensor)
            nn.init.zeros_(module.bias)


@dataclass(frozen=True, kw_only=True)
class HAGANTrunkConfig:
    """Settings of `HAGANTrunk`; the defaults are published for volumes of 256^3.

    Parameters
    ----------
    widths : channels of each grid from the smallest up, every one followed by a doubling; the
        features come after the last. Volumes of 128^3 have one less.
    """

    widths: tuple[int, ...] = (512, 512, 256, 128)

    def __post_init__(self) -> None:
        """Refuse to have no stage at all."""
        if not self.widths:
            raise UsageError("widths is empty; HA-GAN's trunk needs one width a doubling.")


@NETWORKS.register("ha_gan_trunk", HAGANTrunkConfig)
class HAGANTrunk(nn.Module):
    """G^A: from z and the label to features of a whole item on a coarse grid."""

    def __init__(self, config: HAGANTrunkConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, doublings = len(spec.shape), len(config.widths)
        refuse_indivisible(spec.shape, doublings, "HA-GAN's features")
        base = tuple(size // 2**doublings for size in spec.shape)
        self.base = (config.widths[0], *base)
        self.label = Label(spec.condition_size, spec.position_size)
        self.stem = nn.Linear(spec.latent_size + self.label.size, math.prod(self.base))
        sizes = [config.widths[0], *config.widths, spec.out_channels]
        self.convolutions = nn.ModuleList(conv(dims, a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(group_norm(size, GROUPS) for size in sizes[1:])

    def forward(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """(B, L), (B, D), (B, P) -> (B, W, *S / scale), none below 0."""
        x = self.stem(torch.cat([z, self.label(condition, position)], dim=1))
        x = x.unflatten(1, self.base)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
            assert isinstance(convolution, nn.Conv2d | nn.Conv3d)
            if number:
                grid = torch.Size(2 * size for size in x.shape[2:])
                x = upsample_convolve(convolution, x, grid)
            else:
                x = convolution(x)
            x = relu(norm(x))
        return x


@dataclass(frozen=True, kw_only=True)
class HAGANLowHeadConfig:
    """Settings of `HAGANLowHead`.

    Parameters
    ----------
    widths : channels between features and image.
    """

    widths: tuple[int, ...] = (32, 16)


@NETWORKS.register("ha_gan_low_head", HAGANLowHeadConfig)
class HAGANLowHead(nn.Module):
    """G^L: the features as a coarse image of the whole item."""

    def __init__(self, config: HAGANLowHeadConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, sizes = len(spec.shape), [spec.in_channels, *config.widths]
        layers = [block(conv(dims, a, b), b) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(*layers, conv(dims, sizes[-1], spec.out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, *S) -> (B, C, *S) in [-1, 1]."""
        return self.layers(features).tanh()


@dataclass(frozen=True, kw_only=True)
class HAGANHalvingsConfig:
    """Settings of `HAGANHighHead` and `HAGANSlabEncoder`.

    Parameters
    ----------
    widths : channels between features and image, from the coarse side for the head and from the
        fine side for the encoder; the grid changes by 2 once more than there are widths, and
        that must be the method's `scale`.
    """

    widths: tuple[int, ...] = (32,)

    @property
    def scale(self) -> int:
        """Voxels of the image along an axis of a voxel of features."""
        return 2 ** (len(self.widths) + 1)


@NETWORKS.register("ha_gan_high_head", HAGANHalvingsConfig)
class HAGANHighHead(nn.Module):
    """G^H: rows of features at full resolution, each as if the whole item had been made."""

    def __init__(self, config: HAGANHalvingsConfig, spec: NetworkSpec) -> None:
        super().__init__()
        self.scale = config.scale
        sizes = [spec.in_channels, *config.widths, spec.out_channels]
        self.layers = nn.ModuleList(conv(len(spec.shape), a, b) for a, b in pairwise(sizes))
        kaiming(self)

    def forward(self, features: Tensor, inside: Tensor) -> Tensor:
        """Return a slab.

        Parameters
        ----------
        features : (B, W, *S, n + 2) rows of features along the last axis, one more at either end.
        inside : (B, n + 2), 1 for rows of the item and 0 for those over its border.

        Returns
        -------
        Tensor
            (B, C, *S scale, n scale) in [-1, 1].
        """
        x, rows = features, inside.to(features)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Conv2d | nn.Conv3d)
            # Over the border the next convolution must meet zeros, as it does in a whole item.
            x = x * rows.reshape(len(x), *[1] * (x.ndim - 2), -1)
            grid = torch.Size(2 * size for size in x.shape[2:])
            x = upsample_convolve(layer, x, grid)[..., 1:-1]
            x = x if number == last else relu(x)
            rows = rows.repeat_interleave(2, dim=1)[:, 1:-1]
        return x[..., HALO:-HALO].tanh()


@NETWORKS.register("ha_gan_slab_encoder", HAGANHalvingsConfig)
class HAGANSlabEncoder(nn.Module):
    """E^H: a slab at full resolution as the features it might have been made of."""

    def __init__(self, config: HAGANHalvingsConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, sizes = len(spec.shape), [spec.in_channels, *config.widths, spec.out_channels]
        self.scale = config.scale
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            if layers:
                layers.append(block(conv(dims, a, a), a))
            layers.append(block(CONVOLUTIONS[dims](a, b, 4, stride=2, padding=1), b))
        self.layers = nn.Sequential(*layers)

    def forward(self, slab: Tensor) -> Tensor:
        """(B, C, *S) -> (B, W, *S / scale)."""
        return self.layers(slab)


@dataclass(frozen=True, kw_only=True)
class HAGANDiscriminatorConfig:
    """Settings of `HAGANDiscriminator`; the defaults are published for slabs.

    Parameters
    ----------
    widths : channels of each strided convolution. For coarse images (32, 64, 128, 256) is
        published; volumes of 128^3 lack the first of either.
    features : length of the vector that is judged together with the place of the slab; 0, published
        for coarse images, judges the last grid as it is.
    hidden : width of the layer that sees both.
    spectral_norm : of the convolutions.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    features: int = 128
    hidden: int = 64
    spectral_norm: bool = True


def strided(size: int) -> tuple[int, int, int]:
    """Return kernel, stride and padding that halve an axis without leaving a voxel out."""
    if size in (2, 4):
        return 2, 2, 0
    return (1, 1, 0) if size == 1 else (4, 2, 1)


def halved(dims: int, in_channels: int, out_channels: int, shape: tuple[int, ...]) -> nn.Module:
    """Return a convolution that halves each axis of `shape` until it is a single voxel."""
    kernel, stride, padding = zip(*(strided(size) for size in shape))
    convolution: Any = CONVOLUTIONS[dims]
    return convolution(in_channels, out_channels, kernel, stride, padding)


@NETWORKS.register("ha_gan_discriminator", HAGANDiscriminatorConfig)
class HAGANDiscriminator(nn.Module):
    """D^H or D^L: strided convolutions under a spectral norm, to a logit and what more is asked.

    A condition enters by the projection of Miyato and Koyama, 2018, arXiv:1802.05637; a method
    that wants auxiliary classifiers instead asks for a longer output and gives no condition.
    """

    def __init__(self, config: HAGANDiscriminatorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, shape = len(spec.shape), spec.shape
        layers: list[nn.Module] = []
        for a, b in pairwise([spec.in_channels, *config.widths]):
            layers += [halved(dims, a, b, shape), nn.LeakyReLU(SLOPE)]
            shape = tuple((n + 2 * p - k) // s + 1 for n in shape for k, s, p in [strided(n)])
        self.layers = nn.Sequential(*layers)
        self.position_size = spec.position_size
        size = config.widths[-1] * math.prod(shape)
        self.collect: nn.Module | None = None
        self.hidden: nn.Module | None = None
        if config.features:
            convolution: Any = CONVOLUTIONS[dims]
            collect = convolution(config.widths[-1], config.features, shape)
            self.collect = nn.Sequential(collect, nn.LeakyReLU(SLOPE))
            size = config.features
        if config.features or self.position_size:
            size += self.position_size
            self.hidden = nn.Sequential(nn.Linear(size, config.hidden), nn.LeakyReLU(SLOPE))
            size = config.hidden
        self.out = nn.Linear(size, spec.latent_size)
        self.label: nn.Linear | None = None
        if spec.condition_size:
            self.label = nn.Linear(spec.condition_size, config.widths[-1], bias=False)
        if config.spectral_norm:
            spectrally_normalised(self)

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return verdicts.

        Parameters
        ----------
        x : (B, C, *S).
        condition : (B, D), projected onto the first verdict; D may be 0.
        position : (B, P), where a slab begins among others, or None where P is 0.

        Returns
        -------
        Tensor
            (B, latent_size); the first is the logit, higher for real items.
        """
        grid = self.layers(x)
        h = (grid if self.collect is None else self.collect(grid)).flatten(1)
        if position is not None:
            h = torch.cat([h, position.to(h)], dim=1)
        verdicts = self.out(h if self.hidden is None else self.hidden(h))
        if self.label is None:
            return verdicts
        projected = (self.label(condition) * grid.flatten(2).mean(2)).sum(1)
        return torch.cat([verdicts[:, :1] + projected[:, None], verdicts[:, 1:]], dim=1)
