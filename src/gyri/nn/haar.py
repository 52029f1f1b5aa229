"""The orthonormal Haar transform of volumes: eight bands on half the grid, and back.

Haar, 1910, Math. Ann. 69:331, along each axis in turn: of two neighbours the low band holds their
sum and the high band the first minus the second, both divided by the root of 2. So energy is kept,
and white noise stays white.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from gyri.nn.layers import depth_to_space, space_to_depth

BANDS = ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH")
"""The bands in order; the letters are of the axes I, J, K."""


def half_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid of the bands of a grid; halves are rounded up."""
    return tuple(-(-n // 2) for n in shape)


def haar(volumes: Tensor) -> Tensor:
    """(V, C, I, J, K) -> (V, 8 C, I/2, J/2, K/2), the bands of a channel together as in `BANDS`.

    An odd axis is first continued periodically by one voxel. Each coefficient of white noise then
    still has unit variance; a repeated voxel would have a high band of 0.
    """
    odd = [n % 2 for n in reversed(volumes.shape[2:])]
    if any(odd):
        volumes = pad(volumes, [end for n in odd for end in (0, n)], mode="circular")
    cubes = space_to_depth(volumes, 2).unflatten(1, (-1, 8))
    return torch.einsum("bc,vnc...->vnb...", _matrix(volumes), cubes).flatten(1, 2)


def inverse_haar(bands: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `haar`: (V, 8 C, I/2, J/2, K/2) -> (V, C, *shape)."""
    cubes = torch.einsum("bc,vnb...->vnc...", _matrix(bands), bands.unflatten(1, (-1, 8)))
    volumes = depth_to_space(cubes.flatten(1, 2), 2)
    return volumes[:, :, : shape[0], : shape[1], : shape[2]]


def _matrix(like: Tensor) -> Tensor:
    """Return what turns the eight voxels of a cube, last axis first, into the bands (8, 8)."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    return torch.kron(torch.kron(pair, pair), pair).to(like)
