"""Convolutions, pooling and normalisation, written once for slices and volumes.

`dims` (2 or 3) is read here and nowhere else: a network asks for ``conv(dims, ...)`` and its
blocks work on tensors (B, C, *S) whatever their number of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTIONS: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
BATCH_NORMS: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
POOLS: dict[int, type[nn.AvgPool2d] | type[nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
CONVOLVE: dict[int, Callable[..., Tensor]] = {2: functional.conv2d, 3: functional.conv3d}
CONVOLVE_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
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


class Convolution(NamedTuple):
    """A convolution that takes its input in parts, as if they were joined along channels.

    Weights are (C_out, C_in, ...), or (C_in, C_out, ...) where `transposed`.
    """

    stride: int = 1
    padding: int = 0
    transposed: bool = False

    def split(self, weight: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the weights of each part."""
        return weight.split([part.shape[1] for part in parts], dim=0 if self.transposed else 1)

    def __call__(
        self,
        parts: Sequence[Tensor],
        weight: Tensor,
        bias: Tensor | None,
        onto: Tensor | None = None,
    ) -> Tensor:
        """Convolve tensors (B, C_i, *S), sum of C_i = C_in.

        The result is added in place to `onto` (B, C_out, *S'), if given; this must be no view.
        """
        functions = CONVOLVE_TRANSPOSED if self.transposed else CONVOLVE
        convolve = functions[parts[0].ndim - 2]
        biases = [bias, *[None] * (len(parts) - 1)]
        for part, part_weight, part_bias in zip(parts, self.split(weight, parts), biases):
            if part_weight[0, 0].numel() == 1 and self.stride == 1:
                y = pointwise(part, part_weight.flatten(1), part_bias)
            else:
                y = convolve(part, part_weight, part_bias, stride=self.stride, padding=self.padding)
            onto = y if onto is None else onto.add_(y)
        assert onto is not None
        return onto

    def backward(
        self,
        grad: Tensor,
        parts: Sequence[Tensor],
        weight: Tensor,
        needed: tuple[bool, bool],
    ) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
        """Return gradients of parts, weight and bias; of these two where `needed`.

        The gradients of parts are fresh tensors that may be changed.
        """
        dims = weight.ndim - 2
        of_weight, of_bias = needed
        grads, weight_grads, bias_grad = [], [], None
        for number, (part, part_weight) in enumerate(zip(parts, self.split(weight, parts))):
            mask = [True, of_weight, of_bias and number == 0]
            to_part, to_weight, to_bias = torch.ops.aten.convolution_backward(
                grad,
                part,
                part_weight,
                [grad.shape[1]],
                [self.stride] * dims,
                [self.padding] * dims,
                [1] * dims,
                self.transposed,
                [0] * dims,
                1,
                mask,
            )
            grads.append(to_part)
            weight_grads.append(to_weight)
            bias_grad = to_bias if mask[2] else bias_grad
        joined = torch.cat(weight_grads, dim=0 if self.transposed else 1) if of_weight else None
        return grads, joined, bias_grad


SAME = Convolution(padding=1)
"""Kernel of 3 that keeps the grid."""
POINTWISE = Convolution()
"""Kernel of 1."""
DOUBLING = Convolution(stride=2, padding=1, transposed=True)
"""Kernel of 4 that doubles the grid."""


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear map (C_out, C_in) to every voxel of x (B, C_in, *S)."""
    if x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
        # Torch has a fast kernel for a stack of slices, not for one volume on one thread.
        slices = x.transpose(1, 2).flatten(0, 1)
        return pointwise(slices, weight, bias).unflatten(0, (len(x), -1)).transpose(1, 2)
    return CONVOLVE[x.ndim - 2](x, weight.reshape(*weight.shape, *[1] * (x.ndim - 2)), bias)


def doubled_kernel(weight: Tensor) -> Tensor:
    """Merge the taps of a kernel of three that meet the same voxel of a doubled grid.

    Parameters
    ----------
    weight : (C_out, C_in, 3, ...) of a convolution after repeating every voxel.

    Returns
    -------
    Tensor
        (C_in, C_out, 4, ...) of the transposed convolution with stride 2 that does the same: along
        an axis ``[w2, w1 + w2, w0 + w1, w0]``.
    """
    merge = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    for _ in range(weight.ndim - 2):
        weight = torch.tensordot(weight, merge.to(weight.dtype), dims=([2], [1]))
    return weight.transpose(0, 1)


def doubles(x: Tensor, shape: torch.Size) -> bool:
    """Whether `shape` is twice the grid of x (B, C, *S) along every axis."""
    return all(size == 2 * half for size, half in zip(shape, x.shape[2:]))


def upsample_convolve(layer: nn.Conv2d | nn.Conv3d, x: Tensor, shape: torch.Size) -> Tensor:
    """Apply a convolution of kernel 3 to ``nearest_upsample(x, shape)``.

    Where every axis doubles, the taps that meet the same voxel are merged first: 4 instead of 9
    products a pixel, 8 instead of 27 a voxel, and no upsampled tensor.
    """
    if doubles(x, shape):
        return DOUBLING([x], doubled_kernel(layer.weight), layer.bias)
    return layer(nearest_upsample(x, shape))


def average_pool(dims: int) -> nn.AvgPool2d | nn.AvgPool3d:
    """Return a pool that halves every axis, rounding up; a last odd voxel stays as it is."""
    return POOLS[dims](2, ceil_mode=True)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Turn every patch of ``factor`` voxels an axis into channels: (B, C f^dims, *S / f)."""
    if factor == 1:
        return x
    dims = x.ndim - 2
    cut = x.reshape(*x.shape[:2], *(n for size in x.shape[2:] for n in (size // factor, factor)))
    grid, inside = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return cut.permute(0, 1, *inside, *grid).flatten(1, 1 + dims)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Inverse of `space_to_depth`."""
    if factor == 1:
        return x
    dims = x.ndim - 2
    cut = x.unflatten(1, (-1, *[factor] * dims))
    pairs = [axis for k in range(dims) for axis in (2 + dims + k, 2 + k)]
    return cut.permute(0, 1, *pairs).reshape(
        *cut.shape[:1], cut.shape[1], *(n * factor for n in x.shape[2:])
    )


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
