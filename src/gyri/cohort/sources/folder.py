"""A folder of NIfTI files and a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.sheet import harmonise, read_sheet
from gyri.cohort.table import Cohort, bids_label, infer_columns, listed, snake_case, typed
from gyri.errors import DataError, UsageError, nearest
from gyri.registry import SOURCES
from gyri.runtime.progress import track

SUBJECT_HEADINGS = ("subject", "subject_id", "participant_id", "participant", "id", "sub")


@SOURCES.register("folder")
def folder(
    src: Path,
    out: Path,
    *,
    table: Path | None = None,
    subject: str = "",
    modality: str = "T1w",
    name: str = "",
) -> Cohort:
    """NIfTI files in a folder, and a CSV or TSV table with a column of subjects.

    Layout: ``*.nii`` or ``*.nii.gz`` in the folder or below it, one scan a subject; a file
    belongs to the subject whose identifier it is named after (``s01.nii.gz``, ``s01_T1w.nii.gz``
    or ``s01/scan.nii.gz``). The table may use any delimiter, decimal commas, a byte-order mark
    and any line ends.

    Access, citation and licence are those of the data.

    Parameters
    ----------
    src : folder of the scans.
    out : raw BIDS data set to be made.
    table : the table; None takes the only CSV or TSV file in `src`.
    subject : heading of the column of subjects; "" finds it among the usual ones.
    modality : what the scans are, as BIDS names it.
    name : what the data set is called; "" takes the folder's name.

    Raises
    ------
    DataError
        No folder, no scans, no table, or a scan without a row or a row without a scan.
    UsageError
        The table has no column `subject`.
    """
    src = Path(src).resolve()
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected NIfTI files and a table. Check the path.")
    files = sorted(p for p in src.rglob("*") if p.name.endswith((".nii", ".nii.gz")))
    if not files:
        raise DataError(f"{src} holds no .nii or .nii.gz files.")
    table = Path(table) if table is not None else _only_table(src)
    subjects = _read_subjects(table, subject)
    owners = _owners(src, files, [str(identifier) for identifier in subjects.index])
    subjects.index = pd.Index([bids_label(str(i)) for i in subjects.index], name="subject")
    if subjects.index.has_duplicates:
        twice = sorted(set(subjects.index[subjects.index.duplicated()]))
        raise DataError(
            f"{table} lists subjects {listed(twice)} more than once. Keep one row each."
        )
    columns = infer_columns(subjects)
    return write_raw(
        out,
        name=name or src.name,
        subjects=typed(subjects, columns),
        columns=columns,
        scans=_scans(owners, modality),
    )


def _only_table(src: Path) -> Path:
    found = sorted(p for p in src.iterdir() if p.suffix.lower() in (".csv", ".tsv", ".txt"))
    if len(found) != 1:
        raise DataError(
            f"{src} holds {len(found)} tables ({listed(p.name for p in found) or 'none'}); "
            "expected one. Say which with `table`."
        )
    return found[0]


def _read_subjects(path: Path, heading: str) -> pd.DataFrame:
    table = read_sheet(path)
    headings = list(table.columns)
    table.columns = pd.Index([snake_case(name) for name in headings])
    if heading:
        key = snake_case(heading)
        if key not in table:
            raise UsageError(
                f"{path} has no column {heading!r}.{nearest(heading, headings)} "
                f"Columns: {', '.join(headings)}."
            )
    else:
        key = next((name for name in SUBJECT_HEADINGS if name in table), "")
        if not key:
            raise DataError(
                f"{path} has the columns {', '.join(headings)}, none of them called like a "
                f"subject ({', '.join(SUBJECT_HEADINGS)}). Say which with `subject`."
            )
    table.index = pd.Index(table.pop(key).str.removeprefix("sub-"), name="subject")
    return harmonise(table)


def _owners(src: Path, files: list[Path], identifiers: list[str]) -> list[tuple[str, Path]]:
    """Return (identifier, file) pairs; both sides must match one to one."""
    known, pairs, strangers = set(identifiers), [], []
    for file in files:
        owner = _owner(file.relative_to(src), known)
        if owner is None:
            strangers.append(file.name)
        else:
            pairs.append((owner, file))
    faults = []
    if strangers:
        faults.append(f"{len(strangers)} scans have no row: {listed(strangers)}")
    owned = [owner for owner, _ in pairs]
    if alone := [identifier for identifier in identifiers if identifier not in owned]:
        faults.append(f"{len(alone)} rows have no scan: {listed(alone)}")
    if several := sorted({owner for owner in owned if owned.count(owner) > 1}):
        faults.append(f"more than one scan each: {listed(several)}")
    if faults:
        raise DataError(
            f"Table and scans in {src} disagree: {'; '.join(faults)}. Name each file after its "
            "subject, and keep one file a row."
        )
    return pairs


def _owner(relative: Path, known: set[str]) -> str | None:
    """Return the longest known identifier that a file, or a folder above it, is named after."""
    stem = re.sub(r"\.nii(\.gz)?$", "", relative.name)
    for part in (stem, *reversed(relative.parts[:-1])):
        part = part.removeprefix("sub-")
        pieces = re.split(r"(?<=[_\-. ])|(?=[_\-. ])", part)
        for length in range(len(pieces), 0, -1):
            if (head := "".join(pieces[:length])) in known:
                return head
    return None


def _scans(owners: list[tuple[str, Path]], modality: str) -> Iterator[Scan]:
    for identifier, file in track(owners, "Importing scans"):
        yield Scan.from_file(file, bids_label(identifier), modality)
