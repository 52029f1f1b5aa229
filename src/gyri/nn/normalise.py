"""Group normalisation, modulation and SiLU of one or more tensors as one step.

Wu and He, 2018, arXiv:1803.08494, for the normalisation; its modulation by an embedding is that of
Dhariwal and Nichol, 2021, arXiv:2105.05233.

On CPU a training step spends much of its time on fetching memory. There the step keeps its inputs
alone and recomputes the rest in backward, works in place, and never joins its inputs into one
tensor. Elsewhere, and under torch.compile, the plain formula is fastest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, silu

from gyri.nn.layers import largest_divisor, over_space

CHUNK_BYTES = 4 << 20
"""Backward works on as many items at once as fit in the processor's cache."""


def group_mean(values: Tensor, groups: int) -> Tensor:
    """Replace each channel's value (B, C) by the mean of its group, (B, C)."""
    means = values.unflatten(1, (groups, -1)).mean(2)
    return means.repeat_interleave(values.shape[1] // groups, dim=1)


def normalised_silu(
    groups: int, eps: float, gain: Tensor, offset: Tensor, parts: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return ``silu(gain * normalised + offset)`` by the formula.

    Parameters
    ----------
    groups, eps : of the normalisation.
    gain, offset : (B, C).
    parts : tensors (B, C_i, *S), sum of C_i = C; they are normalised as if joined.
    """
    sizes = [part.shape[1] for part in parts]
    x = group_norm(torch.cat(parts, dim=1), groups, eps=eps)
    y = silu(torch.addcmul(over_space(offset, x), x, over_space(gain, x)))
    return y.split(sizes, dim=1)


def channel_statistics(part: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (B, C, *S) normalised channel by channel, and mean and 1 / std (B, C)."""
    batch, channels = part.shape[:2]
    normalised, mean, rstd = torch.ops.aten.native_group_norm(
        part, None, None, batch, channels, part[0, 0].numel(), channels, eps
    )
    return normalised, mean.view(batch, channels), rstd.view(batch, channels)


class _RecomputedNormSiLU(torch.autograd.Function):
    """`normalised_silu` that keeps its inputs alone.

    With ``u = scale x + shift`` and ``y = silu(u)``, where ``scale = gain / std`` and
    ``shift = offset - scale mean``, and with ``g = dL/du``::

        dL/doffset = sum g                  dL/dgain = sum g xhat
        dL/dx = scale g - (mean(gain g) + xhat mean(gain g xhat)) / std

    where sums run over space and means over space and the channels of a group.
    """

    @staticmethod
    def forward(
        ctx: Any, groups: int, eps: float, gain: Tensor, offset: Tensor, *parts: Tensor
    ) -> tuple[Tensor, ...]:
        sizes = [part.shape[1] for part in parts]
        outputs, means, rstds = zip(*(channel_statistics(part, eps) for part in parts))
        channel_mean, channel_rstd = torch.cat(means, dim=1), torch.cat(rstds, dim=1)
        mean = group_mean(channel_mean, groups)
        channel_variance = channel_rstd**-2 - eps
        variance = group_mean(channel_variance + (channel_mean - mean) ** 2, groups)
        rstd = (variance + eps).rsqrt()
        scale = gain * rstd
        shift = offset - scale * mean
        inner_scale = (scale / channel_rstd).split(sizes, dim=1)
        inner_shift = (shift + scale * channel_mean).split(sizes, dim=1)
        for y, of_channel, to_channel in zip(outputs, inner_scale, inner_shift):
            torch.addcmul(over_space(to_channel, y), y, over_space(of_channel, y), out=y)
            silu(y, inplace=True)
        ctx.save_for_backward(gain, offset, scale, shift, mean, rstd, *parts)
        ctx.groups, ctx.eps = groups, eps
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gain, offset, scale, shift, mean, rstd, *parts = ctx.saved_tensors
        if torch.is_grad_enabled():
            outputs = normalised_silu(ctx.groups, ctx.eps, gain, offset, tuple(parts))
            inputs = [gain, offset, *parts]
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
            return None, None, *(next(found) if x.requires_grad else None for x in inputs)
        results = [torch.empty_like(part) for part in parts]
        item_bytes = sum(part[0].numel() * part.element_size() for part in parts)
        rows = max(1, CHUNK_BYTES // max(item_bytes, 1))
        of_chunks = [
            _backward_rows(
                ctx.groups,
                gain[cut],
                scale[cut],
                shift[cut],
                mean[cut],
                rstd[cut],
                [part[cut] for part in parts],
                [grad[cut] for grad in grads],
                [result[cut] for result in results],
            )
            for cut in (slice(at, at + rows) for at in range(0, len(gain), rows))
        ]
        grad_gain, grad_offset = (torch.cat(chunks) for chunks in zip(*of_chunks))
        return None, None, grad_gain, grad_offset, *results


def _backward_rows(
    groups: int,
    gain: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    rstd: Tensor,
    parts: list[Tensor],
    grads: list[Tensor],
    results: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Write the gradients of `parts` into `results`; return those of gain and offset (B, C)."""
    sizes, space = [part.shape[1] for part in parts], tuple(range(2, parts[0].ndim))
    scales, shifts = scale.split(sizes, dim=1), shift.split(sizes, dim=1)
    sums, products = [], []
    for x, grad, g, scale_, shift_ in zip(parts, grads, results, scales, shifts):
        torch.addcmul(over_space(shift_, x), x, over_space(scale_, x), out=g)
        torch.ops.aten.silu_backward.grad_input(grad, g, grad_input=g)
        sums.append(g.sum(space))
        products.append((g * x).sum(space))
    grad_offset = torch.cat(sums, dim=1)
    grad_gain = rstd * (torch.cat(products, dim=1) - mean * grad_offset)
    voxels = parts[0][0, 0].numel()
    slope = -(rstd**2) * group_mean(gain * grad_gain, groups) / voxels
    level = -rstd * group_mean(gain * grad_offset, groups) / voxels - mean * slope
    slopes, levels = slope.split(sizes, dim=1), level.split(sizes, dim=1)
    for x, g, scale_, slope_, level_ in zip(parts, results, scales, slopes, levels):
        g.mul_(over_space(scale_, x))
        g.addcmul_(x, over_space(slope_, x)).add_(over_space(level_, x))
    return grad_gain, grad_offset


class NormSiLU(nn.Module):
    """``silu((1 + scale) * (weight * normalised(x) + bias) + shift)``.

    Parameters
    ----------
    channels : C of all inputs together.
    groups : of the normalisation; where it does not divide `channels`, the next smaller that does.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = largest_divisor(channels, groups)
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, *parts: Tensor, modulation: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return as many tensors as there are parts.

        Parameters
        ----------
        parts : tensors (B, C_i, *S), sum of C_i = C; they are normalised as if joined.
        modulation : (B, 2C), scale and shift, or None for neither.
        """
        # As torch's own normalisation under autocast: in the precision of the weights.
        parts = tuple(part.to(self.weight.dtype) for part in parts)
        gain, offset = (vector.expand(len(parts[0]), -1) for vector in (self.weight, self.bias))
        if modulation is not None:
            scale, shift = modulation.to(gain.dtype).chunk(2, dim=1)
            gain, offset = gain * (1 + scale), torch.addcmul(shift, offset, 1 + scale)
        if parts[0].device.type == "cpu" and not torch.compiler.is_compiling():
            return _RecomputedNormSiLU.apply(self.groups, self.eps, gain, offset, *parts)
        return normalised_silu(self.groups, self.eps, gain, offset, parts)
