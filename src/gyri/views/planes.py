"""Slices of several planes by one model, told which plane: "multi-plane".

A slice of any plane of a cube has one shape, so one network can make them all; the plane is part of
the position that it is told. A volume then has more than one stack of slices to be made of: their
average, or one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import PLANE_AXIS, Plane, View, Volumes
from gyri.views.depth import brain_shown, cut_slices, draw_probabilities, drawn, slice_positions


@dataclass(frozen=True, kw_only=True)
class PlanesConfig:
    """Settings of the planes view.

    Parameters
    ----------
    planes : whose slices one network makes.
    assemble : what a volume is made of: the ``average`` of all planes' stacks of slices, or the
        stack of one plane alone, which is as sharp as its slices are, and the other planes then
        serve training only. They are sampled all the same.
    foreground : in [0, 1], how far training draws slices in proportion to the share of brain that
        they show in TRAIN: 0 draws all of a plane equally, 1 never draws an empty slice. The
        planes are drawn equally often.
    """

    planes: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
    assemble: Literal["average", "axial", "coronal", "sagittal"] = "average"
    foreground: float = 0.5

    def __post_init__(self) -> None:
        """Refuse planes given twice or not at all, and volumes made of a plane that is not seen."""
        if not self.planes or len(set(self.planes)) < len(self.planes):
            raise UsageError(
                f"planes is {list(self.planes)}; name one plane or several different ones of "
                f"{', '.join(PLANE_AXIS)}."
            )
        if self.assemble not in ("average", *self.planes):
            raise UsageError(
                f"assemble is {self.assemble!r}, and planes {list(self.planes)}; volumes are made "
                f"of average or of one of these. Add {self.assemble!r} to planes, or set another."
            )


@VIEWS.register("planes", PlanesConfig)
class PlanesView(View):
    """One slice of a cube in any of several planes, (C, N, N): in which plane, and where it lies.

    The position is the plane's one-hot code in the order of `planes`, then the slice's distance
    from the grid's centre, as the slice view has it.
    """

    def __init__(self, config: PlanesConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        side = grid.shape[0]
        if set(grid.shape) != {side}:
            raise UsageError(
                f"The grid has {' x '.join(map(str, grid.shape))} voxels; the planes view needs "
                "three equally long axes, so that slices of all planes have one shape. Prepare a "
                "cube with the step `square` (plane: all), as in "
                "recipes/prepare/s2-planes-256.yaml, or take the slice or the slab view."
            )
        self.axes = [PLANE_AXIS[plane] for plane in config.planes]
        self.item_channels, self.item_shape = channels, (side, side)
        self.items_per_volume = len(self.axes) * side
        where = torch.cat([slice_positions(grid, axis) for axis in self.axes])
        of_plane = torch.arange(len(self.axes)).repeat_interleave(side)
        code = one_hot(of_plane, len(self.axes)).to(where)
        position = torch.cat([code, where[:, None]], dim=1)
        self.position_size = position.shape[1]
        self.state = {
            "position": position,
            "draw": torch.full((self.items_per_volume,), 1 / self.items_per_volume),
        }

    def fit(self, volumes: Volumes) -> None:
        """Measure how much brain each slice position of each plane shows in TRAIN."""
        draws = [
            draw_probabilities(shown, self.config.foreground) / len(self.axes)
            for shown in brain_shown(volumes, self.axes)
        ]
        self.state["draw"] = torch.cat(draws).to(self.state["draw"].device)

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, N, N, N) -> all slices of a volume, plane after plane, from first to last."""
        stacks = [volumes.movedim(2 + axis, 1) for axis in self.axes]
        x = torch.cat(stacks, dim=1).flatten(0, 1)
        return Items(x, self.state["position"].repeat(len(volumes), 1))

    def decode(self, items: Tensor) -> Tensor:
        """Make volumes as `assemble` says; planes are averaged in float64, equal ones exactly."""
        slices = items.unflatten(0, (-1, self.items_per_volume)).chunk(len(self.axes), dim=1)
        stacks = [stack.movedim(1, 2 + axis) for stack, axis in zip(slices, self.axes, strict=True)]
        if self.config.assemble != "average":
            return stacks[self.config.planes.index(self.config.assemble)]
        return torch.stack(stacks).double().mean(0).to(items.dtype)

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Draw one slice of each of the volumes `rows`: a plane, all alike, then a slice of it."""
        index = drawn(self.state["draw"], rng)
        side = self.item_shape[0]
        x = torch.empty(len(rows), self.item_channels, side, side, device=rows.device)
        for number, axis in enumerate(self.axes):
            own = (index // side == number).nonzero()[:, 0]
            x[own] = cut_slices(volumes, rows[own], axis, index[own] % side)
        return Items(x, self.state["position"][index])
