"""Coarse volumes: averages and what interpolation makes of them."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.types import ConditionLayout, Grid

GRID = Grid((5, 8, 6), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


def pyramid(**settings):
    entry = VIEWS["pyramid"]
    return entry.component(entry.config(**settings), 2, GRID)


def volumes(num=2):
    return torch.randn(num, 2, *GRID.shape, generator=torch.Generator().manual_seed(0))


def test_items_are_the_averages_of_blocks():
    x = volumes()
    items = pyramid(factor=(2, 4, 1)).encode(x).x
    assert items.shape == (2, 2, 3, 2, 6)
    torch.testing.assert_close(items[1, 1, 0, 1, 5], x[1, 1, :2, 4:, 5].mean())
    torch.testing.assert_close(items[1, 1, 2, 0, 3], x[1, 1, 4, :4, 3].mean())


@pytest.mark.parametrize("upsampling", ["linear", "nearest"])
def test_decode_returns_to_the_grid_and_keeps_constants(upsampling):
    view = pyramid(factor=(2, 4, 1), upsampling=upsampling)
    x = torch.full((1, 2, *GRID.shape), 0.3)
    torch.testing.assert_close(view.decode(view.encode(x).x), x)
    items = view.encode(volumes()).x
    assert float(view.decode(items).abs().max()) <= float(items.abs().max()) + 1e-6


def test_nearest_repeats_every_average_over_its_block():
    view = pyramid(upsampling="nearest")
    items = view.encode(volumes()).x
    again = view.decode(items)
    assert torch.equal(again[:, :, 1:3, 2:4, 4:6].amax((3, 4)), again[:, :, 1:3, 2, 4])
    torch.testing.assert_close(view.encode(again).x, items)


def test_linear_is_smoother_than_nearest():
    x = volumes(8)
    steps = {}
    for upsampling in ("linear", "nearest"):
        view = pyramid(upsampling=upsampling)
        steps[upsampling] = float(view.decode(view.encode(x).x).diff(dim=3).square().mean())
    assert steps["linear"] < steps["nearest"]


def test_bounds_hold_after_interpolation():
    view = pyramid()
    items = view.bounded(5 * view.encode(volumes()).x, 1.0)
    assert float(items.abs().max()) == 1
    assert float(view.decode(items).abs().max()) <= 1


def test_coarse_volumes_follow_no_image():
    assert not pyramid().lifts
    with pytest.raises(UsageError, match="gives mask; a coarse volume"):
        pyramid().item_spec(ConditionLayout(), 3, {"mask": 1})


@pytest.mark.parametrize("factor", [(1, 1, 1), (0, 2, 2)])
def test_factors_that_average_nothing_are_refused(factor):
    with pytest.raises(UsageError, match="factor"):
        pyramid(factor=factor)
