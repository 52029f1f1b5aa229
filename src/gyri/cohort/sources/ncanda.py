"""NCANDA: T1w and T2w scans of 831 people from 12 to 21 years at five sites, yearly.

S. A. Brown et al., "The National Consortium on Alcohol and NeuroDevelopment in Adolescence
(NCANDA): a multisite study of adolescent development and substance use", J. Stud. Alcohol Drugs 76
(2015).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, bids_label, listed
from gyri.cohort.visits import person_table, read_columns
from gyri.cohort.workbook import find_table
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Brown et al. (2015), The National Consortium on Alcohol and NeuroDevelopment in Adolescence "
    "(NCANDA), Journal of Studies on Alcohol and Drugs 76(6), 895-908, "
    "https://doi.org/10.15288/jsad.2015.76.895"
)
LICENSE = "NCANDA data use agreement, https://ncanda.org/data-access.php"
LAYOUT = {
    "native": {"T1w": "structural/native/t1.nii.gz", "T2w": "structural/native/t2.nii.gz"},
    "stripped": {"T1w": "structural/stripped/t1_brain.nii.gz"},
    "sri24": {"T1w": "structural/reslice/sri24/affine/t1_brain.nii.gz"},
}
"""Files of a visit by the kind of image."""

VISITS = ("baseline", *(f"followup_{year}y" for year in range(1, 16)))
PUBLISHED = {
    "person": ("subject",),
    "visit": ("visit",),
    "arm": ("arm",),
    "sex": ("sex",),
    "age": ("visit_age", "age"),
    "site": ("site",),
    "scanner": ("scanner", "mri_scanner", "scanner_model"),
}
COLUMNS = {
    "age": CONVENTIONAL["age"],
    "sex": CONVENTIONAL["sex"],
    "site": CONVENTIONAL["site"],
    "scanner": CONVENTIONAL["scanner"],
}
OF_THE_SESSION = ("age", "scanner")

Key = tuple[str, str]
"""Person and visit, as the folders call them."""


@SOURCES.register("ncanda")
def ncanda(
    src: Path, out: Path, *, image: Literal["native", "stripped", "sri24"] = "native"
) -> Cohort:
    """NCANDA: T1w and T2w of people from 12 to 21 years at five sites, yearly.

    Layout: that of the releases, ``cases/NCANDA_S00033/standard/baseline/structural/native`` with
    ``t1.nii.gz`` and ``t2.nii.gz`` (``stripped/t1_brain.nii.gz``, and
    ``reslice/sri24/affine/t1_brain.nii.gz`` on the SRI24 atlas), ``followup_1y`` and so on beside
    ``baseline``, and ``summaries/redcap/demographics.csv`` (subject, arm, visit, site, sex,
    visit_age). A visit is a session. Only the arm ``standard`` is read.

    Access: application through the NIMH Data Archive, see https://ncanda.org/data-access.php.
    Citation: Brown et al. 2015. Licence: NCANDA data use agreement. Sharing: see the data set's own
    page; many of the people are minors, ask NCANDA before derived images are shared. Native heads
    show faces.

    Parameters
    ----------
    src : folder of the release.
    out : raw BIDS data set to be made.
    image : whole heads, the brains alone, or the brains on the SRI24 atlas.

    Raises
    ------
    DataError
        No scans, no table, columns missing, or visits that have no row.
    """
    src = Path(src)
    files = _find(src, image)
    path = find_table(src, "*demographics*", "summaries/redcap/demographics.csv")
    rows = _rows(path, list(files))
    columns = {name: column for name, column in COLUMNS.items() if name in rows}
    subjects, sessions = person_table(rows, columns, OF_THE_SESSION)
    intake = Intake(stripped=image != "native", faces=image == "native")
    cohort = write_raw(
        out,
        name="NCANDA",
        subjects=subjects,
        columns=columns,
        scans=_scans(files, intake),
        sessions=sessions,
        license=LICENSE,
        citation=CITATION,
    )
    cohort.notes += intake.notes() + beside(src)
    return cohort


def _find(src: Path, image: str) -> dict[Key, dict[str, Path]]:
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected an NCANDA release. Check the path.")
    files: dict[Key, dict[str, Path]] = {}
    for folder in sorted(src.rglob("NCANDA_S*/standard/*")):
        person, visit = folder.parts[-3], folder.name
        if visit not in VISITS or re.fullmatch(r"NCANDA_S\d{5}", person) is None:
            continue
        here = {m: folder / place for m, place in LAYOUT[image].items()}
        here = {modality: path for modality, path in here.items() if path.is_file()}
        if "T1w" not in here:
            continue
        if (person, visit) in files:
            raise DataError(
                f"{files[person, visit]['T1w']} and {here['T1w']} are the same visit. Keep one."
            )
        files[person, visit] = here
    if not files:
        raise DataError(
            f"{src} holds no NCANDA scans; expected files like "
            f"cases/NCANDA_S00033/standard/baseline/{LAYOUT[image]['T1w']}."
        )
    refuse_outside(src, (path for here in files.values() for path in here.values()))
    return dict(sorted(files.items(), key=lambda item: (item[0][0], VISITS.index(item[0][1]))))


def _rows(path: Path, keys: list[Key]) -> pd.DataFrame:
    """Return the table's rows of the visits `keys`, in their order."""
    table = read_columns(path, PUBLISHED, optional=("arm", "scanner"))
    if "arm" in table:
        table = table[table["arm"] == "standard"].drop(columns="arm")
    table = table.set_index(["person", "visit"])
    if table.index.has_duplicates:
        twice = sorted({" ".join(key) for key in table.index[table.index.duplicated()]})
        raise DataError(f"{path} lists {listed(twice)} more than once. Keep one row each.")
    if strangers := [" ".join(key) for key in keys if key not in table.index]:
        raise DataError(
            f"{len(strangers)} visits have scans and no row in {path}: {listed(strangers)}. "
            "Use the demographics of the same release."
        )
    rows = table.loc[keys].reset_index()
    rows["subject"] = [bids_label(person) for person in rows["person"]]
    rows["session"] = [bids_label(visit) for visit in rows["visit"]]
    return rows


def _scans(files: dict[Key, dict[str, Path]], intake: Intake) -> Iterator[Scan]:
    for (person, visit), here in track(files.items(), "Importing NCANDA"):
        for modality, path in here.items():
            yield intake.scan(path, bids_label(person), modality, bids_label(visit))
