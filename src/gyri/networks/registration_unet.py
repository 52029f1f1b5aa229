"""VoxelMorph's U-Net: two images in, a field of deformation out.

Balakrishnan et al., 2019, arXiv:1809.05231, figure 3. Grids may be of any size: halving rounds up,
and the way up returns to the size of the skip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from gyri.errors import UsageError
from gyri.nn.layers import conv, memory_format
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SLOPE = 0.2
FIRST_STD = 1e-5
"""Of the last convolution's weights, so that training starts at the identity."""


@dataclass(frozen=True, kw_only=True)
class RegistrationUNetConfig:
    """Settings of `RegistrationUNet`; the widths are the published ones.

    Parameters
    ----------
    down : channels after each convolution that halves the grid.
    up : channels after each convolution on the way up, the coarsest grid first; one for each grid
        up to that of the output.
    last : channels of the convolutions at the output's grid.
    halvings : how often the output's grid is halved: 1 gives a field on every second voxel.
    channels_last : memory format of all activations.
    """

    down: tuple[int, ...] = (16, 32, 32, 32)
    up: tuple[int, ...] = (32, 32, 32, 32)
    last: tuple[int, ...] = (32, 16)
    halvings: int = 1
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse a way up that does not lead to the output's grid."""
        expected = len(self.down) - self.halvings + 1
        if not 0 <= self.halvings < len(self.down) or len(self.up) != expected:
            raise UsageError(
                f"down has {len(self.down)} halvings, up {len(self.up)} grids, and the output is "
                f"halved {self.halvings} times. Give up {expected} widths, one a grid from the "
                "coarsest to the output's."
            )


@NETWORKS.register("registration_unet", RegistrationUNetConfig)
class RegistrationUNet(nn.Module):
    """Convolutional encoder and decoder with skips, without normalisation."""

    def __init__(self, config: RegistrationUNetConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims = len(spec.shape)
        self.format = memory_format(dims, config.channels_last)
        self.halvings = config.halvings
        widths = (spec.in_channels, *config.down)
        self.down = nn.ModuleList(conv(dims, a, b, stride=2) for a, b in zip(widths, config.down))
        self.up = nn.ModuleList()
        channels = config.down[-1]
        skips = [0, *reversed(widths[config.halvings : -1])]
        for width, skip in zip(config.up, skips):
            self.up.append(conv(dims, channels + skip, width))
            channels = width
        self.last = nn.ModuleList()
        for width in config.last:
            self.last.append(conv(dims, channels, width))
            channels = width
        self.out = conv(dims, channels, spec.out_channels)
        nn.init.normal_(self.out.weight, std=FIRST_STD)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *S) -> (B, C_out, *S'), every axis halved `halvings` times, rounding up."""
        x = x.contiguous(memory_format=self.format)
        skips = [x]
        for layer in self.down:
            skips.append(leaky_relu(layer(skips[-1]), SLOPE))
        x = leaky_relu(self.up[0](skips.pop()), SLOPE)
        for layer in self.up[1:]:
            skip = skips.pop()
            x = interpolate(x, size=skip.shape[2:], mode="nearest")
            x = leaky_relu(layer(torch.cat([x, skip], dim=1)), SLOPE)
        for layer in self.last:
            x = leaky_relu(layer(x), SLOPE)
        field: Tensor = self.out(x)
        return field
