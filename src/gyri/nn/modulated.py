"""Convolutions whose channels a style weighs: StyleGAN2's modulation, and StyleGAN's AdaIN.

Karras et al., 2020, arXiv:1912.04958, section 2.2, and 2019, arXiv:1812.04948, after Huang and
Belongie, 2017, arXiv:1703.06868. Modulating the weights of every item is the same as weighing the
channels of its input and its output; this is done here, so that one convolution serves all items.
Weights are float32 or bfloat16, whose range needs none of float16's pre-normalisation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm

from gyri.nn.equalised import (
    EqualConv,
    EqualLinear,
    GridChange,
    activate,
    convolve,
    kernel_shape,
    taps_met,
)
from gyri.nn.layers import over_space

EPS = 1e-8


class ModulatedConv(nn.Module):
    """Convolution with a style for each item's input channels; no bias.

    Parameters
    ----------
    dims : spatial axes.
    in_channels, out_channels : C_in and C_out.
    w_size : length of w.
    kernel : odd size along every axis.
    grid : see `gyri.nn.equalised.convolve`.
    demodulate : scale each item's weights to a unit norm per output channel. Without, they are
        scaled by 1 / sqrt(fan-in).
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        w_size: int,
        kernel: int = 3,
        grid: GridChange = "same",
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.style = EqualLinear(w_size, in_channels, bias=1.0)
        shape = kernel_shape(dims, kernel, grid)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *shape))
        self.grid: GridChange = grid
        self.demodulate = demodulate
        met = taps_met(self.weight, grid)
        # Demodulation counts all weights; fewer meet in a voxel of a transposed convolution.
        self.gain = math.sqrt(self.weight[0].numel() / met) if demodulate else 1 / math.sqrt(met)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, C_in, *S) and (B, w_size) -> (B, C_out, *S')."""
        style = self.style(w)
        y = convolve(x * over_space(style, x), self.weight, self.grid)
        if not self.demodulate:
            return y * self.gain
        return y * over_space(self.gain * self.demodulation(style), y)

    def demodulation(self, style: Tensor) -> Tensor:
        """Return 1 / norm (B, C_out) of the weights under a style (B, C_in)."""
        with torch.autocast(style.device.type, enabled=False):
            power = self.weight.square().flatten(2).sum(2)
            return (style.to(power.dtype).square() @ power.T + EPS).rsqrt()


class AdaIN(nn.Module):
    """Every channel to mean 0 and deviation 1 over space, then to what the style says.

    Parameters
    ----------
    channels : C of x.
    w_size : length of w.
    """

    def __init__(self, channels: int, w_size: int) -> None:
        super().__init__()
        self.style = EqualLinear(w_size, 2 * channels)
        with torch.no_grad():
            self.style.bias[:channels] = 1.0

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, C, *S) and (B, w_size) -> (B, C, *S)."""
        scale, shift = self.style(w).chunk(2, dim=1)
        return instance_norm(x) * over_space(scale, x) + over_space(shift, x)


class NoiseInput(nn.Module):
    """Adds a noise map, weighed by what is learned; nothing at init.

    Parameters
    ----------
    channels : C where each has its own weight, 1 where all share one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, C, *S) and (B or 1, 1, *S) -> (B, C, *S)."""
        return x + noise * self.strength.reshape(-1, *[1] * (x.ndim - 2))


class NoisyLayer(nn.Module):
    """What `StyledConv` and `AdaptiveConv` share: noise, bias and activation of a convolution.

    Parameters
    ----------
    conv : makes `out_channels` maps.
    strengths : C of its `NoiseInput`, 0 for a layer without.
    """

    def __init__(self, conv: nn.Module, out_channels: int, strengths: int) -> None:
        super().__init__()
        self.conv = conv
        self.noise = NoiseInput(strengths) if strengths else None
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def activated(self, y: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """Return maps (B, C_out, *S') with noise and bias, activated."""
        if self.noise is not None:
            assert noise is not None
            y = self.noise(y, noise)
        return activate(y + self.bias.reshape(-1, *[1] * (y.ndim - 2)), gain)


class StyledConv(NoisyLayer):
    """Convolution, noise, bias and activation, styled by w.

    Parameters
    ----------
    dims : spatial axes.
    in_channels, out_channels : C_in and C_out.
    w_size : length of w.
    grid : see `gyri.nn.equalised.convolve`.
    noise : whether noise enters.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        w_size: int,
        grid: GridChange = "same",
        noise: bool = True,
    ) -> None:
        conv = ModulatedConv(dims, in_channels, out_channels, w_size, grid=grid)
        super().__init__(conv, out_channels, int(noise))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """Return (B, C_out, *S').

        Parameters
        ----------
        x : (B, C_in, *S).
        w : (B, w_size).
        noise : (B or 1, 1, *S'), None for a layer without.
        gain : of the activation.
        """
        return self.activated(self.conv(x, w), noise, gain)


class AdaptiveConv(NoisyLayer):
    """StyleGAN's layer in place of `StyledConv`: its convolution is plain, AdaIN follows.

    Every channel has its own strength of noise. The parameters are those of `StyledConv`.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        w_size: int,
        grid: GridChange = "same",
        noise: bool = True,
    ) -> None:
        conv = EqualConv(dims, in_channels, out_channels, grid=grid, bias=False)
        super().__init__(conv, out_channels, out_channels * noise)
        self.norm = AdaIN(out_channels, w_size)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """As `StyledConv`; the gain follows the normalisation, which would undo it."""
        return self.norm(self.activated(self.conv(x), noise), w) * gain
