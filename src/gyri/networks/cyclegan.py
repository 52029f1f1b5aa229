"""CycleGAN's generator and discriminator, for slices and volumes.

Zhu et al., 2017, arXiv:1703.10593, appendix 7.2: the residual generator of Johnson et al., 2016,
arXiv:1603.08155, and the PatchGAN discriminator of Isola et al., 2017, arXiv:1611.07004. Written
from the papers' facts. Instance norms (Ulyanov et al., 2016, arXiv:1607.08022) have no weights and
no running statistics: an item is normalised by itself alone, in training as in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from gyri.errors import UsageError
from gyri.nn.embedding import ConditionEmbedding, PositionKind
from gyri.nn.layers import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, over_space, runner, zero_init
from gyri.registry import NETWORKS
from gyri.types import NetworkSpec

SLOPE = 0.2
INIT_STD = 0.02
HALVED_TO = 4
"""The generator halves twice: its inputs are padded to a multiple of this."""
PATCH_KERNEL = 4


@dataclass(frozen=True, kw_only=True)
class ResnetGeneratorConfig:
    """Settings of `ResnetGenerator`; the defaults are the published ones.

    Parameters
    ----------
    width : channels at full resolution; twice and four times that where it is halved.
    num_blocks : residual blocks at a quarter of the resolution. Published: 9 for 256 x 256
        pixels and more, 6 for 128 x 128.
    position : tell the network where an item lies, as ``fourier`` features or as the ``raw``
        numbers; None, as published, does not.
    residual : write the difference from the input, kept in [-1, 1], instead of the output. The
        network then starts as the identity, and what it need not change it keeps: anatomy,
        where scanners are to be harmonised. Not in the publication, whose weights of cycle and
        identity can hold it there: lower them.
    gradient_checkpointing : keep only the blocks' inputs for the backward pass.
    """

    width: int = 64
    num_blocks: int = 9
    position: PositionKind | None = None
    residual: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig:
    """Settings of `PatchDiscriminator`; the default judges patches of 70 pixels, as published.

    Parameters
    ----------
    widths : channels of each convolution but the last; all but the last of these halve the
        grid. Fewer judge smaller patches: three widths 34 pixels, two 16.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self) -> None:
        if not self.widths:
            raise UsageError("widths is empty; give the discriminator at least one.")


def draw_weights(network: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 0.02^2) and set their biases to zero."""
    kinds = (*CONVOLUTIONS.values(), *TRANSPOSED_CONVOLUTIONS.values())
    for module in network.modules():
        if isinstance(module, kinds):
            weight, bias = module.weight, module.bias
            assert isinstance(weight, Tensor)
            assert isinstance(bias, Tensor)
            nn.init.normal_(weight, std=INIT_STD)
            nn.init.zeros_(bias)


def reflect_conv(dims: int, in_channels: int, out_channels: int, kernel: int) -> nn.Module:
    """Return a convolution that keeps the grid, mirrored at its border."""
    return CONVOLUTIONS[dims](
        in_channels, out_channels, kernel, padding=kernel // 2, padding_mode="reflect"
    )


def padded_to_multiple(x: Tensor, factor: int) -> Tensor:
    """Mirror the ends of (B, C, *S) until every axis is a multiple of `factor`.

    Crop with ``x[..., :size]`` along every axis to undo it.
    """
    short = [-size % factor for size in x.shape[2:]]
    if not any(short):
        return x
    return functional.pad(x, [n for size in reversed(short) for n in (0, size)], mode="reflect")


class InstanceNorm(nn.Module):
    """Every channel of every item to mean 0 and variance 1; nothing is learned or remembered."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)."""
        return functional.instance_norm(x)


class ResidualBlock(nn.Module):
    """``x + norm(conv(relu(norm(conv(x)))))``; nothing follows the sum.

    Parameters
    ----------
    dims : spatial axes.
    width : C of x (B, C, *S).
    """

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            reflect_conv(dims, width, width, 3),
            InstanceNorm(),
            nn.ReLU(),
            reflect_conv(dims, width, width, 3),
            InstanceNorm(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)."""
        return x + self.layers(x)


@NETWORKS.register("resnet_generator", ResnetGeneratorConfig)
class ResnetGenerator(nn.Module):
    """CycleGAN's generator: items to items in (-1, 1), of any size from 8 voxels an axis on.

    Sizes that two halvings do not divide are mirrored at their ends and cropped back.
    """

    def __init__(self, config: ResnetGeneratorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, width = len(spec.shape), config.width
        if small := [size for size in spec.shape if size < 2 * HALVED_TO]:
            raise UsageError(
                f"Items of shape {spec.shape} have an axis of {min(small)} voxels; the ResNet "
                f"generator halves twice and needs {2 * HALVED_TO}. Prepare a finer grid, or take "
                "another view."
            )
        self.stem = nn.Sequential(
            reflect_conv(dims, spec.in_channels, width, 7), InstanceNorm(), nn.ReLU()
        )
        down: list[nn.Module] = []
        for inner, outer in pairwise((width, 2 * width, 4 * width)):
            down += [nn.ReLU()] if down else []
            down += [CONVOLUTIONS[dims](inner, outer, 3, stride=2, padding=1), InstanceNorm()]
        self.down = nn.Sequential(*down)
        self.of_position: ConditionEmbedding | None = None
        if config.position is not None and spec.position_size:
            self.of_position = ConditionEmbedding(0, spec.position_size, 4 * width, config.position)
        self.blocks = nn.ModuleList(
            [ResidualBlock(dims, 4 * width) for _ in range(config.num_blocks)]
        )
        up: list[nn.Module] = []
        for inner, outer in pairwise((4 * width, 2 * width, width)):
            up += [
                TRANSPOSED_CONVOLUTIONS[dims](
                    inner, outer, 3, stride=2, padding=1, output_padding=1
                ),
                InstanceNorm(),
                nn.ReLU(),
            ]
        self.up = nn.Sequential(*up)
        self.out = reflect_conv(dims, width, spec.out_channels, 7)
        self.residual = config.residual
        self.run = runner(config.gradient_checkpointing)
        draw_weights(self)
        if config.residual:
            zero_init(self.out)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Return translated items.

        Parameters
        ----------
        x : (B, C, *S) in [-1, 1].
        position : (B, P); read only where the config says so.

        Returns
        -------
        Tensor
            (B, C, *S) in [-1, 1].
        """
        h = self.down(self.stem(padded_to_multiple(x, HALVED_TO)))
        if self.of_position is not None:
            # Between norm and ReLU: a shift of whole channels anywhere before a norm is lost in it.
            bias = self.of_position(h.new_zeros(len(h), 0), position)
            h = h + over_space(bias, h)
        h = functional.relu(h)
        for block in self.blocks:
            h = self.run(block, h)
        y = self.out(self.up(h)).tanh()
        y = y[(..., *(slice(size) for size in x.shape[2:]))]
        return (x + y).clamp(-1, 1) if self.residual else y


@NETWORKS.register("patch_discriminator", PatchDiscriminatorConfig)
class PatchDiscriminator(nn.Module):
    """PatchGAN: one number for every overlapping patch of an item, higher for real ones."""

    def __init__(self, config: PatchDiscriminatorConfig, spec: NetworkSpec) -> None:
        super().__init__()
        dims, last = len(spec.shape), len(config.widths) - 1
        strides = [2 if place < last else 1 for place in range(len(config.widths))] + [1]
        widths = (spec.in_channels, *config.widths, 1)
        self._refuse_small(spec.shape, strides)
        layers: list[nn.Module] = []
        for place, ((inner, outer), stride) in enumerate(zip(pairwise(widths), strides)):
            layers.append(CONVOLUTIONS[dims](inner, outer, PATCH_KERNEL, stride=stride, padding=1))
            if place <= last:
                layers += [InstanceNorm()] if place else []
                layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers)
        draw_weights(self)

    @staticmethod
    def _refuse_small(shape: tuple[int, ...], strides: list[int]) -> None:
        sizes = list(shape)
        for stride in strides:
            sizes = [(size + 2 - PATCH_KERNEL) // stride + 1 for size in sizes]
        if min(sizes) < 1:
            raise UsageError(
                f"Items of shape {shape} are smaller than what the patch discriminator's "
                f"{len(strides) - 1} widths halve away. Give it fewer `widths`, or prepare a "
                "finer grid."
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, 1, *patches)."""
        return self.layers(x)
