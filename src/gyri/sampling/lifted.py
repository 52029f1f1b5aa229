"""Lifting: a denoiser of items becomes a denoiser of volumes.

``x_noised`` lives in volume space. At every step the view cuts it into items, the model predicts
each clean item, and the clean items (never noise or velocities) make a volume again, overlaps
averaged; the sampler then moves the volume. So a model of slices samples whole volumes jointly.

Where a view's `encode` is not linear (deformations, codes of an autoencoder), noise on a volume is
no noise on its item. Such a view has one item a volume and does not lift: ``x_noised`` then lives
on the items, as `ItemSpace` says, and what was drawn is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gyri.sampling.samplers import Denoiser
from gyri.sampling.schedules import Level
from gyri.types import Items, Lift

ItemDenoiser = Callable[..., Tensor]
"""``denoised = item_denoiser(x_noised (B, C, *S), level, condition (B, D), position)``.

Where images are given, they come last, (B, C', *S).
"""


class Space(Protocol):
    """Where ``x_noised`` lives and how items are cut from it: a `Lift`, or an `ItemSpace`."""

    slice_axis: int | None

    @property
    def volume_shape(self) -> tuple[int, ...]:
        """Shape of one ``x_noised``."""
        ...

    def encode(self, volumes: Tensor) -> Items:
        """Cut items from ``x_noised``."""
        ...

    def decode(self, items: Tensor) -> Tensor:
        """Put clean items together."""
        ...


class ItemSpace:
    """The items of a view that does not lift, each as if it were a volume.

    Parameters
    ----------
    lift : the view; it has one item a volume.
    """

    slice_axis: int | None = None

    def __init__(self, lift: Lift) -> None:
        self.volume_shape = (lift.item_channels, *lift.item_shape)

    def encode(self, volumes: Tensor) -> Items:
        """Return the items unchanged."""
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        """Return the items unchanged."""
        return items


@runtime_checkable
class Bounding(Protocol):
    """A view that does not lift and whose items stand for intensities, which have bounds."""

    def bounded(self, items: Tensor, bound: float) -> Tensor:
        """Return clean items whose volumes lie inside ``[-bound, bound]``."""
        ...


def space_of(lift: Lift) -> Space:
    """Return where ``x_noised`` lives: volumes, or items where the view does not lift."""
    return lift if lift.lifts else ItemSpace(lift)


def lifted(
    item_denoiser: ItemDenoiser,
    space: Space,
    condition: Tensor,
    items_per_call: int,
    images: Tensor | None = None,
) -> Denoiser:
    """Return a denoiser of volumes (V, C, I, J, K), or of items where these are the space.

    Parameters
    ----------
    item_denoiser : the model, guidance included.
    space : how items are cut; its `encode` must be linear.
    condition : (V, D), one row a volume.
    items_per_call : most items that the network sees at once; bounds memory.
    images : (V, C', I, J, K) that the denoiser reads beside ``x_noised``, None for none.
    """
    given = None if images is None else space.encode(images).x

    def denoiser(x_noised: Tensor, level: Level) -> Tensor:
        items = space.encode(x_noised)
        of_item = condition.repeat_interleave(len(items.x) // len(x_noised), dim=0)
        denoised = [
            item_denoiser(
                items.x[rows],
                level,
                of_item[rows],
                None if items.position is None else items.position[rows],
                *([] if given is None else [given[rows]]),
            )
            for rows in _chunks(len(items.x), items_per_call)
        ]
        return space.decode(torch.cat(denoised))

    return denoiser


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
