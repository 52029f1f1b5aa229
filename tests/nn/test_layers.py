"""Blocks are the same for slices and volumes, and grids of any size survive them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gyri.nn.layers import (
    CONVOLVE,
    CONVOLVE_TRANSPOSED,
    DOUBLING,
    POINTWISE,
    SAME,
    Convolution,
    average_pool,
    conv,
    depth_to_space,
    group_norm,
    largest_divisor,
    nearest_upsample,
    over_space,
    runner,
    space_to_depth,
    upsample_convolve,
    zero_init,
)


@pytest.mark.parametrize(("dims", "taps"), [(2, 9), (3, 27)])
def test_convolution_keeps_the_grid_and_counts_its_taps(dims: int, taps: int) -> None:
    layer = conv(dims, 4, 6)
    x = torch.randn(2, 4, *[5, 6, 7][:dims])
    assert layer(x).shape == (2, 6, *x.shape[2:])
    assert sum(p.numel() for p in layer.parameters()) == 4 * 6 * taps + 6


@pytest.mark.parametrize("dims", [2, 3])
def test_stride_and_pool_round_up_alike(dims: int) -> None:
    x = torch.randn(1, 2, *[5, 6, 7][:dims])
    expected = tuple(-(-size // 2) for size in x.shape[2:])
    assert conv(dims, 2, 2, stride=2)(x).shape[2:] == expected
    assert average_pool(dims)(x).shape[2:] == expected


def test_pool_averages_what_there_is() -> None:
    x = torch.arange(5.0).reshape(1, 1, 5, 1).expand(1, 1, 5, 2)
    assert average_pool(2)(x).flatten().tolist() == [0.5, 2.5, 4.0]


def test_upsampling_repeats_the_voxels_that_pooling_joined() -> None:
    x = torch.arange(3.0).reshape(1, 1, 3, 1)
    assert nearest_upsample(x, torch.Size([5, 1])).flatten().tolist() == [0, 0, 1, 1, 2]
    pool = average_pool(3)
    pooled = pool(torch.randn(1, 2, 5, 6, 7))
    again = pool(nearest_upsample(pooled, torch.Size([5, 6, 7])))
    torch.testing.assert_close(again, pooled)


@pytest.mark.parametrize(
    ("of", "at_most", "expected"), [(96, 32, 32), (48, 32, 24), (7, 4, 1), (6, 6, 6)]
)
def test_groups_fall_back_to_the_largest_divisor(of: int, at_most: int, expected: int) -> None:
    assert largest_divisor(of, at_most) == expected
    assert group_norm(of, at_most).num_groups == expected


def test_zero_init_and_broadcast() -> None:
    layer = zero_init(nn.Linear(3, 3))
    assert not any(p.any() for p in layer.parameters())
    assert over_space(torch.zeros(2, 3), torch.zeros(2, 3, 4, 5, 6)).shape == (2, 3, 1, 1, 1)


def test_recomputing_gives_the_same_second_derivative() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3, 3), nn.Softplus()).double()
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)

    def penalty_gradient(checkpointing: bool) -> torch.Tensor:
        y = runner(checkpointing)(layer, x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), layer[0].weight)[0]

    assert torch.equal(penalty_gradient(True), penalty_gradient(False))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 8)])
def test_patches_hold_their_voxels_and_come_back(shape):
    x = torch.arange(2 * 3 * math.prod(shape)).reshape(2, 3, *shape)
    patches = space_to_depth(x, 2)
    corner = (slice(2, 4), slice(4, 6), slice(6, 8))[: len(shape)]
    where = (1, 2, 3)[: len(shape)]
    assert torch.equal(patches[(0, slice(None), *where)], x[(0, slice(None), *corner)].flatten())
    assert torch.equal(depth_to_space(patches, 2), x)
    assert space_to_depth(x, 1) is x


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("convolution", "kernel"), [(SAME, 3), (POINTWISE, 1), (DOUBLING, 4)], ids=str
)
def test_convolving_parts_is_convolving_the_whole(
    dims: int, convolution: Convolution, kernel: int
) -> None:
    torch.manual_seed(0)
    taps = [kernel] * dims
    parts = [torch.randn(2, c, *[4] * dims, dtype=torch.double) for c in (4, 1, 2)]
    for part in parts:
        part.requires_grad_()
    weight = torch.randn(*((7, 5) if convolution.transposed else (5, 7)), *taps).double()
    weight.requires_grad_()
    bias = torch.randn(5, dtype=torch.double, requires_grad=True)
    settings = {"stride": convolution.stride, "padding": convolution.padding}
    functions = CONVOLVE_TRANSPOSED if convolution.transposed else CONVOLVE
    whole = functions[dims](torch.cat(parts, 1), weight, bias, **settings)
    torch.testing.assert_close(convolution(parts, weight, bias), whole)
    ones = torch.ones_like(whole)
    torch.testing.assert_close(convolution(parts, weight, bias, onto=ones), 1 + whole)
    grad = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, [*parts, weight, bias], grad)
    grads, weight_grad, bias_grad = convolution.backward(grad, parts, weight, (True, True))
    torch.testing.assert_close((*grads, weight_grad, bias_grad), expected)
    assert convolution.backward(grad, parts, weight, (False, False))[1:] == (None, None)


@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (4, 6, 2), (3, 4, 4)])
def test_merged_taps_equal_convolving_the_upsampled(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = conv(len(shape), 3, 2).double()
    x = torch.randn(2, 3, *[-(-size // 2) for size in shape], dtype=torch.double)
    size = torch.Size(shape)
    merged, plain = upsample_convolve(layer, x, size), layer(nearest_upsample(x, size))
    torch.testing.assert_close(merged, plain)
    weight = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad((merged * weight).sum(), layer.weight),
        torch.autograd.grad((plain * weight).sum(), layer.weight),
    )


def test_doubling_runs_under_autocast_as_without():
    layer = conv(3, 2, 3)
    x, shape = torch.randn(1, 2, 2, 2, 2), torch.Size((4, 4, 4))
    plain = upsample_convolve(layer, x, shape)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = upsample_convolve(layer, x, shape)
    assert torch.allclose(rounded.float(), plain, atol=0.05)
