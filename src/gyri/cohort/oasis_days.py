"""What OASIS-3 and OASIS-4 share: scans named after a person and the days since entry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import read_json, refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.table import Cohort, ColumnType, listed
from gyri.cohort.visits import person_table
from gyri.errors import DataError
from gyri.runtime.progress import track

LICENSE = "OASIS data use terms, https://sites.wustl.edu/oasisbrains/"
SUFFIXES = {"T1w": "T1w", "T2w": "T2w", "FLAIR": "FLAIR", "T2star": "T2starw", "T2starw": "T2starw"}
"""Suffix of a file -> modality; every other series is left out."""

MACHINE = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")
"""All that is read from a scan's JSON file; serials, dates and names stay behind."""

_FILE = re.compile(
    r"sub-(?P<person>OAS\d{5})_sess?-d(?P<day>\d+)(?P<entities>(?:_[A-Za-z]+-[A-Za-z0-9]+)*)"
    r"_(?P<suffix>[A-Za-z0-9]+)\.nii(?:\.gz)?"
)
_FOLDER = re.compile(r"OAS\d{5}_(?P<kind>[A-Za-z0-9]+)_d\d+")

Key = tuple[str, str, str]
"""Person, session (``d0129``), modality."""


@dataclass(frozen=True)
class Found:
    """The scans of a data set."""

    files: dict[Key, Path]
    notes: list[str]

    @property
    def sessions(self) -> list[tuple[str, str]]:
        """Person and session of every scan, once, in order of time."""
        return sorted({(person, session) for person, session, _ in self.files}, key=_in_time)


def _in_time(key: tuple[str, str]) -> tuple[str, int]:
    return key[0], int(key[1][1:])


def find_scans(src: Path, prefix: str, data_set: str) -> Found:
    """Return the anatomical scans below `src`, one a session and modality.

    Parameters
    ----------
    src : folder of sessions as published, or sorted into BIDS by the published scripts.
    prefix : how the people's identifiers begin, for example ``"OAS3"``.
    data_set : for messages.

    Raises
    ------
    DataError
        No folder, no anatomical scans, or the same file twice.
    """
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected {data_set}. Check the path.")
    candidates: dict[Key, list[Path]] = {}
    other: Counter[str] = Counter()
    for path in sorted(src.rglob(f"sub-{prefix}*.nii*")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            other["without a published name"] += 1
        elif match["suffix"] == "pet" or _tracer(path):
            other[f"PET {_tracer(path) or ''}".strip()] += 1
        elif match["suffix"] not in SUFFIXES:
            other[match["suffix"]] += 1
        else:
            key = (match["person"], f"d{int(match['day']):04d}", SUFFIXES[match["suffix"]])
            candidates.setdefault(key, []).append(path)
    if not candidates:
        raise DataError(
            f"{src} holds no anatomical scans of {data_set}; expected files like "
            f"{prefix}0001_MR_d0129/anat2/NIFTI/sub-{prefix}0001_sess-d0129_T1w.nii.gz."
        )
    notes = []
    if other:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(other.items()))
        notes.append(f"Files that are no anatomical MRI are left out: {kinds}.")
    files = {}
    for key, paths in candidates.items():
        names = [path.name for path in paths]
        if len(set(names)) < len(names):
            raise DataError(f"{paths[0]} and {paths[1]} are the same scan. Keep one.")
        files[key] = paths[0]
        if len(paths) > 1:
            notes.append(f"{' '.join(key)}: took {names[0]}, not {listed(names[1:])}.")
    refuse_outside(src, files.values())
    return Found(dict(sorted(files.items())), notes)


def _tracer(path: Path) -> str:
    """Return the PET tracer of the session folder that a file is in, "" for MRI."""
    for part in path.parts:
        match = _FOLDER.fullmatch(part)
        if match and match["kind"] != "MR":
            return match["kind"]
    return ""


def machine(path: Path) -> dict[str, object]:
    """Return what the JSON beside a scan, or in its series' BIDS folder, says of the scanner."""
    name = re.sub(r"\.nii(\.gz)?$", ".json", path.name)
    for place in (path.with_name(name), path.parent.parent / "BIDS" / name):
        content = read_json(place, missing_ok=True)
        if content:
            return {key: content[key] for key in MACHINE if key in content}
    return {}


def scanner_name(facts: dict[str, object]) -> str | None:
    """Return ``"Siemens Biograph_mMR"``, or None where nothing is said."""
    parts = [str(facts[key]) for key in MACHINE[:2] if facts.get(key)]
    return " ".join(parts) or None


def session_rows(found: Found, people: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Return one row a session: ``person``, ``subject``, ``session``, ``day`` and the person's own.

    Parameters
    ----------
    people : index is the person's identifier.
    table : where `people` were read from, for the message.

    Raises
    ------
    DataError
        Somebody has scans and no row.
    """
    if strangers := sorted({person for person, _ in found.sessions} - set(people.index)):
        raise DataError(
            f"{len(strangers)} people have scans and no row in {table}: {listed(strangers)}. "
            "Use the full published table."
        )
    rows = people.loc[[person for person, _ in found.sessions]].reset_index()
    rows["subject"] = rows["person"]
    rows["session"] = [session for _, session in found.sessions]
    rows["day"] = rows["delay"] = [float(session[1:]) for session in rows["session"]]
    return rows


def write_sessions(
    out: Path,
    found: Found,
    rows: pd.DataFrame,
    *,
    name: str,
    columns: Mapping[str, ColumnType],
    of_the_session: Sequence[str],
    citation: str,
) -> Cohort:
    """Write the scans, and what `rows` know of them, as a raw data set.

    Parameters
    ----------
    rows : one row a session, see `session_rows`.
    columns : types of the covariates; those that `rows` lack are left out.
    of_the_session : covariates that another session measures again.
    """
    present = {key: column for key, column in columns.items() if key in rows}
    subjects, sessions = person_table(rows, present, of_the_session)
    intake = Intake(stripped=False, faces=True)
    cohort = write_raw(
        out,
        name=name,
        subjects=subjects,
        columns=present,
        scans=_scans(found, intake, f"Importing {name}"),
        sessions=sessions,
        license=LICENSE,
        citation=citation,
    )
    cohort.notes += [*found.notes, *intake.notes()]
    return cohort


def _scans(found: Found, intake: Intake, title: str) -> Iterator[Scan]:
    """Yield the scans; a session is called by its day."""
    for (person, session, modality), path in track(found.files.items(), title):
        yield intake.scan(path, person, modality, session, **machine(path))
