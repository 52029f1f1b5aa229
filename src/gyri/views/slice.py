"""Slices with their position: "positional conditioning"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import PLANE_AXIS, Plane, View, Volumes, foreground

MM_PER_UNIT = 100.0
"""Positions are millimetres from the grid's centre divided by this, about -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class SliceConfig:
    """Settings of the slice view.

    Parameters
    ----------
    plane : which slices.
    foreground : in [0, 1], how far training draws slices in proportion to the share of brain that
        they show in TRAIN: 0 draws all equally, 1 never draws an empty slice.
    """

    plane: Plane = "axial"
    foreground: float = 0.5


@VIEWS.register("slice", SliceConfig)
class SliceView(View):
    """One slice, (C, *in-plane), and where it lies in millimetres."""

    position_size = 1

    def __init__(self, config: SliceConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.axis = PLANE_AXIS[config.plane]
        depth = grid.shape[self.axis]
        self.item_channels = channels
        self.item_shape = tuple(n for axis, n in enumerate(grid.shape) if axis != self.axis)
        self.items_per_volume = depth
        offset_mm = (torch.arange(depth) - (depth - 1) / 2) * grid.spacing_mm[self.axis]
        self.state = {
            "position": (offset_mm / MM_PER_UNIT)[:, None],
            "draw": torch.full((depth,), 1 / depth),
        }

    def fit(self, volumes: Volumes) -> None:
        """Measure how much brain each slice position shows in TRAIN."""
        depth = self.items_per_volume
        shown = torch.zeros(depth, dtype=torch.float64)
        for row in range(volumes.shape[0]):
            brain = foreground(volumes[row]).double().movedim(self.axis, 0)
            shown += brain.flatten(1).mean(1).cpu()
        weight = self.config.foreground
        draw = (1 - weight) / depth + weight * shown / shown.sum().clamp_min(1e-12)
        self.state["draw"] = (draw / draw.sum()).float().to(self.state["draw"].device)

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> (V * depth, C, *in-plane), from the first slice to the last."""
        x = volumes.movedim(2 + self.axis, 1).flatten(0, 1)
        return Items(x, self.state["position"].repeat(len(volumes), 1))

    def decode(self, items: Tensor) -> Tensor:
        """Inverse of `encode`."""
        return items.unflatten(0, (-1, self.items_per_volume)).movedim(1, 2 + self.axis)

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Draw one slice of each of the volumes `rows`."""
        edges = self.state["draw"].cumsum(0)
        index = torch.searchsorted(edges, rng.uniform(())).clamp_max(self.items_per_volume - 1)
        where: list[Tensor | slice] = [rows, slice(None), slice(None), slice(None), slice(None)]
        where[2 + self.axis] = index
        return Items(volumes[tuple(where)], self.state["position"][index])
