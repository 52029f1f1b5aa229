"""Inception-v3 as trained by Google for TensorFlow in December 2015: the network of the FID.

Szegedy et al. 2016 (arXiv:1512.00567), with the peculiarities of that graph: average pools do not
count padding, and the last block pools by maximum. torchvision's Inception-v3 is another network
with other weights. Parameters are named as in ``weights-inception-2015-12-05-6726825d.pth``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_FEATURES = 2048
SIZE = 299
Resize = Literal["tf", "clean"]


class Conv(NamedTuple):
    """One convolution of a block; stride 1 keeps the grid, stride 2 is not padded."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


Pool = Callable[[Tensor], Tensor]
Step = Pool | Sequence[Conv]
"""A pool, or convolutions of one input whose outputs are joined along channels."""


def average_pool(x: Tensor) -> Tensor:
    """Average over 3 x 3; at the border over what is there."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum_pool(x: Tensor) -> Tensor:
    """Maximum over 3 x 3 on the same grid."""
    return functional.max_pool2d(x, 3, stride=1, padding=1)


def halving_pool(x: Tensor) -> Tensor:
    """Maximum over 3 x 3 at every second place, without padding."""
    return functional.max_pool2d(x, 3, stride=2)


class NormalisedConv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Chains of steps side by side, their outputs joined along channels.

    Parameters
    ----------
    in_channels : of the input.
    chains : in the order of the output's channels.
    """

    def __init__(self, in_channels: int, *chains: Sequence[Step]) -> None:
        super().__init__()
        self.chains = chains
        self.channels = 0
        for chain in chains:
            channels = in_channels
            for step in chain:
                if callable(step):
                    continue
                for conv in step:
                    self.add_module(conv.name, self._convolution(channels, conv))
                channels = sum(conv.channels for conv in step)
            self.channels += channels

    @staticmethod
    def _convolution(in_channels: int, conv: Conv) -> NormalisedConv:
        height, width = conv.kernel if isinstance(conv.kernel, tuple) else (conv.kernel,) * 2
        padding = (height // 2, width // 2) if conv.stride == 1 else 0
        return NormalisedConv(in_channels, conv.channels, (height, width), conv.stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        return torch.cat([self._chain(chain, x) for chain in self.chains], 1)

    def _chain(self, chain: Sequence[Step], x: Tensor) -> Tensor:
        for step in chain:
            if callable(step):
                x = step(x)
            else:
                x = torch.cat([self.get_submodule(conv.name)(x) for conv in step], 1)
        return x


def block_35(in_channels: int, pooled: int) -> Mixed:
    """Return a block on the 35 x 35 grid (5b, 5c, 5d)."""
    return Mixed(
        in_channels,
        [[Conv("branch1x1", 64)]],
        [[Conv("branch5x5_1", 48)], [Conv("branch5x5_2", 64, 5)]],
        [
            [Conv("branch3x3dbl_1", 64)],
            [Conv("branch3x3dbl_2", 96, 3)],
            [Conv("branch3x3dbl_3", 96, 3)],
        ],
        [average_pool, [Conv("branch_pool", pooled)]],
    )


def reduction_17(in_channels: int) -> Mixed:
    """Return the block from 35 x 35 to 17 x 17 (6a)."""
    return Mixed(
        in_channels,
        [[Conv("branch3x3", 384, 3, 2)]],
        [
            [Conv("branch3x3dbl_1", 64)],
            [Conv("branch3x3dbl_2", 96, 3)],
            [Conv("branch3x3dbl_3", 96, 3, 2)],
        ],
        [halving_pool],
    )


def block_17(in_channels: int, inner: int) -> Mixed:
    """Return a block on the 17 x 17 grid (6b to 6e), `inner` channels between its convolutions."""
    return Mixed(
        in_channels,
        [[Conv("branch1x1", 192)]],
        [
            [Conv("branch7x7_1", inner)],
            [Conv("branch7x7_2", inner, (1, 7))],
            [Conv("branch7x7_3", 192, (7, 1))],
        ],
        [
            [Conv("branch7x7dbl_1", inner)],
            [Conv("branch7x7dbl_2", inner, (7, 1))],
            [Conv("branch7x7dbl_3", inner, (1, 7))],
            [Conv("branch7x7dbl_4", inner, (7, 1))],
            [Conv("branch7x7dbl_5", 192, (1, 7))],
        ],
        [average_pool, [Conv("branch_pool", 192)]],
    )


def reduction_8(in_channels: int) -> Mixed:
    """Return the block from 17 x 17 to 8 x 8 (7a)."""
    return Mixed(
        in_channels,
        [[Conv("branch3x3_1", 192)], [Conv("branch3x3_2", 320, 3, 2)]],
        [
            [Conv("branch7x7x3_1", 192)],
            [Conv("branch7x7x3_2", 192, (1, 7))],
            [Conv("branch7x7x3_3", 192, (7, 1))],
            [Conv("branch7x7x3_4", 192, 3, 2)],
        ],
        [halving_pool],
    )


def block_8(in_channels: int, pool: Pool) -> Mixed:
    """Return a block on the 8 x 8 grid: 7b averages, 7c takes the maximum."""
    return Mixed(
        in_channels,
        [[Conv("branch1x1", 320)]],
        [
            [Conv("branch3x3_1", 384)],
            [Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1))],
        ],
        [
            [Conv("branch3x3dbl_1", 448)],
            [Conv("branch3x3dbl_2", 384, 3)],
            [Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))],
        ],
        [pool, [Conv("branch_pool", 192)]],
    )


def resize_tf(x: Tensor, size: int = SIZE) -> Tensor:
    """Resize (B, C, H, W) as TensorFlow 1 does: bilinear from the corner, no antialiasing.

    Output pixel i lies at ``i * H / size`` of the input; what lies beyond its last row takes that.
    """
    for axis in (3, 2):
        length = x.shape[axis]
        position = torch.arange(size, device=x.device, dtype=x.dtype) * (length / size)
        low = position.long()
        high = (low + 1).clamp_max(length - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        weight = (position - low).reshape(shape)
        first = x.index_select(axis, low)
        x = first + (x.index_select(axis, high) - first) * weight
    return x


def resize_clean(x: Tensor, size: int = SIZE) -> Tensor:
    """Resize (B, C, H, W) by Pillow's antialiased bicubic filter on floats (Parmar et al. 2022).

    Channels are resized one by one and not rounded. Runs on the CPU, whatever device `x` is on.
    """
    import numpy as np
    from PIL import Image

    planes = x.detach().cpu().numpy().astype(np.float32).reshape(-1, *x.shape[2:])
    resized = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    return torch.from_numpy(np.stack(resized)).reshape(*x.shape[:2], size, size).to(x)


class InceptionV3(nn.Module):
    """Inception-v3 up to its last pool: (B, 3, H, W) uint8 becomes (B, 2048) float32.

    A network of this form is what torchmetrics' ``FrechetInceptionDistance(feature=...)`` takes.

    Parameters
    ----------
    resize : to 299 x 299. ``"tf"`` as in the first FID (Heusel et al. 2017); ``"clean"`` by
        antialiased bicubic interpolation, cut to [0, 255].
    """

    num_features = NUM_FEATURES

    def __init__(self, resize: Resize = "tf") -> None:
        super().__init__()
        self.resize = resize
        self.Conv2d_1a_3x3 = NormalisedConv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = NormalisedConv(32, 32, 3)
        self.Conv2d_2b_3x3 = NormalisedConv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = NormalisedConv(64, 80, 1)
        self.Conv2d_4a_3x3 = NormalisedConv(80, 192, 3)
        self.Mixed_5b = block_35(192, pooled=32)
        self.Mixed_5c = block_35(256, pooled=64)
        self.Mixed_5d = block_35(288, pooled=64)
        self.Mixed_6a = reduction_17(288)
        self.Mixed_6b = block_17(768, inner=128)
        self.Mixed_6c = block_17(768, inner=160)
        self.Mixed_6d = block_17(768, inner=160)
        self.Mixed_6e = block_17(768, inner=192)
        self.Mixed_7a = reduction_8(768)
        self.Mixed_7b = block_8(1280, average_pool)
        self.Mixed_7c = block_8(2048, maximum_pool)

    def prepare(self, images: Tensor) -> Tensor:
        """Return (B, 3, 299, 299) in [-1, 1) of (B, 3, H, W) uint8.

        Raises
        ------
        TypeError
            If the images are not uint8: the network knows no other range.
        """
        if images.dtype != torch.uint8:
            raise TypeError(
                f"images are {images.dtype}; Inception-v3 takes uint8 from 0 to 255. Round first."
            )
        x = images.to(self.Conv2d_1a_3x3.conv.weight.dtype)
        x = resize_tf(x) if self.resize == "tf" else resize_clean(x).clamp(0, 255)
        return (x - 128) / 128

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2048) features of (B, 3, H, W) uint8 images."""
        x = self.prepare(images)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halving_pool(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halving_pool(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))
