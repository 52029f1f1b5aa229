"""Things of resident volumes that are costly to make, made once each."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gyri.views.base import Changed, Volumes


class Kept:
    """What `make` returns of single volumes, for as long as the volumes are resident.

    Parameters
    ----------
    make : volumes and rows (B,) -> (B, ...), each volume's from that volume alone.
    """

    def __init__(self, make: Callable[[Volumes, Tensor], Tensor]) -> None:
        self.make = make
        self._kept: WeakKeyDictionary[Volumes, dict[int, Tensor]] = WeakKeyDictionary()

    def of(self, volumes: Volumes, rows: Tensor) -> Tensor:
        """Return it for the volumes `rows` (B,); of a passing tensor nothing is remembered."""
        if isinstance(volumes, Tensor | Changed):
            return self.make(volumes, rows)
        kept = self._kept.setdefault(volumes, {})
        for row in rows.tolist():
            if row not in kept:
                kept[row] = self.make(volumes, torch.tensor([row]))[0]
        return torch.stack([kept[row] for row in rows.tolist()])
