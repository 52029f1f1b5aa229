"""What every view offers: volumes to items and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from gyri.errors import UsageError
from gyri.types import ConditionLayout, Grid, Items, ItemSpec, Method, SampleRng

if TYPE_CHECKING:
    # Preparation and figures need the planes and never a tensor; torch takes seconds.
    import torch
    from torch import Tensor

Plane = Literal["sagittal", "coronal", "axial"]
PLANE_AXIS: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Axis of (I, J, K) that runs through the plane's slices."""


def foreground(volume: Tensor) -> Tensor:
    """Return where a volume (C, I, J, K) in [-1, 1] is not background, (I, J, K) bool.

    Intensities are -1 in the background; each label channel is positive in one of its one-hot
    channels everywhere. So the background is where the fewest channels are above -1.
    """
    above = (volume > -1).sum(0)
    return above > above.amin()


class Volumes(Protocol):
    """The resident TRAIN volumes: indexing (N, C, I, J, K) gives float32 in [-1, 1]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, C, I, J, K)."""
        ...

    def __getitem__(self, index: Any) -> Tensor: ...


@dataclass(frozen=True)
class Changed:
    """Volumes that augmentation has changed, and whose they are.

    Parameters
    ----------
    volumes : (B, C, I, J, K).
    subject : (B,) rows of the split.
    """

    volumes: Tensor
    subject: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (B, C, I, J, K)."""
        return tuple(self.volumes.shape)

    def __getitem__(self, index: Any) -> Tensor:
        return self.volumes[index]


def subjects(volumes: Volumes, rows: Tensor) -> Tensor:
    """Return the rows of the split that the volumes `rows` (B,) are of."""
    return volumes.subject[rows] if isinstance(volumes, Changed) else rows


class Trained(Protocol):
    """A run that another stands on."""

    method: Method
    view: View


class View:
    """How a model sees a volume, and how what it makes becomes a volume again.

    Subclasses set `item_channels`, `item_shape`, `items_per_volume` and `position_size` and write
    `encode` and `decode`; they keep the law they declare in `kind`.

    Parameters
    ----------
    config : the view's settings.
    channels : C of a volume.
    grid : the voxel grid.

    Attributes
    ----------
    kind : ``exact`` (decode(encode(v)) == v), ``lossy`` (to a stored tolerance) or
        ``generative_only``.
    state : tensors fitted on TRAIN; part of the checkpoint.
    slice_axis : axis of (I, J, K) whose slices are the items, one each; None for other items.
    lifts : whether `encode` is linear and keeps white noise white, so that a sampler may keep its
        noised volume in volume space; otherwise it works on items, one a volume.
    needs : names of the trained runs that the view stands on, see `use`.
    context : channels of each image that the view gives beside an item, by name.
    facts : what `fit` found that a reader of ``run.json`` wants to know.
    """

    kind: ClassVar[Literal["exact", "lossy", "generative_only"]] = "exact"
    item_channels: int
    item_shape: tuple[int, ...]
    items_per_volume: int = 1
    position_size: int = 0
    slice_axis: int | None = None
    lifts: bool = True
    needs: ClassVar[tuple[str, ...]] = ()
    alone: ClassVar[str] = ""

    def __init__(self, config: Any, channels: int, grid: Grid) -> None:
        self.config = config
        self.grid = grid
        self.volume_shape = (channels, *grid.shape)
        self.state: dict[str, Tensor] = {}
        self.context: dict[str, int] = {}
        self.facts: dict[str, float] = {}

    def use(self, needs: Mapping[str, Trained]) -> None:
        """Take the trained runs that `needs` names, before `fit` and any item."""

    def penalties(self, items: Tensor) -> dict[str, Tensor]:
        """Say what is wrong with clean items (B, C, *S): penalties (B,) by name, 0 or more."""
        return {}

    def item_spec(
        self,
        condition: ConditionLayout,
        num_train: int,
        context: Mapping[str, int] | None = None,
    ) -> ItemSpec:
        """Describe the items to a method.

        Parameters
        ----------
        context : channels of a volume of each image that is given, by name.

        Raises
        ------
        UsageError
            If an image is given to a view that takes none.
        """
        if context and self.alone:
            raise UsageError(f"data.context gives {', '.join(context)}; {self.alone}")
        per_channel = self.item_channels // self.volume_shape[0]
        return ItemSpec(
            channels=self.item_channels,
            shape=self.item_shape,
            position_size=self.position_size,
            condition=condition,
            context={
                **{name: count * per_channel for name, count in (context or {}).items()},
                **self.context,
            },
            items_per_volume=self.items_per_volume,
            num_train=num_train,
        )

    def fit(self, volumes: Volumes) -> None:
        """Measure on TRAIN what `state` must hold; most views need nothing."""

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> items, those of a volume together and in order."""
        raise NotImplementedError

    def decode(self, items: Tensor) -> Tensor:
        """Inverse of `encode`; overlapping items are averaged."""
        raise NotImplementedError

    def items_of(self, volumes: Volumes, row: int) -> Items:
        """Return all items of a resident volume, with the images that the view gives beside."""
        return self.encode(volumes[row : row + 1])

    def kept(self, volumes: Volumes, row: int) -> Tensor:
        """Return what the view keeps of a resident volume, (1, C, I, J, K)."""
        return self.decode(self.items_of(volumes, row).x)

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """One item of each of the volumes `rows` (B,); by default all there is of it.

        A view with several items a volume draws one of them with `rng`.
        """
        return self.encode(volumes[rows])

    def given(self, images: Mapping[str, Tensor], rng: SampleRng) -> dict[str, Tensor]:
        """Bring images that a sample is to follow, (V, C', I, J, K) by name, to training's form.

        Parameters
        ----------
        rng : of the samples, one stream a volume; read by views that add noise.
        """
        return dict(images)

    def to(self, device: torch.device) -> None:
        """Move `state` to `device`."""
        self.state = {name: tensor.to(device) for name, tensor in self.state.items()}
