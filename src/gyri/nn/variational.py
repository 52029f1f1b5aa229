"""Diagonal Gaussians of a latent code, and what the ELBO of an autoencoder is made of.

Kingma & Welling, 2013, arXiv:1312.6114. Everything is per item; sums run over latent dimensions
and over voxels, so that the ELBO keeps its balance whatever the size of an item.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class DiagonalGaussian:
    """A Gaussian with independent components for each item.

    Parameters
    ----------
    mean, log_variance : (B, L), or broadcastable to it.
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> DiagonalGaussian:
        """Read (B, 2 L): means, then logarithms of variances, kept within [-30, 20]."""
        mean, log_variance = parameters.float().chunk(2, dim=1)
        return cls(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    @classmethod
    def standard(cls, like: DiagonalGaussian) -> DiagonalGaussian:
        """Return N(0, 1) in the shape of `like`."""
        return cls(torch.zeros_like(like.mean), torch.zeros_like(like.mean))

    def repeat(self, count: int) -> DiagonalGaussian:
        """Return each item's Gaussian `count` times over, (B * count, L), its copies together."""
        return DiagonalGaussian(
            self.mean.repeat_interleave(count, dim=0),
            self.log_variance.repeat_interleave(count, dim=0),
        )

    def at(self, noise: Tensor) -> Tensor:
        """Return ``mean + std * noise``: a draw, differentiable in the parameters."""
        return self.mean + (self.log_variance / 2).exp() * noise

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """Return KL(self || other) of each dimension in nats, (B, L)."""
        difference = self.mean - other.mean
        ratio = (self.log_variance - other.log_variance).exp()
        quadratic = difference.square() * (-other.log_variance).exp()
        return (other.log_variance - self.log_variance + ratio + quadratic - 1) / 2


def log_cosh(residual: Tensor, sharpness: float = 1.0) -> Tensor:
    """Return ``ln(cosh(a t)) / a``, finite for every t.

    Near 0 it is ``a t^2 / 2``, far from it ``|t| - ln 2 / a``; its slope is ``tanh(a t)``. With
    a = 1 and residuals below 1 it lies within 13 % of half the square: only a larger `sharpness`
    makes it another loss.
    """
    scaled = sharpness * residual.abs()
    return (scaled + softplus(-2 * scaled) - math.log(2)) / sharpness
