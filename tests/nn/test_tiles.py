"""Maps applied piece by piece."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gyri.nn.tiles import in_tiles


def doubled_and_smoothed(z):
    """A map to twice the grid that reaches two voxels of z."""
    finer = functional.interpolate(z, scale_factor=2, mode="nearest")
    return functional.conv3d(finer, torch.full((1, 2, 5, 5, 5), 1 / 250), padding=2)


@pytest.mark.parametrize("shape", [(9, 14, 11), (6, 6, 20), (5, 4, 3)])
@pytest.mark.parametrize("tile", [6, 8])
def test_pieces_give_what_the_whole_gives_where_nothing_reaches_further(shape, tile):
    z = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0))
    whole = doubled_and_smoothed(z)
    made = in_tiles(doubled_and_smoothed, z, tile=tile, overlap=5, factor=2)
    assert torch.allclose(made, whole, atol=1e-5)
    if max(shape) > tile:
        # A quarter of 2 voxels is less than the map reaches.
        assert not torch.allclose(in_tiles(doubled_and_smoothed, z, tile, 2, 2), whole, atol=1e-3)


def test_pieces_that_differ_go_over_into_each_other():
    """Of a map that says which piece it sees, no step is larger than the ramp's."""
    count = iter(range(10))

    def place(z):
        return torch.full((1, 1, *z.shape[2:]), float(next(count)))

    made = in_tiles(place, torch.zeros(1, 1, 16, 1, 1), tile=12, overlap=8, factor=1)[0, 0, :, 0, 0]
    assert made[0] == 0
    assert made[-1] == 1
    assert float(made.diff().max()) <= 0.25 + 1e-6
    assert float(made.diff().min()) >= 0


def test_no_piece_is_larger_than_a_tile():
    seen = []

    def make(z):
        seen.append(tuple(z.shape[2:]))
        return z

    z = torch.randn(1, 1, 10, 13, 4)
    assert torch.allclose(in_tiles(make, z, tile=6, overlap=2, factor=1), z, atol=1e-6)
    assert set(seen) == {(6, 6, 4)}
