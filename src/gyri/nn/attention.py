"""Self-attention over all voxels of a grid, and attention pooling.

Dhariwal and Nichol, 2021, arXiv:2105.05233, after Vaswani et al., 2017, arXiv:1706.03762. Torch's
fused attention takes its softmax in float32 whatever the precision of its inputs.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from gyri.nn.layers import group_norm, largest_divisor, pointwise, zero_init


def num_heads(channels: int, channels_per_head: int) -> int:
    """Return how many heads of at least `channels_per_head` channels (or one) fit."""
    return largest_divisor(channels, max(channels // channels_per_head, 1))


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads), a view."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, heads, N, C / heads) -> (B, N, C)."""
    return tokens.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """``x + out(attention(norm(x)))`` over voxels; the identity at init.

    Parameters
    ----------
    channels : C of x (B, C, *S).
    channels_per_head : width of a head; heads are widened where it does not divide `channels`.
    norm_groups : of the group normalisation.
    """

    def __init__(self, channels: int, channels_per_head: int, norm_groups: int) -> None:
        super().__init__()
        self.heads = num_heads(channels, channels_per_head)
        self.norm = group_norm(channels, norm_groups)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)."""
        tokens = (
            pointwise(self.norm(x), self.query_key_value.weight, self.query_key_value.bias)
            .flatten(2)
            .transpose(1, 2)
        )
        query, key, value = (split_heads(part, self.heads) for part in tokens.chunk(3, dim=2))
        mixed = merge_heads(scaled_dot_product_attention(query, key, value))
        mixed = mixed.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + pointwise(mixed, self.out.weight, self.out.bias)


class AttentionPool(nn.Module):
    """One vector from a grid: the mean voxel attends to all voxels.

    Parameters
    ----------
    channels : C of x (B, C, *S).
    out_size : length of the vector.
    channels_per_head : as in `SelfAttention`.
    """

    def __init__(self, channels: int, out_size: int, channels_per_head: int) -> None:
        super().__init__()
        self.heads = num_heads(channels, channels_per_head)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, out_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, out_size)."""
        tokens = x.flatten(2).transpose(1, 2)
        query = split_heads(self.query(tokens.mean(1, keepdim=True)), self.heads)
        key, value = (
            split_heads(part, self.heads) for part in self.key_value(tokens).chunk(2, dim=2)
        )
        return self.out(merge_heads(scaled_dot_product_attention(query, key, value))[:, 0])


class MeanPool(nn.Module):
    """One vector (B, out_size) from a grid: a linear map of the mean voxel."""

    def __init__(self, channels: int, out_size: int) -> None:
        super().__init__()
        self.out = nn.Linear(channels, out_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, out_size)."""
        return self.out(x.flatten(2).mean(2))
