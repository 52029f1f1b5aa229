"""Brain Imaging Data Structure: raw data sets written and read, derivatives described.

Format: K. J. Gorgolewski et al., "The brain imaging data structure", Scientific Data 3 (2016),
https://bids-specification.readthedocs.io.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from gyri import __version__
from gyri.cohort.files import read_json as read_json
from gyri.cohort.files import read_tsv as read_tsv
from gyri.cohort.files import write_json as write_json
from gyri.cohort.files import write_text, write_tsv
from gyri.cohort.nifti import read_volume, write_volume
from gyri.cohort.sheet import harmonise
from gyri.cohort.table import (
    CONVENTIONAL,
    SCAN_COLUMNS,
    Cohort,
    ColumnType,
    infer_columns,
    is_safe_label,
    listed,
    snake_case,
    typed,
)
from gyri.errors import DataError

BIDS_VERSION = "1.10.0"
LABELS_FOLDER = Path("derivatives") / "labels"
CONTRAST_ENHANCED = {"T1c": ("ce-gadolinium", "T1w")}
"""Modalities that BIDS writes as an entity and a suffix."""

_NAME = re.compile(
    r"sub-(?P<subject>[^_]+)(_ses-(?P<session>[^_]+))?(?P<entities>(_[A-Za-z]+-[^_]+)*)"
    r"_(?P<suffix>[A-Za-z0-9]+)\.nii(\.gz)?"
)
_log = logging.getLogger(__name__)


@dataclass
class Scan:
    """One volume on its way into a data set.

    Parameters
    ----------
    subject : label without ``sub-``.
    modality : ``T1w``, ``T1c``, ``T2w``, ``FLAIR``, ``PDw`` ..., or a label image's name.
    data : (I, J, K); None when `file` is to be copied as it is.
    affine : (4, 4) voxel to world, millimetres.
    session : label without ``ses-``, "" where there is none.
    sidecar : content of the JSON file beside the volume.
    is_label : the voxels are integers with a meaning each (a segmentation).
    scale : integers in `data` times `scale` are the values.
    file : a file to be copied unread (one that cannot be read; preparation will say why).
    """

    subject: str
    modality: str
    data: np.ndarray | None = None
    affine: np.ndarray | None = None
    session: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict)
    is_label: bool = False
    scale: float = 1.0
    file: Path | None = None

    @classmethod
    def from_file(
        cls, path: Path, subject: str, modality: str, session: str = "", *, is_label: bool = False
    ) -> Scan:
        """Read a scan's stored voxels; one that cannot be read is taken along as it is."""
        try:
            data, affine, info = read_volume(path, stored=True)
        except DataError as error:
            _log.warning("Taken along unread, preparation will quarantine it: %s", error)
            return cls(subject, modality, session=session, is_label=is_label, file=path)
        scan = cls(subject, modality, data, affine, session, is_label=is_label, scale=info.scale)
        scan.sidecar = {"SourceOrientation": info.orientation, "SourceFile": path.name}
        return scan


def stem(subject: str, session: str = "") -> Path:
    """Return ``sub-X[/ses-Y]/anat/sub-X[_ses-Y]``: folder and beginning of a file's name."""
    folder = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []), "anat")
    return folder / (f"sub-{subject}" + (f"_ses-{session}" if session else ""))


def scan_path(root: Path, scan: Scan) -> Path:
    """Return where a raw data set keeps `scan`; label images lie in ``derivatives/labels``."""
    base = stem(scan.subject, scan.session)
    if scan.is_label:
        desc = "" if scan.modality == "dseg" else f"_desc-{scan.modality}"
        return root / LABELS_FOLDER / f"{base}{desc}_dseg.nii.gz"
    entity, suffix = CONTRAST_ENHANCED.get(scan.modality, ("", scan.modality))
    unread = scan.file is not None and scan.file.suffix != ".gz"
    ending = ".nii" if unread else ".nii.gz"
    return root / f"{base}{'_' if entity else ''}{entity}_{suffix}{ending}"


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
) -> Cohort:
    """Write a raw BIDS data set; written twice, it is the same byte for byte.

    Parameters
    ----------
    root : folder to be made; an existing one must be empty.
    name : what the data set is called.
    subjects : one row a subject, index is the label; see `Cohort.subjects`.
    columns : types of the columns of `subjects` and `sessions`.
    scans : the volumes; a generator is consumed one by one.
    license, citation, authors : for ``dataset_description.json``.
    sessions : covariates that differ between sessions; see `Cohort.sessions`.
    readme : text of the README.
    extra : more keys for ``dataset_description.json``.

    Returns
    -------
    Cohort
        Checked.

    Raises
    ------
    DataError
        `root` holds files, a label is unsafe, or table and scans disagree.
    """
    root = claim_folder(root)
    subjects = typed(subjects, columns)
    rows = []
    for scan in scans:
        path = write_scan(root, scan)
        rows.append((scan.subject, scan.session, scan.modality, str(path)))
    cohort = Cohort(
        name=name,
        root=root,
        subjects=subjects,
        columns=columns,
        scans=pd.DataFrame(rows, columns=list(SCAN_COLUMNS)),
    )
    if sessions is not None and len(sessions):
        cohort.sessions = typed(sessions.reset_index(drop=True), columns)
    cohort.check()
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
    if (root / LABELS_FOLDER).is_dir():
        write_derivative_description(
            root / LABELS_FOLDER,
            f"{name}: label images",
            [{"Name": "gyri", "Version": __version__}],
            [{"URL": "../.."}],
        )
    return cohort


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
    if not is_safe_label(scan.subject) or not (scan.session == "" or is_safe_label(scan.session)):
        raise DataError(
            f"Subject {scan.subject[:80]!r}, session {scan.session[:80]!r}: labels are made of "
            "letters and digits, at most 64. Rename them."
        )
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
    notes: list[str] = []
    scans = _find_scans(root, notes)
    if scans.empty:
        raise DataError(
            f"{root} holds no scans; expected sub-X[/ses-Y]/anat/*.nii[.gz] as BIDS names them."
        )
    subjects, columns = _read_participants(root, scans)
    sessions, more = _read_sessions(root, scans)
    name = read_json(root / "dataset_description.json", missing_ok=True).get("Name", root.name)
    cohort = Cohort(
        name=str(name),
        root=root,
        subjects=subjects,
        columns={**columns, **more},
        scans=scans,
        sessions=sessions,
        notes=notes,
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
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise DataError(
                    f"{path} links to {path.resolve()}, outside the data set. "
                    "Copy the file into the data set."
                )
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
    rows = [(*key, str(paths[0])) for key, paths in sorted(found.items())]
    return pd.DataFrame(rows, columns=list(SCAN_COLUMNS))


def _column_types(about: Mapping[str, Any], table: pd.DataFrame) -> dict[str, ColumnType]:
    types = infer_columns(table)
    described = {snake_case(name): entry for name, entry in about.items()}
    for name, guess in types.items():
        entry = described.get(name)
        if name in CONVENTIONAL or not isinstance(entry, dict):
            continue
        levels = entry.get("Levels")
        kind: Literal["categorical", "continuous"] = "categorical" if levels else guess.kind
        types[name] = ColumnType(
            kind=kind,
            description=str(entry.get("Description", "")),
            unit=str(entry.get("Units", "")),
            levels={str(k): str(v) for k, v in levels.items()} if levels else None,
        )
    return types


def _read_participants(
    root: Path, scans: pd.DataFrame
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
    table = harmonise(table)
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


def _read_sessions(root: Path, scans: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, ColumnType]]:
    tables = []
    for subject in sorted(scans.loc[scans["session"] != "", "subject"].unique()):
        path = root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
        if path.is_file():
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
    covariates = harmonise(table.drop(columns=["subject", "session"]))
    about = read_json(root / "sessions.json", missing_ok=True)
    types = _column_types(about, covariates)
    covariates = typed(covariates, _open_levels(types, covariates))
    return pd.concat([table[["subject", "session"]], covariates], axis=1), types


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
