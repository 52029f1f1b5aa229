"""A volume given what a coarser view keeps of it: the second stage of a cascade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import Trained, View, Volumes
from gyri.views.kept import Kept

COARSE = "coarse"


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Settings of the detail view; there are none."""


@VIEWS.register("detail", DetailConfig)
class DetailView(View):
    """The volume, with what another run's view keeps of it given beside, as context ``coarse``.

    In training that is ``decode(encode(volume))`` of the needed run's view: for a model of fields
    the warped template. In sampling it is a sample of that run.
    """

    needs: ClassVar[tuple[str, ...]] = (COARSE,)

    def __init__(self, config: DetailConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = channels
        self.item_shape = grid.shape
        self.context = {COARSE: channels}
        self._kept = Kept(self._coarse)

    def use(self, needs: Mapping[str, Trained]) -> None:
        """Take the run whose samples are refined."""
        self.coarse_view = needs[COARSE].view

    def _coarse(self, volumes: Tensor) -> Tensor:
        with torch.no_grad():
            # Channels that the recipe gives come after those that the view makes.
            made = volumes[:, : self.item_channels]
            return self.coarse_view.decode(self.coarse_view.encode(made).x)

    def encode(self, volumes: Tensor) -> Items:
        """Return the volumes unchanged."""
        return Items(volumes)

    def items_of(self, volumes: Volumes, row: int) -> Items:
        """Return the volume and beside it its coarse form, which is made once a volume."""
        return self._beside(volumes, torch.tensor([row]))

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Return the volumes and beside them their coarse form, which is made once a volume."""
        return self._beside(volumes, rows)

    def _beside(self, volumes: Volumes, rows: Tensor) -> Items:
        return Items(volumes[rows], context={COARSE: self._kept.of(volumes, rows)})

    def decode(self, items: Tensor) -> Tensor:
        """Return the items unchanged."""
        return items
