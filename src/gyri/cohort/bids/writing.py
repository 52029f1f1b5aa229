"""Raw data sets written, derivatives described; written twice, the same byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gyri import __version__
from gyri.cohort.bids.scan import LABELS_FOLDER, Scan, scan_path
from gyri.cohort.files import write_json, write_text, write_tsv
from gyri.cohort.nifti import write_volume
from gyri.cohort.quarantine import QUARANTINE, QUARANTINE_COLUMNS, Entry, write_quarantine
from gyri.cohort.table import SCAN_COLUMNS, Cohort, ColumnType, is_safe_label, listed, typed
from gyri.errors import DataError

BIDS_VERSION = "1.10.0"


def write_raw(
    root: Path,
    *,
    name: str,
    subjects: pd.DataFrame,
    columns: dict[str, ColumnType],
    scans: Iterable[Scan],
    license: str = "",
    citation: str = "",
    sessions: pd.DataFrame | None = None,
    readme: str = "",
    authors: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
    quarantine: Sequence[Entry] = (),
) -> Cohort:
    """Write a raw BIDS data set; written twice, it is the same byte for byte.

    Parameters
    ----------
    root : folder to be made; an existing one must be empty.
    name : what the data set is called.
    subjects : one row a subject, index is the label; see `Cohort.subjects`.
    columns : types of the columns of `subjects` and `sessions`.
    scans : the volumes; a generator is consumed one by one. Those with a fault are listed in
        ``quarantine.tsv``; a person of whom no scan is left is left out of the tables.
    license, citation, authors : for ``dataset_description.json``.
    sessions : covariates that differ between sessions; see `Cohort.sessions`.
    readme : text of the README.
    extra : more keys for ``dataset_description.json``.
    quarantine : scans that could not be used already, listed with those of `scans`.

    Returns
    -------
    Cohort
        Checked.

    Raises
    ------
    DataError
        `root` holds files, a label is unsafe, the data set has no name, table and scans disagree,
        or no scan can be used.
    """
    if not name.strip():
        raise DataError("The data set has no name; BIDS asks for one. Say it with `name`.")
    subjects = typed(subjects, columns)
    root = claim_folder(root)
    cohort = Cohort(
        name=name,
        root=root,
        subjects=subjects,
        columns=columns,
        scans=pd.DataFrame(columns=list(SCAN_COLUMNS)),
        quarantine=list(quarantine),
    )
    if sessions is not None and len(sessions):
        cohort.sessions = typed(sessions.reset_index(drop=True), columns)
    _write_scans(cohort, scans)
    cohort.check()
    subjects = cohort.subjects
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "License": license,
        "Authors": list(authors),
        "HowToAcknowledge": citation,
        "GeneratedBy": [{"Name": "gyri", "Version": __version__}],
        **(extra or {}),
    }
    write_json(root / "dataset_description.json", {k: v for k, v in description.items() if v})
    write_readme(root, name, readme, license, citation)
    write_table(root, subjects, columns)
    _write_sessions(cohort)
    if cohort.quarantine:
        write_quarantine(root, cohort.quarantine)
        write_text(root / ".bidsignore", QUARANTINE + "\n")
    if (root / LABELS_FOLDER).is_dir():
        write_derivative_description(
            root / LABELS_FOLDER,
            f"{name}: label images",
            [{"Name": "gyri", "Version": __version__}],
            [{"URL": "../.."}],
        )
    return cohort


def _write_scans(cohort: Cohort, scans: Iterable[Scan]) -> None:
    """Write the scans that can be used; leave out the people of whom none is left."""
    rows, faulty = [], set()
    for scan in scans:
        _refuse_names(scan)
        path = scan_path(cohort.root, scan)
        if scan.fault:
            faulty.add(scan.subject)
            where = str(path.relative_to(cohort.root))
            entry = (scan.subject, scan.session, where, scan.fault)
            cohort.quarantine.append(dict(zip(QUARANTINE_COLUMNS, entry)))
        else:
            write_scan(cohort.root, scan)
            rows.append((scan.subject, scan.session, scan.modality, str(path)))
    if cohort.quarantine and not rows:
        raise DataError(
            f"None of the {len(cohort.quarantine)} scans of {cohort.name!r} can be used. "
            f"The first: {cohort.quarantine[0]['rule']}"
        )
    cohort.scans = pd.DataFrame(rows, columns=list(SCAN_COLUMNS))
    lost = sorted(faulty - set(cohort.scans["subject"]))
    cohort.subjects = cohort.subjects.drop(index=lost, errors="ignore")
    cohort.sessions = cohort.sessions[~cohort.sessions["subject"].isin(lost)]
    if lost:
        cohort.notes.append(f"{len(lost)} people have no scan that can be used: {listed(lost)}.")


def claim_folder(root: Path) -> Path:
    """Make folder `root`; `DataError` when it already holds files."""
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(
            f"{root} exists and is not empty; expected a new folder for the data set. "
            "Give another name, or remove it first."
        )
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


def write_scan(root: Path, scan: Scan) -> Path:
    """Write one volume and its sidecar into a raw data set; returns the volume's path."""
    _refuse_names(scan)
    path = scan_path(root, scan)
    if scan.data is None or scan.affine is None:
        if scan.file is None:
            raise DataError(f"The {scan.modality} of sub-{scan.subject} has neither data nor file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(scan.file, path)
        return path
    write_volume(path, scan.data, scan.affine, descrip=f"gyri {scan.modality}", scale=scan.scale)
    write_json(path.with_name(path.name.split(".")[0] + ".json"), scan.sidecar)
    return path


def _refuse_names(scan: Scan) -> None:
    """Raise `DataError` for a scan whose file would have no valid BIDS name."""
    names = [scan.subject, scan.modality, *([scan.session] if scan.session else [])]
    if not all(map(is_safe_label, names)):
        raise DataError(
            f"Subject {scan.subject[:80]!r}, session {scan.session[:80]!r}, modality "
            f"{scan.modality[:80]!r}: labels are made of letters and digits, at most 64. "
            "Rename them."
        )


def write_readme(
    root: Path, name: str, text: str = "", license: str = "", citation: str = ""
) -> None:
    """Write the data set's README."""
    parts = [f"# {name}", text, f"License: {license}" if license else ""]
    parts += [f"Please cite: {citation}" if citation else "", f"Written by gyri {__version__}."]
    write_text(root / "README", "\n\n".join(filter(None, parts)) + "\n")


def describe_columns(columns: Mapping[str, ColumnType], table: pd.DataFrame) -> dict[str, Any]:
    """Return the BIDS description of a table's columns; categorical ones always list levels."""
    described: dict[str, Any] = {}
    for name, column in columns.items():
        if name not in table:
            continue
        entry: dict[str, Any] = {"Description": column.description or name}
        if column.unit:
            entry["Units"] = column.unit
        if column.kind == "categorical":
            present = sorted({str(v) for v in table[name] if v is not None})
            entry["Levels"] = dict(column.levels or {level: level for level in present})
        described[name] = entry
    return described


def write_table(root: Path, subjects: pd.DataFrame, columns: Mapping[str, ColumnType]) -> None:
    """Write ``participants.tsv`` and its JSON, one row a subject."""
    table = subjects.sort_index()
    table.insert(0, "participant_id", [f"sub-{label}" for label in table.index])
    write_tsv(root / "participants.tsv", table)
    write_json(root / "participants.json", describe_columns(columns, table))


def _write_sessions(cohort: Cohort) -> None:
    """Write ``sub-X/sub-X_sessions.tsv`` for every subject that has sessions."""
    have = cohort.scans[cohort.scans["session"] != ""]
    if have.empty:
        return
    covariates = [c for c in cohort.sessions if c not in ("subject", "session")]
    known = cohort.sessions.set_index(["subject", "session"])
    pairs = have[["subject", "session"]].drop_duplicates().sort_values(["subject", "session"])
    table = pairs.join(known, on=["subject", "session"])
    for subject, rows in table.groupby("subject"):
        rows = rows.drop(columns="subject").rename(columns={"session": "session_id"})
        rows["session_id"] = "ses-" + rows["session_id"]
        write_tsv(cohort.root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv", rows)
    types = {str(name): cohort.columns[str(name)] for name in covariates}
    about = {"session_id": {"Description": "Session"}, **describe_columns(types, table)}
    write_json(cohort.root / "sessions.json", about)


def write_derivative_description(
    root: Path,
    name: str,
    generated_by: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]] = (),
    *,
    license: str = "",
    ignore: Sequence[str] = (),
) -> None:
    """Say that a folder is a BIDS derivative, and of what.

    Parameters
    ----------
    root : the data set's folder.
    name : what it is called.
    generated_by : for example ``[{"Name": "gyri", "Version": "0.1.0", "Description": ...}]``.
    sources : for example ``[{"URL": "file:///..."}]``.
    license : licence of the data.
    ignore : patterns of files that are no part of BIDS, for ``.bidsignore``.
    """
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": license,
        "GeneratedBy": [dict(entry) for entry in generated_by],
        "SourceDatasets": [dict(entry) for entry in sources],
    }
    write_json(root / "dataset_description.json", {k: v for k, v in description.items() if v})
    if ignore:
        write_text(root / ".bidsignore", "\n".join(ignore) + "\n")
