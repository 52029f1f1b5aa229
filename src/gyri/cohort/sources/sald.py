"""SALD: T1w scans of 494 healthy people from 19 to 80 years, one scanner.

D. Wei et al., "Structural and functional brain scans from the cross-sectional Southwest University
adult lifespan dataset", Scientific Data 5 (2018).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType, listed, typed
from gyri.cohort.visits import read_columns
from gyri.cohort.workbook import find_table
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Wei et al. (2018), Structural and functional brain scans from the cross-sectional Southwest "
    "University adult lifespan dataset, Scientific Data 5, 180134, "
    "https://doi.org/10.1038/sdata.2018.134"
)
AUTHORS = ("Dongtao Wei", "Kaixiang Zhuang", "Lei Ai", "Qunlin Chen", "Wenjing Yang", "Jiang Qiu")
LICENSE = "CC BY-NC, http://fcon_1000.projects.nitrc.org/indi/retro/sald.html"
SCANNER = "Magnetom TrioTim"
COLUMNS = {
    "age": CONVENTIONAL["age"],
    "sex": CONVENTIONAL["sex"],
    "scanner": ColumnType(
        kind="categorical", description="Scanner's model", levels={SCANNER: "Siemens, 3 T"}
    ),
    "site": ColumnType(
        kind="categorical", description="Site", levels={"SWU": "Southwest University, Chongqing"}
    ),
}
PUBLISHED = {
    "id": ("sub_id", "participant_id", "subject", "id"),
    "age": ("age",),
    "sex": ("sex", "gender"),
}

_FILE = re.compile(r"sub-(031\d{3})_T1w\.nii(\.gz)?")


@SOURCES.register("sald")
def sald(src: Path, out: Path) -> Cohort:
    """SALD: T1w of healthy people from 19 to 80 years, Siemens Magnetom TrioTim.

    Layout: ``sub-031274/anat/sub-031274_T1w.nii.gz``, in one folder or below those of the
    published archives (``sub-031274_sub-031323`` and so on), and ``sub_information.xlsx`` (or a
    CSV of it). Of its two columns called Sex the first is read, written as M and F.
    Functional scans are left out.

    Access: free download from http://fcon_1000.projects.nitrc.org/indi/retro/sald.html after
    agreeing to its terms. Citation: Wei et al. 2018. Licence: CC BY-NC. Sharing: for non-commercial
    use with the citation, see the data set's own page. The heads are taken to show faces.

    Parameters
    ----------
    src : folder of the scans and the table.
    out : raw BIDS data set to be made.

    Raises
    ------
    DataError
        No scans, a scan that comes twice, no table, or a scan without a row.
    """
    src = Path(src)
    files = _find(src)
    path = find_table(src, "*sub_information*", "sub_information.xlsx")
    table = read_columns(path, PUBLISHED)
    table.index = pd.Index([_identifier(path, value) for value in table.pop("id")], name="subject")
    if table.index.has_duplicates:
        twice = sorted(set(table.index[table.index.duplicated()]))
        raise DataError(f"{path} lists {listed(twice)} more than once. Keep one row each.")
    if strangers := [person for person in files if person not in table.index]:
        raise DataError(
            f"{len(strangers)} scans have no row in {path}: {listed(strangers)}. "
            "Use the published sub_information.xlsx."
        )
    subjects = typed(table.loc[list(files)], {name: COLUMNS[name] for name in ("age", "sex")})
    subjects["scanner"], subjects["site"] = SCANNER, "SWU"
    intake = Intake(stripped=False, faces=True)
    cohort = write_raw(
        out,
        name="SALD",
        subjects=subjects,
        columns=COLUMNS,
        scans=_scans(files, intake),
        license=LICENSE,
        citation=CITATION,
        authors=AUTHORS,
    )
    if unused := len(table) - len(files):
        cohort.notes.append(f"{unused} rows of the table have no scan here and are left out.")
    cohort.notes += intake.notes() + beside(src)
    return cohort


def _find(src: Path) -> dict[str, Path]:
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected SALD. Check the path.")
    files: dict[str, Path] = {}
    for path in sorted(src.rglob("sub-031*_T1w.nii*")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        if match[1] in files:
            raise DataError(f"{files[match[1]]} and {path} are the same scan. Keep one.")
        files[match[1]] = path
    if not files:
        raise DataError(
            f"{src} holds no SALD scans; expected files like sub-031274/anat/sub-031274_T1w.nii.gz."
        )
    refuse_outside(src, files.values())
    return files


def _identifier(path: Path, value: object) -> str:
    """Return ``031274`` for 31274, ``031274`` or ``sub-031274``."""
    match = re.fullmatch(r"(?:sub-)?0?(31\d{3})(?:\.0+)?", str(value).strip())
    if match is None:
        raise DataError(f"{path} has the identifier {value!r}; expected one like 031274.")
    return f"0{match[1]}"


def _scans(files: dict[str, Path], intake: Intake) -> Iterator[Scan]:
    for person, path in track(files.items(), "Importing SALD"):
        yield intake.scan(
            path,
            person,
            "T1w",
            Manufacturer="Siemens",
            ManufacturersModelName=SCANNER,
            MagneticFieldStrength=3.0,
        )
