"""Layers with an equalised learning rate, and convolutions that halve or double a grid smoothly.

Karras et al., 2018, arXiv:1710.10196, section 4.1: weights are drawn from N(0, 1) and scaled when
they are used, so that Adam moves all of them alike. Karras et al., 2019, arXiv:1812.04948: halving
and doubling filter with [1, 3, 3, 1]. Filter and convolution go one after the other: merged into
one kernel they would be four times (in 3D eight times) as many multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.nn.layers import CONVOLVE, CONVOLVE_TRANSPOSED
from gyri.nn.resample import binomial_kernel

SLOPE = 0.2
GAIN = math.sqrt(2.0)
"""Of the activation: keeps the mean square of a centred input about where it was."""

GridChange = Literal["same", "half", "double", "double_transposed"]
"""What a convolution does to the grid; ``double_transposed`` learns a kernel of 4, no filter."""


def activate(x: Tensor, gain: float = 1.0) -> Tensor:
    """Leaky rectifier with the gain sqrt(2), times `gain`."""
    return functional.leaky_relu(x, SLOPE) * (GAIN * gain)


def unit_mean_square(x: Tensor) -> Tensor:
    """Scale each row of (B, L) to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def _filtered(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Filter every channel with [1, 3, 3, 1] / 8 along every axis."""
    dims = x.ndim - 2
    kernel = binomial_kernel(dims).to(x).expand(x.shape[1], 1, *[4] * dims)
    return CONVOLVE[dims](x, kernel, padding=padding, stride=stride, groups=x.shape[1])


def convolve(x: Tensor, weight: Tensor, grid: GridChange) -> Tensor:
    """Correlate x with a kernel, on the same grid, half of it or twice of it.

    Parameters
    ----------
    x : (B, C_in, *S); S even for ``half``.
    weight : (C_out, C_in, k, ...), k odd, or even for ``double_transposed``.
    grid : ``half`` is filter, correlation, every second voxel; ``double`` is zeros between voxels,
        filter with gain ``2**dims``, correlation. Voxels outside count as zero.
    """
    dims, size = x.ndim - 2, weight.shape[2]
    if grid == "same":
        return CONVOLVE[dims](x, weight, padding=size // 2)
    padding = (size + 3) // 2 - 1
    if grid == "half":
        if size == 1:
            return CONVOLVE[dims](_filtered(x, padding, stride=2), weight)
        return CONVOLVE[dims](_filtered(x, padding), weight, stride=2)
    if grid == "double" and size == 1:
        y = CONVOLVE[dims](x, weight)
        kernel = binomial_kernel(dims).to(y).expand(y.shape[1], 1, *[4] * dims) * 2.0**dims
        return CONVOLVE_TRANSPOSED[dims](y, kernel, stride=2, padding=1, groups=y.shape[1])
    flipped = weight.flip(tuple(range(2, weight.ndim))).transpose(0, 1)
    if grid == "double_transposed":
        return CONVOLVE_TRANSPOSED[dims](x, flipped, stride=2, padding=size // 2 - 1)
    y = CONVOLVE_TRANSPOSED[dims](x, flipped * 2.0**dims, stride=2)
    return _filtered(y, 3 - padding)


def kernel_shape(dims: int, kernel: int, grid: GridChange) -> Sequence[int]:
    """Return the spatial shape of the weights that `convolve` takes."""
    return [4 if grid == "double_transposed" else kernel] * dims


def taps_met(weight: Tensor, grid: GridChange) -> int:
    """Return how many weights meet in one output voxel: the fan-in."""
    met = weight[0].numel()
    return met // 2 ** (weight.ndim - 2) if grid == "double_transposed" else met


class EqualLinear(nn.Module):
    """Linear layer (B, in_size) -> (B, out_size).

    Parameters
    ----------
    in_size, out_size : lengths.
    bias : its start.
    lr_multiplier : by which weights and bias learn slower than their gradients say.
    """

    def __init__(
        self, in_size: int, out_size: int, bias: float = 0.0, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_size, in_size) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_size,), bias))
        self.lr_multiplier = lr_multiplier
        self.gain = lr_multiplier / math.sqrt(in_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear map of x."""
        return functional.linear(x, self.weight * self.gain, self.bias * self.lr_multiplier)


class EqualConv(nn.Module):
    """Convolution (B, C_in, *S) -> (B, C_out, *S').

    Parameters
    ----------
    dims : spatial axes.
    in_channels, out_channels : C_in and C_out.
    kernel : odd size along every axis.
    grid : see `convolve`.
    bias : whether it has one.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        grid: GridChange = "same",
        bias: bool = True,
    ) -> None:
        super().__init__()
        shape = kernel_shape(dims, kernel, grid)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *shape))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.grid: GridChange = grid
        self.gain = 1 / math.sqrt(taps_met(self.weight, grid))

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x, without activation."""
        y = convolve(x, self.weight * self.gain, self.grid)
        return y if self.bias is None else y + self.bias.reshape(-1, *[1] * (x.ndim - 2))
