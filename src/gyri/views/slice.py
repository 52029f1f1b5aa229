"""Slices with their position: "positional conditioning"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import PLANE_AXIS, Plane, View, Volumes
from gyri.views.depth import brain_shown, cut_slices, draw_probabilities, drawn, slice_positions


@dataclass(frozen=True, kw_only=True)
class SliceConfig:
    """Settings of the slice view.

    Parameters
    ----------
    plane : which slices.
    position : how a network is told where the slice lies: ``millimetres`` from the grid's centre,
        so that neighbours are alike, or ``index``, the slice's integer id as published, one-hot.
        With ``index``, give the networks ``position: raw`` too.
    foreground : in [0, 1], how far training draws slices in proportion to the share of brain that
        they show in TRAIN: 0 draws all equally, 1 never draws an empty slice.
    left_out : share of each TRAIN volume's slices that training never draws. They are the test set
        of a split by slice, which LEAKS: the neighbours of each are trained on. Only for measuring
        how much; `gyri score` gives their loss beside that of new subjects.
    """

    plane: Plane = "axial"
    position: Literal["millimetres", "index"] = "millimetres"
    foreground: float = 0.5
    left_out: float = 0.0

    def __post_init__(self) -> None:
        """Refuse to leave out everything."""
        if not 0 <= self.left_out <= 0.5:
            raise UsageError(f"left_out is {self.left_out:g}; it is a share from 0 to 0.5.")


@VIEWS.register("slice", SliceConfig)
class SliceView(View):
    """One slice, (C, *in-plane), and where it lies."""

    def __init__(self, config: SliceConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.axis = self.slice_axis = PLANE_AXIS[config.plane]
        depth = grid.shape[self.axis]
        self.item_channels = channels
        self.item_shape = tuple(n for axis, n in enumerate(grid.shape) if axis != self.axis)
        self.items_per_volume = depth
        position = slice_positions(grid, self.axis)[:, None]
        if config.position == "index":
            position = torch.eye(depth)
        self.position_size = position.shape[1]
        self.state = {"position": position, "draw": torch.full((depth,), 1 / depth)}

    def fit(self, volumes: Volumes) -> None:
        """Measure how much brain each slice position shows in TRAIN."""
        (shown,) = brain_shown(volumes, [self.axis])
        draw = draw_probabilities(shown, self.config.foreground)
        self.state["draw"] = draw.to(self.state["draw"].device)

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> (V * depth, C, *in-plane), from the first slice to the last."""
        x = volumes.movedim(2 + self.axis, 1).flatten(0, 1)
        return Items(x, self.state["position"].repeat(len(volumes), 1))

    def decode(self, items: Tensor) -> Tensor:
        """Inverse of `encode`."""
        return items.unflatten(0, (-1, self.items_per_volume)).movedim(1, 2 + self.axis)

    def left_out(self, rows: Tensor) -> Tensor:
        """Say which slices of the TRAIN volumes `rows` training never draws, (B, depth)."""
        slices = torch.arange(self.items_per_volume, device=rows.device)
        # Knuth's multiplicative hash: the same slices of a volume in every run.
        mixed = (rows[:, None] * self.items_per_volume + slices + 1) * 2654435761 % 2**32
        return mixed < self.config.left_out * 2**32

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Draw one slice of each of the volumes `rows`."""
        chances = self.state["draw"]
        if self.config.left_out:
            chances = chances * ~self.left_out(rows)
        index = drawn(chances, rng)
        return Items(cut_slices(volumes, rows, self.axis, index), self.state["position"][index])
