"""From latent codes to volumes: one call of a generator or decoder an item, no iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from gyri.types import Lift, SampleRng

ZPer = Literal["volume", "item"]
"""``volume`` gives all items of a volume one z, ``item`` gives each its own."""

Generate = Callable[..., Tensor]
"""``items = generate(z (B, L), condition (B, D), position (B, P))``, (B, C, *S).

Where images are given, they come last, (B, C', *S).
"""


def draw_latents(rng: SampleRng, size: int, items_per_volume: int, z_per: ZPer) -> Tensor:
    """Draw standard normal codes (V * items_per_volume, size), those of a volume together."""
    if z_per == "volume":
        return rng.normal((size,)).repeat_interleave(items_per_volume, dim=0)
    return rng.normal((items_per_volume, size)).flatten(0, 1)


def of_items(lift: Lift, condition: Tensor, items: int) -> tuple[Tensor, Tensor | None]:
    """Return condition (V * items, D) and position (V * items, P) of every item of volumes.

    Parameters
    ----------
    condition : (V, D).
    items : of a volume.
    """
    position = lift.encode(condition.new_zeros(1, *lift.volume_shape)).position
    if position is not None:
        position = position.repeat(len(condition), 1)
    return condition.repeat_interleave(items, dim=0), position


def decode_latents(
    generate: Generate,
    z: Tensor,
    lift: Lift,
    condition: Tensor,
    items_per_call: int = 64,
    context: Tensor | None = None,
) -> Tensor:
    """Make volumes (V, C, I, J, K).

    Parameters
    ----------
    generate : see `Generate`; its result may be of any floating type.
    z : (V * items_per_volume, L), those of a volume together.
    lift : how items sit in a volume; also says where they lie.
    condition : (V, D).
    items_per_call : most items that are made at once; bounds memory.
    context : (V, C', I, J, K) images that the volumes follow, None for none.
    """
    given = None if context is None else lift.encode(context).x
    of_item, position = of_items(lift, condition, len(z) // len(condition))
    items = [
        generate(
            z[at : at + items_per_call],
            of_item[at : at + items_per_call],
            None if position is None else position[at : at + items_per_call],
            *([] if given is None else [given[at : at + items_per_call]]),
        ).float()
        for at in range(0, len(z), items_per_call)
    ]
    return lift.decode(torch.cat(items))
