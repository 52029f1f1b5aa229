"""OASIS-2: longitudinal T1w scans of 150 people from 60 to 96 years.

D. S. Marcus et al., "Open Access Series of Imaging Studies: longitudinal MRI data in nondemented
and demented older adults", J. Cogn. Neurosci. 22 (2010).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.pair import read_pair
from gyri.cohort.privacy import beside
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType, bids_label, listed
from gyri.cohort.visits import person_table, read_columns
from gyri.cohort.workbook import find_table
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Marcus et al. (2010), Open Access Series of Imaging Studies: longitudinal MRI data in "
    "nondemented and demented older adults, Journal of Cognitive Neuroscience 22(12), 2677-2684, "
    "https://doi.org/10.1162/jocn.2009.21407"
)
AUTHORS = (
    "Daniel S. Marcus",
    "Anthony F. Fotenos",
    "John G. Csernansky",
    "John C. Morris",
    "Randy L. Buckner",
)
LICENSE = "OASIS data use terms, https://sites.wustl.edu/oasisbrains/"
AXES = "ASL"
"""How the raw sagittal scans are stored: to anterior, to superior, to left."""

EDUCATION = ColumnType(kind="continuous", description="Years of education", unit="year")
PUBLISHED = {
    "mri": ("mri_id",),
    "group": ("group",),
    "visit": ("visit",),
    "delay": ("mr_delay",),
    "sex": ("m_f", "sex"),
    "handedness": ("hand",),
    "age": ("age",),
    "education_years": ("educ", "education"),
    "ses": ("ses",),
    "mmse": ("mmse",),
    "cdr": ("cdr",),
    "etiv": ("e_tiv", "etiv"),
    "nwbv": ("n_wbv", "nwbv"),
    "asf": ("asf",),
}
OF_THE_SESSION = ("age", "visit", "delay", "mmse", "cdr", "etiv", "nwbv", "asf")
COLUMNS = {
    "group": ColumnType(
        kind="categorical",
        description="Group over the whole study; Converted became demented during it",
        levels={level: level for level in ("Nondemented", "Demented", "Converted")},
    ),
    "visit": ColumnType(kind="continuous", description="Number of the visit"),
    "education_years": EDUCATION,
    **{
        name: CONVENTIONAL[name]
        for name in (
            "delay", "sex", "handedness", "age", "ses", "mmse", "cdr", "etiv", "nwbv", "asf"
        )
    },
}  # fmt: skip

_SESSION = re.compile(r"(OAS2_\d{4})_(MR\d+)")
_RUN = re.compile(r"mpr-(\d+)\.nifti\.(img|hdr)")


@SOURCES.register("oasis2")
def oasis2(src: Path, out: Path, *, runs: Literal["average", "first"] = "average") -> Cohort:
    """OASIS-2: longitudinal T1w of people from 60 to 96 years, 2 to 5 visits each.

    Layout: ``OAS2_RAW_PART1`` and ``OAS2_RAW_PART2``, each with folders like
    ``OAS2_0001_MR1/RAW`` of ``mpr-1.nifti.hdr`` and ``.img`` to ``mpr-4``, and the table
    ``oasis_longitudinal_demographics`` (xlsx, or CSV with any delimiter, decimal commas and CR
    line ends). Every ``_MRn`` is a session. A header that declares no orientation is taken as
    sagittal, stored to anterior, superior and left.

    Access: free after registration at https://sites.wustl.edu/oasisbrains. Citation: Marcus et
    al. 2010. Licence: OASIS data use terms. Sharing: see the data set's own page for what its terms
    allow of scans and of derived data; never try to identify a person. The heads are whole: the
    images are taken to show faces.

    Parameters
    ----------
    src : folder of the parts (or of the sessions) and the table.
    out : raw BIDS data set to be made.
    runs : average the repetitions of a session after rigid alignment, or take the first.

    Raises
    ------
    DataError
        No sessions, half a pair, no table, columns missing, or scans that have no row.
    """
    src = Path(src)
    files = _find(src)
    path = find_table(src, "*oasis_long*", "oasis_longitudinal_demographics.xlsx")
    rows = _rows(path, list(files))
    intake = Intake(stripped=False, faces=True, read=functools.partial(read_pair, axes=AXES))
    subjects, sessions = person_table(rows, COLUMNS, OF_THE_SESSION)
    cohort = write_raw(
        out,
        name="OASIS-2",
        subjects=subjects,
        columns=COLUMNS,
        scans=_scans(files, intake, runs),
        sessions=sessions,
        license=LICENSE,
        citation=CITATION,
        authors=AUTHORS,
    )
    cohort.notes += intake.notes() + beside(src)
    return cohort


def _find(src: Path) -> dict[tuple[str, str], list[Path]]:
    """Return the header of every repetition by (person, session)."""
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected OASIS-2. Check the path.")
    files: dict[tuple[str, str], dict[int, Path]] = {}
    for path in sorted(src.rglob("OAS2_*_MR*/RAW/mpr-*")):
        session, run = _SESSION.fullmatch(path.parts[-3]), _RUN.fullmatch(path.name)
        if session is None or run is None:
            continue
        known = files.setdefault((session[1], session[2]), {})
        header = path.with_suffix(".hdr")
        if known.setdefault(int(run[1]), header) != header:
            raise DataError(f"{header} and {known[int(run[1])]} are the same scan. Keep one.")
    if not files:
        raise DataError(
            f"{src} holds no OASIS-2 scans; expected files like "
            "OAS2_RAW_PART1/OAS2_0001_MR1/RAW/mpr-1.nifti.hdr."
        )
    refuse_outside(src, (path for known in files.values() for path in known.values()))
    return {key: [known[run] for run in sorted(known)] for key, known in sorted(files.items())}


def _rows(path: Path, keys: list[tuple[str, str]]) -> pd.DataFrame:
    """Return the table's rows of the sessions `keys`, in their order."""
    table = read_columns(path, PUBLISHED).set_index("mri")
    if table.index.has_duplicates:
        twice = sorted(set(table.index[table.index.duplicated()]))
        raise DataError(f"{path} lists {listed(twice)} more than once. Keep one row each.")
    names = ["_".join(key) for key in keys]
    if without_row := [name for name in names if name not in table.index]:
        raise DataError(
            f"{len(without_row)} scans have no row in {path}: {listed(without_row)}. "
            "Use the full published table."
        )
    rows = table.loc[names].reset_index(drop=True)
    rows.insert(0, "subject", [bids_label(person) for person, _ in keys])
    rows.insert(1, "session", [session for _, session in keys])
    return rows


def _scans(files: dict[tuple[str, str], list[Path]], intake: Intake, runs: str) -> Iterator[Scan]:
    for (person, session), paths in track(files.items(), "Importing OASIS-2"):
        chosen = paths if runs == "average" else paths[:1]
        yield intake.mean(chosen, bids_label(person), "T1w", session)
