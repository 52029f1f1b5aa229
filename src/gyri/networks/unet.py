"""The U-Net of guided diffusion (ADM), for slices and volumes.

Dhariwal and Nichol, 2021, arXiv:2105.05233, appendix; every axis is halved and doubled, also in
3D. Grids may be of any size: halving rounds up, and the way up returns to the size of the skip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gyri.errors import UsageError
from gyri.nn.attention import AttentionPool, MeanPool, SelfAttention
from gyri.nn.embedding import NoiseEmbedding, PositionKind
from gyri.nn.layers import (
    DOUBLING,
    POINTWISE,
    SAME,
    average_pool,
    conv,
    depth_to_space,
    doubled_kernel,
    doubles,
    memory_format,
    nearest_upsample,
    over_space,
    runner,
    space_to_depth,
    upsample_convolve,
    zero_init,
)
from gyri.nn.normalise import NormSiLU
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Settings that `UNet` and `UNetEncoder` share.

    Parameters
    ----------
    widths : channels of each level, from full resolution down; one halving between two levels.
    patch : side of the patches of voxels that the first level sees as channels; 2 costs an eighth
        of 1 in 3D and blurs nothing, as all voxels of a patch are read and written.
    num_res_blocks : residual blocks a level on the way down; one more on the way up.
    attention : for each level, whether self-attention follows every block. The middle has it.
    channels_per_head : of the attention.
    norm_groups : groups of all normalisations; where they do not divide a width, fewer. Leave two
        channels or more a group: a channel alone loses its mean, and what `scale_shift` false adds.
    dropout : before the second convolution of a block.
    scale_shift : the embedding scales and shifts the second normalisation; otherwise it is added
        before it.
    resblock_updown : resample inside residual blocks (nearest and average); otherwise by a
        strided convolution, and by repeating voxels and a convolution.
    position : how coordinates enter: ``fourier`` features, so that neighbours are alike, or the
        ``raw`` numbers, each with a learned vector of its own. With the slice view's one-hot
        ``index``, ``raw`` is the published embedding table.
    gradient_checkpointing : keep only the blocks' inputs for the backward pass.
    channels_last : memory format of all activations; faster on CPU and with tensor cores.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    patch: int = 1
    num_res_blocks: int = 2
    attention: tuple[bool, ...] = (False, False, True)
    channels_per_head: int = 64
    norm_groups: int = 16
    dropout: float = 0.0
    scale_shift: bool = True
    resblock_updown: bool = True
    position: PositionKind = "fourier"
    gradient_checkpointing: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse lists of different length."""
        if len(self.widths) != len(self.attention) or not self.widths:
            raise UsageError(
                f"widths has {len(self.widths)} levels and attention {len(self.attention)}. "
                "Give both one entry a level, from full resolution down."
            )


class ResBlock(nn.Module):
    """``skip(x) + conv(silu(modulated norm(conv(silu(norm(x))))))``; ``skip(x)`` at init.

    Parameters
    ----------
    dims : spatial axes.
    in_channels, out_channels : a 1x1 convolution adapts the skip where they differ.
    embedding_size : length of the embedding.
    config : normalisation, dropout and modulation.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        embedding_size: int,
        config: BackboneConfig,
    ) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.norm_in = NormSiLU(in_channels, config.norm_groups)
        self.conv_in = conv(dims, in_channels, out_channels)
        self.modulation = nn.Linear(embedding_size, out_channels * (1 + config.scale_shift))
        self.norm_out = NormSiLU(out_channels, config.norm_groups)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = zero_init(conv(dims, out_channels, out_channels))
        self.skip: nn.Conv2d | nn.Conv3d | None = None
        if in_channels != out_channels:
            self.skip = conv(dims, in_channels, out_channels, 1)

    def forward(self, embedding: Tensor, *x: Tensor) -> Tensor:
        """Embedding (B, E) and parts of x (B, C_in, *S) -> (B, C_out, *S)."""
        h = self.norm_in.then(SAME, self.conv_in.weight, self.conv_in.bias, *x)
        h = self.finish(h, embedding)
        if self.skip is None:
            return h.add_(*x)
        return POINTWISE(x, self.skip.weight, self.skip.bias, onto=h)

    def finish(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Return the residual branch from the result `h` of its first convolution."""
        modulation: Tensor | None = None
        if self.scale_shift:
            modulation = self.modulation(embedding)
        else:
            h = h.add_(over_space(self.modulation(embedding), h))
        if self.dropout.p > 0 and self.training:
            return self.conv_out(self.dropout(self.norm_out(h, modulation)))
        weight, bias = self.conv_out.weight, self.conv_out.bias
        return self.norm_out.then(SAME, weight, bias, h, modulation=modulation)


class Block(nn.Module):
    """A residual block, followed by attention where the level has it."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        embedding_size: int,
        config: BackboneConfig,
        attention: bool,
    ) -> None:
        super().__init__()
        self.residual = ResBlock(dims, in_channels, out_channels, embedding_size, config)
        self.attention: nn.Module = nn.Identity()
        if attention:
            self.attention = SelfAttention(
                out_channels, config.channels_per_head, config.norm_groups
            )

    def forward(self, embedding: Tensor, *x: Tensor) -> Tensor:
        """Embedding (B, E) and parts of x (B, C_in, *S) -> (B, C_out, *S)."""
        return self.attention(self.residual(embedding, *x))


class ConvDown(nn.Module):
    """Halve every axis, rounding up, by a strided convolution."""

    def __init__(
        self, dims: int, channels: int, embedding_size: int, config: BackboneConfig
    ) -> None:
        super().__init__()
        self.conv = conv(dims, channels, channels, stride=2)

    def forward(self, embedding: Tensor, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *ceil(S / 2)); the embedding is not used."""
        return self.conv(x)


class ConvUp(nn.Module):
    """Return to the grid of the level above: repeat voxels, then convolve."""

    def __init__(
        self, dims: int, channels: int, embedding_size: int, config: BackboneConfig
    ) -> None:
        super().__init__()
        self.conv = conv(dims, channels, channels)

    def forward(self, embedding: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        """(B, C, *S) -> (B, C, *shape); the embedding is not used."""
        return upsample_convolve(self.conv, x, shape)


class ResBlockDown(nn.Module):
    """Halve every axis, rounding up, by averages inside a residual block."""

    def __init__(
        self, dims: int, channels: int, embedding_size: int, config: BackboneConfig
    ) -> None:
        super().__init__()
        self.residual = ResBlock(dims, channels, channels, embedding_size, config)
        self.pool = average_pool(dims)

    def forward(self, embedding: Tensor, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *ceil(S / 2))."""
        h = self.residual.conv_in(self.pool(self.residual.norm_in(x)))
        return self.residual.finish(h, embedding).add_(self.pool(x))


class ResBlockUp(nn.Module):
    """Return to the grid of the level above: repeat voxels inside a residual block."""

    def __init__(
        self, dims: int, channels: int, embedding_size: int, config: BackboneConfig
    ) -> None:
        super().__init__()
        self.residual = ResBlock(dims, channels, channels, embedding_size, config)

    def forward(self, embedding: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        """(B, C, *S) -> (B, C, *shape)."""
        norm, layer = self.residual.norm_in, self.residual.conv_in
        if doubles(x, shape):
            h = norm.then(DOUBLING, doubled_kernel(layer.weight), layer.bias, x)
        else:
            h = layer(nearest_upsample(norm(x), shape))
        return self.residual.finish(h, embedding).add_(nearest_upsample(x, shape))


DOWN: dict[bool, type[ConvDown] | type[ResBlockDown]] = {False: ConvDown, True: ResBlockDown}
UP: dict[bool, type[ConvUp] | type[ResBlockUp]] = {False: ConvUp, True: ResBlockUp}


class Encoder(nn.Module):
    """The way down and the middle.

    Attributes
    ----------
    skip_widths : channels of the tensors that `forward` hands to the way up.
    """

    def __init__(
        self, dims: int, in_channels: int, embedding_size: int, config: BackboneConfig
    ) -> None:
        super().__init__()
        self.memory_format = memory_format(dims, config.channels_last)
        width = config.widths[0]
        self.patch = config.patch
        self.stem = conv(dims, in_channels * config.patch**dims, width)
        self.skip_widths = [width]
        self.steps = nn.ModuleList()
        down = DOWN[config.resblock_updown]
        for level, out_width in enumerate(config.widths):
            if level > 0:
                self.steps.append(down(dims, width, embedding_size, config))
                self.skip_widths.append(width)
            for _ in range(config.num_res_blocks):
                attention = config.attention[level]
                self.steps.append(Block(dims, width, out_width, embedding_size, config, attention))
                width = out_width
                self.skip_widths.append(width)
        self.middle = nn.ModuleList(
            [
                Block(dims, width, width, embedding_size, config, attention=True),
                Block(dims, width, width, embedding_size, config, attention=False),
            ]
        )
        self.out_width = width
        self.run = runner(config.gradient_checkpointing)

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C_in, *S) -> (B, out_width, *S') and the skips, from the first to the last."""
        h = self.stem(space_to_depth(x, self.patch)).to(memory_format=self.memory_format)
        skips = [h]
        for step in self.steps:
            h = self.run(step, embedding, h)
            skips.append(h)
        for block in self.middle:
            h = self.run(block, embedding, h)
        return h, skips


class DecoderLevel(nn.Module):
    """The blocks of one level on the way up; each takes one skip."""

    def __init__(
        self,
        dims: int,
        in_width: int,
        skip_widths: list[int],
        embedding_size: int,
        config: BackboneConfig,
        level: int,
    ) -> None:
        super().__init__()
        width = config.widths[level]
        in_widths = [in_width, *[width] * (len(skip_widths) - 1)]
        self.blocks = nn.ModuleList(
            Block(dims, before + skip, width, embedding_size, config, config.attention[level])
            for before, skip in zip(in_widths, skip_widths, strict=True)
        )
        up = UP[config.resblock_updown]
        self.up = up(dims, width, embedding_size, config) if level > 0 else None
        self.run = runner(config.gradient_checkpointing)

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """(B, in_width, *S) -> (B, width, *S of the level above); takes its skips off the list."""
        for block in self.blocks:
            h = self.run(block, embedding, h, skips.pop())
        if self.up is not None:
            h = self.run(self.up, embedding, h, skips[-1].shape[2:])
        return h


def refuse_cut_patches(shape: tuple[int, ...], patch: int) -> None:
    """Raise `UsageError` where patches do not tile the grid."""
    if any(size % patch for size in shape):
        raise UsageError(
            f"patch={patch} does not divide the grid {'x'.join(map(str, shape))}. "
            "Choose a divisor of every axis."
        )


def refuse_other_grid(x: Tensor, spec: NetworkSpec) -> None:
    """Raise `ValueError` where x is not (B, in_channels, *S) with as many axes as the spec's."""
    if x.ndim != len(spec.shape) + 2 or x.shape[1] != spec.in_channels:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; this network takes (B, {spec.in_channels}, "
            f"{', '.join(['I', 'J', 'K'][: len(spec.shape)])})."
        )


class InputSkip(nn.Module):
    """``output + gain(embedding) * x``, one gain a channel; nothing at init.

    A narrow last convolution cannot pass on white noise in many channels, so a denoiser of stacked
    slices fails at what should be trivial. This is the way around it.

    Parameters
    ----------
    spec : the first ``out_channels`` of the input are the noised item.
    embedding_size : length of the embedding, for the best gain depends on the noise level.
    """

    def __init__(self, spec: NetworkSpec, embedding_size: int) -> None:
        super().__init__()
        if spec.in_channels < spec.out_channels:
            raise UsageError(
                f"input_skip adds the noised item to the output; this network reads "
                f"{spec.in_channels} channels and writes {spec.out_channels}. Set it to false."
            )
        self.gain = zero_init(nn.Linear(embedding_size, spec.out_channels))

    def forward(self, output: Tensor, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C_out, *S), (B, C_in, *S) and (B, E) -> (B, C_out, *S)."""
        return output + over_space(self.gain(embedding), x) * x[:, : output.shape[1]]


@dataclass(frozen=True, kw_only=True)
class UNetConfig(BackboneConfig):
    """Settings of `UNet`: those of its backbone and what lies around it.

    Parameters
    ----------
    input_skip : add the noised item to the output, with a learned gain for each channel and noise
        level; for items with more channels than half of the first width (stacks).
    """

    input_skip: bool = False


@NETWORKS.register("unet", UNetConfig)
class UNet(nn.Module):
    """U-Net of guided diffusion (ADM): a denoiser with noise level, condition and position."""

    def __init__(self, config: UNetConfig, spec: NetworkSpec) -> None:
        super().__init__()
        refuse_cut_patches(spec.shape, config.patch)
        self.spec = spec
        dims, base = len(spec.shape), config.widths[0]
        self.embedding = NoiseEmbedding(
            base, spec.condition_size, spec.position_size, config.position
        )
        self.encoder = Encoder(dims, spec.in_channels, self.embedding.width, config)
        skip_widths, width = list(self.encoder.skip_widths), self.encoder.out_width
        self.levels = nn.ModuleList()
        for level in reversed(range(len(config.widths))):
            taken = [skip_widths.pop() for _ in range(config.num_res_blocks + 1)]
            self.levels.append(
                DecoderLevel(dims, width, taken, self.embedding.width, config, level)
            )
            width = config.widths[level]
        self.norm = NormSiLU(base, config.norm_groups)
        self.patch = config.patch
        self.out = zero_init(conv(dims, base, spec.out_channels * config.patch**dims))
        self.input_skip = InputSkip(spec, self.embedding.width) if config.input_skip else None

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
        x : (B, C_in, *S).
        noise_level : (B,), about the unit range, see `timestep_embedding`.
        condition : (B, D), D may be 0.
        position : (B, P) in [-1, 1], or None where the network was made for none.

        Returns
        -------
        Tensor
            (B, C_out, *S); zero at init.
        """
        refuse_other_grid(x, self.spec)
        embedding = silu(self.embedding(noise_level, condition, position))
        h, skips = self.encoder(x, embedding)
        for level in self.levels:
            h = level(h, embedding, skips)
        h = self.norm.then(SAME, self.out.weight, self.out.bias, h)
        output = depth_to_space(h, self.patch)
        return output if self.input_skip is None else self.input_skip(output, x, embedding)


@dataclass(frozen=True, kw_only=True)
class UNetEncoderConfig(BackboneConfig):
    """Settings of `UNetEncoder`: those of its backbone and how the grid becomes a vector.

    Parameters
    ----------
    pool : ``attention`` of the mean voxel to all voxels, or the ``mean``.
    """

    pool: Literal["attention", "mean"] = "attention"


@NETWORKS.register("unet_encoder", UNetEncoderConfig)
class UNetEncoder(nn.Module):
    """Encoder half of the U-Net: a vector (B, latent_size) from noised items."""

    def __init__(self, config: UNetEncoderConfig, spec: NetworkSpec) -> None:
        super().__init__()
        refuse_cut_patches(spec.shape, config.patch)
        self.spec = spec
        dims = len(spec.shape)
        self.embedding = NoiseEmbedding(
            config.widths[0], spec.condition_size, spec.position_size, config.position
        )
        self.encoder = Encoder(dims, spec.in_channels, self.embedding.width, config)
        width = self.encoder.out_width
        self.norm = NormSiLU(width, config.norm_groups)
        pools: dict[str, Callable[[], nn.Module]] = {
            "attention": lambda: AttentionPool(width, spec.latent_size, config.channels_per_head),
            "mean": lambda: MeanPool(width, spec.latent_size),
        }
        self.pool = pools[config.pool]()

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Tensor,
        position: Tensor | None = None,
    ) -> Tensor:
        """Return (B, latent_size); inputs as `UNet.forward`."""
        refuse_other_grid(x, self.spec)
        embedding = silu(self.embedding(noise_level, condition, position))
        h, _ = self.encoder(x, embedding)
        return self.pool(self.norm(h))
