"""Local normalised cross-correlation of two volumes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLAT = 1e-3
"""Variance, of intensities in [-1, 1], below which a window is flat and tells nothing."""


class BoxSum(torch.autograd.Function):
    """Sum over the box of `window` voxels a side around each voxel of (B, C, I, J, K), 0 outside.

    It is its own adjoint, and runs of slices are added faster than pooled.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int) -> Tensor:
        """Add shifted copies along one axis after the other."""
        ctx.window = window
        reach = window // 2
        for axis in (2, 3, 4):
            total = x.clone()
            size = x.shape[axis]
            for shift in range(1, min(reach, size - 1) + 1):
                rest = size - shift
                total.narrow(axis, 0, rest).add_(x.narrow(axis, shift, rest))
                total.narrow(axis, shift, rest).add_(x.narrow(axis, 0, rest))
            x = total
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the box sum of the gradient."""
        return BoxSum.apply(grads[0], ctx.window), None


def local_correlation(a: Tensor, b: Tensor, window: int = 9, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared correlation of windows (B,), 1 where one is a line of the other.

    Balakrishnan et al., 2019, arXiv:1809.05231, equation 7, with three changes that make the number
    mean what it says: windows are cut at the border instead of padded with zeros, flat windows
    are left out instead of counting as unlike, and the result is over those windows where `a` or
    `b` varies. It stays squared: contrary contrast scores as high as the same one.

    Parameters
    ----------
    a, b : (B, C, I, J, K).
    window : side of the windows in voxels, odd.
    mask : (B or 1, 1, I, J, K) bool, centres of windows that count; None takes all.
    """
    voxels = BoxSum.apply(torch.ones_like(a[:1, :1]), window)

    def mean(x: Tensor) -> Tensor:
        return BoxSum.apply(x, window) / voxels

    mean_a, mean_b = mean(a), mean(b)
    var_a = (mean(a * a) - mean_a**2).clamp_min(0)
    var_b = (mean(b * b) - mean_b**2).clamp_min(0)
    cross = mean(a * b) - mean_a * mean_b
    # So little that the flattest window that counts is 0.999 like itself.
    squared = cross**2 / (var_a * var_b + 1e-3 * FLAT**2)
    counts = torch.maximum(var_a, var_b) > FLAT
    if mask is not None:
        counts = counts & mask
    counts = counts.to(squared.dtype)
    return (squared * counts).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp_min(1)
