"""Columns of the subject table as numbers that an estimator can be held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.cohort.synthetic import SWEEP_BASE
from gyri.cohort.table import as_number, is_missing

FloatArray = NDArray[np.float64]

BOOKKEEPING = ("session", "split", SWEEP_BASE)
"""Columns that say where a row comes from, not whom it shows."""
LEAST_LEVEL = 8
"""Fewer TRAIN rows of a level cannot be learned from."""


@dataclass(frozen=True)
class Label:
    """A column as an estimator is asked for it.

    Parameters
    ----------
    column : name of the column.
    levels : of a categorical column, those with enough rows in TRAIN, in order; empty for a
        continuous one.
    lowest : of a categorical column whose levels are numbers and partly too rare (a rating): the
        lowest one. The label then says whether a row lies above it.
    """

    column: str
    levels: tuple[str, ...] = ()
    lowest: float | None = None

    @property
    def continuous(self) -> bool:
        """Whether the label is a number."""
        return not self.levels

    @property
    def words(self) -> str:
        """What is asked, for example ``age``, ``cdr > 0``."""
        return self.column if self.lowest is None else f"{self.column} > {self.lowest:g}"

    def encode(self, table: pd.DataFrame) -> FloatArray:
        """Return (N, 1) numbers or (N, levels) of ones and zeros; a row is NaN where unknown."""
        if self.continuous:
            return numbers(table[self.column])[:, None]
        found = levels(table[self.column])
        if self.lowest is not None:
            above = [None if v is None else str(_number(v) > self.lowest) for v in found]
            return one_hot(above, self.levels)
        return one_hot(found, self.levels)


def numbers(values: pd.Series) -> FloatArray:
    """Return (N,) float64, NaN where missing or no number."""
    parsed = [as_number(v) for v in values]
    return np.array([np.nan if v is None else v for v in parsed], np.float64)


def levels(values: pd.Series) -> list[str | None]:
    """Return the levels as text, written the same way whether a table held 1, 1.0 or "1"."""
    found: list[str | None] = []
    for value in values:
        number = None if is_missing(value) else as_number(value)
        text = f"{number:g}" if number is not None else str(value).strip()
        found.append(None if is_missing(value) else text)
    return found


def one_hot(found: Sequence[str | None], known: Sequence[str]) -> FloatArray:
    """Return (N, len(known)); a row of NaN where the level is missing or not among `known`."""
    codes = np.full((len(found), len(known)), np.nan)
    for row, level in zip(codes, found):
        if level in known:
            row[:] = [float(level == other) for other in known]
    return codes


def shared_columns(generated: pd.DataFrame, real: pd.DataFrame) -> dict[str, bool]:
    """Return the columns of both tables that hold a value in both; whether each is continuous."""
    return {
        str(name): pd.api.types.is_numeric_dtype(real[name])
        for name in generated
        if name in real
        and name not in BOOKKEEPING
        and not generated[name].map(is_missing).all()
        and not real[name].map(is_missing).all()
    }


def label(column: str, continuous: bool, train: pd.DataFrame) -> Label | None:
    """Return how `column` is asked for; None where TRAIN holds nothing to tell
    apart: a constant, or fewer than two levels of eight rows.

    Parameters
    ----------
    column : a column of `train`.
    continuous : whether it holds numbers.
    train : TRAIN's table.
    """
    if continuous:
        return Label(column) if np.nanstd(numbers(train[column])) > 0 else None
    counts = pd.Series(levels(train[column])).value_counts()
    enough = tuple(sorted(map(str, counts.index[counts >= LEAST_LEVEL])))
    rating = all(as_number(level) is not None for level in counts.index)
    if rating and len(enough) < len(counts):
        lowest = min(_number(level) for level in counts.index)
        above = sum(int(counts[level]) for level in counts.index if _number(level) > lowest)
        usable = min(above, int(counts.sum()) - above) >= LEAST_LEVEL
        return Label(column, ("False", "True"), lowest) if usable else None
    return Label(column, enough) if len(enough) > 1 else None


def _number(level: str) -> float:
    number = as_number(level)
    assert number is not None
    return number
