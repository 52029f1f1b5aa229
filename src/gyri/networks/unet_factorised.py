"""A U-Net of volumes that works within slices, then across them.

Ho et al., 2022, arXiv:2204.03458 (video diffusion), with slices in the place of frames. Slices are
folded into the batch, so that all convolutions and normalisations are those of the slice U-Net;
what lies in other slices is seen by attention over depth alone. Depth is never resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from gyri.errors import UsageError
from gyri.networks.slicewise import MIDDLE, SliceAttention, SliceTrunk
from gyri.networks.unet import BackboneConfig, ResBlock, refuse_cut_patches, refuse_other_grid
from gyri.nn.attention import SelfAttention, merge_heads
from gyri.nn.embedding import PERIOD, NoiseEmbedding
from gyri.nn.layers import (
    conv,
    depth_to_space,
    memory_format,
    pointwise,
    runner,
    space_to_depth,
    zero_init,
)
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

DEPTH_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Axis of (I, J, K) along which slices of a plane lie."""
MAX_OFFSET = 32
"""Slices further apart share the bias of this distance."""


@dataclass(frozen=True, kw_only=True)
class UNetFactorisedConfig(BackboneConfig):
    """Settings of `UNetFactorised`: those of `UNet`'s backbone, read within slices, and its own.

    Parameters
    ----------
    plane : of the slices; depth is the axis across them.
    attention : for each level, whether linear attention over each slice follows the blocks, once
        on the way down and once on the way up. The middle has full attention over each slice.
    depth_attention : for each level, whether attention over depth comes next. The stem has it with
        the first level, the middle with the last. Without any, slices are independent.
    heads : of linear and of depth attention, `channels_per_head` each, whatever the width.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    attention: tuple[bool, ...] = (True, True, True, True)
    channels_per_head: int = 32
    norm_groups: int = 8
    resblock_updown: bool = False
    plane: Literal["sagittal", "coronal", "axial"] = "axial"
    depth_attention: tuple[bool, ...] = (True, True, True, True)
    heads: int = 8

    def __post_init__(self) -> None:
        """Refuse lists of different length and heads that rotation cannot split."""
        super().__post_init__()
        if len(self.depth_attention) != len(self.widths):
            raise UsageError(
                f"widths has {len(self.widths)} levels and depth_attention "
                f"{len(self.depth_attention)}. Give both one entry a level."
            )
        if self.channels_per_head % 2:
            raise UsageError(
                f"channels_per_head is {self.channels_per_head}; attention over depth rotates "
                "channels in pairs. Make it even."
            )


class RelativeBias(nn.Module):
    """A learned score for every head and distance in slices; nothing at init.

    Distances run from ``-MAX_OFFSET`` to ``MAX_OFFSET``, one value each; larger ones are clipped.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(heads, 2 * MAX_OFFSET + 1))

    def forward(self, depth: int) -> Tensor:
        """Return (heads, depth, depth), by the slice that asks and the slice that is asked."""
        place = torch.arange(depth, device=self.table.device)
        offset = (place - place[:, None]).clamp(-MAX_OFFSET, MAX_OFFSET)
        return self.table[:, offset + MAX_OFFSET]


def rotate(tokens: Tensor) -> Tensor:
    """Turn pairs of channels by angles that grow with depth; (..., depth, channels), as given.

    Products of two rotated tokens depend on their places through the distance alone (Su et al.,
    2021, arXiv:2104.09864).
    """
    depth, channels = tokens.shape[-2:]
    pair = torch.arange(0, channels, 2, device=tokens.device, dtype=torch.float32)
    place = torch.arange(depth, device=tokens.device, dtype=torch.float32)
    angle = place[:, None] * PERIOD ** (-pair / channels)
    cos, sin = angle.cos().to(tokens.dtype), angle.sin().to(tokens.dtype)
    first, second = tokens.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class LinearAttention(SliceAttention):
    """Attention over the pixels of a slice whose cost grows with their number, not its square.

    ``softmax(query) softmax(key)^T value``, the first softmax over channels and the second over
    pixels, so that the weights of a pixel sum to 1 (Shen et al., 2021, arXiv:1812.01243).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> (N, C, *S)."""
        query, key, value = self.parts(self.tokens(x))
        context = key.softmax(2).transpose(2, 3) @ value
        return self.add(x, merge_heads(query.softmax(3) @ context))


class DepthAttention(SliceAttention):
    """Attention of every pixel to the same pixel of all slices of its volume.

    Distances enter twice: `rotate` turns queries and keys, and a `RelativeBias` is added.
    """

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B * depth, C, *S) and (heads, depth, depth) -> (B * depth, C, *S)."""
        tokens = self.tokens(x).unflatten(0, (-1, bias.shape[1])).transpose(1, 2)
        query, key, value = self.parts(tokens.flatten(0, 1))
        mixed = scaled_dot_product_attention(
            rotate(query), rotate(key), value, attn_mask=bias.to(query.dtype)
        )
        mixed = merge_heads(mixed).unflatten(0, tokens.shape[:2]).transpose(1, 2)
        return self.add(x, mixed.flatten(0, 1))


class Factors(nn.Module):
    """Attention over each slice, then over depth; each where it is given.

    Parameters
    ----------
    over_slice : (N, C, *S) -> (N, C, *S), or None.
    width : C.
    level : whose entry of `depth_attention` counts.
    """

    def __init__(
        self, over_slice: nn.Module | None, width: int, config: UNetFactorisedConfig, level: int
    ) -> None:
        super().__init__()
        self.over_slice = over_slice
        self.over_depth: DepthAttention | None = None
        if config.depth_attention[level]:
            self.over_depth = DepthAttention(
                width, config.heads, config.channels_per_head, config.norm_groups
            )
        self.run = runner(config.gradient_checkpointing)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(B * depth, C, *S) and (heads, depth, depth), None without depth attention -> as x."""
        if self.over_slice is not None:
            x = self.run(self.over_slice, x)
        return x if self.over_depth is None else self.run(self.over_depth, x, bias)


def factors(config: UNetFactorisedConfig, width: int, level: int) -> Factors:
    """Return the attention of a level; that of the middle is full over each slice."""
    over_slice: nn.Module | None = None
    if level == MIDDLE:
        over_slice = SelfAttention(width, config.channels_per_head, config.norm_groups)
    elif config.attention[level]:
        over_slice = LinearAttention(
            width, config.heads, config.channels_per_head, config.norm_groups
        )
    return Factors(over_slice, width, config, level)


@NETWORKS.register("unet_factorised", UNetFactorisedConfig)
class UNetFactorised(nn.Module):
    """Space-then-depth factorised U-Net of video diffusion, for volumes and fields."""

    def __init__(self, config: UNetFactorisedConfig, spec: NetworkSpec) -> None:
        super().__init__()
        if len(spec.shape) != 3:
            raise UsageError(
                f"unet_factorised needs items with three axes, to work within slices and across "
                f"them; this view makes items of {'x'.join(map(str, spec.shape))}. "
                "Take the network unet, or a view of volumes or fields."
            )
        self.depth_axis = 2 + DEPTH_AXIS[config.plane]
        in_plane = [n for axis, n in enumerate(spec.shape, 2) if axis != self.depth_axis]
        refuse_cut_patches(tuple(in_plane), config.patch)
        self.spec, self.patch = spec, config.patch
        self.memory_format = memory_format(2, config.channels_last)
        self.run = runner(config.gradient_checkpointing)
        base, pixels = config.widths[0], config.patch**2
        self.embedding = NoiseEmbedding(
            base, spec.condition_size, spec.position_size, config.position
        )
        size = self.embedding.width
        self.bias = RelativeBias(config.heads) if any(config.depth_attention) else None
        self.stem = conv(2, spec.in_channels * pixels, base, kernel=7)
        self.stem_attention = Factors(None, base, config, 0)
        self.trunk = SliceTrunk(size, config, partial(factors, config))
        self.last = ResBlock(2, 2 * base, base, size, config)
        self.out = zero_init(conv(2, base, spec.out_channels * pixels, kernel=1))

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Tensor,
        position: Tensor | None = None,
    ) -> Tensor:
        """Return the denoiser's raw output.

        Parameters
        ----------
        x : (B, C_in, I, J, K).
        noise_level : (B,), ``-log_snr / 8`` as `gyri.sampling.preconditioning.noise_level` has it.
        condition : (B, D), D may be 0.
        position : (B, P) in [-1, 1], or None where the network was made for none.

        Returns
        -------
        Tensor
            (B, C_out, I, J, K); zero at init.
        """
        refuse_other_grid(x, self.spec)
        batch, depth = len(x), x.shape[self.depth_axis]
        embedding = silu(self.embedding(noise_level, condition, position))
        slices = x.movedim(self.depth_axis, 1).flatten(0, 1)
        y = self._slices(slices, embedding.repeat_interleave(depth, dim=0), depth)
        return y.unflatten(0, (batch, depth)).movedim(1, self.depth_axis)

    def _slices(self, x: Tensor, embedding: Tensor, depth: int) -> Tensor:
        """(B * depth, C_in, *S) and (B * depth, E) -> (B * depth, C_out, *S)."""
        bias = None if self.bias is None else self.bias(depth)
        first = self.stem(space_to_depth(x, self.patch)).to(memory_format=self.memory_format)
        first = self.stem_attention(first, bias)
        h = self.trunk(first, embedding, bias)
        h = self.run(self.last, embedding, h, first)
        return depth_to_space(pointwise(h, self.out.weight.flatten(1), self.out.bias), self.patch)
