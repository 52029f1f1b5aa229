"""DICOM series, converted by dcm2niix.

X. Li et al., "The first step for neuroimaging data analysis: DICOM to NIfTI conversion", J.
Neurosci. Methods 264 (2016), https://github.com/rordenlab/dcm2niix.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import read_json, refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.nifti import read_volume
from gyri.cohort.oasis_days import MACHINE
from gyri.cohort.privacy import private_fields, without_private
from gyri.cohort.sheet import harmonise
from gyri.cohort.table import (
    Cohort,
    ColumnType,
    bids_label,
    infer_columns,
    listed,
    snake_case,
    typed,
)
from gyri.cohort.workbook import read_table
from gyri.errors import DataError, UnavailableError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CONVERTER = "dcm2niix"
TIMEOUT_S = 600
T1W = r"t1|mp-?rage|spgr|bravo|tfl|tfe"
"""What T1w series are called by most vendors."""

NO_HEAD = re.compile(r"locali[sz]er|scout|survey|phase|b1map|mosaic|screen", re.I)
MIN_AXIS = 16
"""Fewer slices than these are no volume of a head."""

SUBJECT_HEADINGS = ("subject", "subject_id", "participant_id", "participant", "id", "folder")


@dataclass(frozen=True)
class Series:
    """One converted series."""

    path: Path
    about: dict[str, Any]
    voxels: int

    @property
    def name(self) -> str:
        """What the scanner called it."""
        keys = ("SeriesDescription", "ProtocolName")
        return " / ".join(dict.fromkeys(str(self.about[k]) for k in keys if self.about.get(k)))


@SOURCES.register("dicom")
def dicom(
    src: Path,
    out: Path,
    *,
    table: Path | None = None,
    sessions: bool = False,
    series: str = T1W,
    modality: str = "T1w",
    name: str = "",
) -> Cohort:
    """DICOM series of any scanner, converted by dcm2niix.

    Layout: a folder a subject, called by its study code, with DICOM files at any depth; with
    `sessions`, the folders in it are sessions. Of the series whose description fits, the one with
    the most voxels is taken. A table (CSV, TSV, xlsx) may give covariates by folder.

    Access, citation and licence are those of the data, see the data set's own page. Sharing: as
    that licence and the people's consent allow. Citation of the converter: Li et al. 2016.
    Names, identifiers, dates of birth and of the scan, places and serials are counted and never
    copied; of the headers only manufacturer, model and field strength go on. The heads show faces.

    Parameters
    ----------
    src : folder of the subjects.
    out : raw BIDS data set to be made.
    table : covariates by subject; None has none.
    sessions : the folders in a subject's folder are sessions.
    series : pattern of the wanted series' description, upper and lower case alike.
    modality : what the scans are, as BIDS names it.
    name : what the data set is called; "" takes the folder's name.

    Raises
    ------
    UnavailableError
        dcm2niix is not installed.
    DataError
        No subjects, a folder that is called after the patient, no series that fits, or a table
        that disagrees with the folders.
    """
    program = converter()
    src = Path(src).resolve()
    folders = _folders(src, sessions)
    notes: list[str] = []
    subjects, columns = _subjects(table, sorted({person for person, _ in folders}), notes)
    private: Counter[str] = Counter()
    intake = Intake(stripped=False, faces=True)
    with tempfile.TemporaryDirectory(prefix="gyri-dicom-") as work:
        chosen = {}
        for number, (key, folder) in enumerate(track(folders.items(), "Converting DICOM")):
            found = _convert(program, folder, Path(work) / str(number))
            private.update(f for one in found for f in private_fields(one.about))
            _refuse_names(folder, key[0], found)
            chosen[key] = _choose(folder, found, series)
        cohort = write_raw(
            out,
            name=name or src.name,
            subjects=subjects,
            columns=columns,
            scans=_scans(chosen, intake, modality),
        )
    if private:
        fields = ", ".join(f"{field} in {count}" for field, count in private.items())
        cohort.notes.append(
            f"The series named people, places or times ({fields}); none was copied."
        )
    cohort.notes += notes + intake.notes()
    return cohort


def converter() -> Path:
    """Return the program dcm2niix, from the PATH or the package of that name."""
    if on_path := shutil.which(CONVERTER):
        return Path(on_path)
    if importlib.util.find_spec(CONVERTER) is not None:
        return Path(importlib.import_module(CONVERTER).bin)
    raise UnavailableError(
        "DICOM is converted by dcm2niix, which is not installed. Run `pip install dcm2niix`, or "
        "put the program on the PATH (https://github.com/rordenlab/dcm2niix)."
    )


def _folders(src: Path, sessions: bool) -> dict[tuple[str, str], Path]:
    """Return the folder of every subject and session."""
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected DICOM series. Check the path.")
    people = sorted(path for path in src.iterdir() if path.is_dir())
    found: dict[tuple[str, str], Path] = {}
    for person in people:
        inner = sorted(path for path in person.iterdir() if path.is_dir()) if sessions else [None]
        for visit in inner:
            label = bids_label(person.name.removeprefix("sub-"))
            key = (label, bids_label(visit.name.removeprefix("ses-")) if visit else "")
            if key in found:
                raise DataError(f"{found[key]} and {visit or person} get one label. Rename one.")
            found[key] = visit or person
    refuse_outside(src, found.values())
    if not found:
        raise DataError(f"{src} holds no folders; expected one a subject with its DICOM files.")
    return found


def _subjects(
    table: Path | None, labels: list[str], notes: list[str]
) -> tuple[pd.DataFrame, dict[str, ColumnType]]:
    index = pd.Index(labels, name="subject")
    if table is None:
        return pd.DataFrame(index=index), {}
    rows = read_table(table)
    rows.columns = pd.Index([snake_case(str(name)) for name in rows.columns])
    key = next((name for name in SUBJECT_HEADINGS if name in rows), "")
    if not key:
        raise DataError(
            f"{table} has no column called like a subject ({', '.join(SUBJECT_HEADINGS)})."
        )
    rows.index = pd.Index([bids_label(str(v).removeprefix("sub-")) for v in rows.pop(key)])
    if twice := sorted(set(rows.index[rows.index.duplicated()])):
        raise DataError(f"{table} lists {listed(twice)} more than once. Keep one row each.")
    if absent := sorted(set(labels) - set(rows.index)):
        raise DataError(f"{table} has no row for the folders {listed(absent)}. Add them.")
    rows = harmonise(without_private(rows.loc[labels], notes))
    rows.index = index
    columns = infer_columns(rows)
    return typed(rows, columns), columns


def _convert(program: Path, folder: Path, work: Path) -> list[Series]:
    """Convert all series in `folder`; what the headers say stays in `work`."""
    work.mkdir(parents=True)
    command = [
        str(program), "-b", "y", "-ba", "n", "-z", "n", "-f", "%s", "-o", str(work), str(folder)
    ]  # fmt: skip
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{folder}: dcm2niix took more than {TIMEOUT_S} s. Split it.") from None
    found = []
    for path in sorted(work.glob("*.nii")):
        try:
            shape = read_volume(path)[0].shape
        except DataError:  # diffusion and time series, which are no candidates
            continue
        about = read_json(path.with_suffix(".json"), missing_ok=True)
        if min(shape) >= MIN_AXIS:
            found.append(Series(path, about, int(np.prod(shape))))
    if not found:
        said = (run.stderr or run.stdout).strip().splitlines()
        raise DataError(
            f"{folder}: dcm2niix made no three-dimensional volume (exit {run.returncode}"
            f"{': ' + said[-1] if said else ''}). Check that it holds DICOM files of a whole scan."
        )
    return found


def _refuse_names(folder: Path, label: str, found: list[Series]) -> None:
    """Refuse a folder that is called after the patient: its label would name them."""
    for one in found:
        words = re.findall(r"[a-z]+", str(one.about.get("PatientName", "")).lower())
        own = re.sub(r"[^a-z]", "", folder.name.lower())
        spelled = sum(len(word) for word in words if len(word) > 1 and word in own)
        if not re.search(r"\d", label) and own and spelled == len(own):
            raise DataError(
                f"{folder} is called after the patient; its name would become the label. "
                "Rename the folder to a study code."
            )


def _choose(folder: Path, found: list[Series], pattern: str) -> Series:
    """Return the series that fits and has the most voxels."""
    wanted = re.compile(pattern, re.I)
    fitting = [one for one in found if wanted.search(one.name) and not NO_HEAD.search(one.name)]
    if not fitting:
        raise DataError(
            f"{folder}: no series is called like {pattern!r}; it has "
            f"{listed(sorted(one.name or 'one without a name' for one in found))}. "
            "Say which with `series`."
        )
    return max(fitting, key=lambda one: one.voxels)


def _scans(chosen: dict[tuple[str, str], Series], intake: Intake, modality: str) -> Iterator[Scan]:
    for (subject, session), one in track(chosen.items(), "Importing scans"):
        facts = {key: one.about[key] for key in MACHINE if key in one.about}
        yield intake.scan(one.path, subject, modality, session, **facts)
