"""StyleGAN2's discriminator for slices and volumes.

Karras et al., 2020, arXiv:1912.04958; projection on a mapped label of arXiv:2006.06676; minibatch
standard deviation of Karras et al., 2018, arXiv:1710.10196, whose networks the form ``plain`` is,
without growing. Attention of SAGAN (arXiv:1805.08318) and quantised features of FQ-GAN
(arXiv:2004.02088) may be switched on. Written from the papers' facts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gyri.networks.stylegan2 import default_widths, grids, refuse_absent
from gyri.nn.equalised import EqualConv, EqualLinear, activate
from gyri.nn.layers import largest_divisor, memory_format, runner
from gyri.nn.mapping import Mapping
from gyri.nn.pooled_attention import PooledAttention
from gyri.nn.quantise import Quantised, Quantiser
from gyri.nn.resample import SmoothDownsample
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

ITEMS_AT_ONCE = 4
"""Of which features are taken for the first codes; bounds memory."""


@dataclass(frozen=True, kw_only=True)
class QuantiseConfig:
    """Feature quantisation; the defaults are FQ-GAN's for StyleGAN2.

    Parameters
    ----------
    stages : whose features, counted from 0 at the smallest grid: 1 and 2 are 8 and 16 pixels.
    num_codes : of each stage's codebook.
    decay : weight of the past in the codes' moving averages.
    feed : ``commitment`` passes the features on as they are, a penalty alone draws them to the
        codes: what the published code does. ``straight_through`` passes the codes on: what the
        paper describes.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    stages: tuple[int, ...] = (1, 2)
    num_codes: int = 128
    decay: float = 0.8
    feed: Literal["commitment", "straight_through"] = "commitment"


@dataclass(frozen=True, kw_only=True)
class StyleGAN2DiscriminatorConfig:
    """Settings of `StyleGAN2Discriminator`; the defaults are StyleGAN2's at 256 pixels, in 2D.

    Parameters
    ----------
    widths : channels of each stage, from the smallest grid up. Empty for
        `gyri.networks.stylegan2.default_widths` of the item's shape.
    form : ``residual`` has a way around every stage, ``skip`` shows every stage the image on its
        grid, ``plain`` neither (ProGAN, StyleGAN).
    stddev_group : items whose standard deviation is told to the network, 1 for none; neighbours
        in the batch, which must stay in one micro-batch.
    mapping_layers, mapping_lr : of the network that maps condition and position.
    attention : stages, counted from 0 at the smallest grid, that begin with self-attention.
    feature_quantisation : codebooks, see `QuantiseConfig`; none by default.
    gradient_checkpointing : keep only the stages' inputs for the backward pass.
    channels_last : memory format of all activations.
    """

    widths: tuple[int, ...] = ()
    form: Literal["residual", "skip", "plain"] = "residual"
    stddev_group: int = 4
    mapping_layers: int = 8
    mapping_lr: float = 0.01
    attention: tuple[int, ...] = ()
    feature_quantisation: QuantiseConfig | None = None
    gradient_checkpointing: bool = False
    channels_last: bool = True


class Judgement(NamedTuple):
    """What a discriminator says, and what its codebooks saw.

    Parameters
    ----------
    logits : (B,), higher for real items.
    commitment : (B,) distance of the features to their codes, summed over stages; 0 without.
    codes : name of a stage -> its `Quantised`.
    """

    logits: Tensor
    commitment: Tensor
    codes: dict[str, Quantised]


def with_deviation(x: Tensor, group: int) -> Tensor:
    """Append a channel that holds the standard deviation within each group of neighbours.

    The deviation of every feature over the items of a group, averaged over features and voxels.

    Parameters
    ----------
    x : (B, C, *S).
    group : items in a group; the next smaller number that divides B.
    """
    members = x.unflatten(0, (-1, largest_divisor(len(x), group)))
    deviation = (members.var(1, unbiased=False) + 1e-8).sqrt().flatten(1).mean(1)
    per_item = deviation.repeat_interleave(members.shape[1])
    channel = per_item.reshape(-1, *[1] * (x.ndim - 1)).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class DownStage(nn.Module):
    """Two convolutions, the second to half the grid, and a way around where `residual`."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, residual: bool) -> None:
        super().__init__()
        self.conv = EqualConv(dims, in_channels, in_channels)
        self.down = EqualConv(dims, in_channels, out_channels, grid="half")
        self.around: EqualConv | None = None
        if residual:
            self.around = EqualConv(
                dims, in_channels, out_channels, kernel=1, grid="half", bias=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *S) -> (B, C_out, *S / 2)."""
        h = activate(self.conv(x))
        if self.around is None:
            return activate(self.down(h))
        return activate(self.down(h), math.sqrt(0.5)) + self.around(x) * math.sqrt(0.5)


@NETWORKS.register("stylegan2_discriminator", StyleGAN2DiscriminatorConfig)
class StyleGAN2Discriminator(nn.Module):
    """StyleGAN2's discriminator, conditioned by projection on the mapped label.

    Attributes
    ----------
    group : items whose logits depend on each other.
    """

    def __init__(self, config: StyleGAN2DiscriminatorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, widths = len(spec.shape), config.widths or default_widths(spec.shape)
        base = grids(spec.shape, len(widths))[0]
        top = len(widths) - 1
        self.group = max(config.stddev_group, 1)
        self.memory_format = memory_format(dims, config.channels_last)
        refuse_absent(config.attention, len(widths), "attention")
        imaged = range(top + 1) if config.form == "skip" else [top]
        seen = spec.in_channels + spec.context_channels
        self.from_image = nn.ModuleDict(
            {str(n): EqualConv(dims, seen, widths[n], kernel=1) for n in imaged}
        )
        self.halve_image = SmoothDownsample(dims)
        residual = config.form == "residual"
        self.down = nn.ModuleDict(
            {str(n): DownStage(dims, widths[n], widths[n - 1], residual) for n in range(top, 0, -1)}
        )
        self.attention = nn.ModuleDict(
            {str(n): PooledAttention(widths[n], spectral=True) for n in config.attention}
        )
        self.codebooks = nn.ModuleDict(_codebooks(config.feature_quantisation, widths))
        width, extra = widths[0], int(self.group > 1)
        self.conv = EqualConv(dims, width + extra, width)
        self.collect = EqualLinear(width * math.prod(base), width)
        self.label: Mapping | None = None
        if spec.condition_size + spec.position_size:
            self.label = Mapping(
                0,
                spec.condition_size,
                spec.position_size,
                width,
                config.mapping_layers,
                config.mapping_lr,
            )
        self.out = EqualLinear(width, 1 if self.label is None else width)
        self.top = top
        self.run = runner(config.gradient_checkpointing)

    def _trunk(self, x: Tensor) -> tuple[Tensor, dict[str, Quantised], dict[str, Tensor]]:
        """Return the smallest grid's features, and of every codebook's stage codes and features."""
        image = x
        h: Tensor | None = None
        codes: dict[str, Quantised] = {}
        features: dict[str, Tensor] = {}
        for number in range(self.top, -1, -1):
            name = str(number)
            if name in self.from_image:
                seen = activate(self.from_image[name](image))
                h = seen.to(memory_format=self.memory_format) if h is None else h + seen
            assert h is not None
            if name in self.codebooks:
                features[name] = h
                codes[name] = self.codebooks[name](h)
                h = codes[name].features
            if name in self.attention:
                h = self.attention[name](h)
            if number:
                h = self.run(self.down[name], h)
                if len(self.from_image) > 1:
                    image = self.halve_image(image)
        assert h is not None
        return h, codes, features

    def judge(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Judgement:
        """Return logits with what the codebooks saw; see `forward` for the inputs."""
        h, codes, _ = self._trunk(x)
        if self.group > 1:
            h = with_deviation(h, self.group)
        h = activate(self.collect(activate(self.conv(h)).flatten(1)))
        out = self.out(h)
        if self.label is None:
            logits = out[:, 0]
        else:
            logits = (out * self.label(None, condition, position)).sum(1) / math.sqrt(out.shape[1])
        commitment = torch.zeros_like(logits, dtype=torch.float32)
        for quantised in codes.values():
            commitment = commitment + quantised.commitment
        return Judgement(logits, commitment, codes)

    @torch.no_grad()
    def start_codes(self, x: Tensor) -> None:
        """Take the codes from the features of real items (B, C, *S), stage by stage from the top.

        Where codes are passed on, the features of a later stage follow from the earlier codes.
        """
        for name in sorted(self.codebooks, key=int, reverse=True):
            codebook = self.codebooks[name]
            assert isinstance(codebook, Quantiser)
            codebook.start(torch.cat([self._trunk(few)[2][name] for few in x.split(ITEMS_AT_ONCE)]))

    def update_codes(self, name: str, counts: Tensor, sums: Tensor) -> None:
        """Move a stage's codes towards what they saw in a step."""
        codebook = self.codebooks[name]
        assert isinstance(codebook, Quantiser)
        codebook.update(counts, sums)

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return logits, higher for real items.

        Parameters
        ----------
        x : (B, C, *S), behind its channels those of the images that are given.
        condition : (B, D), D may be 0.
        position : (B, P), or None where the network was made for none.

        Returns
        -------
        Tensor
            (B,).
        """
        return self.judge(x, condition, position).logits


def _codebooks(config: QuantiseConfig | None, widths: tuple[int, ...]) -> dict[str, Quantiser]:
    if config is None:
        return {}
    refuse_absent(config.stages, len(widths), "feature_quantisation.stages")
    through = config.feed == "straight_through"
    return {
        str(n): Quantiser(widths[n], config.num_codes, config.decay, through) for n in config.stages
    }
