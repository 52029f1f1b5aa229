"""OASIS-3: thirty years of MRI, PET and clinical visits of 1379 people from 42 to 95 years.

P. J. LaMontagne et al., "OASIS-3: longitudinal neuroimaging, clinical, and cognitive dataset for
normal aging and Alzheimer disease", medRxiv 2019.12.13.19014902.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gyri.cohort.oasis_days import (
    Found,
    find_scans,
    machine,
    scanner_name,
    session_rows,
    write_sessions,
)
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType, as_number, listed
from gyri.cohort.visits import (
    DAYS_A_YEAR,
    SEXES,
    day_of,
    nearest_visit,
    read_columns,
    recoded,
)
from gyri.cohort.workbook import find_table
from gyri.errors import DataError
from gyri.registry import SOURCES

CITATION = (
    "LaMontagne et al. (2019), OASIS-3: longitudinal neuroimaging, clinical, and cognitive dataset "
    "for normal aging and Alzheimer disease, https://doi.org/10.1101/2019.12.13.19014902"
)
PEOPLE = {
    "person": ("oasisid", "subject"),
    "age": ("ageat_entry", "age_at_entry", "ageatentry"),
    "sex": ("gender", "m_f", "sex"),
    "handedness": ("hand",),
    "education_years": ("educ", "education"),
    "apoe": ("apoe",),
}
VISITS = {
    "person": ("oasisid", "subject"),
    "label": ("oasis_session_label", "adrc_adrcclinicaldata_id"),
    "mmse": ("mmse",),
    "cdr": ("cdrtot", "cdr"),
    "diagnosis": ("dx1",),
}
VISIT_DELAY = ColumnType(
    kind="continuous", description="Time between the scan and the clinical visit", unit="day"
)
COLUMNS = {
    "age": CONVENTIONAL["age"],
    "sex": CONVENTIONAL["sex"],
    "handedness": CONVENTIONAL["handedness"],
    "education_years": ColumnType(kind="continuous", description="Years of education", unit="year"),
    "apoe": ColumnType(kind="categorical", description="APOE genotype, its two alleles"),
    "delay": ColumnType(
        kind="continuous", description="Time between entry to the study and the scan", unit="day"
    ),
    "mmse": CONVENTIONAL["mmse"],
    "cdr": CONVENTIONAL["cdr"],
    "diagnosis": ColumnType(
        kind="categorical", description="First diagnosis at the nearest clinical visit"
    ),
    "visit_delay": VISIT_DELAY,
    "scanner": CONVENTIONAL["scanner"],
}
OF_THE_SESSION = ("age", "delay", "mmse", "cdr", "diagnosis", "visit_delay", "scanner")


@SOURCES.register("oasis3")
def oasis3(src: Path, out: Path, *, within_days: float = 365) -> Cohort:
    """OASIS-3: MRI of people from 42 to 95 years over decades, with the nearest clinical visit.

    Layout: a folder a session, ``OAS30001_MR_d0129/anat2/NIFTI`` (or ``anat2`` itself) with
    ``sub-OAS30001_sess-d0129_T1w.nii.gz``, or the same sorted into ``sub-/ses-/anat`` by the
    published scripts; ``d0129`` are the days since entry and name the session. The tables
    ``OASIS3_demographics.csv`` and ``OASIS3_UDSb4_cdr.csv`` (or the older ``ADRC Clinical Data``
    export) anywhere below. T1w, T2w, FLAIR and T2star are read; of several runs the first. PET
    (``OAS30001_AV45_d2430`` and other tracers) and other series are counted and left out: they
    are not anatomical MRI. Visits of a negative age are entry errors and are not used.

    Access: application at https://sites.wustl.edu/oasisbrains. Citation: LaMontagne et al. 2019.
    Licence: OASIS data use terms. Sharing: see the data set's own page for what its terms allow of
    scans and of derived data; never try to identify a person. The heads are taken to show faces.
    Of the JSON files only manufacturer, model and field strength are read.

    Parameters
    ----------
    src : folder of the sessions and the tables.
    out : raw BIDS data set to be made.
    within_days : a clinical visit further from the scan is not used.

    Raises
    ------
    DataError
        No scans, no table, columns missing, or scans of people who have no row.
    """
    src = Path(src)
    found = find_scans(src, "OAS3", "OASIS-3")
    notes: list[str] = []
    rows = _people(src, found)
    visits = _visits(src, notes)
    rows, alone = nearest_visit(rows, visits, within_days)
    if alone:
        notes.append(
            f"{len(alone)} sessions have no clinical visit within {within_days:g} days: "
            f"{listed(alone)}."
        )
    cohort = write_sessions(
        out,
        found,
        rows,
        name="OASIS-3",
        columns=COLUMNS,
        of_the_session=OF_THE_SESSION,
        citation=CITATION,
    )
    cohort.notes += notes + beside(src)
    return cohort


def _people(src: Path, found: Found) -> pd.DataFrame:
    """Return one row a session with what is known of the person and the scanner."""
    path = find_table(src, "*demographics*", "OASIS3_demographics.csv")
    table = read_columns(path, PEOPLE, optional=("handedness", "education_years", "apoe"))
    table = table.drop_duplicates("person").set_index("person")
    table["sex"] = recoded(table["sex"], SEXES)
    rows = session_rows(found, table, path)
    entry = [as_number(value) for value in rows["age"]]
    if wrong := [p for p, age in zip(rows["person"], entry) if age is None]:
        raise DataError(f"{path} has ages at entry that are no numbers for {listed(wrong)}.")
    rows["age"] = [
        age + day / DAYS_A_YEAR for age, day in zip(entry, rows["day"]) if age is not None
    ]
    said: dict[tuple[str, str], str] = {}
    for (person, session, _), scan in found.files.items():
        if scanner := scanner_name(machine(scan)):
            said.setdefault((person, session), scanner)
    scanners = [said.get(key) for key in found.sessions]
    if any(scanners):
        rows["scanner"] = scanners
    return rows


def _visits(src: Path, notes: list[str]) -> pd.DataFrame:
    """Return the clinical visits: person, day, MMSE, CDR, diagnosis."""
    tables = sorted([*src.rglob("*UDSb4*.csv"), *src.rglob("*[Cc]linical*[Dd]ata*.csv")])
    if len(tables) != 1:
        raise DataError(
            f"{src} holds {len(tables)} tables of clinical visits "
            f"({listed(path.name for path in tables) or 'none'}); expected one. Put "
            "OASIS3_UDSb4_cdr.csv beside the scans."
        )
    visits = read_columns(tables[0], VISITS, optional=("diagnosis",))
    visits["day"] = [day_of(label) for label in visits.pop("label")]
    unusable = visits["day"].isna() | (visits["day"] < -DAYS_A_YEAR)
    if unusable.any():
        notes.append(
            f"{int(unusable.sum())} clinical visits have no day or one more than a year before "
            f"entry and are not used: {listed(map(str, visits['person'][unusable]))}."
        )
    return visits[~unusable]
