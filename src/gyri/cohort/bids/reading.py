"""Raw data sets read: their anatomical scans and their tables of people and sessions."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from gyri.cohort.bids.scan import CONTRAST_ENHANCED, LABELS_FOLDER
from gyri.cohort.files import read_json, read_tsv, refuse_outside
from gyri.cohort.privacy import without_private
from gyri.cohort.quarantine import QUARANTINE, read_quarantine
from gyri.cohort.sheet import harmonise
from gyri.cohort.table import (
    CONVENTIONAL,
    SCAN_COLUMNS,
    Cohort,
    ColumnType,
    infer_columns,
    is_missing,
    listed,
    snake_case,
    typed,
)
from gyri.errors import DataError

TABLES = (
    "dataset_description.json", "participants.tsv", "participants.json", "sessions.json",
    QUARANTINE,
)  # fmt: skip
"""Files of the data set's folder that are read."""

UNITS = {
    "years": "year", "yrs": "year", "yr": "year", "y": "year", "a": "year",
    "months": "month", "weeks": "week", "days": "day", "ml": "mL",
}  # fmt: skip
"""Other spellings of a unit, in lower case -> ours."""

_NAME = re.compile(
    r"sub-(?P<subject>[^_]+)(_ses-(?P<session>[^_]+))?(?P<entities>(_[A-Za-z]+-[^_]+)*)"
    r"_(?P<suffix>[A-Za-z0-9]+)\.nii(\.gz)?"
)
_log = logging.getLogger(__name__)


def read(root: Path) -> Cohort:
    """Read a BIDS data set's anatomical scans and its table of subjects.

    Any suffix of ``anat`` is a modality. Where there are several runs or variants of one, the
    first is taken and `Cohort.notes` says so.

    Raises
    ------
    DataError
        No such folder, no scans, or table and scans that disagree.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise DataError(f"{root} is no folder; expected a BIDS data set. Check the path.")
    refuse_outside(root, [root / name for name in TABLES])
    notes: list[str] = []
    scans = _find_scans(root, notes)
    if scans.empty:
        raise DataError(
            f"{root} holds no scans; expected sub-X[/ses-Y]/anat/*.nii[.gz] as BIDS names them."
        )
    subjects, columns = _read_participants(root, scans, notes)
    sessions, more = _read_sessions(root, scans, notes)
    about = read_json(root / "dataset_description.json", missing_ok=True)
    if "Name" not in about or "BIDSVersion" not in about:
        notes.append("dataset_description.json is missing or lacks Name and BIDSVersion.")
    cohort = Cohort(
        name=str(about.get("Name", root.name)),
        root=root,
        subjects=subjects,
        columns={**columns, **more},
        scans=scans,
        sessions=sessions,
        notes=notes,
        quarantine=read_quarantine(root),
    )
    cohort.check()
    for note in notes:
        _log.warning("%s: %s", root, note)
    return cohort


def _modality(suffix: str, entities: Mapping[str, str]) -> str:
    if suffix == "dseg":
        return entities.get("desc", "dseg")
    for modality, (entity, of) in CONTRAST_ENHANCED.items():
        if suffix == of and entity.split("-")[0] in entities:
            return modality
    return suffix


def _find_scans(root: Path, notes: list[str]) -> pd.DataFrame:
    found: dict[tuple[str, str, str], list[Path]] = {}
    for top in (root, root / LABELS_FOLDER):
        for path in sorted([*top.glob("sub-*/anat/*.nii*"), *top.glob("sub-*/ses-*/anat/*.nii*")]):
            match = _NAME.fullmatch(path.name)
            if match is None:
                notes.append(f"{path.relative_to(root)} is no BIDS name and was left out.")
                continue
            pairs = filter(None, match["entities"].split("_"))
            entities = dict(pair.split("-", 1) for pair in pairs)
            key = (match["subject"], match["session"] or "", _modality(match["suffix"], entities))
            found.setdefault(key, []).append(path)
    for (subject, session, modality), paths in found.items():
        if len(paths) > 1:
            others = listed(path.name for path in paths[1:])
            where = f"sub-{subject}" + (f" ses-{session}" if session else "")
            notes.append(
                f"{where} has {len(paths)} {modality}: took {paths[0].name}, not {others}."
            )
    refuse_outside(root, (path for paths in found.values() for path in paths))
    rows = [(*key, str(paths[0])) for key, paths in sorted(found.items())]
    return pd.DataFrame(rows, columns=list(SCAN_COLUMNS))


def _unit(entry: Mapping[str, Any]) -> str:
    """Return the unit that a column's description declares, in our spelling."""
    unit = str(entry.get("Units", "")).strip()
    return UNITS.get(unit.lower(), "" if is_missing(unit) else unit)


def _column_types(about: Mapping[str, Any], table: pd.DataFrame) -> dict[str, ColumnType]:
    types = infer_columns(table)
    described = {snake_case(name): entry for name, entry in about.items()}
    for name, guess in types.items():
        entry = described.get(name)
        if not isinstance(entry, dict):
            continue
        if name in CONVENTIONAL:
            # What the name means is known; what it is measured in, the data set knows.
            types[name] = replace(guess, unit=_unit(entry) or guess.unit)
            continue
        levels = entry.get("Levels")
        kind: Literal["categorical", "continuous"] = "categorical" if levels else guess.kind
        types[name] = ColumnType(
            kind=kind,
            description=str(entry.get("Description", "")),
            unit=_unit(entry),
            levels={str(k): str(v) for k, v in levels.items()} if levels else None,
        )
    return types


def _read_participants(
    root: Path, scans: pd.DataFrame, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, ColumnType]]:
    path = root / "participants.tsv"
    if not path.is_file():
        labels = sorted(scans["subject"].unique())
        return pd.DataFrame(index=pd.Index(labels, name="subject")), {}
    table = read_tsv(path)
    if "participant_id" not in table:
        raise DataError(
            f"{path} has the columns {', '.join(table.columns)}; expected participant_id first."
        )
    table.columns = pd.Index([snake_case(name) for name in table.columns])
    if table.columns.has_duplicates:
        raise DataError(f"{path} has two columns of one name: {', '.join(table.columns)}.")
    identifiers = table.pop("participant_id").str.removeprefix("sub-")
    table.index = pd.Index(identifiers, name="subject")
    table = harmonise(without_private(table, notes))
    types = _column_types(read_json(root / "participants.json", missing_ok=True), table)
    return typed(table, _open_levels(types, table)), types


def _open_levels(types: dict[str, ColumnType], table: pd.DataFrame) -> dict[str, ColumnType]:
    """Let levels that a foreign data set uses but does not declare pass, and declare them."""
    for name, column in types.items():
        if column.levels is None:
            continue
        loose = ColumnType(kind="categorical", description=column.description)
        present = {str(v) for v in typed(table[[name]], {name: loose})[name] if v is not None}
        if extra := sorted(present - set(column.levels)):
            levels = {**column.levels, **{level: level for level in extra}}
            types[name] = ColumnType(
                kind="categorical", description=column.description, levels=levels
            )
    return types


def _read_sessions(
    root: Path, scans: pd.DataFrame, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, ColumnType]]:
    tables = []
    for subject in sorted(scans.loc[scans["session"] != "", "subject"].unique()):
        path = root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
        if path.is_file():
            refuse_outside(root, [path])
            table = read_tsv(path)
            if "session_id" not in table:
                raise DataError(f"{path} has no column session_id.")
            table.insert(0, "subject", subject)
            tables.append(table)
    if not tables:
        return pd.DataFrame(columns=["subject", "session"]), {}
    table = pd.concat(tables, ignore_index=True)
    table.columns = pd.Index([snake_case(name) for name in table.columns])
    table["session"] = table.pop("session_id").str.removeprefix("ses-")
    covariates = table.drop(columns=["subject", "session"])
    covariates = harmonise(without_private(covariates, notes))
    about = read_json(root / "sessions.json", missing_ok=True)
    types = _column_types(about, covariates)
    covariates = typed(covariates, _open_levels(types, covariates))
    return pd.concat([table[["subject", "session"]], covariates], axis=1), types
