"""Several cohorts as one, with a column that says where each person comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from gyri.cohort import bids
from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import read_json
from gyri.cohort.intake import Intake
from gyri.cohort.privacy import kept, sidecar
from gyri.cohort.table import SCAN_COLUMNS, Cohort, ColumnType, is_safe_label, listed
from gyri.cohort.twins import twins, voxel_hash
from gyri.errors import DataError, UsageError
from gyri.runtime.progress import track

SOURCE = "source"


def merge(cohorts: Sequence[Path], out: Path, names: Sequence[str] | None = None) -> Cohort:
    """Join raw cohorts into one.

    People whose label occurs in several cohorts get it prefixed by their cohort's name. A column
    of the same name is one column where its kind and unit agree; otherwise each cohort keeps its
    own, called after the cohort, and the notes say so. People from whom a column is unknown are
    missing in it. A cohort that was merged already keeps its ``source``.

    Parameters
    ----------
    cohorts : raw BIDS data sets, at least two.
    out : raw BIDS data set to be made.
    names : what the cohorts are called in ``source``; None takes their own names.

    Returns
    -------
    Cohort
        Its notes say what was renamed, kept apart and found in conflict.

    Raises
    ------
    UsageError
        Fewer than two cohorts, or names that are not one each.
    DataError
        No cohort in a folder, or the same voxels under two labels (the pair is named).
    """
    roots = [Path(root) for root in cohorts]
    if len(roots) < 2:
        raise UsageError(f"merge needs at least two cohorts; {len(roots)} came.")
    parts = [bids.read(root) for root in roots]
    called = _names(parts, names)
    notes = [f"{name}: {note}" for name, part in zip(called, parts) for note in part.notes]
    _prefix_clashes(parts, called, notes)
    _refuse_twins(parts)
    _separate_conflicts(parts, called, notes)
    for part, name in zip(parts, called):
        if SOURCE not in part.subjects:
            part.subjects[SOURCE] = name
    columns = _columns(parts)
    about = [read_json(root / "dataset_description.json", missing_ok=True) for root in roots]
    intake = Intake()
    merged = write_raw(
        out,
        name=" + ".join(called),
        subjects=_stacked([part.subjects for part in parts], "subject"),
        columns=columns,
        scans=_scans(parts, intake),
        sessions=_sessions(parts),
        license="; ".join(_said(about, called, "License")),
        citation="; ".join(_said(about, called, "HowToAcknowledge")),
        quarantine=[entry for part in parts for entry in part.quarantine],
    )
    merged.notes += notes + intake.notes()
    return merged


def _names(parts: list[Cohort], names: Sequence[str] | None) -> list[str]:
    """Return a name of letters and digits for every cohort."""
    called = [re.sub(r"[^A-Za-z0-9]", "", name) for name in names or [p.name for p in parts]]
    if len(called) != len(parts):
        raise UsageError(f"{len(parts)} cohorts and {len(called)} names came; give one each.")
    if len(set(map(str.lower, called))) < len(called) or not all(map(is_safe_label, called)):
        raise UsageError(
            f"The cohorts would be called {listed(map(repr, called))}; expected different names of "
            "letters and digits. Say them with `names`."
        )
    return called


def _prefix_clashes(parts: list[Cohort], called: list[str], notes: list[str]) -> None:
    """Prefix labels that occur in several cohorts by the cohort's name."""
    labels = [label for part in parts for label in part.subjects.index]
    clashing = {label for label in labels if labels.count(label) > 1}
    if not clashing:
        return
    for part, name in zip(parts, called):
        new = {label: f"{name}{label}" for label in part.subjects.index if label in clashing}
        part.subjects = part.subjects.rename(index=new)
        part.scans["subject"] = part.scans["subject"].replace(new)
        part.sessions["subject"] = part.sessions["subject"].replace(new)
    notes.append(
        f"{len(clashing)} labels occur in several cohorts and were prefixed by their cohort: "
        f"{listed(sorted(clashing))}."
    )


def _refuse_twins(parts: list[Cohort]) -> None:
    scans = [
        (str(subject), Path(path))
        for part in parts
        for subject, path in zip(part.scans["subject"], part.scans["path"])
        if not _is_label(path)
    ]
    hashed = (
        (subject, voxel_hash(path), path) for subject, path in track(scans, "Looking for twins")
    )
    if pairs := twins(hashed):
        named = listed(f"{a} and {b}" for a, b in pairs)
        raise DataError(
            f"The same voxels lie under two labels: {named}. One person would count twice; "
            "remove one of each pair from its cohort."
        )


def _is_label(path: str) -> bool:
    return "_dseg." in Path(path).name


def _has_values(part: Cohort, name: str) -> bool:
    """Say whether anybody has a value; a column of none contradicts nothing."""
    return any(
        table[name].notna().any() for table in (part.subjects, part.sessions) if name in table
    )


def _adopt(having: list[tuple[Cohort, str]], name: str) -> None:
    """Give a column without a value the type that it has elsewhere."""
    filled = next((part.columns[name] for part, _ in having if _has_values(part, name)), None)
    for part, _ in having:
        if filled is not None and not _has_values(part, name):
            part.columns[name] = filled


def _drop(part: Cohort, name: str) -> None:
    del part.columns[name]
    part.subjects = part.subjects.drop(columns=name, errors="ignore")
    part.sessions = part.sessions.drop(columns=name, errors="ignore")


def _separate_conflicts(parts: list[Cohort], called: list[str], notes: list[str]) -> None:
    """Rename columns that mean different things in different cohorts."""
    for name in dict.fromkeys(name for part in parts for name in part.columns):
        having = [(part, who) for part, who in zip(parts, called) if name in part.columns]
        meanings = {
            who: (part.columns[name].kind, part.columns[name].unit)
            for part, who in having
            if _has_values(part, name)
        }
        if len(set(meanings.values())) < 2:
            _adopt(having, name)
            continue
        said = "; ".join(
            f"{who}: {kind}{f' in {unit}' if unit else ''}"
            for who, (kind, unit) in meanings.items()
        )
        notes.append(f"Column {name} means different things ({said}); each cohort keeps its own.")
        for part, who in having:
            if who not in meanings:
                _drop(part, name)
                continue
            own = f"{name}_{who.lower()}"
            part.columns = {own if n == name else n: c for n, c in part.columns.items()}
            part.subjects = part.subjects.rename(columns={name: own})
            part.sessions = part.sessions.rename(columns={name: own})


def _columns(parts: list[Cohort]) -> dict[str, ColumnType]:
    """Return the types of all columns; levels of a column are those of all cohorts."""
    columns: dict[str, ColumnType] = {}
    for part in parts:
        for name, column in part.columns.items():
            known = columns.get(name, column)
            levels = None
            if known.levels is not None and column.levels is not None:
                levels = {**column.levels, **known.levels}
            columns[name] = replace(known, levels=levels)
    sources = sorted({str(value) for part in parts for value in part.subjects[SOURCE]})
    columns[SOURCE] = ColumnType(
        kind="categorical", description="Data set", levels={name: name for name in sources}
    )
    return columns


def _stacked(tables: list[pd.DataFrame], index: str) -> pd.DataFrame:
    """Return the tables below each other; an absent column is missing."""
    names = list(dict.fromkeys(str(name) for table in tables for name in table))
    rows: dict[str, list[Any]] = {
        name: [v for t in tables for v in (t[name] if name in t else [None] * len(t))]
        for name in names
    }
    labels = [label for table in tables for label in table.index]
    return pd.DataFrame(rows, index=pd.Index(labels, name=index), dtype=object)


def _sessions(parts: list[Cohort]) -> pd.DataFrame:
    return _stacked([part.sessions for part in parts], "row").reset_index(drop=True)


def _said(about: list[dict[str, Any]], called: list[str], key: str) -> list[str]:
    return [f"{name}: {entry[key]}" for name, entry in zip(called, about) if entry.get(key)]


def _scans(parts: list[Cohort], intake: Intake) -> Iterator[Scan]:
    rows = [row for part in parts for row in part.scans[list(SCAN_COLUMNS)].to_numpy().tolist()]
    for subject, session, modality, path in track(rows, "Merging scans"):
        read = intake.label if _is_label(path) else intake.scan
        yield read(Path(path), subject, modality, session, **kept(sidecar(Path(path))))
