"""Lifting: a denoiser of items becomes a denoiser of volumes.

``x_noised`` lives in volume space. At every step the view cuts it into items, the model predicts
each clean item, and the clean items (never noise or velocities) make a volume again, overlaps
averaged; the sampler then moves the volume. So a model of slices samples whole volumes jointly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gyri.sampling.samplers import Denoiser
from gyri.sampling.schedules import Level
from gyri.types import Lift

ItemDenoiser = Callable[[Tensor, Level, Tensor, "Tensor | None"], Tensor]
"""``denoised = item_denoiser(x_noised (B, C, *S), level, condition (B, D), position)``."""


def lifted(
    item_denoiser: ItemDenoiser, lift: Lift, condition: Tensor, items_per_call: int
) -> Denoiser:
    """Return a denoiser of volumes (V, C, I, J, K).

    Parameters
    ----------
    item_denoiser : the model, guidance included.
    lift : how items sit in a volume; its `encode` must be linear.
    condition : (V, D), one row a volume.
    items_per_call : most items that the network sees at once; bounds memory.
    """

    def denoiser(x_noised: Tensor, level: Level) -> Tensor:
        items = lift.encode(x_noised)
        of_item = condition.repeat_interleave(len(items.x) // len(x_noised), dim=0)
        denoised = [
            item_denoiser(
                items.x[rows],
                level,
                of_item[rows],
                None if items.position is None else items.position[rows],
            )
            for rows in _chunks(len(items.x), items_per_call)
        ]
        return lift.decode(torch.cat(denoised))

    return denoiser


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
