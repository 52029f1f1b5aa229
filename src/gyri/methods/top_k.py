"""Top-k training: the generator learns from its most realistic samples alone.

Sinha et al., 2020, arXiv:2002.06224, algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gyri.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TopKConfig:
    """Which of the fakes teach the generator.

    Parameters
    ----------
    rate : by which the share that is kept falls in every epoch over TRAIN's items.
    floor : the smallest share.
    group : items that are ranked together: neighbours in the batch, which stay in one micro-batch.
    column : a categorical condition, counted from 0, within whose levels items are ranked, so that
        rare ones keep their share; None ranks all of a group together.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    rate: float = 0.99
    floor: float = 0.5
    group: int = 8
    column: int | None = None

    def __post_init__(self) -> None:
        """Refuse shares that keep nothing."""
        if not (0 < self.rate <= 1 and 0 < self.floor <= 1 and self.group > 0):
            raise UsageError(
                f"top_k has rate={self.rate:g}, floor={self.floor:g} and group={self.group}; "
                "expected rate and floor above 0 and at most 1, and a group of 1 or more."
            )

    def share(self, epochs: float) -> float:
        """Share of the fakes that is kept after `epochs`, which may be a fraction."""
        return max(self.rate**epochs, self.floor)


def top_k_weights(logits: Tensor, levels: Tensor | None, share: float, group: int) -> Tensor:
    """Return weights (B,) of items: a mean over groups of means over those that are kept.

    Kept is the `share` with the largest logits, rounded up, of each group and level.

    Parameters
    ----------
    logits : (B,), higher for realistic items.
    levels : (B,) int64, or None where all are alike.
    share : above 0, at most 1.
    group : neighbours that are ranked together; divides B.
    """
    logits = logits.detach()
    levels = torch.zeros_like(logits, dtype=torch.int64) if levels is None else levels
    weights = torch.zeros_like(logits)
    groups = torch.arange(len(logits), device=logits.device).split(group)
    for rows in groups:
        kept = []
        for level in levels[rows].unique():
            members = rows[levels[rows] == level]
            num = math.ceil(share * len(members) - 1e-9)
            kept.append(members[logits[members].topk(num).indices])
        chosen = torch.cat(kept)
        weights[chosen] = 1 / (len(chosen) * len(groups))
    return weights
