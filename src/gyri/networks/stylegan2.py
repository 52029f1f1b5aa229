"""StyleGAN2's generator for slices and volumes: a mapping to w, and a synthesis styled by w.

Karras et al., 2020, arXiv:1912.04958; the conditional mapping of arXiv:2006.06676; AdaIN of Karras
et al., 2019, arXiv:1812.04948; volumes after Hong et al., 2021, arXiv:2107.09700 (3D-StyleGAN),
with the gains of three axes. Written from the papers' facts. Items may have any shape whose axes
can be halved; the learned constant has the shape of the smallest grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gyri.capabilities import StyleStage
from gyri.errors import UsageError
from gyri.nn.equalised import EqualConv, GridChange
from gyri.nn.layers import memory_format, runner
from gyri.nn.mapping import Mapping
from gyri.nn.modulated import AdaptiveConv, ModulatedConv, StyledConv
from gyri.nn.pooled_attention import PooledAttention
from gyri.nn.spatial_modulation import SpatialModulation
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SMALLEST_SIDE = 4
CHANNEL_BASE = {2: 16384, 3: 2048}
CHANNEL_MAX = {2: 512, 3: 128}


@dataclass(frozen=True, kw_only=True)
class StyleGAN2GeneratorConfig:
    """Settings of `StyleGAN2Generator`; the defaults are StyleGAN2's at 256 pixels, in 2D.

    Parameters
    ----------
    widths : channels of each stage, from the smallest grid up; one doubling between two stages.
        Empty for `default_widths` of the item's shape.
    w_size : length of w and of the mapping's layers.
    mapping_layers, mapping_lr : of the mapping network, and by how much it learns slower.
    style : ``modulation`` of the weights (StyleGAN2) or ``adain`` (StyleGAN).
    form : ``skip`` sums the images of all stages, ``residual`` has a way around every stage,
        ``plain`` neither (3D-StyleGAN).
    upsampling : ``filtered`` by [1, 3, 3, 1], or ``transposed`` convolutions of kernel 4.
    noise : whether every convolution adds noise.
    attention : stages, counted from 0 at the smallest grid, that end in self-attention.
    gradient_checkpointing : keep only the stages' inputs for the backward pass.
    channels_last : memory format of all activations.
    """

    widths: tuple[int, ...] = ()
    w_size: int = 512
    mapping_layers: int = 8
    mapping_lr: float = 0.01
    style: Literal["modulation", "adain"] = "modulation"
    form: Literal["skip", "residual", "plain"] = "skip"
    upsampling: Literal["filtered", "transposed"] = "filtered"
    noise: bool = True
    attention: tuple[int, ...] = ()
    gradient_checkpointing: bool = False
    channels_last: bool = True


def default_widths(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return widths that fall with the grid's mean side, for as many halvings as `shape` allows.

    In 2D StyleGAN2's ``min(16384 / side, 512)``, in 3D ``min(2048 / side, 128)``, which at 128
    voxels leaves the 16 channels of 3D-StyleGAN.
    """
    halvings = 0
    while all(
        size % 2 ** (halvings + 1) == 0 and size // 2 ** (halvings + 1) >= SMALLEST_SIDE
        for size in shape
    ):
        halvings += 1
    if not halvings:
        raise UsageError(
            f"Items of shape {shape} cannot be halved with {SMALLEST_SIDE} voxels left along every "
            "axis, as StyleGAN2's networks do. Prepare a grid whose axes are even numbers, best "
            "multiples of 8 or 16 (step `crop`), or take another network."
        )
    dims, side = len(shape), math.prod(shape) ** (1 / len(shape))
    return tuple(
        min(max(round(CHANNEL_BASE[dims] / side * 2**k), 1), CHANNEL_MAX[dims])
        for k in range(halvings, -1, -1)
    )


def grids(shape: tuple[int, ...], stages: int) -> list[tuple[int, ...]]:
    """Return the grid of each stage, the smallest first.

    Raises
    ------
    UsageError
        If an axis cannot be halved that often.
    """
    factor = 2 ** (stages - 1)
    if any(size % factor for size in shape):
        raise UsageError(
            f"Items of shape {shape} cannot be halved {stages - 1} times, as the {stages} widths "
            f"of the StyleGAN2 network ask for: every axis must be a multiple of {factor}. Prepare "
            "another grid, or give fewer widths."
        )
    return [tuple(size * 2**k // factor for size in shape) for k in range(stages)]


def refuse_absent(stages: Sequence[int], count: int, what: str) -> None:
    """Refuse numbers of stages that a network with `count` of them does not have."""
    if wrong := [stage for stage in stages if not 0 <= stage < count]:
        raise UsageError(
            f"{what} names the stages {wrong}; this network has {count}, counted from 0 at the "
            f"smallest grid. Name some of 0 to {count - 1}."
        )


class Stage(nn.Module):
    """The convolutions of one grid: one on the constant, elsewhere two of which the first doubles.

    Parameters
    ----------
    dims : spatial axes.
    in_channels, out_channels : C_in, 0 for the first stage, and C_out.
    attention : whether it ends in self-attention.
    config : see `StyleGAN2GeneratorConfig`.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        attention: bool,
        config: StyleGAN2GeneratorConfig,
    ) -> None:
        super().__init__()
        grid: GridChange = "double" if config.upsampling == "filtered" else "double_transposed"
        layer = partial(
            StyledConv if config.style == "modulation" else AdaptiveConv,
            dims,
            w_size=config.w_size,
            noise=config.noise,
        )
        layers: list[nn.Module] = []
        if in_channels:
            layers.append(layer(in_channels, out_channels, grid=grid))
        layers.append(layer(out_channels, out_channels))
        self.layers = nn.ModuleList(layers)
        self.around: EqualConv | None = None
        if in_channels and config.form == "residual":
            self.around = EqualConv(
                dims, in_channels, out_channels, kernel=1, grid="double", bias=False
            )
        self.attention = PooledAttention(out_channels) if attention else None

    def forward(self, x: Tensor, w: Tensor, *noise: Tensor) -> Tensor:
        """(B, C_in, *S), (B, layers, w_size) and maps (B or 1, 1, *S') -> (B, C_out, *S')."""
        around = self.around
        y = x
        for number, layer in enumerate(self.layers):
            last = around is not None and number == len(self.layers) - 1
            own = noise[number] if noise else None
            y = layer(y, w[:, number], own, math.sqrt(0.5) if last else 1.0)
        if around is not None:
            y = y + around(x) * math.sqrt(0.5)
        return y if self.attention is None else self.attention(y)


class ToImage(nn.Module):
    """1x1 modulated convolution to image channels, without demodulation."""

    def __init__(self, dims: int, channels: int, out_channels: int, w_size: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(dims, channels, out_channels, w_size, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, C, *S) and (B, w_size) -> (B, C_image, *S)."""
        return self.conv(x, w) + self.bias.reshape(-1, *[1] * (x.ndim - 2))


@NETWORKS.register("stylegan2_generator", StyleGAN2GeneratorConfig)
class StyleGAN2Generator(nn.Module):
    """StyleGAN2's generator: z is mapped to w, and w styles every convolution.

    Attributes
    ----------
    num_layers : styles that an item has: one a convolution and one for the image. Its last stages
        are the finest; a stage's image is made with the style of the next stage's first layer.
    noise_size : length of all noise maps of an item, one after the other.
    w_average : (w_size,) running mean of w, the centre of truncation; moved by the method.
    """

    w_average: Tensor
    constant_noise: Tensor

    def __init__(self, config: StyleGAN2GeneratorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, size = len(spec.shape), config.w_size
        widths = config.widths or default_widths(spec.shape)
        self.grids = grids(spec.shape, len(widths))
        refuse_absent(config.attention, len(widths), "attention")
        self.memory_format = memory_format(dims, config.channels_last)
        self.mapping = Mapping(
            spec.latent_size,
            spec.condition_size,
            spec.position_size,
            size,
            config.mapping_layers,
            config.mapping_lr,
        )
        self.constant = nn.Parameter(torch.randn(widths[0], *self.grids[0]))
        self.stages = nn.ModuleList(
            Stage(dims, before, width, number in config.attention, config)
            for number, (before, width) in enumerate(pairwise([0, *widths]))
        )
        imaged = range(len(widths)) if config.form == "skip" else [len(widths) - 1]
        self.to_image = nn.ModuleDict(
            {str(n): ToImage(dims, widths[n], spec.out_channels, size) for n in imaged}
        )
        self.given: nn.ModuleList | None = None
        if spec.context_channels:
            self.given = nn.ModuleList(
                SpatialModulation(dims, width, spec.context_channels) for width in widths
            )
        self.num_layers = 2 * len(widths)
        self.noise_grids = [
            grid for n, grid in enumerate(self.grids) for _ in range(2 if n else 1) if config.noise
        ]
        self.noise_size = sum(math.prod(grid) for grid in self.noise_grids)
        self.register_buffer("w_average", torch.zeros(size))
        self.register_buffer("constant_noise", torch.randn(1, self.noise_size))
        self.run = runner(config.gradient_checkpointing)

    def map(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return w (B, w_size) of z (B, Z), conditions (B, D) and positions (B, P) or None."""
        return self.mapping(z, condition, position)

    def style_stages(self) -> tuple[StyleStage, ...]:
        """Return the stages with their grids and first layers, the smallest grid first."""
        return tuple(
            StyleStage(grid, max(2 * number - 1, 0), stage)
            for number, (grid, stage) in enumerate(zip(self.grids, self.stages))
        )

    def synthesise(
        self, w: Tensor, noise: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Return items (B, C, *S).

        Parameters
        ----------
        w : (B, w_size) for all layers, or (B, num_layers, w_size) for each its own.
        noise : (B, noise_size) standard normal; zeros for none. Without, the same constant maps,
            drawn when the network was made, for every item.
        context : (B, C', *S) images that items follow, where the network was made for some.
        """
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.num_layers, -1)
        maps = self._maps(self.constant_noise if noise is None else noise)
        x = self.constant.expand(len(w), *self.constant.shape)
        x = x.to(memory_format=self.memory_format)
        image: Tensor | None = None
        first = 0
        for number, stage in enumerate(self.stages):
            last = first + (2 if number else 1)
            x = self.run(stage, x, w[:, first:last], *maps[first:last])
            if self.given is not None:
                x = self.given[number](x, context)
            if image is not None:
                # Linear interpolation is the filter [1, 3, 3, 1], its gain the number of axes'.
                mode = "bilinear" if x.ndim == 4 else "trilinear"
                image = interpolate(image, scale_factor=2, mode=mode, align_corners=False)
            if str(number) in self.to_image:
                own = self.to_image[str(number)](x, w[:, last])
                image = own if image is None else image + own
            first = last
        assert image is not None
        return image

    def _maps(self, noise: Tensor) -> list[Tensor]:
        """Cut noise (B, noise_size) into the maps (B, 1, *S) of the convolutions."""
        parts = noise.split([math.prod(grid) for grid in self.noise_grids], dim=1)
        return [part.reshape(-1, 1, *grid) for part, grid in zip(parts, self.noise_grids)]

    def forward(
        self,
        z: Tensor,
        condition: Tensor,
        position: Tensor | None = None,
        noise: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Return items.

        Parameters
        ----------
        z : (B, Z) standard normal.
        condition : (B, D), D may be 0.
        position : (B, P), or None where the network was made for none.
        noise, context : see `synthesise`.

        Returns
        -------
        Tensor
            (B, C, *S), not bounded.
        """
        return self.synthesise(self.map(z, condition, position), noise, context)
