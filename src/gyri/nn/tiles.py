"""A map from one grid to a finer one, applied piece by piece: the peak of memory is a piece's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor


def in_tiles(
    make: Callable[[Tensor], Tensor], z: Tensor, tile: int, overlap: int, factor: int
) -> Tensor:
    """Apply `make` to overlapping pieces of z and blend the results.

    Of the overlap of two pieces the outer quarter is thrown away in each, as it has seen the edge;
    between, one goes over linearly into the other. Where nothing that `make` does reaches further
    than a quarter of the overlap, the result is that of the whole; normalisations over a grid reach
    everywhere.

    Parameters
    ----------
    make : (B, C', *T) -> (B, C, *T factor).
    z : (B, C', *S').
    tile : voxels of a piece along each axis.
    overlap : voxels that neighbouring pieces share, below `tile`.
    factor : see `make`.

    Returns
    -------
    Tensor
        (B, C, *S' factor).
    """
    shape = z.shape[2:]
    if max(shape) <= tile:
        return make(z)
    total, weight = None, None
    for starts in itertools.product(*(_starts(size, tile, overlap) for size in shape)):
        ends = [min(first + tile, size) for first, size in zip(starts, shape)]
        piece: tuple[Any, ...] = (..., *(slice(a, b) for a, b in zip(starts, ends)))
        made = make(z[piece])
        ramps = [
            _ramp(a, b, size, overlap, factor, made) for a, b, size in zip(starts, ends, shape)
        ]
        own = reduce(lambda x, y: x[..., None] * y, ramps)
        if total is None or weight is None:
            total = made.new_zeros(*made.shape[:2], *(size * factor for size in shape))
            weight = made.new_zeros(total.shape[2:])
        box: tuple[Any, ...] = tuple(slice(a * factor, b * factor) for a, b in zip(starts, ends))
        total[(..., *box)] += own * made
        weight[box] += own
    assert total is not None
    assert weight is not None
    return total / weight


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where pieces begin along an axis; the last ends at its end."""
    if size <= tile:
        return [0]
    return [*range(0, size - tile, tile - overlap), size - tile]


def _ramp(begin: int, end: int, size: int, overlap: int, factor: int, like: Tensor) -> Tensor:
    """Return the weights along an axis: 0 near an inner edge, then a rise to 1."""
    place = torch.arange((end - begin) * factor, device=like.device, dtype=like.dtype) + 0.5
    lost = overlap * factor / 4
    weight = torch.ones_like(place)
    for from_edge, inner in ((place, begin > 0), (len(place) - place, end < size)):
        if inner and lost:
            weight = weight * ((from_edge - lost) / (2 * lost)).clamp(0, 1)
    return weight
