"""Convolutions, pooling and normalisation, written once for slices and volumes.

`dims` (2 or 3) is read here and nowhere else: a network asks for ``conv(dims, ...)`` and its
blocks work on tensors (B, C, *S) whatever their number of axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
POOLS: dict[int, type[nn.AvgPool2d] | type[nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution that keeps the grid (or, with stride 2, halves it, rounding up).

    Parameters
    ----------
    dims : spatial axes, 2 or 3.
    kernel : odd size along every axis.
    """
    return CONVOLUTIONS[dims](
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=bias,
    )


def average_pool(dims: int) -> nn.AvgPool2d | nn.AvgPool3d:
    """Return a pool that halves every axis, rounding up; a last odd voxel stays as it is."""
    return POOLS[dims](2, ceil_mode=True)


def nearest_upsample(x: Tensor, shape: torch.Size) -> Tensor:
    """Repeat voxels so that the grid (B, C, *S) becomes (B, C, *shape)."""
    return functional.interpolate(x, size=shape, mode="nearest")


def largest_divisor(of: int, at_most: int) -> int:
    """Return the largest divisor of `of` that is not above `at_most`."""
    return next(number for number in range(min(of, at_most), 0, -1) if of % number == 0)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Return a group normalisation in `groups` groups, or the next smaller number that fits."""
    return nn.GroupNorm(largest_divisor(channels, groups), channels, eps=1e-5)


def zero_init(module: AnyModule) -> AnyModule:
    """Set all parameters of `module` to zero, so that its branch starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def over_space(values: Tensor, like: Tensor) -> Tensor:
    """Append axes to `values` (B, C) so that they broadcast over `like` (B, C, *S)."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def memory_format(dims: int, channels_last: bool) -> torch.memory_format:
    """Return the format that a network brings its activations to."""
    return CHANNELS_LAST[dims] if channels_last else torch.preserve_format


def runner(checkpointing: bool) -> Callable[..., Tensor]:
    """Return how a module is called: plainly, or so that its inside is recomputed in backward.

    The recomputing form allows gradients of gradients.
    """

    def checkpointed(module: nn.Module, *inputs: Any) -> Tensor:
        return checkpoint(module, *inputs, use_reentrant=False)

    def plain(module: nn.Module, *inputs: Any) -> Tensor:
        return module(*inputs)

    return checkpointed if checkpointing else plain
