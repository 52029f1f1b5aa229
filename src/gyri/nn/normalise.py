"""Group normalisation, modulation, SiLU and convolution as one step.

Wu and He, 2018, arXiv:1803.08494, for the normalisation; its modulation by an embedding is that of
Dhariwal and Nichol, 2021, arXiv:2105.05233.

On CPU a training step on large items spends much of its time on fetching fresh memory. There the
step keeps its inputs alone, recomputes what it needs of the rest in backward, works in place, and
never joins its inputs into one tensor. Elsewhere, and under torch.compile, the plain formula is
fastest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, silu

from gyri.nn.layers import CHANNELS_LAST, Convolution, largest_divisor, over_space

LARGE_BYTES = 8 << 20
"""Smaller inputs stay in the processor's cache, where the plain formula is as fast."""
CHUNK_BYTES = 4 << 20
"""Backward works on as many items at once as fit in the processor's cache."""


def group_mean(values: Tensor, groups: int) -> Tensor:
    """Replace each channel's value (B, C) by the mean of its group, (B, C)."""
    means = values.unflatten(1, (groups, -1)).mean(2)
    return means.repeat_interleave(values.shape[1] // groups, dim=1)


class Affine(NamedTuple):
    """Normalisation and modulation as one map of each channel, ``u = scale x + shift``; all (B, C).

    ``scale = gain / std`` and ``shift = offset - scale mean``.
    """

    scale: Tensor
    shift: Tensor
    gain: Tensor
    mean: Tensor
    rstd: Tensor

    @classmethod
    def fit(
        cls, parts: tuple[Tensor, ...], gain: Tensor, offset: Tensor, groups: int, eps: float
    ) -> Affine:
        """Take the statistics of `parts` (B, C_i, *S) as if they were joined."""
        means, variances = zip(*(channel_statistics(part, eps) for part in parts))
        channel_mean = torch.cat(means, dim=1)
        mean = group_mean(channel_mean, groups)
        variance = torch.cat(variances, dim=1) + (channel_mean - mean) ** 2
        rstd = (group_mean(variance, groups) + eps).rsqrt()
        scale = gain * rstd
        return cls(scale, offset - scale * mean, gain, mean, rstd)

    def rows(self, at: slice) -> Affine:
        """Return the map of some items."""
        return Affine(*(tensor[at] for tensor in self))

    def activate(self, parts: tuple[Tensor, ...]) -> list[Tensor]:
        """Return ``silu(u)`` of every part."""
        sizes = [part.shape[1] for part in parts]
        scales, shifts = self.scale.split(sizes, dim=1), self.shift.split(sizes, dim=1)
        return [
            silu(torch.addcmul(over_space(shift, x), x, over_space(scale, x)), inplace=True)
            for x, scale, shift in zip(parts, scales, shifts)
        ]


def channel_statistics(part: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and variance (B, C) over space of (B, C, *S)."""
    batch, channels = part.shape[:2]
    _, mean, rstd = torch.ops.aten.native_group_norm(
        part, None, None, batch, channels, part[0, 0].numel(), channels, eps
    )
    return mean.view(batch, channels), rstd.view(batch, channels) ** -2 - eps


def activation_backward(
    parts: tuple[Tensor, ...], grads: list[Tensor], affine: Affine, groups: int
) -> tuple[Tensor, Tensor]:
    """Turn gradients of ``silu(u)`` into those of `parts`, in place in `grads`.

    With ``g = dL/du``::

        dL/doffset = sum g                  dL/dgain = sum g xhat
        dL/dx = scale g - (mean(gain g) + xhat mean(gain g xhat)) / std

    where sums run over space and means over space and the channels of a group.

    Returns
    -------
    tuple[Tensor, Tensor]
        Gradients of gain and offset (B, C).
    """
    sizes, space = [part.shape[1] for part in parts], tuple(range(2, parts[0].ndim))
    scales, shifts = affine.scale.split(sizes, dim=1), affine.shift.split(sizes, dim=1)
    sums, products = [], []
    for x, g, scale, shift in zip(parts, grads, scales, shifts):
        u = torch.addcmul(over_space(shift, x), x, over_space(scale, x))
        torch.ops.aten.silu_backward.grad_input(g, u, grad_input=g)
        sums.append(g.sum(space))
        products.append(torch.mul(g, x, out=u).sum(space))
    grad_offset = torch.cat(sums, dim=1)
    grad_gain = affine.rstd * (torch.cat(products, dim=1) - affine.mean * grad_offset)
    voxels = parts[0][0, 0].numel()
    slope = -(affine.rstd**2) * group_mean(affine.gain * grad_gain, groups) / voxels
    level = -affine.rstd * group_mean(affine.gain * grad_offset, groups) / voxels
    level = level - affine.mean * slope
    slopes, levels = slope.split(sizes, dim=1), level.split(sizes, dim=1)
    for x, g, scale, slope_, level_ in zip(parts, grads, scales, slopes, levels):
        g.mul_(over_space(scale, x))
        g.addcmul_(x, over_space(slope_, x)).add_(over_space(level_, x))
    return grad_gain, grad_offset


def in_chunks(
    parts: tuple[Tensor, ...], grads: list[Tensor], affine: Affine, groups: int
) -> tuple[Tensor, Tensor]:
    """Do `activation_backward` for a few items at a time."""
    item_bytes = sum(part[0].numel() * part.element_size() for part in parts)
    count = max(1, CHUNK_BYTES // max(item_bytes, 1))
    chunks = [slice(at, at + count) for at in range(0, len(parts[0]), count)]
    results = [
        activation_backward(
            tuple(part[rows] for part in parts),
            [grad[rows] for grad in grads],
            affine.rows(rows),
            groups,
        )
        for rows in chunks
    ]
    grad_gain, grad_offset = (torch.cat(rows) for rows in zip(*results))
    return grad_gain, grad_offset


class _Recomputed(torch.autograd.Function):
    """`plain` with a backward that recomputes everything but the inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        groups: int,
        eps: float,
        convolution: Convolution,
        gain: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *parts: Tensor,
    ) -> Tensor:
        affine = Affine.fit(parts, gain, offset, groups, eps)
        ctx.save_for_backward(offset, weight, bias, *affine, *parts)
        ctx.groups, ctx.eps, ctx.convolution = groups, eps, convolution
        return convolution(affine.activate(parts), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        offset, weight, bias, *others = ctx.saved_tensors
        affine, parts = Affine(*others[:5]), tuple(others[5:])
        if torch.is_grad_enabled():
            inputs = (affine.gain, offset, weight, bias, *parts)
            return None, None, None, *_differentiable_grads(ctx, grad, inputs)
        grads, grad_weight, grad_bias = ctx.convolution.backward(
            grad, affine.activate(parts), weight, needed=ctx.needs_input_grad[5:7]
        )
        grad_gain, grad_offset = in_chunks(parts, grads, affine, ctx.groups)
        return None, None, None, grad_gain, grad_offset, grad_weight, grad_bias, *grads


def _differentiable_grads(ctx: Any, grad: Tensor, inputs: tuple[Any, ...]) -> list[Tensor | None]:
    """Gradients of `plain` that can be differentiated again."""
    y = plain(ctx.groups, ctx.eps, ctx.convolution, *inputs)
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    ]


def plain(
    groups: int,
    eps: float,
    convolution: Convolution,
    gain: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *parts: Tensor,
) -> Tensor:
    """Return ``convolution(silu(gain * normalised + offset))`` by the formula.

    Parameters
    ----------
    groups, eps : of the normalisation.
    gain, offset : (B, C).
    weight, bias : of the convolution.
    parts : tensors (B, C_i, *S), sum of C_i = C, taken as if joined.
    """
    x = group_norm(torch.cat(parts, dim=1), groups, eps=eps)
    y = silu(torch.addcmul(over_space(offset, x), x, over_space(gain, x)))
    return convolution([y], weight, bias)


def recomputes(weight: Tensor, parts: tuple[Tensor, ...]) -> bool:
    """Whether `_Recomputed` is the faster form for these tensors, and right for them."""
    return (
        weight.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and sum(part.numel() * part.element_size() for part in parts) >= LARGE_BYTES
        and all(part.dtype == weight.dtype and is_dense(part) for part in parts)
    )


def is_dense(x: Tensor) -> bool:
    """Whether x (B, C, *S) lies in memory without gaps, channels first or last."""
    return x.is_contiguous() or x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim - 2])


class NormSiLU(nn.Module):
    """``silu((1 + scale) * (weight * normalised(x) + bias) + shift)``.

    Parameters
    ----------
    channels : C of x (B, C, *S).
    groups : of the normalisation; where it does not divide `channels`, the next smaller that does.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = largest_divisor(channels, groups)
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def gain_and_offset(self, batch: int, modulation: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what multiplies the normalised x and what is added to it, (batch, C)."""
        gain, offset = self.weight.expand(batch, -1), self.bias.expand(batch, -1)
        if modulation is None:
            return gain, offset
        scale, shift = modulation.to(gain.dtype).chunk(2, dim=1)
        return gain * (1 + scale), torch.addcmul(shift, offset, 1 + scale)

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """(B, C, *S) and (B, 2C), scale and shift, or None -> (B, C, *S)."""
        normalised = group_norm(x, self.groups, self.weight, self.bias, self.eps)
        if modulation is not None:
            scale, shift = over_space(modulation, x).chunk(2, dim=1)
            normalised = torch.addcmul(shift, normalised, 1 + scale)
        return silu(normalised)

    def then(
        self,
        convolution: Convolution,
        weight: Tensor,
        bias: Tensor | None,
        *parts: Tensor,
        modulation: Tensor | None = None,
    ) -> Tensor:
        """Return the convolution of `forward`.

        Parameters
        ----------
        convolution, weight, bias : see `Convolution`.
        parts : tensors (B, C_i, *S), sum of C_i = C, taken as if joined.
        modulation : as in `forward`.
        """
        if recomputes(weight, parts):
            gain, offset = self.gain_and_offset(len(parts[0]), modulation)
            return _Recomputed.apply(
                self.groups, self.eps, convolution, gain, offset, weight, bias, *parts
            )
        x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return convolution([self(x, modulation)], weight, bias)
