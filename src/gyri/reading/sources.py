"""The volumes that a study can draw from, one at a time: real scans and samples on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gyri.cohort.nifti import read_volume
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError, UsageError, nearest
from gyri.types import Channel, Grid


@dataclass(frozen=True)
class RealSource:
    """Scans of a split of a prepared cohort, the first session of each subject.

    Parameters
    ----------
    cohort : where they lie.
    table : one row a scan.
    channel : which channel is shown.
    """

    cohort: PreparedCohort
    table: pd.DataFrame
    channel: Channel

    @classmethod
    def open(cls, path: Path, split: str, channel: str) -> RealSource:
        """Open a cohort; `channel` "" is the first intensity channel."""
        cohort = PreparedCohort.read(path)
        return cls(cohort, cohort.rows(split), choose_channel(cohort.channels, channel, path))

    @property
    def grid(self) -> Grid:
        """Of all volumes."""
        return self.cohort.grid

    def volume(self, row: int) -> np.ndarray:
        """Return one volume (I, J, K) float32 in [0, 1]."""
        index = self.cohort.channels.index(self.channel)
        one: np.ndarray = self.cohort.unit_intensities(self.table.iloc[[row]], [index])[0, 0]
        return one


@dataclass(frozen=True)
class SyntheticSource:
    """Samples of one model.

    Parameters
    ----------
    cohort : where they lie.
    table : one row a finished sample, the conditions it was made for.
    channel : which channel is shown.
    """

    cohort: SyntheticCohort
    table: pd.DataFrame
    channel: Channel

    @classmethod
    def open(cls, path: Path, channel: str) -> SyntheticSource:
        """Open a folder of samples; `channel` "" is the first intensity channel."""
        cohort = SyntheticCohort.read(path)
        written = [sample for sample in cohort.table.index if cohort.is_written(sample)]
        return cls(
            cohort, cohort.table.loc[written], choose_channel(cohort.channels, channel, path)
        )

    def volume(self, row: int) -> np.ndarray:
        """Return one volume (I, J, K) float32 in [0, 1]."""
        path = self.cohort.path(str(self.table.index[row]), self.channel)
        values = read_volume(path)[0]
        if values.shape != self.cohort.grid.shape:
            raise DataError(f"{path} is not on its data set's grid. Sample it again.")
        return values


def choose_channel(channels: tuple[Channel, ...], name: str, path: Path) -> Channel:
    """Return an intensity channel by name; "" is the first."""
    shown = {channel.name: channel for channel in channels if channel.kind == "intensity"}
    if not shown:
        raise DataError(f"{path} has no intensity channel; there is nothing to look at.")
    if name and name not in shown:
        raise UsageError(
            f"{path} has no channel {name!r}.{nearest(name, shown)} Channels: {', '.join(shown)}."
        )
    return shown[name] if name else next(iter(shown.values()))


def refuse_mixture(real: RealSource, synthetic: SyntheticSource, split: str) -> None:
    """Refuse samples that cannot be compared with these scans.

    Raises
    ------
    UsageError
        Another grid, or a model that was trained on people of the split.
    """
    facts, root = synthetic.cohort.facts, synthetic.cohort.root
    ours, theirs = real.grid, synthetic.cohort.grid
    if ours.shape != theirs.shape or not np.allclose(ours.affine, theirs.affine, atol=1e-3):
        raise UsageError(
            f"{root} has {theirs.shape} voxels at {theirs.spacing_mm[0]:g} mm, the cohort has "
            f"{ours.shape} at {ours.spacing_mm[0]:g} mm. Readers tell a resampled volume at once: "
            "show samples beside the cohort that their model was trained on."
        )
    if facts.get("data_hash") == real.cohort.data_hash and (
        facts.get("split_hash") != real.cohort.split_hash
    ):
        raise UsageError(
            f"{root}: the model was trained on this cohort dealt differently; its training people "
            f"may be in {split}. Give the cohort as it was."
        )
    if bool(facts.get("skull_stripped")) != real.cohort.skull_stripped:
        raise UsageError(f"{root} and the cohort differ in showing heads or brains only.")
