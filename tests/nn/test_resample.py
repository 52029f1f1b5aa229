"""Laws of the binomial filter."""

from __future__ import annotations

import pytest
import torch

from gyri.nn.resample import SmoothDownsample, SmoothUpsample, binomial_kernel

DIMS = pytest.mark.parametrize("dims", [2, 3])


def interior(x: torch.Tensor) -> torch.Tensor:
    for axis in range(2, x.ndim):
        x = x.narrow(axis, 1, x.shape[axis] - 2)
    return x


@DIMS
def test_kernel_is_a_normalised_product(dims: int) -> None:
    kernel = binomial_kernel(dims)
    assert kernel.shape == (4,) * dims
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel.flatten()[0] == pytest.approx(8.0**-dims)
    assert all(torch.equal(kernel, kernel.flip(axis)) for axis in range(dims))


@DIMS
def test_constants_keep_their_interior(dims: int) -> None:
    ones = torch.ones(2, 3, *[8, 6, 10][:dims])
    up, down = SmoothUpsample(dims)(ones), SmoothDownsample(dims)(ones)
    assert up.shape[2:] == tuple(2 * size for size in ones.shape[2:])
    assert down.shape[2:] == tuple(size // 2 for size in ones.shape[2:])
    for smoothed in (up, down, SmoothDownsample(dims)(up)):
        torch.testing.assert_close(interior(smoothed), torch.ones_like(interior(smoothed)))


@DIMS
def test_a_ramp_is_resampled_without_a_shift(dims: int) -> None:
    """Voxel centres at 0.5, 1.5, ...: halving a linear ramp samples it at 1, 3, 5, ..."""
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = 8
        ramp = (torch.arange(8.0) + 0.5).reshape(1, 1, *shape).expand(1, 1, *[8] * dims)
        shape[axis] = 4
        halved = (2 * torch.arange(4.0) + 1).reshape(1, 1, *shape).expand(1, 1, *[4] * dims)
        torch.testing.assert_close(interior(SmoothDownsample(dims)(ramp)), interior(halved))
        again = SmoothUpsample(dims)(halved)
        torch.testing.assert_close(interior(again), interior(ramp))


@DIMS
def test_up_is_the_transpose_of_down_with_gain(dims: int) -> None:
    torch.manual_seed(0)
    coarse = torch.randn(1, 2, *[3, 4, 5][:dims], dtype=torch.double)
    fine = torch.randn(1, 2, *[6, 8, 10][:dims], dtype=torch.double)
    down, up = SmoothDownsample(dims).double(), SmoothUpsample(dims).double()
    left = (down(fine) * coarse).sum() * 2**dims
    torch.testing.assert_close(left, (fine * up(coarse)).sum())


@DIMS
def test_channels_do_not_mix(dims: int) -> None:
    x = torch.zeros(1, 3, *[4] * dims)
    x[:, 1] = torch.randn(4)
    for module in (SmoothUpsample(dims), SmoothDownsample(dims)):
        y = module(x)
        assert not y[:, [0, 2]].any()
        assert y[:, 1].any()
