"""OASIS-4: clinical MRI of 663 people from 21 to 94 years with memory disorders.

L. N. Koenig et al., "Select Atrophied Regions in Alzheimer disease (SARA): an improved volumetric
model for identifying Alzheimer disease dementia", NeuroImage: Clinical 26 (2020).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gyri.cohort.oasis_days import Found, find_scans, session_rows, write_sessions
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType, listed
from gyri.cohort.visits import (
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
    "Koenig et al. (2020), Select Atrophied Regions in Alzheimer disease (SARA): an improved "
    "volumetric model for identifying Alzheimer disease dementia, NeuroImage: Clinical 26, 102248, "
    "https://doi.org/10.1016/j.nicl.2020.102248"
)
PEOPLE = {"person": ("oasis_id", "oasisid"), "sex": ("sex",), "group": ("final_dx",)}
IMAGING = {"imaging": ("imaging_id",), "age": ("image_age",)}
VISITS = {
    "person": ("oasis_id", "oasisid"),
    "label": ("cdr_id", "oasis_session_label", "visit_id", "visit_days", "days_to_visit"),
    "cdr": ("cdrtot", "cdr", "cdrglob"),
}
COLUMNS = {
    "age": CONVENTIONAL["age"],
    "sex": CONVENTIONAL["sex"],
    "group": ColumnType(kind="categorical", description="Final diagnosis"),
    "delay": ColumnType(
        kind="continuous", description="Time between the first visit and the scan", unit="day"
    ),
    "cdr": CONVENTIONAL["cdr"],
    "visit_delay": ColumnType(
        kind="continuous", description="Time between the scan and the clinical visit", unit="day"
    ),
}
OF_THE_SESSION = ("age", "delay", "cdr", "visit_delay")


@SOURCES.register("oasis4")
def oasis4(src: Path, out: Path, *, within_days: float = 365) -> Cohort:
    """OASIS-4: clinical MRI of people from 21 to 94 years, with the final diagnosis.

    Layout: as OASIS-3, a folder a session, ``OAS40001_MR_d0000/anat2/NIFTI`` with
    ``sub-OAS40001_sess-d0000_T1w.nii.gz``, and ``OASIS4_data_clinical.csv`` and
    ``OASIS4_data_imaging.csv`` (ages at the scans) anywhere below; ``OASIS4_data_CDR.csv`` where
    it is there. Sex is coded 1 for men and 2 for women.

    Access: application at https://sites.wustl.edu/oasisbrains. Citation: Koenig et al. 2020.
    Licence: OASIS data use terms. Sharing: see the data set's own page for what its terms allow of
    scans and of derived data; never try to identify a person. The heads are taken to show faces.

    Parameters
    ----------
    src : folder of the sessions and the tables.
    out : raw BIDS data set to be made.
    within_days : a CDR further from the scan is not used.

    Raises
    ------
    DataError
        No scans, no table, columns missing, or scans that have no row.
    """
    src = Path(src)
    found = find_scans(src, "OAS4", "OASIS-4")
    notes: list[str] = []
    rows = _rows(src, found)
    ratings = [path for path in sorted(src.rglob("*OASIS4_data_CDR.csv")) if path.is_file()]
    if ratings:
        visits = read_columns(ratings[0], VISITS)
        visits["day"] = [day_of(label) for label in visits.pop("label")]
        rows, alone = nearest_visit(rows, visits[visits["day"].notna()], within_days)
        if alone:
            notes.append(
                f"{len(alone)} sessions have no CDR within {within_days:g} days: {listed(alone)}."
            )
    cohort = write_sessions(
        out,
        found,
        rows,
        name="OASIS-4",
        columns=COLUMNS,
        of_the_session=OF_THE_SESSION,
        citation=CITATION,
    )
    cohort.notes += notes + beside(src)
    return cohort


def _rows(src: Path, found: Found) -> pd.DataFrame:
    """Return one row a session: person, day, age, sex, diagnosis."""
    clinical = find_table(src, "*OASIS4_data_clinical*", "OASIS4_data_clinical.csv")
    people = read_columns(clinical, PEOPLE).groupby("person", sort=False).first()
    people["sex"] = recoded(people["sex"], SEXES)
    imaging = find_table(src, "*OASIS4_data_imaging*", "OASIS4_data_imaging.csv")
    ages = read_columns(imaging, IMAGING).drop_duplicates("imaging").set_index("imaging")["age"]
    rows = session_rows(found, people, clinical)
    keys = [f"{person}_MR_{session}" for person, session in found.sessions]
    if ageless := [key for key in keys if key not in ages.index]:
        raise DataError(
            f"{len(ageless)} scans have no row in {imaging}: {listed(ageless)}. "
            "Use the full published table."
        )
    rows["age"] = ages.loc[keys].to_numpy()
    return rows
