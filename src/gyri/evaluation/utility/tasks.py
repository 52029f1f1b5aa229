"""Tasks: what a model has to say of a volume, and the cases it learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.cohort.table import ColumnType, is_missing
from gyri.errors import UsageError, nearest
from gyri.types import Channel

Kind = Literal["classification", "regression", "segmentation"]

TISSUE = "tissue"
TISSUES = ("CSF", "GM", "WM")
CDR_CUT = "> 0"
STRATA = 6
"""Quantile bins in which subjects of a continuous target are dealt."""


@dataclass(frozen=True)
class Task:
    """What is to be predicted.

    Parameters
    ----------
    name : as it was asked for.
    kind : decides estimators and measures.
    source : the table's column or the label channel it comes from; `TISSUE` for the segmenter.
    levels : classes, or structures without the background; empty for a regression.
    unit : of a regression.
    """

    name: str
    kind: Kind
    source: str
    levels: tuple[str, ...] = ()
    unit: str = ""

    def targets(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Read (N,) targets off a table: class numbers or values, NaN where missing."""
        if self.source not in table:
            return np.full(len(table), np.nan)
        values = [np.nan if is_missing(v) else v for v in table[self.source]]
        if self.kind == "regression":
            return np.array([float(v) for v in values])
        if self.source == "cdr":
            return np.array([np.nan if v is np.nan else float(float(v) > 0) for v in values])
        place = {level: float(k) for k, level in enumerate(self.levels)}
        return np.array([place.get(_level(v), np.nan) for v in values])


def find_task(
    name: str,
    table: pd.DataFrame,
    columns: Mapping[str, ColumnType],
    channels: Sequence[Channel],
) -> Task:
    """Turn a name into a task of this cohort.

    Parameters
    ----------
    name : a column (categorical: classification, ``cdr`` above 0 against 0; continuous:
        regression), ``tissue``, or a label channel (segmentation).
    table, columns : TRAIN rows, whose levels become the classes, and the types of their columns.
    channels : of the cohort.

    Raises
    ------
    UsageError
        There is no such column or channel, or TRAIN holds fewer than two different values of it.
    """
    labels = {c.name: c for c in channels if c.kind == "label"}
    if name in labels:
        structures = tuple(f"label {k}" for k in range(1, labels[name].num_labels))
        return Task(name, "segmentation", name, structures)
    if name == TISSUE:
        return Task(name, "segmentation", TISSUE, TISSUES)
    if name not in columns:
        known = [*columns, *labels, TISSUE]
        raise UsageError(
            f"There is no task {name!r}.{nearest(name, known)} A task is a column of the cohort, "
            f"a label channel or {TISSUE!r}: {', '.join(known)}."
        )
    known_values = [v for v in table[name] if not is_missing(v)]
    if len(set(known_values)) < 2:
        raise UsageError(
            f"{name} has {len(set(known_values))} different values in TRAIN; a task needs two."
        )
    if name == "cdr":
        return Task(name, "classification", name, ("CDR 0", f"CDR {CDR_CUT}"))
    if columns[name].kind == "continuous":
        return Task(name, "regression", name, unit=columns[name].unit)
    return Task(name, "classification", name, tuple(sorted({_level(v) for v in known_values})))


def _level(value: object) -> str:
    return str(value).strip()


@dataclass(frozen=True)
class Cases:
    """Volumes with what is to be said of them.

    Parameters
    ----------
    volumes : (N, C, I, J, K) float32 in [0, 1].
    target : (N,) int64 classes or float64 values, or (N, I, J, K) uint8 structures, 0 background.
    subjects : N names; cases of one person share theirs.
    spacing_mm : along I, J, K.
    """

    volumes: NDArray[np.float32]
    target: NDArray[np.generic]
    subjects: tuple[str, ...]
    spacing_mm: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.volumes)

    def take(self, rows: NDArray[np.int64]) -> Cases:
        """Return some of the cases, in the order of `rows`; a row may come more than once."""
        names = tuple(self.subjects[r] for r in rows)
        return replace(self, volumes=self.volumes[rows], target=self.target[rows], subjects=names)

    def join(self, other: Cases) -> Cases:
        """Return these cases and those of `other` after them."""
        return replace(
            self,
            volumes=np.concatenate([self.volumes, other.volumes]),
            target=np.concatenate([self.target, other.target]),
            subjects=self.subjects + other.subjects,
        )

    def digest(self) -> str:
        """SHA-256 of everything: two sets of cases with the same digest give the same result."""
        found = hashlib.sha256(repr((self.subjects, self.spacing_mm)).encode())
        for array in (self.volumes, self.target):
            found.update(f"{array.shape}{array.dtype}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def strata(task: Task, target: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the (N,) stratum of each target: its class, its quantile bin, one for all of a
    segmentation; -1 where it is missing.
    """
    if task.kind == "segmentation":
        return np.zeros(len(target), np.int64)
    values = target.astype(float)
    known = np.isfinite(values)
    found = np.full(len(values), -1, np.int64)
    if task.kind == "regression":
        edges = np.quantile(values[known], np.linspace(0, 1, STRATA + 1)[1:-1])
        found[known] = np.searchsorted(edges, values[known])
    else:
        found[known] = values[known].astype(np.int64)
    return found


def nested_order(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an order of all cases whose every beginning has the mix of the whole.

    The first share f of it is the subset of f; subsets of one order lie inside each other.

    Parameters
    ----------
    groups : (N,) stratum of each case.
    """
    place = np.empty(len(groups))
    for group in np.unique(groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        place[rows] = (np.arange(len(rows)) + rng.uniform(0.25, 0.75)) / len(rows)
    return np.argsort(place, kind="stable").astype(np.int64)


def subset_size(fraction: float, total: int) -> int:
    """Return how many of `total` subjects a fraction is; at least one."""
    return max(1, round(fraction * total))
