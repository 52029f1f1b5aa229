"""A brain as the deformation of a template: the item is a velocity field.

What a model of fields makes is the template, warped. It has one brain's intensities and one
brain's folds; `gyri.views.detail` adds what the template lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gyri.capabilities import Registrar
from gyri.errors import UsageError
from gyri.nn.deformation import (
    bending_energy,
    folding_energy,
    resize_field,
    warp,
)
from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import Trained, View, Volumes
from gyri.views.kept import Kept

PUBLISHED_LIMIT = 1.0
"""To which the published trainer clips the fields that it maps by 2 u - 1."""


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """Settings of the field view.

    Parameters
    ----------
    stride : voxels of the volume's grid from one node of the field's to the next, along each axis.
        A coarse field is smooth: the low frequencies are all that is modelled.
    scaling : ``standard`` takes away each node's mean and divides a component by its spread over
        TRAIN, without clipping. ``published`` maps a field u to 2 u - 1 and clips it to [-1, 1], as
        the published trainer does with its images: displacements below 0 and above 1 voxel are
        lost. It is there to show what that does.
    turn_grid : change training items by random flips and quarter turns (of axes with as many nodes)
        of the grid alone, components left as they are, as published. It is there to show that too:
        such fields deform no brain. Mirror the scans instead (``data.augment``).
    """

    stride: int = 2
    scaling: Literal["standard", "published"] = "standard"
    turn_grid: bool = False


@VIEWS.register("field", FieldConfig)
class FieldView(View):
    """The stationary velocity (or displacement) that takes a template to a volume.

    Needs a trained ``registration``, whose fields `encode` returns and whose template `decode`
    warps.
    """

    kind = "generative_only"
    lifts = False
    alone = "a deformation field follows no image. Leave it out."
    needs: ClassVar[tuple[str, ...]] = ("registration",)

    def __init__(self, config: FieldConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = 3
        self.item_shape = tuple(-(-n // config.stride) for n in grid.shape)
        self.state = {
            "mean": torch.zeros(3, *self.item_shape),
            "std": torch.ones(3, 1, 1, 1),
        }
        self._kept = Kept(lambda volumes, rows: self.fields(volumes[rows]))

    def use(self, needs: Mapping[str, Trained]) -> None:
        """Take the registration."""
        method = needs["registration"].method
        if not isinstance(method, Registrar):
            raise UsageError(
                f"needs.registration is a {type(method).__name__}, which registers nothing. Name a "
                "recipe or a run of voxelmorph or diffusemorph."
            )
        self._registrar = method

    @property
    def registrar(self) -> Registrar:
        """The trained registration."""
        if not hasattr(self, "_registrar"):
            raise UsageError(
                "The view field needs a registration. Add `needs: {registration: RECIPE or RUN}` "
                "to the recipe."
            )
        return self._registrar

    def fields(self, volumes: Tensor) -> Tensor:
        """Return the fields (V, 3, *item_shape) to volumes, in voxels of the field's grid."""
        # One by one: rounding in a convolution depends on how many go through it together.
        with torch.no_grad():
            found = torch.cat([self.registrar.field(volume[None]) for volume in volumes])
        return resize_field(found, self.item_shape)

    def fit(self, volumes: Volumes) -> None:
        """Measure the mean field and each component's spread around it."""
        if self.config.scaling == "published":
            return
        fields = self._kept.of(volumes, torch.arange(volumes.shape[0]))
        mean = fields.mean(0)
        self.state = {
            "mean": mean,
            "std": (fields - mean).std(dim=(0, 2, 3, 4))[:, None, None, None],
        }

    def encode(self, volumes: Tensor) -> Items:
        """Register the template to the volumes."""
        return Items(self._scaled(self.fields(volumes)))

    def _scaled(self, fields: Tensor) -> Tensor:
        if self.config.scaling == "published":
            return (2 * fields - 1).clamp(-PUBLISHED_LIMIT, PUBLISHED_LIMIT)
        return (fields - self.state["mean"]) / self.state["std"]

    def items_of(self, volumes: Volumes, row: int) -> Items:
        """Return what `encode` does, registered once a volume."""
        return Items(self._scaled(self._kept.of(volumes, torch.tensor([row]))))

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Return what `encode` does, registered once a volume."""
        items = self._scaled(self._kept.of(volumes, rows))
        return Items(self._turned(items, rng) if self.config.turn_grid else items)

    def _turned(self, items: Tensor, rng: SampleRng) -> Tensor:
        """Flip and turn each grid and leave the components, which is wrong."""
        turned = []
        for item, chance in zip(items, rng.uniform((4,)).tolist()):
            axes = [axis for axis in (1, 2, 3) if chance[axis - 1] < 0.5]
            item = item.flip(axes) if axes else item
            like = [(a, b) for a, b in ((1, 2), (1, 3), (2, 3)) if item.shape[a] == item.shape[b]]
            if like:
                item = item.rot90(int(4 * chance[3]), like[0])
            turned.append(item)
        return torch.stack(turned)

    def field_of(self, items: Tensor) -> Tensor:
        """Return the fields in voxels of their grid that items stand for."""
        if self.config.scaling == "published":
            return (items.clamp(-PUBLISHED_LIMIT, PUBLISHED_LIMIT) + 1) / 2
        return items * self.state["std"] + self.state["mean"]

    def displacement(self, items: Tensor, eta: float = 1.0) -> Tensor:
        """Return displacements (V, 3, I, J, K) on the volume's grid."""
        return self.registrar.displacement(self.field_of(items), eta)

    def decode(self, items: Tensor) -> Tensor:
        """Warp the template."""
        return warp(self.registrar.template, self.displacement(items))

    def penalties(self, items: Tensor) -> dict[str, Tensor]:
        """Bending energy of the field and depth of its folds."""
        return {
            "bending": bending_energy(self.field_of(items)),
            "folding": folding_energy(self.displacement(items)),
        }
