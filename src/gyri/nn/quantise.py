"""A codebook that follows the features of a discriminator.

Zhao et al., 2020, arXiv:2004.02088 (FQ-GAN); the moving averages of van den Oord et al., 2017,
arXiv:1711.00937, appendix A.1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

EPS = 1e-9
"""Added to a code's share of the voxels; the published 1e-5 is added to a number of voxels."""

START_VOXELS = 8192
"""Most features among which the first codes are chosen."""


class Quantised(NamedTuple):
    """Features on a codebook.

    Parameters
    ----------
    features : (B, C, *S), what is passed on.
    commitment : (B,) mean squared distance to the codes.
    counts : (K,) int64, voxels of each code.
    sums : (K, C) float64, of these voxels' features.
    """

    features: Tensor
    commitment: Tensor
    counts: Tensor
    sums: Tensor


class Quantiser(nn.Module):
    """The nearest of `num_codes` codes for each voxel.

    Its buffers, the moving averages of each code's share of the voxels and of this share times the
    mean of their features, change in `start` and `update` alone, never when features pass.

    Parameters
    ----------
    channels : C of features (B, C, *S).
    num_codes : K.
    decay : weight of the past in the codes' moving averages.
    feed_quantised : pass the codes on, with the features' gradient (straight-through, as the paper
        describes), or the features themselves (a commitment alone, as its code does).
    """

    share: Tensor
    total: Tensor

    def __init__(self, channels: int, num_codes: int, decay: float, feed_quantised: bool) -> None:
        super().__init__()
        self.decay, self.feed_quantised = decay, feed_quantised
        self.register_buffer("share", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("total", torch.randn(num_codes, channels) / num_codes)

    @property
    def codes(self) -> Tensor:
        """(K, C)."""
        share = (self.share + EPS) / (1 + len(self.share) * EPS)
        return self.total / share[:, None]

    def forward(self, h: Tensor) -> Quantised:
        """Quantise features (B, C, *S)."""
        codes = self.codes
        flat = h.detach().float().flatten(2).transpose(1, 2).flatten(0, 1)
        with torch.autocast(h.device.type, enabled=False):
            nearest = (codes.square().sum(1) - 2 * flat @ codes.T).argmin(1)
        quantised = codes[nearest].unflatten(0, (len(h), -1)).transpose(1, 2).reshape(h.shape)
        commitment = mse_loss(h.float(), quantised, reduction="none").flatten(1).mean(1)
        passed = h + (quantised.to(h.dtype) - h).detach() if self.feed_quantised else h
        counts = torch.bincount(nearest, minlength=len(codes))
        # Thousands of terms: in float32 their order, and so micro-batches, would show.
        sums = torch.zeros_like(codes, dtype=torch.float64).index_add(0, nearest, flat.double())
        return Quantised(passed, commitment, counts, sums)

    @torch.no_grad()
    def start(self, h: Tensor) -> None:
        """Take codes from features (B, C, *S): each as far as can be from those before it.

        Codes that are evenly drawn are mostly background, one like the other, and stay unused.
        """
        flat = h.float().flatten(2).transpose(1, 2).flatten(0, 1)
        flat = flat[:: 1 + len(flat) // START_VOXELS]
        chosen = [(flat - flat.mean(0)).square().sum(1).argmin()]
        distance = torch.full_like(flat[:, 0], torch.inf)
        for _ in range(len(self.share) - 1):
            apart = (flat - flat[chosen[-1]]).square().sum(1)
            distance = torch.minimum(distance, apart)
            chosen.append(distance.argmax())
        self.total.copy_(flat[torch.stack(chosen)] / len(self.share))
        self.share.fill_(1 / len(self.share))

    @torch.no_grad()
    def update(self, counts: Tensor, sums: Tensor) -> None:
        """Move the codes towards the features of a step, see `Quantised`."""
        voxels = counts.sum()
        self.share.lerp_((counts / voxels).to(self.share), 1 - self.decay)
        self.total.lerp_((sums / voxels).to(self.total), 1 - self.decay)

    @torch.no_grad()
    def restart(self, which: Tensor, at: Tensor) -> None:
        """Move codes (K,) to features `at` (K, C), with an even share of the voxels each."""
        even = 1 / len(self.share)
        self.share[which] = even
        self.total[which] = even * at[which].to(self.total)


def perplexity(counts: Tensor) -> Tensor:
    """Return how many of K codes are in use, from 1 to K: the exponential of the entropy."""
    share = counts / counts.sum()
    return torch.exp(-torch.special.xlogy(share, share).sum())
