"""Smooth halving and doubling of a grid with the binomial filter [1, 3, 3, 1].

The filter is [1, 2, 1] * [1, 1], separable and normalised; StyleGAN's and R3GAN's resampling, of
every axis. Voxels outside the grid count as zero.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from gyri.nn.layers import CONVOLVE, CONVOLVE_TRANSPOSED


def binomial_kernel(dims: int) -> Tensor:
    """Return the filter (4, ..., 4) over `dims` axes; its sum is 1."""
    axis = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return reduce(lambda kernel, taps: kernel[..., None] * taps, [axis] * dims)


class _Binomial(nn.Module):
    kernel: Tensor

    def __init__(self, dims: int, gain: float) -> None:
        super().__init__()
        self.dims = dims
        self.register_buffer("kernel", gain * binomial_kernel(dims), persistent=False)

    def of_channels(self, x: Tensor) -> Tensor:
        """Return the kernel once a channel of x, (C, 1, 4, ..., 4), in the precision of x."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, *self.kernel.shape)


class SmoothDownsample(_Binomial):
    """Filter, then keep every second voxel: (B, C, *S) -> (B, C, *S/2); S even."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return x on half the grid."""
        return CONVOLVE[self.dims](x, self.of_channels(x), stride=2, padding=1, groups=x.shape[1])


class SmoothUpsample(_Binomial):
    """Put zeros between voxels, then filter with gain ``2**dims``: (B, C, *S) -> (B, C, *2S)."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims, gain=2.0**dims)

    def forward(self, x: Tensor) -> Tensor:
        """Return x on twice the grid."""
        return CONVOLVE_TRANSPOSED[self.dims](
            x, self.of_channels(x), stride=2, padding=1, groups=x.shape[1]
        )
