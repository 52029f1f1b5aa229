"""Augmentation of what a discriminator sees, differentiable, and its controller (ADA).

Karras et al., 2020, arXiv:2006.06676: reals and fakes alike are changed, each kind of change with a
probability p that follows how sure the discriminator is of the reals. Of the published kinds those
are kept that mean something in MRI. Geometry is one affine map, sampled linearly and mirrored at
the border, without the published oversampling; voxels count as cubes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from gyri.errors import UsageError
from gyri.nn.layers import over_space
from gyri.types import SampleRng

LINEAR, MIRROR = 0, 2
"""Torch's numbers for ``bilinear`` (in 3D trilinear) and ``reflection``."""
BACKWARD = {
    2: torch.ops.aten.grid_sampler_2d_backward,
    3: torch.ops.aten.grid_sampler_3d_backward,
}


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What is done to an item; each kind fires with ADA's probability, 0 leaves a kind out.

    Parameters
    ----------
    flip_axis : spatial axis of an item, from 0, that is mirrored in half of the firings. None by
        default: mirrored brains lose their laterality.
    shift : largest shift as a share of each axis, by whole voxels.
    isotropic, anisotropic : standard deviations of the log2 of a scale of all axes, and of scales
        of each axis whose product is 1.
    rotation : largest angle in degrees, around every axis; before and after the anisotropic scale.
    brightness : standard deviation of what is added; the range of items is 2.
    contrast : standard deviation of the log2 of a factor about the background, -1.
    noise : standard deviation of the half-normal strength of white noise.
    cutout : share of each axis that a box at the background's value covers.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    flip_axis: int | None = None
    shift: float = 0.125
    isotropic: float = 0.2
    anisotropic: float = 0.2
    rotation: float = 180.0
    brightness: float = 0.2
    contrast: float = 0.5
    noise: float = 0.0
    cutout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ADAConfig:
    """Adaptive discriminator augmentation; the defaults are the published ones.

    Parameters
    ----------
    target : mean sign of the logits of reals above which p rises.
    images : shown to the discriminator while p moves by 1; 100 000 for fine-tuning, 0 keeps p where
        it starts.
    every : steps of the discriminator between two moves.
    start : first p.
    limit : highest p; changes leak into samples near 1.
    augmentation : what is done, see `AugmentationConfig`.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    target: float = 0.6
    images: float = 500_000.0
    every: int = 4
    start: float = 0.0
    limit: float = 0.8
    augmentation: AugmentationConfig = AugmentationConfig()

    def __post_init__(self) -> None:
        """Refuse probabilities that are none."""
        if not 0 <= self.start <= self.limit <= 1:
            raise UsageError(
                f"ada starts at p={self.start:g} and has the limit {self.limit:g}; expected "
                "0 <= start <= limit <= 1."
            )

    def initial(self) -> dict[str, Tensor]:
        """Return the controller's state: p, and sum of signs, reals and steps since its move."""
        return {"ada_p": torch.tensor(self.start), "ada_signs": torch.zeros(3)}

    def moved(self, state: dict[str, Tensor], signs: Tensor) -> dict[str, Tensor]:
        """Return the state after a step of the discriminator.

        Parameters
        ----------
        state : as `initial` makes it.
        signs : (2,) sum of the signs of the logits of reals, and how many there were.
        """
        p = state["ada_p"]
        signs = state["ada_signs"] + torch.cat([signs, signs.new_ones(1)])
        if int(signs[2]) < self.every:
            return {"ada_p": p, "ada_signs": signs}
        if self.images:
            move = (signs[0] / signs[1] - self.target).sign() * signs[1] / self.images
            p = (p + move).clamp(0.0, self.limit)
        return {"ada_p": p, "ada_signs": torch.zeros_like(signs)}


class _Sample(Function):
    """`grid_sample` with derivatives of any order with respect to items."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return functional.grid_sample(
            x.to(grid.dtype),
            grid,
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Scatter.apply(grads[0], ctx.saved_tensors[0], ctx.shape), None


class _Scatter(Function):
    """Transpose of `_Sample`: a linear map, so that its own derivative is `_Sample`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        backward = BACKWARD[len(shape) - 2]
        y = y.to(grid.dtype).contiguous()
        like = y.new_empty(()).expand(shape)
        return backward(y, like, grid, LINEAR, MIRROR, False, [True, False])[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Sample.apply(grads[0], ctx.saved_tensors[0]), None, None


def resampled(x: Tensor, matrix: Tensor) -> Tensor:
    """Sample items through affine maps.

    Parameters
    ----------
    x : (B, C, *S).
    matrix : (B, n + 1, n + 1) for n axes: where in x, in voxels from the centre, a voxel of the
        result is taken from.
    """
    dims = x.ndim - 2
    half = torch.tensor(x.shape[2:], device=x.device, dtype=matrix.dtype) / 2
    theta = matrix[:, :dims].clone()
    theta[:, :, :dims] *= half / half[:, None]
    theta[:, :, dims] /= half
    # Torch orders coordinates from the last axis to the first.
    order = [*range(dims - 1, -1, -1)]
    theta = theta[:, order][:, :, [*order, dims]]
    grid = functional.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
    return _Sample.apply(x, grid)


def _identity(count: int, dims: int, like: Tensor) -> Tensor:
    return torch.eye(dims + 1, device=like.device).repeat(count, 1, 1)


def _scaling(factors: Tensor) -> Tensor:
    """(B, n) -> (B, n + 1, n + 1)."""
    return torch.diag_embed(torch.cat([factors, factors.new_ones(len(factors), 1)], dim=1))


def _rotation(angles: Tensor, dims: int) -> Tensor:
    """Rotate in every plane by an angle (B, planes), in radians; (B, n + 1, n + 1)."""
    matrix = _identity(len(angles), dims, angles)
    for number, (a, b) in enumerate(combinations(range(dims), 2)):
        cos, sin = angles[:, number].cos(), angles[:, number].sin()
        plane = _identity(len(angles), dims, angles)
        plane[:, a, a], plane[:, a, b] = cos, -sin
        plane[:, b, a], plane[:, b, b] = sin, cos
        matrix = matrix @ plane
    return matrix


def _geometry(
    shape: tuple[int, ...], config: AugmentationConfig, p: float, rng: SampleRng
) -> tuple[Tensor, Tensor]:
    """Draw affine maps (B, n + 1, n + 1) of items of `shape`; also (B,) whether any kind fired.

    The numbers drawn do not depend on the configuration.
    """
    dims, planes = len(shape), math.comb(len(shape), 2)
    fires = rng.uniform((6,))
    uniform = 2 * rng.uniform((dims + 2 * planes + 1,)) - 1
    normal = rng.normal((1 + dims,))
    on = fires < p
    # Two rotations of which each fires with this probability fire with p together.
    on[:, 4:] = fires[:, 4:] < 1 - math.sqrt(1 - p)
    kinds = (config.flip_axis is not None, config.shift, config.isotropic, config.anisotropic)
    on &= torch.tensor([bool(k) for k in (*kinds, config.rotation, config.rotation)]).to(on.device)

    def where(kind: int, values: Tensor) -> Tensor:
        return values * on[:, kind, None]

    matrix = _identity(len(fires), dims, uniform)
    sizes = torch.tensor(shape, device=uniform.device)
    matrix[:, :dims, dims] = where(1, (uniform[:, :dims] * config.shift * sizes).round())
    if config.flip_axis is not None:
        mirrored = on[:, 0] & (uniform[:, -1] < 0)
        axis = config.flip_axis
        matrix[:, axis] = torch.where(mirrored[:, None], -matrix[:, axis], matrix[:, axis])
    matrix = matrix @ _scaling(2 ** where(2, config.isotropic * normal[:, :1]).expand(-1, dims))
    radians = math.radians(config.rotation)
    before, after = uniform[:, dims:-1].split(planes, dim=1)
    around = normal[:, 1:] - normal[:, 1:].mean(1, keepdim=True)
    stretch = config.anisotropic * math.sqrt(dims / (dims - 1)) * around
    matrix = matrix @ _rotation(where(4, before * radians), dims)
    matrix = matrix @ _scaling(2 ** where(3, stretch))
    matrix = matrix @ _rotation(where(5, after * radians), dims)
    return matrix, on.any(1)


def augmented(
    x: Tensor, config: AugmentationConfig, p: float, rng: SampleRng, own: int | None = None
) -> Tensor:
    """Change items, differentiably to any order.

    Parameters
    ----------
    x : (B, C, *S) in [-1, 1], background -1.
    config : see `AugmentationConfig`.
    p : probability of each kind; 0 returns x as it is.
    rng : one stream an item.
    own : how many channels are the item's, None for all; those behind are images that go with it,
        which move and otherwise stay what they are.
    """
    if p == 0:
        return x
    with torch.autocast(x.device.type, enabled=False):
        return _changed(x, config, p, rng, own or x.shape[1])


def _changed(x: Tensor, config: AugmentationConfig, p: float, rng: SampleRng, own: int) -> Tensor:
    shape = tuple(x.shape[2:])
    matrix, moved = _geometry(shape, config, p, rng)
    x = torch.where(over_space(moved[:, None], x), resampled(x, matrix), x)
    x, beside = x[:, :own], x[:, own:]
    fires = (rng.uniform((4,)) < p).to(x)
    draw = rng.normal((3,)).to(x) * fires[:, :3]
    contrast = over_space(2 ** (config.contrast * draw[:, :1]), x)
    x = (x + 1) * contrast - 1 + over_space(config.brightness * draw[:, 1:2], x)
    if config.noise:
        strength = over_space(config.noise * draw[:, 2:].abs(), x)
        x = x + strength * rng.normal(tuple(x.shape[1:])).to(x)
    if config.cutout:
        covered = _box(shape, config.cutout, rng) & over_space(fires[:, 3:].bool(), x)
        x = torch.where(covered, torch.full_like(x, -1.0), x)
    return torch.cat([x, beside], dim=1)


def _box(shape: tuple[int, ...], share: float, rng: SampleRng) -> Tensor:
    """Draw boxes with their centre anywhere; (B, 1, *S), True inside."""
    centre = rng.uniform((len(shape),))
    inside = torch.ones(len(centre), 1, *shape, dtype=torch.bool, device=centre.device)
    for axis, size in enumerate(shape):
        place = (torch.arange(size, device=centre.device) + 0.5) / size
        near = (place - centre[:, axis, None]).abs() < share / 2
        along = [len(centre), 1, *[1] * len(shape)]
        along[axis + 2] = size
        inside = inside & near.reshape(along)
    return inside
