"""Classical augmentation: the cheap variety that synthetic volumes have to beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

ROTATION_DEG = 10.0
SCALE = 0.1
SHIFT = 0.05
"""Of the grid's extent."""
GAIN = 0.1
LOG_GAMMA = 0.25


def augment(
    volumes: Tensor, labels: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Turn, scale, shift and mirror volumes, change gain and gamma; each by draws of its own.

    Parameters
    ----------
    volumes : (B, C, I, J, K) in [0, 1], background 0.
    labels : (B, I, J, K) integers that move along (nearest voxel), or None.
    generator : on the CPU, so that every device sees the same changes.

    Returns
    -------
    tuple
        Volumes and labels of the same shapes.
    """
    batch = len(volumes)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(batch, *shape, generator=generator) - 1

    angles = uniform(3) * math.radians(ROTATION_DEG)
    scales = 1 + SCALE * uniform(3)
    scales[:, 0] *= torch.where(uniform() > 0, 1.0, -1.0)  # left and right change sides
    shift = 2 * SHIFT * uniform(3)
    gain, gamma = 1 + GAIN * uniform(), torch.exp(LOG_GAMMA * uniform())
    # The grid's coordinates run from -1 to 1 along every axis, however long: turn in voxels.
    extent = torch.tensor(volumes.shape[2:], dtype=torch.float32)
    matrix = _rotation(angles) @ torch.diag_embed(scales)
    matrix = matrix * extent / extent[:, None]
    # A torch grid names its axes from the last one on.
    theta = torch.cat([matrix.flip(1, 2), shift.flip(1)[..., None]], dim=2).to(volumes.device)
    grid = functional.affine_grid(theta, list(volumes[:, :1].shape), align_corners=False)
    moved = functional.grid_sample(volumes, grid, align_corners=False)
    over = (-1,) + (1,) * (volumes.ndim - 1)
    gain, gamma = gain.to(volumes.device).view(over), gamma.to(volumes.device).view(over)
    changed = (moved.clamp(0, 1) ** gamma * gain).clamp(0, 1)
    if labels is None:
        return changed, None
    placed = functional.grid_sample(
        labels[:, None].to(volumes.dtype), grid, mode="nearest", align_corners=False
    )
    return changed, placed[:, 0].round().to(labels.dtype)


def _rotation(angles: Tensor) -> Tensor:
    """Return (B, 3, 3) rotations by (B, 3) angles about I, J and K, in this order."""
    turned = torch.eye(3).expand(len(angles), 3, 3)
    for axis in range(3):
        a, b = [other for other in range(3) if other != axis]
        step = torch.eye(3).repeat(len(angles), 1, 1)
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        step[:, a, a], step[:, b, b] = cos, cos
        step[:, a, b], step[:, b, a] = -sin, sin
        turned = step @ turned
    return turned
