"""Subjects dealt to TRAIN, VAL, HOLD and TEST.

The unit is the subject: all sessions, slices and patches of a subject lie on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gyri.cohort.table import ColumnType, is_missing, listed
from gyri.errors import UsageError, nearest
from gyri.runtime.seeding import numpy_rng

SPLITS = ("TRAIN", "VAL", "HOLD", "TEST")
"""TRAIN teaches, VAL chooses, HOLD is the metrics' reference, TEST is for downstream tasks."""

SPLIT_COLUMN = ColumnType(
    kind="categorical",
    description="Part of the cohort",
    levels={
        "TRAIN": "teaches the model",
        "VAL": "chooses settings and checkpoints",
        "HOLD": "reference of the metrics",
        "TEST": "downstream tasks and readers",
    },
)

DEFAULT_SIZES: Mapping[str, float] = {
    "TRAIN": 150 / 302,
    "VAL": 22 / 302,
    "HOLD": 100 / 302,
    "TEST": 30 / 302,
}
"""Fractions; the 302 subjects of OASIS-1 give exactly 150, 22, 100 and 30."""

AGE_BINS = 6
GOLDEN = (5**0.5 - 1) / 2


def split_subjects(
    subjects: pd.DataFrame,
    sizes: Mapping[str, float] | None = None,
    stratify: Sequence[str] = ("age", "sex"),
    seed: int = 0,
) -> pd.Series:
    """Deal subjects to splits so that every split looks like the cohort.

    Subjects are sorted by stratum (jointly by all columns of `stratify`, in random order within
    a stratum) and dealt one by one to the split that lags furthest behind its share. Totals come
    out exact, and every run of the sorted list, so every stratum, is shared out in proportion.

    Parameters
    ----------
    subjects : one row a subject, index is the label.
    sizes : split -> its share, in any unit: fractions, percentages, numbers of subjects;
        `DEFAULT_SIZES` when None.
    stratify : columns; float columns are cut into quantile bins, a missing value is a level.
    seed : another seed gives another deal.

    Returns
    -------
    pd.Series
        Name of the split by subject, in the order of `subjects`.

    Raises
    ------
    UsageError
        A subject that comes twice (rows of sessions or slices cannot be dealt), an unknown column
        or split, or a size below 0.
    """
    if not subjects.index.is_unique:
        twice = sorted(set(map(str, subjects.index[subjects.index.duplicated()])))
        raise UsageError(
            f"{listed(twice)} would be dealt more than once. Sessions and slices of one person in "
            "two splits make every result too good; give one row a subject."
        )
    totals = split_totals(len(subjects), sizes or DEFAULT_SIZES)
    for column in stratify:
        if column not in subjects:
            raise UsageError(
                f"Cannot stratify by {column!r}: no such column."
                f"{nearest(column, map(str, subjects.columns))} "
                f"Columns: {', '.join(map(str, subjects.columns)) or 'none'}."
            )
    labels = sorted(map(str, subjects.index))
    table = subjects.loc[labels]
    strata = [_levels(table[column]) for column in reversed(stratify)]
    chance = numpy_rng("split", seed).permutation(len(labels))
    order = np.lexsort([chance, *strata])
    dealt = _deal(totals)
    # The order of strata is fixed: without this start a lone subject would land in the same
    # split whatever the seed.
    start = int(len(labels) * (seed * GOLDEN % 1))
    split = pd.Series("", index=subjects.index, dtype=object, name="split")
    for position, name in zip(np.roll(order, start), dealt):
        split.loc[labels[position]] = name
    return split


def split_totals(count: int, sizes: Mapping[str, float]) -> dict[str, int]:
    """Turn shares in any unit into the number of subjects of each split (largest remainder)."""
    if unknown := [name for name in sizes if name not in SPLITS]:
        raise UsageError(
            f"There is no split {unknown[0]!r}.{nearest(unknown[0], SPLITS)} "
            f"Splits: {', '.join(SPLITS)}."
        )
    given = np.array([float(sizes.get(name, 0)) for name in SPLITS])
    if (given < 0).any() or not np.isfinite(given).all():
        raise UsageError(f"Split sizes must not be negative; got {dict(sizes)}.")
    total = given.sum()
    if not total:
        raise UsageError(f"Split sizes {dict(sizes)} leave every subject out; give one above 0.")
    exact = given * count / total
    floor = np.floor(exact + 1e-9).astype(int)
    remainder = exact - floor
    for index in np.argsort(-remainder, kind="stable")[: count - floor.sum()]:
        floor[index] += 1
    return dict(zip(SPLITS, floor.tolist()))


def _levels(values: pd.Series) -> np.ndarray:
    """Return the stratum number of each row in one column; missing is number 0."""
    missing = np.array([is_missing(value) for value in values])
    codes = np.zeros(len(values), dtype=int)
    present = values[~missing]
    if present.empty:
        return codes
    if pd.api.types.is_numeric_dtype(values):
        bins = pd.qcut(present.astype(float), AGE_BINS, labels=False, duplicates="drop")
        # One single value has no quantiles, and pandas then gives NaN.
        codes[~missing] = 1 + bins.fillna(0).to_numpy(dtype=int)
    else:
        levels = {level: code for code, level in enumerate(sorted(set(map(str, present))), 1)}
        codes[~missing] = [levels[str(value)] for value in present]
    return codes


def _deal(totals: Mapping[str, int]) -> list[str]:
    """Interleave the splits evenly: at each position the one furthest behind its share."""
    names, size = list(totals), np.array(list(totals.values()), dtype=float)
    given, count = np.zeros(len(names)), int(size.sum())
    dealt = []
    for position in range(1, count + 1):
        lag = size * position / count - given
        lag[given >= size] = -np.inf
        choice = int(lag.argmax())
        given[choice] += 1
        dealt.append(names[choice])
    return dealt


def split_hash(split: pd.Series) -> str:
    """Return the SHA-256 of who is where; the order of rows does not matter."""
    lines = sorted(f"{subject}\t{name}" for subject, name in split.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
