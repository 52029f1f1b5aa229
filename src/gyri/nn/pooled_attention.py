"""Self-attention of a GAN: every voxel attends to a grid of half the size.

Zhang et al., 2019, arXiv:1805.08318 (SAGAN), with the pooling of Brock et al., 2019,
arXiv:1809.11096. Written out instead of torch's fused attention, which has no second derivative and
which a gradient penalty needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.nn.layers import pointwise

POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


class PooledAttention(nn.Module):
    """``x + gamma out(softmax(query key) value)``; gamma is 0 at init.

    Keys and values are max-pooled by 2 along every axis; the softmax is not scaled by the number of
    channels.

    Parameters
    ----------
    channels : C of x (B, C, *S).
    spectral : divide every projection by its largest singular value, taken exactly instead of by
        power iterations, which would depend on how often the network was run.
    """

    def __init__(self, channels: int, spectral: bool = False) -> None:
        super().__init__()
        narrow, wide = max(channels // 8, 1), max(channels // 2, 1)
        self.query = self._projection(channels, narrow)
        self.key = self._projection(channels, narrow)
        self.value = self._projection(channels, wide)
        self.out = self._projection(wide, channels)
        self.gamma = nn.Parameter(torch.tensor(0.0))
        self.spectral = spectral

    @staticmethod
    def _projection(in_channels: int, out_channels: int) -> nn.Parameter:
        return nn.Parameter(nn.init.orthogonal_(torch.empty(out_channels, in_channels)))

    def _project(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.spectral:
            weight = weight / torch.linalg.matrix_norm(weight, ord=2)
        return pointwise(x, weight, None)

    def attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (B, voxels, pooled voxels), whose rows sum to 1, and values.

        The values are (B, C / 2, pooled voxels).
        """
        pool = POOL[x.ndim - 2]
        query = self._project(x, self.query).flatten(2)
        key = pool(self._project(x, self.key), 2, ceil_mode=True).flatten(2)
        value = pool(self._project(x, self.value), 2, ceil_mode=True).flatten(2)
        return (query.transpose(1, 2) @ key).softmax(2), value

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)."""
        weights, value = self.attention(x)
        mixed = (value @ weights.to(value.dtype).transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gamma * self._project(mixed, self.out)
