"""Deformations of volumes: warping, integration, Jacobians, energies.

One convention throughout. A field is (B, 3, I, J, K) in voxels of its own grid, its components in
the order of the axes. It pulls back, ``warped(p) = moving(p + u(p))``, so that a *displacement* u
carries a point of the fixed grid to where the moving volume is read. A stationary *velocity* v
gives the displacement ``exp(v) - id`` (Arsigny et al., 2006, "A log-Euclidean framework for
statistics on diffeomorphisms").
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

SQUARINGS = 7
"""Halvings before and compositions after; 9 change a peak of 10 voxels by 0.05 voxels."""


def identity_grid(field: Tensor) -> Tensor:
    """Return every voxel's own coordinates (1, 3, I, J, K) on the grid of `field`."""
    axes = [torch.arange(n, device=field.device, dtype=field.dtype) for n in field.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(moving: Tensor, u: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
    """Read a volume at displaced places; beyond its border the border's values continue.

    Parameters
    ----------
    moving : (B, C, I, J, K), or (1, C, I, J, K) for the same one for all.
    u : displacement (B, 3, I, J, K), voxels.
    mode : ``bilinear`` interpolates linearly along three axes, ``nearest`` is for labels.
    """
    places = identity_grid(u) + u
    shape = moving.shape[2:]
    scale = [2 / max(n - 1, 1) for n in shape]
    # grid_sample wants the last axis first, in [-1, 1].
    normed = torch.stack([places[:, k] * scale[k] - 1 for k in (2, 1, 0)], dim=-1)
    return grid_sample(
        moving.expand(len(u), *moving.shape[1:]), normed.to(moving.dtype), mode=mode,
        padding_mode="border", align_corners=True,
    )  # fmt: skip


def compose(first: Tensor, then: Tensor) -> Tensor:
    """Return the displacement of ``p -> q = p + first(p) -> q + then(q)``, (B, 3, I, J, K).

    Warping by it is warping by `then` and the result by `first`.
    """
    return first + warp(then, first)


def exponential(velocity: Tensor, squarings: int = SQUARINGS) -> Tensor:
    """Integrate a stationary velocity (B, 3, I, J, K) over unit time into a displacement.

    Scaling and squaring: ``u = v / 2^K``, then K times ``u <- u + u o (id + u)``. Negating the
    velocity gives the inverse.
    """
    u = velocity / 2**squarings
    for _ in range(squarings):
        u = compose(u, u)
    return u


def resize_field(field: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring a field to another grid over the same box, its values to voxels of that grid.

    Corners stay corners, so a voxel there is ``(n - 1) / (m - 1)`` voxels here. Interpolated
    linearly; a coarser grid is read, not averaged, so that going up and down again is exact where
    the finer grid has every voxel of the coarser.
    """
    old = tuple(field.shape[2:])
    if old == tuple(shape):
        return field
    scale = [(n - 1) / max(m - 1, 1) for n, m in zip(shape, old)]
    resized = interpolate(field, size=tuple(shape), mode="trilinear", align_corners=True)
    return resized * resized.new_tensor(scale).view(1, 3, 1, 1, 1)


def _gradient(field: Tensor) -> Tensor:
    """Return central differences (B, 3, 3, I, J, K); ``[:, k, a]`` is of component k along a."""
    return torch.stack(torch.gradient(field, dim=(2, 3, 4)), dim=2)


def _determinant(gradient: Tensor) -> Tensor:
    """Determinant (B, I, J, K) of ``id + gradient``."""
    eye = torch.eye(3, device=gradient.device, dtype=gradient.dtype).view(1, 3, 3, 1, 1, 1)
    a, b, c = (gradient + eye).unbind(1)
    return (a * torch.linalg.cross(b, c, dim=1)).sum(1)


def jacobian_determinant(u: Tensor) -> Tensor:
    """Local volume (B, I, J, K) of ``id + u`` over the voxel's, by central differences.

    0 or less where the deformation folds.
    """
    return _determinant(_gradient(u))


def folded(u: Tensor) -> Tensor:
    """Return where a deformation folds, (B, I-1, J-1, K-1) bool, one a cell of eight voxels.

    A cell folds if a determinant of one-sided differences at any of its corners is 0 or less;
    central differences are blind to folds of one voxel's size.
    """
    bad = None
    for corner in range(8):
        ends = [(corner >> axis) & 1 for axis in range(3)]
        steps = []
        for axis in range(3):
            # Difference along `axis`, taken on that corner's edge of the cell.
            step = u.diff(dim=2 + axis)
            for other in range(3):
                if other != axis:
                    step = step.narrow(2 + other, ends[other], u.shape[2 + other] - 1)
            steps.append(step)
        here = _determinant(torch.stack(steps, dim=2)) <= 0
        bad = here if bad is None else bad | here
    assert bad is not None
    return bad


def diffusion_energy(field: Tensor) -> Tensor:
    """Mean squared forward difference (B,), over voxels and components, averaged over axes."""
    per_axis = [field.diff(dim=axis).square().flatten(1).mean(1) for axis in (2, 3, 4)]
    return torch.stack(per_axis).mean(0)


def bending_energy(field: Tensor) -> Tensor:
    """Mean over voxels (B,) of the squared second derivatives of all components.

    Rueckert et al., IEEE TMI 18 (1999), equation 3; 0 for an affine field.
    """
    total = field.new_zeros(len(field))
    inner = field[:, :, 1:-1, 1:-1, 1:-1]
    for axis in (2, 3, 4):
        second = field.diff(n=2, dim=axis)
        for other in {2, 3, 4} - {axis}:
            second = second.narrow(other, 1, field.shape[other] - 2)
        total = total + second.square().flatten(1).sum(1)
    for one, two in ((2, 3), (2, 4), (3, 4)):
        mixed = (field.roll(-1, one) - field.roll(1, one)) / 2
        mixed = ((mixed.roll(-1, two) - mixed.roll(1, two)) / 2)[:, :, 1:-1, 1:-1, 1:-1]
        total = total + 2 * mixed.square().flatten(1).sum(1)
    return total / inner[0, 0].numel()


def folding_energy(u: Tensor) -> Tensor:
    """Mean (B,) of how far Jacobian determinants lie below 0."""
    return (-jacobian_determinant(u)).clamp_min(0).flatten(1).mean(1)
