"""A folder of NIfTI files and a table."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.nifti import NanRule, read_volume
from gyri.cohort.privacy import beside, refuse_private, without_private
from gyri.cohort.sheet import harmonise
from gyri.cohort.table import (
    Cohort,
    bids_label,
    infer_columns,
    is_safe_label,
    listed,
    snake_case,
    typed,
)
from gyri.cohort.workbook import TEXT, read_table
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
    scans: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    name: str = "",
    missing: tuple[str, ...] = (),
    nan: NanRule = "refuse",
    axes: str = "",
    strict: bool = False,
) -> Cohort:
    """NIfTI files in a folder, and a CSV or TSV table with a column of subjects.

    Layout: ``*.nii`` or ``*.nii.gz`` in the folder or below it, one scan a subject; a file
    belongs to the subject whose identifier it is named after (``s01.nii.gz``, ``s01_T1w.nii.gz``
    or ``s01/scan.nii.gz``). The table may use any delimiter, decimal commas, a byte-order mark
    and any line ends, or be a workbook. With `scans` and `labels` a subject has several files,
    told apart by how their names end (``s01_T1w.nii.gz``, ``s01_lesion.nii.gz``); then a table
    is not needed.

    Access, citation and licence are those of the data, see the data set's own page. Sharing: as
    that licence allows. Columns of names and dates are left out. Whether the images show faces is
    not known.

    Parameters
    ----------
    src : folder of the scans.
    out : raw BIDS data set to be made.
    table : the table; None takes the only CSV or TSV file in `src`.
    subject : heading of the column of subjects; "" finds it among the usual ones.
    modality : what the scans are, as BIDS names it.
    scans : endings of the images' names, each a modality or ``MODALITY=ENDING``, for example
        ``T1w T1c=T1post FLAIR``.
    labels : endings of the label images' names, ``NAME`` or ``NAME=ENDING``.
    name : what the data set is called; "" takes the folder's name.
    missing : what the table writes where a value is missing, for example ``999 -1``, beside the
        usual ``n/a``, ``NaN`` and empty cells.
    nan : quarantine scans with NaN or infinite voxels, or set these voxels to zero.
    axes : where the stored axes point in scans whose header declares no orientation, for example
        ``LAS``; "" quarantines them.
    strict : refuse the folder where a header or JSON file may name people, places or times;
        otherwise that is left out and reported.

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
    refuse_outside(src, files)
    if strict:
        refuse_private(files)
    intake = Intake(read=functools.partial(read_volume, stored=True, nan=nan, axes=axes))
    people = _People(heading=subject, missing=missing)
    if scans or labels:
        endings = _endings(scans, labels)
        found = _several(src, files, endings)
        others = [file.name for file in files if file not in found.values()]
        if others:
            people.notes.append(
                f"{len(others)} files end otherwise and are left out: {listed(others)}."
            )
        subjects = _subjects_of(src, table, found, people)
        volumes = _by_ending(found, endings, intake)
    else:
        path = Path(table) if table is not None else _only_table(src)
        subjects = people.read(path)
        owners = _owners(src, files, [str(identifier) for identifier in subjects.index])
        subjects = _labelled(path, subjects)
        volumes = _scans(owners, modality, intake)
    columns = infer_columns(subjects)
    cohort = write_raw(
        out,
        name=name or src.name,
        subjects=typed(subjects, columns),
        columns=columns,
        scans=volumes,
    )
    cohort.notes += [*people.notes, *intake.notes(), *beside(src)]
    return cohort


def _endings(scans: tuple[str, ...], labels: tuple[str, ...]) -> dict[str, tuple[str, bool]]:
    """Return ending -> (modality, is it a label image)."""
    endings: dict[str, tuple[str, bool]] = {}
    for words, is_label in ((scans, False), (labels, True)):
        for word in words:
            modality, _, ending = word.partition("=")
            if (ending or modality) in endings or not is_safe_label(modality):
                raise UsageError(
                    f"{word!r} comes twice or is no modality; expected like T1c=T1post."
                )
            endings[ending or modality] = (modality, is_label)
    return endings


def _several(
    src: Path, files: list[Path], endings: dict[str, tuple[str, bool]]
) -> dict[tuple[str, str], Path]:
    """Return (label, ending) -> file, for files told apart by how their names end."""
    ending = "|".join(map(re.escape, sorted(endings, key=len, reverse=True)))
    pattern = re.compile(rf"(?:sub-)?(.+?)[_\-. ]({ending})\.nii(?:\.gz)?")
    found: dict[tuple[str, str], Path] = {}
    for file in files:
        if match := pattern.fullmatch(file.name):
            key = (bids_label(match[1]), match[2])
            if key in found:
                raise DataError(f"{found[key]} and {file} are the same scan. Keep one.")
            found[key] = file
    if not found:
        raise DataError(f"{src} holds no files whose names end in {', '.join(endings)}.")
    return found


def _subjects_of(
    src: Path, table: Path | None, found: dict[tuple[str, str], Path], people: _People
) -> pd.DataFrame:
    """Return the table of the people in `found`: the one that is there, or one without columns."""
    labels = list(dict.fromkeys(label for label, _ in found))
    if table is None and not any(p.suffix.lower() in TEXT for p in src.iterdir()):
        return pd.DataFrame(index=pd.Index(labels, name="subject"))
    path = Path(table) if table else _only_table(src)
    subjects = _labelled(path, people.read(path))
    if set(labels) != set(subjects.index):
        raise DataError(
            f"Table and scans in {src} disagree: scans without a row: "
            f"{listed(sorted(set(labels) - set(subjects.index))) or 'none'}; rows without a scan: "
            f"{listed(sorted(set(subjects.index) - set(labels))) or 'none'}. Name each file after "
            "its subject."
        )
    return subjects


def _labelled(path: Path, subjects: pd.DataFrame) -> pd.DataFrame:
    """Return the table by label, refused where two rows are one person's."""
    labels = pd.Index([bids_label(str(i)) for i in subjects.index], name="subject")
    if labels.has_duplicates:
        twice = sorted(set(labels[labels.duplicated()]))
        raise DataError(f"{path} lists subjects {listed(twice)} more than once. Keep one row each.")
    return subjects.set_axis(labels)


def _only_table(src: Path) -> Path:
    found = sorted(p for p in src.iterdir() if p.suffix.lower() in (".csv", ".tsv", ".txt"))
    if len(found) != 1:
        raise DataError(
            f"{src} holds {len(found)} tables ({listed(p.name for p in found) or 'none'}); "
            "expected one. Say which with `table`."
        )
    return found[0]


@dataclass
class _People:
    """Reads the table of people.

    Parameters
    ----------
    heading : of the column of subjects; "" finds it among the usual ones.
    missing : words that mean a missing value.
    """

    heading: str
    missing: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    def read(self, path: Path) -> pd.DataFrame:
        """Return the table by identifier, without columns that name or date people."""
        table = read_table(path)
        headings = list(table.columns)
        table.columns = pd.Index([snake_case(name) for name in headings])
        key = self._key(path, list(table.columns), headings)
        table.index = pd.Index(table.pop(key).str.removeprefix("sub-"), name="subject")
        if self.missing:
            table = table.replace(list(self.missing), "")
        return harmonise(without_private(table, self.notes))

    def _key(self, path: Path, names: list[str], headings: list[str]) -> str:
        if self.heading:
            if snake_case(self.heading) not in names:
                raise UsageError(
                    f"{path} has no column {self.heading!r}.{nearest(self.heading, headings)} "
                    f"Columns: {', '.join(headings)}."
                )
            return snake_case(self.heading)
        key = next((name for name in SUBJECT_HEADINGS if name in names), "")
        if not key:
            raise DataError(
                f"{path} has the columns {', '.join(headings)}, none of them called like a "
                f"subject ({', '.join(SUBJECT_HEADINGS)}). Say which with `subject`."
            )
        return key


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


def _scans(owners: list[tuple[str, Path]], modality: str, intake: Intake) -> Iterator[Scan]:
    for identifier, file in track(owners, "Importing scans"):
        yield intake.scan(file, bids_label(identifier), modality)


def _by_ending(
    found: dict[tuple[str, str], Path], endings: dict[str, tuple[str, bool]], intake: Intake
) -> Iterator[Scan]:
    for (label, end), file in track(found.items(), "Importing scans"):
        modality, is_label = endings[end]
        read = intake.label if is_label else intake.scan
        yield read(file, label, modality)
