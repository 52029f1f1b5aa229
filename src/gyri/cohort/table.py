"""A cohort: a typed table of subjects and the scans that belong to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from gyri.errors import DataError, UsageError, nearest

SCAN_COLUMNS = ("subject", "session", "modality", "path")
"""Columns of `Cohort.scans`."""

MISSING_WORDS = frozenset({"", "n/a", "na", "nan", "null", "none", "missing", ".", "?"})
"""What tables write where a value is missing, in lower case."""

MAX_LISTED = 10
MAX_AGE = 120
_LABEL = re.compile(r"[A-Za-z0-9]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ColumnType:
    """What a column of the subject table holds.

    Parameters
    ----------
    kind : ``"categorical"`` (text, None where missing) or ``"continuous"`` (float, NaN).
    description : one sentence for people.
    unit : unit of a continuous column, for example ``"year"``.
    levels : level -> its meaning, for categorical columns; None where any text may come.
    """

    kind: Literal["categorical", "continuous"]
    description: str = ""
    unit: str = ""
    levels: Mapping[str, str] | None = None


CONVENTIONAL: dict[str, ColumnType] = {
    "age": ColumnType(kind="continuous", description="Age at the scan", unit="year"),
    "sex": ColumnType(
        kind="categorical", description="Sex", levels={"F": "female", "M": "male", "O": "other"}
    ),
    "handedness": ColumnType(
        kind="categorical",
        description="Handedness",
        levels={"R": "right", "L": "left", "A": "ambidextrous"},
    ),
    "education": ColumnType(kind="continuous", description="Education, as the source codes it"),
    "ses": ColumnType(
        kind="continuous", description="Hollingshead socioeconomic status, 1 (highest) to 5"
    ),
    "mmse": ColumnType(kind="continuous", description="Mini-Mental State Examination, 0 to 30"),
    "cdr": ColumnType(
        kind="categorical",
        description="Clinical Dementia Rating; missing where never assessed",
        levels={
            "0": "no dementia",
            "0.5": "very mild dementia",
            "1": "mild dementia",
            "2": "moderate dementia",
            "3": "severe dementia",
        },
    ),
    "etiv": ColumnType(
        kind="continuous", description="Estimated total intracranial volume", unit="mL"
    ),
    "nwbv": ColumnType(kind="continuous", description="Whole-brain volume over head volume"),
    "asf": ColumnType(kind="continuous", description="Atlas scaling factor"),
    "scanner": ColumnType(kind="categorical", description="Scanner"),
    "site": ColumnType(kind="categorical", description="Site"),
    "group": ColumnType(kind="categorical", description="Study group"),
    "delay": ColumnType(
        kind="continuous", description="Time between this session and the first", unit="day"
    ),
}
"""Columns that mean the same in every cohort; a source reuses these where it has them."""


@dataclass
class Cohort:
    """Subjects and their scans.

    Parameters
    ----------
    name : what the data set is called.
    root : folder of the data set (raw BIDS).
    subjects : one row a subject; index is the subject's label without ``sub-``; columns are in
        snake_case, continuous ones float (NaN where missing), categorical ones str (None).
    columns : type of every column of `subjects` and of every covariate in `sessions`.
    scans : one row a file: ``subject``, ``session`` ("" where there is none), ``modality``
        (``T1w``, ``T1c``, ``T2w``, ``FLAIR`` ...; label images by name), ``path``.
    sessions : one row a session, ``subject``, ``session`` and the covariates that differ between
        sessions; empty where none do.
    notes : what was left out on reading, and why, in sentences.
    quarantine : scans that could not be imported: subject, session, file, rule.
    """

    name: str
    root: Path
    subjects: pd.DataFrame
    columns: dict[str, ColumnType]
    scans: pd.DataFrame
    sessions: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["subject", "session"])
    )
    notes: list[str] = field(default_factory=list)
    quarantine: list[dict[str, str]] = field(default_factory=list)

    def check(self) -> None:
        """Refuse a cohort that contradicts itself.

        Raises
        ------
        DataError
            With the list of everything that is wrong: subjects without a scan, scans without a
            subject, subjects or scans that come twice, unsafe labels, columns without a type,
            types without a column, ages outside 0-120 years, no subjects at all.
        """
        faults = [*self._label_faults(), *self._scan_faults(), *self._column_faults()]
        if len(self.subjects) == 0:
            faults.insert(0, "it has no subjects")
        if faults:
            raise DataError(
                f"Cohort {self.name!r} in {self.root} cannot be used: {'; '.join(faults)}. "
                "Correct the table or the files and try again."
            )

    def column(self, name: str) -> ColumnType:
        """Return the type of column `name`; `UsageError` names the nearest right one."""
        if name not in self.columns:
            raise UsageError(
                f"Cohort {self.name!r} has no column {name!r}.{nearest(name, self.columns)} "
                f"Its columns: {', '.join(self.columns) or 'none'}."
            )
        return self.columns[name]

    def covariates(self, subject: str, session: str = "") -> dict[str, object]:
        """Return the subject's covariates; what its session's row knows goes first."""
        values: dict[str, object] = dict(self.subjects.loc[subject])
        row = self.sessions[
            (self.sessions["subject"] == subject) & (self.sessions["session"] == session)
        ]
        for name in row.columns.difference(["subject", "session"]):
            if len(row) and not pd.isna(row[name].iloc[0]):
                values[str(name)] = row[name].iloc[0]
        return values

    def _label_faults(self) -> Iterator[str]:
        labels = [str(label) for label in self.subjects.index]
        unsafe = [label for label in labels if not is_safe_label(label)]
        if unsafe:
            yield (
                f"{listed(map(repr, (u[:80] for u in unsafe)))} cannot be subject labels "
                "(letters and digits only, at most 64)"
            )
        twice = (
            sorted({label for label in labels if labels.count(label) > 1})
            if _doubled(labels)
            else []
        )
        if twice:
            yield f"subjects listed more than once: {listed(twice)}"

    def _scan_faults(self) -> Iterator[str]:
        absent = [name for name in SCAN_COLUMNS if name not in self.scans]
        if absent:
            yield f"its scan list lacks the columns {listed(absent)}"
            return
        in_table, in_scans = set(map(str, self.subjects.index)), set(self.scans["subject"])
        if without_scan := sorted(in_table - in_scans):
            yield f"{len(without_scan)} subjects have no scan: {listed(without_scan)}"
        if without_row := sorted(in_scans - in_table):
            yield f"scans of {len(without_row)} subjects have no row: {listed(without_row)}"
        keys = self.scans[["subject", "session", "modality"]]
        twice = keys[keys.duplicated()].itertuples(index=False, name=None)
        if again := [" ".join(filter(None, key)) for key in twice]:
            yield f"scans listed more than once: {listed(again)}"
        if gone := [str(path) for path in self.scans["path"] if not Path(path).is_file()]:
            yield f"{len(gone)} scan files do not exist: {listed(gone)}"

    def _column_faults(self) -> Iterator[str]:
        present = set(self.subjects) | set(self.sessions) - {"subject", "session"}
        if untyped := sorted(map(str, present - set(self.columns))):
            yield f"unknown columns without a type: {listed(untyped)}"
        if absent := sorted(set(self.columns) - present):
            yield f"typed columns that the table does not have: {listed(absent)}"
        wrong = [*_impossible_ages(self.subjects, self.subjects.index)]
        wrong += _impossible_ages(self.sessions, self.sessions.get("subject", ()))
        if wrong:
            yield f"ages outside 0-120 years for {listed(dict.fromkeys(wrong))}"


def _impossible_ages(table: pd.DataFrame, subjects: Iterable[object]) -> list[str]:
    """Return who of `subjects`, one a row, has an age that nobody has, in years."""
    if "age" not in table:
        return []
    ages = [as_number(age) for age in table["age"]]
    return [str(s) for s, age in zip(subjects, ages) if age is not None and not _can_be(age)]


def _can_be(age: float) -> bool:
    return bool(np.isnan(age)) or 0 <= age <= MAX_AGE


def _doubled(labels: Sequence[str]) -> bool:
    return len(set(labels)) < len(labels)


def is_safe_label(label: str) -> bool:
    """Say whether `label` may be part of a file name: 1 to 64 letters and digits."""
    return _LABEL.fullmatch(label) is not None


def bids_label(text: str) -> str:
    """Turn an identifier into a BIDS label by leaving out separators.

    Raises
    ------
    DataError
        For identifiers that hold more than letters, digits and ``_ - . space``.

    Examples
    --------
    >>> bids_label("OAS1_0001")
    'OAS10001'
    """
    label = re.sub(r"[_\-. ]", "", text)
    if ".." in text or not is_safe_label(label):
        raise DataError(
            f"{text[:80]!r} cannot be a subject or session label; expected letters and digits "
            "(with _ - . between them), at most 64. Rename it in the table and the files."
        )
    return label


def listed(names: Iterable[str]) -> str:
    """Join names for a message; beyond ten only their number is given."""
    names = list(names)
    shown = ", ".join(names[:MAX_LISTED])
    return shown + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def snake_case(name: str) -> str:
    """Turn a heading into snake_case: ``"M/F"`` becomes ``"m_f"``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name.strip().lstrip("\ufeff"))
    return re.sub(r"[^0-9a-zA-Z]+", "_", spaced).strip("_").lower()


def is_missing(value: object) -> bool:
    """Say whether a cell of a table holds no value."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in MISSING_WORDS


def as_number(value: object) -> float | None:
    """Read a cell as a number (NaN where missing); None where it is none. Commas may be decimal."""
    if is_missing(value):
        return float("nan")
    try:
        return float(str(value).strip().replace(",", "."))
    except ValueError:
        return None


def infer_columns(table: pd.DataFrame) -> dict[str, ColumnType]:
    """Give every column a type: the conventional one where the name is known.

    Other columns are continuous where every present value is a number, categorical otherwise.
    """
    columns = {}
    for name in map(str, table.columns):
        numeric = all(as_number(value) is not None for value in table[name])
        guess = ColumnType(kind="continuous" if numeric else "categorical")
        columns[name] = CONVENTIONAL.get(name, guess)
    return columns


def typed(table: pd.DataFrame, columns: Mapping[str, ColumnType]) -> pd.DataFrame:
    """Return `table` with every typed column cast: float with NaN, or str with None.

    Parameters
    ----------
    table : index is the subject's label.
    columns : types of the columns to cast; others stay as they are.

    Raises
    ------
    DataError
        A continuous column holds text, or a categorical one a level that is not declared.
    """
    table = table.copy()
    for name, column in columns.items():
        if name not in table:
            continue
        if column.kind == "continuous":
            table[name] = _continuous(table[name], name)
        else:
            table[name] = _categorical(table[name], name, column.levels)
    return table


def _continuous(values: pd.Series, name: str) -> np.ndarray:
    numbers = [as_number(value) for value in values]
    wrong = [
        f"{subject}: {value!r}"
        for subject, value, number in zip(values.index, values, numbers)
        if number is None
    ]
    if wrong:
        raise DataError(
            f"Column {name!r} should hold numbers, but has {listed(wrong)}. "
            "Write a number, or n/a where it is missing."
        )
    return np.array(numbers, dtype=float)


def _categorical(values: pd.Series, name: str, levels: Mapping[str, str] | None) -> pd.Series:
    texts = [None if is_missing(value) else _level(value) for value in values]
    unknown = [
        f"{subject}: {text!r}"
        for subject, text in zip(values.index, texts)
        if text is not None and levels is not None and text not in levels
    ]
    if unknown:
        raise DataError(
            f"Column {name!r} has levels that are not declared: {listed(unknown)}. "
            f"Expected one of {', '.join(levels or ())}, or n/a."
        )
    return pd.Series(texts, index=values.index, dtype=object)


def _level(value: object) -> str:
    # 1.0 and "1.0" are the level "1": the same table read twice must give the same levels.
    number = as_number(value)
    return str(value).strip() if number is None else f"{number:.10g}"


def cell(value: object) -> str:
    """Write a value as a cell of a TSV file: ``n/a`` where missing, no tabs, no formulas."""
    if is_missing(value):
        return "n/a"
    if isinstance(value, float | np.floating):
        return f"{value:.10g}"
    text = re.sub(r"[\t\r\n]+", " ", str(value))
    # A spreadsheet would run a cell that starts like a formula.
    return f"'{text}" if text[0] in "=@" or (text[0] in "+-" and as_number(text) is None) else text
