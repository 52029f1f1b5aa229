"""Slices through a volume: where they lie, how much brain they show, which training draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gyri.types import Grid, SampleRng
from gyri.views.base import Volumes, foreground

MM_PER_UNIT = 100.0
"""Positions are millimetres from the grid's centre divided by this, about -1 to 1."""


def slice_positions(grid: Grid, axis: int) -> Tensor:
    """Return where the slices along `axis` lie, (depth,), in `MM_PER_UNIT`."""
    depth = grid.shape[axis]
    return (torch.arange(depth) - (depth - 1) / 2) * grid.spacing_mm[axis] / MM_PER_UNIT


def brain_shown(volumes: Volumes, axes: Sequence[int]) -> list[Tensor]:
    """Return, for each of `axes`, the share of brain in every slice, summed over TRAIN.

    Each is (depth,) float64 on the CPU.
    """
    sizes = volumes.shape[2:]
    shown = [torch.zeros(sizes[axis], dtype=torch.float64) for axis in axes]
    for row in range(volumes.shape[0]):
        brain = foreground(volumes[row]).double()
        for total, axis in zip(shown, axes, strict=True):
            total += brain.movedim(axis, 0).flatten(1).mean(1).cpu()
    return shown


def draw_probabilities(shown: Tensor, weight: float) -> Tensor:
    """Return how often training draws each item, (items,) float32 with sum 1.

    Parameters
    ----------
    shown : (items,), brain in each item.
    weight : in [0, 1]; 0 draws all items equally, 1 in proportion to the brain they show.
    """
    draw = (1 - weight) / len(shown) + weight * shown / shown.sum().clamp_min(1e-12)
    return (draw / draw.sum()).float()


def drawn(chances: Tensor, rng: SampleRng) -> Tensor:
    """Draw one index (B,) an item.

    Parameters
    ----------
    chances : (items,), or (B, items) where they differ; in any unit.
    """
    edges = chances.cumsum(-1)
    place = rng.uniform(())[:, None] * edges[..., -1:]
    if edges.ndim == 1:
        return torch.searchsorted(edges, place[:, 0]).clamp_max(chances.shape[-1] - 1)
    return torch.searchsorted(edges, place)[:, 0].clamp_max(chances.shape[-1] - 1)


def cut_slices(volumes: Volumes, rows: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return slice ``index[i]`` along `axis` of the volume ``rows[i]``, (B, C, *in-plane)."""
    where: list[Tensor | slice] = [rows, slice(None), slice(None), slice(None), slice(None)]
    where[2 + axis] = index
    return volumes[tuple(where)]
