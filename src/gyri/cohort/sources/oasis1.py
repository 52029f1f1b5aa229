"""OASIS-1: cross-sectional T1w scans of 416 people from 18 to 96 years.

D. S. Marcus et al., "Open Access Series of Imaging Studies (OASIS): cross-sectional MRI data in
young, middle aged, nondemented, and demented older adults", J. Cogn. Neurosci. 19 (2007).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.sheet import harmonise, read_sheet
from gyri.cohort.table import CONVENTIONAL, Cohort, bids_label, listed, snake_case, typed
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Marcus et al. (2007), Open Access Series of Imaging Studies (OASIS), "
    "Journal of Cognitive Neuroscience 19(9), 1498-1507, https://doi.org/10.1162/jocn.2007.19.9.1498"
)
AUTHORS = (
    "Daniel S. Marcus",
    "Tracy H. Wang",
    "Jamie Parker",
    "John G. Csernansky",
    "John C. Morris",
    "Randy L. Buckner",
)
LICENSE = "OASIS data use terms, https://sites.wustl.edu/oasisbrains/"
COLUMNS = (
    "age", "sex", "handedness", "education", "ses", "mmse", "cdr", "etiv", "nwbv", "asf", "delay",
)  # fmt: skip
OF_THE_SESSION = ("age", "etiv", "nwbv", "asf", "delay")
"""Columns that another session of the same person measures again."""

_FILE = re.compile(r"(OAS1_\d{4})_(MR\d+)_T1w\.nii(\.gz)?")
_ID = re.compile(r"(OAS1_\d{4})_(MR\d+)")
_log = logging.getLogger(__name__)


@SOURCES.register("oasis1")
def oasis1(src: Path, out: Path) -> Cohort:
    """OASIS-1: cross-sectional T1w of people from 18 to 96 years.

    Layout: ``OAS1_0001_MR1_T1w.nii.gz`` files in one folder, with ``oasis_cross-sectional.csv``
    beside them in its published columns (in any order, with or without byte-order mark).
    ``_MR2`` is a second session. CDR, MMSE and SES stay missing where never assessed.

    Access: free after registration at https://sites.wustl.edu/oasisbrains. Citation: Marcus et
    al. 2007. Licence: OASIS data use terms; never try to identify a person.

    Parameters
    ----------
    src : folder of the scans and the table.
    out : raw BIDS data set to be made.

    Raises
    ------
    DataError
        No such folder, no scans, no or another table, or scans that have no row.
    """
    src = Path(src)
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected the OASIS-1 scans. Check the path.")
    files = {
        (match[1], match[2]): path
        for path in sorted(src.iterdir())
        if (match := _FILE.fullmatch(path.name))
    }
    if not files:
        raise DataError(
            f"{src} holds no OASIS-1 scans; expected files like OAS1_0001_MR1_T1w.nii.gz."
        )
    rows = _read_rows(_table_path(src))
    if without_row := ["_".join(key) for key in files if key not in rows.index]:
        raise DataError(
            f"{len(without_row)} scans in {src} have no row in the table: {listed(without_row)}. "
            "Use the full published oasis_cross-sectional.csv."
        )
    unused = len(rows) - len(files)
    _log.info("%d scans; %d rows of the table have no scan here and are left out.",
              len(files), unused)  # fmt: skip
    rows = rows.loc[list(files)]
    subjects = rows.groupby(level=0).first()
    subjects.index = pd.Index([bids_label(name) for name in subjects.index], name="subject")
    sessions = rows[list(OF_THE_SESSION)].reset_index()
    sessions["subject"] = [bids_label(name) for name in sessions["subject"]]
    cohort = write_raw(
        out,
        name="OASIS-1",
        subjects=subjects.drop(columns="delay"),
        columns={name: CONVENTIONAL[name] for name in COLUMNS},
        scans=_scans(files),
        sessions=sessions,
        license=LICENSE,
        citation=CITATION,
        authors=AUTHORS,
    )
    if unused:
        cohort.notes.append(f"{unused} rows of the table have no scan here and are left out.")
    return cohort


def _table_path(src: Path) -> Path:
    found = sorted(p for p in src.glob("*oasis_cross*") if p.suffix.lower() in (".csv", ".tsv"))
    if len(found) != 1:
        raise DataError(
            f"{src} holds {len(found)} tables like oasis_cross-sectional.csv; expected one. "
            "Put the published table beside the scans."
        )
    return found[0]


def _read_rows(path: Path) -> pd.DataFrame:
    """Return the typed table by (person, session)."""
    table = read_sheet(path)
    table.columns = pd.Index([snake_case(name) for name in table.columns])
    table = harmonise(table.rename(columns={"educ": "education", "hand": "handedness"}))
    if absent := [name for name in ("id", *COLUMNS) if name not in table]:
        raise DataError(
            f"{path} lacks the columns {listed(absent)}; it has {', '.join(table.columns)}. "
            "Use the published oasis_cross-sectional.csv."
        )
    keys = [_ID.fullmatch(name) for name in table["id"]]
    if strange := [name for name, key in zip(table["id"], keys) if key is None]:
        raise DataError(
            f"{path} has identifiers {listed(strange)}; expected OAS1_0001_MR1 and the like."
        )
    table.index = pd.MultiIndex.from_tuples(
        [(key[1], key[2]) for key in keys if key], names=["subject", "session"]
    )
    if table.index.has_duplicates:
        twice = ["_".join(key) for key in table.index[table.index.duplicated()]]
        raise DataError(f"{path} lists {listed(twice)} more than once. Keep one row each.")
    return typed(table[list(COLUMNS)], {name: CONVENTIONAL[name] for name in COLUMNS})


def _scans(files: dict[tuple[str, str], Path]) -> Iterator[Scan]:
    for (person, session), path in track(files.items(), "Importing OASIS-1"):
        yield Scan.from_file(path, bids_label(person), "T1w", session)
