"""Sessions of people who came more than once, and the clinical visit that each belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.sheet import harmonise
from gyri.cohort.table import ColumnType, as_number, is_missing, listed, snake_case, typed
from gyri.cohort.workbook import read_table
from gyri.errors import DataError

DAYS_A_YEAR = 365.25
SEXES = {"1": "M", "2": "F"}
"""How UDS forms, OASIS and IXI write a person's sex."""


def read_columns(
    path: Path, columns: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Read the columns of a table that are wanted, under our own names.

    Parameters
    ----------
    path : the table.
    columns : our name -> what it may be called there, compared in snake_case.
    optional : our names that may be absent.

    Raises
    ------
    DataError
        A column is absent.
    """
    table = read_table(path)
    present = {snake_case(str(name)): name for name in reversed(list(table.columns))}
    found = {
        ours: next((present[name] for name in names if name in present), None)
        for ours, names in columns.items()
    }
    absent = [ours for ours, theirs in found.items() if theirs is None and ours not in optional]
    if absent:
        raise DataError(
            f"{path} lacks the columns {listed(absent)}; it has "
            f"{listed(map(str, table.columns))}. Use the published table."
        )
    chosen = {ours: table[theirs] for ours, theirs in found.items() if theirs is not None}
    return harmonise(pd.DataFrame(chosen, dtype=object))


def recoded(values: pd.Series, codes: Mapping[str, str]) -> list[Any]:
    """Return `values` with coded levels (``"1"``, ``"1.0"``) written out; others stay."""
    out: list[Any] = []
    for value in values:
        number = as_number(value)
        coded = not is_missing(value) and number is not None
        text = f"{number:g}" if coded else value
        out.append(codes.get(str(text), value))
    return out


def day_of(label: object) -> float:
    """Return the day of a label like ``OAS30001_UDSb4_d0339`` or ``339``; NaN where there is none.

    Examples
    --------
    >>> day_of("OAS30001_UDSb4_d0339"), day_of("0014"), day_of("d-0002")
    (339.0, 14.0, -2.0)
    """
    match = re.search(r"(?:^|_d|^d)(-?\d+)$", str(label).strip())
    return float(match[1]) if match else float("nan")


def nearest_visit(
    sessions: pd.DataFrame, visits: pd.DataFrame, within_days: float
) -> tuple[pd.DataFrame, list[str]]:
    """Join to every session the clinical visit of the same person that is nearest in time.

    Parameters
    ----------
    sessions : columns ``person`` and ``day``.
    visits : columns ``person``, ``day`` and what was assessed.
    within_days : a visit further away is not joined; its columns are missing.

    Returns
    -------
    tuple
        `sessions` with the visits' columns and ``visit_delay`` (visit minus scan, days), and the
        sessions that found no visit.
    """
    assessed = [str(name) for name in visits if name not in ("person", "day")]
    rows, alone = [], []
    by_person = {str(person): group for person, group in visits.groupby("person")}
    for person, day in zip(sessions["person"], sessions["day"]):
        row: dict[str, Any] = dict.fromkeys([*assessed, "visit_delay"])
        group = by_person.get(str(person))
        if group is not None:
            gaps = (group["day"].astype(float) - day).to_numpy()
            best = int(np.argmin(np.abs(gaps)))  # of two as near, the one listed first
            if abs(gaps[best]) <= within_days:
                found = group.iloc[best]
                row = {name: found[name] for name in assessed} | {"visit_delay": float(gaps[best])}
        if is_missing(row["visit_delay"]):
            alone.append(f"{person} day {day:g}")
        rows.append(row)
    joined = pd.DataFrame(rows, index=sessions.index, columns=[*assessed, "visit_delay"])
    return pd.concat([sessions, joined], axis=1), alone


def person_table(
    rows: pd.DataFrame, columns: Mapping[str, ColumnType], of_the_session: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide session rows into a table of people (as at their first session) and one of sessions.

    Parameters
    ----------
    rows : one row a session in order of time: ``subject``, ``session``, covariates.
    columns : types of the covariates.
    of_the_session : covariates that another session measures again.
    """
    rows = rows.reset_index(drop=True)
    rows = pd.concat([rows[["subject", "session"]], typed(rows[list(columns)], columns)], axis=1)
    first = rows.drop_duplicates("subject").set_index("subject")
    again = [name for name in columns if name in of_the_session]
    return first[list(columns)], rows[["subject", "session", *again]]
