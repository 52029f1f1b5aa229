"""Attention agrees with its formula and does not care where a voxel lies."""

from __future__ import annotations

import math

import pytest
import torch

from gyri.nn.attention import AttentionPool, MeanPool, SelfAttention, num_heads


@pytest.mark.parametrize(
    ("channels", "per_head", "heads"), [(96, 32, 3), (96, 64, 1), (64, 128, 1), (160, 32, 5)]
)
def test_heads_divide_the_width(channels: int, per_head: int, heads: int) -> None:
    assert num_heads(channels, per_head) == heads


def perturbed(attention: SelfAttention) -> SelfAttention:
    torch.nn.init.normal_(attention.out.weight)
    return attention


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 2)])
def test_identity_at_init(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 8, *shape)
    assert torch.equal(SelfAttention(8, 4, 4)(x), x)


def test_formula() -> None:
    torch.manual_seed(0)
    attention = perturbed(SelfAttention(8, 4, 4)).double()
    x = torch.randn(2, 8, 3, 2, 2, dtype=torch.double)
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    query, key, value = attention.query_key_value(tokens).chunk(3, dim=2)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        q, k, v = query[..., part], key[..., part], value[..., part]
        heads.append((q @ k.transpose(1, 2) / math.sqrt(4)).softmax(2) @ v)
    mixed = attention.out(torch.cat(heads, 2)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(attention(x), x + mixed)


def test_permuting_voxels_permutes_the_result() -> None:
    torch.manual_seed(0)
    attention = perturbed(SelfAttention(8, 4, 4))
    x = torch.randn(1, 8, 10, 1)
    order = torch.randperm(10)
    torch.testing.assert_close(attention(x)[:, :, order], attention(x[:, :, order]))


@pytest.mark.parametrize("pool", [AttentionPool(8, 5, 4), MeanPool(8, 5)])
def test_pools_ignore_the_order_of_voxels(pool: torch.nn.Module) -> None:
    x = torch.randn(2, 8, 10, 1)
    assert pool(x).shape == (2, 5)
    torch.testing.assert_close(pool(x[:, :, torch.randperm(10)]), pool(x), atol=1e-5, rtol=1e-4)
