"""IXI: T1w, T2w and PDw scans of nearly 600 healthy people from three hospitals in London.

Information eXtraction from Images, EPSRC GR/S21533/02, https://brain-development.org/ixi-dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType, is_missing, listed, typed
from gyri.cohort.visits import SEXES, read_columns, recoded
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = "IXI dataset, Imperial College London, https://brain-development.org/ixi-dataset"
LICENSE = "CC BY-SA 3.0"
MODALITIES = {"T1": "T1w", "T2": "T2w", "PD": "PDw"}
"""Ending of a file's name -> modality; angiograms and diffusion are left out."""


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What a hospital's scanner is."""

    manufacturer: str
    model: str
    field_t: float


SCANNERS = {
    "Guys": Scanner(manufacturer="Philips", model="Gyroscan Intera", field_t=1.5),
    "HH": Scanner(manufacturer="Philips", model="Intera", field_t=3.0),
    "IOP": Scanner(manufacturer="GE", model="Unspecified", field_t=1.5),
}
"""Guy's Hospital, Hammersmith Hospital, Institute of Psychiatry."""

SITES = {"Guys": "Guy's Hospital", "HH": "Hammersmith Hospital", "IOP": "Institute of Psychiatry"}
HEIGHT = ColumnType(kind="continuous", description="Height", unit="cm")
WEIGHT = ColumnType(kind="continuous", description="Weight", unit="kg")
COLUMNS = {
    "age": CONVENTIONAL["age"],
    "sex": CONVENTIONAL["sex"],
    "height": HEIGHT,
    "weight": WEIGHT,
    "site": ColumnType(kind="categorical", description="Hospital", levels=SITES),
    "scanner": ColumnType(
        kind="categorical",
        description="Scanner's model",
        levels={s.model: f"{s.manufacturer}, {s.field_t:g} T" for s in SCANNERS.values()},
    ),
}
PUBLISHED = {
    "id": ("ixi_id", "mrid", "id", "subject"),
    "sex": ("sex_id_1_m_2_f", "sex_id", "sex"),
    "age": ("age",),
    "height": ("height",),
    "weight": ("weight",),
}
"""Dates of birth and of the study are in the published table and are never read."""

_FILE = re.compile(r"IXI(\d{3})-(\w+)-(\d{4})-([A-Z0-9]+)(-\d+)?\.nii(\.gz)?")


@SOURCES.register("ixi")
def ixi(src: Path, out: Path, *, table: Path | None = None) -> Cohort:
    """IXI: T1w, T2w and PDw of healthy people from 20 to 86 years, three hospitals.

    Layout: ``IXI002-Guys-0828-T1.nii.gz`` and the like, in one folder or in the published
    ``IXI-T1``, ``IXI-T2``, ``IXI-PD``. The name says the hospital and so the scanner: Guys is a
    Philips Gyroscan Intera of 1.5 T, HH a Philips Intera of 3 T, IOP a GE of 1.5 T that is not
    specified. With them ``IXI.xls``, or a CSV of the same columns, or ages by ``MRID``. People
    listed twice keep what both rows say; where these contradict, the value is missing. A height
    or weight of 0 is missing. People without a row, and those without an age, stay.

    Access: free download from https://brain-development.org/ixi-dataset. Citation: the IXI
    dataset and its address. Licence: CC BY-SA 3.0. Sharing: as that licence allows, see the data
    set's own page. The heads are whole: the images show faces. Dates of birth are not copied.

    Parameters
    ----------
    src : folder of the scans and the table.
    out : raw BIDS data set to be made.
    table : the table; None takes ``IXI.xls``, or the only CSV file in `src`.

    Raises
    ------
    DataError
        No scans, a hospital that is not known, a scan that comes twice, or no table.
    """
    src = Path(src)
    files, notes = _find(src)
    chosen = Path(table) if table is not None else _table(src)
    subjects = _subjects(chosen, files, notes)
    intake = Intake(stripped=False, faces=True)
    cohort = write_raw(
        out,
        name="IXI",
        subjects=subjects,
        columns={str(name): COLUMNS[str(name)] for name in subjects},
        scans=_scans(files, intake),
        license=LICENSE,
        citation=CITATION,
        readme="Whole heads: the images show faces.",
    )
    cohort.notes += [*notes, *intake.notes(), *beside(src)]
    return cohort


def _find(src: Path) -> tuple[dict[tuple[str, str], tuple[str, Path]], list[str]]:
    """Return (identifier, modality) -> (hospital, file), and what was left out."""
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected the IXI scans. Check the path.")
    files: dict[tuple[str, str], tuple[str, Path]] = {}
    left_out = []
    for path in sorted(src.rglob("IXI*.nii*")):
        match = _FILE.fullmatch(path.name)
        if match is None or match[4] not in MODALITIES:
            left_out.append(path.name)
            continue
        if match[2] not in SCANNERS:
            raise DataError(
                f"{path}: {match[2]!r} is none of IXI's hospitals ({', '.join(SCANNERS)}). "
                "Keep the published names."
            )
        key = (match[1], MODALITIES[match[4]])
        if key in files:
            raise DataError(f"{files[key][1]} and {path} are the same scan. Keep one.")
        files[key] = (match[2], path)
    if not files:
        raise DataError(
            f"{src} holds no IXI scans; expected files like IXI002-Guys-0828-T1.nii.gz."
        )
    hospitals: dict[str, set[str]] = {}
    for (person, _), (hospital, _) in files.items():
        hospitals.setdefault(person, set()).add(hospital)
    if torn := sorted(person for person, of in hospitals.items() if len(of) > 1):
        raise DataError(f"{src} has scans of IXI{listed(torn)} from two hospitals. Keep one.")
    refuse_outside(src, (path for _, path in files.values()))
    notes = []
    if left_out:
        notes.append(
            f"{len(left_out)} files are no T1, T2 or PD scans and are left out: {listed(left_out)}."
        )
    return files, notes


def _table(src: Path) -> Path:
    """Return the table: the published workbook, otherwise the only CSV."""
    workbooks = sorted(p for p in src.rglob("IXI.xls*") if p.is_file())
    if workbooks:
        return workbooks[0]
    texts = sorted(p for p in src.rglob("*.csv") if p.is_file())
    if len(texts) != 1:
        raise DataError(
            f"{src} holds {len(texts)} CSV tables ({listed(p.name for p in texts) or 'none'}) and "
            "no IXI.xls; expected one. Put IXI.xls beside the scans, or say which with `table`."
        )
    return texts[0]


def _subjects(
    path: Path, files: dict[tuple[str, str], tuple[str, Path]], notes: list[str]
) -> pd.DataFrame:
    """Return the people who have scans, indexed by label."""
    rows = read_columns(path, PUBLISHED, optional=("height", "weight"))
    rows["sex"] = recoded(rows["sex"], SEXES)
    for name in {"height", "weight"} & set(rows):
        rows[name] = recoded(rows[name], {"0": ""})
    rows.index = pd.Index([_number(path, value) for value in rows.pop("id")], name="subject")
    rows = typed(rows, {str(name): COLUMNS[str(name)] for name in rows})
    table = _one_row_each(rows, notes)
    hospitals = {person: hospital for (person, _), (hospital, _) in files.items()}
    people = sorted(hospitals)
    if strangers := [person for person in people if person not in table.index]:
        notes.append(f"{len(strangers)} people have no row in {path.name}: {listed(strangers)}.")
    chosen = table.reindex(people)
    chosen["site"] = [hospitals[person] for person in people]
    chosen["scanner"] = [SCANNERS[hospitals[person]].model for person in people]
    chosen.index = pd.Index([f"IXI{person}" for person in people], name="subject")
    if unknown := list(chosen.index[chosen["age"].isna()]):
        notes.append(f"{len(unknown)} people have no age: {listed(unknown)}.")
    if unused := len(table.index.difference(people)):
        notes.append(f"{unused} people of the table have no scan here and are left out.")
    return chosen


def _number(path: Path, value: object) -> str:
    """Return ``002`` for 2, ``2.0``, ``IXI002`` or ``IXI002-Guys-0828``."""
    match = re.fullmatch(r"(?:IXI)?0*(\d{1,3})(?:\.0+)?(?:-\w+-\d+)?", str(value).strip())
    if match is None:
        raise DataError(f"{path} has the identifier {value!r}; expected one like 2 or IXI002.")
    return match[1].zfill(3)


def _one_row_each(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Join rows of one person; what they contradict each other in becomes missing."""
    if not rows.index.has_duplicates:
        return rows
    torn: dict[str, set[str]] = {}

    def agreed(values: pd.Series) -> object:
        known = list(dict.fromkeys(v for v in values if not is_missing(v)))
        if len(known) > 1:
            torn.setdefault(str(values.name), set()).update(map(str, values.index))
        return known[0] if len(known) == 1 else None

    twice = sorted(set(rows.index[rows.index.duplicated()]))
    joined = pd.DataFrame({name: rows[name].groupby(level=0).agg(agreed) for name in rows.columns})
    notes.append(f"{len(twice)} people are listed more than once: {listed(twice)}.")
    for name, people in torn.items():
        notes.append(
            f"The rows of IXI{listed(sorted(people))} contradict each other in {name}, "
            "which is missing for them."
        )
    for column in joined:
        if COLUMNS[str(column)].kind == "continuous":
            joined[column] = joined[column].astype(float)
    return joined


def _scans(files: dict[tuple[str, str], tuple[str, Path]], intake: Intake) -> Iterator[Scan]:
    for (person, modality), (hospital, path) in track(sorted(files.items()), "Importing IXI"):
        scanner = SCANNERS[hospital]
        yield intake.scan(
            path,
            f"IXI{person}",
            modality,
            Manufacturer=scanner.manufacturer,
            ManufacturersModelName=scanner.model,
            MagneticFieldStrength=scanner.field_t,
        )
