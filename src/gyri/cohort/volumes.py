"""A set of volumes in memory: what the judge and the report read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gyri.types import Grid


@dataclass
class VolumeSet:
    """Volumes on one grid with the table rows that belong to them.

    Parameters
    ----------
    name : what the set is called in tables and figures, for example ``"HOLD"``.
    volumes : (N, C, I, J, K) float32 in [0, 1], RAS+; C intensity channels.
    table : N rows, index is the subject's id, columns are covariates (NaN or None where missing).
    grid : the grid all volumes share.
    channels : names of the C channels, for example ``("T1w",)``.
    labels : label channels by name, each (N, I, J, K) int16; empty where the volumes have none.
    """

    name: str
    volumes: np.ndarray
    table: pd.DataFrame
    grid: Grid
    channels: tuple[str, ...]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def ids(self) -> list[str]:
        """Subject ids in the order of the volumes."""
        return [str(name) for name in self.table.index]

    def take(self, rows: np.ndarray, name: str | None = None) -> VolumeSet:
        """Return the set of the given rows (integer or boolean index)."""
        return VolumeSet(
            name or self.name,
            self.volumes[rows],
            self.table.iloc[rows] if rows.dtype != bool else self.table[rows],
            self.grid,
            self.channels,
            {channel: maps[rows] for channel, maps in self.labels.items()},
        )
