"""A 2D U-Net of any set of slices of a volume, which see each other by attention.

Peng et al., 2023 (cDPM); Harvey et al., 2022, arXiv:2205.11495 (flexible video diffusion), with
slices in the place of frames. Slices are folded into the batch, so that all convolutions and
normalisations are those of one slice. At each pixel the slices of a set attend to each other, and
all that this attention knows of their places is how far apart they lie: the network does the same
to a set and to that set shifted, and the order of the slices does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gyri.errors import UsageError
from gyri.networks.slicewise import MIDDLE, SliceAttention, SliceTrunk
from gyri.networks.unet import BackboneConfig, refuse_cut_patches
from gyri.nn.attention import SelfAttention, merge_heads
from gyri.nn.embedding import NoiseEmbedding
from gyri.nn.layers import (
    conv,
    depth_to_space,
    memory_format,
    runner,
    space_to_depth,
    zero_init,
)
from gyri.nn.normalise import NormSiLU
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class UNetSliceSetConfig(BackboneConfig):
    """Settings of `UNetSliceSet`: those of `UNet`'s backbone, read within slices, and its own.

    Parameters
    ----------
    attention : for each level, whether self-attention over each slice follows the blocks. The
        middle has it.
    set_attention : for each level, whether attention over the slices of the set comes before it.
        The middle has it. Without any but the middle's, slices agree on coarse things alone.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    attention: tuple[bool, ...] = (False, False, True)
    set_attention: tuple[bool, ...] = (True, True, True)

    def __post_init__(self) -> None:
        """Refuse lists of different length."""
        super().__post_init__()
        if len(self.set_attention) != len(self.widths):
            raise UsageError(
                f"widths has {len(self.widths)} levels and set_attention "
                f"{len(self.set_attention)}. Give both one entry a level."
            )


class RelativePlace(nn.Module):
    """What two slices' distance adds to their attention: a score a head, and a value.

    Both are functions of ``log(1 + d)`` with the sign of d, so that near slices are told apart
    better than far ones (Harvey et al., 2022, appendix). Nothing at init.

    Parameters
    ----------
    heads, channels : of the attention; a value has `channels` in all.
    """

    def __init__(self, heads: int, channels: int, hidden: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.shared = nn.Sequential(nn.Linear(3, hidden), nn.SiLU())
        self.score = zero_init(nn.Linear(hidden, heads))
        self.value = zero_init(nn.Linear(hidden, channels))

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) slice indices -> scores (B, heads, T, T) and values (B, heads, T, T, channels).

        The first T is of the slice that asks. `channels` are those of a head here.
        """
        offset = (index[:, None, :] - index[:, :, None]).float()
        ahead, behind = offset.clamp_min(0).log1p(), (-offset).clamp_min(0).log1p()
        hidden = self.shared(torch.stack([ahead, behind, (offset == 0).float()], dim=-1))
        value = self.value(hidden).unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4)
        return self.score(hidden).permute(0, 3, 1, 2), value


class SetAttention(SliceAttention):
    """Attention of every pixel to the same pixel of all slices of its set; identity at init.

    Parameters
    ----------
    channels, channels_per_head, norm_groups : as in `gyri.nn.attention.SelfAttention`.
    """

    def __init__(self, channels: int, channels_per_head: int, norm_groups: int) -> None:
        heads = max(channels // channels_per_head, 1)
        super().__init__(channels, heads, channels_per_head, norm_groups)
        self.place = RelativePlace(heads, heads * channels_per_head)

    def forward(self, x: Tensor, index: Tensor, valid: Tensor) -> Tensor:
        """(B * T, C, *S), slice indices (B, T) and which slices there are (B, T) -> as x."""
        batch, length = index.shape
        score, value_of_place = self.place(index)
        score = score.masked_fill(~valid[:, None, None, :], float("-inf"))
        tokens = self.tokens(x).unflatten(0, (batch, length)).transpose(1, 2)
        pixels = tokens.shape[1]
        query, key, value = self.parts(tokens.flatten(0, 1))
        scale = query.shape[-1] ** -0.5
        weight = (scale * query @ key.transpose(-1, -2)).unflatten(0, (batch, pixels))
        weight = (weight + score[:, None]).softmax(-1)
        mixed = weight.flatten(0, 1) @ value
        # (B, pixels, heads, T, T) with (B, heads, T, T, c): what a slice is told by places alone.
        placed = torch.einsum("bphts,bhtsc->bphtc", weight, value_of_place)
        mixed = merge_heads(mixed + placed.flatten(0, 1)).unflatten(0, (batch, pixels))
        return self.add(x, mixed.transpose(1, 2).flatten(0, 1))


class SetThenSlice(nn.Module):
    """Attention over the set, then over each slice; each where the level has it, the middle both.

    Parameters
    ----------
    config : of the network.
    width : C of slices (N, C, *S).
    level : whose entries count.
    """

    def __init__(self, config: UNetSliceSetConfig, width: int, level: int) -> None:
        super().__init__()
        head, groups, middle = config.channels_per_head, config.norm_groups, level == MIDDLE
        self.over_set: SetAttention | None = None
        self.over_slice: SelfAttention | None = None
        if middle or config.set_attention[level]:
            self.over_set = SetAttention(width, head, groups)
        if middle or config.attention[level]:
            self.over_slice = SelfAttention(width, head, groups)
        self.run = runner(config.gradient_checkpointing)

    def forward(self, x: Tensor, index: Tensor, valid: Tensor) -> Tensor:
        """(B * T, C, *S), see `SetAttention` -> as x."""
        if self.over_set is not None:
            x = self.run(self.over_set, x, index, valid)
        return x if self.over_slice is None else self.run(self.over_slice, x)


@NETWORKS.register("unet_slice_set", UNetSliceSetConfig)
class UNetSliceSet(nn.Module):
    """2D U-Net of a set of slices that attend to each other by their distances (cDPM)."""

    def __init__(self, config: UNetSliceSetConfig, spec: NetworkSpec) -> None:
        super().__init__()
        if len(spec.shape) != 2:
            raise UsageError(
                f"unet_slice_set works on slices of two axes; it was asked for "
                f"{'x'.join(map(str, spec.shape))}. It is the network of the method cdpm; for "
                "volumes take unet or unet_factorised."
            )
        refuse_cut_patches(spec.shape, config.patch)
        self.spec, self.patch = spec, config.patch
        self.memory_format = memory_format(2, config.channels_last)
        base, pixels = config.widths[0], config.patch**2
        self.embedding = NoiseEmbedding(
            base, spec.condition_size, spec.position_size, config.position
        )
        self.stem = conv(2, spec.in_channels * pixels, base)
        self.trunk = SliceTrunk(self.embedding.width, config, partial(SetThenSlice, config))
        self.norm = NormSiLU(base, config.norm_groups)
        self.out = zero_init(conv(2, base, spec.out_channels * pixels))

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Tensor,
        index: Tensor,
        valid: Tensor,
        position: Tensor | None = None,
    ) -> Tensor:
        """Return the denoiser's raw output for every slice.

        Parameters
        ----------
        x : (B, T, C_in, *S), the slices of each set in any order.
        noise_level : (B,), as `gyri.sampling.preconditioning.noise_level` has it.
        condition : (B, D), D may be 0.
        index : (B, T) int64, where the slices lie in their volume.
        valid : (B, T) bool, False for what only fills up the set; nobody attends to it.
        position : (B, T, P) in [-1, 1], or None where the network was made for none.

        Returns
        -------
        Tensor
            (B, T, C_out, *S); zero at init.
        """
        length = x.shape[1]
        embedding = self.embedding(
            noise_level.repeat_interleave(length, dim=0),
            condition.repeat_interleave(length, dim=0),
            None if position is None else position.flatten(0, 1),
        )
        y = self._slices(x.flatten(0, 1), silu(embedding), index, valid)
        return y.unflatten(0, (-1, length))

    def _slices(self, x: Tensor, embedding: Tensor, index: Tensor, valid: Tensor) -> Tensor:
        h = self.stem(space_to_depth(x, self.patch)).to(memory_format=self.memory_format)
        h = self.trunk(h, embedding, index, valid)
        return depth_to_space(self.out(self.norm(h)), self.patch)
