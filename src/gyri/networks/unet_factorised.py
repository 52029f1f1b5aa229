"""A U-Net of volumes that works within slices, then across them.

Ho et al., 2022, arXiv:2204.03458 (video diffusion), with slices in the place of frames. Slices are
folded into the batch, so that all convolutions and normalisations are those of the slice U-Net;
what lies in other slices is seen by attention over depth alone. Depth is never resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from gyri.errors import UsageError
from gyri.networks.unet import (
    DOWN,
    UP,
    BackboneConfig,
    ResBlock,
    refuse_cut_patches,
    refuse_other_grid,
)
from gyri.nn.attention import SelfAttention, merge_heads, split_heads
from gyri.nn.embedding import PERIOD, NoiseEmbedding
from gyri.nn.layers import (
    conv,
    depth_to_space,
    group_norm,
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


class SliceAttention(nn.Module):
    """What both factors of attention share; the identity at init.

    Parameters
    ----------
    channels : C of slices x (N, C, *S).
    heads, channels_per_head : their product is the width of queries, keys and values.
    norm_groups : of the group normalisation, whose statistics are those of a slice.
    """

    def __init__(self, channels: int, heads: int, channels_per_head: int, norm_groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels, norm_groups)
        self.query_key_value = nn.Linear(channels, 3 * heads * channels_per_head)
        self.out = zero_init(nn.Linear(heads * channels_per_head, channels))

    def tokens(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> queries, keys and values of all pixels, (N, pixels, 3 width)."""
        layer = self.query_key_value
        return pointwise(self.norm(x), layer.weight, layer.bias).flatten(2).transpose(1, 2)

    def parts(self, tokens: Tensor) -> list[Tensor]:
        """(N, T, 3 width) -> query, key and value, (N, heads, T, channels_per_head)."""
        return [split_heads(part, self.heads) for part in tokens.chunk(3, dim=2)]

    def add(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return ``x + out(mixed)``; `mixed` is (N, pixels, width)."""
        mixed = mixed.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + pointwise(mixed, self.out.weight, self.out.bias)


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


class Level(nn.Module):
    """Residual blocks of one size of slices, then attention; the same on both ways."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        embedding_size: int,
        config: UNetFactorisedConfig,
        level: int,
    ) -> None:
        super().__init__()
        before = [in_channels, *[width] * (config.num_res_blocks - 1)]
        self.blocks = nn.ModuleList(
            ResBlock(2, channels, width, embedding_size, config) for channels in before
        )
        over_slice: LinearAttention | None = None
        if config.attention[level]:
            over_slice = LinearAttention(
                width, config.heads, config.channels_per_head, config.norm_groups
            )
        self.attention = Factors(over_slice, width, config, level)
        self.run = runner(config.gradient_checkpointing)

    def forward(self, embedding: Tensor, bias: Tensor | None, *x: Tensor) -> Tensor:
        """Embedding (N, E), see `Factors`, parts of x (N, C_in, *S) -> (N, width, *S)."""
        for block in self.blocks:
            x = (self.run(block, embedding, *x),)
        return self.attention(*x, bias)


class Middle(nn.Module):
    """Two residual blocks around full attention over each slice and attention over depth."""

    def __init__(self, width: int, embedding_size: int, config: UNetFactorisedConfig) -> None:
        super().__init__()
        self.before, self.after = (
            ResBlock(2, width, width, embedding_size, config) for _ in range(2)
        )
        full = SelfAttention(width, config.channels_per_head, config.norm_groups)
        self.attention = Factors(full, width, config, -1)
        self.run = runner(config.gradient_checkpointing)

    def forward(self, x: Tensor, embedding: Tensor, bias: Tensor | None) -> Tensor:
        """(N, C, *S), (N, E) and see `Factors` -> (N, C, *S)."""
        x = self.attention(self.run(self.before, embedding, x), bias)
        return self.run(self.after, embedding, x)


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
        widths, base, pixels = config.widths, config.widths[0], config.patch**2
        self.embedding = NoiseEmbedding(
            base, spec.condition_size, spec.position_size, config.position
        )
        size = self.embedding.width
        self.bias = RelativeBias(config.heads) if any(config.depth_attention) else None
        self.stem = conv(2, spec.in_channels * pixels, base, kernel=7)
        self.stem_attention = Factors(None, base, config, 0)
        above = [base, *widths[:-1]]
        self.down = nn.ModuleList(
            Level(above[level], width, size, config, level) for level, width in enumerate(widths)
        )
        halve, double = DOWN[config.resblock_updown], UP[config.resblock_updown]
        self.halvings = nn.ModuleList(halve(2, width, size, config) for width in widths[:-1])
        self.middle = Middle(widths[-1], size, config)
        self.up = nn.ModuleList(
            Level(2 * widths[level], above[level], size, config, level)
            for level in reversed(range(len(widths)))
        )
        self.doublings = nn.ModuleList(
            double(2, width, size, config) for width in reversed(widths[:-1])
        )
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
        h = first = self.stem_attention(first, bias)
        skips = []
        for level, block in enumerate(self.down):
            if level > 0:
                h = self.run(self.halvings[level - 1], embedding, h)
            h = block(embedding, bias, h)
            skips.append(h)
        h = self.middle(h, embedding, bias)
        for level, block in enumerate(self.up):
            if level > 0:
                h = self.run(self.doublings[level - 1], embedding, h, skips[-1].shape[2:])
            h = block(embedding, bias, h, skips.pop())
        h = self.run(self.last, embedding, h, first)
        return depth_to_space(pointwise(h, self.out.weight.flatten(1), self.out.bias), self.patch)
