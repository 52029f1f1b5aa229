"""Residual networks with bottlenecks (He et al. 2016), for slices and volumes.

The two published networks differ in where a block strides (Keras: its first convolution, torch:
its second), in dilation, in whether convolutions have a bias, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from gyri.nn.layers import CONVOLUTIONS

EXPANSION = 4
WIDTHS = (64, 128, 256, 512)
NUM_FEATURES = EXPANSION * WIDTHS[-1]
NORMS: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
MAX_POOLS: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


@dataclass(frozen=True)
class Layout:
    """What distinguishes one published residual network from another.

    Parameters
    ----------
    dims : spatial axes.
    channels : of the input.
    depths : blocks of the four stages.
    strides, dilations : of the four stages.
    strides_first : whether a block strides in its first convolution, not in its second.
    bias : whether convolutions have one.
    eps : of batch normalisation.
    """

    dims: int
    channels: int
    depths: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    strides_first: bool = False
    bias: bool = False
    eps: float = 1e-5

    def conv(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> nn.Module:
        """Return a convolution that keeps the grid, or strides over it."""
        return CONVOLUTIONS[self.dims](
            in_channels,
            channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            bias=self.bias,
        )

    def norm(self, channels: int) -> nn.Module:
        """Return batch normalisation."""
        return NORMS[self.dims](channels, eps=self.eps)


class Bottleneck(nn.Module):
    """1, 3, 1 convolutions around which the input passes; projected where its shape changes."""

    def __init__(
        self, layout: Layout, in_channels: int, width: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        channels = EXPANSION * width
        first, second = (stride, 1) if layout.strides_first else (1, stride)
        self.conv1 = layout.conv(in_channels, width, 1, first)
        self.bn1 = layout.norm(width)
        self.conv2 = layout.conv(width, width, 3, second, dilation)
        self.bn2 = layout.norm(width)
        self.conv3 = layout.conv(width, channels, 1)
        self.bn3 = layout.norm(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                layout.conv(in_channels, channels, 1, stride), layout.norm(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S)."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """Residual network up to its last pool: (B, C, *S) becomes (B, 2048).

    Parameters
    ----------
    layout : which of the published networks.
    """

    num_features = NUM_FEATURES

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.conv1 = layout.conv(layout.channels, WIDTHS[0], 7, 2)
        self.bn1 = layout.norm(WIDTHS[0])
        self.maxpool = MAX_POOLS[layout.dims](3, stride=2, padding=1)
        channels = WIDTHS[0]
        stages = zip(WIDTHS, layout.depths, layout.strides, layout.dilations)
        for number, (width, depth, stride, dilation) in enumerate(stages, 1):
            strides: Sequence[int] = (stride, *[1] * (depth - 1))
            blocks = []
            for step in strides:
                blocks.append(Bottleneck(layout, channels, width, step, dilation))
                channels = EXPANSION * width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2048) features, averaged over the last grid."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.flatten(2).mean(2)
