"""The records that cross rooms, and the contracts of a method.

Shapes: ``B`` items in a batch, ``V`` volumes, ``C`` channels, ``I J K`` the RAS+ axes of a volume,
``*S`` the spatial axes of an item (two or three of them), ``D`` the length of a condition vector,
``P`` the length of a position. Tensors that a network sees are float32 in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from gyri.errors import UsageError

if TYPE_CHECKING:
    # Preparation and most verbs need these records and never a tensor; torch takes seconds.
    import torch
    from torch import Tensor, nn


FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""


@dataclass(frozen=True)
class Grid:
    """The voxel grid that all volumes of a prepared cohort share, RAS+.

    Parameters
    ----------
    shape : number of voxels along I, J, K.
    affine : 4x4 voxel-to-world matrix in millimetres, row by row; its columns are positive
        multiples of the axes (no rotation).
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along I, J, K in millimetres."""
        return self.affine[0][0], self.affine[1][1], self.affine[2][2]


@dataclass(frozen=True)
class Channel:
    """One channel of a volume as the files store it.

    A label channel holds the integers ``0 .. num_labels-1``; inside, it becomes `num_labels`
    one-hot channels, outside an argmax.
    """

    name: str
    kind: Literal["intensity", "label"] = "intensity"
    num_labels: int = 0


@dataclass(frozen=True)
class ConditionLayout:
    """Where each column lies in a condition vector.

    The vector is the concatenation, column by column, of the column's value (one-hot or
    standardised) and one missing bit. A missing value is all zeros with the bit set, so that
    "unknown" and "dropped for guidance" are the same input.

    Parameters
    ----------
    slices : per column ``(start, stop)`` of the value; the missing bit is at ``stop``.
    """

    slices: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Length ``D`` of the vector; 0 when nothing is conditioned on."""
        return self.slices[-1][1] + 1 if self.slices else 0

    def levels(self, column: int, need: str) -> tuple[int, int]:
        """Return ``(start, stop)`` of a categorical column's one-hot code.

        Parameters
        ----------
        column : counted from 0.
        need : what asks for it and why, for the message.

        Raises
        ------
        UsageError
            If there is no such column, or it has no two levels.
        """
        count = len(self.slices)
        if not 0 <= column < count:
            raise UsageError(
                f"column is {column}; the condition has {count} columns, as the recipe has {count} "
                f"conditions, counted from 0. {need}: name a categorical one under `conditions`."
            )
        start, stop = self.slices[column]
        if stop - start < 2:
            raise UsageError(
                f"Column {column} of the condition holds a number or a single level and is no "
                f"categorical column with two levels or more. {need}. Choose another column."
            )
        return start, stop

    def drop(self, condition: Tensor, dropped: Tensor) -> Tensor:
        """Make values missing.

        Parameters
        ----------
        condition : (B, D).
        dropped : (B, number of columns) boolean, True where the value becomes missing.
        """
        condition = condition.clone()
        for column, (start, stop) in enumerate(self.slices):
            gone = dropped[:, column]
            condition[gone, start:stop] = 0.0
            condition[gone, stop] = 1.0
        return condition

    def null(self, like: Tensor) -> Tensor:
        """Return the condition vector with every column missing, shaped as `like` (B, D)."""
        return self.drop(like, like.new_ones(len(like), len(self.slices)).bool())


@dataclass(frozen=True)
class ItemSpec:
    """What a method needs to know about the items it will see; made by view and cohort.

    Parameters
    ----------
    channels : ``C`` of an item.
    shape : spatial shape ``*S`` of an item, two or three axes.
    position_size : ``P``, 0 when the view adds no position.
    condition : layout of the condition vector.
    context : channels of each context tensor by name.
    items_per_volume : how many items `Lift.encode` makes of one volume.
    num_train : TRAIN volumes.
    """

    channels: int
    shape: tuple[int, ...]
    position_size: int = 0
    condition: ConditionLayout = field(default_factory=ConditionLayout)
    context: Mapping[str, int] = field(default_factory=dict)
    items_per_volume: int = 1
    num_train: int = 0

    @property
    def dims(self) -> int:
        """Two for slices and stacks, three for volumes."""
        return len(self.shape)


@dataclass(frozen=True)
class NetworkSpec:
    """What a method tells a network about its inputs and outputs; settings are in its config.

    Parameters
    ----------
    in_channels, out_channels : image channels; 0 where the network reads or writes no image.
    shape : spatial shape of the image, two or three axes.
    condition_size, position_size : ``D`` and ``P``.
    latent_size : length of z for generators, of the output vector for encoders.
    context_channels : of images that are given beside the condition, on the same grid.
    """

    in_channels: int
    out_channels: int
    shape: tuple[int, ...]
    condition_size: int = 0
    position_size: int = 0
    latent_size: int = 0
    context_channels: int = 0


@dataclass
class Items:
    """Items of one or more volumes.

    Parameters
    ----------
    x : (B, C, *S).
    position : (B, P) or None; coordinates in [-1, 1].
    context : images that the view gives beside x, on x's grid, by name.
    """

    x: Tensor
    position: Tensor | None = None
    context: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Batch:
    """What a method trains on.

    Parameters
    ----------
    x : (B, C, *S) float32 in [-1, 1].
    condition : (B, D) with missing bits, see `ConditionLayout`; D may be 0.
    position : (B, P) or None.
    subject : (B,) int64, row of the subject in TRAIN.
    seed : (B,) int64, one seed an item; all randomness of the item's loss follows from it.
    context : name -> tensor on x's grid.
    """

    x: Tensor
    condition: Tensor
    position: Tensor | None
    subject: Tensor
    seed: Tensor
    context: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Batch:
        """Return the batch's `rows`, as the loop does to cut micro-batches."""
        return Batch(
            x=self.x[rows],
            condition=self.condition[rows],
            position=None if self.position is None else self.position[rows],
            subject=self.subject[rows],
            seed=self.seed[rows],
            context={name: tensor[rows] for name, tensor in self.context.items()},
        )


class SampleRng(Protocol):
    """Random numbers with one stream an item, so that no result depends on batch or device count.

    `gyri.runtime.streams.SampleRng` implements it.
    """

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape) standard normal draws."""
        ...

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Return (B, *shape) draws from [0, 1)."""
        ...


@dataclass(frozen=True)
class Phase:
    """One kind of update.

    Parameters
    ----------
    name : given to `Method.loss`.
    networks : names of the networks that receive gradients; all others are frozen.
    optimiser : name of the optimiser that steps.
    every, offset : the phase runs at steps with ``step % every == offset``.
    repeats : updates a step, each with a fresh batch (five critic steps, for example).
    """

    name: str
    networks: tuple[str, ...]
    optimiser: str
    every: int = 1
    offset: int = 0
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam or AdamW and the learning rate's course.

    Parameters
    ----------
    lr : peak learning rate.
    betas, eps, weight_decay : as in torch; decay is decoupled (AdamW).
    warmup_steps : linear rise from 0.
    final_lr : fraction of `lr` left at the end of a cosine over the horizon; 1 keeps it constant.
    clip_norm : largest gradient norm, 0 for none.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    final_lr: float = 1.0
    clip_norm: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far training is; the only clock that a method may read.

    Parameters
    ----------
    step : updates done.
    images_seen : items drawn for the first phase, over all processes.
    fraction : step / horizon in [0, 1]; 0 while a horizon in seconds is not yet turned to steps.
    """

    step: int
    images_seen: int
    fraction: float


@dataclass
class Loss:
    """What `Method.loss` returns.

    Parameters
    ----------
    total : scalar, the mean over the (micro-)batch.
    logs : scalars to be written to the log; means over the batch.
    statistics : tensors that are summed over micro-batches and processes and then handed to
        `Method.after_step`.
    """

    total: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


class Lift(Protocol):
    """How items sit inside a volume: what a sampler may know of a view."""

    volume_shape: tuple[int, int, int, int]
    """(C, I, J, K)."""
    item_channels: int
    item_shape: tuple[int, ...]
    """``C`` and ``*S`` of an item."""
    slice_axis: int | None
    """Axis of (I, J, K) whose slices are the items, one each; None for other items."""
    lifts: bool
    """Whether noise on a volume is noise on its items, so that samplers may work on volumes."""

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> V * items_per_volume items, those of a volume together, in order."""
        ...

    def decode(self, items: Tensor) -> Tensor:
        """(V * items_per_volume, C, *S) -> (V, C, I, J, K); overlaps are averaged."""
        ...


class Method:
    """A family's mathematics. Subclass it in one file, register it, and it is part of gyri.

    A method is built from its config, the `ItemSpec` and its networks by name; it never learns
    which view or data set it serves.

    Attributes
    ----------
    networks : trained networks by name.
    state : named tensors that are part of a checkpoint and are no weights (a codebook, ADA's p,
        a fitted mean). Changed only in `calibrate`, `fit` and `after_step`.
    phases, optimisers : see `Phase` and `OptimiserConfig`; empty for a `FitOnce` method.
    group : items that must stay together in one micro-batch and on one process.
    penalise : what is wrong with clean items (B, C, *S), (B,) each by name, as the view says; set
        from outside, None where nobody did.
    contains_training_data : True when samples are made of training voxels (SMOTE); such a run
        is refused by release.
    """

    contains_training_data: ClassVar[bool] = False
    networks: dict[str, nn.Module]
    state: dict[str, Tensor]
    phases: tuple[Phase, ...] = ()
    optimisers: dict[str, OptimiserConfig]
    group: int = 1
    penalise: Callable[[Tensor], dict[str, Tensor]] | None = None

    def __init__(self, config: Any, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        self.config = config
        self.spec = spec
        self.networks = networks
        self.state = {}
        self.optimisers = {}

    @classmethod
    def network_specs(cls, config: Any, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """Name the networks this method needs and what each reads and writes."""
        return {}

    @classmethod
    def default_networks(cls, config: Any) -> dict[str, str]:
        """Registered network for each name that a recipe leaves out."""
        return {}

    def calibrate(self, items: Tensor, context: Mapping[str, Tensor] | None = None) -> None:
        """Measure on TRAIN items (B, C, *S), once before step 0, what `state` must hold.

        `context` are the images given beside them, (B, C', *S) by name.
        """

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the loss of `phase` on `batch`."""
        raise UsageError(f"{type(self).__name__} is not trained by gradients.")

    def after_step(self, phase: str, statistics: dict[str, Tensor]) -> None:
        """Update `state` from the summed statistics of the step that has just been taken."""

    def hyperparameters(self, optimiser: str, progress: Progress) -> dict[str, Any]:
        """Return optimiser settings (lr, betas ...) that follow a schedule of the method's own."""
        return {}

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life in images of the network's moving average, None for no average."""
        return None

    def private_refusal(self) -> str | None:
        """Say why the method cannot be trained privately, None if it can.

        It can where the loss of a batch is the mean of its items' own, where one phase runs at
        every step, and where `state` serves as it was built, without `calibrate`.
        """
        return "the gradient of one subject is not its own, or something is measured on all"

    def use(self, needs: Mapping[str, Any]) -> None:
        """Take the trained methods that the recipe `needs`, by name."""
        if needs:
            raise UsageError(f"{type(self).__name__} takes no needs; got {', '.join(needs)}.")

    def to(self, device: torch.device) -> None:
        """Move networks and state to `device`."""
        for network in self.networks.values():
            network.to(device)
        self.state = {name: tensor.to(device) for name, tensor in self.state.items()}
