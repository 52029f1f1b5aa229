"""Local normalised cross-correlation of two volumes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

FLAT = 1e-3
"""Variance, of intensities in [-1, 1], below which a window is flat and tells nothing."""


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

    def mean(x: Tensor) -> Tensor:
        # The mean over a box, also over one that the border cuts, is a mean of means.
        for axis in range(3):
            kernel = [window if k == axis else 1 for k in range(3)]
            padding = [k // 2 for k in kernel]
            x = avg_pool3d(x, kernel, 1, padding, count_include_pad=False)
        return x

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
