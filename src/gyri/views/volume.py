"""The whole volume as one item."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gyri.registry import VIEWS
from gyri.types import Grid, Items
from gyri.views.base import View


@dataclass(frozen=True, kw_only=True)
class VolumeConfig:
    """Settings of the volume view; there are none."""


@VIEWS.register("volume", VolumeConfig)
class VolumeView(View):
    """The volume itself, (C, I, J, K): a "3D architecture"."""

    def __init__(self, config: VolumeConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = channels
        self.item_shape = grid.shape

    def encode(self, volumes: Tensor) -> Items:
        """Return the volumes unchanged."""
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        """Return the items unchanged."""
        return items
