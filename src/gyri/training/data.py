"""TRAIN, resident on the device as it is stored, and the batches drawn from it.

Which subject is drawn at which position of the run is a function of the position and the run's
seed alone; no sampler has a state to save.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gyri.cohort.prepared import PreparedCohort
from gyri.conditions import ConditionSchema
from gyri.errors import DataError
from gyri.recipe import DataConfig
from gyri.runtime.seeding import numpy_rng
from gyri.runtime.streams import SampleRng, derive_seeds
from gyri.training.augment import Augmentation
from gyri.training.labels import to_inside, width
from gyri.types import Batch, Channel, Items
from gyri.views.base import Changed, View


class ResidentVolumes:
    """Stored volumes that turn into float32 in [-1, 1] when indexed; labels become one-hot.

    Parameters
    ----------
    stored : (N, channels, I, J, K) integers as the files hold them, on the device they stay on.
    scale : ``stored * scale`` is the prepared intensity.
    intensity_range : the prepared range that is mapped to [-1, 1].
    channels : what the stored channels are; None takes all as intensities.
    num_given : how many of them, the last, are given to the model and not made by it.
    """

    def __init__(
        self,
        stored: Tensor,
        scale: float,
        intensity_range: tuple[float, float],
        channels: tuple[Channel, ...] | None = None,
        num_given: int = 0,
    ) -> None:
        low, high = intensity_range
        self.stored = stored
        self.channels = channels or tuple(Channel(str(n)) for n in range(stored.shape[1]))
        made = len(self.channels) - num_given
        self.made, self.given = self.channels[:made], self.channels[made:]
        self.has_labels = any(channel.kind == "label" for channel in self.channels)
        self.gain = 2 * scale / (high - low)
        self.offset = -2 * low / (high - low) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, C, I, J, K), with C as a model sees it."""
        return (len(self.stored), width(self.channels), *self.stored.shape[2:])

    def context(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the given channels of the volumes `rows` by name, (V, C', I, J, K) each."""
        if not self.given:
            return {}
        widths = [width([channel]) for channel in self.given]
        parts = self[rows][:, width(self.made) :].split(widths, 1)
        return {channel.name: part for channel, part in zip(self.given, parts)}

    def __getitem__(self, index: Any) -> Tensor:
        """Return what ``[...]`` selects; the channel axis is always taken whole."""
        stored = self.stored[index]
        if not self.has_labels:
            return self._intensities(stored)
        first = index[0] if isinstance(index, tuple) else index
        axis = 0 if isinstance(first, int) else 1
        parts = [
            part if channel.kind == "label" else self._intensities(part)
            for part, channel in zip(stored.unbind(axis), self.channels, strict=True)
        ]
        return to_inside(parts, self.channels, axis)

    def _intensities(self, stored: Tensor) -> Tensor:
        return stored.float().mul_(self.gain).add_(self.offset)


class Feed:
    """Draws batches of items from one split of a prepared cohort.

    Parameters
    ----------
    volumes : the split's volumes.
    condition : (N, D) condition vectors of the volumes.
    view : cuts items out of volumes.
    seed : of the run.
    augment : changes whole volumes before items are cut out of them; None leaves them alone.
    """

    def __init__(
        self,
        volumes: ResidentVolumes,
        condition: Tensor,
        view: View,
        seed: int,
        augment: Augmentation | None = None,
    ) -> None:
        self.volumes = volumes
        self.augment = augment
        self.condition = condition
        self.view = view
        self.seed = seed
        self._epoch: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.volumes.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the volumes lie."""
        return self.volumes.stored.device

    def _rows(self, positions: Tensor) -> Tensor:
        """Map positions to rows: a new permutation of the volumes every epoch."""
        rows = torch.empty(len(positions), dtype=torch.int64)
        epochs = positions // len(self)
        for epoch in epochs.unique().tolist():
            if self._epoch[0] != epoch:
                order = numpy_rng(self.seed, "epoch", epoch).permutation(len(self))
                self._epoch = (epoch, torch.from_numpy(order))
            own = epochs == epoch
            rows[own] = self._epoch[1][positions[own] % len(self)]
        return rows

    def batch(self, positions: Tensor) -> Batch:
        """Return the items at `positions` (B,) int64 of the run's endless stream."""
        return self.take(self._rows(positions), positions)

    def take(self, rows: Tensor, positions: Tensor) -> Batch:
        """Return items of the volumes `rows` (B,) as they are drawn at `positions` (B,) int64."""
        rows = rows.to(self.device)
        view_rng = SampleRng(derive_seeds(positions, self.seed, "view"), self.device)
        items = self._items(positions, rows, view_rng)
        x, context = self._parted(items.x)
        return Batch(
            x=x,
            condition=self.condition[rows],
            position=items.position,
            subject=rows,
            seed=derive_seeds(positions, self.seed, "loss"),
            context=context | items.context,
        )

    def _parted(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Part items of all channels into what is made and, by name, what is given."""
        made = self.view.item_channels
        if x.shape[1] == made:
            return x, {}
        per_channel = made // self.view.volume_shape[0]
        widths = [width([channel]) * per_channel for channel in self.volumes.given]
        parts = x[:, made:].split(widths, 1)
        return x[:, :made], {c.name: part for c, part in zip(self.volumes.given, parts)}

    def _items(self, positions: Tensor, rows: Tensor, view_rng: SampleRng) -> Items:
        if self.augment is None:
            return self.view.training_items(self.volumes, rows, view_rng)
        seeds = derive_seeds(positions, self.seed, "augment")
        changed = Changed(self.augment(self.volumes[rows], seeds), rows)
        return self.view.training_items(changed, torch.arange(len(rows)).to(self.device), view_rng)

    def everything(self) -> tuple[Tensor, Tensor]:
        """Return all items (N * items_per_volume, C, *S) and their conditions."""
        per_volume = self.view.items_per_volume
        return self._all_items()[0], self.condition.repeat_interleave(per_volume, 0)

    def items_of(self, row: int) -> Items:
        """Return all items of one volume, with the images given beside them."""
        items = self.view.items_of(self.volumes, row)
        x, context = self._parted(items.x)
        return Items(x, items.position, context | items.context)

    def _all_items(self) -> tuple[Tensor, dict[str, Tensor]]:
        everyone = [self.items_of(row) for row in range(len(self))]
        context = {
            name: torch.cat([items.context[name] for items in everyone])
            for name in everyone[0].context
        }
        return torch.cat([items.x for items in everyone]), context

    def calibration_items(self, num: int = 512) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `Method.calibrate` measures on, with the images given beside it by name.

        These are all items, or `num` drawn ones if several items make a volume.
        """
        if self.view.items_per_volume == 1:
            return self._all_items()
        batch = self.batch(torch.arange(num))
        return batch.x, batch.context


def load_split(
    cohort: PreparedCohort, split: str, data: DataConfig, device: torch.device
) -> ResidentVolumes:
    """Read a split of a prepared cohort onto `device`.

    Raises
    ------
    DataError
        If the cohort lacks a channel of the recipe, has another spacing, or the split is empty.
    """
    names = [channel.name for channel in cohort.channels]
    wanted = (*data.channels, *data.context)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{cohort.root} has the channels {', '.join(names)}; the recipe asks for "
            f"{', '.join(missing)}. Prepare the cohort with them or change data.channels and "
            "data.context."
        )
    if data.spacing_mm is not None and not np.allclose(cohort.grid.spacing_mm, data.spacing_mm):
        raise DataError(
            f"{cohort.root} has a spacing of {cohort.grid.spacing_mm[0]:g} mm; the recipe is made "
            f"for {data.spacing_mm:g} mm. Run `gyri prepare ... --spacing {data.spacing_mm:g}`, "
            "or override data.spacing_mm."
        )
    chosen = [names.index(name) for name in wanted]
    if all(cohort.channels[names.index(name)].kind == "label" for name in data.channels):
        raise DataError(
            f"data.channels is {', '.join(data.channels) or 'empty'}; it needs at least one "
            "channel that holds intensities, for evaluation judges these."
        )
    rows = cohort.rows(split, data.sessions)
    if len(rows) == 0:
        raise DataError(f"{cohort.root} has no subject in {split}.")
    stored, scale = cohort.load(rows)
    return ResidentVolumes(
        torch.from_numpy(np.ascontiguousarray(stored[:, chosen])).to(device),
        scale,
        cohort.intensity_range,
        tuple(cohort.channels[index] for index in chosen),
        len(data.context),
    )


def encode_conditions(
    cohort: PreparedCohort, schema: ConditionSchema, split: str, data: DataConfig
) -> Tensor:
    """Return the condition vectors (N, D) of a split's scans."""
    return schema.encode(schema.parse(cohort.rows(split, data.sessions)))
