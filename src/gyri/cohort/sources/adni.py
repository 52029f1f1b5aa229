"""ADNI-1: T1w scans of people with and without Alzheimer's disease, up to three years.

C. R. Jack et al., "The Alzheimer's Disease Neuroimaging Initiative (ADNI): MRI methods", J. Magn.
Reson. Imaging 27 (2008).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType, bids_label, listed
from gyri.cohort.visits import person_table, read_columns
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Jack et al. (2008), The Alzheimer's Disease Neuroimaging Initiative (ADNI): MRI methods, "
    "Journal of Magnetic Resonance Imaging 27(4), 685-691, https://doi.org/10.1002/jmri.21049"
)
LICENSE = "ADNI data use agreement, https://adni.loni.usc.edu"
SERIES = (
    "MPR__GradWarp__B1_Correction__N3",
    "MPR-R__GradWarp__B1_Correction__N3",
    "MPR__GradWarp__N3",
    "MPR-R__GradWarp__N3",
    "MPR____N3",
    "MPR-R____N3",
    "MPR__GradWarp__B1_Correction",
    "MPR__GradWarp",
    "MPR",
    "MP-RAGE",
    "MPRAGE",
)
"""Series by preference: most corrected first, repeated (-R) scans after the first ones."""

NO_HEAD = re.compile(r"mask|spatially_normalized|hippocamp|hhp|harp|localizer|B1[-_]cal", re.I)
"""Series that are no T1w of a whole head."""

PUBLISHED = {
    "image": ("image_data_id", "image_id", "image_uid"),
    "person": ("subject", "subject_id", "ptid"),
    "group": ("group", "research_group", "dx_group"),
    "sex": ("sex",),
    "age": ("age",),
    "visit": ("visit",),
    "date": ("acq_date", "study_date"),
}
COLUMNS = {
    "age": CONVENTIONAL["age"],
    "sex": CONVENTIONAL["sex"],
    "group": ColumnType(kind="categorical", description="Research group (CN, MCI, AD ...)"),
    "site": ColumnType(kind="categorical", description="Number of the site"),
    "delay": CONVENTIONAL["delay"],
}
OF_THE_SESSION = ("age", "delay")

_FILE = re.compile(r"ADNI_(\d{3}_S_\d{4})_MR_(.+)_Br_\d+_S\d+_I(\d+)\.nii(\.gz)?")


@dataclass(frozen=True)
class Image:
    """One file of the download."""

    path: Path
    person: str
    series: str
    number: str
    """LONI's image identifier without its I."""

    @property
    def rank(self) -> tuple[int, int]:
        """Preference among the images of a visit, lowest first."""
        series = re.sub(r"__Scaled(_2)?$", "", self.series)
        place = SERIES.index(series) if series in SERIES else len(SERIES)
        return place, int(self.number)


@SOURCES.register("adni")
def adni(src: Path, out: Path, *, table: Path | None = None) -> Cohort:
    """ADNI-1: T1w of people with and without Alzheimer's disease, up to three years.

    Layout: a LONI download as it unpacks,
    ``ADNI/002_S_0295/MPR__GradWarp__B1_Correction__N3/2006-04-18_08_20_30.0/S13408`` (or
    ``I45107``) with ``ADNI_002_S_0295_MR_MPR__..._Br_..._S13408_I45107.nii``, and the CSV of the
    same collection (Image Data ID, Subject, Group, Sex, Age, Visit, Acq Date). A visit is a
    session, called as the CSV calls it (``sc``, ``m06``), or by its number where it does not. Of
    several images of a visit the most corrected one is taken, of equals the one with the lowest
    identifier. Masks and normalised images are left out.

    Access: application at https://adni.loni.usc.edu. Citation: Jack et al. 2008, and the
    acknowledgement that the agreement asks for. Licence: ADNI data use agreement. Sharing: see the
    data set's own page; ask ADNI before derived images are shared. The heads show faces. Dates
    and LONI's numbers are not copied; the time since the first scan is, in days.

    Parameters
    ----------
    src : folder of the download (``ADNI`` or the one above) and the table.
    out : raw BIDS data set to be made.
    table : the CSV; None takes the only one in `src`.

    Raises
    ------
    DataError
        No scans, no table, or scans that have no row.
    """
    src = Path(src)
    images, notes = _find(src)
    path = Path(table) if table is not None else _only_csv(src)
    rows = _rows(path, images, notes)
    columns = {name: column for name, column in COLUMNS.items() if name in rows}
    subjects, sessions = person_table(rows, columns, OF_THE_SESSION)
    intake = Intake(stripped=False, faces=True)
    cohort = write_raw(
        out,
        name="ADNI-1",
        subjects=subjects,
        columns=columns,
        scans=_scans(rows, intake),
        sessions=sessions,
        license=LICENSE,
        citation=CITATION,
    )
    cohort.notes += notes + intake.notes() + beside(src)
    return cohort


def _find(src: Path) -> tuple[dict[str, Image], list[str]]:
    """Return the images by number, and what was left out."""
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected an ADNI download. Check the path.")
    images: dict[str, Image] = {}
    left_out = []
    for path in sorted(src.rglob("ADNI_*.nii*")):
        match = _FILE.fullmatch(path.name)
        if match is None or NO_HEAD.search(match[2]):
            left_out.append(match[2] if match else path.suffix)
            continue
        if match[3] in images:
            raise DataError(f"{images[match[3]].path} and {path} are the same scan. Keep one.")
        folder = next((part for part in path.parts if re.fullmatch(r"\d{3}_S_\d{4}", part)), None)
        if folder is not None and folder != match[1]:
            raise DataError(f"{path}: {match[1]} lies in the folder of {folder}. Sort it out.")
        images[match[3]] = Image(path, match[1], match[2], match[3])
    if not images:
        raise DataError(
            f"{src} holds no ADNI scans; expected files like ADNI/002_S_0295/MPR__GradWarp__"
            "B1_Correction__N3/.../ADNI_002_S_0295_MR_..._S13408_I45107.nii."
        )
    refuse_outside(src, (image.path for image in images.values()))
    notes = []
    if left_out:
        kinds = listed(sorted(set(left_out)))
        notes.append(f"{len(left_out)} files are no T1w of a whole head and are left out: {kinds}.")
    return images, notes


def _only_csv(src: Path) -> Path:
    found = sorted(path for path in src.rglob("*.csv") if path.is_file())
    if len(found) != 1:
        raise DataError(
            f"{src} holds {len(found)} CSV tables ({listed(p.name for p in found) or 'none'}); "
            "expected the one of the collection. Say which with `table`."
        )
    return found[0]


def _rows(path: Path, images: dict[str, Image], notes: list[str]) -> pd.DataFrame:
    """Return one row a session: the person, the covariates, and the image chosen."""
    table = read_columns(path, PUBLISHED, optional=("visit", "date", "person"))
    table.index = pd.Index([str(value).lstrip("I") for value in table.pop("image")])
    if table.index.has_duplicates:
        twice = sorted({f"I{n}" for n in table.index[table.index.duplicated()]})
        raise DataError(f"{path} lists the images {listed(twice)} more than once. Keep one each.")
    if strangers := [f"I{number}" for number in images if number not in table.index]:
        raise DataError(
            f"{len(strangers)} scans have no row in {path}: {listed(strangers)}. "
            "Use the CSV of the same collection."
        )
    if unused := len(table.index.difference(list(images))):
        notes.append(f"{unused} rows of the table have no scan here and are left out.")
    rows = table.loc[list(images)].copy()
    rows["image"] = pd.Series(list(images.values()), index=rows.index, dtype=object)
    if "person" in rows:
        wrong = [i.path.name for i, p in zip(images.values(), rows["person"]) if i.person != p]
        if wrong:
            raise DataError(f"{path} gives {listed(wrong)} to another person. Correct the table.")
    rows["person"] = [image.person for image in images.values()]
    rows["day"] = _days(rows)
    rows["visit"] = _visits(rows)
    rows["rank"] = [image.rank for image in images.values()]
    rows = rows.sort_values(["person", "day", "rank"], na_position="last")
    chosen = rows.sort_values("rank", kind="stable").drop_duplicates(["person", "visit"])
    chosen = chosen.sort_values(["person", "day", "rank"])
    if others := len(rows) - len(chosen):
        notes.append(f"{others} further images of the same visits are left out.")
    chosen["subject"] = [bids_label(person) for person in chosen["person"]]
    chosen["session"] = [bids_label(visit) for visit in chosen["visit"]]
    chosen["site"] = [str(int(person[:3])) for person in chosen["person"]]
    if chosen["day"].notna().any():
        chosen["delay"] = chosen["day"]
    return chosen


def _days(rows: pd.DataFrame) -> np.ndarray:
    """Return the time since each person's first scan, in days: dates themselves go no further."""
    if "date" in rows:
        when = pd.to_datetime(rows["date"], errors="coerce", format="mixed")
    else:
        folders = [image.path.parts[-3] for image in rows["image"]]
        when = pd.to_datetime(
            pd.Series([text[:10] for text in folders], index=rows.index), errors="coerce"
        )
    first = when.groupby(rows["person"]).transform("min")
    return (when - first).dt.days.to_numpy(dtype=float)


def _visits(rows: pd.DataFrame) -> list[str]:
    """Return what the table calls each visit, or the visit's number in time."""
    if "visit" in rows and all(str(name).strip() for name in rows["visit"]):
        return [re.sub(r"[^A-Za-z0-9]", "", str(name)) for name in rows["visit"]]
    number = rows["day"].groupby(rows["person"]).rank(method="dense")
    return [str(int(n)) if n == n else "1" for n in number]


def _scans(rows: pd.DataFrame, intake: Intake) -> Iterator[Scan]:
    sessions = list(zip(rows["subject"], rows["session"], rows["image"]))
    for subject, session, image in track(sessions, "Importing ADNI"):
        yield intake.scan(image.path, subject, "T1w", session, Series=image.series)
