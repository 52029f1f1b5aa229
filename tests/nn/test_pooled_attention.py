from __future__ import annotations

import pytest
import torch

from gyri.nn import pooled_attention
from gyri.nn.pooled_attention import PooledAttention


def build(spectral: bool = False) -> PooledAttention:
    torch.manual_seed(0)
    return PooledAttention(16, spectral)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5)])
def test_it_starts_as_the_identity_and_its_rows_sum_to_one(shape: tuple[int, ...]) -> None:
    layer = build()
    x = torch.randn(2, 16, *shape)
    assert torch.equal(layer(x), x)
    weights, value = layer.attention(x)
    voxels = x[0, 0].numel()
    pooled = 2 * 3 * (3 if len(shape) == 3 else 1)
    assert weights.shape == (2, voxels, pooled)
    assert value.shape == (2, 8, pooled)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, voxels))
    torch.nn.init.ones_(layer.gamma)
    assert not torch.allclose(layer(x), x)


def test_without_pooling_it_does_not_know_where_voxels_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(pooled_attention.POOL, 2, lambda x, *_, **__: x)
    layer = build()
    torch.nn.init.ones_(layer.gamma)
    x = torch.randn(2, 16, 4, 6)
    order = torch.randperm(24)
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    expected = layer(x).flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(layer(shuffled), expected, rtol=1e-4, atol=1e-5)


def test_spectral_projections_do_not_grow_with_their_weights() -> None:
    layer = build(spectral=True)
    torch.nn.init.ones_(layer.gamma)
    x = torch.randn(2, 16, 4, 6)
    before = layer(x)
    with torch.no_grad():
        for weight in (layer.query, layer.key, layer.value, layer.out):
            weight.mul_(5.0)
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-5)


def test_second_derivatives() -> None:
    layer = build(spectral=True).double()
    torch.nn.init.ones_(layer.gamma)
    x = torch.randn(1, 16, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))
