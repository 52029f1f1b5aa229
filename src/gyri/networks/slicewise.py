"""What U-Nets share that fold the slices of a volume, or of a set, into the batch.

All convolutions and normalisations are those of one slice. Attention of the network's own kind, at
the end of every level and in the middle, is all that slices see of each other.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from gyri.networks.unet import DOWN, UP, BackboneConfig, ResBlock
from gyri.nn.attention import split_heads
from gyri.nn.layers import group_norm, pointwise, runner, zero_init

MIDDLE = -1
"""Level of the middle, whose width is that of the last."""

MakeAttention = Callable[[int, int], nn.Module]
"""``attention(width, level)``, a module ``x, *seen -> x`` of slices x (N, width, *S)."""


class SliceAttention(nn.Module):
    """What attention within slices and between them shares; the identity at init.

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


class SliceLevel(nn.Module):
    """Residual blocks of one size of slices, then attention; the same on both ways."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        embedding_size: int,
        config: BackboneConfig,
        attention: MakeAttention,
        level: int,
    ) -> None:
        super().__init__()
        before = [in_channels, *[width] * (config.num_res_blocks - 1)]
        self.blocks = nn.ModuleList(
            ResBlock(2, channels, width, embedding_size, config) for channels in before
        )
        self.attention = attention(width, level)
        self.run = runner(config.gradient_checkpointing)

    def forward(self, embedding: Tensor, seen: tuple[Tensor | None, ...], *x: Tensor) -> Tensor:
        """Embedding (N, E), what attention reads, parts of x (N, C_in, *S) -> (N, width, *S)."""
        for block in self.blocks:
            x = (self.run(block, embedding, *x),)
        return self.attention(*x, *seen)


class SliceMiddle(nn.Module):
    """Two residual blocks around attention."""

    def __init__(
        self, width: int, embedding_size: int, config: BackboneConfig, attention: MakeAttention
    ) -> None:
        super().__init__()
        self.before, self.after = (
            ResBlock(2, width, width, embedding_size, config) for _ in range(2)
        )
        self.attention = attention(width, MIDDLE)
        self.run = runner(config.gradient_checkpointing)

    def forward(self, embedding: Tensor, seen: tuple[Tensor | None, ...], x: Tensor) -> Tensor:
        """See `SliceLevel`; (N, C, *S) -> (N, C, *S)."""
        x = self.attention(self.run(self.before, embedding, x), *seen)
        return self.run(self.after, embedding, x)


class SliceTrunk(nn.Module):
    """The way down, the middle and the way up; slices are halved, what they lie in is not.

    Parameters
    ----------
    embedding_size : length of the embedding.
    config : of all levels.
    attention : makes that of a level on the way down and once more on the way up, and that of the
        middle.
    """

    def __init__(
        self, embedding_size: int, config: BackboneConfig, attention: MakeAttention
    ) -> None:
        super().__init__()
        widths, size = config.widths, embedding_size
        above = [widths[0], *widths[:-1]]
        self.run = runner(config.gradient_checkpointing)
        self.down = nn.ModuleList(
            SliceLevel(above[level], width, size, config, attention, level)
            for level, width in enumerate(widths)
        )
        halve, double = DOWN[config.resblock_updown], UP[config.resblock_updown]
        self.halvings = nn.ModuleList(halve(2, width, size, config) for width in widths[:-1])
        self.middle = SliceMiddle(widths[-1], size, config, attention)
        self.up = nn.ModuleList(
            SliceLevel(2 * widths[level], above[level], size, config, attention, level)
            for level in reversed(range(len(widths)))
        )
        self.doublings = nn.ModuleList(
            double(2, width, size, config) for width in reversed(widths[:-1])
        )

    def forward(self, h: Tensor, embedding: Tensor, *seen: Tensor | None) -> Tensor:
        """(N, widths[0], *S), (N, E) and what attention reads beside slices -> shaped as `h`."""
        skips = []
        for level, block in enumerate(self.down):
            if level > 0:
                h = self.run(self.halvings[level - 1], embedding, h)
            h = block(embedding, seen, h)
            skips.append(h)
        h = self.middle(embedding, seen, h)
        for level, block in enumerate(self.up):
            if level > 0:
                h = self.run(self.doublings[level - 1], embedding, h, skips[-1].shape[2:])
            h = block(embedding, seen, h, skips.pop())
        return h
