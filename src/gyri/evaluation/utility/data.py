"""Cohorts as cases: volumes on a grid of about 4 mm with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.cohort.files import read_json
from gyri.cohort.prepared import MANIFEST, PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.evaluation.segment import TissueModel, fit_tissue_model, segment
from gyri.evaluation.utility.tasks import TISSUE, Cases, Task
from gyri.types import Channel, Grid

WORKING_MM = 4.0
"""Finer grids are averaged over blocks of whole voxels up to this size."""
CHUNK = 16


@dataclass(frozen=True)
class Generated:
    """Synthetic cases and where they come from.

    Parameters
    ----------
    folder : of the synthetic cohort.
    cases : those whose target is known.
    num : all volumes in the folder.
    trained_on : subjects that the generator has seen; None where this cannot be found out.
    """

    folder: str
    cases: Cases
    num: int
    trained_on: frozenset[str] | None


def block_size(grid: Grid) -> int:
    """Return how many voxels along each axis are averaged into one."""
    return max(1, int(WORKING_MM / max(grid.spacing_mm) + 1e-6))


def average_blocks(volumes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Average (..., I, J, K) over blocks of size^3 voxels; the grid's end is filled with 0."""
    if size == 1:
        return volumes
    lead, shape = volumes.shape[:-3], volumes.shape[-3:]
    filled = np.pad(volumes, [(0, 0)] * len(lead) + [(0, -side % size) for side in shape])
    split = [part for side in filled.shape[-3:] for part in (side // size, size)]
    means: NDArray[np.float32] = filled.reshape(*lead, *split).mean((-5, -3, -1))
    return means


def majority_blocks(labels: NDArray[np.integer], size: int, num_labels: int) -> NDArray[np.uint8]:
    """Return the label that most voxels of each block have."""
    if size == 1:
        return labels.astype(np.uint8)
    shares = [average_blocks((labels == k).astype(np.float32), size) for k in range(num_labels)]
    return np.argmax(shares, axis=0).astype(np.uint8)


class Reader:
    """Reads cases of a task.

    Parameters
    ----------
    cohort : prepared cohort whose grid everything has to be on.
    task : of it.
    channels : names of the intensity channels to be used, in order.
    """

    def __init__(self, cohort: PreparedCohort, task: Task, channels: Sequence[str]) -> None:
        self.cohort, self.task, self.channels = cohort, task, tuple(channels)
        self.size = block_size(cohort.grid)
        spacing_mm = [float(s) * self.size for s in cohort.grid.spacing_mm]
        self.spacing_mm = (spacing_mm[0], spacing_mm[1], spacing_mm[2])
        self.model: TissueModel | None = None
        if task.source == TISSUE:
            train = self._volumes(cohort, cohort.rows("TRAIN"))
            self.model = fit_tissue_model(self._set(train, cohort.rows("TRAIN")))

    def real(self, splits: Sequence[str], cohort: PreparedCohort | None = None) -> Cases:
        """Return the cases of some splits, one a subject; those without a target are left out.

        Parameters
        ----------
        cohort : another cohort on the same grid (an external site).

        Raises
        ------
        DataError
            There are none, or the grid or the channels are others.
        """
        cohort = cohort or self.cohort
        self._check_grid(cohort.grid, cohort.name)
        rows = pd.concat([cohort.rows(split) for split in splits])
        names = [str(name) for name in rows.index]
        if self.task.kind == "segmentation":
            volumes = self._volumes(cohort, rows)
            return Cases(volumes, self._maps(cohort, rows, volumes), (*names,), self.spacing_mm)
        target = self.task.targets(rows)
        known = np.isfinite(target)
        if not known.any():
            raise DataError(
                f"No subject in {' or '.join(splits)} of {cohort.name} has a known "
                f"{self.task.name}. Choose another task or split."
            )
        volumes = self._volumes(cohort, rows[known])
        return self._cases(volumes, target[known], np.array(names)[known])

    def synthetic(self, samples: SyntheticCohort) -> Generated:
        """Return the samples whose target is known: by their condition, their label channel or,
        for tissues, by the same segmenter that labels the real ones.
        """
        self._check_grid(samples.grid, str(samples.root))
        made = samples.volume_set()
        if not np.isfinite(made.volumes).all():
            raise DataError(f"{samples.root} holds samples with NaN or Inf; sample them again.")
        order = [made.channels.index(name) for name in self.channels]
        volumes = average_blocks(made.volumes[:, order], self.size)
        if self.task.kind == "segmentation":
            maps = self._synthetic_maps(samples, made, volumes)
            cases = Cases(volumes, maps, (*made.ids,), self.spacing_mm)
        else:
            target = self.task.targets(made.table)
            known = np.isfinite(target)
            cases = self._cases(volumes[known], target[known], np.array(made.ids)[known])
        seen = trained_on(samples, self.cohort)
        return Generated(str(samples.root), cases, len(made), seen)

    def _cases(
        self, volumes: NDArray[np.float32], target: NDArray[np.float64], names: NDArray[np.str_]
    ) -> Cases:
        kind = np.int64 if self.task.kind == "classification" else np.float64
        names_ = tuple(str(name) for name in names)
        return Cases(volumes, target.astype(kind), names_, self.spacing_mm)

    def _check_grid(self, grid: Grid, name: str) -> None:
        own = self.cohort.grid
        if grid.shape != own.shape or not np.allclose(grid.affine, own.affine, atol=1e-3):
            raise DataError(
                f"{name} is on {grid.shape} voxels at {grid.spacing_mm} mm, {self.cohort.name} on "
                f"{own.shape} at {own.spacing_mm} mm. Prepare or sample both on one grid."
            )

    def _volumes(self, cohort: PreparedCohort, rows: pd.DataFrame) -> NDArray[np.float32]:
        names = [channel.name for channel in cohort.channels]
        if missing := [name for name in self.channels if name not in names]:
            raise DataError(f"{cohort.name} has no channel {', '.join(missing)}.")
        places = [names.index(name) for name in self.channels]
        parts = [
            average_blocks(cohort.unit_intensities(rows[k : k + CHUNK], places), self.size)
            for k in range(0, len(rows), CHUNK)
        ]
        return np.concatenate(parts)

    def _set(self, volumes: NDArray[np.float32], rows: pd.DataFrame) -> VolumeSet:
        """Return averaged volumes as a set, on their own grid."""
        affine = np.array(self.cohort.grid.affine)
        affine[:3, 3] += affine[:3, :3] @ np.full(3, (self.size - 1) / 2)
        affine[:3, :3] *= self.size
        i, j, k = volumes.shape[2:]
        grid = Grid((i, j, k), tuple(tuple(row) for row in affine.tolist()))
        return VolumeSet("cases", volumes, rows, grid, self.channels)

    def _label_channel(self) -> Channel:
        return next(c for c in self.cohort.channels if c.name == self.task.source)

    def _maps(
        self, cohort: PreparedCohort, rows: pd.DataFrame, volumes: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        if self.model is not None:
            return segment(self._set(volumes, rows), self.model).labels
        channel = self._label_channel()
        place = [c.name for c in cohort.channels].index(channel.name)
        stored, _ = cohort.load(rows)
        return majority_blocks(stored[:, place], self.size, channel.num_labels)

    def _synthetic_maps(
        self, samples: SyntheticCohort, made: VolumeSet, volumes: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        if self.model is not None:
            return segment(self._set(volumes, made.table), self.model).labels
        channel = self._label_channel()
        return majority_blocks(samples.label_maps(channel.name), self.size, channel.num_labels)


def trained_on(samples: SyntheticCohort, cohort: PreparedCohort) -> frozenset[str] | None:
    """Return the subjects that the generator of some samples was trained on, None if unknown.

    They are the TRAIN subjects of the cohort that its run names, if that still has the split that
    the samples name.
    """
    facts = samples.facts
    if facts["split_hash"] == cohort.split_hash:
        return frozenset(map(str, cohort.rows("TRAIN").index))
    run = Path(facts["run"]) / "run.json"
    source = Path(read_json(run, missing_ok=True).get("data", ""))
    if not (source / MANIFEST).is_file():
        return None
    other = PreparedCohort.read(source)
    if other.split_hash != facts["split_hash"]:
        return None
    return frozenset(map(str, other.rows("TRAIN").index))
