"""Depth as channels of one 2D image: "channel stacking"."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gyri.registry import VIEWS
from gyri.types import Grid, Items
from gyri.views.base import PLANE_AXIS, Plane, View


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """Settings of the stack view.

    Parameters
    ----------
    plane : plane of the slices that become channels.
    """

    plane: Plane = "axial"


@VIEWS.register("stack", StackConfig)
class StackView(View):
    """All slices of a volume as the channels of one image, (C * depth, *in-plane)."""

    def __init__(self, config: StackConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.axis = PLANE_AXIS[config.plane]
        depth = grid.shape[self.axis]
        self.item_channels = channels * depth
        self.item_shape = tuple(n for axis, n in enumerate(grid.shape) if axis != self.axis)

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> (V, C * depth, *in-plane); a channel's slices stay together."""
        return Items(volumes.movedim(2 + self.axis, 2).flatten(1, 2))

    def decode(self, items: Tensor) -> Tensor:
        """Inverse of `encode`."""
        stacked = items.unflatten(1, (self.volume_shape[0], -1))
        return stacked.movedim(2, 2 + self.axis)
